"""The adversarial step, checked against the two gradients of the textbook, computed one by one."""

import keras
import numpy as np
import pytest
import tensorflow as tf

from atelier.generator.gan import GAN

RATE = 0.1


def small_gan(**options) -> GAN:
    """Without augmentation nothing in a step is random; with plain gradient descent a step shows its gradient."""
    keras.utils.set_random_seed(0)
    gan = GAN(resolution=16, latent_dim=8, width=4, discriminator_width=4, **options)
    gan.compile(optimizer=keras.optimizers.SGD(RATE), jit_compile=False)
    return gan


def a_batch(seed=0, count=6):
    random = np.random.default_rng(seed)
    return {
        "image": random.integers(0, 256, (count, 16, 16, 3), np.uint8),
        "style": random.integers(0, 5, count).astype(np.int32),
        "latent": random.standard_normal((count, 8)).astype(np.float32),
    }


def textbook_gradients(gan, batch):
    """Each network's own loss, differentiated for its own weights only (Goodfellow et al., 2014, non-saturating)."""
    real = tf.cast(batch["image"], "float32") / 127.5 - 1
    latent, style = tf.constant(batch["latent"]), tf.constant(batch["style"])

    def paint():
        return gan.generator([latent, style], training=True)

    def judge(images):
        return gan.discriminator([images, style], training=True)

    with tf.GradientTape() as tape:
        g_loss = tf.reduce_mean(tf.nn.softplus(-judge(paint())))
    g_gradients = tape.gradient(g_loss, [v.value for v in gan.generator.trainable_variables])
    fake = paint()  # outside the tape: a constant
    with tf.GradientTape() as tape:
        d_loss = tf.reduce_mean(tf.nn.softplus(-judge(real))) + tf.reduce_mean(tf.nn.softplus(judge(fake)))
    d_gradients = tape.gradient(d_loss, [v.value for v in gan.discriminator.trainable_variables])
    return float(g_loss), float(d_loss), [*g_gradients, *d_gradients]


def test_one_step_goes_down_both_textbook_gradients_at_once():
    gan, batch = small_gan(), a_batch()
    trained = [*gan.generator.trainable_variables, *gan.discriminator.trainable_variables]
    assert {v.path for v in gan.trainable_variables} == {v.path for v in trained}
    g_loss, d_loss, gradients = textbook_gradients(gan, batch)
    before = [v.numpy() for v in trained]
    logs = gan.train_on_batch(batch, return_dict=True)
    assert logs["g_loss"] == pytest.approx(g_loss, rel=1e-4)
    assert logs["d_loss"] == pytest.approx(d_loss, rel=1e-4)
    assert logs["loss"] == pytest.approx(g_loss + d_loss, rel=1e-4)
    for variable, old, gradient in zip(trained, before, gradients, strict=True):
        gradient = np.asarray(tf.convert_to_tensor(gradient))
        np.testing.assert_allclose(variable.numpy(), old - RATE * gradient, rtol=1e-3, atol=1e-6, err_msg=variable.path)
    assert all(np.abs(np.asarray(tf.convert_to_tensor(g))).max() > 0 for g in gradients[: len(gradients) // 2])


def test_the_average_follows_its_formula():
    """Towards the weights before each step (and the batch-norm statistics after it), at a rate that ramps up."""
    gan = small_gan(ema_decay=0.2)
    assert gan.average.count_params() == gan.generator.count_params()
    np.testing.assert_array_equal(gan.average.get_weights()[0], gan.generator.get_weights()[0])
    trained = {variable.path for variable in gan.generator.trainable_variables}
    expected = [value.astype(np.float64) for value in gan.average.get_weights()]
    random = np.random.default_rng(0)
    for step in range(6):
        for variable in gan.generator.trainable_variables:  # far from the average, so that it has a way to go
            variable.assign(random.normal(0, 0.1, variable.shape))
        before = gan.generator.get_weights()
        gan.train_on_batch(a_batch(step))
        decay = min(0.2, (1 + step) / (10 + step))
        for index, variable in enumerate(gan.generator.weights):
            seen = before[index] if variable.path in trained else variable.numpy()
            expected[index] = decay * expected[index] + (1 - decay) * seen
    for value, wanted in zip(gan.average.get_weights(), expected, strict=True):
        np.testing.assert_allclose(value, wanted, rtol=1e-4, atol=1e-6)
    assert int(gan.steps.value) == 6


def test_the_average_is_not_trained():
    gan = small_gan()
    assert not gan.average.trainable_variables
    assert all("average" not in variable.path for variable in gan.trainable_variables)


def test_calling_the_gan_paints_with_the_generator():
    gan, batch = small_gan(), a_batch()
    np.testing.assert_allclose(gan(batch), gan.generator([batch["latent"], batch["style"]]), atol=1e-6)
