"""What the engine's workers do with one shard at a time."""

from __future__ import annotations

import io
import json
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from atelier.backend import first_line
from atelier.dataset.checks import Examined, Limits, Rejection, examine, read_file
from atelier.dataset.rewriting import SOURCE, Rewriter
from atelier.dataset.shards import EXAMINED, PICTURES, read_rows, read_table, shard_name, write_rows
from atelier.images import open_picture

BATCH = 32

SPOILED = 2500
"""So many pictures, if there are as many, get a copy spoiled on purpose (see `presentation`)."""


class Examiner:
    """Reads the files of a shard, checks them, and takes their marks: hash, thumbnail, features."""

    def __init__(self, out: str, settings: dict):
        self.out = Path(out)
        self.limits = Limits(**settings["limits"])
        self.styles = set(settings["styles"])
        self.network = None
        self.spoil_every = max(1, settings["files"] // SPOILED)
        if settings["features"]:
            from atelier.dataset.features import FeatureError, Features

            try:
                self.network = Features(settings["features"])
            except FeatureError as error:
                self.without(error)

    def without(self, error: Exception) -> None:
        """Go on without features, and leave a note for the report."""
        (self.out / "work" / "no-features.txt").write_text(str(error))

    def __call__(self, number: int) -> str:
        rows = read_rows(self.out / "work" / "files" / shard_name(number))
        pictures: list[tuple[dict, Examined]] = []
        for row in rows:
            try:
                seen = self.examine(row)
            except Rejection as rejection:
                row |= {"reason": rejection.reason, "value": json.dumps(rejection.value)}
                continue
            row |= {
                "image": seen.encoded,
                "width": seen.width,
                "height": seen.height,
                "sha256": seen.sha256,
                "hash": seen.hash,
                "contrast": seen.contrast,
                "thumbnail": seen.thumbnail.tobytes(),
            }
            if self.network:
                pictures.append((row, seen))
            if len(pictures) == BATCH:
                self.look(pictures)
        self.look(pictures)
        write_rows(self.out / "work" / "examined" / shard_name(number), rows, EXAMINED)
        return str(number)

    def examine(self, row: dict) -> Examined:
        if row["label"] is None:
            raise Rejection("no label", row["source"])
        if self.styles and row["label"] not in self.styles:
            raise Rejection("not selected", row["label"])
        place: bytes = row["place"]
        if b"://" in place:
            return examine(fetch(place.decode(), self.limits), self.limits)
        return examine(read_file(place, self.limits), self.limits)

    def look(self, pictures: list[tuple[dict, Examined]]) -> None:
        if pictures:
            from atelier.dataset.presentation import spoil

            images = [open_picture(io.BytesIO(seen.encoded)) for _, seen in pictures]
            for (row, _), vector in zip(pictures, self.network(images), strict=True):
                row["features"] = vector.tobytes()
            chosen = [place for place, (row, _) in enumerate(pictures) if row["index"] % self.spoil_every == 0]
            copies = []
            for place in chosen:
                random = np.random.default_rng(pictures[place][0]["index"])
                others = [images[other] for other in random.permutation(len(images))[:9] if other != place]
                copies.append(spoil(images[place], others or images, random))
            if copies:
                for place, vector in zip(chosen, self.network(copies), strict=True):
                    pictures[place][0]["spoiled"] = vector.tobytes()
        pictures.clear()


def fetch(url: str, limits: Limits) -> bytes:
    """A URL's bytes, through the engine's own readers of object stores; of a file that is too long, one too many.

    Raises:
        Rejection: it cannot be read.
    """
    from atelier.dataset.engine import engine

    try:
        with engine().File(url).open() as file:
            data = file.read(limits.max_bytes + 1)
    except Exception as error:  # the engine's own kinds, one for each store
        raise Rejection("unreadable", first_line(error)) from None
    return data


class Writer:
    """Writes the pictures of a shard that are kept, with their captions."""

    def __init__(self, out: str, settings: dict):
        from atelier.dataset.known import KnownCaptions

        self.out = Path(out)
        self.known = KnownCaptions(Path(settings["captions"])) if settings["captions"] else None
        self.captioner_folder, self.beams = settings["captioner"], settings["beams"]
        self.captioner = None
        self.rewriter = Rewriter(**settings["rewriter"]) if settings["rewriter"] else None

    def __call__(self, number: int) -> str:
        name, work = shard_name(number), self.out / "work"
        fates = read_rows(work / "decided" / name)
        columns = [column for column in EXAMINED.names if column not in ("thumbnail", "features", "spoiled", "place")]
        rows = read_table(work / "examined" / name, columns).to_pylist()
        kept = [row | fate for row, fate in zip(rows, fates, strict=True) if not fate["reason"]]
        found = (
            self.known.find(np.array([row["hash"] for row in kept], np.uint64)) if self.known else [None] * len(kept)
        )
        for row, known in zip(kept, found, strict=True):
            row |= {"caption_source": "given" if row["caption"] else None, "confidence": None}
            if known and not row["caption"]:
                row |= {"caption": known[0], "caption_source": "known", "flag": row["flag"] or known[1]}
        self.say([row for row in kept if not row["caption"]])
        if self.rewriter:
            self.rewrite([row for row in kept if row["caption"]])
        for row in kept:
            row["hash"] = f"{row['hash']:016x}"
        write_rows(self.out / "shards" / name, [{key: row[key] for key in PICTURES.names} for row in kept], PICTURES)
        return str(number)

    def say(self, rows: Sequence[dict]) -> None:
        """Caption what has no caption."""
        if not rows or not self.captioner_folder:
            return
        from atelier.captioner import Captioner

        if self.captioner is None:
            self.captioner = Captioner.load(self.captioner_folder)
        for start in range(0, len(rows), BATCH):
            batch = rows[start : start + BATCH]
            images = [open_picture(io.BytesIO(row["image"])) for row in batch]
            for row, said in zip(batch, self.captioner.caption(images, num_beams=self.beams), strict=True):
                row |= {"caption": said.text, "caption_source": "captioner", "confidence": said.confidence}

    def rewrite(self, rows: Sequence[dict]) -> None:
        """Have captions said in another style; those for which that fails stay."""
        for row, said in zip(rows, self.rewriter.rewrite([row["caption"] for row in rows]), strict=True):
            if said:
                row |= {"caption": said, "caption_source": row["caption_source"] + SOURCE}
