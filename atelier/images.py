"""Arrays to pictures and back: PNG bytes, atomic files, contact sheets, perceptual hashes."""

from __future__ import annotations

import io
import os
import secrets
import warnings
import zlib
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from PIL import Image, ImageOps, PngImagePlugin


def to_uint8(images: np.ndarray) -> np.ndarray:
    """Pictures in [-1, 1] (any float dtype) to uint8 in [0, 255], rounded; the shape stays."""
    return np.clip(np.round((np.asarray(images, np.float32) + 1.0) * 127.5), 0, 255).astype(np.uint8)


def from_uint8(images: np.ndarray) -> np.ndarray:
    """uint8 pictures in [0, 255] to float32 in [-1, 1]; the shape stays."""
    return np.asarray(images, np.float32) / 127.5 - 1.0


def enlarge(image: np.ndarray, scale: int) -> np.ndarray:
    """A (H, W, 3) uint8 picture `scale` times as large, by Lanczos resampling."""
    if scale == 1:
        return image
    height, width = image.shape[:2]
    return np.asarray(Image.fromarray(image).resize((width * scale, height * scale), Image.Resampling.LANCZOS))


def to_picture(image: np.ndarray) -> Image.Image:
    """A (H, W, 3) uint8 picture as Pillow's (and a notebook's) kind."""
    return Image.fromarray(image)


def png_bytes(image: np.ndarray, text: dict[str, str] | None = None) -> bytes:
    """A (H, W, 3) uint8 picture as PNG, with `text` as its tEXt/iTXt entries (who made it, from what)."""
    info = PngImagePlugin.PngInfo()
    for key, value in (text or {}).items():
        info.add_itxt(key, value.encode("utf-8", "backslashreplace").decode())  # half a surrogate pair is no text
    buffer = io.BytesIO()
    # Repeats are not looked for, and soft pictures have few: a seventh of the default's time, a tenth more bytes.
    Image.fromarray(image).save(buffer, format="PNG", pnginfo=info, compress_type=zlib.Z_HUFFMAN_ONLY)
    return buffer.getvalue()


def write_atomically(path: Path, data: bytes) -> None:
    """Write `data` to `path` so that other processes see the whole file or none.

    The parent folder is made if it is missing.

    Raises:
        OSError: the folder cannot be made or written; no part of a file is left behind.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_name(f".{path.name}.{os.getpid()}.{secrets.token_hex(4)}.part")
    try:
        part.write_bytes(data)
        os.replace(part, path)
    except BaseException:
        part.unlink(missing_ok=True)
        raise


def open_picture(path: str | Path) -> Image.Image:
    """Open a picture file, whatever its kind, as RGB, the right way up; of an animation, the first frame.

    Transparent parts become white, 16-bit greys keep their tones.

    Raises:
        ValueError: missing, unreadable, truncated, no picture, or more pixels than Pillow deems safe
            (a decompression bomb); the message names the file.
    """
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("error", Image.DecompressionBombWarning)
            with Image.open(path) as image:
                image.load()
                return to_rgb(ImageOps.exif_transpose(image))
    except Exception as error:  # Pillow's decoders raise nearly every kind on a damaged file
        reason = str(error).replace(str(path), "it") or type(error).__name__
        if isinstance(error, FileNotFoundError):
            reason = "no such file"
        raise ValueError(f"{path} is not a readable picture: {reason}") from error


def to_rgb(image: Image.Image) -> Image.Image:
    """A picture of any mode as RGB: transparent parts become white, 16-bit greys keep their tones."""
    if image.mode.startswith(("I", "F")):  # 16 or 32 bits a pixel: convert() would cut off, not scale
        values = np.nan_to_num(np.asarray(image, np.float64), nan=0.0, posinf=0.0, neginf=0.0)
        deep = image.mode.startswith("I;16") or (image.mode == "I" and values.max() > 255)
        top = 65535.0 if deep else max(values.max(), 1.0)
        image = Image.fromarray(np.clip(values / top * 255, 0, 255).astype(np.uint8))
    if image.has_transparency_data:
        image = image.convert("RGBA")
        image = Image.alpha_composite(Image.new("RGBA", image.size, "white"), image)
    return image if image.mode == "RGB" else image.convert("RGB")


def contact_sheet(images: Sequence[np.ndarray], columns: int, gap: int = 4) -> np.ndarray:
    """Pictures of one size side by side, row after row.

    Args:
        images: (H, W, 3) uint8 pictures.
        columns: pictures in a row.
        gap: white pixels between and around the pictures.

    Returns:
        one (rows * (H + gap) + gap, columns * (W + gap) + gap, 3) uint8 picture.
    """
    height, width = images[0].shape[:2]
    rows = -(-len(images) // columns)
    sheet = np.full((rows * (height + gap) + gap, columns * (width + gap) + gap, 3), 255, np.uint8)
    for index, image in enumerate(images):
        top = gap + index // columns * (height + gap)
        left = gap + index % columns * (width + gap)
        sheet[top : top + height, left : left + width] = image
    return sheet


def perceptual_hash(image: Image.Image) -> int:
    """A 64-bit hash that near-identical pictures share up to a few bits.

    The signs of horizontal differences of a 9x8 greyscale thumbnail ("dHash", N. Krawetz, hackerfactor.com, 2013);
    squashing or resizing the picture hardly changes it. Compare two with `hamming_distance`.
    """
    small = np.asarray(image.convert("L").resize((9, 8), Image.Resampling.BOX), np.int16)
    bits = (small[:, 1:] > small[:, :-1]).ravel()
    return int.from_bytes(np.packbits(bits).tobytes(), "big")


def hamming_distance(first: int, second: int) -> int:
    """How many bits of two hashes differ."""
    return (first ^ second).bit_count()
