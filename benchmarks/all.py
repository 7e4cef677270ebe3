"""Atelier beside what one would take instead, on one machine in one run: ratios. `make benchmarks-all`.

    captioning  the base BLIP with the same weights: Keras here, transformers + torch there
    training    the same DCGAN: `GAN.fit` here, PyTorch's own example there
    data        the preparation of a data set: `prepare` here, a plain Pillow loop and `datasets.map` there
    main        one artwork by `main()`, in a new process and again: a torch DCGAN + transformers' BLIP there
    studio      the figures of `make benchmark`, which have no peer

A ratio is how many times as fast Atelier is: above 1 is faster. The two sides take turns in processes of their own, and
the median of the rounds counts. Prints a table and adds a JSON line for each row to --out, which `make report` reads.
Needs tests/parity/requirement.txt, extras/prepare.txt and extras/benchmark.txt; a comparison whose peer is missing is
left out, and the table says so. Give it a machine with nothing else to do; --tiny only shows that all of it runs.
"""

from __future__ import annotations

import argparse
import importlib.util
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from importlib.metadata import version
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

TORCH, TRANSFORMERS, DATASETS = ("torch",), ("torch", "transformers"), ("datasets",)


def row(name: str, what: str, ours: float, theirs: float, unit: str, peers: tuple[str, ...]) -> dict:
    """A record of one comparison; `unit` says what both numbers are, seconds or pictures per second."""
    faster = ours / theirs if unit.endswith("per second") else theirs / ours
    peer = " + ".join(f"{package} {version(package)}" for package in peers) or "a Pillow loop"
    record = {"name": name, "what": what, "unit": unit, "ours": ours, "peer": peer, "theirs": theirs, "ratio": faster}
    return {key: float(f"{value:.4g}") if isinstance(value, float) else value for key, value in record.items()}


def json_of(*command: object) -> dict:
    """The last line that a Python script prints, in a process of its own."""
    done = subprocess.run([sys.executable, *map(str, command)], capture_output=True, text=True, cwd=ROOT)
    if done.returncode:
        raise SystemExit(f"{' '.join(map(str, command))} ended with {done.returncode}:\n{done.stderr[-2000:]}")
    return json.loads(done.stdout.splitlines()[-1])


def taking_turns(rounds: int, ours: Callable[[], float], theirs: Callable[[], float]) -> tuple[float, float]:
    """Medians of both."""
    pairs = [(ours(), theirs()) for _ in range(rounds)]
    return tuple(statistics.median(side) for side in zip(*pairs, strict=True))


def captioning(options: argparse.Namespace) -> Iterator[dict]:
    import captioner

    config = options.blip
    if not (config / "config.json").is_file():
        raise SystemExit(f"no config.json of BLIP in {config}: --blip names its folder")
    with tempfile.TemporaryDirectory() as folder:
        if options.tiny:
            config = _tiny_blip(Path(folder) / "config")
        weights = Path(folder) / "weights"
        captioner.write_checkpoint(config, weights)
        for count, beams in [(1, 3), (8, 3)][: 1 if options.tiny else None]:
            cases = {"ours": [], "theirs": []}
            for _ in range(options.rounds):
                for who, found in cases.items():
                    found.append(captioner.one_case(who, weights, count, beams, 1 if options.tiny else 3)["wall_s"])
            what = f"BLIP captions {count} picture{'s' * (count > 1)}, {beams} beams, equal weights"
            medians = [statistics.median(found) for found in cases.values()]
            yield row(f"captioning-{count}x{beams}", what, *medians, "s", TRANSFORMERS)


def _tiny_blip(folder: Path) -> Path:
    shared = {"hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 1, "num_attention_heads": 2}
    text = shared | {"vocab_size": 200, "bos_token_id": 1, "pad_token_id": 0, "eos_token_id": 2, "sep_token_id": 2}
    vision = shared | {"image_size": 32, "patch_size": 16}
    folder.mkdir()
    (folder / "config.json").write_text(
        json.dumps({"model_type": "blip", "text_config": text | {"encoder_hidden_size": 32}, "vision_config": vision})
    )
    return folder


def training(options: argparse.Namespace) -> Iterator[dict]:
    size = ("--batch", 8, "--seconds", 1, "--rounds", 1) if options.tiny else ("--rounds", options.rounds)
    speeds = json_of(ROOT / "benchmarks" / "training.py", *size)["pictures_per_second"]
    yield row("training", "a DCGAN at 64 px", speeds["ours"], speeds["torch"], "pictures per second", TORCH)


def data(options: argparse.Namespace) -> Iterator[dict]:
    import dataset

    count = 40 if options.tiny else options.pictures
    with tempfile.TemporaryDirectory() as folder:
        scratch = Path(folder)
        source = dataset.make_pictures(scratch, count, painted=min(count, 500))
        for path in source.rglob("*.jpg"):  # all find the files in the operating system's cache
            path.read_bytes()

        def ours() -> float:
            return dataset.prepare(source, dataset.fresh(scratch, "prepared"), "--features", "none")["seconds"]

        def loop() -> float:
            return dataset.pillow_loop(source, dataset.fresh(scratch, "loop"))

        what = f"{count:,} pictures of 256 px checked, hashed and written as Parquet"
        yield row("data-loop", what, *taking_turns(options.rounds, ours, loop), "s", ())
        if _missing(DATASETS):
            raise MissingPeer(DATASETS)

        def mapped() -> float:
            out = dataset.fresh(scratch, "mapped")
            out.mkdir()
            return json_of(__file__, "--map", source, out)["seconds"]

        yield row("data-map", what, *taking_turns(options.rounds, ours, mapped), "s", DATASETS)


def datasets_map(source: Path, out: Path) -> float:
    """Seconds for the steps of `dataset.pillow_loop` with Hugging Face's `datasets`, on all processors."""
    began = time.perf_counter()
    os.environ["HF_DATASETS_CACHE"] = str(out / "cache")
    from datasets import Dataset, disable_progress_bars

    disable_progress_bars()
    table = Dataset.from_dict({"source": [str(path) for path in sorted(source.rglob("*.jpg"))]})
    processes = len(os.sched_getaffinity(0))
    table = table.map(_examined, num_proc=processes if processes > 1 else None)
    table = table.filter(lambda fine: fine, input_columns="fine")
    seen: set[str] = set()
    table = table.filter(lambda digest: digest not in seen and not seen.add(digest), input_columns="sha256")
    table.remove_columns("fine").to_parquet(out / "pictures.parquet")
    return time.perf_counter() - began


def _examined(record: dict) -> dict:
    """One picture, as `dataset.pillow_loop` examines it."""
    import hashlib
    import io

    import numpy as np
    from PIL import Image, ImageOps

    content = Path(record["source"]).read_bytes()
    image = ImageOps.exif_transpose(Image.open(io.BytesIO(content))).convert("RGB")
    fine = min(image.size) >= 64 and max(image.size) <= 4 * min(image.size)
    thumbnail = np.asarray(image.resize((32, 32), Image.Resampling.BOX))
    small = np.asarray(image.convert("L").resize((9, 8), Image.Resampling.BOX), np.int16)
    return {
        "image": content,
        "hash": np.packbits(small[:, 1:] > small[:, :-1]).tobytes().hex(),
        "sha256": hashlib.sha256(image.tobytes()).hexdigest(),
        "fine": bool(fine and thumbnail.mean(axis=2).std() >= 4),
    }


def main_of_both(options: argparse.Namespace) -> Iterator[dict]:
    runs = 2 if options.tiny else 10
    sides = [
        [json_of(__file__, "--side", who, "--runs", runs) for who in ("ours", "theirs")] for _ in range(options.rounds)
    ]
    for name, what in (("cold", "main() in a new process, imports and models included"), ("warm", "main() again")):
        ours, theirs = (statistics.median(pair[side][name] for pair in sides) for side in (0, 1))
        yield row(f"main-{name}", what, ours, theirs, "s", TRANSFORMERS)


def our_main(runs: int) -> dict[str, float]:
    """`main()` of main.ipynb as anybody calls it, in this process from its start on."""
    cells = json.loads((ROOT / "main.ipynb").read_text(encoding="utf-8"))["cells"]
    notebook: dict = {"__name__": "notebook"}
    with tempfile.TemporaryDirectory() as folder:
        os.chdir(ROOT)
        for cell in cells:
            if cell["cell_type"] == "code":
                exec("".join(cell["source"]), notebook)

        def once() -> None:
            answer = notebook["main"](output_dir=folder)
            if answer["caption"] is None:
                raise SystemExit(f"no caption: {answer}")

        return _cold_and_warm(once, runs)


def their_main(runs: int) -> dict[str, float]:
    """The same by torch and transformers: a DCGAN of PyTorch's example's shape, a BLIP of the captioner's sizes, a PNG.

    The weights are random: what is drawn and said costs the same. Their BLIP cuts its 6 x 6 patches from the pixels,
    where the shipped one has a MobileNetV2 in front, which is ours to pay.
    """
    import numpy as np
    import torch
    import transformers
    from PIL import Image
    from torch import nn

    layers, before = [], 128
    for after, stride, padding in ((256, 1, 0), (128, 2, 1), (64, 2, 1), (32, 2, 1)):
        layers += [nn.ConvTranspose2d(before, after, 4, stride, padding, bias=False), nn.BatchNorm2d(after), nn.ReLU()]
        before = after
    painter = nn.Sequential(*layers, nn.ConvTranspose2d(before, 3, 4, 2, 1), nn.Tanh()).eval()
    config = json.loads((ROOT / "captioner" / "config.json").read_text())
    sizes = ("hidden_size", "intermediate_size", "num_attention_heads", "num_hidden_layers")
    text, vision = ({key: config[part][key] for key in sizes} for part in ("text_config", "vision_config"))
    side = config["vision_config"]["image_size"]
    words = {"vocab_size": config["text_config"]["vocab_size"], "encoder_hidden_size": vision["hidden_size"]}
    ids = {"bos_token_id": 1, "pad_token_id": 0, "eos_token_id": 2, "sep_token_id": 2}
    patches = {"image_size": side, "patch_size": side // 6}
    blip = transformers.BlipConfig(text_config=text | words | ids, vision_config=vision | patches)
    captioner = transformers.BlipForConditionalGeneration(blip).eval()

    def once() -> None:
        with torch.inference_mode(), tempfile.TemporaryDirectory() as folder:
            pixels = ((painter(torch.randn(1, 128, 1, 1))[0] + 1) * 127.5).permute(1, 2, 0).byte().numpy()
            picture = Image.fromarray(pixels).resize((256, 256), Image.Resampling.LANCZOS)
            picture.save(Path(folder) / "picture.png")
            seen = np.asarray(picture.resize((side, side), Image.Resampling.BICUBIC), np.float32) / 127.5 - 1
            shown = torch.from_numpy(seen).permute(2, 0, 1)[None]
            captioner.generate(pixel_values=shown, num_beams=3, min_length=15, max_length=15, do_sample=False)

    return _cold_and_warm(once, runs)


def _cold_and_warm(once: Callable[[], None], runs: int) -> dict[str, float]:
    """Seconds from this process's start to the end of the first call, and the median of the next ones."""
    once()
    with open("/proc/self/stat") as stat, open("/proc/uptime") as uptime:
        began = int(stat.read().rpartition(")")[2].split()[19]) / os.sysconf("SC_CLK_TCK")
        cold = float(uptime.read().split()[0]) - began
    once()  # what the second call still compiles is not its
    times = []
    for _ in range(runs):
        start = time.perf_counter()
        once()
        times.append(time.perf_counter() - start)
    return {"cold": cold, "warm": statistics.median(times)}


def studio_alone(options: argparse.Namespace) -> Iterator[dict]:
    import studio

    figures = json_of(ROOT / "benchmarks" / "studio.py", "--warm", "--runs", 2 if options.tiny else 10)
    rounds = range(1 if options.tiny else 3)
    figures["first_line_s"] = statistics.median(studio.seconds_to_first_line() for _ in rounds)
    figures["import_s"] = statistics.median(studio.import_seconds() for _ in rounds)
    yield {"name": "studio"} | {key: float(f"{value:.4g}") for key, value in figures.items()}


class MissingPeer(Exception):
    """A package that is to be compared with is not installed."""


def _missing(packages: tuple[str, ...]) -> list[str]:
    return [package for package in packages if importlib.util.find_spec(package) is None]


PARTS: dict[str, tuple[Callable[[argparse.Namespace], Iterator[dict]], tuple[str, ...]]] = {
    "studio": (studio_alone, ()),
    "main": (main_of_both, TRANSFORMERS),
    "captioning": (captioning, TRANSFORMERS),
    "training": (training, TORCH),
    "data": (data, ("pyarrow", "daft", "psutil")),
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("parts", nargs="*", metavar="PART", help=f"out of {', '.join(PARTS)} (default: all)")
    parser.add_argument("--out", type=Path, help="a JSON line for each row (default runs/benchmarks.jsonl)")
    parser.add_argument("--rounds", type=int, default=3, help="that the medians are taken over (default 3)")
    parser.add_argument("--pictures", type=int, default=2000, help="that are prepared (default 2,000)")
    parser.add_argument("--blip", type=Path, default=ROOT / "data" / "blip-base", help="folder of BLIP's config.json")
    parser.add_argument("--tiny", action="store_true", help="of the smallest size: only whether it runs")
    parser.add_argument("--side", choices=("ours", "theirs"), help=argparse.SUPPRESS)
    parser.add_argument("--map", type=Path, nargs=2, help=argparse.SUPPRESS)
    parser.add_argument("--runs", type=int, default=10, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.side:
        print(json.dumps((our_main if options.side == "ours" else their_main)(options.runs)))
        return
    if options.map:
        print(json.dumps({"seconds": datasets_map(*options.map)}))
        return
    if unknown := set(options.parts) - set(PARTS):
        parser.error(f"no such part: {', '.join(sorted(unknown))}")
    if options.tiny:
        options.rounds = 1
    out_path = options.out or ROOT / "runs" / ("benchmarks-tiny.jsonl" if options.tiny else "benchmarks.jsonl")
    processors = len(os.sched_getaffinity(0))
    print(
        f"{processors} processor{'s' * (processors > 1)}\n\n| | ours | theirs | times as fast | beside |\n|{'---|' * 5}"
    )
    out_path.parent.mkdir(parents=True, exist_ok=True)
    for part in options.parts or PARTS:
        measure, needed = PARTS[part]
        if missing := _missing(needed):
            print(f"| {part} | | | | left out: no {', '.join(missing)} |")
            continue
        try:
            for record in measure(options):
                with out_path.open("a", encoding="utf-8") as out:
                    out.write(json.dumps(record | {"processors": processors}) + "\n")
                print(_as_row(record), flush=True)
        except MissingPeer as error:
            print(f"| {part} | | | | left out: no {', '.join(error.args[0])} |")


def _as_row(record: dict) -> str:
    if "ratio" not in record:
        return "\n".join(f"| {name} | {value} | | | |" for name, value in record.items() if name != "name")
    sides = " | ".join(f"{record[side]:g} {record['unit']}" for side in ("ours", "theirs"))
    return f"| {record['what']} | {sides} | {record['ratio']:.2f} | {record['peer']} |"


if __name__ == "__main__":
    main()
