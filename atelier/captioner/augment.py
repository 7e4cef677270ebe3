"""Many views of one picture, so that a few thousand pictures teach more than their own pixels."""

from __future__ import annotations

import re

import numpy as np
from PIL import Image, ImageEnhance, ImageFilter, ImageOps

LEFT_RIGHT = re.compile(r"\b(left|right)\b")
# How often a view is degraded to what an enlarged 64-pixel picture looks like, since the generator paints such.
DEGRADED = 0.4


def random_view(image: Image.Image, caption: str, rng: np.random.Generator) -> Image.Image:
    """One augmented view of an RGB picture, of which the caption still holds.

    A crop of 75 to 100 % of the area, a flip (never where the caption knows left and right), mild colour;
    and in four views of ten the loss of detail of a small picture enlarged.
    """
    image = _crop(image, rng)
    if rng.random() < 0.5 and not LEFT_RIGHT.search(caption):
        image = ImageOps.mirror(image)
    for enhance in (ImageEnhance.Brightness, ImageEnhance.Contrast, ImageEnhance.Color):
        image = enhance(image).enhance(rng.uniform(0.8, 1.2))
    return degrade(image, rng) if rng.random() < DEGRADED else image


def degrade(image: Image.Image, rng: np.random.Generator) -> Image.Image:
    """Shrink to 48 to 96 pixels and enlarge again, with a little blur and noise: (H, W) stays."""
    side = int(rng.integers(48, 97))
    small = image.resize((side, side), Image.Resampling.LANCZOS)
    if rng.random() < 0.5:
        small = small.filter(ImageFilter.GaussianBlur(rng.uniform(0.2, 0.8)))
    if rng.random() < 0.5:
        noise = rng.normal(0.0, rng.uniform(2.0, 10.0), (side, side, 3))
        small = Image.fromarray(np.clip(np.asarray(small) + noise, 0, 255).astype(np.uint8))
    kernel = (Image.Resampling.LANCZOS, Image.Resampling.BICUBIC)[int(rng.integers(2))]
    return small.resize(image.size, kernel)


def _crop(image: Image.Image, rng: np.random.Generator) -> Image.Image:
    width, height = image.size
    wide, high = (np.sqrt(rng.uniform(0.75, 1.0, 2)) * (width, height)).astype(int)
    left, top = rng.integers(0, width - wide + 1), rng.integers(0, height - high + 1)
    return image.crop((left, top, left + wide, top + high))
