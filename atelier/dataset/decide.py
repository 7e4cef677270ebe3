"""Compares all pictures with each other and decides which are kept: duplicates, labels in doubt, poor presentation.

It sees every picture, so it sees little of each: hash, size and labels of all, thumbnails of likely near-duplicates,
and features shard by shard.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pyarrow as pa

from atelier.dataset.checks import THUMBNAIL
from atelier.dataset.doubt import FOLDS, SAMPLE, DoubtError, PresentationJudge, Reducer, label_doubt
from atelier.dataset.duplicates import groups_of, same_pictures
from atelier.dataset.shards import DECIDED, read_table, shard_name, write_table
from atelier.progress import progress_bar

SMALL = ("reason", "value", "label", "split", "source", "sha256", "hash", "width", "height")


def decide(out: Path, shards: int, label_limit: float, presentation_limit: float) -> dict:
    """Decide on every file of `out/work/examined` and write `out/work/decided`.

    Args:
        out: the preparation's folder.
        shards: how many there are.
        label_limit, presentation_limit: the doubts from which on a picture goes.

    Returns:
        for the report: `"near_duplicates"`, pairs (gone, kept) with their thumbnails' difference, and `"notes"`.
    """
    examined = [out / "work" / "examined" / shard_name(number) for number in range(shards)]
    with progress_bar(total=4, desc="decide  ", unit="step") as bar:
        table = pa.concat_tables(read_table(path, SMALL) for path in examined)
        lengths = [len(read_table(path, ["index"])) for path in examined]
        rows = Rows(table, np.cumsum([0, *lengths]))
        bar.update()
        drop_exact_duplicates(rows)
        bar.update()
        pairs = drop_near_duplicates(rows, examined)
        bar.update()
        notes = drop_doubtful(rows, examined, label_limit, presentation_limit)
        bar.update()
    for number, (start, end) in enumerate(zip(rows.edges, rows.edges[1:], strict=False)):
        table = pa.table(
            {
                "index": np.arange(start, end),
                "reason": pa.array(rows.reason[start:end], pa.string()),
                "value": pa.array(rows.value[start:end], pa.string()),
                "label_doubt": pa.array(rows.label_doubt[start:end], pa.float32(), from_pandas=True),
                "presentation_doubt": pa.array(rows.presentation_doubt[start:end], pa.float32(), from_pandas=True),
            },
            DECIDED,
        )
        write_table(out / "work" / "decided" / shard_name(number), table)
    return {"near_duplicates": pairs, "notes": notes}


class Rows:
    """What is known of all files, column by column; `reason` is filled in as they are decided on."""

    def __init__(self, table: pa.Table, edges: np.ndarray):
        self.edges = edges
        self.reason = np.array(table["reason"].to_pylist(), object)
        self.value = np.array(table["value"].to_pylist(), object)
        self.label = table["label"]
        self.source = table["source"]
        self.sha256 = table["sha256"]
        self.validation = np.array(table["split"]) == "validation"
        self.hash = table["hash"].fill_null(0).to_numpy()
        self.pixels = table["width"].fill_null(0).to_numpy().astype(np.int64) * table["height"].fill_null(0).to_numpy()
        self.label_doubt = np.full(len(table), np.nan, np.float32)
        self.presentation_doubt = np.full(len(table), np.nan, np.float32)

    def kept(self) -> np.ndarray:
        """(K,) int64 indices of the files that nothing speaks against so far."""
        return np.flatnonzero(np.equal(self.reason, None))

    def drop(self, index: int, reason: str, value) -> None:
        self.reason[index], self.value[index] = reason, json.dumps(value, ensure_ascii=False)

    def best(self, members: np.ndarray) -> int:
        """Which of several copies stays: one of the validation split, then the largest, then the first by name."""
        return min(members, key=lambda i: (not self.validation[i], -self.pixels[i], self.source[int(i)].as_py()))


def drop_exact_duplicates(rows: Rows) -> None:
    """Of files with the same bytes one stays."""
    kept = rows.kept()
    codes = rows.sha256.take(kept).combine_chunks().dictionary_encode().indices.to_numpy()
    for members in _groups(kept, codes):
        best = rows.best(members)
        for member in members[members != best]:
            rows.drop(member, "exact duplicate", {"of": rows.source[int(best)].as_py()})


def drop_near_duplicates(rows: Rows, examined: Sequence[Path]) -> list[dict]:
    """Of near-identical pictures one stays, a validation picture before its training twins."""
    kept = rows.kept()
    read = _Thumbnails(examined, rows.edges)
    first, second, differences = same_pictures(rows.hash[kept], lambda items: read(kept[items]))
    nearest: dict[int, float] = {}
    for one, other, difference in zip(first.tolist(), second.tolist(), differences.tolist(), strict=True):
        for item in (one, other):
            nearest[item] = min(difference, nearest.get(item, np.inf))
    pairs = []
    places = {index: place for place, index in enumerate(kept.tolist())}
    for members in _groups(kept, groups_of(len(kept), np.stack([first, second], axis=1))):
        best = rows.best(members)
        for member in members[members != best]:
            value = {"of": rows.source[int(best)].as_py(), "difference": round(nearest[places[int(member)]], 2)}
            rows.drop(member, "near-duplicate", value)
            pairs.append({"gone": int(member), "kept": int(best), **value})
    return pairs


def _groups(items: np.ndarray, numbers: np.ndarray) -> list[np.ndarray]:
    """The items that share a number, where they are two or more."""
    order = np.argsort(numbers, kind="stable")
    starts = np.flatnonzero(np.diff(numbers[order])) + 1
    return [items[group] for group in np.split(order, starts) if len(group) > 1]


class _Thumbnails:
    """Reads thumbnails by index, shard by shard."""

    def __init__(self, examined: Sequence[Path], edges: np.ndarray):
        self.examined, self.edges = examined, edges

    def __call__(self, indices: np.ndarray) -> np.ndarray:
        found = np.empty((len(indices), THUMBNAIL, THUMBNAIL, 3), np.uint8)
        shards = np.searchsorted(self.edges, indices, "right") - 1
        for shard in np.unique(shards):
            here = np.flatnonzero(shards == shard)
            column = read_table(self.examined[shard], ["thumbnail"])["thumbnail"].take(
                indices[here] - self.edges[shard]
            )
            for place, data in zip(here, column.to_pylist(), strict=True):
                found[place] = np.frombuffer(data, np.uint8).reshape(found.shape[1:])
        return found


def drop_doubtful(rows: Rows, examined: Sequence[Path], label_limit: float, presentation_limit: float) -> list[str]:
    """Pictures whose label or presentation is in doubt go; returns notes on what could not be judged."""
    sample, originals, spoiled, folds = [], [], [], []
    enough = 0
    for shard, path in enumerate(examined):
        if enough >= SAMPLE:
            break
        indices, features, copies = _features(rows, shard, path)
        enough += len(indices)
        sample.append(features)
        having = [place for place, copy in enumerate(copies) if copy is not None]
        originals.append(features[having])
        spoiled += [np.frombuffer(copies[place], np.float16) for place in having]
        folds.append(indices[having] % FOLDS)
    if not enough:
        return ["labels and presentation were not judged: there are no features"]
    notes, judge = [], None
    reducer = Reducer(np.concatenate(sample))
    try:
        judge = PresentationJudge(np.concatenate(originals), np.array(spoiled), np.concatenate(folds))
    except DoubtError as error:
        notes.append(str(error))
    del sample, originals, spoiled
    judged, reduced = [], []
    for shard, path in enumerate(examined):
        indices, features, _ = _features(rows, shard, path)
        judged.append(indices)
        if len(indices):
            reduced.append(reducer(features))
            if judge:
                rows.presentation_doubt[indices] = judge(features, indices % FOLDS)
    indices = np.concatenate(judged)
    try:
        labels = rows.label.take(indices).to_pylist()
        rows.label_doubt[indices] = label_doubt(np.concatenate(reduced), labels)
    except DoubtError as error:
        notes.append(str(error))
    for index in indices:
        if rows.label_doubt[index] >= label_limit:
            rows.drop(index, "label in doubt", round(float(rows.label_doubt[index]), 4))
        elif rows.presentation_doubt[index] >= presentation_limit:
            rows.drop(index, "poor presentation", round(float(rows.presentation_doubt[index]), 4))
    return notes


def _features(rows: Rows, shard: int, path: Path) -> tuple[np.ndarray, np.ndarray, list[bytes | None]]:
    """Indices, (n, d) float16 features and spoiled copies' features of a shard's pictures that are kept so far."""
    table = read_table(path, ["features", "spoiled"])
    start, end = rows.edges[shard], rows.edges[shard + 1]
    wanted = np.equal(rows.reason[start:end], None) & ~np.array(table["features"].is_null())
    places = np.flatnonzero(wanted)
    features = [np.frombuffer(data, np.float16) for data in table["features"].take(places).to_pylist()]
    return places + start, np.array(features, np.float16), table["spoiled"].take(places).to_pylist()
