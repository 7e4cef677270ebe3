"""Finds the pictures of a data set on disk, with their medium, split, caption and flag."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path

from atelier.dataset.listing import SPLITS
from atelier.seeds import STYLES, medium_in_words

EXTENSIONS = {".jpg", ".jpeg", ".png", ".webp", ".bmp", ".gif", ".tif", ".tiff"}


@dataclass(frozen=True)
class Picture:
    """One picture file: where it is and what is known of it."""

    path: Path
    label: str
    """The class folder's name, one of `STYLES`."""
    split: str
    """`"training"` or `"validation"`, as the data set says."""
    caption: str | None = None
    flag: str | None = None
    """`"ok"`, `"bad"` (no artwork), `"med"` (a fine picture of another medium), or `None` where nobody looked."""

    @property
    def medium(self) -> str | None:
        """The true medium: the label, or what the caption names where the label is wrong; `None` if unusable."""
        if self.flag == "bad":
            return None
        if self.flag == "med":
            return medium_in_words(self.caption or "")
        return self.label


def find_pictures(*roots: str | Path) -> list[Picture]:
    """All pictures below the given folders, sorted by path.

    Two layouts are understood: class folders as in the Kaggle set
    (`.../training_set/engraving/00001.jpg`, also without the split folder), and a folder with a `captions.jsonl`
    whose lines `{"file", "label", "split", "caption", "flag"}` name the pictures. Where both are there they are joined.

    Raises:
        FileNotFoundError: a root is no folder, or holds no picture of any of the five media.
        ValueError: a line of a captions.jsonl is damaged; it is named.
    """
    pictures = []
    for root in map(Path, roots):
        if not root.is_dir():
            raise FileNotFoundError(f"no data folder at {root}")
        found = list(_pictures_below(root))
        if not found:
            raise FileNotFoundError(
                f"no pictures found below {root}: expected class folders named {', '.join(STYLES)}, or a captions.jsonl"
            )
        pictures += sorted(found, key=lambda picture: picture.path.as_posix())
    return pictures


def _pictures_below(root: Path):
    captions = _read_captions(root / "captions.jsonl")
    for path in root.rglob("*"):
        if path.suffix.lower() not in EXTENSIONS or not path.is_file():
            continue
        parts = path.relative_to(root).parts
        # captions.jsonl may leave out leading folders: "training_set/x.jpg" for "dataset/training_set/x.jpg".
        tails = ("/".join(parts[start:]) for start in range(len(parts)))
        about = next((captions[tail] for tail in tails if tail in captions), {})
        label = about.get("label") or (parts[-2] if len(parts) > 1 else None)
        if label in STYLES:
            # As `listing` has it: what `prepare` holds back must never be trained on.
            split = about.get("split") or next((SPLITS[part] for part in parts[:-1] if part in SPLITS), "training")
            yield Picture(path, label, SPLITS.get(split, "training"), about.get("caption"), about.get("flag"))


def _read_captions(path: Path) -> dict[str, dict]:
    if not path.is_file():
        return {}
    captions = {}
    with path.open(encoding="utf-8") as lines:
        for number, line in enumerate(lines, start=1):
            if line.strip():
                try:
                    record = json.loads(line)
                    captions[record["file"]] = record
                except (ValueError, KeyError, TypeError) as error:
                    raise ValueError(f'{path}, line {number}: not a JSON object with a "file"') from error
    return captions
