"""Which recipe learns most in the same time: every one trains alone on one thread for equal processor time.

    python benchmarks/recipes.py --data data/art-images data/more-paintings --minutes 6
    python benchmarks/recipes.py --data ... --minutes 6 plain hinge        # only these

One change at a time from a base (`base` in the table says which). Writes runs/recipes/NAME/, the sheet of each (one
latent a row, one medium a column, nothing picked) to docs/recipes/NAME.jpg, and the table to docs/recipes/table.json
and, as Markdown, to standard output. Runs that are there are not run again. KID, precision and recall are measured
as `evaluate generator` does, against held-out pictures, on 650 generated ones.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

# name: (base, what changes, settings). "features" needs MobileNetV2's weights: --mobilenet, or the internet.
PLAIN = "generator=dcgan ema_decay=0.0 augment="
RECIPES = {
    "plain": ("", "the published DCGAN: transposed convolutions, non-saturating, Adam 2e-4, β₁ 0.5", PLAIN),
    "diffaugment": ("plain", "+ DiffAugment (translation, cutout)", "generator=dcgan ema_decay=0.0"),
    "ema": ("diffaugment", "+ average of the weights", "generator=dcgan"),
    "skip": ("ema", "+ skip generator, latent-modulated batch norm", ""),
    "color": ("skip", "colour augmentation too", "augment=color,translation,cutout"),
    "hinge-sn": ("skip", "hinge loss, spectral norm for batch norm", "loss=hinge spectral_norm=true"),
    "r1": ("skip", "R1, γ 0.05", "gradient_penalty=0.05"),
    "relativistic-r1": ("r1", "relativistic loss", "loss=relativistic gradient_penalty=0.05"),
    "projected": ("skip", "projected discriminator alone, hinge", "judges=features loss=hinge feature_size=64"),
    "both": ("skip", "projected discriminator beside that of pixels", "judges=pixels,features feature_size=64"),
    "both-128": ("both", "MobileNetV2 looks at 128 px, not 64", "judges=pixels,features feature_size=128"),
    "crowd": ("both", "energy distance of the crowds, weight 10", "judges=pixels,features feature_size=64 crowd=10"),
    "grain": ("skip", "noise of the latent's making", "grain=true"),
    "excitation": ("skip", "skip-layer excitation", "excitation=true"),
    "subpixel": ("skip", "the last doubling by sub-pixel convolution", "subpixel=true"),
    "batch-32": ("skip", "batch 32", "batch_size=32"),
    "batch-64": ("skip", "batch 64", "batch_size=64"),
    "narrow": ("skip", "width 16", "width=16 discriminator_width=16"),
    "wide": ("skip", "width 48", "width=48 discriminator_width=48"),
    "kaggle": ("skip", "without the added paintings", ""),
}


def run(name: str, options: argparse.Namespace) -> None:
    """Train one recipe in this process, which has one thread."""
    from atelier.backend import import_keras

    import_keras()
    from atelier.generator.train import Recipe, train

    settings = [f"features={options.mobilenet}", *RECIPES[name][2].split()]
    data = options.data[:1] if name == "kaggle" else options.data
    out = options.out / name
    cache = options.out / "cache"
    cache.mkdir(parents=True, exist_ok=True)
    out.mkdir(parents=True, exist_ok=True)
    if not (out / "cache").exists():
        (out / "cache").symlink_to(cache.resolve(), target_is_directory=True)
    train(
        data,
        out,
        minutes=options.minutes,
        recipe=Recipe.of(settings),
        resume=False,
        checkpoint_minutes=options.minutes * 100,  # only at the end
        clock=time.process_time,
    )


def measure(name: str, options: argparse.Namespace) -> dict:
    """The row of the table of a finished run."""
    import csv

    import numpy as np
    from PIL import Image

    from atelier.evaluation.features import FeatureNetwork
    from atelier.evaluation.metrics import kid, precision_recall
    from atelier.evaluation.real import RealPictures, real_features
    from atelier.generator.painter import Painter
    from atelier.seeds import latent_from_seed

    out, cache = options.out / name, options.out / "cache"
    last = list(csv.DictReader((out / "history.csv").open()))[-1]
    network, painter = FeatureNetwork.load(options.features), Painter.load(out / "generator.h5")
    real = RealPictures.find(options.data, cache)
    held_out = real_features(network, real.held_out, painter.size, cache, "held-out pictures")
    media = [picture.medium for picture in real.held_out]
    latents = np.stack([latent_from_seed(seed, painter.latent_dim) for seed in range(len(media))])
    features = network.features(painter.paint(latents, media))
    mean, spread = kid(held_out, features)
    precision, recall = precision_recall(held_out, features)
    sheet = ROOT / "docs" / "recipes" / f"{name}.jpg"
    sheet.parent.mkdir(parents=True, exist_ok=True)
    Image.open(max((out / "samples").glob("*.png"))).convert("RGB").save(sheet, quality=85)
    pictures = int(float(last["pictures"]))
    return {
        "recipe": name,
        "base": RECIPES[name][0],
        "change": RECIPES[name][1],
        "pictures": pictures,
        "pictures_per_second": round(pictures / options.minutes / 60, 1),
        "kid": mean,
        "kid_std": spread,
        "precision": precision,
        "recall": recall,
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("names", nargs="*", metavar="NAME", help=f"out of {', '.join(RECIPES)} (default: all)")
    parser.add_argument("--data", type=Path, nargs="+", required=True, help="the first is the Kaggle set")
    parser.add_argument("--minutes", type=float, default=6.0, help="of processor time for each")
    parser.add_argument("--out", type=Path, default=Path("runs/recipes"))
    parser.add_argument("--mobilenet", default="imagenet", help="MobileNetV2's weights without its top")
    parser.add_argument("--features", type=Path, help="the feature network of KID")
    parser.add_argument("--one", choices=RECIPES, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.one:
        run(options.one, options)
        return
    if unknown := set(options.names) - set(RECIPES):
        parser.error(f"no such recipe: {', '.join(sorted(unknown))}")
    one_thread = {"TF_NUM_INTRAOP_THREADS": "1", "TF_NUM_INTEROP_THREADS": "1", "OMP_NUM_THREADS": "1"}
    table = ROOT / "docs" / "recipes" / "table.json"
    rows = {row["recipe"]: row for row in json.loads(table.read_text())} if table.exists() else {}
    for name in options.names or RECIPES:
        if not (options.out / name / "generator.h5").exists():
            again = [sys.executable, __file__, *sys.argv[1:], "--one", name]
            subprocess.run(again, check=True, env=os.environ | one_thread)
            rows.pop(name, None)
        if name not in rows:
            rows[name] = measure(name, options)
            table.parent.mkdir(parents=True, exist_ok=True)
            table.write_text(json.dumps([rows[each] for each in RECIPES if each in rows], indent=1) + "\n")
    print("| recipe | base | change | pictures | per second | KID-768 × 1000 | precision | recall |")
    print("|---|---|---|---|---|---|---|---|")
    for row in (rows[each] for each in RECIPES if each in rows):
        kid = f"{1000 * row['kid']:.2f} ± {1000 * row['kid_std']:.2f}"
        seen = f"{row['pictures']:,} | {row['pictures_per_second']:.0f}"
        print(
            f"| {row['recipe']} | {row['base']} | {row['change']} | {seen} | {kid} "
            f"| {row['precision']:.2f} | {row['recall']:.3f} |"
        )


if __name__ == "__main__":
    main()
