"""At which size the generator's pictures stop passing for real ones: `python benchmarks/detail.py --data FOLDER ...`.

Precision and recall of as many generated as real pictures, both shrunk to each size and enlarged again, so that only
what shows at that size counts; and the same of other real pictures, which is as good as can be. What is missing at
the full size and not at half of it is missing in the detail. `blurred` tells what detail is worth by itself: the other
real pictures shrunk, the first ones not. `spread` is the features' total variance, in parts of the real pictures'.
JSON lines on standard output.
"""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path

import numpy as np

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

from atelier.backend import import_keras  # noqa: E402

import_keras()

from atelier.dataset.loader import training_pictures  # noqa: E402
from atelier.evaluation.features import FeatureNetwork, resized  # noqa: E402
from atelier.evaluation.metrics import precision_recall  # noqa: E402
from atelier.generator.painter import Painter  # noqa: E402
from atelier.seeds import STYLES, latent_from_seed  # noqa: E402


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, nargs="+", required=True)
    parser.add_argument("--generator", type=Path, default=ROOT / "generator.h5")
    parser.add_argument("--features", type=Path, help="the feature network")
    parser.add_argument("--sizes", type=int, nargs="+", help="sides in pixels (default: the picture's, 1/2 and 1/4)")
    parser.add_argument("--count", type=int, default=400, help="pictures of each kind")
    parser.add_argument("--cache", type=Path, default=ROOT / "runs" / "cache")
    options = parser.parse_args()

    painter, network = Painter.load(options.generator), FeatureNetwork.load(options.features)
    images, styles = training_pictures(options.data, painter.size, options.cache)
    if 2 * options.count > len(images):
        parser.error(f"--count is at most half of the {len(images)} pictures")
    chosen = np.random.default_rng(0).permutation(len(images))[: 2 * options.count]
    real, others = (np.sort(half) for half in np.split(chosen, 2))
    latents = np.stack([latent_from_seed(seed, painter.latent_dim) for seed in range(options.count)])
    kinds = {
        "real": images[real],
        "others": images[others],
        "generated": painter.paint(latents, [STYLES[style] for style in styles[real]]),
    }
    sharp = None
    for size in options.sizes or [painter.size, painter.size // 2, painter.size // 4]:
        seen = {
            kind: network.features(resized(resized(pictures, size), painter.size), f"{kind}, {size} px")
            for kind, pictures in kinds.items()
        }
        if size == painter.size:
            sharp = seen["real"]
        row = {"size": size, "network": network.name, "count": options.count}
        for kind in ("generated", "others"):
            row[kind] = figures(seen["real"], seen[kind])
        if sharp is not None and size != painter.size:
            row["blurred"] = figures(sharp, seen["others"])
        print(json.dumps(row), flush=True)


def figures(real: np.ndarray, other: np.ndarray) -> dict[str, float]:
    """What `other` pictures' features are worth beside real ones', each (N, D)."""
    precision, recall = precision_recall(real, other)
    spread = other.var(axis=0).sum() / real.var(axis=0).sum()
    return {"precision": round(precision, 3), "recall": round(recall, 3), "spread": round(float(spread), 3)}


if __name__ == "__main__":
    main()
