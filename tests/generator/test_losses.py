"""The losses against their formulas in NumPy, and which way each of them pushes."""

import numpy as np
import pytest
import tensorflow as tf

from atelier.generator.losses import LOSSES

RANDOM = np.random.default_rng(0)
REAL, FAKE = (RANDOM.normal(0, 3, (7, 4)).astype(np.float32) for _ in range(2))


def softplus(x):
    return np.log1p(np.exp(-np.abs(x))) + np.maximum(x, 0)


FORMULAS = {
    "non-saturating": (
        lambda real, fake: softplus(-real).mean() + softplus(fake).mean(),
        lambda real, fake: softplus(-fake).mean(),
    ),
    "hinge": (
        lambda real, fake: np.maximum(0, 1 - real).mean() + np.maximum(0, 1 + fake).mean(),
        lambda real, fake: -fake.mean(),
    ),
    "relativistic": (
        lambda real, fake: softplus(fake - real).mean(),
        lambda real, fake: softplus(real - fake).mean(),
    ),
}
every_loss = pytest.mark.parametrize("name", FORMULAS)


def gradients(loss, real, fake):
    """Of one side's loss by the logits of real and of generated pictures; zeros where there is none."""
    logits = [tf.constant(real), tf.constant(fake)]
    with tf.GradientTape() as tape:
        tape.watch(logits)
        value = loss(*logits)
    return [np.asarray(each) for each in tape.gradient(value, logits, unconnected_gradients="zero")]


def test_every_loss_has_its_formula_here():
    assert set(LOSSES) == set(FORMULAS)


@every_loss
@pytest.mark.parametrize("scale", [0.0, 1.0, 100.0])
def test_both_sides_follow_their_formulas(name, scale):
    """Also far out, where a logarithm of an exponential would overflow."""
    real, fake = REAL * np.float32(scale), FAKE * np.float32(scale)
    for side, formula in zip(LOSSES[name], FORMULAS[name], strict=True):
        value = np.asarray(side(tf.constant(real), tf.constant(fake)))
        assert value.shape == () and value.dtype == np.float32
        np.testing.assert_allclose(value, formula(real.astype(np.float64), fake.astype(np.float64)), rtol=1e-5)


@every_loss
def test_the_discriminator_raises_real_and_lowers_generated(name):
    """Downhill is against the gradient."""
    by_real, by_fake = gradients(LOSSES[name].discriminator, REAL, FAKE)
    assert (by_real <= 0).all() and by_real.min() < 0
    assert (by_fake >= 0).all() and by_fake.max() > 0


@every_loss
def test_the_generator_raises_generated_and_leaves_real_alone(name):
    """In every place, also where the discriminator is very sure: none of the losses saturates."""
    by_real, by_fake = gradients(LOSSES[name].generator, REAL, FAKE)
    assert (by_fake < 0).all() and (by_real == 0).all()
    _, sure = gradients(LOSSES[name].generator, REAL * 0 + 50, FAKE * 0 - 50)
    np.testing.assert_allclose(sure, -1 / sure.size, rtol=1e-5)


def test_hinge_pushes_no_further_what_is_told_apart_by_the_margin():
    by_real, by_fake = gradients(LOSSES["hinge"].discriminator, REAL, FAKE)
    assert ((by_real == 0) == (REAL > 1)).all() and ((by_fake == 0) == (FAKE < -1)).all()
    assert (REAL > 1).any() and (FAKE < -1).any()


def test_relativistic_counts_only_the_difference_within_a_row():
    for side in LOSSES["relativistic"]:
        value = float(side(tf.constant(REAL), tf.constant(FAKE)))
        assert float(side(tf.constant(REAL + 5), tf.constant(FAKE + 5))) == pytest.approx(value, rel=1e-5)
        assert float(side(tf.constant(REAL), tf.constant(FAKE[::-1]))) != pytest.approx(value, rel=1e-2)
