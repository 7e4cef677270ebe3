"""From picture files to training batches."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
from PIL import Image

from atelier.dataset.source import Picture
from atelier.images import open_picture
from atelier.progress import progress_bar
from atelier.seeds import STYLES


def load_images(pictures: Sequence[Picture], resolution: int, cache: Path | None = None) -> np.ndarray:
    """Decode and resize all pictures, with a progress bar.

    Args:
        pictures: what to load; squashed to a square, as the Kaggle set's copies here already are.
        resolution: side of the result in pixels.
        cache: a folder that keeps the array, so that the next run with the same pictures starts at once.

    Returns:
        (N, resolution, resolution, 3) uint8, memory-mapped where a cache is given.

    Raises:
        ValueError: a file is not a readable picture; it is named.
    """
    stats = [(picture.path.resolve(), picture.path.stat()) for picture in pictures]
    names = "\n".join(f"{path} {stat.st_size} {stat.st_mtime_ns}" for path, stat in stats)
    key = hashlib.sha256(f"{resolution}\n{names}".encode("utf-8", "surrogateescape")).hexdigest()[:16]
    kept = cache / f"images-{key}.npy" if cache else None
    if kept and kept.is_file():
        return np.load(kept, mmap_mode="r")
    images = np.empty((len(pictures), resolution, resolution, 3), np.uint8)
    for index, picture in enumerate(progress_bar(pictures, desc=f"pictures to {resolution} px", unit="picture")):
        image = open_picture(picture.path)
        images[index] = np.asarray(image.resize((resolution, resolution), Image.Resampling.LANCZOS))
    if kept:
        cache.mkdir(parents=True, exist_ok=True)
        part = kept.with_suffix(".part.npy")
        np.save(part, images)
        part.replace(kept)
    return images


def style_weights(styles: np.ndarray) -> np.ndarray:
    """How often to draw each picture, (N,) summing to 1: a medium of n pictures gets a share of sqrt(n).

    Rare media are seen more often than they occur, though not so often that they are learned by heart.
    """
    counts = np.bincount(styles, minlength=len(STYLES))
    weights = 1.0 / np.sqrt(counts[styles])
    return weights / weights.sum()


def batches(
    images: np.ndarray, styles: np.ndarray, batch_size: int, latent_dim: int, seed: int = 0, start: int = 0
) -> Iterator[tuple[dict[str, np.ndarray]]]:
    """Endless batches for `GAN.fit`: real pictures (half of them mirrored) with their style, and latents.

    Batch number i depends on `seed` and i alone, so a run that goes on at `start` sees what it would have seen.

    Args:
        images: (N, H, W, 3) uint8.
        styles: (N,) int, indices into `STYLES`.

    Yields:
        a 1-tuple of `{"image": (B, H, W, 3) uint8, "style": (B,) int32, "latent": (B, latent_dim) float32}`.
    """
    weights = style_weights(styles)
    step = start
    while True:
        random = np.random.default_rng((seed, step))
        chosen = random.choice(len(images), batch_size, p=weights)
        batch = images[chosen]
        mirrored = random.random(batch_size) < 0.5
        batch[mirrored] = batch[mirrored, :, ::-1]
        latent = random.standard_normal((batch_size, latent_dim), np.float32)
        yield ({"image": batch, "style": styles[chosen].astype(np.int32), "latent": latent},)
        step += 1
