"""What the detector sees: square crops of one scale, whatever the file was."""

import numpy as np
import pytest
from PIL import Image

from atelier.detector.views import (
    GAP,
    LONGEST,
    SIDE,
    Augmentation,
    crops,
    fitted,
    jpeg_again,
    opened,
    random_view,
    smaller_and_back,
)
from tests.detector.conftest import draw


@pytest.mark.parametrize("size", [(224, 224), (448, 224), (30, 90), (2000, 1500), (1, 1), (3000, 2), (2, 3000)])
def test_any_picture_is_brought_to_one_scale(size):
    image = fitted(Image.new("RGB", size))
    assert min(image.size) == SIDE and max(image.size) <= LONGEST * SIDE
    assert crops(Image.new("RGB", size), 2).shape == (2, SIDE, SIDE, 3)


def test_proportions_are_kept():
    assert fitted(Image.new("RGB", (300, 200))).size == (336, 224)


def test_large_jpegs_are_decoded_no_larger_than_needed(tmp_path):
    image = draw(False, 0, (1024, 768))
    path = tmp_path / "large.jpg"
    image.save(path, quality=90)
    found = opened(path)
    assert found.mode == "RGB" and found.size == (512, 384) and min(found.size) >= GAP * SIDE
    whole = np.asarray(fitted(Image.open(path)), np.float64)
    assert np.abs(np.asarray(fitted(found), np.float64) - whole).mean() < 3
    assert opened(path, side=512).size == (1024, 768)


def test_other_files_are_opened_as_everywhere(tmp_path):
    """Turned pictures the right way up, transparent ones on white, damaged ones by name."""
    turned = Image.Exif()
    turned[0x0112] = 6
    draw(True, 1, (900, 1200)).save(tmp_path / "turned.jpg", exif=turned)
    Image.new("RGBA", (900, 900), (0, 0, 0, 0)).save(tmp_path / "clear.png")
    Image.new("CMYK", (900, 1800), (0, 255, 255, 0)).save(tmp_path / "print.jpg")
    assert opened(tmp_path / "turned.jpg").size == (600, 450)
    assert opened(tmp_path / "clear.png").getpixel((0, 0)) == (255, 255, 255)
    assert opened(tmp_path / "print.jpg").mode == "RGB"
    whole = (tmp_path / "turned.jpg").read_bytes()
    (tmp_path / "half.jpg").write_bytes(whole[: len(whole) // 2])
    for name in ("half.jpg", "missing.jpg"):
        with pytest.raises(ValueError, match=name):
            opened(tmp_path / name)


def test_crops_lie_along_the_longer_side():
    ramp = np.broadcast_to(np.arange(448, dtype=np.uint8)[None, :, None] // 2, (224, 448, 3))
    image = Image.fromarray(np.ascontiguousarray(ramp))
    (middle,) = crops(image, 1)
    assert np.array_equal(middle, np.asarray(image)[:, 112:336])
    left, right = crops(image, 2)
    assert np.array_equal(left, np.asarray(image)[:, 56:280])
    assert np.array_equal(right[:, ::-1], np.asarray(image)[:, 168:392])  # mirrored
    assert np.array_equal(crops(image, 3)[2], np.asarray(image)[:, 224:])


def test_two_crops_of_a_square_are_each_others_mirror():
    one, other = crops(draw(True, 0, (224, 224)), 2)
    assert np.array_equal(one, other[:, ::-1]) and not np.array_equal(one, other)


def test_random_views_differ_and_can_be_had_again():
    image, how = draw(False, 1, (300, 200)), Augmentation()
    first, again, other = (random_view(image, np.random.default_rng(seed), how) for seed in (1, 1, 2))
    assert first.shape == (SIDE, SIDE, 3) and first.dtype == np.uint8
    assert np.array_equal(first, again) and not np.array_equal(first, other)


@pytest.mark.parametrize("size", [(1, 1), (9, 700), (224, 224)])
def test_random_views_of_odd_shapes(size):
    for seed in range(8):
        view = random_view(Image.new("RGB", size), np.random.default_rng(seed), Augmentation())
        assert view.shape == (SIDE, SIDE, 3)


def test_what_pictures_suffer_leaves_their_size():
    image = draw(True, 3, (101, 67))
    assert jpeg_again(image, 60).size == smaller_and_back(image).size == image.size
    assert smaller_and_back(Image.new("RGB", (1, 1))).size == (1, 1)
