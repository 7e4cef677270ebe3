"""What the detector sees of a picture: square crops of one scale, with nothing of the file left in them."""

from __future__ import annotations

import io
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image, ImageEnhance, ImageFilter, ImageOps

from atelier.images import open_picture

SIDE = 224
"""Of a view, in pixels."""

LONGEST = 4
"""Longer by shorter side, beyond which a picture's ends are not looked at: a strip would become a huge picture."""

GAP = 1.5
"""A large picture is first shrunk by a whole number, by fast means that leave it at least so many times too large."""


def opened(path: str | Path, side: int = SIDE) -> Image.Image:
    """`open_picture` for views of `side` pixels: large JPEGs are decoded at a half, a quarter or an eighth.

    The decoder leaves out the high frequencies of each block, which takes less than half of the time.

    Raises:
        ValueError: as of `open_picture`.
    """
    try:
        with Image.open(path) as image:
            if image.format == "JPEG" and image.width * image.height <= (Image.MAX_IMAGE_PIXELS or np.inf):
                image.draft(None, (round(GAP * side), round(GAP * side)))  # no side becomes shorter than that
                return ImageOps.exif_transpose(image).convert("RGB")
    except Exception:  # Pillow's decoders raise nearly every kind on a damaged file
        pass  # open_picture says what is wrong with it
    return open_picture(path)


def fitted(image: Image.Image, side: int = SIDE) -> Image.Image:
    """An RGB picture with its shorter side at `side` pixels, its proportions kept up to `LONGEST`."""
    width, height = image.size
    shorter = min(width, height)
    if max(width, height) > LONGEST * shorter:
        image = ImageOps.fit(image, (min(width, LONGEST * shorter), min(height, LONGEST * shorter)))
        width, height = image.size
    scale = side / shorter
    size = (max(side, round(width * scale)), max(side, round(height * scale)))
    return image if size == image.size else image.resize(size, Image.Resampling.BICUBIC, reducing_gap=GAP)


def crops(image: Image.Image, count: int, side: int = SIDE) -> np.ndarray:
    """Square views of a picture, at even distances along its longer side, every second one mirrored.

    Of a square picture all lie in the same place, so that the mirrored ones are what makes them differ.

    Args:
        image: RGB, of any size.
        count: 1 is the middle; 2 lie a quarter of the way in from either end; more reach from end to end.

    Returns:
        (count, side, side, 3) uint8.
    """
    image = fitted(image, side)
    width, height = image.size
    places = {1: [0.5], 2: [0.25, 0.75]}.get(count) or np.linspace(0, 1, count)
    corners = [(round((width - side) * place), round((height - side) * place)) for place in places]
    views = [np.asarray(image.crop((left, top, left + side, top + side))) for left, top in corners]
    return np.stack([view[:, ::-1] if index % 2 else view for index, view in enumerate(views)])


def jpeg_again(image: Image.Image, quality: int) -> Image.Image:
    """The picture after a JPEG of that quality."""
    buffer = io.BytesIO()
    image.save(buffer, "JPEG", quality=quality)
    return Image.open(buffer).convert("RGB")


def smaller_and_back(image: Image.Image, factor: float = 0.5) -> Image.Image:
    """The picture shrunk by a factor and enlarged to its size again."""
    size = tuple(max(1, round(length * factor)) for length in image.size)
    return image.resize(size, Image.Resampling.BICUBIC).resize(image.size, Image.Resampling.BICUBIC)


CONDITIONS: dict[str, Callable[[Image.Image], Image.Image]] = {
    "plain": lambda image: image,
    "jpeg60": lambda image: jpeg_again(image, 60),
    "half": smaller_and_back,
}
"""What is done to a whole picture before it is judged: nothing, or what robustness is measured by."""


@dataclass(frozen=True)
class Augmentation:
    """How random views differ from the picture; both classes get the same.

    The first three take away what a file tells: sharpness, compression, sizes.
    """

    shrink: float = 0.5
    """How often a view is shrunk and enlarged again, by a factor from 0.4 to 1."""
    jpeg: float = 0.5
    """How often it is compressed again, with a quality from 35 to 95."""
    blur: float = 0.15
    """How often it is blurred, by up to one pixel."""
    smallest_area: float = 0.4
    """Of a crop, of the largest square's area."""
    stretch: float = 1.2
    """A crop is at most so many times as wide as high, or as high as wide."""
    colour: float = 0.15
    """By how much brightness, contrast and colour change at most."""


def random_view(image: Image.Image, rng: np.random.Generator, how: Augmentation, side: int = SIDE) -> np.ndarray:
    """One augmented view of an RGB picture: (side, side, 3) uint8."""
    image = fitted(image, side)
    if rng.random() < how.shrink:
        image = smaller_and_back(image, rng.uniform(0.4, 1))
    if rng.random() < how.blur:
        image = image.filter(ImageFilter.GaussianBlur(rng.uniform(0, 1)))
    image = _crop(image, rng, how, side)
    if rng.random() < 0.5:
        image = ImageOps.mirror(image)
    for enhance in (ImageEnhance.Brightness, ImageEnhance.Contrast, ImageEnhance.Color):
        image = enhance(image).enhance(rng.uniform(1 - how.colour, 1 + how.colour))
    if rng.random() < how.jpeg:
        image = jpeg_again(image, int(rng.integers(35, 96)))
    return np.asarray(image)


def _crop(image: Image.Image, rng: np.random.Generator, how: Augmentation, side: int) -> Image.Image:
    area, stretch = rng.uniform(how.smallest_area, 1), how.stretch ** rng.uniform(-1, 1)
    largest = min(image.size)
    width, height = (min(largest, round(largest * np.sqrt(area * by))) for by in (stretch, 1 / stretch))
    left, top = rng.integers(0, image.width - width + 1), rng.integers(0, image.height - height + 1)
    return image.resize((side, side), Image.Resampling.BICUBIC, (left, top, left + width, top + height))
