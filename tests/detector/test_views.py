"""What the detector sees: square crops of one scale, whatever the file was."""

import numpy as np
import pytest
from PIL import Image

from atelier.detector.views import (
    LONGEST,
    SIDE,
    Augmentation,
    crops,
    fitted,
    jpeg_again,
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
