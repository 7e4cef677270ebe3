"""How well the frozen features can tell generated from real pictures: `python benchmarks/judges.py --data FOLDER ...`.

A linear probe of each scale's features, pooled, shows what a judge that looks through them could know at best: as
MobileNetV2 or EfficientNet-Lite0 (`--lite FILE`, or `--lite package`) gives them, and after the fixed random mixing of
`atelier.generator.eye`. JSON lines on standard output.
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

keras = import_keras()

from atelier.dataset.loader import training_pictures  # noqa: E402
from atelier.generator.eye import WIDTHS, build_eye, build_lite_eye  # noqa: E402
from atelier.generator.painter import Painter  # noqa: E402
from atelier.images import from_uint8  # noqa: E402
from atelier.seeds import STYLES, latent_from_seed  # noqa: E402


def pooled(network: keras.Model, images: np.ndarray) -> list[np.ndarray]:
    """Mean and standard deviation over all places of each of the network's maps: K arrays (N, 2 C)."""
    parts = [network.predict_on_batch(from_uint8(images[at : at + 64])) for at in range(0, len(images), 64)]
    maps = [np.concatenate(each) for each in zip(*parts, strict=True)]
    return [np.concatenate([each.mean((1, 2)), each.std((1, 2))], axis=1) for each in maps]


def accuracy(features: np.ndarray, real: np.ndarray) -> float:
    """Of a linear probe, on pictures that it was not fitted to (five folds)."""
    from sklearn.linear_model import LogisticRegression
    from sklearn.model_selection import cross_val_score
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    probe = make_pipeline(StandardScaler(), LogisticRegression(C=0.01, max_iter=500))
    return round(float(cross_val_score(probe, features, real, cv=5).mean()), 3)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, nargs="+", required=True)
    parser.add_argument("--generator", type=Path, default=ROOT / "generator.h5")
    parser.add_argument("--features", default="imagenet", help="MobileNetV2's weights without its top")
    parser.add_argument("--lite", metavar="FILE", help="EfficientNet-Lite0's weights, or package: it looks, too")
    parser.add_argument("--sizes", type=int, nargs="+", default=[64, 128], help="sides at which they look")
    parser.add_argument("--count", type=int, default=1200, help="pictures of either kind")
    parser.add_argument("--cache", type=Path, default=ROOT / "runs" / "cache")
    options = parser.parse_args()

    painter = Painter.load(options.generator)
    images, styles = training_pictures(options.data, painter.size, options.cache)
    chosen = np.sort(np.random.default_rng(0).permutation(len(images))[: options.count])
    latents = np.stack([latent_from_seed(seed, painter.latent_dim) for seed in range(len(chosen))])
    made = painter.paint(latents, [STYLES[style] for style in styles[chosen]])
    both, real = np.concatenate([images[chosen], made]), np.repeat([1, 0], len(chosen))
    order = np.random.default_rng(1).permutation(len(both))
    both, real = both[order], real[order]
    for size in options.sizes:
        eyes = {
            f"MobileNetV2, mixed to {WIDTHS}": build_eye(size, options.features),
            "MobileNetV2, mixed to 32": build_eye(size, options.features, (32,) * len(WIDTHS)),
        }
        if options.lite:
            eyes["EfficientNet-Lite0, mixed"] = build_lite_eye(size, options.lite)
        for name in list(eyes):
            image, resizing, backbone = eyes[name].layers[:3]
            eyes[name.split(",")[0] + ", as it is"] = keras.Model(image.output, backbone(resizing.output))
        for name, eye in eyes.items():
            figures = [accuracy(features, real) for features in pooled(eye, both)]
            scales = [f"1/{size // output.shape[1]}" for output in eye.outputs]
            print(json.dumps({"size": size, "features": name} | dict(zip(scales, figures, strict=True))), flush=True)


if __name__ == "__main__":
    main()
