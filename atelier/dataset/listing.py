"""What a source holds: every file, with its label and split, whatever its name and state."""

from __future__ import annotations

import csv
import json
import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

KAGGLE = "thedownhill/art-images-drawings-painting-sculpture-engraving"
"""The project's data set on Kaggle."""

LABELS = ("captions.jsonl", "labels.jsonl", "labels.csv")
"""Files that say of other files what they are."""

SPLITS = {"training": "training", "train": "training", "training_set": "training"} | {
    name: "validation" for name in ("validation", "valid", "val", "test", "validation_set", "valid_set", "test_set")
}

Known = dict[str, str | None]


class SourceError(ValueError):
    """There is no such source, or nothing in it; the message says what is expected."""


@dataclass(frozen=True)
class Entry:
    """One file of a source.

    Attributes:
        place: where to read it: a path as the file system's bytes, or a URL.
        name: its path within the source as text; bytes that are no UTF-8 are written like `\\xff`.
        label: the class, `None` where nobody says.
        split: "training" or "validation".
        caption, flag: what a file of labels says of it.
    """

    place: bytes
    name: str
    label: str | None
    split: str
    caption: str | None = None
    flag: str | None = None


def list_source(source: str | Path) -> list[Entry]:
    """All files of a source, sorted by name.

    Args:
        source: a folder (class folders at any depth, or pictures beside a `labels.csv`, `labels.jsonl` or
            `captions.jsonl` with the columns `file` and `label`), `kaggle` or `kaggle:OWNER/NAME`, or a URL that the
            engine reads (`s3://...`, `gs://...`, `https://...`; the pictures are found by `*`, which is added).

    Raises:
        SourceError: there is no such source, it is empty, or Kaggle does not give it.
        ValueError: a line of a file of labels is damaged; it is named.
    """
    source = os.fspath(source)
    if source == "kaggle" or source.startswith("kaggle:"):
        source = download_from_kaggle(source.partition(":")[2] or KAGGLE)
    entries = _list_url(source) if "://" in source else _list_folder(source)
    if not entries:
        raise SourceError(f"no files in {source}: expected class folders, or pictures and one of {', '.join(LABELS)}")
    if not any(entry.label for entry in entries):
        raise SourceError(f"no file in {source} has a label: expected class folders, or one of {', '.join(LABELS)}")
    return entries


def download_from_kaggle(slug: str) -> str:
    """The folder of a Kaggle data set, downloaded (with kagglehub's progress bar) unless it is there already.

    Raises:
        SourceError: kagglehub is missing, or Kaggle does not give the data set.
    """
    try:
        import kagglehub
    except ImportError:
        raise SourceError("Kaggle needs kagglehub: pip install -r extras/prepare.txt") from None
    try:
        return kagglehub.dataset_download(slug)
    except Exception as error:  # kagglehub passes on whatever its HTTP client raises
        kind = type(error).__name__  # the message may hold a signed address
        raise SourceError(
            f"Kaggle does not give {slug} ({kind}): is the name right, the internet there, and, "
            "if the set asks for it, KAGGLE_USERNAME and KAGGLE_KEY set?"
        ) from None


def _list_folder(root: str) -> list[Entry]:
    if not os.path.isdir(root):
        raise SourceError(f"no folder at {root}, and no kaggle:OWNER/NAME or URL either")
    base = os.path.realpath(os.fsencode(root))
    found = []
    for folder, subfolders, files in os.walk(base):
        subfolders[:] = sorted(name for name in subfolders if not name.startswith(b"."))
        for file in files:
            if not file.startswith(b".") and os.fsdecode(file) not in LABELS:
                found.append(os.path.join(folder, file))
    names = [os.path.relpath(path, base).decode("utf-8", "backslashreplace") for path in found]
    known = _known(Path(root))
    top = os.path.basename(base).decode("utf-8", "backslashreplace")
    return [_entry(place, name, top, known) for name, place in sorted(zip(names, found, strict=True))]


def _list_url(url: str) -> list[Entry]:
    from atelier.dataset.engine import engine

    daft = engine()
    pattern = url if "*" in url else url.rstrip("/") + "/**"
    try:
        paths = daft.from_glob_path(pattern).to_pydict()["path"]
    except Exception as error:  # the engine's own kinds, one for each store
        reason = str(error).strip().rpartition("\n")[2]  # its last line: the engine puts the cause behind its own words
        raise SourceError(f"cannot list {url}: {reason or type(error).__name__}") from error
    base = url.split("*")[0].rstrip("/")
    relative = {path: path.removeprefix(base).lstrip("/") for path in paths}
    # A name that ends in "/" is no file: a store's mark of a folder, or a page that the engine cannot read a list from.
    kept = [path for path in paths if relative[path].rsplit("/", 1)[-1] not in ("", *LABELS)]
    top = base.rsplit("/", 1)[-1]
    return sorted((_entry(path.encode(), relative[path], top, {}) for path in kept), key=lambda entry: entry.name)


def _entry(place: bytes, name: str, top: str, known: dict[str, Known]) -> Entry:
    parts = name.split("/")
    # A file of labels may leave out leading folders: "training_set/x.jpg" for "dataset/training_set/x.jpg".
    tails = ("/".join(parts[start:]) for start in range(len(parts))) if known else ()
    about = next((known[tail] for tail in tails if tail in known), {})
    folder = parts[-2] if len(parts) > 1 else top
    label = about.get("label") or (folder if (len(parts) > 1 or not known) and folder not in SPLITS else None)
    split = about.get("split") or next((SPLITS[part] for part in parts[:-1] if part in SPLITS), "training")
    return Entry(place, name, label, SPLITS.get(split, "training"), about.get("caption"), about.get("flag"))


def _known(root: Path) -> dict[str, Known]:
    """What the files of labels in `root` say: file -> label, split, caption, flag."""
    known: dict[str, Known] = {}
    for name in LABELS:
        path = root / name
        if path.is_file():
            for number, record in _records(path):
                if not isinstance(record, dict) or not isinstance(record.get("file"), str):
                    raise ValueError(f'{path}, line {number}: no record with a "file"')
                known.setdefault(record["file"], {}).update({key: value for key, value in record.items() if value})
    return known


def _records(path: Path) -> Iterator[tuple[int, object]]:
    with path.open(encoding="utf-8", newline="" if path.suffix == ".csv" else None) as lines:
        if path.suffix == ".csv":
            reader = csv.DictReader(lines)
            for record in reader:
                yield reader.line_num, record
            return
        for number, line in enumerate(lines, start=1):
            if line.strip():
                try:
                    yield number, json.loads(line)
                except ValueError as error:
                    raise ValueError(f"{path}, line {number}: not JSON") from error
