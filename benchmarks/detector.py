"""How fast the detector is: python benchmarks/detector.py. Pictures are drawn at random: no data set is needed."""

from __future__ import annotations

import argparse
import io
import os
import sys
import time
from pathlib import Path

import numpy as np
from PIL import Image

ROOT = Path(__file__).resolve().parent.parent


def files(count: int, width: int, height: int) -> list[bytes]:
    """JPEG files of smooth noise."""
    rng, made = np.random.default_rng(0), []
    for _ in range(count):
        small = Image.fromarray(rng.integers(0, 256, (12, 16, 3), np.uint8))
        buffer = io.BytesIO()
        small.resize((width, height), Image.Resampling.BICUBIC).save(buffer, "JPEG", quality=90)
        made.append(buffer.getvalue())
    return made


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--count", type=int, default=256, metavar="N", help="pictures (default 256)")
    parser.add_argument("--batch", type=int, default=16, metavar="N", help="pictures at a time (default 16)")
    options = parser.parse_args()
    sys.path.insert(0, str(ROOT))
    from atelier.detector import Detector

    detector = Detector.load(ROOT / "detector.h5")
    print(f"processors: {len(os.sched_getaffinity(0))}")
    for width, height in ((336, 224), (1024, 768)):
        data = files(options.count, width, height)
        detector.probabilities([Image.open(io.BytesIO(each)) for each in data[: options.batch]], options.batch)
        wall, processor = time.perf_counter(), time.process_time()
        for start in range(0, len(data), options.batch):
            some = [Image.open(io.BytesIO(each)) for each in data[start : start + options.batch]]
            detector.probabilities(some, options.batch)
        wall, processor = time.perf_counter() - wall, time.process_time() - processor
        print(
            f"{width} x {height}: {len(data) / wall:.0f} pictures/s, "
            f"{1000 * processor / len(data):.1f} ms of processor time a picture"
        )


if __name__ == "__main__":
    main()
