"""The adversarial step, checked against the textbook's gradients, computed one by one."""

import keras
import numpy as np
import pytest
import tensorflow as tf
from keras import layers

from atelier.generator.eye import build_heads
from atelier.generator.gan import GAN
from atelier.generator.losses import LOSSES
from atelier.generator.matching import difference
from atelier.generator.networks import build_discriminator, build_generator, build_patch_discriminator

RATE = 0.1
PIXELS, FEATURES, LITE, PATCHES = ("pixels",), ("features",), ("lite",), ("patches",)


def small_eye() -> keras.Model:
    """Stands in for `build_eye`: frozen, two maps, with statistics that training would move."""
    image = keras.Input((16, 16, 3), name="image")
    first = layers.ReLU()(layers.BatchNormalization()(layers.Conv2D(6, 3, 2, "same")(image)))
    eye = keras.Model(image, [first, layers.Conv2D(5, 3, 2, "same")(first)])
    eye.trainable = False
    return eye


def small_gan(judges=PIXELS, eagerly=True, side=16, **options) -> GAN:
    """Without augmentation nothing in a step is random; with plain gradient descent a step shows its gradient."""
    keras.utils.set_random_seed(0)
    generator, average = (build_generator(resolution=side, latent_dim=8, width=4) for _ in range(2))
    discriminator = build_discriminator(resolution=16, width=4) if "pixels" in judges else None
    eyes = [small_eye() for name in ("features", "lite") if name in judges]
    patches = build_patch_discriminator(resolution=side, width=4) if "patches" in judges else None
    gan = GAN(generator, average, discriminator, [(eye, build_heads(eye, width=4)) for eye in eyes], patches, **options)
    gan.compile(optimizer=keras.optimizers.SGD(RATE), jit_compile=False, run_eagerly=eagerly)
    return gan


def a_batch(seed=0, count=6, side=16):
    random = np.random.default_rng(seed)
    batch = {
        "image": random.integers(0, 256, (count, side, side, 3), np.uint8),
        "style": random.integers(0, 5, count).astype(np.int32),
        "latent": random.standard_normal((count, 8)).astype(np.float32),
    }
    return {name: tf.constant(value) for name, value in batch.items()}  # as `fit` hands them on


def values(variables) -> list[np.ndarray]:
    return [variable.numpy() for variable in variables]


def textbook_gradients(gan, batch, judges, loss):
    """Each network's own loss, differentiated for its own weights only; of several judges, the mean."""
    real = tf.cast(batch["image"], "float32") / 127.5 - 1
    latent, style = batch["latent"], batch["style"]
    opinions = {
        "pixels": lambda images: gan.discriminator([shrunk(images), style], training=True),
        "features": lambda images: gan.heads[0]([*gan.eyes[0](images, training=False), style], training=True),
        "lite": lambda images: gan.heads[-1]([*gan.eyes[-1](images, training=False), style], training=True),
        "patches": lambda images: gan.patches([images, style], training=True),
    }

    def shrunk(images):  # to the 16 pixels at which the judge of pixels looks
        times = images.shape[1] // 16
        return tf.reduce_mean(tf.reshape(images, (-1, 16, times, 16, times, 3)), axis=(2, 4))

    def paint():
        return gan.generator([latent, style], training=True)

    def by(game, images, network):
        with tf.GradientTape() as tape:
            value = sum(game(opinions[name](real), opinions[name](images())) for name in judges) / len(judges)
        return float(value), tape.gradient(value, [v.value for v in network.trainable_variables])

    g_loss, gradients = by(LOSSES[loss].generator, paint, gan.generator)
    fake = paint()  # outside the tape: a constant
    for network in gan.judges:
        d_loss, more = by(LOSSES[loss].discriminator, lambda: fake, network)
        gradients += more
    return g_loss, d_loss, [np.asarray(tf.convert_to_tensor(each)) for each in gradients]


@pytest.mark.parametrize(
    ("judges", "loss", "side", "eagerly"),
    [
        (PIXELS, "non-saturating", 16, False),  # as it is trained; the others, only quicker to begin
        (PIXELS, "hinge", 16, True),
        (PIXELS, "relativistic", 16, True),
        (FEATURES, "hinge", 16, True),
        (PIXELS + FEATURES, "non-saturating", 16, True),
        (PIXELS + FEATURES, "relativistic", 16, True),
        (PIXELS + FEATURES + LITE, "non-saturating", 16, True),
        (PIXELS + PATCHES, "non-saturating", 32, True),
    ],
)
def test_one_step_goes_down_all_textbook_gradients_at_once(judges, loss, side, eagerly):
    gan, batch = small_gan(judges, loss=loss, side=side, eagerly=eagerly), a_batch(side=side)
    networks = [gan.generator, *gan.judges]
    trained = [variable for network in networks for variable in network.trainable_variables]
    assert {id(v) for v in gan.trainable_variables} == {id(v) for v in trained}
    g_loss, d_loss, gradients = textbook_gradients(gan, batch, judges, loss)
    before = values(trained)
    logs = gan.train_on_batch(batch, return_dict=True)
    assert logs["g_loss"] == pytest.approx(g_loss, rel=1e-4)
    assert logs["d_loss"] == pytest.approx(d_loss, rel=1e-4)
    assert logs["loss"] == pytest.approx(g_loss + d_loss, rel=1e-4)
    for variable, old, gradient in zip(trained, before, gradients, strict=True):
        np.testing.assert_allclose(variable.numpy(), old - RATE * gradient, rtol=1e-3, atol=1e-6, err_msg=variable.path)
    moved = {id(v) for v, gradient in zip(trained, gradients, strict=True) if np.abs(gradient).max() > 0}
    for network in networks:  # each of them, and most of its weights
        assert sum(id(v) in moved for v in network.trainable_variables) > len(network.trainable_variables) / 2


def test_the_log_counts_how_often_each_side_is_told_right():
    """With a judge that says the same of every picture: all real ones right and no generated one, or vice versa."""
    gan, batch = small_gan(), a_batch()
    for verdict, shares in ((100.0, (1, 0)), (-100.0, (0, 1))):
        gan.discriminator.get_layer("realness").bias.assign([verdict])
        gan.reset_metrics()
        logs = gan.train_on_batch(batch, return_dict=True)
        assert (logs["d_real"], logs["d_fake"]) == shares


def test_the_frozen_eye_stays_as_it_is():
    """Neither its weights nor its statistics move: what it sees of a picture is the same all the training through."""
    gan = small_gan(PIXELS + FEATURES)
    before, heads = values(gan.eyes[0].variables), values(gan.heads[0].trainable_variables)
    assert not gan.eyes[0].trainable_variables and len(before) > 4
    for step in range(2):
        gan.train_on_batch(a_batch(step))
    for old, new in zip(before, values(gan.eyes[0].variables), strict=True):
        np.testing.assert_array_equal(old, new)
    assert any(
        not np.array_equal(old, v.numpy()) for old, v in zip(heads, gan.heads[0].trainable_variables, strict=True)
    )


def test_what_is_finest_comes_before_the_judges_by_and_by():
    """None of it at step 0, as of pictures of half the size; a half of it at half time; all of it from then on."""
    gan, seen = small_gan(fade=4), []
    gan.augment = lambda images: seen.append(images.numpy()) or images
    batch = a_batch()
    for step, share in ((0, 0.0), (2, 0.5), (4, 1.0), (9, 1.0)):
        gan.steps.assign(step)
        seen.clear()
        painted = gan.generator([batch["latent"], batch["style"]], training=True).numpy()
        gan.train_on_batch(batch)
        for whole, shown in zip((batch["image"].numpy() / 127.5 - 1, painted), seen, strict=True):
            halves = whole.reshape(-1, 8, 2, 8, 2, 3).mean((2, 4))
            coarse = tf.image.resize(halves, (16, 16)).numpy()
            np.testing.assert_allclose(shown, coarse + share * (whole - coarse), atol=1e-5)


@pytest.mark.parametrize("trained", [False, True])
def test_the_average_follows_its_formula(trained):
    """Towards the weights before each step (and the batch-norm statistics after it), at a rate that ramps up, unless
    the start was a trained one."""
    gan = small_gan(ema_decay=0.2)
    gan.trained = trained
    assert gan.average.count_params() == gan.generator.count_params()
    np.testing.assert_array_equal(gan.average.get_weights()[0], gan.generator.get_weights()[0])
    learning = {variable.path for variable in gan.generator.trainable_variables}
    expected = [value.astype(np.float64) for value in gan.average.get_weights()]
    random = np.random.default_rng(0)
    for step in range(6):
        for variable in gan.generator.trainable_variables:  # far from the average, so that it has a way to go
            variable.assign(random.normal(0, 0.1, variable.shape))
        before = gan.generator.get_weights()
        gan.train_on_batch(a_batch(step))
        decay = 0.2 if trained else min(0.2, (1 + step) / (10 + step))
        for index, variable in enumerate(gan.generator.weights):
            seen = before[index] if variable.path in learning else variable.numpy()
            expected[index] = decay * expected[index] + (1 - decay) * seen
    for value, wanted in zip(gan.average.get_weights(), expected, strict=True):
        np.testing.assert_allclose(value, wanted, rtol=1e-4, atol=1e-6)
    assert int(gan.steps.value) == 6


def test_the_average_begins_as_the_generator_and_is_not_trained():
    gan = small_gan()
    for one, other in zip(gan.average.get_weights(), gan.generator.get_weights(), strict=True):
        np.testing.assert_array_equal(one, other)
    average = {id(variable) for variable in gan.average.variables}
    assert not gan.average.trainable_variables
    assert not average & {id(variable) for variable in gan.trainable_variables}


def test_calling_the_gan_paints_with_the_generator():
    gan, batch = small_gan(), a_batch()
    np.testing.assert_allclose(gan(batch), gan.generator([batch["latent"], batch["style"]]), atol=1e-6)


# --- R1


def smooth_judge(width=6) -> keras.Model:
    """Every picture on its own, and no bends: the slope that noise finds is the derivative."""
    image, style = keras.Input((4, 4, 3)), keras.Input((), dtype="int32")
    random = keras.initializers.RandomNormal(stddev=0.3, seed=1)
    x = layers.Dense(width, activation="tanh", kernel_initializer=random)(layers.Flatten()(image))
    x = x * layers.Embedding(5, width, embeddings_initializer=keras.initializers.RandomNormal(stddev=1.0, seed=2))(
        style
    )
    last = keras.initializers.RandomNormal(stddev=1.0, seed=3)
    return keras.Model([image, style], layers.Dense(1, kernel_initializer=last)(x))


def test_r1_is_the_mean_squared_slope_at_real_pictures_and_so_is_its_gradient():
    """Against second derivatives, which TensorFlow can take; the estimate's error falls with the noise drawn."""
    gan, gamma = small_gan(gradient_penalty=3.0), 3.0
    gan.discriminator = judge = smooth_judge()
    random = np.random.default_rng(0)
    image = tf.constant(random.uniform(-1, 1, (5, 4, 4, 3)).astype(np.float32))
    style = tf.range(5)
    weights = [v.value for v in judge.trainable_variables]
    with tf.GradientTape() as tape:
        with tf.GradientTape() as inner:
            inner.watch(image)
            total = tf.reduce_sum(judge([image, style]))
        slope = inner.gradient(total, image)
        exact = gamma / 2 * tf.reduce_mean(tf.reduce_sum(slope**2, axis=(1, 2, 3)))
    exact_gradients = tape.gradient(exact, weights, unconnected_gradients="zero")

    many, many_styles = tf.tile(image, (4000, 1, 1, 1)), tf.tile(style, (4000,))
    with tf.GradientTape() as tape:
        estimate = tf.reduce_mean([gan._penalty(many, many_styles) for _ in range(3)])
    assert float(estimate) == pytest.approx(float(exact), rel=0.03)
    assert not np.array_equal(gan._penalty(image, style), gan._penalty(image, style))  # fresh noise every time
    gradients = tape.gradient(estimate, weights, unconnected_gradients="zero")
    one, other = (
        np.concatenate([np.ravel(tf.convert_to_tensor(g)) for g in each]) for each in (gradients, exact_gradients)
    )
    assert np.linalg.norm(one - other) < 0.06 * np.linalg.norm(other)


def test_r1_is_the_discriminators_business_alone():
    """The generator's step is the same with it; the discriminator's is not, and the loss is larger by it."""
    ends = {}
    for gamma in (0.0, 50.0):
        gan = small_gan(gradient_penalty=gamma)
        logs = gan.train_on_batch(a_batch(), return_dict=True)
        ends[gamma] = [values(network.trainable_variables) for network in (gan.generator, gan.discriminator)]
        assert (logs["loss"] - logs["g_loss"] - logs["d_loss"] > 1e-4) == bool(gamma)
    for one, other in zip(ends[0.0][0], ends[50.0][0], strict=True):
        np.testing.assert_allclose(one, other, atol=1e-7)
    assert max(np.abs(one - other).max() for one, other in zip(ends[0.0][1], ends[50.0][1], strict=True)) > 1e-4


def test_the_crowd_is_the_generators_business_alone():
    plain, crowded = small_gan(PIXELS + FEATURES), small_gan(PIXELS + FEATURES, crowd=5.0)
    earlier, batch = a_batch(1), a_batch(2)
    seen = crowded.eyes[0](tf.cast(earlier["image"], "float32") / 127.5 - 1)
    crowded.crowd_distances[0](seen, [each[::-1] for each in seen], earlier["style"])
    for gan in (plain, crowded):
        logs = gan.train_on_batch(batch, return_dict=True)
    assert np.isfinite(logs["crowd"]) and logs["crowd"] != 0
    for judge, other in zip(plain.judges, crowded.judges, strict=True):
        for one, another in zip(values(judge.weights), values(other.weights), strict=True):
            np.testing.assert_allclose(one, another, rtol=1e-4, atol=1e-6)
    ours, theirs = values(plain.generator.trainable_variables), values(crowded.generator.trainable_variables)
    assert any(np.abs(one - another).max() > 1e-5 for one, another in zip(ours, theirs, strict=True))


def test_the_pairs_are_the_generators_business_alone():
    plain, paired = small_gan(PIXELS + FEATURES), small_gan(PIXELS + FEATURES, pairs=5.0)
    batch = a_batch(2) | {"paired": tf.constant([1.0, 1, 1, 0, 0, 0])}
    seen = [
        gan.eyes[0](pictures, training=False)
        for gan, pictures in (
            (paired, tf.cast(batch["image"], "float32") / 127.5 - 1),
            (paired, paired.generator([batch["latent"], batch["style"]], training=True)),
        )
    ]
    apart = difference(*seen, batch["paired"])
    for gan in (plain, paired):
        logs = gan.train_on_batch(batch, return_dict=True)
    assert logs["pairs"] > apart > 0  # and the tones' difference
    for judge, other in zip(plain.judges, paired.judges, strict=True):
        for one, another in zip(values(judge.weights), values(other.weights), strict=True):
            np.testing.assert_allclose(one, another, rtol=1e-4, atol=1e-6)
    ours, theirs = values(plain.generator.trainable_variables), values(paired.generator.trainable_variables)
    assert any(np.abs(one - another).max() > 1e-5 for one, another in zip(ours, theirs, strict=True))


@pytest.mark.parametrize("pairs", [0.0, 1.0])
def test_both_pictures_of_a_pair_are_shifted_alike(pairs):
    gan = small_gan(FEATURES, pairs=pairs, augment=("translation",), augment_strength=1.9)
    pictures = tf.random.uniform((32, 16, 16, 3))
    real, fake = gan._augmented(pictures, pictures)
    assert np.array_equal(real, fake) == bool(pairs)
    assert not np.array_equal(real, gan._augmented(pictures, pictures)[0])  # anew at every step


def test_a_judge_may_look_less_often_and_the_others_judge_alone_in_between():
    often, seldom = (
        small_gan(FEATURES + LITE, crowd=2.0, pairs=1.0, feature_every=every, eagerly=False) for every in (1, 2)
    )
    alone = small_gan(LITE, crowd=2.0, pairs=1.0)
    batch = a_batch(2) | {"paired": tf.constant([1.0, 1, 1, 0, 0, 0])}
    logs = [gan.train_on_batch(batch, return_dict=True) for gan in (often, seldom)]
    for name, value in logs[0].items():  # at step 0 it looks
        assert logs[1][name] == pytest.approx(value, rel=1e-4), name
    heads, crowd = values(seldom.heads[0].trainable_variables), values(seldom.crowd_distances[0].weights)
    ours = alone.generator, alone.eyes[0], alone.heads[0], alone.crowd_distances[0]
    theirs = seldom.generator, seldom.eyes[1], seldom.heads[1], seldom.crowd_distances[1]
    for one, other in zip(ours, theirs, strict=True):
        one.set_weights(other.get_weights())
    for gan in (alone, seldom):
        gan.reset_metrics()
    logs = [gan.train_on_batch(batch, return_dict=True) for gan in (alone, seldom)]
    for name, value in logs[0].items():
        assert logs[1][name] == pytest.approx(value, rel=1e-4), name
    after = values(seldom.heads[0].trainable_variables), values(seldom.crowd_distances[0].weights)
    for before, now in zip(heads + crowd, after[0] + after[1], strict=True):
        np.testing.assert_array_equal(before, now)
    seldom.train_on_batch(batch)
    assert any((one != two).any() for one, two in zip(heads, values(seldom.heads[0].trainable_variables), strict=True))


def test_looking_less_often_is_for_the_backend_that_can(monkeypatch):
    monkeypatch.setattr("keras.backend.backend", lambda: "jax")
    with pytest.raises(ValueError, match="feature_every=1"):
        small_gan(FEATURES + LITE, feature_every=4)
