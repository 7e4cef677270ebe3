"""The crowd's distance and the pairs' difference, checked against scipy, NumPy and what they are for."""

import keras
import numpy as np
import pytest
import tensorflow as tf
from scipy.spatial.distance import cdist

from atelier.generator.matching import CrowdDistance, difference, tones_apart

SHAPES = [(8, 8, 2), (2, 2, 3)]


def maps(count, seed, spread=1.0):
    random = np.random.default_rng(seed)
    return [spread * random.standard_normal((count, *shape)).astype(np.float32) for shape in SHAPES]


def flat(x):
    """(N, 8, 8, C) averaged to 4x4 places, (N, 2, 2, C) as it is, each as one row."""
    if x.shape[1] == 8:
        x = x.reshape(len(x), 4, 2, 4, 2, -1).mean(axis=(2, 4))
    return x.reshape(len(x), -1)


def test_it_is_the_mean_distance_to_real_less_that_to_generated_ones_of_the_same_style():
    layer = CrowdDistance(SHAPES)
    styles = np.array([0, 0, 0, 0, 1, 1, 1, 1], np.int32)
    before, style = (maps(8, 1), maps(8, 2)), np.array([0, 1, 1], np.int32)
    real, fake = maps(3, 3), maps(3, 4)
    layer(*before, styles)
    expected = []
    for number in range(2):
        usual, difference = [], []
        for row, kind in enumerate(style):
            theirs, ours = flat(before[0][number][styles == kind]), flat(before[1][number][styles == kind])
            usual.append(cdist(flat(real[number])[row : row + 1], theirs).mean())
            at = flat(fake[number])[row : row + 1]
            difference.append(cdist(at, theirs).mean() - cdist(at, ours).mean())
        expected.append(np.mean(difference) / np.mean(usual))
    assert float(layer(real, fake, style)) == pytest.approx(np.mean(expected), abs=1e-5)


def test_the_queues_hold_the_latest_and_the_first_pictures_have_nothing_to_be_compared_with():
    layer = CrowdDistance(SHAPES, length=5)
    style = np.array([0, 1, 2], np.int32)
    assert float(layer(maps(3, 0), maps(3, 1), style)) == 0
    second = maps(3, 2)
    layer(second, maps(3, 3), style + 2)
    np.testing.assert_array_equal(layer.styles.numpy(), [2, 3, 4, 0, 1])
    np.testing.assert_allclose(layer.real[1].numpy()[:3], flat(second[1]), rtol=1e-6)


@pytest.mark.parametrize(("start", "too_narrow"), [(0.2, True), (3.0, False)])
def test_its_gradient_widens_a_narrow_crowd_and_narrows_a_wide_one(start, too_narrow):
    layer = CrowdDistance(SHAPES, length=256)
    style = np.zeros(64, np.int32)
    crowd = maps(64, 7, start)
    for seed in range(4):
        layer(maps(64, 10 + seed), maps(64, 20 + seed, start), style)
    pictures = [tf.constant(part) for part in crowd]
    with tf.GradientTape() as tape:
        tape.watch(pictures)
        loss = layer(maps(64, 30), pictures, style)
    slopes = zip(tape.gradient(loss, pictures), pictures, strict=True)
    outwards = sum(float(tf.reduce_sum(-slope * part)) for slope, part in slopes)
    assert (outwards > 0) == too_narrow


def test_maps_of_any_side_are_averaged_to_places_that_tile_them():
    """At 96 px MobileNetV2's last maps have 3x3 places, which are no 2x2 of anything."""
    layer = CrowdDistance([(3, 3, 2), (6, 6, 1)])
    random = np.random.default_rng(0)
    real, fake = ([random.standard_normal((4, *shape)) for shape in ((3, 3, 2), (6, 6, 1))] for _ in range(2))
    style = np.zeros(4, np.int32)
    layer(real, fake, style)
    assert [weight.shape[1] for weight in layer.real] == [2, 4]
    np.testing.assert_allclose(layer.real[0].value[:4], real[0].mean(axis=(1, 2)), atol=1e-6)
    np.testing.assert_allclose(
        layer.real[1].value[:4], real[1].reshape(4, 2, 3, 2, 3).mean(axis=(2, 4)).reshape(4, 4), atol=1e-6
    )


def test_nothing_of_it_is_trained():
    assert not CrowdDistance(SHAPES).trainable_weights


def test_it_counts_in_float32_where_the_pictures_are_seen_in_bfloat16():
    policy = keras.config.dtype_policy()
    keras.config.set_dtype_policy("mixed_bfloat16")
    try:
        coarse = CrowdDistance(SHAPES)
    finally:
        keras.config.set_dtype_policy(policy)
    exact, styles, style = CrowdDistance(SHAPES), np.zeros(8, np.int32), np.zeros(3, np.int32)
    earlier, now = (maps(8, 1), maps(8, 2)), (maps(3, 3), maps(3, 4, spread=0.5))
    for layer in (coarse, exact):
        layer(*earlier, styles)
    seen = [[tf.cast(part, "bfloat16") for part in side] for side in now]
    assert float(coarse(*seen, style)) == pytest.approx(float(exact(*now, style)), rel=0.02)


def test_the_difference_counts_places_and_means_of_paired_pictures_in_parts_of_real_variance():
    real, fake, paired = maps(6, 1), maps(6, 2, 0.5), np.array([1, 1, 0, 1, 0, 0], np.float32)
    expected = []
    for theirs, ours in zip(real, fake, strict=True):
        apart = ((theirs - ours) / (theirs.std(axis=(0, 1, 2)) + 1e-3))[paired > 0]
        expected.append((apart**2).mean() + 2 * (apart.mean(axis=(1, 2)) ** 2).mean())
    assert float(difference(real, fake, paired)) == pytest.approx(np.mean(expected), rel=1e-4)
    assert float(difference(real, real, paired)) == 0
    assert float(difference(real, fake, 0 * paired)) == 0


def test_tones_are_compared_where_the_pictures_are_small_and_paired():
    real, fake = np.zeros((2, 64, 64, 3), np.float32), np.zeros((2, 64, 64, 3), np.float32)
    fake[0, ::2] = 1.0  # lines, which are gone at a quarter of the size: a tone of 0.5
    fake[1] = 1.0
    for paired, expected in (([1.0, 0.0], 0.25), ([0.0, 1.0], 1.0), ([1.0, 1.0], 0.625)):
        assert float(tones_apart(real, fake, np.array(paired, np.float32))) == pytest.approx(expected)
    half = keras.ops.cast(fake, "bfloat16")  # as in training with mixed precision
    assert float(tones_apart(real, half, np.array([1.0, 1.0], np.float32))) == pytest.approx(0.625)
