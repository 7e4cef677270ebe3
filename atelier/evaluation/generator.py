"""All figures of a generator in one run: `python -m atelier evaluate generator`. docs/evaluation.md defines them."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np

from atelier.config import Config
from atelier.dataset.source import Picture
from atelier.evaluation import plots
from atelier.evaluation.copies import ALIKE, close_pairs, hash_images, nearest_hashes_mirrored, pixel_difference
from atelier.evaluation.detector import share_called_human
from atelier.evaluation.features import FeatureNetwork
from atelier.evaluation.medium import MediumClassifier
from atelier.evaluation.metrics import (
    fid,
    inception_score,
    kid,
    mean_pairwise_distance,
    nearest_neighbours,
    precision_recall,
)
from atelier.evaluation.real import NEAR, RealPictures, media_in_proportion, real_features, squared, two_samples
from atelier.generator.painter import Painter
from atelier.images import write_atomically
from atelier.progress import progress_bar
from atelier.seeds import STYLES, check_truncation, latent_from_seed, style_from_seed

FEWEST = 20
REPEATS = 1000
K = 3
BATCH = 64
LISTED = 20


def evaluate_generator(
    generator: str | Path,
    data_roots: Sequence[str | Path],
    out: str | Path,
    *,
    count: int = 1600,
    seed: int = 0,
    truncation: float | None = None,
    features: str | Path | None = None,
    classes: str | Path | None = None,
    detector: str | Path | None = None,
    full_size: bool = False,
    all_training: bool = False,
    cache: str | Path | None = None,
) -> dict:
    """Measure a generator against held-out and training pictures, and those against each other (the floor).

    Writes `figures.json`, `neighbours.png` (shows pictures of the data set: mind their rights), `figures.png`, and
    `gallery/` (a sheet a medium, as `main()` paints its first seeds).

    Args:
        generator: a generator.h5.
        data_roots: folders of pictures, with both splits.
        out: where the files go.
        count: generated pictures, of the seeds 0 ... count-1, and real ones in precision and recall.
        seed: of the choice of real pictures, of KID's subsets and of the order of the media.
        truncation: of the latents, as `latent_from_seed`: less of it raises precision and lowers recall.
        features: the feature network, as `FeatureNetwork.load`.
        classes: the network of class probabilities, as `FeatureNetwork.load_classes`.
        detector: a detector.h5 that says which pictures it takes for a human's; where there is none, nobody says.
        full_size: compare with the real pictures at their own size, not at the generator's.
        all_training: search neighbours by features among all training pictures, not only two samples of them.
        cache: keeps features of real pictures (default: `cache` in `out`).

    Returns:
        the named figures, as they stand in figures.json.

    Raises:
        ValueError: a parameter, the data or a network does not serve; the message says which and why.
        FileNotFoundError, PainterError: no data, no generator.
    """
    if count < FEWEST:
        raise ValueError(f"count is a number of pictures from {FEWEST} up, not {count}")
    if seed < 0:
        raise ValueError(f"the seed of the choice is a whole number from 0 up, not {seed}")
    if truncation is not None:
        truncation = check_truncation(truncation)
    out = Path(out)
    cache = Path(cache or out / "cache")
    painter = Painter.load(generator)
    network, class_network = FeatureNetwork.load(features), FeatureNetwork.load_classes(classes)
    real = RealPictures.find(data_roots, cache)
    size = None if full_size else painter.size

    # The real side: held-out pictures; two samples of training pictures; if asked, all the others.
    first, second = two_samples(real, count, seed)
    order = np.concatenate([first, second])
    if all_training:
        order = np.concatenate([order, np.setdiff1d(np.arange(len(real.training)), order)])
    training = [real.training[index] for index in order]
    n = len(first)
    seen = {
        "held out": real_features(network, real.held_out, size, cache, "held-out pictures"),
        "training": real_features(network, training, size, cache, "training pictures"),
    }
    sample, other_sample = seen["training"][:n], seen["training"][n : 2 * n]
    sample_classes = real_features(class_network, training[:n], size, cache, "training pictures, classes")
    held_out_media, training_media = _media(real.held_out), _media(training)

    # The generated side, in the held-out pictures' proportions of media.
    seeds, media = range(count), media_in_proportion(held_out_media, count, seed)
    images = paint(painter, seeds, media, truncation, "painting")
    seen["generated"] = network.features(images, "generated pictures")
    probabilities = class_network.features(images, "generated pictures, classes")

    judge = MediumClassifier(seen["training"], training_media)
    distances, by_features = nearest_neighbours(seen["generated"], seen["training"])
    bits, by_hash = nearest_hashes_mirrored(images, real.training_hashes)
    repeated = paint(painter, range(REPEATS), list(map(style_from_seed, range(REPEATS))), truncation, "repeats")

    dim, named = network.dim, f"({network.name})"
    figures = {
        "generator": Path(generator).name,
        "generator_sha256": hashlib.sha256(Path(generator).read_bytes()).hexdigest()[:16],
        "resolution": painter.size,
        "real_pictures_at": "their own size" if full_size else f"{painter.size} px, as the generator's",
        "truncation": truncation,
        "seed": seed,
        "counts": {
            "generated": count,
            "held_out": len(real.held_out),
            "held_out_dropped_as_near_duplicates": real.dropped,
            "training": len(real.training),
            "training_in_each_sample": n,
        },
        "kid": {"label": f"KID-{dim} {named}"} | _spread(kid(seen["held out"], seen["generated"], seed=seed)),
        "fid": {"label": f"FID-{dim} {named}", "value": fid(seen["held out"], seen["generated"])},
        "precision_recall": {"label": f"precision and recall, k = {K}, {dim} features {named}", "pictures_a_side": n}
        | _named(precision_recall(sample, seen["generated"][:n], K)),
        "inception_score": {"label": f"IS ({class_network.name})"} | _spread(inception_score(probabilities)),
        "medium_fidelity": {"label": f"linear discriminant on {dim} features {named}"}
        | judge.accuracy(seen["generated"], media),
        "diversity": {"label": f"mean distance of two pictures of a medium, {dim} features {named}"}
        | _diversity(seen["generated"], media, sample, training_media[:n]),
        "repeats": {"label": f"perceptual hash, 64 bits, seeds 0-{REPEATS - 1}, each in its own medium"}
        | _repeats(hash_images(repeated), repeated.__getitem__),
        "copies": {
            "label": f"nearest training picture, mirrored too; distances of {dim} features {named}",
            "hash_compared_with": len(real.training),
            "features_compared_with": len(training),
        }
        | _nearest(bits, distances)
        | _suspects(images, media, bits, by_hash, real.training),
        "detector": share_called_human(detector, images) if detector and Path(detector).is_file() else None,
        "floor": _floor(real, seen["held out"], sample, other_sample, sample_classes, seed)
        | {"medium_fidelity": judge.accuracy(seen["held out"], held_out_media)}
        | {"copies": _held_out_copies(real, seen)},
    }
    figures = _rounded(figures)
    write_atomically(out / "figures.json", json.dumps(figures, indent=1, ensure_ascii=False).encode())
    nearest = [(training[index], real.training[other]) for index, other in zip(by_features, by_hash, strict=True)]
    write_atomically(out / "neighbours.png", plots.neighbours(images, media, nearest, distances, bits))
    for style in STYLES:
        write_atomically(out / "gallery" / f"{style}.jpg", plots.gallery(painter, style, Config().truncation))
    write_atomically(out / "figures.png", plots.overview(seen["held out"], seen["generated"], media, judge))
    return figures


def paint(
    painter: Painter, seeds: Sequence[int], media: Sequence[str], truncation: float | None, desc: str
) -> np.ndarray:
    """Paint each seed in its medium: (N, size, size, 3) uint8."""
    images = np.empty((len(seeds), painter.size, painter.size, 3), np.uint8)
    with progress_bar(total=len(seeds), desc=desc, unit="picture") as bar:
        for start in range(0, len(seeds), BATCH):
            part = slice(start, start + BATCH)
            latents = np.stack([latent_from_seed(seed, painter.latent_dim, truncation) for seed in seeds[part]])
            images[part] = painter.paint(latents, list(media[part]), BATCH)
            bar.update(len(latents))
    return images


def _media(pictures: Sequence[Picture]) -> list[str]:
    return [picture.medium for picture in pictures]


def _spread(values: tuple[float, float]) -> dict[str, float]:
    return dict(zip(("mean", "std"), values, strict=True))


def _named(values: tuple[float, float]) -> dict[str, float]:
    return dict(zip(("precision", "recall"), values, strict=True))


def _diversity(generated: np.ndarray, media: Sequence[str], real: np.ndarray, real_media: Sequence[str]) -> dict:
    figures = {}
    for style in STYLES:
        own, others = generated[np.array(media) == style], real[np.array(real_media) == style]
        if len(own) > 1 and len(others) > 1:
            made, found = mean_pairwise_distance(own), mean_pairwise_distance(others)
            figures[style] = {"generated": made, "real": found, "ratio": made / found if found else None}
    return figures


def _repeats(hashes: np.ndarray, picture: Callable[[int], np.ndarray]) -> dict:
    """Pairs of pictures that are alike; `picture` gives the i-th one as an array."""
    smallest, close = close_pairs(hashes, NEAR)
    pairs = [{"pair": pair, "difference": pixel_difference(*map(picture, pair))} for pair in close]
    pairs.sort(key=lambda each: each["difference"])
    return {
        "pictures": len(hashes),
        "smallest_bits": smallest,
        f"pairs_within_{NEAR}_bits": len(pairs),
        "near_identical_pairs": sum(each["difference"] <= ALIKE for each in pairs),
        "pairs": pairs[:LISTED],
    }


def _nearest(bits: np.ndarray, distances: np.ndarray) -> dict:
    return {
        "smallest_bits": int(bits.min()),
        "median_bits": float(np.median(bits)),
        f"within_{NEAR}_bits": int((bits <= NEAR).sum()),
        "smallest_distance": float(distances.min()),
        "median_distance": float(np.median(distances)),
    }


def _suspects(
    images: np.ndarray, media: Sequence[str], bits: np.ndarray, nearest: np.ndarray, training: Sequence[Picture]
) -> dict:
    """The generated pictures whose hash nearly is a training picture's, most alike first: for a person to look at."""
    suspects = []
    for index in np.flatnonzero(bits <= NEAR):
        image, picture = images[index], training[nearest[index]]
        original = squared(picture, len(image))
        difference = min(pixel_difference(image, original), pixel_difference(image[:, ::-1], original))
        about = {"seed": int(index), "medium": media[index], "bits": int(bits[index]), "difference": difference}
        suspects.append(about | {"picture": picture.path.as_posix()})
    suspects.sort(key=lambda each: each["difference"])
    near_identical = sum(each["difference"] <= ALIKE for each in suspects)
    return {"near_identical": near_identical, "to_look_at": suspects[:LISTED]}


def _floor(
    real: RealPictures,
    held_out: np.ndarray,
    sample: np.ndarray,
    other_sample: np.ndarray,
    sample_classes: np.ndarray,
    seed: int,
) -> dict:
    """What real pictures reach in the generated ones' place: held-out against a training sample of equal count.

    For precision and recall, which need equal counts, one training sample against the other.
    """
    chosen = two_samples(real, REPEATS, seed)[0]
    mixed = np.random.default_rng(seed).permutation(sample_classes)  # a sample is in order of media: splits are not
    return {
        "kid": _spread(kid(held_out, sample, seed=seed)),
        "fid": fid(held_out, sample),
        "precision_recall": _named(precision_recall(sample, other_sample, K)),
        "inception_score": _spread(inception_score(mixed)),
        "repeats": _repeats(
            real.training_hashes[chosen], lambda index: squared(real.training[chosen[index]], plots.SIDE)
        ),
    }


def _held_out_copies(real: RealPictures, seen: dict[str, np.ndarray]) -> dict:
    images = [plots.small(picture) for picture in real.held_out]
    bits, _ = nearest_hashes_mirrored(np.stack(images), real.training_hashes)
    distances, _ = nearest_neighbours(seen["held out"], seen["training"])
    return _nearest(bits, distances)


def _rounded(value):
    if isinstance(value, float):
        return float(f"{value:.6g}")  # KID on 768 features is small: significant digits, not decimals
    if isinstance(value, dict):
        return {key: _rounded(each) for key, each in value.items()}
    return [_rounded(each) for each in value] if isinstance(value, (list, tuple)) else value
