"""Measures the preparation of data sets: `python benchmarks/dataset.py COMMAND`; JSON lines on standard output.

    doubts DATA          how well the pictures that captions.jsonl flags bad or med are found
    pairs DATA --sheet F a sheet of 100 near-duplicate pairs, to look at
    scale N [N ...]      N pictures of 256 px prepared, against a plain Pillow loop, with the peak of memory;
                         --plot F draws them
    duplicates N [N ...] the search for near hashes alone
    hostile N            N broken files among as many sound ones: is every one accounted for?
    ray N                the same rows from the local engine and from a Ray cluster of two workers
    captions N           pictures captioned per second
    loader N             pictures per second that reach training, against what training takes

Give it a machine with nothing else to do, and `--scratch` a folder with room.
"""

from __future__ import annotations

import argparse
import hashlib
import io
import json
import os
import subprocess
import sys
import threading
import time
from pathlib import Path

import numpy as np
from PIL import Image, ImageOps

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

from atelier.dataset.shards import iterate_rows, read_rows, shard_paths, write_rows  # noqa: E402
from atelier.progress import progress_bar  # noqa: E402
from atelier.seeds import STYLES, latent_from_seed  # noqa: E402


def make_pictures(folder: Path, count: int, size: int = 256, painted: int = 500) -> Path:
    """`count` JPEGs in class folders: the project's generator's pictures, cropped and recoloured at random."""
    from atelier.generator.painter import Painter

    source = folder / f"pictures-{count}"
    if (source / "done").exists():
        return source / "set"
    painter = Painter.load(ROOT / "generator.h5")
    styles = [STYLES[number % len(STYLES)] for number in range(painted)]
    latents = np.stack([latent_from_seed(number, painter.latent_dim) for number in range(painted)])
    bases = [Image.fromarray(image) for image in painter.paint(latents, styles)]
    for style in STYLES:
        (source / "set" / "training_set" / style).mkdir(parents=True, exist_ok=True)
    for number in progress_bar(range(count), desc="pictures", unit="picture"):
        random = np.random.default_rng(number)
        base = bases[number % painted]
        side = random.uniform(0.3, 1) * base.width
        left, top = random.uniform(0, base.width - side, 2)
        image = base.resize((size, size), Image.Resampling.BICUBIC, (left, top, left + side, top + side))
        pixels = np.asarray(image, np.float32)[:, :: random.choice([-1, 1]), random.permutation(3)]
        coarse = random.normal(0, 25, (16, 16, 3)).astype(np.float32)
        texture = np.kron(coarse, np.ones((size // 16, size // 16, 1), np.float32))
        pixels = np.clip(pixels * random.uniform(0.6, 1.4, 3) + texture, 0, 255).astype(np.uint8)
        place = source / "set" / "training_set" / styles[number % painted] / f"{number:07d}.jpg"
        Image.fromarray(pixels).save(place, quality=90)
    (source / "done").touch()
    return source / "set"


def prepare(source: Path, out: Path, *options: str) -> dict:
    """Run the command in a process of its own; its answer, seconds, and the peak memory of it and its children."""
    import psutil

    command = [sys.executable, "-m", "atelier", "prepare", str(source), str(out), *map(str, options)]
    began = time.perf_counter()
    process = subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, text=True)
    peak = 0

    def watch():
        nonlocal peak
        while process.poll() is None:
            try:
                family = [psutil.Process(process.pid)]
                family += family[0].children(recursive=True)
                peak = max(peak, sum(each.memory_info().rss for each in family))
            except psutil.Error:
                pass
            time.sleep(0.1)

    watcher = threading.Thread(target=watch)
    watcher.start()
    answer = process.communicate()[0]
    watcher.join()
    if process.returncode:
        raise SystemExit(f"prepare ended with {process.returncode}")
    seconds = time.perf_counter() - began
    return json.loads(answer) | {"seconds": round(seconds, 1), "peak_mib": round(peak / 2**20)}


def pillow_loop(source: Path, out: Path) -> float:
    """The same steps for each picture in one plain loop: decode, check, hash, thumbnail, write; the seconds."""
    import pyarrow as pa

    schema = pa.schema({"image": pa.binary(), "source": pa.string(), "hash": pa.string(), "sha256": pa.string()})
    began, rows, shard = time.perf_counter(), [], 0
    seen = set()
    for path in sorted(source.rglob("*.jpg")):
        data = path.read_bytes()
        image = ImageOps.exif_transpose(Image.open(io.BytesIO(data))).convert("RGB")
        if min(image.size) < 64 or max(image.size) > 4 * min(image.size):
            continue
        thumbnail = np.asarray(image.resize((32, 32), Image.Resampling.BOX))
        if thumbnail.mean(axis=2).std() < 4:
            continue
        small = np.asarray(image.convert("L").resize((9, 8), Image.Resampling.BOX), np.int16)
        bits = np.packbits(small[:, 1:] > small[:, :-1]).tobytes().hex()
        digest = hashlib.sha256(image.tobytes()).hexdigest()
        if digest in seen:
            continue
        seen.add(digest)
        rows.append({"image": data, "source": str(path), "hash": bits, "sha256": digest})
        if len(rows) == 1000:
            write_rows(out / f"{shard}.parquet", rows, schema)
            rows, shard = [], shard + 1
    write_rows(out / f"{shard}.parquet", rows, schema)
    return time.perf_counter() - began


def scale(options) -> None:
    rows = []
    for count in options.counts:
        source = make_pictures(options.scratch, count)
        for path in source.rglob("*.jpg"):  # both find the files in the operating system's cache
            path.read_bytes()
        plain = pillow_loop(source, options.scratch / f"loop-{count}")
        ours = prepare(source, fresh(options.scratch, f"scale-{count}"), "--features", "none")
        figures = {name: ours[name] for name in ("seconds", "peak_mib", "kept", "reasons")}
        rows.append({"pictures": count, "loop_seconds": round(plain, 1), **figures})
        say(rows[-1] | {"ratio": round(plain / ours["seconds"], 2)})
    if options.plot:
        plot(rows, options.plot)


def plot(rows: list[dict], path: Path) -> None:
    """Seconds and peak memory over the number of pictures."""
    import matplotlib.pyplot as plt

    counts = [row["pictures"] for row in rows]
    figure, (time_axes, memory_axes) = plt.subplots(1, 2, figsize=(9, 3.4), layout="constrained")
    time_axes.plot(counts, [row["loop_seconds"] for row in rows], "s--", color="0.6", label="plain Pillow loop")
    time_axes.plot(counts, [row["seconds"] for row in rows], "o-", color="C1", label="prepare, two workers")
    time_axes.set(xscale="log", yscale="log", xlabel="pictures of 256 px", ylabel="seconds")
    time_axes.legend(frameon=False)
    memory_axes.plot(counts, [row["peak_mib"] for row in rows], "o-", color="C1")
    memory_axes.set(xscale="log", ylim=(0, None), xlabel="pictures of 256 px", ylabel="peak memory, MiB, all processes")
    for axes in (time_axes, memory_axes):
        axes.grid(alpha=0.3)
        axes.spines[["top", "right"]].set_visible(False)
    figure.savefig(path, dpi=110)


def duplicates(options) -> None:
    from atelier.dataset.duplicates import close_pairs

    for count in options.counts:
        hashes = np.random.default_rng(0).integers(0, 2**64, count, np.uint64)
        hashes[1::10] = hashes[::10][: len(hashes[1::10])] ^ np.uint64(0b101)
        began = time.perf_counter()
        pairs = len(close_pairs(hashes)[0])
        say({"hashes": count, "pairs": pairs, "seconds": round(time.perf_counter() - began, 2)})


def hostile(options) -> None:
    from tests.dataset.hostile import ODD_NAMES, broken, encoded, paint, write

    count = options.counts[0]
    source = fresh(options.scratch, "hostile-source")
    files = 0
    for number in range(count):
        kinds = broken(10_000 + number)
        name = list(kinds)[number % len(kinds)]
        write(source / "painting", f"{number:05d}-{name}", kinds[name][0])
        write(source / "engraving", f"{number:05d}.jpg", encoded(paint(number)))
        files += 2
        if number % 100 == 0:
            for odd in ODD_NAMES:
                write(source / "painting", str(number).encode() + odd, encoded(paint(10**6 + files)))
                files += 1
            os.mkfifo(source / "painting" / f"pipe-{number}.jpg")
            (source / "painting" / f"closed-{number}.jpg").write_bytes(b"secret")
            (source / "painting" / f"closed-{number}.jpg").chmod(0)  # root reads it all the same: then it is no picture
            files += 2
    answer = prepare(source, fresh(options.scratch, "hostile"), "--features", "none")
    say({"files": files, "accounted_for": answer["kept"] + answer["quarantined"]} | answer)


def ray(options) -> None:
    source, rows, figures = make_pictures(options.scratch, options.counts[0]), {}, {}
    for runner in ("local", "ray"):
        out = fresh(options.scratch, f"runner-{runner}")
        answer = prepare(source, out, "--features", "none", "--runner", runner, "--workers", "2")
        rows[runner] = sorted(tuple(row.values()) for row in iterate_rows(shard_paths(out)))
        figures[f"{runner}_seconds"] = answer["seconds"]
    say({"pictures": options.counts[0], "rows": len(rows["ray"]), "same": rows["local"] == rows["ray"], **figures})


def captions(options) -> None:
    from atelier.captioner import Captioner

    source = make_pictures(options.scratch, options.counts[0])
    images = [Image.open(path).convert("RGB") for path in sorted(source.rglob("*.jpg"))]
    captioner = Captioner.load(ROOT / "captioner")
    for beams in (1, 3):
        captioner.caption(images[:32], num_beams=beams)  # compiles
        began = time.perf_counter()
        captioner.caption(images, num_beams=beams)
        say({"beams": beams, "pictures_per_second": round(len(images) / (time.perf_counter() - began), 1)})


def loader(options) -> None:
    from atelier.dataset.loader import batches, load_shards, stream_shards, tf_dataset

    source = make_pictures(options.scratch, options.counts[0])
    out = options.scratch / f"loader-{options.counts[0]}"
    if not (out / "report.json").exists():
        prepare(source, out, "--features", "none")

    def speed(items, least: float = 5.0) -> float:
        iterator = iter(items)
        next(iterator)
        began, pictures = time.perf_counter(), 0
        while time.perf_counter() - began < least:
            batch = next(iterator)
            pictures += len((batch[0] if isinstance(batch, tuple) else batch)["image"])
        return round(pictures / (time.perf_counter() - began))

    for resolution in (64, 128):
        images, styles = load_shards(out, resolution, cache=options.scratch / "cache")
        figures = {
            "arrays": speed(batches(images, styles, 16, 128)),
            "stream": speed(stream_shards(out, resolution, 16)),
            "tf.data": speed(tf_dataset(out, resolution, 16)),
            "tf.data, cached": speed(tf_dataset(out, resolution, 16, cache=True)),
        }
        say({"resolution": resolution, "pictures_per_second": figures})


def doubts(options) -> None:
    """The flags are compared with the doubts here and nowhere else."""
    from sklearn.metrics import roc_auc_score

    rows = _decided(options)
    flags = np.array([row["flag"] for row in rows])
    reasons = np.array([row["reason"] or "" for row in rows])
    doubtful = np.isin(reasons, ["label in doubt", "poor presentation"])
    for flag, doubt in (("med", "label_doubt"), ("bad", "presentation_doubt")):
        score = np.array([np.nan if row[doubt] is None else row[doubt] for row in rows])
        chosen = np.isin(flags, ["ok", flag]) & ~np.isnan(score)
        auroc = roc_auc_score(flags[chosen] == flag, score[chosen])
        say({"flag": flag, "score": doubt, "pictures": int(chosen.sum()), "auroc": round(float(auroc), 4)})
    shares = {flag: round(float(doubtful[flags == flag].mean()), 4) for flag in ("ok", "med", "bad")}
    duplicate = float((reasons == "near-duplicate")[flags == "ok"].mean())
    say({"doubtful_share": shares, "near_duplicates_among_ok": round(duplicate, 4)})


def _decided(options) -> list[dict]:
    """Every training picture with its flag and what was decided of it."""
    out = options.scratch / "doubts"
    prepare(options.data, out, "--keep-work")
    rows = []
    for path in sorted((out / "work" / "examined").glob("part-*")):
        fates = read_rows(out / "work" / "decided" / path.name)
        about = read_rows(path, ["split", "flag", "source"])
        rows += [row | fate for row, fate in zip(about, fates, strict=True) if row["split"] == "training"]
    return rows


def pairs(options) -> None:
    from atelier.images import contact_sheet

    out = options.scratch / "pairs"
    prepare(options.data, out, "--features", "none")  # by which no picture is found to be a copy
    gone = [json.loads(line) for line in (out / "quarantine.jsonl").read_text().splitlines()]
    gone = [row for row in gone if row["reason"] == "near-duplicate"]
    chosen = sorted(np.random.default_rng(0).permutation(len(gone))[:100])
    chosen = sorted((gone[index] for index in chosen), key=lambda row: row["value"]["difference"])
    places = [options.data / name for row in chosen for name in (row["source"], row["value"]["of"])]
    cells = [np.asarray(Image.open(place).convert("RGB").resize((112, 112))) for place in places]
    Image.fromarray(contact_sheet(cells, 20)).save(options.sheet)
    say({"near_duplicates": len(gone), "shown": len(chosen), "sheet": str(options.sheet)})


def fresh(scratch: Path, name: str) -> Path:
    """A path in `scratch` at which nothing is."""
    import shutil

    shutil.rmtree(scratch / name, ignore_errors=True)
    return scratch / name


def say(figures: dict) -> None:
    print(json.dumps(figures), flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--scratch", type=Path, default=Path("runs/dataset"), help="default runs/dataset")
    commands = parser.add_subparsers(required=True)
    for command in (doubts, pairs):
        sub = commands.add_parser(command.__name__)
        sub.add_argument("data", type=Path)
        sub.add_argument("--sheet", type=Path, default=Path("runs/pairs.png"))
        sub.set_defaults(run=command)
    for command in (scale, duplicates, hostile, ray, captions, loader):
        sub = commands.add_parser(command.__name__)
        sub.add_argument("counts", type=int, nargs="+")
        sub.set_defaults(run=command)
        if command is scale:
            sub.add_argument("--plot", type=Path, help="a PNG or SVG file")
    options = parser.parse_args()
    options.scratch = options.scratch.absolute()
    options.scratch.mkdir(parents=True, exist_ok=True)
    options.run(options)


if __name__ == "__main__":
    main()
