"""The networks: shapes, bounds, and a generator file that needs nothing but Keras."""

import json

import keras
import numpy as np
import pytest
import tensorflow as tf

from atelier.generator.networks import build_discriminator, build_generator
from atelier.seeds import STYLES

RANDOM = np.random.default_rng(0)


def latents(count, dim=8):
    return RANDOM.standard_normal((count, dim)).astype(np.float32)


def every_style(count=5):
    return np.arange(count, dtype=np.int32) % len(STYLES)


@pytest.mark.parametrize("resolution", [16, 32, 64])
def test_latents_and_styles_become_pictures(resolution):
    generator = build_generator(resolution, latent_dim=8, width=4)
    images = np.asarray(generator([latents(5), every_style()]))
    assert images.shape == (5, resolution, resolution, 3) and images.dtype == np.float32
    assert np.abs(images).max() <= 1


@pytest.mark.parametrize("resolution", [16, 32, 64])
def test_pictures_and_styles_become_verdicts(resolution):
    discriminator = build_discriminator(resolution, width=4)
    images = RANDOM.uniform(-1, 1, (5, resolution, resolution, 3)).astype(np.float32)
    logits = np.asarray(discriminator([images, every_style()]))
    assert logits.shape[0] == 5 and logits.dtype == np.float32 and np.isfinite(logits).all()


def test_the_default_generator_fits_the_contract():
    generator = build_generator()
    assert [(tensor.name, tensor.shape, tensor.dtype) for tensor in generator.inputs] == [
        ("latent", (None, 128), "float32"),
        ("style", (None,), "int32"),
    ]
    assert generator.output_shape[1] >= 64
    assert generator.count_params() * 4 < 16 * 2**20  # bytes: the file has at most 16 MiB
    assert all(type(layer).__module__.startswith("keras.") for layer in generator.layers)


def test_both_networks_listen_to_the_style(tiny_generator):
    generator = keras.models.load_model(tiny_generator, compile=False)
    images = np.asarray(generator([np.repeat(latents(1), 5, axis=0), every_style()]))
    assert np.abs(images[1:] - images[0]).max(axis=(1, 2, 3)).min() > 0.01

    discriminator = build_discriminator(16, width=4)
    styles = discriminator.get_layer("styles").embeddings
    styles.assign(RANDOM.standard_normal(styles.shape))
    logits = np.asarray(discriminator([np.repeat(images[:1], 5, axis=0), every_style()])).reshape(5, -1)
    assert np.abs(logits[1:] - logits[0]).max(axis=1).min() > 1e-6


def test_the_discriminator_sees_how_much_a_batch_differs():
    """Minibatch standard deviation: copies of one picture are judged otherwise than in the company of others."""
    discriminator = build_discriminator(16, width=4)
    images = RANDOM.uniform(-1, 1, (4, 16, 16, 3)).astype(np.float32)
    style = np.zeros(4, np.int32)
    together = np.asarray(discriminator([images, style]))[0]
    alone = np.asarray(discriminator([np.repeat(images[:1], 4, axis=0), style]))[0]
    assert np.abs(together - alone).max() > 0


def test_pictures_that_are_all_alike_have_a_finite_gradient():
    """Their standard deviation is zero, where a square root's slope is infinite: a collapse must not become NaN."""
    discriminator = build_discriminator(16, width=4)
    images = tf.constant(np.repeat(RANDOM.uniform(-1, 1, (1, 16, 16, 3)), 4, axis=0).astype(np.float32))
    with tf.GradientTape() as tape:
        tape.watch(images)
        verdict = tf.reduce_sum(discriminator([images, tf.zeros(4, "int32")], training=True))
    gradients = tape.gradient(verdict, [images, *(v.value for v in discriminator.trainable_variables)])
    assert all(np.isfinite(tf.convert_to_tensor(gradient)).all() for gradient in gradients)


@pytest.mark.parametrize("resolution", [0, 8, 17, 100, -16])
@pytest.mark.parametrize("build", [build_generator, build_discriminator])
def test_a_side_that_is_no_power_of_two_is_an_error(build, resolution):
    with pytest.raises(ValueError, match="power of two from 16 up"):
        build(resolution)


def test_the_file_loads_in_a_fresh_process_that_has_only_keras(tiny_generator, tmp_path, python):
    latent, style = latents(3), every_style(3)
    expected = keras.models.load_model(tiny_generator, compile=False)([latent, style])
    code = """
import json, sys, keras, numpy
model = keras.models.load_model(sys.argv[1], compile=False)
latent, style = json.loads(sys.argv[2])
image = model([numpy.array(latent, "float32"), numpy.array(style, "int32")])
assert not any(name.startswith("atelier") for name in sys.modules)
print(json.dumps(numpy.asarray(image).tolist()))
"""
    arguments = json.dumps([latent.tolist(), style.tolist()])
    done = python("-I", "-c", code, tiny_generator, arguments, cwd=tmp_path)
    np.testing.assert_allclose(np.array(json.loads(done.stdout)), expected, atol=1e-5)
