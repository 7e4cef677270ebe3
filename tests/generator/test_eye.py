"""The frozen eyes: what they take and give, and that nothing in them learns. With networks of random weights."""

import keras
import numpy as np
import pytest
import tensorflow as tf

from atelier.efficientnet import build_lite
from atelier.generator.eye import build_eye, build_heads, build_lite_eye

RANDOM = np.random.default_rng(0)
IMAGES = RANDOM.uniform(-1, 1, (3, 16, 16, 3)).astype(np.float32)
IMAGES_32 = RANDOM.uniform(-1, 1, (3, 32, 32, 3)).astype(np.float32)


@pytest.fixture(scope="module")
def mobile_eye(eye_weights):
    return build_eye(32, eye_weights)


@pytest.fixture(scope="module")
def lite_eye(lite_weights):
    return build_lite_eye(32, lite_weights)


@pytest.fixture(params=["mobile_eye", "lite_eye"])
def eye(request):
    return request.getfixturevalue(request.param)


def test_pictures_of_any_size_become_four_maps(eye):
    for images in (IMAGES, RANDOM.uniform(-1, 1, (2, 48, 48, 3)).astype(np.float32)):
        shapes = [tuple(each.shape) for each in eye(images)]
        widths = (32, 40, 128, 192) if eye.name == "lite_eye" else (32, 32, 96, 192)
        assert shapes == [(len(images), side, side, width) for side, width in zip((8, 4, 2, 1), widths, strict=True)]


def test_nothing_in_it_learns(eye):
    assert eye.variables and not eye.trainable_variables
    before = [variable.numpy() for variable in eye.variables]
    first = [np.asarray(each) for each in eye(IMAGES, training=False)]
    for old, new in zip(first, eye(IMAGES, training=True), strict=True):  # even where somebody forgets to say so
        np.testing.assert_allclose(old, new, atol=1e-5)
    for old, variable in zip(before, eye.variables, strict=True):
        np.testing.assert_array_equal(old, variable.numpy())


def test_the_weights_are_the_files(mobile_eye, eye_weights):
    network = keras.applications.MobileNetV2(weights=None, include_top=False, input_shape=(32, 32, 3))
    network.load_weights(eye_weights)
    known = {variable.path: variable.numpy() for variable in network.variables}
    seen = {variable.path: variable.numpy() for variable in mobile_eye.variables}
    assert len(seen.keys() - known.keys()) == 6  # the mixing
    for name in seen.keys() & known.keys():
        np.testing.assert_array_equal(known[name], seen[name])


def test_it_looks_through_the_network_of_the_file(lite_eye, lite_weights):
    """At its maps at 1/4, 1/8, 1/16 (both) and 1/32: each is mixed, and the one below it hears of it, enlarged."""
    _, quarter, eighth, first, second, deepest, _ = build_lite(32, lite_weights)(IMAGES_32)
    seen, above = lite_eye(IMAGES_32), None
    for number, maps in ((3, deepest), (2, np.concatenate([first, second], axis=-1)), (1, eighth), (0, quarter)):
        expected = np.asarray(maps) @ kernel_of(lite_eye, f"mix_{number}")
        if above is not None:
            larger = np.asarray(keras.layers.UpSampling2D(interpolation="bilinear")(above))
            expected = expected + larger @ kernel_of(lite_eye, f"narrow_{number}")
        np.testing.assert_allclose(seen[number], expected, rtol=1e-4, atol=1e-3)
        assert np.abs(expected).max() > 0.1
        above = expected


def kernel_of(eye, name: str) -> np.ndarray:
    return np.asarray(eye.get_layer(name).kernel)[0, 0]


@pytest.mark.parametrize("build", ["build_eye", "build_lite_eye"])
def test_the_mixing_is_the_same_for_the_same_seed_only(build, eye_weights, lite_weights):
    """A run that goes on must see through the same eye, and its checkpoint must not be the only one to know it."""
    build, weights = {"build_eye": (build_eye, eye_weights), "build_lite_eye": (build_lite_eye, lite_weights)}[build]
    eye, same, other = build(32, weights), build(32, weights), build(32, weights, seed=1)
    for one, again, otherwise in zip(eye(IMAGES), same(IMAGES), other(IMAGES), strict=True):
        np.testing.assert_allclose(one, again, atol=1e-6)
        assert np.abs(one - otherwise).max() > 0.1


def test_every_map_tells_the_generator_what_to_change(eye):
    pixels = tf.constant(IMAGES)
    for number in range(4):
        with tf.GradientTape() as tape:
            tape.watch(pixels)
            total = tf.reduce_sum(eye(pixels)[number] ** 2)
        gradient = np.asarray(tape.gradient(total, pixels))
        assert np.isfinite(gradient).all() and (np.abs(gradient).max(axis=(1, 2, 3)) > 0).all()


def test_the_heads_give_a_few_opinions_from_every_scale_and_listen_to_the_style(eye):
    heads, maps = build_heads(eye, width=4), eye(IMAGES[:1])
    logits = np.asarray(heads([*(np.repeat(each, 5, axis=0) for each in maps), np.arange(5)]))
    assert logits.shape == (5, 16 + 16 + 4 + 1) and logits.dtype == np.float32
    assert (np.abs(logits[1:] - logits[0]).max(axis=0) > 0).all()
    trained = {variable.path for variable in heads.trainable_variables}
    assert trained and not trained & {variable.path for variable in eye.variables}


@pytest.mark.parametrize("size", [0, 16, 48, -32])
def test_a_size_that_is_no_multiple_of_32_is_an_error(size):
    with pytest.raises(ValueError, match=f"multiple of 32 pixels, not {size}$"):
        build_eye(size, "gone.weights.h5")
    with pytest.raises(ValueError, match=f"multiple of 32 pixels, not {size}$"):
        build_lite_eye(size, "gone.pth")


@pytest.mark.parametrize("damage", ["missing", "folder", "empty", "text", "truncated", "foreign"])
def test_weights_that_cannot_be_had_are_an_error_that_names_them(tmp_path, eye_weights, damage):
    path = tmp_path / "eye.weights.h5"
    if damage == "folder":
        path.mkdir()
    elif damage == "foreign":
        keras.Sequential([keras.Input((3,)), keras.layers.Dense(2)]).save_weights(path)
    elif damage != "missing":
        content = eye_weights.read_bytes()
        path.write_bytes({"empty": b"", "text": b"hello", "truncated": content[: len(content) // 2]}[damage])
    with pytest.raises(ValueError, match=r"weights of MobileNetV2.*eye\.weights\.h5") as caught:
        build_eye(32, path)
    assert len(str(caught.value).splitlines()) == 1
