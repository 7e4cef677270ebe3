"""What the files alone would tell, without a look at any picture: the bar below which a detector has learnt nothing."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from PIL import Image

from atelier.detector.data import Labelled
from atelier.detector.metrics import figures_of

TRAITS = ("width", "height", "aspect", "pixels", "bytes", "bytes a pixel", "quantisation", "mode", "format")


def file_traits(pictures: Sequence[Labelled]) -> np.ndarray:
    """What is known of the files without looking at a picture: (N, len(TRAITS)) float64."""
    rows = []
    for picture in pictures:
        with Image.open(picture.path) as image:
            (width, height), size = image.size, picture.path.stat().st_size
            tables = getattr(image, "quantization", None) or {}
            coarse = sum(sum(table) for table in tables.values())
            kinds = ["L", "P", "RGB", "RGBA", "CMYK"].index(image.mode) if image.mode in "L P RGB RGBA CMYK" else -1
            formats = [".jpg", ".jpeg", ".png", ".webp"]
            kind = formats.index(suffix) if (suffix := picture.path.suffix.lower()) in formats else -1
            pixels = width * height
            rows.append([width, height, np.log(width / height), pixels, size, size / pixels, coarse, kinds, kind])
    return np.array(rows, np.float64)


def told_by_traits(traits: np.ndarray, labels: np.ndarray, folds: np.ndarray, neighbours: int = 25) -> np.ndarray:
    """Probabilities by the nearest files of the other folds: (N,) float64, the share of AI pictures among them.

    Args:
        traits: (N, T), compared by their ranks, since bytes and pixels have no common scale.
        labels: (N,) 1 for AI, else 0.
        folds: (N,) fold numbers.
        neighbours: files asked.
    """
    ranks = np.stack([np.unique(column, return_inverse=True)[1] for column in traits.T], axis=1).astype(np.float64)
    ranks /= np.maximum(ranks.max(axis=0), 1)
    told = np.empty(len(labels))
    for fold in np.unique(folds):
        known, asked = np.flatnonzero(folds != fold), np.flatnonzero(folds == fold)
        distances = np.abs(ranks[asked, None] - ranks[None, known]).sum(axis=2)
        told[asked] = labels[known[np.argsort(distances, axis=1, kind="stable")[:, :neighbours]]].mean(axis=1)
    return told


def leak_baseline(pictures: Sequence[Labelled], labels: np.ndarray, folds: np.ndarray) -> dict[str, float]:
    """Accuracy, AUROC and ECE of `told_by_traits`."""
    return figures_of(labels, told_by_traits(file_traits(pictures), labels, folds))
