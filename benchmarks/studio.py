"""How fast the studio is and what memory it takes, as a table: `make benchmark`.

Each figure is the median of several runs in a process of its own; the machine should have nothing else to do.
"""

from __future__ import annotations

import argparse
import json
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent


def warm_figures(runs: int) -> dict[str, float]:
    """Milliseconds for one artwork, artworks per second in a batch of 32, MiB at the peak; files are written."""
    sys.path.insert(0, str(ROOT))
    from atelier.config import Config
    from atelier.studio import Studio

    studio = Studio.open(Config.from_yaml(ROOT / "config.yaml"))
    with tempfile.TemporaryDirectory() as folder:

        def seconds(count: int) -> float:
            began = time.perf_counter()
            artworks = studio.create([None] * count, folder=folder)
            if failed := [artwork.caption_error for artwork in artworks if artwork.caption is None]:
                raise SystemExit(f"no caption: {failed[0]}")
            return time.perf_counter() - began

        for count in (1, 32):  # the first of each size compiles
            seconds(count)
        one = statistics.median(seconds(1) for _ in range(runs))
        many = statistics.median(seconds(32) for _ in range(runs))
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    return {"one_ms": one * 1000, "batch_per_s": 32 / many, "peak_mib": peak}


def seconds_to_first_line() -> float:
    """From process start to the first JSON line of `python -m atelier create`."""
    with tempfile.TemporaryDirectory() as folder:
        command = [sys.executable, "-m", "atelier", "create", "--out", folder]
        began = time.perf_counter()
        process = subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL)
        line = process.stdout.readline()
        taken = time.perf_counter() - began
        process.communicate()
    if not json.loads(line)["caption"]:
        raise SystemExit(f"no caption: {line}")
    return taken


def import_seconds() -> float:
    """`import atelier.studio`, in a fresh process."""
    began = time.perf_counter()
    subprocess.run([sys.executable, "-c", "import atelier.studio"], cwd=ROOT, check=True)
    return time.perf_counter() - began


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--runs", type=int, default=10, help="runs that the medians are taken over")
    parser.add_argument("--warm", action="store_true", help="only the warm figures, as JSON")
    options = parser.parse_args()
    if options.warm:
        print(json.dumps(warm_figures(options.runs)))
        return
    command = [sys.executable, __file__, "--warm", "--runs", str(options.runs)]
    warm = json.loads(subprocess.run(command, check=True, capture_output=True, text=True).stdout.splitlines()[-1])
    first = statistics.median(seconds_to_first_line() for _ in range(3))
    imported = statistics.median(import_seconds() for _ in range(3))
    rows = [
        ("one artwork with caption, warm", f"{warm['one_ms']:.0f} ms", "<= 150 ms"),
        ("32 artworks with captions, warm", f"{warm['batch_per_s']:.0f} per second", ">= 20 per second"),
        ("process start to first JSON line", f"{first:.1f} s", "<= 12 s"),
        ("peak memory", f"{warm['peak_mib']:.0f} MiB", "<= 1536 MiB"),
        ("import atelier.studio", f"{imported:.2f} s", ""),
    ]
    print(f"| {'':34} | {'measured':>16} | {'wanted':>16} |\n|{'-' * 36}|{'-' * 18}|{'-' * 18}|")
    for row in rows:
        print(f"| {row[0]:34} | {row[1]:>16} | {row[2]:>16} |")


if __name__ == "__main__":
    main()
