"""The pictures a captioner learns from and is judged on, and the features of their views."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
from PIL import Image

from atelier.captioner.augment import random_view
from atelier.dataset.duplicates import close_pairs, groups_of
from atelier.dataset.source import Picture, find_pictures
from atelier.images import perceptual_hash
from atelier.progress import progress_bar


def find_examples(roots: Sequence[str | Path], held_out: float = 0.08) -> tuple[list[Picture], list[Picture]]:
    """Captioned pictures below `roots`, split into those to learn from and those to be judged on.

    Pictures of the split "training" whose captions are true count (flag `"ok"`, or `"med"`: a fine picture in the
    wrong class). Near-duplicates never straddle the split, which depends on nothing but the pictures.

    Returns:
        (training pictures, held-out pictures), each sorted by path.

    Raises:
        FileNotFoundError: no folder, or too few pictures in it have a usable caption.
    """
    pictures = [
        picture
        for picture in find_pictures(*roots)
        if picture.split == "training" and picture.caption and picture.flag in ("ok", "med", None)
    ]
    if not pictures:
        raise FileNotFoundError(f"no captioned training pictures below {', '.join(map(str, roots))}")
    hashes = [perceptual_hash(open_rgb(picture.path)) for picture in pictures]
    pairs = np.stack(close_pairs(np.array(hashes, np.uint64)), axis=1)
    leaders, groups = np.unique(groups_of(len(hashes), pairs), return_inverse=True)
    chosen = np.array([_uniform(hashes[leader]) < held_out for leader in leaders])[groups]
    train = [picture for picture, out in zip(pictures, chosen, strict=True) if not out]
    judge = [picture for picture, out in zip(pictures, chosen, strict=True) if out]
    if not train or not judge:
        raise FileNotFoundError(f"{len(pictures)} captioned training pictures are too few to hold some back")
    return train, judge


def open_rgb(path: Path) -> Image.Image:
    """The picture in a file, decoded, as RGB."""
    with Image.open(path) as image:
        return image.convert("RGB")


def view_features(
    folder: Path,
    pictures: Sequence[Picture],
    views: int,
    embed: Callable[[list[Image.Image]], np.ndarray],
    batch: int = 32,
) -> list[np.ndarray]:
    """The frozen stem's features of some views of each picture, computed once and kept on disk.

    View 0 is the picture itself, the others are augmented at random (the same views again for the same pictures).
    A view is a file that appears when it is whole: an interrupted call goes on where it stopped.

    Args:
        folder: where the features are kept, as `view_000.npy` and so on.
        pictures: N pictures.
        views: how many views of each.
        embed: a list of pictures -> (len, h, w, C) features.
        batch: pictures that `embed` is given at once.

    Returns:
        `views` memory-mapped (N, h, w, C) float16 arrays.
    """
    folder.mkdir(parents=True, exist_ok=True)
    return [_view(folder / f"view_{view:03d}.npy", view, pictures, embed, batch) for view in range(views)]


def _view(path: Path, view: int, pictures, embed, batch: int) -> np.ndarray:
    if not path.exists():
        part, features = path.with_suffix(".part"), None
        progress = progress_bar(total=len(pictures), desc=f"features, view {view}", unit="picture")
        for start in range(0, len(pictures), batch):
            images = []
            for index in range(start, min(start + batch, len(pictures))):
                image = open_rgb(pictures[index].path)
                rng = np.random.default_rng([view, index])
                images.append(random_view(image, pictures[index].caption, rng) if view else image)
            rows = embed(images)
            if features is None:
                shape = (len(pictures), *rows.shape[1:])
                features = np.lib.format.open_memmap(part, "w+", np.float16, shape)
            features[start : start + len(images)] = rows
            progress.update(len(images))
        progress.close()
        features.flush()
        os.replace(part, path)
    return np.load(path, mmap_mode="r")


def _uniform(number: int) -> float:
    """A number in [0, 1) that belongs to a 64-bit hash."""
    digest = hashlib.sha256(number.to_bytes(8, "big")).digest()
    return int.from_bytes(digest[:8], "big") / 2**64
