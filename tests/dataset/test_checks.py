"""One file: what is kept and how, what goes and why."""

import io
import os

import numpy as np
import pytest
from PIL import Image

from atelier.dataset.checks import Limits, Rejection, examine, read_file
from atelier.images import hamming_distance, open_picture, perceptual_hash
from tests.dataset.hostile import broken, encoded, paint, sound, write


@pytest.mark.parametrize("name", sound(100))
def test_every_kind_of_picture_becomes_plain_rgb(name, tmp_path):
    write(tmp_path, name, sound(100)[name])
    seen = examine(sound(100)[name])
    expected = open_picture(tmp_path / name)
    assert hamming_distance(seen.hash, perceptual_hash(expected)) <= 1
    with Image.open(io.BytesIO(seen.encoded)) as stored:
        assert (stored.format, stored.mode, stored.getexif().get(0x0112, 1)) == ("JPEG", "RGB", 1)
        assert stored.size == (seen.width, seen.height)
        expected = expected.resize(stored.size, Image.Resampling.LANCZOS)
        difference = np.abs(np.asarray(stored, int) - np.asarray(expected, int)).mean()
    assert difference < 4  # a JPEG of quality 95


def test_a_plain_jpeg_is_kept_byte_for_byte():
    data = encoded(paint(1))
    assert examine(data).encoded is data


def test_exif_rotation_is_resolved_and_large_pictures_shrink():
    def size(name, **limits):
        seen = examine(sound(100)[name], Limits(**limits))
        return seen.width, seen.height

    assert size("turned.jpg") == (80, 120)
    assert size("large.jpg") == (1024, 819)
    assert size("large.jpg", max_side=300) == (300, 240)
    assert size("large.jpg", max_side=1500) == (1500, 1200)


def test_a_large_jpeg_is_looked_at_in_small_with_the_same_result():
    data = encoded(paint(6, (800, 600)), quality=95)
    small, whole = examine(data), examine(encoded(paint(6, (800, 600)), "PNG"))
    assert small.encoded is data
    assert hamming_distance(small.hash, whole.hash) <= 1
    assert np.abs(small.thumbnail.astype(int) - whole.thumbnail).mean() < 2
    with pytest.raises(Rejection, match="truncated"):
        examine(data[:-2000])


@pytest.mark.parametrize("name", broken(200))
def test_every_kind_of_rubbish_is_rejected_with_its_reason_and_a_measured_value(name):
    data, reason = broken(200)[name]
    with pytest.raises(Rejection) as rejected:
        examine(data)
    assert rejected.value.reason == reason
    value = rejected.value.value
    measured = {"zero.jpg": 0, "tiny.png": "40x90", "strip.jpg": 9.14, "bomb.png": 400_000_000, "blank.png": 0.0}
    assert value == measured.get(name, value) and value is not None


def test_what_cannot_be_read_is_rejected(tmp_path):
    os.mkfifo(tmp_path / "pipe.jpg")
    os.symlink(tmp_path / "nowhere", tmp_path / "link.jpg")
    write(tmp_path, "long.jpg", b"x" * 100)
    for name, reason in (("pipe.jpg", "unreadable"), ("link.jpg", "unreadable"), ("long.jpg", "too many bytes")):
        with pytest.raises(Rejection) as rejected:
            read_file(os.fsencode(tmp_path / name), Limits(max_bytes=99))
        assert rejected.value.reason == reason


def test_limits_are_limits():
    data = encoded(paint(5, (64, 128)), "PNG")
    examine(data, Limits(min_side=64, max_aspect=2))
    for limits in (
        Limits(min_side=65),
        Limits(max_aspect=1.99),
        Limits(max_pixels=64 * 128 - 1),
        Limits(min_contrast=99),
    ):
        with pytest.raises(Rejection):
            examine(data, limits)
