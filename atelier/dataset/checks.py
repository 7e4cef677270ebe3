"""One file's bytes become a plain RGB picture with what is known of it, or the reason why not."""

from __future__ import annotations

import hashlib
import io
import os
import re
import stat
import warnings
from dataclasses import dataclass

import numpy as np
from PIL import Image, UnidentifiedImageError

from atelier.images import open_picture, perceptual_hash

THUMBNAIL = 32
"""Side in pixels of the thumbnails by which near-duplicates are told."""

REDUCED = 96  # pixels, at least, at which a plain JPEG is looked at

# No EPS or PDF, which would start another program.
FORMATS = ("JPEG", "PNG", "GIF", "BMP", "TIFF", "WEBP", "PPM", "TGA", "JPEG2000", "AVIF")
Image.init()  # so that `formats` may name all of them


@dataclass(frozen=True)
class Limits:
    """What a picture must keep to."""

    min_side: int = 64
    """The shorter side's least pixels."""
    max_aspect: float = 4.0
    """The longer side may be so many times the shorter one."""
    max_pixels: int = 89_478_485
    """More is a decompression bomb (Pillow's own limit: a quarter of a GiB as RGB)."""
    max_bytes: int = 256 * 2**20
    """A longer file is not read at all."""
    min_contrast: float = 4.0
    """Standard deviation, in grey levels, of the thumbnail: less is a blank page."""
    max_side: int = 1024
    """A longer picture is made smaller, so that shards stay small; no generator here sees more."""


class Rejection(Exception):
    """Why a file is no picture to learn from: a reason out of a short list, and what was measured."""

    def __init__(self, reason: str, value: float | str):
        super().__init__(f"{reason}: {value}")
        self.reason, self.value = reason, value


@dataclass(frozen=True)
class Examined:
    """A picture that passed.

    Attributes:
        encoded: the file's own bytes where it is a plain RGB JPEG already, else a JPEG of the picture.
        width, height: of that JPEG.
        sha256: of the file's bytes: equal for exact duplicates.
        hash: 64-bit perceptual hash of the whole picture.
        thumbnail: (32, 32, 3) uint8.
        contrast: standard deviation of the thumbnail's grey values.
    """

    encoded: bytes
    width: int
    height: int
    sha256: str
    hash: int
    thumbnail: np.ndarray
    contrast: float


def read_file(path: bytes | str, limits: Limits) -> bytes:
    """A file's bytes.

    Raises:
        Rejection: it cannot be read, is no regular file (a pipe would block forever), empty, or too long.
    """
    try:
        about = os.stat(path)
        if not stat.S_ISREG(about.st_mode):
            raise Rejection("unreadable", "not a regular file")
        if about.st_size > limits.max_bytes:
            raise Rejection("too many bytes", about.st_size)
        with open(path, "rb") as file:
            return file.read()
    except OSError as error:
        raise Rejection("unreadable", error.strerror or type(error).__name__) from None


def examine(data: bytes, limits: Limits = Limits()) -> Examined:
    """Check one file and bring it to plain RGB.

    CMYK, palettes, 16 bits, alpha (on white) and EXIF rotation are resolved by `atelier.images.open_picture`.

    Raises:
        Rejection: "empty file", "too many bytes", "decompression bomb", "unreadable", "truncated", "too small",
            "extreme aspect" or "blank", with the value that was measured.
    """
    if not data:
        raise Rejection("empty file", 0)
    if len(data) > limits.max_bytes:
        raise Rejection("too many bytes", len(data))
    width, height, plain = _open(data, limits)
    if min(width, height) < limits.min_side:
        raise Rejection("too small", f"{width}x{height}")
    if max(width, height) > limits.max_aspect * min(width, height):
        raise Rejection("extreme aspect", round(max(width, height) / min(width, height), 2))
    if max(width, height) > limits.max_side:
        plain = None
    try:
        image = _reduced(plain) if plain else open_picture(io.BytesIO(data))
    except (ValueError, OSError, MemoryError) as error:
        cause = error.__cause__ or error
        text = str(cause) or type(cause).__name__
        cut = any(sign in text.lower() for sign in ("truncated", "broken data stream", "not enough image data"))
        raise Rejection("truncated" if cut else "unreadable", len(data) if cut else _plain(text)) from None
    thumbnail = np.asarray(image.resize((THUMBNAIL, THUMBNAIL), Image.Resampling.BOX))
    contrast = float((thumbnail @ np.array([0.299, 0.587, 0.114])).std())
    if contrast < limits.min_contrast:
        raise Rejection("blank", round(contrast, 3))
    hash_, encoded = perceptual_hash(image), data
    if not plain:
        if max(image.size) > limits.max_side:
            image.thumbnail((limits.max_side, limits.max_side), Image.Resampling.LANCZOS)
        width, height = image.size
        encoded = _jpeg(image)
    return Examined(encoded, width, height, hashlib.sha256(data).hexdigest(), hash_, thumbnail, contrast)


def _reduced(image: Image.Image) -> Image.Image:
    """A JPEG at a half to an eighth of its size, at least 96 pixels, as its decoder gives it at a fraction of the cost.

    All of the file is still read, so a truncated one is found; hash and thumbnail need no more pixels than that.
    """
    image.draft("RGB", (REDUCED, REDUCED))
    image.load()
    return image


def _open(data: bytes, limits: Limits) -> tuple[int, int, Image.Image | None]:
    """Width and height as the header says; the picture, not a pixel decoded, if the file can be kept as it is."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", Image.DecompressionBombWarning)
            image = Image.open(io.BytesIO(data), formats=FORMATS)
        width, height = image.size
        plain = image.format == "JPEG" and image.mode == "RGB" and image.getexif().get(0x0112, 1) == 1
    except Image.DecompressionBombError as error:
        pixels = re.search(r"\d+", str(error))
        raise Rejection("decompression bomb", int(pixels[0]) if pixels else str(error)) from None
    except UnidentifiedImageError:
        raise Rejection("unreadable", "no kind of picture that is known") from None
    except Exception as error:  # Pillow's readers raise nearly every kind on a damaged header
        raise Rejection("unreadable", _plain(str(error)) or type(error).__name__) from None
    if width * height > limits.max_pixels:
        raise Rejection("decompression bomb", width * height)
    return width, height, image if plain else None


def _plain(text: str) -> str:
    return re.sub(r" at 0x[0-9a-f]+", "", text)  # an object's address differs from run to run


def _jpeg(image: Image.Image) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, "JPEG", quality=95, subsampling=0)
    return buffer.getvalue()
