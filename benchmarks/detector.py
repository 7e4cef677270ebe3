"""How fast the detector is: python benchmarks/detector.py. Pictures are drawn at random: no data set is needed."""

from __future__ import annotations

import argparse
import io
import os
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
from PIL import Image

ROOT = Path(__file__).resolve().parent.parent


def files(count: int, width: int, height: int, folder: Path) -> list[Path]:
    """JPEG files of smooth noise with some grain."""
    rng, paths = np.random.default_rng(0), []
    for number in range(count):
        small = Image.fromarray(rng.integers(0, 256, (12, 16, 3), np.uint8))
        smooth = np.asarray(small.resize((width, height), Image.Resampling.BICUBIC), np.int16)
        grainy = smooth + rng.integers(-8, 9, smooth.shape, np.int16)
        paths.append(folder / f"{width}-{number}.jpg")
        Image.fromarray(np.clip(grainy, 0, 255).astype(np.uint8)).save(paths[-1], quality=90)
    return paths


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--count", type=int, default=256, metavar="N", help="pictures (default 256)")
    parser.add_argument("--batch", type=int, default=8, metavar="N", help="pictures in a batch (default 8)")
    options = parser.parse_args()
    sys.path.insert(0, str(ROOT))
    from atelier.detector import Detector

    detector = Detector.load(ROOT / "detector.h5")
    print(f"processors: {len(os.sched_getaffinity(0))}")
    with tempfile.TemporaryDirectory() as folder:
        for width, height in ((336, 224), (1024, 768)):
            paths = files(options.count, width, height, Path(folder))
            opened = [Image.open(io.BytesIO(path.read_bytes())) for path in paths]
            for name, pictures in (("files", paths), ("opened by Pillow", opened)):
                detector.probabilities(paths[: options.batch], options.batch)  # the first batch compiles
                wall, processor = time.perf_counter(), time.process_time()
                detector.probabilities(pictures, options.batch)
                wall, processor = time.perf_counter() - wall, time.process_time() - processor
                print(
                    f"{width} x {height}, {name}: {len(paths) / wall:.0f} pictures/s, "
                    f"{1000 * processor / len(paths):.1f} ms of processor time a picture"
                )


if __name__ == "__main__":
    main()
