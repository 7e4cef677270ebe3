"""Pictures spoiled on purpose, so that real ones shown the same way can be told: framed, photographed, pasted together.

There are no labels for "shows a frame, a shop photo, a collage or a book's page rather than the work itself". But
such pictures are easily made from those at hand, and a classifier that tells the made ones from their originals finds
the real ones among the originals: self-supervised, after the idea of Golan and El-Yaniv, "Deep anomaly detection using
geometric transformations" (2018). No human judgement of a picture goes into it.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
from PIL import Image, ImageDraw, ImageFilter, ImageFont

SIDE = 224

# Woods, gilt, metal and lacquer: what frames are made of (RGB).
MATERIALS = (
    (120, 70, 30),
    (160, 110, 60),
    (190, 150, 70),
    (60, 35, 20),
    (210, 180, 110),
    (30, 25, 25),
    (150, 140, 120),
    (110, 30, 25),
)
LETTERS = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789"


def spoil(image: Image.Image, others: Sequence[Image.Image], random: np.random.Generator) -> Image.Image:
    """A copy of an artwork's picture as it should not be shown.

    Args:
        image: RGB.
        others: at least one further picture, for collages.
        random: decides how.

    Returns:
        RGB, 224 x 224 pixels: in a frame, photographed on a table or wall, one of a collage, or on a page.
    """
    kind = KINDS[random.choice(len(KINDS), p=[0.35, 0.3, 0.22, 0.13])]
    return kind(image.convert("RGB").resize((SIDE, SIDE)), others, random)


def framed(image: Image.Image, others: Sequence[Image.Image], random: np.random.Generator) -> Image.Image:
    """In a frame of two to five mouldings, sometimes oval, sometimes with the wall around it."""
    sheet = _textured(random, MATERIALS[random.integers(len(MATERIALS))], random.uniform(5, 35))
    draw, width, bands, at = ImageDraw.Draw(sheet), random.uniform(0.1, 0.3) * SIDE, int(random.integers(2, 6)), 0.0
    for _ in range(bands):
        color = np.array(MATERIALS[random.integers(len(MATERIALS))]) * random.uniform(0.5, 1.5)
        if random.random() < 0.6:
            band = max(1, int(width / bands * random.uniform(0.3, 1)))
            draw.rectangle((at, at, SIDE - at, SIDE - at), outline=_rgb(color), width=band)
        at += width / bands
    edge = int(width)
    inner = image.resize((SIDE - 2 * edge, SIDE - 2 * edge))
    mask = Image.new("L", inner.size, 255)
    if random.random() < 0.25:
        mask.paste(0, (0, 0, *inner.size))
        ImageDraw.Draw(mask).ellipse((0, 0, *inner.size), fill=255)
    sheet.paste(inner, (edge, edge), mask)
    if random.random() < 0.35:
        wall, gap = _background(random), int(random.uniform(0.03, 0.12) * SIDE)
        wall.paste(sheet.resize((SIDE - 2 * gap, SIDE - 2 * gap)), (gap, gap))
        return wall
    return sheet


def photographed(image: Image.Image, others: Sequence[Image.Image], random: np.random.Generator) -> Image.Image:
    """Lying or hanging somewhere, seen a little from the side, with a shadow."""
    wall = _background(random)
    if random.random() < 0.4:
        image = framed(image, others, random)
    x, y = random.uniform(0.08, 0.3), random.uniform(0.05, 0.25)
    tilt = random.uniform(0, 0.07)
    corners = np.array([(x, y), (1 - x, y), (1 - x, 1 - y), (x, 1 - y)]) + random.uniform(-tilt, tilt, (4, 2))
    how = _perspective(corners * SIDE, np.array([(0, 0), (SIDE, 0), (SIDE, SIDE), (0, SIDE)]))
    seen = image.transform((SIDE, SIDE), Image.Transform.PERSPECTIVE, how, Image.Resampling.BICUBIC)
    mask = Image.new("L", image.size, 255).transform((SIDE, SIDE), Image.Transform.PERSPECTIVE, how)
    offset = int(random.integers(1, 8))
    shadow = mask.filter(ImageFilter.GaussianBlur(4)).point(lambda value: value // 2)
    wall.paste((0, 0, 0), (offset, offset, offset + SIDE, offset + SIDE), shadow)
    wall.paste(seen, (0, 0), mask)
    return wall


def collaged(image: Image.Image, others: Sequence[Image.Image], random: np.random.Generator) -> Image.Image:
    """One of two to nine pictures side by side, or beside details of itself."""
    grids = ((1, 2), (1, 2), (2, 1), (2, 2), (1, 3), (2, 3), (3, 3))
    rows, columns = grids[random.integers(len(grids))]
    sheet, gap, itself = _background(random), int(random.choice([0, 2, 4, 8])), random.random() < 0.3
    width, height = SIDE // columns, SIDE // rows
    for place in range(rows * columns):
        part = image if itself or not place else others[place % len(others)]
        if itself and place:
            cut = random.uniform(0, 0.25)
            part = part.crop((int(cut * part.width), int(cut * part.height), part.width, part.height))
        part = part.resize((width - gap, height - gap))
        sheet.paste(part, (place % columns * width + gap // 2, place // columns * height + gap // 2))
    return sheet


def printed(image: Image.Image, others: Sequence[Image.Image], random: np.random.Generator) -> Image.Image:
    """On a page with wide margins and lines of text."""
    paper = np.minimum(np.array([250, 245, 230]) * random.uniform(0.6, 1.02), 255)
    page = _textured(random, paper, random.uniform(0, 8))
    width, height = int(SIDE * random.uniform(0.35, 0.7)), int(SIDE * random.uniform(0.3, 0.65))
    left, top = int((SIDE - width) * random.uniform(0.2, 0.8)), int((SIDE - height) * random.uniform(0.1, 0.6))
    page.paste(image.resize((width, height)), (left, top))
    draw, size, line = ImageDraw.Draw(page), int(random.integers(6, 16)), top + height + 4
    while line < SIDE - 8 and random.random() < 0.93:
        text = "".join(LETTERS[letter] for letter in random.integers(0, len(LETTERS), 60))
        draw.text((SIDE * random.uniform(0.05, 0.15), line), text, fill=(40, 35, 30), font=ImageFont.load_default(size))
        line += size + 2
    return page


KINDS: tuple[Callable, ...] = (framed, photographed, collaged, printed)


def _background(random: np.random.Generator) -> Image.Image:
    kind = random.random()
    if kind < 0.35:
        return Image.new("RGB", (SIDE, SIDE), "white" if random.random() < 0.7 else "black")
    color = random.integers(0, 256, 3)
    return (
        Image.new("RGB", (SIDE, SIDE), _rgb(color)) if kind < 0.6 else _textured(random, color, random.uniform(5, 40))
    )


def _textured(random: np.random.Generator, color: Sequence[float], strength: float) -> Image.Image:
    """A colour with blurred noise on it, stretched in one direction like grain."""
    fine = int(random.integers(4, SIDE // 2))
    noise = random.normal(0, 1, (fine, max(2, int(fine * random.uniform(0.1, 1))))).astype(np.float32)
    grain = np.asarray(Image.fromarray(noise).resize((SIDE, SIDE), Image.Resampling.BICUBIC))
    return Image.fromarray(np.clip(np.asarray(color) + strength * grain[..., None], 0, 255).astype(np.uint8))


def _perspective(corners: np.ndarray, source: np.ndarray) -> np.ndarray:
    """Pillow's eight coefficients of the map that takes four corners to four points of the source."""
    rows, values = [], []
    for (x, y), (u, v) in zip(corners, source, strict=True):
        rows += [[x, y, 1, 0, 0, 0, -u * x, -u * y], [0, 0, 0, x, y, 1, -v * x, -v * y]]
        values += [u, v]
    return np.linalg.solve(np.array(rows, float), np.array(values, float))


def _rgb(color: np.ndarray) -> tuple[int, int, int]:
    red, green, blue = np.clip(color, 0, 255).astype(int)
    return int(red), int(green), int(blue)
