"""Captions that are known already, found again by perceptual hash in whatever copy of the picture a user has."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np

CAPTIONS = Path(__file__).with_name("captions.jsonl")
"""Our captions of the Kaggle set and of 2,705 more paintings: `{"hash", "caption"}`, `"flag"` where it is not "ok"."""

SAME = 4
"""Hashes that differ in no more bits are taken for one picture's."""


class KnownCaptions:
    """Captions by hash."""

    def __init__(self, path: Path = CAPTIONS):
        """Read a file of JSON lines with `hash` (16 hexadecimal digits), `caption` and perhaps `flag`.

        Raises:
            ValueError: no such file, or a line that is damaged; it is named.
        """
        self.records, hashes = [], []
        try:
            lines = path.read_text("utf-8").splitlines()
        except (OSError, UnicodeDecodeError) as error:
            raise ValueError(f"no captions at {path}: {error}") from error
        for number, line in enumerate(lines, start=1):
            if line.strip():
                try:
                    record = json.loads(line)
                    hashes.append(int(record["hash"], 16))
                    self.records.append((str(record["caption"]), record.get("flag")))
                except (ValueError, KeyError, TypeError):
                    raise ValueError(f'{path}, line {number}: no record with a "hash" and a "caption"') from None
        self.hashes = np.array(hashes, np.uint64)

    def find(self, hashes: np.ndarray) -> list[tuple[str, str | None] | None]:
        """The caption and flag of each of (N,) uint64 hashes: the nearest known one's within `SAME` bits, or `None`.

        Of two known pictures that are equally near neither is taken: a wrong caption is worse than none.
        """
        found: list[tuple[str, str | None] | None] = []
        for hash_ in np.asarray(hashes, np.uint64):
            bits = np.bitwise_count(self.hashes ^ hash_) if len(self.hashes) else np.array([64])
            nearest = np.flatnonzero(bits == bits.min())
            found.append(self.records[nearest[0]] if bits.min() <= SAME and len(nearest) == 1 else None)
        return found


def make_known(roots: list[str], path: Path = CAPTIONS) -> int:
    """Write the file of known captions from folders of captioned pictures (`python -m atelier.dataset.known DIR...`).

    Hashes that belong to several pictures with different captions are kept where the pictures share their label (they
    are copies of one another: the first one's caption serves), else left out. Returns how many were written.
    """
    from atelier.dataset.checks import examine
    from atelier.dataset.source import find_pictures
    from atelier.progress import progress_bar

    found: dict[int, list] = {}
    for picture in progress_bar(find_pictures(*roots), desc="hashes", unit="picture"):
        if picture.caption:
            found.setdefault(examine(picture.path.read_bytes()).hash, []).append(picture)
    lines = []
    for hash_, pictures in sorted(found.items()):
        if len({picture.label for picture in pictures}) == 1:
            record = {"hash": f"{hash_:016x}", "caption": pictures[0].caption}
            if pictures[0].flag not in (None, "ok"):
                record["flag"] = pictures[0].flag
            lines.append(json.dumps(record, ensure_ascii=False, separators=(",", ":")))
    path.write_text("\n".join(lines) + "\n", "utf-8")
    return len(lines)


if __name__ == "__main__":
    import sys

    print(make_known(sys.argv[1:]))
