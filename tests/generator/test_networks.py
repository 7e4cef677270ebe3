"""The networks: shapes, bounds, and a generator file that needs nothing but Keras."""

import keras
import numpy as np
import pytest
import tensorflow as tf
from PIL import Image
from scipy.ndimage import convolve1d

from atelier.generator.memory import (
    APART,
    BESIDE,
    begin_like_the_most_alike,
    leave_out,
    left_out,
    questions,
)
from atelier.generator.networks import (
    build_dcgan_generator,
    build_discriminator,
    build_generator,
    build_patch_discriminator,
    copy_weights,
    grow,
    up_to,
)
from atelier.seeds import STYLES

RANDOM = np.random.default_rng(0)


KINDS = {
    "skip": build_generator,
    "excited": lambda *size, **sizes: build_generator(*size, **sizes, excitation=True),
    "subpixel": lambda *size, **sizes: build_generator(*size, **sizes, subpixel=True),
    "grain": lambda *size, **sizes: build_generator(*size, **sizes, grain=True),
    "residual": lambda *size, **sizes: build_generator(*size, **sizes, residual=2),
    "mapping": lambda *size, **sizes: build_generator(*size, **sizes, mapping=2),
    "memory": lambda *size, **sizes: build_generator(*size, **sizes, memory=3, mapping=1, grain=True),
    "finest": lambda *size, **sizes: build_generator(*size, **sizes, finest_width=12, half_width=20),
    "dcgan": build_dcgan_generator,
}
every_kind = pytest.mark.parametrize("build", KINDS.values(), ids=KINDS)


def scattered(model: keras.Model) -> keras.Model:
    """With random weights and statistics, large enough that every part of the network shows in its output."""
    for variable in model.weights:
        low, high = (0.5, 1.5) if variable.path.endswith("variance") else (-0.4, 0.4)
        variable.assign(RANDOM.uniform(low, high, variable.shape))
    return model


def latents(count, dim=8):
    return RANDOM.standard_normal((count, dim)).astype(np.float32)


def every_style(count=5):
    return np.arange(count, dtype=np.int32) % len(STYLES)


@every_kind
@pytest.mark.parametrize("resolution", [16, 32, 64])
def test_latents_and_styles_become_pictures(build, resolution):
    generator = scattered(build(resolution, latent_dim=8, width=4))
    images = np.asarray(generator([latents(5), every_style()]))
    assert images.shape == (5, resolution, resolution, 3) and images.dtype == np.float32
    assert 0.1 < np.abs(images).max() <= 1


@every_kind
def test_every_generator_fits_the_contract(build):
    generator = build(resolution=64)
    assert [(tensor.name, tensor.shape, tensor.dtype) for tensor in generator.inputs] == [
        ("latent", (None, 128), "float32"),
        ("style", (None,), "int32"),
    ]
    assert generator.output_shape == (None, 64, 64, 3)
    assert generator.count_params() * 4 < 16 * 2**20  # bytes: the file has at most 16 MiB
    assert all(type(layer).__module__.startswith("keras.") for layer in generator.layers)


@every_kind
def test_every_generator_listens_to_the_latent_and_to_the_style(build):
    generator = scattered(build(64, latent_dim=8, width=4))
    one = np.repeat(latents(1), 5, axis=0)
    for inputs in ([one, every_style()], [latents(5), every_style() * 0]):
        images = np.asarray(generator(inputs))
        assert np.abs(images[1:] - images[0]).max(axis=(1, 2, 3)).min() > 1e-3


def between(model: keras.Model, name: str) -> tuple[keras.Model, keras.Model]:
    """What goes into a layer of a generator, and what comes out of it."""
    layer = model.get_layer(name)
    return keras.Model(model.inputs, layer.input), keras.Model(model.inputs, layer.output)


def test_subpixels_are_painted_where_they_belong_and_smoothed():
    """Each place of the largest map has twelve numbers: two rows of two pixels of three colours."""
    generator = scattered(build_generator(16, latent_dim=8, width=4, subpixel=True))
    for weight in generator.get_layer("to_rgb_8").weights:  # the only other part of a picture of this size
        weight.assign(weight * 0)
    inputs = [latents(2), every_style(2)]
    maps, twelve = (np.asarray(part(inputs)) for part in between(generator, "to_rgb_16"))
    assert maps.shape[1:3] == (8, 8) and twelve.shape == (2, 8, 8, 12)
    expected = np.empty((2, 16, 16, 3))
    for y in range(8):
        for x in range(8):
            for down in range(2):
                for right in range(2):
                    first = 3 * (2 * down + right)
                    expected[:, 2 * y + down, 2 * x + right] = twelve[:, y, x, first : first + 3]
    assert len(np.unique(np.round(expected[0], 4))) > 300  # no two alike, so that a swap would show
    for axis in (1, 2):
        expected = convolve1d(expected, [0.25, 0.5, 0.25], axis, mode="constant")
    np.testing.assert_allclose(generator(inputs), np.tanh(expected), atol=1e-5)


def test_excitation_weighs_channels_by_a_small_map():
    """Every channel has its own gate, the same at all places; a gate without weights is half open."""
    generator = scattered(build_generator(64, latent_dim=8, width=4, excitation=True))
    gate = generator.get_layer("gate_64")
    inputs = [latents(2), every_style(2)]
    excited, _ = between(generator, "to_rgb_64")
    gates = keras.Model(generator.inputs, gate.output)(inputs)
    assert gates.shape == (2, 1, 1, 16) and 0 < np.min(gates) < np.max(gates) < 1
    seen = np.asarray(excited(inputs))
    gate.kernel.assign(gate.kernel * 0)
    gate.bias.assign(gate.bias * 0)
    half = np.asarray(excited(inputs))
    np.testing.assert_allclose(seen, half / 0.5 * gates, atol=1e-5)
    assert np.abs(half).max() > 0.1


def test_grain_is_noise_of_its_own_for_every_latent_and_place():
    generator = build_generator(64, grain=True)
    noise = np.asarray(
        keras.Model(generator.inputs, generator.get_layer("grain_64").output)([latents(20, 128), every_style(20)])
    )
    assert noise.shape == (20, 64 * 64) and noise.mean() == pytest.approx(0, abs=0.05)
    assert noise.var() == pytest.approx(1, rel=0.2)
    assert np.abs(np.corrcoef(noise)[np.triu_indices(20, 1)]).max() < 0.5
    rows = noise.reshape(20, 64, 64)
    assert abs(np.mean(rows[:, :, 1:] * rows[:, :, :-1])) < 0.05  # no neighbour tells the next
    names = [layer.name for layer in build_generator(128, latent_dim=8, width=4, grain=True).layers]
    assert [name for name in names if name.startswith("grain_")] == ["grain_16", "grain_32", "grain_64"]


# --- growing


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"grain": True, "residual": 2, "fine_width": 12},
        {"excitation": True, "subpixel": True},
        {"mapping": 2, "finest_width": 12, "half_width": 20},
    ],
)
def test_a_transposed_twin_paints_the_same_pictures_and_trains_on(options):
    trained = scattered(build_generator(32, latent_dim=8, width=4, **options))
    twin = scattered(build_generator(32, latent_dim=8, width=4, transposed=True, **options))
    copy_weights(trained, twin)
    assert twin.get_layer("up_16").kernel.shape[:2] == (4, 4)
    inputs = [latents(5), every_style()]
    expected = before_tanh(trained, inputs)
    np.testing.assert_allclose(before_tanh(twin, inputs), expected, atol=1e-4 * np.abs(expected).max())
    back = scattered(build_generator(32, latent_dim=8, width=4, **options))
    copy_weights(twin, back)
    grown = grow(scattered(build_generator(32, latent_dim=8, width=4, **options)), twin)
    for one, two, wanted in zip(back.get_weights(), grown.get_weights(), trained.get_weights(), strict=True):
        np.testing.assert_allclose(one, wanted, atol=1e-6)
        np.testing.assert_allclose(two, wanted, atol=1e-6)


def before_tanh(generator: keras.Model, inputs) -> np.ndarray:
    return np.asarray(keras.Model(generator.inputs, generator.get_layer("image").input)(inputs))


@pytest.mark.parametrize(
    ("small", "large", "options"),
    [
        (16, 16, {}),
        (16, 32, {}),
        (16, 64, {}),
        (32, 64, {"excitation": True}),
        (32, 32, {"grain": True}),
        (64, 64, {"residual": 1}),
        (32, 32, {"residual": 3}),
        (16, 32, {"mapping": 2, "finest_width": 12}),
    ],
)
def test_a_grown_generator_first_paints_the_trained_ones_pictures_enlarged(small, large, options):
    trained = scattered(build_generator(small, latent_dim=8, width=4))
    grown = grow(scattered(build_generator(large, latent_dim=8, width=4, **options)), trained)
    inputs = [latents(5), every_style()]
    expected = before_tanh(trained, inputs)
    while expected.shape[1] < large:
        expected = np.asarray(keras.layers.UpSampling2D(interpolation="bilinear")(expected))
    np.testing.assert_allclose(before_tanh(grown, inputs), expected, atol=1e-4)
    assert np.abs(expected).max() > 0.5


@pytest.mark.parametrize("extras", [{"grain": True}, {"residual": 1}], ids=["grain", "residual"])
@pytest.mark.parametrize("small", [16, 32], ids=["larger too", "wider only"])
def test_a_widened_generator_first_paints_the_same_pictures_and_all_of_it_can_learn(small, extras):
    trained = scattered(build_generator(small, latent_dim=8, width=4, **extras))
    wide = grow(build_generator(32, latent_dim=8, width=4, fine_width=24, **extras), trained)
    inputs = [latents(5), every_style()]
    expected = before_tanh(trained, inputs)
    if small < 32:
        expected = np.asarray(keras.layers.UpSampling2D(interpolation="bilinear")(expected))
    np.testing.assert_allclose(before_tanh(wide, inputs), expected, atol=1e-5 * np.abs(expected).max())
    with tf.GradientTape() as tape:
        total = tf.reduce_sum(wide(inputs, training=True) * RANDOM.normal(size=(5, 32, 32, 3)))
    slopes = tape.gradient(total, [wide.get_layer(name).kernel.value for name in ("to_rgb_16", "up_32")][: small // 16])
    assert all(np.abs(slope[:, :, 16:]).max() > 0 for slope in slopes)  # what listens to the new channels


def test_a_generator_may_become_wider_at_every_size():
    """From the canvas on, whose channels are those of 16 places in one row."""
    trained = scattered(build_generator(16, latent_dim=8, width=4, grain=True, residual=1, mapping=1))
    wide = grow(scattered(build_generator(16, latent_dim=8, width=6, grain=True, residual=1, mapping=1)), trained)
    inputs = [latents(5), every_style()]
    np.testing.assert_allclose(before_tanh(wide, inputs), before_tanh(trained, inputs), atol=1e-4)
    assert wide.get_layer("canvas").units == 1.5 * trained.get_layer("canvas").units


def test_pairs_of_convolutions_come_after_those_that_were_trained():
    """The pictures stay the same, and only the first pair begins at 16 pixels, the others at 8."""
    trained = scattered(build_generator(16, latent_dim=8, width=4, residual=1))
    deeper = grow(scattered(build_generator(16, latent_dim=8, width=4, residual=3)), trained)
    inputs = [latents(5), every_style()]
    np.testing.assert_allclose(before_tanh(deeper, inputs), before_tanh(trained, inputs), atol=1e-4)
    pairs = [layer.name for layer in deeper.layers if layer.name.startswith("refined_")]
    assert pairs == ["refined_2_8", "refined_3_8", "refined_16", "refined_2_16", "refined_3_16"]


def test_a_question_recalls_its_own_latent_and_one_paints_beside_it():
    generator = build_generator(16, latent_dim=32, width=4, memory=3)
    learned = generator.get_layer("memory").get_weights()[0]  # (15, 32)
    moved = generator.get_layer("code").input[0]  # what all is made of, beside the style
    recall = keras.Model(generator.inputs, moved)
    asked, styles = questions(generator), np.repeat(np.arange(5), 3).astype(np.int32)
    assert asked.shape == (15, 16) and questions(build_generator(16, latent_dim=8, width=4)).shape == (0, 4)
    whole = np.concatenate([asked, latents(15, 16)], axis=1)
    np.testing.assert_allclose(np.asarray(recall([whole, styles])), learned + BESIDE * whole, atol=1e-2)
    # Whatever is asked, the answer is a mean of the style's own latents.
    whole = latents(200, 32)
    answers = np.asarray(recall([whole, np.full(200, 2, np.int32)])) - BESIDE * whole
    shares = np.linalg.lstsq(learned[6:9].T, answers.T, rcond=None)[0]
    np.testing.assert_allclose(learned[6:9].T @ shares, answers.T, atol=1e-4)
    np.testing.assert_allclose(shares.sum(axis=0), 1, atol=1e-4)
    assert shares.min() > -1e-4 and np.median(shares.max(axis=0)) > 0.9  # mostly one


def test_a_memory_may_become_larger_and_keeps_what_it_holds():
    """New latents are copies, a little apart; what is left out stays so, and the pictures of old questions, too."""
    small = build_generator(16, latent_dim=32, width=4, memory=3)
    leave_out(small, np.array([4, 14]))
    large = grow(build_generator(16, latent_dim=32, width=4, memory=7), small)
    old, new = (model.get_layer("memory").get_weights()[0].reshape(5, -1, 32) for model in (small, large))
    np.testing.assert_array_equal(new[:, :3], old)
    apart = new[:, 3:] - old[:, [0, 1, 2, 0]]
    assert apart.std() == pytest.approx(APART, rel=0.1)
    assert np.flatnonzero(left_out(large)).tolist() == [7 + 1, 28 + 2]
    # The same latent, asked for with its new question, paints the same but for what the question itself is beside it.
    moved = [keras.Model(model.inputs, model.get_layer("code").input[0]) for model in (small, large)]
    for model, remember, memory in zip(moved, (small, large), (3, 7), strict=True):
        whole = np.concatenate([questions(remember)[[2 * memory]], np.zeros((1, 16), np.float32)], axis=1)
        answer = np.asarray(model([whole, np.array([2], np.int32)])) - BESIDE * whole
        np.testing.assert_allclose(answer[0], old[2, 0], atol=1e-2)
    with pytest.raises(ValueError, match="layer memory"):
        grow(build_generator(16, latent_dim=32, width=4, memory=2), small)


def test_new_latents_begin_like_that_of_the_most_alike_picture():
    generator = build_generator(16, latent_dim=32, width=4, memory=4)
    before = generator.get_layer("memory").get_weights()[0]
    pictures = RANDOM.integers(0, 256, (20, 16, 16, 3)).astype(np.uint8)
    pictures[7] = np.clip(pictures[5].astype(int) + 3, 0, 255)  # style 1: the last is like the second
    pictures[6] = 255 - pictures[4]
    places = np.delete(np.arange(20), 18)  # a place without a picture
    begin_like_the_most_alike(generator, 2, places, pictures[places])
    after = generator.get_layer("memory").get_weights()[0]
    old = np.arange(20) % 4 < 2
    np.testing.assert_array_equal(after[old], before[old])
    np.testing.assert_array_equal(after[18], before[18])
    assert (after[7] - before[5]).std() == pytest.approx(APART, rel=0.5)
    for place in (2, 3, 6, 7, 10, 11, 14, 15, 19):
        first = place // 4 * 4
        tones = pictures.reshape(20, 8, 2, 8, 2, 3).mean(axis=(2, 4))
        nearest = min((first, first + 1), key=lambda other: ((tones[other] - tones[place]) ** 2).sum())
        assert np.abs(after[place] - before[nearest]).max() < 6 * APART


@pytest.mark.parametrize("size", [16, 32])
def test_a_generator_without_its_finer_part_shares_its_layers(size):
    whole = scattered(build_generator(64, latent_dim=8, width=4, grain=True, residual=1))
    part = up_to(whole, size)
    assert part.output_shape == (None, size, size, 3)
    names = {layer.name for layer in part.layers}
    assert f"to_rgb_{size}" in names and f"to_rgb_{2 * size}" not in names
    assert all(layer is whole.get_layer(layer.name) for layer in part.layers if layer.weights)
    inputs = [latents(5), every_style()]
    smaller = build_generator(size, latent_dim=8, width=4, grain=True, residual=1)
    for layer in smaller.layers:
        if layer.weights:
            layer.set_weights(whole.get_layer(layer.name).get_weights())
    np.testing.assert_allclose(np.asarray(part(inputs)), np.asarray(smaller(inputs)), atol=1e-5)


def test_mapping_moves_the_latent_before_anything_is_made_of_it():
    """By a perceptron of latent and style, twice."""
    generator = scattered(build_generator(16, latent_dim=8, width=4, grain=True, mapping=2))
    inputs = [latents(5), every_style()]
    embedding = generator.get_layer("style_embedding").get_weights()[0][inputs[1]]
    expected = inputs[0]
    for number in (1, 2):
        inner, outer = (generator.get_layer(f"{name}_{number}").get_weights() for name in ("mapping", "mapped"))
        hidden = np.concatenate([expected, embedding], axis=1) @ inner[0] + inner[1]
        expected = expected + np.where(hidden > 0, hidden, 0.2 * hidden) @ outer[0] + outer[1]
    np.testing.assert_allclose(between(generator, "grain_16")[0](inputs), expected, rtol=1e-4, atol=1e-3)
    for name in ("canvas", "scale_4", "shift_16"):
        code = np.concatenate([expected, embedding], axis=1)
        np.testing.assert_allclose(between(generator, name)[0](inputs), code, rtol=1e-4, atol=1e-3)


@pytest.mark.parametrize(
    ("options", "maps"),
    [({}, [24, 24, 24]), ({"finest_width": 12}, [24, 24, 12]), ({"half_width": 20}, [24, 20, 24])],
    ids=["as fine_width", "finest", "half"],
)
def test_the_largest_sizes_may_have_maps_of_their_own_number(options, maps):
    generator = build_generator(64, width=8, fine_width=24, **options)
    assert [generator.get_layer(f"up_{size}").output.shape[-1] for size in (16, 32, 64)] == maps
    with_subpixels = build_generator(128, width=8, fine_width=24, subpixel=True, **options)
    half = options.get("half_width", 24)
    assert with_subpixels.get_layer("up_64").output.shape[-1] == half
    assert with_subpixels.get_layer("detail_128").output.shape[-1] == options.get("finest_width", 3 * half)


@pytest.mark.parametrize(
    ("small", "options"), [(16, {"subpixel": True}), (64, {"finest_width": 4})], ids=["subpixel", "to 128 pixels"]
)
def test_the_finest_part_begins_with_the_trained_ones_pictures_enlarged_by_lanczos(small, options):
    """As Pillow enlarges them."""
    trained = scattered(build_generator(small, latent_dim=8, width=4))
    grown = grow(build_generator(2 * small, latent_dim=8, width=4, **options), trained)
    inputs = [latents(5), every_style()]
    trained_ones, grown_ones = before_tanh(trained, inputs), before_tanh(grown, inputs)
    for before, after in zip(trained_ones, grown_ones, strict=True):
        for colour in range(3):
            plane = Image.fromarray(before[..., colour]).resize((2 * small,) * 2, Image.Resampling.LANCZOS)
            np.testing.assert_allclose(after[..., colour], np.asarray(plane), atol=1e-4)
    assert np.abs(trained_ones).max() > 0.5


def test_a_file_whose_smoothing_is_a_convolution_still_trains_on():
    """As sub-pixels were smoothed before."""
    generator = scattered(build_generator(16, latent_dim=8, width=4, subpixel=True))
    fixed = keras.layers.DepthwiseConv2D(3, padding="same", use_bias=False, name="smooth_16")
    older = keras.Model(generator.inputs, fixed(generator.output))
    for take in (grow, lambda new, old: copy_weights(old, new)):
        newer = scattered(build_generator(16, latent_dim=8, width=4, subpixel=True))
        take(newer, older)
        for one, two in zip(newer.get_weights(), generator.get_weights(), strict=True):
            np.testing.assert_array_equal(one, two)


def test_all_of_a_grown_generator_can_learn():
    """What adds nothing yet must not be dead: its last weights have a gradient, and it is not zero."""
    grown = grow(build_generator(32, latent_dim=8, width=4), scattered(build_generator(16, latent_dim=8, width=4)))
    kernel = grown.get_layer("to_rgb_32").kernel
    with tf.GradientTape() as tape:
        total = tf.reduce_sum(grown([latents(5), every_style()], training=True) * RANDOM.normal(size=(5, 32, 32, 3)))
    assert np.abs(tape.gradient(total, kernel.value)).max() > 0


@pytest.mark.parametrize(
    "trained",
    [
        lambda: build_generator(16, latent_dim=8, width=8),
        lambda: build_generator(16, latent_dim=9, width=4),
        lambda: build_generator(64, latent_dim=8, width=4),
        lambda: build_generator(16, latent_dim=8, width=4, fine_width=24),
        lambda: build_generator(16, latent_dim=8, width=4, subpixel=True),
        lambda: build_generator(16, latent_dim=8, width=4, residual=1),
        lambda: build_dcgan_generator(16, latent_dim=8, width=4),
    ],
    ids=["wider", "longer latent", "larger", "wider at last", "subpixel", "residual", "dcgan"],
)
def test_what_does_not_fit_does_not_grow(trained):
    with pytest.raises(ValueError, match=r"layer \w+ of the trained generator does not fit"):
        grow(build_generator(32, latent_dim=8, width=4), trained())


# --- the discriminator


@pytest.mark.parametrize("resolution", [16, 32, 64])
@pytest.mark.parametrize("spectral_norm", [False, True])
def test_pictures_and_styles_become_verdicts(resolution, spectral_norm):
    discriminator = build_discriminator(resolution, width=4, spectral_norm=spectral_norm)
    images = RANDOM.uniform(-1, 1, (5, resolution, resolution, 3)).astype(np.float32)
    logits = np.asarray(discriminator([images, every_style()]))
    assert logits.shape == (5, 1) and logits.dtype == np.float32 and np.isfinite(logits).all()


@pytest.mark.parametrize("resolution", [16, 64])
def test_every_patch_gets_a_verdict_of_its_own(resolution):
    """It hangs on the style, and on no pixel farther away than half a patch."""
    discriminator = scattered(build_patch_discriminator(resolution, width=4))
    images = np.repeat(RANDOM.uniform(-1, 1, (1, resolution, resolution, 3)), 5, axis=0).astype(np.float32)
    logits = np.asarray(discriminator([images, every_style()]))
    assert logits.shape == (5, (resolution // 8) ** 2) and logits.dtype == np.float32
    assert np.abs(logits[1:] - logits[0]).max(axis=1).min() > 1e-6
    images[1:] = images[0]
    images[1, 0, 0] = -images[1, 0, 0]
    one, other = np.asarray(discriminator([images[:2], np.zeros(2, np.int32)])).reshape(2, resolution // 8, -1)
    apart = np.abs(one - other)
    assert apart[0, 0] > 1e-6 and np.isfinite(apart).all()
    assert (
        max(apart[3:].max(initial=0), apart[:, 3:].max(initial=0)) < 0.1 * apart[0, 0]
    )  # a place may round differently


def test_spectral_norm_takes_batch_norms_place():
    """In all convolutions: after a few passes, none of them stretches anything (its largest singular value is 1)."""
    layers = keras.layers
    plain, bounded = (build_discriminator(32, width=4, spectral_norm=option) for option in (False, True))
    assert any(isinstance(layer, layers.BatchNormalization) for layer in plain.layers)
    assert not any(isinstance(layer, (layers.BatchNormalization, layers.Conv2D)) for layer in bounded.layers)
    wrapped = [layer.layer for layer in bounded.layers if isinstance(layer, layers.SpectralNormalization)]
    assert len(wrapped) == sum(isinstance(layer, layers.Conv2D) for layer in plain.layers) == 3
    images = RANDOM.uniform(-1, 1, (4, 32, 32, 3)).astype(np.float32)
    for _ in range(30):
        bounded([images, every_style(4)], training=True)
    for convolution in wrapped:
        kernel = np.asarray(convolution.kernel)
        assert np.linalg.norm(kernel.reshape(-1, kernel.shape[-1]), 2) == pytest.approx(1, rel=0.05)


def test_the_discriminator_listens_to_the_style():
    discriminator = build_discriminator(16, width=4)
    styles = discriminator.get_layer("styles").embeddings
    styles.assign(RANDOM.standard_normal(styles.shape))
    image = RANDOM.uniform(-1, 1, (1, 16, 16, 3)).astype(np.float32)
    logits = np.asarray(discriminator([np.repeat(image, 5, axis=0), every_style()])).reshape(5, -1)
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
@pytest.mark.parametrize(
    "build", [build_generator, build_dcgan_generator, build_discriminator, build_patch_discriminator]
)
def test_a_side_that_is_no_power_of_two_is_an_error(build, resolution):
    with pytest.raises(ValueError, match="power of two from 16 up"):
        build(resolution)


def test_all_files_load_in_a_fresh_process_that_has_only_keras(tmp_path, python):
    latent, style, expected = latents(3), every_style(3), {}
    for name, build in KINDS.items():
        generator = scattered(build(64, latent_dim=8, width=4))
        generator.save(tmp_path / f"{name}.h5")
        expected[name] = np.asarray(generator([latent, style]))
    np.savez(tmp_path / "inputs.npz", latent=latent, style=style)
    code = """
import glob, sys, keras, numpy
inputs = numpy.load("inputs.npz")
for path in glob.glob("*.h5"):
    model = keras.models.load_model(path, compile=False)
    numpy.save(path.removesuffix(".h5"), model([inputs["latent"], inputs["style"]]))
assert not any(name.startswith("atelier") for name in sys.modules)
"""
    python("-I", "-c", code, cwd=tmp_path)
    for name, images in expected.items():
        np.testing.assert_allclose(np.load(tmp_path / f"{name}.npy"), images, atol=1e-5)
