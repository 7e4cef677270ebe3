"""A memory without what it holds twice: latents whose pictures repeat those of others, or one another, are left out.

Pictures of the training set that are alike give latents that are alike, and some latents paint the same picture however
one steps beside them. Whoever asks for such a latent gets a picture that is there already; and so does whoever asks for
one that paints a training picture itself.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from pathlib import Path

import keras
import numpy as np

from atelier.evaluation.copies import ALIKE, close_pairs, hash_images, nearest_hashes_mirrored, pixel_difference
from atelier.evaluation.real import NEAR, RealPictures, squared
from atelier.generator.detail import load_generator
from atelier.generator.memory import leave_out, left_out, questions
from atelier.generator.painter import Painter
from atelier.progress import progress_bar
from atelier.seeds import STYLES
from atelier.training import save_model

OWN = 0.5
"""The share of a latent's own question in what asks for it here: enough to be answered by it, while the rest varies."""

COPIED = 1.5 * ALIKE
"""How far in grey levels a picture must be from the training picture that it is most like: farther than what counts as
a copy, since only a few pictures of each latent are looked at."""


def forget(
    generator: str | Path,
    out: str | Path,
    *,
    times: int = 4,
    seed: int = 0,
    data: Sequence[str | Path] = (),
    cache: str | Path = "runs/cache",
) -> int:
    """Write a generator whose memory leaves out what repeats.

    Each latent is asked for a few times, with another step beside it every time. It is left out where two of its own
    pictures are near-identical; of latents whose pictures are near-identical to each other's, those that repeat most
    go first, until none is left that does. A style always keeps one.

    Args:
        generator: a file of `save_generator`.
        out: where the new one goes.
        times: pictures of each latent.
        data: folders of pictures, as `evaluate` takes them: latents that paint one of the training pictures, nearly, or
            its mirror image, are left out as well.
        cache: a folder that keeps the hashes of those pictures.

    Returns:
        how many latents are left out.

    Raises:
        ValueError: no such generator, or it has no memory.
        FileNotFoundError: no pictures in `data`.
        OSError: `out` cannot be written.
    """
    if times < 1:
        raise ValueError(f"each latent is painted at least once, not {times} times")
    model = load_generator(generator)
    asked = questions(model)
    if not len(asked):
        raise ValueError(f"the generator at {generator} has no memory")
    random, there = np.random.default_rng(seed), np.flatnonzero(~left_out(model))
    images = np.concatenate([_paint(model, asked, there, random) for _ in range(times)])
    places = np.tile(there, times)
    copied = np.unique(places[_copied(images, RealPictures.find(data, Path(cache)))]) if data else []
    others = ~np.isin(places, copied)
    repeated = np.union1d(copied, _repeated(images[others], places[others])).astype(int)
    for own in np.array_split(np.arange(len(asked)), len(STYLES)):
        if not np.setdiff1d(np.intersect1d(own, there), repeated).size:  # a style keeps one latent, whatever it paints
            repeated = np.setdiff1d(repeated, np.intersect1d(own, there)[:1])
    leave_out(model, repeated)
    save_model(model, Path(out))
    return len(repeated)


def _paint(model: keras.Model, asked: np.ndarray, places: np.ndarray, random: np.random.Generator) -> np.ndarray:
    """A picture of each latent at `places`, a step of chance beside it: (P, H, W, 3) uint8."""
    painter, (total, half) = Painter(model), asked.shape
    parts = []
    with progress_bar(total=len(places), desc="remembered latents", unit="picture") as bar:
        for some in np.array_split(places, -(-len(places) // 64)):
            latents = random.standard_normal((len(some), painter.latent_dim)).astype(np.float32)
            latents[:, :half] = OWN * asked[some] + (1 - OWN**2) ** 0.5 * latents[:, :half]
            parts.append(painter.paint(latents, [STYLES[place * len(STYLES) // total] for place in some]))
            bar.update(len(some))
    return np.concatenate(parts)


def _copied(images: np.ndarray, real: RealPictures) -> np.ndarray:
    """Which of (N, S, S, 3) pictures nearly are training pictures, or their mirror images: their indices."""
    bits, nearest = nearest_hashes_mirrored(images, real.training_hashes)
    copied = []
    for index in np.flatnonzero(bits <= NEAR):
        picture = squared(real.training[nearest[index]], images.shape[1])
        if min(pixel_difference(image, picture) for image in (images[index], images[index][:, ::-1])) <= COPIED:
            copied.append(index)
    return np.array(copied, int)


def _repeated(images: np.ndarray, places: np.ndarray) -> np.ndarray:
    """Of the latents at (N,) places, each once or several times, those to leave out so that no picture repeats."""
    close = close_pairs(hash_images(images), NEAR)[1] if len(images) > 1 else []
    pairs = [pair for pair in close if pixel_difference(*images[list(pair)]) <= ALIKE]
    alike = {tuple(sorted(places[list(pair)].tolist())) for pair in pairs}
    out = {first for first, second in alike if first == second}
    while alike := {pair for pair in alike if not out & set(pair)}:
        out.add(Counter(place for pair in alike for place in pair).most_common(1)[0][0])
    return np.array(sorted(out), int)
