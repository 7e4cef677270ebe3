"""The pictures of the two classes, what belongs together among them, and what their files alone would tell."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image, ImageOps

from atelier.dataset.duplicates import ALIKE, same_pictures
from atelier.dataset.source import EXTENSIONS
from atelier.images import open_picture, perceptual_hash
from atelier.progress import progress_bar

AI_FOLDERS = ("aiartdata", "ai", "ai_art", "fake", "generated")
HUMAN_FOLDERS = ("realart", "human", "real", "human_art")
"""Names, in lower case, of the folders of the two classes: the Kaggle set's, and some others in use."""

THUMBNAIL = 32


@dataclass(frozen=True)
class Labelled:
    """A picture file and who made it."""

    path: Path
    ai: bool


def find_labelled(root: str | Path) -> list[Labelled]:
    """All pictures below the folder whose own folder names a class, sorted by path.

    Raises:
        FileNotFoundError: no such folder.
        ValueError: one class or both are missing.
    """
    root = Path(root)
    if not root.is_dir():
        raise FileNotFoundError(f"no data folder at {root}")
    found = []
    for path in sorted(root.rglob("*")):
        name = path.parent.name.lower()
        if name in AI_FOLDERS + HUMAN_FOLDERS and path.suffix.lower() in EXTENSIONS and path.is_file():
            found.append(Labelled(path, name in AI_FOLDERS))
    if len({picture.ai for picture in found}) < 2:
        raise ValueError(f"{root} needs pictures of both classes, in folders such as AiArtData and RealArt")
    return found


def open_labelled(pictures: Sequence[Labelled]) -> list[Image.Image]:
    """Their pictures, opened.

    Raises:
        ValueError: one cannot be read; the message names it.
    """
    return [open_picture(picture.path) for picture in progress_bar(pictures, desc="reading", unit="picture")]


def labels_of(pictures: Sequence[Labelled]) -> np.ndarray:
    """(N,) float32: 1 where a machine made the picture, else 0."""
    return np.array([picture.ai for picture in pictures], np.float32)


def near_duplicates(images: Sequence[Image.Image]) -> np.ndarray:
    """Pairs of pictures that are nearly the same, mirrored ones too: (P, 2) int64, first < second."""
    both = [*images, *map(ImageOps.mirror, images)]
    hashes = np.array([perceptual_hash(image) for image in both], np.uint64)
    thumbnails = np.stack([np.asarray(image.resize((THUMBNAIL, THUMBNAIL), Image.Resampling.BOX)) for image in both])
    first, second, _ = same_pictures(hashes, thumbnails.__getitem__, alike=ALIKE)
    pairs = np.sort(np.stack([first % len(images), second % len(images)], axis=1), axis=1)
    return np.unique(pairs[pairs[:, 0] < pairs[:, 1]], axis=0)


def grouped_folds(labels: np.ndarray, groups: np.ndarray, count: int, seed: int) -> np.ndarray:
    """(N,) int64 fold numbers 0 ... count-1: equal shares of both classes, and no group in two folds.

    Raises:
        ValueError: fewer than two folds, or more than a class has groups.
    """
    rng = np.random.default_rng(seed)
    folds = np.empty(len(labels), np.int64)
    sizes = np.zeros((2, count), np.int64)
    leaders = rng.permutation(np.unique(groups))
    if not 2 <= count <= min(len(np.unique(groups[labels == label])) for label in (0, 1)):
        raise ValueError(f"folds are from 2 up to the pictures of the smaller class, not {count}")
    members = {leader: np.flatnonzero(groups == leader) for leader in leaders}
    for leader in sorted(leaders, key=lambda each: -len(members[each])):
        label = round(labels[members[leader]].mean())
        fold = int(np.argmin(sizes[label]))
        folds[members[leader]] = fold
        sizes[label, fold] += len(members[leader])
    return folds
