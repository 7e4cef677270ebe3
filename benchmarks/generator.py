"""How fast the generator is, with TensorFlow's own kernels and with oneDNN's: python benchmarks/generator.py.

Each row is a process of its own; the machine should have nothing else to do.
"""

from __future__ import annotations

import argparse
import os
import statistics
import subprocess
import sys
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent


def measure(generator: Path, count: int, runs: int) -> str:
    """One row: the median time of one picture, and of the best half of them, and pictures a second of many."""
    sys.path.insert(0, str(ROOT))
    import numpy as np

    from atelier.generator.painter import Painter
    from atelier.seeds import STYLES, latent_from_seed

    painter = Painter.load(generator)
    latents = np.stack([latent_from_seed(seed, painter.latent_dim) for seed in range(count)])
    styles = [STYLES[seed % len(STYLES)] for seed in range(count)]

    def seconds(number: int) -> float:
        began = time.perf_counter()
        painter.paint(latents[:number], styles[:number])
        return time.perf_counter() - began

    for number in (1, count, 1, count):  # the first of each size builds a graph
        seconds(number)
    one = sorted(seconds(1) for _ in range(10 * runs))
    many = statistics.median(seconds(count) for _ in range(runs))
    return (
        f"{1000 * statistics.median(one):.1f} ms | {1000 * statistics.median(one[: 5 * runs]):.1f} ms "
        f"| {count / many:.0f} a second |"
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--generator", type=Path, default=ROOT / "generator.h5", metavar="FILE", help="which one")
    parser.add_argument("--count", type=int, default=64, metavar="N", help="pictures at a time (default 64)")
    parser.add_argument("--runs", type=int, default=15, metavar="N", help="of which the median counts (default 15)")
    parser.add_argument("--row", action="store_true", help=argparse.SUPPRESS)  # what the processes are started with
    options = parser.parse_args()
    if options.row:
        print(measure(options.generator, options.count, options.runs))
        return
    print(f"processors: {len(os.sched_getaffinity(0))}")
    print(f"| kernels | one picture | the faster half | {options.count} pictures |\n|---|---|---|---|")
    for name, wish in (("TensorFlow's own", "0"), ("oneDNN", "1")):
        environment = os.environ | {"TF_ENABLE_ONEDNN_OPTS": wish}
        command = [sys.executable, *sys.argv, "--row"]
        row = subprocess.run(command, env=environment, stdout=subprocess.PIPE, text=True, check=True).stdout
        print(f"| {name} | {row.strip()}", flush=True)


if __name__ == "__main__":
    main()
