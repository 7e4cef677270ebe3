"""What the generator's figures would be, were its pictures real ones that lack something.

`python benchmarks/ceiling.py --data FOLDER ...` holds real pictures against real pictures as `evaluate generator` holds
generated ones, whole and made worse in known ways: shrunk and enlarged again by Lanczos, and two of a medium put
together. So it tells what a picture may lack before a figure is lost. JSON lines on standard output; about ten minutes
on two cores.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
from PIL import Image

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

from atelier.evaluation.features import FeatureNetwork  # noqa: E402
from atelier.evaluation.metrics import fid, kid, precision_recall  # noqa: E402
from atelier.evaluation.real import RealPictures, real_features, squared, two_samples  # noqa: E402

SEAM = 0.3
"""Width of the soft seam between two pictures put together, in sides."""


def resized(image: np.ndarray, side: int) -> np.ndarray:
    return np.asarray(Image.fromarray(image).resize((side, side), Image.Resampling.LANCZOS))


def together(one: np.ndarray, other: np.ndarray, angle: float) -> np.ndarray:
    """Two pictures (S, S, 3), each one half of the new one, with a soft seam through the middle at `angle`."""
    across, down = np.meshgrid(*2 * [np.linspace(-0.5, 0.5, len(one))])
    share = np.clip((across * np.cos(angle) + down * np.sin(angle)) / SEAM + 0.5, 0, 1)[..., None]
    return np.round(one * share + other * (1 - share)).astype(np.uint8)


def worse(images: np.ndarray, media: np.ndarray, seed: int) -> Iterator[tuple[str, np.ndarray]]:
    """What is done to (N, S, S, 3) uint8 pictures, and what they are then."""
    random, side = np.random.default_rng(seed), images.shape[1]
    mates = np.array([random.choice(np.flatnonzero(media == medium)) for medium in media])
    angles = random.uniform(0, 2 * np.pi, len(images))

    def each(change: Callable[[int], np.ndarray]) -> np.ndarray:
        return np.stack([change(index) for index in range(len(images))])

    halves = each(lambda index: together(images[index], images[mates[index]], angles[index]))
    yield "nothing", images
    for fewer in (side // 2, 3 * side // 8, side // 4):
        small = each(lambda index, fewer=fewer: resized(images[index], fewer))
        yield f"shrunk to {fewer} px and enlarged", np.stack([resized(image, side) for image in small])
    yield "two of a medium put together", halves
    yield (
        f"two put together, shrunk to {side // 2} px and enlarged",
        each(lambda index: resized(resized(halves[index], side // 2), side)),
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, nargs="+", required=True)
    parser.add_argument("--resolution", type=int, default=128, help="side of the pictures, in pixels")
    parser.add_argument("--count", type=int, default=1600, help="pictures a side")
    parser.add_argument("--features", type=Path, metavar="FILE", help="another feature network, a Keras file")
    parser.add_argument("--cache", type=Path, default=ROOT / "runs" / "cache")
    options = parser.parse_args()

    network, real = FeatureNetwork.load(options.features), RealPictures.find(options.data, options.cache)
    first, second = two_samples(real, options.count, 0)
    training = [real.training[index] for index in np.concatenate([first, second])]
    held_out = real_features(network, real.held_out, options.resolution, options.cache, "held-out pictures")
    sample = real_features(network, training, options.resolution, options.cache, "training pictures")[: len(first)]
    others = training[len(first) :]
    images = np.stack([squared(picture, options.resolution) for picture in others])
    for change, pictures in worse(images, np.array([picture.medium for picture in others]), 0):
        seen = network.features(pictures, change)
        precision, recall = precision_recall(sample, seen)
        figures = {"kid": kid(held_out, seen)[0], "fid": fid(held_out, seen), "precision": precision, "recall": recall}
        row = {"real pictures": change} | {name: float(f"{value:.4g}") for name, value in figures.items()}
        print(json.dumps(row), flush=True)


if __name__ == "__main__":
    main()
