"""BLIP in Keras against BLIP in torch, and how fast the shipped captioner is, as tables.

    python benchmarks/captioner.py            # the base model, random weights, ours against transformers + torch
    python benchmarks/captioner.py --shipped  # the captioner of this repository

Every figure comes from a process of its own, the two implementations taking turns; the machine should have nothing
else to do. The comparison needs the requirements in tests/parity/requirement.txt, and about 4 GB of memory.
"""

from __future__ import annotations

import argparse
import functools
import json
import os
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np

ROOT = Path(__file__).resolve().parent.parent
TOKENS = 20
CASES = [(1, 1), (1, 3), (8, 1), (8, 3)]  # pictures, beams


def peak_mib() -> float:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def medians(work, runs: int) -> tuple[float, float]:
    """Seconds by the wall's clock and by the processor's, of `work()` after one call to warm up."""
    work()
    walls, processors = [], []
    for _ in range(runs):
        wall, processor = time.perf_counter(), time.process_time()
        work()
        walls.append(time.perf_counter() - wall)
        processors.append(time.process_time() - processor)
    return statistics.median(walls), statistics.median(processors)


def pixels(count: int, size: int) -> np.ndarray:
    return np.random.default_rng(count).standard_normal((count, size, size, 3)).astype("float32")


def ours(folder: Path, count: int, beams: int, runs: int) -> dict[str, float]:
    """One case of ours: seconds to load, for one batch, and MiB at the peak."""
    sys.path.insert(0, str(ROOT))
    from atelier.backend import import_keras

    import_keras()
    from atelier.captioner.checkpoints import read_tensors
    from atelier.captioner.config import BlipConfig
    from atelier.captioner.decoding import Decoder, Search
    from atelier.captioner.weights import build

    began = time.perf_counter()
    model = build(BlipConfig.from_file(folder / "config.json"), read_tensors(folder / "model.safetensors"))
    loaded = time.perf_counter() - began
    decoder, shown = Decoder(model), pixels(count, model.config.vision.image_size)
    search = Search(beams, TOKENS + 1, TOKENS + 1, 0)
    wall, processor = medians(lambda: decoder(shown, [model.config.text.bos_token_id], search), runs)
    return {"load_s": loaded, "wall_s": wall, "cpu_s": processor, "peak_mib": peak_mib()}


def theirs(folder: Path, count: int, beams: int, runs: int) -> dict[str, float]:
    """The same of transformers and torch."""
    import torch
    import transformers

    began = time.perf_counter()
    model = transformers.BlipForConditionalGeneration.from_pretrained(folder).eval()
    loaded = time.perf_counter() - began
    config = model.config
    shown = torch.from_numpy(pixels(count, config.vision_config.image_size).transpose(0, 3, 1, 2).copy())
    kind = {"num_beams": beams, "min_length": TOKENS + 1, "max_length": TOKENS + 1, "do_sample": False}

    def caption():
        with torch.inference_mode():
            start = torch.full(
                (count, 2), config.text_config.sep_token_id
            )  # `generate` overwrites the first, cuts the last
            model.generate(pixel_values=shown, input_ids=start, **kind)

    wall, processor = medians(caption, runs)
    return {"load_s": loaded, "wall_s": wall, "cpu_s": processor, "peak_mib": peak_mib()}


def write_checkpoint(config: Path, folder: Path) -> None:
    """A checkpoint of `config`'s shape with random weights, in a process that leaves its memory."""
    code = (
        "import sys, torch, transformers; torch.manual_seed(0); "
        "config = transformers.BlipConfig.from_pretrained(sys.argv[1]); "
        "model = transformers.BlipForConditionalGeneration(config); "
        "[torch.nn.init.normal_(p, p.mean().item(), 0.02) for p in model.parameters()]; "
        "model.save_pretrained(sys.argv[2])"
    )
    subprocess.run([sys.executable, "-c", code, str(config), str(folder)], check=True, stderr=subprocess.DEVNULL)


def one_case(who: str, folder: Path, count: int, beams: int, runs: int) -> dict[str, float]:
    command = [sys.executable, __file__, "--case", who, str(folder), str(count), str(beams), "--runs", str(runs)]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    return json.loads(done.stdout.splitlines()[-1])


def compare(config: Path, runs: int, cases: list[tuple[int, int]]) -> None:
    with tempfile.TemporaryDirectory() as folder:
        write_checkpoint(config, Path(folder))
        print("| pictures | beams | ours, s | torch, s | times as fast | ours, MiB | torch, MiB |\n" + "|---" * 7 + "|")
        for count, beams in cases:
            one, other = (one_case(who, Path(folder), count, beams, runs) for who in ("ours", "theirs"))
            row = [f"{one['wall_s']:.2f}", f"{other['wall_s']:.2f}", f"{other['wall_s'] / one['wall_s']:.2f}"]
            row += [f"{one['peak_mib']:.0f}", f"{other['peak_mib']:.0f}"]
            print(f"| {count} | {beams} | {' | '.join(row)} |", flush=True)


def shipped(runs: int) -> None:
    """The shipped captioner with its default search, and with artworks' three beams, on the pictures of the samples."""
    sys.path.insert(0, str(ROOT))
    from PIL import Image

    from atelier.backend import import_keras

    import_keras()
    from atelier.captioner import Captioner

    began, processor = time.perf_counter(), time.process_time()
    captioner = Captioner.load(ROOT / "captioner")
    loaded, loaded_cpu = time.perf_counter() - began, time.process_time() - processor
    images = [Image.open(path).convert("RGB") for path in sorted((ROOT / "outputs" / "samples").glob("*.png"))] * 16
    rows = [("load, TensorFlow imported", f"{loaded:.2f} s", f"{loaded_cpu:.2f} s", "<= 2 s")]
    for beams, name, bars in ((1, "", ("<= 60 ms", ">= 60 per second")), (3, ", three beams", ("", ""))):
        one, one_cpu = medians(functools.partial(captioner.caption, images[:1], num_beams=beams), runs)
        many, many_cpu = medians(functools.partial(captioner.caption, images[:32], num_beams=beams), max(3, runs // 3))
        rows += [
            (f"one picture, warm{name}", f"{one * 1000:.0f} ms", f"{one_cpu * 1000:.0f} ms", bars[0]),
            (f"32 pictures, warm{name}", f"{32 / many:.0f} per second", f"{many_cpu / 32 * 1000:.0f} ms each", bars[1]),
        ]
    rows.append(("memory at the peak", f"{peak_mib():.0f} MiB", "", ""))
    print(f"{os.cpu_count()} processors seen, {len(os.sched_getaffinity(0))} used\n\n| | wall | processor | bar |")
    print("|---|---|---|---|")
    for row in rows:
        print(f"| {' | '.join(row)} |")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--config", type=Path, default=ROOT / "data" / "blip-base", help="folder with a config.json")
    parser.add_argument("--runs", type=int, default=5, help="runs that the medians are taken over")
    parser.add_argument("--shipped", action="store_true", help="measure the shipped captioner")
    parser.add_argument("--case", nargs=4, metavar=("WHO", "FOLDER", "PICTURES", "BEAMS"), help="one case, as JSON")
    options = parser.parse_args()
    if options.case:
        who, folder, count, beams = options.case
        figures = {"ours": ours, "theirs": theirs}[who](Path(folder), int(count), int(beams), options.runs)
        print(json.dumps(figures))
    elif options.shipped:
        shipped(options.runs)
    else:
        compare(options.config, options.runs, CASES)


if __name__ == "__main__":
    main()
