"""Differentiable augmentation: each change against its own reference, and a gradient through all of them."""

import numpy as np
import pytest
import tensorflow as tf

from atelier.generator.augment import POLICIES, DiffAugment

RANDOM = np.random.default_rng(0)


def pictures(count, size=16):
    return RANDOM.uniform(-1, 1, (count, size, size, 3)).astype(np.float32)


@pytest.mark.parametrize("policy", [(), *((name,) for name in POLICIES), POLICIES])
def test_shape_and_kind_stay(policy):
    for images in (tf.constant(pictures(3)), tf.cast(pictures(2, 32), "bfloat16")):
        changed = DiffAugment(policy, dtype=images.dtype.name)(images)
        assert changed.shape == images.shape and changed.dtype == images.dtype


def test_no_policy_changes_nothing():
    images = pictures(3)
    np.testing.assert_array_equal(DiffAugment(())(images), images)


@pytest.mark.parametrize("name", POLICIES)
def test_every_picture_of_a_batch_has_its_own_change(name):
    changed = np.asarray(DiffAugment((name,))(np.repeat(pictures(1), 16, axis=0)))
    assert len({image.tobytes() for image in changed}) > 8


@pytest.mark.parametrize("name", POLICIES)
def test_strength_is_how_far_a_change_goes(name):
    images = np.repeat(0.2 * pictures(1) + 0.3, 64, axis=0)  # not grey: there is a colour to change

    def change(strength):
        return np.abs(np.asarray(DiffAugment((name,), strength, seed=1)(images)) - images).mean()

    assert change(0.0) == pytest.approx(0, abs=1e-6)
    assert 0 < change(0.5) < change(1.0) < change(1.5)


@pytest.mark.parametrize("strength", [-0.1, 2.0, np.nan])
def test_a_strength_beyond_the_bounds_is_an_error(strength):
    with pytest.raises(ValueError, match="strength is from 0 up and less than 2"):
        DiffAugment(("color",), strength)


def test_an_unknown_policy_is_an_error_that_names_the_known_ones():
    with pytest.raises(ValueError, match="color, translation, cutout, not rotation"):
        DiffAugment(("rotation",))


def shifted(image, down, right):
    """The reference: roll, then blank what came round."""
    image = np.roll(image, (down, right), axis=(0, 1))
    image[: max(down, 0)] = image[image.shape[0] + min(down, 0) :] = 0
    image[:, : max(right, 0)] = image[:, image.shape[1] + min(right, 0) :] = 0
    return image


def test_translation_is_a_shift_by_whole_pixels_with_grey_outside():
    images = pictures(200)
    reach = range(-2, 3)  # an eighth of 16 pixels
    seen = set()
    for before, after in zip(images, np.asarray(DiffAugment(("translation",))(images)), strict=True):
        fits = [(y, x) for y in reach for x in reach if np.allclose(shifted(before, y, x), after, atol=1e-6)]
        assert len(fits) == 1
        seen |= set(fits)
    assert len(seen) == 25  # all shifts occur


def test_cutout_blanks_one_rectangle_of_at_most_half_the_side():
    areas = []
    for image in np.asarray(DiffAugment(("cutout",))(np.ones((300, 16, 16, 3), np.float32))):
        assert set(np.unique(image)) <= {0.0, 1.0}
        rows, columns = (np.flatnonzero((image[..., 0] == 0).any(axis=axis)) for axis in (1, 0))
        assert (image[np.ix_(rows, columns)] == 0).all() and np.sum(image == 0) == 3 * len(rows) * len(columns)
        assert len(rows) <= 8 and len(columns) <= 8
        areas.append(len(rows) * len(columns))
    assert max(areas) >= 49  # wholly inside: half the side both ways (7 or 8 pixels)


def test_color_keeps_the_grey_of_a_grey_picture():
    """Brightness, saturation and contrast move all three channels of a grey pixel alike."""
    grey = np.repeat(pictures(8)[..., :1], 3, axis=-1)
    changed = np.asarray(DiffAugment(("color",))(grey))
    np.testing.assert_allclose(changed.max(axis=-1), changed.min(axis=-1), atol=1e-5)
    means = changed.mean(axis=(1, 2, 3)) - grey.mean(axis=(1, 2, 3))
    assert 0.05 < np.abs(means).max() <= 0.5 + 1e-5  # saturation and contrast leave the mean, brightness is bounded


@pytest.mark.parametrize("name", POLICIES)
def test_the_gradient_flows_back(name):
    """Each change is affine in the pixels for fixed random numbers, so its gradient is its finite difference."""
    images, step, weights = pictures(2, 8), pictures(2, 8), pictures(2, 8)

    def total(pixels):
        return tf.reduce_sum(DiffAugment((name,), seed=3)(pixels) * weights)

    pixels = tf.constant(images)
    with tf.GradientTape() as tape:
        tape.watch(pixels)
        value = total(pixels)
    slope = tf.reduce_sum(tape.gradient(value, pixels) * step)
    np.testing.assert_allclose(total(images + step) - value, slope, rtol=1e-3, atol=1e-3)
    assert abs(float(slope)) > 1e-3


def test_the_same_seed_gives_the_same_changes_and_the_stream_goes_on():
    images = pictures(4)
    one, other = DiffAugment(seed=5), DiffAugment(seed=5)
    first = np.asarray(one(images))
    np.testing.assert_array_equal(first, other(images))
    assert not np.array_equal(first, one(images))
