"""Trains the generator: data, recipe and minutes in; generator.h5, sample sheets, a log and a checkpoint out."""

from __future__ import annotations

import json
import logging
import math
import os
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import keras
import numpy as np

from atelier.dataset.loader import batches, load_images
from atelier.dataset.source import find_pictures
from atelier.generator.gan import GAN
from atelier.generator.networks import build_generator, check_resolution
from atelier.images import contact_sheet, png_bytes, to_uint8, write_atomically
from atelier.seeds import STYLES, latent_from_seed
from atelier.training import EveryMinutes, Progress, TimeLimit, TrainingError, append_row, load_state, save_state


@dataclass(frozen=True)
class Recipe:
    """All that decides how a training goes, with the settings of the committed generator.h5."""

    resolution: int = 64
    latent_dim: int = 128
    width: int = 32  # of the generator at 32 pixels
    discriminator_width: int = 32
    batch_size: int = 16  # many small steps beat few large ones on a CPU
    learning_rate: float = 2e-4  # this and beta_1 are DCGAN's
    beta_1: float = 0.5
    augment: tuple[str, ...] = ("translation", "cutout")  # "color" too, for runs of millions of pictures
    ema_decay: float = 0.999  # half of the average is from the last 700 steps
    mixed_precision: bool = False  # bfloat16 arithmetic: faster where the processor has it (AVX512-BF16)
    seed: int = 0


def train(
    data: Sequence[str | Path],
    out: str | Path,
    *,
    minutes: float,
    recipe: Recipe | None = None,
    resume: bool = True,
    checkpoint_minutes: float = 5.0,
) -> Path:
    """Train on the pictures below the `data` folders and return the path of the generator.h5 made.

    `out` gets `checkpoint.npz` (with it and `resume`, the same call goes on exactly where it stopped),
    `recipe.json`, `history.csv`, `samples/*.png` (one latent a row, one style a column) and `generator.h5`, all
    written every `checkpoint_minutes` and at the end.

    Raises:
        FileNotFoundError: no pictures in `data`.
        ValueError: a setting of the recipe, or a picture file, is bad.
        TrainingError: `out` holds a run with another recipe, the loss became NaN, or the disk is full.
    """
    recipe, out = recipe or Recipe(), Path(out)
    if not 0 < minutes < math.inf:
        raise ValueError(f"minutes is a positive number, not {minutes}")
    check_resolution(recipe.resolution)
    out.mkdir(parents=True, exist_ok=True)
    checkpoint = out / "checkpoint.npz"
    resume = resume and checkpoint.exists()
    _keep_recipe(out / "recipe.json", recipe, resume)

    pictures = [p for p in find_pictures(*data) if p.split == "training" and p.medium]
    if not pictures:
        raise FileNotFoundError(f"no pictures to train on below {', '.join(map(str, data))}, only others")
    images = load_images(pictures, recipe.resolution, cache=out / "cache")
    styles = np.array([STYLES.index(picture.medium) for picture in pictures])

    keras.utils.set_random_seed(recipe.seed)
    policy = keras.config.dtype_policy()
    keras.config.set_dtype_policy("mixed_bfloat16" if recipe.mixed_precision else "float32")
    try:
        gan = build_gan(recipe)
        start = int(load_state(checkpoint, gan)["step"]) if resume else 0
        feed = batches(images, styles, recipe.batch_size, recipe.latent_dim, recipe.seed, start)
        keeper = _Keeper(gan, recipe, out)
        if not resume:
            (out / "history.csv").unlink(missing_ok=True)
        gan.fit(
            feed,
            steps_per_epoch=2**31,  # one endless epoch: the time limit ends it
            verbose=0,
            shuffle=False,
            callbacks=[
                Progress(minutes, recipe.batch_size),
                TimeLimit(minutes),
                EveryMinutes(checkpoint_minutes, keeper.keep),
            ],
        )
    finally:
        keras.config.set_dtype_policy(policy)
    return keeper.path


def build_gan(recipe: Recipe) -> GAN:
    """The compiled training model of a recipe, with its optimizer's state in place."""
    gan = GAN(
        recipe.resolution,
        recipe.latent_dim,
        recipe.width,
        recipe.discriminator_width,
        recipe.augment,
        recipe.ema_decay,
        recipe.seed,
    )
    # XLA is slower than oneDNN's kernels for these convolutions on a CPU, so TensorFlow goes without it.
    jit = "auto" if keras.backend.backend() == "jax" else False
    gan.compile(optimizer=keras.optimizers.Adam(recipe.learning_rate, recipe.beta_1), jit_compile=jit)
    gan.optimizer.build(gan.trainable_variables)
    return gan


def _keep_recipe(path: Path, recipe: Recipe, resume: bool) -> None:
    settings = json.loads(json.dumps(asdict(recipe)))  # tuples become lists, as in the file
    if resume and path.exists() and (before := json.loads(path.read_text())) != settings:
        changed = ", ".join(name for name in settings if before.get(name) != settings[name])
        raise TrainingError(f"{path.parent} holds a run with other settings ({changed}): choose another folder")
    write_atomically(path, json.dumps(settings, indent=1).encode())


class _Keeper:
    """Writes what a run leaves behind."""

    def __init__(self, gan: GAN, recipe: Recipe, out: Path):
        self.gan, self.recipe, self.out = gan, recipe, out
        self.path = out / "generator.h5"
        self.latents = np.stack([latent_from_seed(seed, recipe.latent_dim) for seed in range(8)])

    def keep(self, logs: dict[str, float]) -> None:
        step = int(self.gan.steps.value)
        save_state(self.out / "checkpoint.npz", self.gan, step=step)
        write_atomically(self.out / "samples" / f"{step:07d}.png", png_bytes(self.sheet()))
        append_row(self.out / "history.csv", {"step": step, "pictures": step * self.recipe.batch_size, **logs})
        save_generator(self.gan.average, self.recipe, self.path)
        self.gan.reset_metrics()  # the next row of the log is the mean since this one

    def sheet(self) -> np.ndarray:
        """(H, W, 3) uint8: one latent a row, one style a column, by the averaged generator."""
        count = len(self.latents)
        columns = [
            self.gan.average([self.latents, np.full(count, style, np.int32)], training=False)
            for style in range(len(STYLES))
        ]
        pictures = np.stack([keras.ops.convert_to_numpy(column) for column in columns], axis=1)
        return contact_sheet(list(to_uint8(pictures.reshape(-1, *pictures.shape[2:]))), columns=len(STYLES))


def save_generator(network: keras.Model, recipe: Recipe, path: Path) -> None:
    """Save a generator's weights as a float32, uncompiled .h5 model that loads without this package."""
    policy = keras.config.dtype_policy()
    keras.config.set_dtype_policy("float32")
    try:
        plain = build_generator(recipe.resolution, recipe.latent_dim, recipe.width)
    finally:
        keras.config.set_dtype_policy(policy)
    plain.set_weights(network.get_weights())
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_name(f".{os.getpid()}.{path.name}")
    log = logging.getLogger("absl")
    level = log.level
    log.setLevel(logging.ERROR)  # Keras warns that .h5 is an old format: it is, and it is what everything can load
    try:
        plain.save(part)
        part.replace(path)
    except OSError as error:
        part.unlink(missing_ok=True)
        raise TrainingError(f"cannot write {path}: {error}") from error
    finally:
        log.setLevel(level)
