"""Pictures that are meant to break a captioner: each gets a caption or a clear error of its own, and no batch falls."""

import io
import json
import struct
import zlib

import numpy as np
import pytest
from PIL import Image

from atelier.__main__ import main
from atelier.images import open_picture

NOISE = np.random.default_rng(0).integers(0, 256, (60, 80, 3), dtype=np.uint8)
CAPTIONED = ("tiny.png", "long.png", "cmyk.jpg", "palette.png", "moving.gif", "deep.png", "deeper.tif", "grey.png")
REFUSED = ("truncated.jpg", "text.png", "bomb.png", "empty.png")


def chunk(kind: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


def bomb(side: int = 60000) -> bytes:
    """A PNG of a few bytes that says it has 3.6 thousand million pixels."""
    header = struct.pack(">IIBBBBB", side, side, 8, 2, 0, 0, 0)
    pixels = chunk(b"IDAT", zlib.compress(bytes(1000)))
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + pixels + chunk(b"IEND", b"")


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("hostile")
    picture = Image.fromarray(NOISE)
    Image.new("RGB", (1, 1), "red").save(folder / "tiny.png")
    Image.new("RGB", (20000, 20), "red").save(folder / "long.png")
    picture.convert("CMYK").save(folder / "cmyk.jpg")
    picture.convert("P").save(folder / "palette.png", transparency=3)
    picture.save(folder / "moving.gif", save_all=True, append_images=[Image.new("RGB", (80, 60), "blue")] * 2)
    Image.fromarray(NOISE[..., 0].astype(np.uint16) * 257).save(folder / "deep.png")
    Image.fromarray(NOISE[..., 0].astype(np.int32) * 257).save(folder / "deeper.tif")
    picture.convert("LA").save(folder / "grey.png")
    buffer = io.BytesIO()
    picture.save(buffer, "JPEG")
    (folder / "truncated.jpg").write_bytes(buffer.getvalue()[:700])
    (folder / "text.png").write_text("I am a picture, believe me.")
    (folder / "bomb.png").write_bytes(bomb())
    (folder / "empty.png").write_bytes(b"")
    return folder


def test_one_batch_of_them_all(folder, tiny_captioner, capsys):
    assert main(["caption", str(folder), "--captioner", str(tiny_captioner)]) == 0
    lines = map(json.loads, capsys.readouterr().out.splitlines())
    records = {record["image"].rsplit("/", 1)[-1]: record for record in lines}
    assert set(records) == {*CAPTIONED, *REFUSED}
    for name in CAPTIONED:
        assert records[name]["caption"] and records[name]["confidence"] < 0, records[name]
        assert "error" not in records[name]
    for name in REFUSED:
        assert records[name]["caption"] is None
        assert name in records[name]["error"] and "\n" not in records[name]["error"]


def test_they_caption_alike_from_memory(folder, captioner):
    captions = captioner.caption([Image.open(folder / name) for name in CAPTIONED])
    assert all(caption.text for caption in captions)


def test_sixteen_bits_are_scaled_not_cut(folder):
    deep, flat = (np.asarray(open_picture(folder / name), int) for name in ("deep.png", "deeper.tif"))
    assert np.abs(deep[..., 0] - NOISE[..., 0]).max() <= 1
    assert np.abs(flat[..., 0] - NOISE[..., 0]).max() <= 1
