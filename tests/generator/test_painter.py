"""The painter: pictures for latents, and a clear error for every file that is none of our generators."""

import keras
import numpy as np
import pytest
from keras import layers

from atelier.generator.painter import Painter, PainterError
from atelier.seeds import STYLES

RANDOM = np.random.default_rng(0)


def latents(count):
    return RANDOM.standard_normal((count, 8)).astype(np.float32)


def test_a_painter_knows_its_sizes(painter):
    assert (painter.latent_dim, painter.size) == (8, 16)


@pytest.mark.parametrize("count", [0, 1, 5, 40])
def test_every_latent_gets_its_picture(painter, count):
    pictures = painter.paint(latents(count), [STYLES[i % 5] for i in range(count)])
    assert pictures.shape == (count, 16, 16, 3) and pictures.dtype == np.uint8


def test_the_batch_changes_no_picture(painter):
    some, styles = latents(23), [STYLES[i % 5] for i in range(23)]
    alone = np.concatenate([painter.paint(some[i : i + 1], styles[i : i + 1]) for i in range(23)])
    for size in (1, 4, 23, 100):
        together = painter.paint(some, styles, batch_size=size)
        assert np.abs(together.astype(int) - alone).max() <= 1


def test_the_style_is_the_named_one(painter, tiny_generator):
    model = keras.models.load_model(tiny_generator, compile=False)
    latent = latents(1)
    for index, style in enumerate(STYLES):
        expected = (np.asarray(model([latent, np.array([index])])) + 1) * 127.5
        assert np.abs(painter.paint(latent, [style]) - expected).max() <= 1


def test_a_missing_generator_is_named(tmp_path):
    with pytest.raises(PainterError, match=r"no generator at .*gone\.h5.*training\.ipynb"):
        Painter.load(tmp_path / "gone.h5")
    with pytest.raises(PainterError, match="no generator at"):
        Painter.load(tmp_path)


@pytest.mark.parametrize("length", [0, 1, 8, 100, 4096, -4096, -1])
def test_a_truncated_generator_is_a_painter_error(tmp_path, tiny_generator, length):
    path = tmp_path / "generator.h5"
    path.write_bytes(tiny_generator.read_bytes()[:length])
    with pytest.raises(PainterError, match=r"generator\.h5 is damaged or no Keras model: .+"):
        Painter.load(path)


@pytest.mark.parametrize("content", [b"PK\x03\x04 a zip", b"\x89HDF\r\n\x1a\n" + b"\0" * 600, b"\x89PNG\r\n\x1a\n"])
def test_a_file_that_is_no_model_is_a_painter_error(tmp_path, content):
    path = tmp_path / "generator.h5"
    path.write_bytes(content)
    with pytest.raises(PainterError, match=r"generator\.h5"):
        Painter.load(path)


def two_inputs(latent=8, names=("latent", "style"), output=lambda x: layers.Reshape((2, 2, 3))(layers.Dense(12)(x))):
    inputs = [keras.Input((latent,), name=names[0]), keras.Input((), name=names[1], dtype="int32")]
    style = layers.Embedding(5, 4)(inputs[1])
    return keras.Model(inputs, output(layers.Concatenate()([inputs[0], style])))


FOREIGN = {
    "one input": lambda: keras.Sequential([keras.Input((8,)), layers.Dense(3)]),
    "other names": lambda: two_inputs(names=("z", "label")),
    "no picture": lambda: two_inputs(output=layers.Dense(3)),
    "grey": lambda: two_inputs(output=lambda x: layers.Reshape((2, 2, 1))(layers.Dense(4)(x))),
    "not square": lambda: two_inputs(output=lambda x: layers.Reshape((2, 4, 3))(layers.Dense(24)(x))),
    "two outputs": lambda: two_inputs(output=lambda x: [layers.Dense(3)(x), layers.Dense(3)(x)]),
}


@pytest.mark.parametrize("model", FOREIGN.values(), ids=FOREIGN)
def test_a_model_of_another_kind_is_refused_with_the_reason(tmp_path, model):
    path = tmp_path / "generator.h5"
    model().save(path)
    with pytest.raises(PainterError, match=r"generator\.h5 is not one of Atelier's generators: its (in|out)put"):
        Painter.load(path)


def test_weights_without_a_model_are_refused(tmp_path, tiny_generator):
    path = tmp_path / "generator.weights.h5"
    keras.models.load_model(tiny_generator, compile=False).save_weights(path)
    with pytest.raises(PainterError, match="no Keras model"):
        Painter.load(path)


def test_a_model_that_carries_code_is_refused(tmp_path):
    """A Lambda layer would run whatever the file's author wrote."""
    path = tmp_path / "generator.h5"
    two_inputs(output=lambda x: layers.Reshape((2, 2, 3))(layers.Dense(12)(layers.Lambda(lambda y: y)(x)))).save(path)
    with pytest.raises(PainterError, match=r"generator\.h5"):
        Painter.load(path)
