"""The real pictures that the generated ones are measured against: which, and their features, kept between runs."""

from __future__ import annotations

import hashlib
import io
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image

from atelier.dataset.source import Picture, find_pictures
from atelier.evaluation.copies import nearest_hashes
from atelier.evaluation.features import BATCH, FeatureNetwork
from atelier.images import open_picture, perceptual_hash, write_atomically
from atelier.progress import progress_bar
from atelier.seeds import STYLES

NEAR = 6
"""Two pictures are near-duplicates if their perceptual hashes differ in at most so many bits of 64."""


@dataclass(frozen=True)
class RealPictures:
    """A data set as the metrics see it.

    Attributes:
        held_out: usable pictures of the split "validation" without a near-duplicate in training.
        dropped: how many of that split were left out for having one.
        training: usable pictures of the split "training".
        training_hashes: (T,) uint64, their perceptual hashes.
    """

    held_out: list[Picture]
    dropped: int
    training: list[Picture]
    training_hashes: np.ndarray

    @classmethod
    def find(cls, data_roots: Sequence[str | Path], cache: Path) -> RealPictures:
        """Find and hash the pictures; `cache` keeps the hashes.

        Hashes are taken of the files as they are, so the held-out set is the same for generators of every size.

        Raises:
            FileNotFoundError, ValueError: as `find_pictures`; or one of the two splits has no usable picture.
        """
        pictures = find_pictures(*data_roots)
        hashes = _kept(cache, "hashes", pictures, "dhash-64", lambda: _hashes(pictures))
        in_training = np.array([picture.split == "training" for picture in pictures])
        usable = np.array([picture.medium is not None for picture in pictures])
        where = ", ".join(map(str, data_roots))
        for split, chosen in (("training", in_training & usable), ("validation", ~in_training & usable)):
            if not chosen.any():
                raise ValueError(f"no usable pictures of the split {split} below {where}: figures need both splits")
        candidates = np.flatnonzero(~in_training & usable)
        distances, _ = nearest_hashes(hashes[candidates], hashes[in_training])
        held_out, training = candidates[distances > NEAR], np.flatnonzero(in_training & usable)
        if not len(held_out):
            raise ValueError(f"every validation picture below {where} has a near-duplicate in training")
        return cls(
            [pictures[index] for index in held_out],
            len(candidates) - len(held_out),
            [pictures[index] for index in training],
            hashes[training],
        )


def real_features(
    network: FeatureNetwork, pictures: Sequence[Picture], resolution: int | None, cache: Path, desc: str
) -> np.ndarray:
    """Features of picture files, computed once and then kept in `cache`.

    Args:
        resolution: the side to which the pictures are brought first (Lanczos, as for training), so that the
            generator's size itself is not what is measured; `None` goes from the file straight to the network's size.
        desc: of the progress bar.

    Returns:
        (N, network.dim) float32.
    """
    about = f"{network.name} {network.size} {network.dim} at {resolution}"

    def compute() -> np.ndarray:
        return network.features_of_batches(_batches(pictures, resolution or network.size), len(pictures), desc)

    return _kept(cache, "features", pictures, about, compute)


def _batches(pictures: Sequence[Picture], resolution: int) -> Iterator[np.ndarray]:
    for start in range(0, len(pictures), BATCH):
        yield np.stack([squared(picture, resolution) for picture in pictures[start : start + BATCH]])


def squared(picture: Picture, resolution: int) -> np.ndarray:
    """One file as (resolution, resolution, 3) uint8, just as `atelier.dataset.loader.load_images` brings it."""
    image = open_picture(picture.path)
    return np.asarray(image.resize((resolution, resolution), Image.Resampling.LANCZOS))


def _hashes(pictures: Sequence[Picture]) -> np.ndarray:
    bar = progress_bar(pictures, desc="perceptual hashes", unit="picture")
    return np.array([perceptual_hash(open_picture(picture.path)) for picture in bar], np.uint64)


def _kept(
    cache: Path, kind: str, pictures: Sequence[Picture], about: str, compute: Callable[[], np.ndarray]
) -> np.ndarray:
    """What `compute` returns, from the cache if these very files (path, size, time) were seen before."""
    stats = [(picture.path.resolve(), picture.path.stat()) for picture in pictures]
    names = "\n".join([about, *(f"{path} {stat.st_size} {stat.st_mtime_ns}" for path, stat in stats)])
    key = hashlib.sha256(names.encode("utf-8", "surrogateescape")).hexdigest()[:16]
    path = cache / f"{kind}-{key}.npy"
    if path.is_file():
        try:
            return np.load(path)
        except (ValueError, OSError, EOFError):
            pass  # damaged: computed and written again
    values = compute()
    buffer = io.BytesIO()
    np.save(buffer, values)
    write_atomically(path, buffer.getvalue())
    return values


def quotas(media: Sequence[str], count: int) -> dict[str, int]:
    """How many of `count` pictures each medium gets, in the proportions of `media` (largest remainders)."""
    shares = np.array([list(media).count(style) for style in STYLES]) * count / len(media)
    numbers = np.floor(shares).astype(int)
    for index in np.argsort(numbers - shares, kind="stable")[: count - numbers.sum()]:
        numbers[index] += 1
    return dict(zip(STYLES, numbers.tolist(), strict=True))


def media_in_proportion(media: Sequence[str], count: int, seed: int = 0) -> list[str]:
    """`count` media to paint, in the proportions of `media` and in a random order, so that any part is mixed."""
    ordered = [style for style, number in quotas(media, count).items() for _ in range(number)]
    return [ordered[index] for index in np.random.default_rng(seed).permutation(count)]


def two_samples(real: RealPictures, count: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Two disjoint random samples of training pictures, in the held-out pictures' proportions of media.

    The first stands for "real" in precision and recall, the second shows what real pictures reach against it.
    Near-duplicates of the first are kept out of the second where enough others are left.

    Returns:
        two (n,) int64 arrays of indices into `real.training`; n is `count`, or what the rarest medium allows.

    Raises:
        ValueError: the training pictures lack one of the held-out media.
    """
    media = np.array([picture.medium for picture in real.training])
    wanted = [picture.medium for picture in real.held_out]
    available = {style: int((media == style).sum()) for style in STYLES}
    while count and any(2 * number > available[style] for style, number in quotas(wanted, count).items()):
        count -= 1
    if not count:
        raise ValueError("too few training pictures for two samples of every medium that is held out")
    random = np.random.default_rng(seed)
    order = {style: random.permutation(np.flatnonzero(media == style)) for style in STYLES}
    numbers = quotas(wanted, count)
    first = np.concatenate([order[style][: numbers[style]] for style in STYLES])
    distances, _ = nearest_hashes(real.training_hashes, real.training_hashes[first])
    second = []
    for style in STYLES:
        rest = order[style][numbers[style] :]
        rest = np.concatenate([rest[distances[rest] > NEAR], rest[distances[rest] <= NEAR]])
        second.append(rest[: numbers[style]])
    return first, np.concatenate(second)
