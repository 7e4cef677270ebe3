"""The last doubling: a small network that paints the detail which a picture of half the side cannot hold.

The game of `gan.py` decides what is painted and where; its discriminators begin anew at every new size, and while they
learn the generator forgets. Detail needs no game about composition: real pictures come with their own smaller copies,
so a network can learn from pairs (Dong et al., "Learning a deep convolutional network for image super-resolution",
2014), and a discriminator of patches keeps it from painting only means (Ledig et al., SRGAN, 2017). What it learned
from real pictures it then does to the generator's.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import keras
import numpy as np
from keras import layers, ops

from atelier.dataset.loader import style_weights, training_pictures
from atelier.generator.gan import move_average, play
from atelier.generator.losses import NON_SATURATING, RELATIVISTIC
from atelier.generator.networks import build_patch_discriminator, check_resolution, initializer
from atelier.images import contact_sheet, from_uint8, png_bytes, to_uint8, write_atomically
from atelier.recipes import Settings
from atelier.seeds import STYLES
from atelier.training import (
    EventLog,
    EveryMinutes,
    Progress,
    TimeLimit,
    TrainingError,
    append_row,
    clear_run,
    load_state,
    save_model,
    save_state,
)


@dataclass(frozen=True)
class DetailRecipe(Settings):
    """All that decides how the detail network learns."""

    size: int = 64  # side of the pictures that it doubles
    width: int = 32
    blocks: int = 3
    crop: int = 32  # side of the pieces that it learns from, in pixels of the small pictures
    discriminator_width: int = 32
    adversarial: float = 0.02  # weight of the discriminator's opinion, beside mean absolute errors
    noise: float = 0.02  # standard deviation of what is added to the small pictures, of a range of 2
    batch_size: int = 16
    learning_rate: float = 2e-4
    ema_decay: float = 0.999
    seed: int = 0

    def check(self) -> None:
        """`ValueError` if a setting is none that there can be."""
        check_resolution(self.size)
        check_resolution(self.crop)
        if self.crop > self.size:
            raise ValueError(f"crop is at most the size {self.size}, not {self.crop}")
        for name in ("width", "discriminator_width", "batch_size", "learning_rate"):
            if not 0 < getattr(self, name) < math.inf:
                raise ValueError(f"{name} is a positive number, not {getattr(self, name)}")
        ends = {"blocks": math.inf, "adversarial": math.inf, "noise": math.inf, "ema_decay": 1, "seed": 2**32}
        for name, end in ends.items():
            if not 0 <= getattr(self, name) < end:
                raise ValueError(f"{name} is from 0 up and less than {end}, not {getattr(self, name)}")


def build_detail(size: int | None = 64, width: int = 32, blocks: int = 3) -> keras.Model:
    """A model from `image` (N, size, size, 3) float32 in [-1, 1] and `style` (N,) int32 to twice the side, in [-1, 1].

    Residual 3x3 convolutions at the small size, then 2x2 pixels from each place (Shi et al., "Real-time single image
    super-resolution", 2016), added to the picture enlarged. The style shifts every feature, for a brush stroke is no
    hatching. Built-in layers only. At first it enlarges and adds nothing.

    Args:
        size: side of the small pictures.
        width: feature maps.
        blocks: residual convolutions.
    """
    image = keras.Input((size, size, 3), name="image")
    style = keras.Input((), name="style", dtype="int32")

    def tone(number):
        table = layers.Embedding(len(STYLES), width, embeddings_initializer=initializer(), name=f"tone_{number}")
        return layers.Reshape((1, 1, width))(table(style))

    def conv(channels, name, kernel_initializer="he_normal"):
        return layers.Conv2D(channels, 3, padding="same", kernel_initializer=kernel_initializer, name=name)

    x = layers.Add()([conv(width, "texture_0")(image), tone(0)])
    for number in range(1, blocks + 1):
        y = layers.Add()([conv(width, f"texture_{number}")(layers.ReLU()(x)), tone(number)])
        x = layers.Add()([x, y])
    x = conv(12, "detail", "zeros")(layers.ReLU()(x))
    x = layers.Reshape((size, size, 2, 2, 3))(x)
    x = layers.Reshape((2 * size, 2 * size, 3))(layers.Permute((1, 3, 2, 4, 5))(x))
    x = layers.Add()([layers.UpSampling2D(interpolation="bilinear")(image), x])
    return keras.Model([image, style], layers.Activation("hard_tanh")(x), name="detail")


def compose(generator: keras.Model, detail: keras.Model) -> keras.Model:
    """A generator of twice the side: `generator`, then `detail`; inputs and outputs as `build_generator`'s.

    Raises:
        ValueError: the detail is made for pictures of another side, or the generator has its detail already.
    """
    if any(layer.name == "detail" for layer in generator.layers):
        raise ValueError("this generator has its detail already")
    if generator.output_shape != detail.input_shape[0]:
        wanted, found = detail.input_shape[0][1], generator.output_shape[1]
        raise ValueError(f"the detail network enlarges pictures of {wanted} px, and the generator's have {found}")
    latent, style = generator.inputs
    return keras.Model([latent, style], detail([generator.output, style]), name="generator")


def load_generator(path: str | Path) -> keras.Model:
    """A generator.h5, less its detail network if it has one.

    Raises:
        ValueError: it cannot be read.
    """
    try:
        return without_detail(keras.models.load_model(path, compile=False))
    except (OSError, ValueError, TypeError, KeyError) as error:
        raise ValueError(f"no generator to start with at {path}: {error}") from error


def without_detail(generator: keras.Model) -> keras.Model:
    """The generator that `compose` was given, with the same weights; another generator as it is."""
    for layer in generator.layers:
        if layer.name == "detail":
            return keras.Model(generator.inputs, generator.get_layer("image").output, name="generator")
    return generator


class DetailGAN(keras.Model):
    """The detail network against a discriminator of patches, on pairs of real pictures and on generated ones.

    From the pairs it learns what detail is. Of generated pictures only the small one is there, with faults that no
    real picture has: the discriminator compares them, painted large, with real ones, and what they become must
    still be the same picture when it is made small again.

    A batch is a dict: `small` (N, c, c, 3) uint8, `large` (N, 2c, 2c, 3) uint8, `style` (N,) int32, and with a painter
    `latent` (N, latent_dim) float32.

    Args:
        painter: a generator of pictures of the recipe's size, which stays as it is; without one, pairs are all.

    Attributes:
        average: the detail network with exponentially averaged weights.
    """

    def __init__(self, recipe: DetailRecipe, painter: keras.Model | None = None):
        super().__init__()
        self.recipe, self.painter = recipe, painter
        if painter is not None:
            painter.trainable = False
        self.detail, self.average = (build_detail(recipe.crop, recipe.width, recipe.blocks) for _ in range(2))
        self.average.trainable = False
        self.average.set_weights(self.detail.get_weights())
        self.patches = build_patch_discriminator(2 * recipe.crop, recipe.discriminator_width)
        self.random = keras.random.SeedGenerator(recipe.seed)
        self.steps = self.add_weight(name="steps", shape=(), initializer="zeros", dtype="int32", trainable=False)
        self.trackers = [keras.metrics.Mean(name) for name in ("error", "g_loss", "d_loss")]
        self.built = True

    def call(self, batch, training=False):
        small = ops.cast(batch["small"], "float32") / 127.5 - 1.0
        if training:  # the generator's pictures are not as clean as real ones
            small = small + keras.random.normal(ops.shape(small), stddev=self.recipe.noise, seed=self.random)
        return self.detail([small, batch["style"]], training=training)

    def compute_loss(self, x, y=None, y_pred=None, sample_weight=None, training=True):
        style, real, fake, loss = x["style"], ops.cast(x["large"], "float32") / 127.5 - 1.0, y_pred, RELATIVISTIC
        error = ops.mean(ops.abs(fake - real))
        if self.painter is not None:
            small = self._paint(x["latent"], style)
            fake, loss = self.detail([small, style], training=True), NON_SATURATING
            error = error + ops.mean(ops.abs(ops.average_pool(fake, 2, 2) - small))
        g_loss, d_loss, _, _ = play(self.patches, loss, [real], [fake], style)
        for tracker, value in zip(self.trackers, (error, g_loss, d_loss), strict=True):
            tracker.update_state(value)
        move_average(self.average, self.detail, self.recipe.ema_decay, self.steps)
        self.steps.assign(self.steps.value + 1)
        return error + self.recipe.adversarial * g_loss + d_loss

    def _paint(self, latent, style):
        """The same random piece of every generated picture, (N, crop, crop, 3)."""
        images, crop = self.painter([latent, style], training=False), self.recipe.crop
        top, left = (self._below(self.recipe.size - crop + 1) for _ in range(2))
        return ops.slice(images, [0, top, left, 0], (self.recipe.batch_size, crop, crop, 3))

    def _below(self, end: int):
        """A random whole number in 0 ... end - 1."""
        return ops.minimum(ops.cast(keras.random.uniform((), 0, end, seed=self.random), "int32"), end - 1)


def pairs(
    small: np.ndarray, large: np.ndarray, styles: np.ndarray, recipe: DetailRecipe, start: int = 0, latent_dim: int = 0
) -> Iterator[tuple[dict[str, np.ndarray]]]:
    """Endless batches for `DetailGAN.fit`; batch number i depends on the recipe's seed and i alone.

    Args:
        small: (N, size, size, 3) uint8.
        large: (N, 2 * size, 2 * size, 3) uint8, the same pictures.
        styles: (N,) int, indices into `STYLES`.
        latent_dim: length of the latents.
    """
    weights, crop, step = style_weights(styles), recipe.crop, start
    while True:
        random = np.random.default_rng((recipe.seed, step))
        chosen = random.choice(len(small), recipe.batch_size, p=weights)
        tops, lefts = random.integers(0, small.shape[1] - crop + 1, (2, recipe.batch_size))
        turned = np.where(random.random(recipe.batch_size) < 0.5, -1, 1)
        places = list(zip(chosen, tops, lefts, turned, strict=True))
        yield (
            {
                "small": np.stack([small[i, t : t + crop, s : s + crop][:, ::turn] for i, t, s, turn in places]),
                "large": np.stack(
                    [large[i, 2 * t : 2 * (t + crop), 2 * s : 2 * (s + crop)][:, ::turn] for i, t, s, turn in places]
                ),
                "style": styles[chosen].astype(np.int32),
                "latent": random.standard_normal((recipe.batch_size, latent_dim), np.float32),
            },
        )
        step += 1


def train_detail(
    data: Sequence[str | Path],
    out: str | Path,
    *,
    minutes: float,
    recipe: DetailRecipe | None = None,
    resume: bool = True,
    checkpoint_minutes: float = 5.0,
    generator: str | Path | None = None,
) -> Path:
    """Train a detail network on real pictures of `data` (as `train` takes it) and return the path of its file.

    `out` gets `checkpoint.npz` (with it and `resume` the same call goes on where it stopped), `history.csv`,
    `samples/*.png` (small picture, enlarged, real), `logs/` for TensorBoard and `detail.h5`.

    Args:
        generator: a generator.h5 of pictures of the recipe's size, with or without a detail network. With it
            `generator.h5` in `out`, which is returned, is the two together.

    Raises:
        FileNotFoundError: no pictures in `data`.
        ValueError: the minutes are no positive number, a picture file is bad, or the generator is of another size.
        TrainingError: `out` holds a run with another recipe, the loss became NaN, or the disk is full.
    """
    recipe, out = recipe or DetailRecipe(), Path(out)
    if not 0 < minutes < math.inf:
        raise ValueError(f"minutes is a positive number, not {minutes}")
    recipe.check()
    painter = load_generator(generator) if generator else None
    if painter is not None and painter.output_shape[1] != recipe.size:
        raise ValueError(f"{generator} paints {painter.output_shape[1]} px, and the detail is for {recipe.size}")
    out.mkdir(parents=True, exist_ok=True)
    checkpoint, settings = out / "checkpoint.npz", out / "recipe.json"
    resume = resume and checkpoint.exists()
    if resume and json.loads(settings.read_text()) != asdict(recipe):
        raise TrainingError(f"{out} holds a run with other settings: choose another folder")
    small, styles = training_pictures(data, recipe.size, out / "cache")
    large, _ = training_pictures(data, 2 * recipe.size, out / "cache")

    keras.utils.set_random_seed(recipe.seed)
    model = DetailGAN(recipe, painter)
    # XLA is slower than oneDNN's kernels for convolutions on a CPU, so TensorFlow goes without it.
    jit = "auto" if keras.backend.backend() == "jax" else False
    model.compile(optimizer=keras.optimizers.Adam(recipe.learning_rate, 0.9, 0.99), jit_compile=jit)
    model.optimizer.build(model.trainable_variables)
    start = 0
    if resume:
        painted = painter.get_weights() if painter is not None else []
        start = int(load_state(checkpoint, model)["step"])
        if painter is not None:  # the checkpoint holds a painter, too; the one that was given now counts
            painter.set_weights(painted)
    if not resume:
        clear_run(out)
        write_atomically(settings, json.dumps(asdict(recipe), indent=1).encode())
    shown = next(pairs(small, large, styles, DetailRecipe(crop=recipe.crop, batch_size=12, seed=1)))[0]

    def keep(logs: dict[str, float]) -> None:
        step = int(model.steps.value)
        try:
            save_detail(model.average, recipe, out / "detail.h5")
            write_atomically(out / "samples" / f"{step:07d}.png", png_bytes(_sheet(model, shown)))
            append_row(out / "history.csv", {"step": step, "pictures": step * recipe.batch_size, **logs})
            save_state(checkpoint, model, step=step)
        except OSError as error:
            raise TrainingError(f"cannot write to {out}: {error}; the last checkpoint is kept") from error
        model.reset_metrics()

    callbacks = [
        Progress(minutes, recipe.batch_size),
        TimeLimit(minutes),
        EveryMinutes(checkpoint_minutes, keep),
        EventLog(out / "logs", start),
    ]
    latent_dim = painter.input_shape[0][-1] if painter is not None else 0
    feed = pairs(small, large, styles, recipe, start, latent_dim)
    model.fit(feed, steps_per_epoch=2**31, verbose=0, shuffle=False, callbacks=callbacks)
    if painter is None:
        return out / "detail.h5"
    save_model(compose(painter, keras.models.load_model(out / "detail.h5", compile=False)), out / "generator.h5")
    return out / "generator.h5"


def save_detail(network: keras.Model, recipe: DetailRecipe, path: Path) -> None:
    """Save a detail network for whole pictures (it learns from pieces, and its weights fit every size)."""
    whole = build_detail(recipe.size, recipe.width, recipe.blocks)
    whole.set_weights(network.get_weights())
    save_model(whole, path)


def _sheet(model: DetailGAN, batch: dict[str, np.ndarray]) -> np.ndarray:
    """(H, W, 3) uint8: pieces enlarged by repetition, by the network, and as they are, in three columns twice."""
    made = to_uint8(ops.convert_to_numpy(model.average([from_uint8(batch["small"]), batch["style"]], training=False)))
    repeated = batch["small"].repeat(2, axis=1).repeat(2, axis=2)
    return contact_sheet([each for trio in zip(repeated, made, batch["large"], strict=True) for each in trio], 6)
