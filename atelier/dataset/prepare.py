"""The pipeline: any source in, Parquet shards out, each file either kept or quarantined with its reason.

    list ──▶ examine ──▶ decide ──▶ write ──▶ report
            (shards)    (all at     (shards)
                         once)

Shards of files are examined and written by the engine's workers, independently of one another; only what compares
pictures with each other (duplicates, labels in doubt) sees all of them, and of each only a few bytes. Every result is
a file that appears whole, so a run that is killed goes on with what is missing.
"""

from __future__ import annotations

import hashlib
import json
import shutil
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path

import numpy as np

from atelier.dataset.checks import Limits
from atelier.dataset.decide import decide
from atelier.dataset.doubt import LABEL_DOUBT, PRESENTATION_DOUBT
from atelier.dataset.engine import WORKERS, choose_runner, map_shards
from atelier.dataset.known import CAPTIONS, KnownCaptions
from atelier.dataset.listing import list_source
from atelier.dataset.rewriting import Rewriter
from atelier.dataset.workers import Examiner, Writer
from atelier.images import write_atomically
from atelier.progress import progress_bar


class PrepareError(ValueError):
    """A preparation cannot be made or gone on with; the message says why."""


@dataclass(frozen=True)
class Settings:
    """All that decides what a preparation holds; where and how fast it is made is no part of it."""

    source: str
    styles: tuple[str, ...] = ()
    """The labels wanted; none: all."""
    limits: Limits = field(default_factory=Limits)
    features: str | None = "imagenet"
    """MobileNetV2's weights, by which labels in doubt are found: a file, "imagenet" (downloaded) or `None` (not)."""
    label_doubt: float = LABEL_DOUBT
    """From this doubt (0 to 1) on a label counts as wrong."""
    presentation_doubt: float = PRESENTATION_DOUBT
    """From this doubt (0 to 1) on a picture counts as one of a frame, a shop, a collage or a page."""
    captions: str | None = str(CAPTIONS)
    """Known captions by hash, or `None`."""
    captioner: str | None = None
    """A captioner's folder, for pictures without a caption; `None`: those stay without."""
    beams: int = 1
    """Of the captioner's search: 1 (greedy) is the fastest."""
    rewriter: Rewriter | None = None
    """A language model that says all captions in another style; `None`: they stay as they are."""
    shard_size: int = 1000
    """Files in a shard."""
    seed: int = 0
    """Of the order in which files are put into shards."""


def prepare(
    settings: Settings,
    out: str | Path,
    *,
    runner: str = "local",
    address: str | None = None,
    workers: int = WORKERS,
    keep_work: bool = False,
) -> dict:
    """Prepare a data set in the folder `out`, or go on where an earlier call with these settings stopped.

    `out` gets `shards/part-*.parquet` (`shards.PICTURES`), `captions.jsonl`, `quarantine.jsonl`, `report.json` and
    `report.html`. On a cluster `out` is a folder that all its machines see.

    Args:
        runner: "local" (processes on this machine) or "ray"; the rows are the same.
        address: of a Ray cluster; none starts one here.
        workers: processes at most.
        keep_work: leave the intermediate files of `out/work`, about as large as the result, where they are.

    Returns:
        what `report.json` says.

    Raises:
        ValueError: a bad setting or source, an engine that is not there, or an `out` that holds something else.
    """
    if settings.shard_size < 1 or workers < 1:
        raise PrepareError("a shard has at least one file, and it takes at least one worker")
    out = Path(out).absolute()
    _check_files(settings)
    choose_runner(runner, address)
    plan = _plan(settings, out)
    if not (out / "report.json").exists():
        work, counts = out / "work", plan["counts"]
        given = (str(out), asdict(settings) | _absolute(settings) | {"files": sum(counts)})
        _each(Examiner, given, work / "examined", counts, workers, "examine")
        decided = work / "decided.json"
        if not decided.exists():
            summary = decide(out, len(counts), settings.label_doubt, settings.presentation_doubt)
            write_atomically(decided, json.dumps(summary).encode())
        few = 1 if settings.captioner and runner == "local" else workers  # one captioner uses every core
        _each(Writer, given, out / "shards", counts, few, "write")
        from atelier.dataset.report import write_report

        write_report(out, plan, json.loads(decided.read_text()))
    if not keep_work:
        shutil.rmtree(out / "work", ignore_errors=True)
    return json.loads((out / "report.json").read_text())


def _each(kind: Callable, arguments: Sequence, folder: Path, counts: Sequence[int], workers: int, name: str) -> None:
    """Have each shard made that is not in `folder` yet."""
    from atelier.dataset.shards import shard_name

    missing = [number for number in range(len(counts)) if not (folder / shard_name(number)).exists()]
    with progress_bar(total=sum(counts), desc=f"{name:8}", unit="picture") as bar:
        bar.update(sum(counts) - sum(counts[number] for number in missing))
        for answer in map_shards(kind, arguments, missing, workers):
            bar.update(counts[int(answer)])
    if lost := [number for number in missing if not (folder / shard_name(number)).exists()]:
        raise PrepareError(f"{len(lost)} shards are not in {folder}: do all machines see this folder?")


def _plan(settings: Settings, out: Path) -> dict:
    """What `out` holds or is to hold: its settings and the numbers of files in its shards."""
    from atelier.dataset.shards import FILES, shard_name, write_rows

    path = out / "plan.json"
    wanted = json.loads(json.dumps(_comparable(settings)))
    if path.exists():
        plan = json.loads(path.read_text())
        if changed := [name for name in wanted if plan["settings"].get(name) != wanted[name]]:
            raise PrepareError(f"{out} holds a preparation with other settings ({', '.join(changed)}): choose another")
        return plan
    if out.exists() and (not out.is_dir() or any(each.name != "work" for each in out.iterdir())):
        raise PrepareError(f"{out} is there already and no preparation: choose another folder")
    entries = list_source(settings.source)
    labels = sorted({entry.label for entry in entries if entry.label})
    if unknown := set(settings.styles) - set(labels):
        raise PrepareError(f"no {', '.join(sorted(unknown))} in {settings.source}: it has {', '.join(labels)}")
    shutil.rmtree(out / "work", ignore_errors=True)  # a listing that was never finished
    # Shuffled, so that each shard is a sample of the whole: good for training, and for guessing how long it takes.
    order = np.random.default_rng(settings.seed).permutation(len(entries))
    counts = []
    for number, start in enumerate(range(0, len(entries), settings.shard_size)):
        rows = [
            {
                "index": start + place,
                "place": entries[item].place,
                "source": entries[item].name,
                "label": entries[item].label,
                "split": entries[item].split,
                "caption": entries[item].caption,
                "flag": entries[item].flag,
            }
            for place, item in enumerate(order[start : start + settings.shard_size])
        ]
        write_rows(out / "work" / "files" / shard_name(number), rows, FILES)
        counts.append(len(rows))
    plan = {"settings": wanted, "counts": counts}
    write_atomically(path, json.dumps(plan).encode())
    return plan


def _comparable(settings: Settings) -> dict:
    """The settings, with the known captions' content in place of where they are."""
    values = asdict(settings)
    if settings.captions:
        try:
            values["captions"] = hashlib.sha256(Path(settings.captions).read_bytes()).hexdigest()[:16]
        except OSError as error:
            raise PrepareError(f"no captions at {settings.captions}: {error.strerror}") from error
    return values


def _absolute(settings: Settings) -> dict[str, str]:
    """The files that workers open, as they are found from any folder."""
    files = {name: getattr(settings, name) for name in ("features", "captions", "captioner")}
    return {name: str(Path(file).absolute()) for name, file in files.items() if file and file != "imagenet"}


def _check_files(settings: Settings) -> None:
    """Find out now, not after hours, that a file of captions is damaged or a network is not there."""
    if settings.features not in (None, "imagenet") and not Path(settings.features).is_file():
        raise PrepareError(f"no weights of features at {settings.features}: name a file, imagenet or none")
    if settings.captions:
        KnownCaptions(Path(settings.captions))
    if settings.captioner and not (Path(settings.captioner) / "config.json").is_file():
        raise PrepareError(f"no captioner at {settings.captioner}: there is no config.json in it")
