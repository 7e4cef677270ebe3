"""Files as a download may bring them: sound ones of every kind, and broken ones of every kind."""

from __future__ import annotations

import io
import os
import struct
import zlib
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw


def paint(number: int, size: tuple[int, int] = (96, 96)) -> Image.Image:
    """A picture unlike that of any other number: soft blots and three discs."""
    random = np.random.default_rng(number)
    blots = random.integers(0, 256, (7, 7, 3), np.uint8)
    image = Image.fromarray(blots).resize(size, Image.Resampling.BICUBIC)
    draw = ImageDraw.Draw(image)
    for _ in range(3):
        x, y, radius = random.uniform(0, size[0]), random.uniform(0, size[1]), random.uniform(5, 25)
        draw.ellipse((x - radius, y - radius, x + radius, y + radius), fill=tuple(map(int, random.integers(0, 256, 3))))
    return image


def encoded(image: Image.Image, kind: str = "JPEG", **options) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, kind, **options)
    return buffer.getvalue()


def png_header(width: int, height: int) -> bytes:
    """A PNG that claims any size and holds nothing."""
    head = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", head) + chunk(b"IDAT", zlib.compress(b"\0" * 64)) + chunk(b"IEND", b"")


def sound(number: int) -> dict[str, bytes]:
    """Pictures of every kind that are to be kept, by file name."""
    grey16 = np.asarray(paint(number + 1).convert("L"), np.uint16) * 257
    rotated = Image.Exif()
    rotated[0x0112] = 6  # a quarter turn
    alpha = paint(number + 2).convert("RGBA")
    alpha.putalpha(Image.linear_gradient("L").resize(alpha.size))
    return {
        "cmyk.jpg": encoded(paint(number).convert("CMYK")),
        "deep.png": encoded(Image.fromarray(grey16), "PNG"),
        "alpha.png": encoded(alpha, "PNG"),
        "palette.gif": encoded(paint(number + 3).convert("P"), "GIF"),
        "turned.jpg": encoded(paint(number + 4, (120, 80)), exif=rotated),
        "grey.jpg": encoded(paint(number + 5).convert("L")),
        "web.webp": encoded(paint(number + 6), "WEBP"),
        "wrong-extension.txt": encoded(paint(number + 7), "PNG"),
        "scan.tiff": encoded(paint(number + 8), "TIFF"),
        "large.jpg": encoded(paint(number + 9, (1500, 1200))),
    }


def broken(number: int) -> dict[str, tuple[bytes, str]]:
    """Files that are to be quarantined, by file name, with the reason."""
    jpeg, png = encoded(paint(number), quality=95), encoded(paint(number + 1), "PNG")
    return {
        "zero.jpg": (b"", "empty file"),
        "cut.jpg": (jpeg[: len(jpeg) // 2], "truncated"),
        "cut.png": (png[: len(png) // 2], "truncated"),
        "text.jpg": (b"<html>not found</html>", "unreadable"),
        "noise.png": (np.random.default_rng(number).bytes(3000), "unreadable"),
        "head.jpg": (jpeg[:20], "unreadable"),
        "bomb.png": (png_header(20_000, 20_000), "decompression bomb"),
        "huge.png": (png_header(2**31 - 1, 2**31 - 1), "decompression bomb"),
        "tiny.png": (encoded(paint(number + 2, (40, 90)), "PNG"), "too small"),
        "strip.jpg": (encoded(paint(number + 3, (640, 70))), "extreme aspect"),
        "blank.png": (encoded(Image.new("RGB", (90, 90), (250, 249, 245)), "PNG"), "blank"),
        "script.eps": (b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 100 100\nshowpage\n", "unreadable"),
    }


ODD_NAMES = (b"two\nlines.jpg", b"caf\xe9.jpg", "café.jpg".encode(), b"quote\"s 'and' spaces .jpg", b"-rf.jpg")


def write(folder: Path, name: str | bytes, data: bytes) -> None:
    path = os.path.join(os.fsencode(folder), os.fsencode(name))
    os.makedirs(os.path.dirname(path), exist_ok=True)
    with open(path, "wb") as file:
        file.write(data)
