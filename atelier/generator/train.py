"""Trains the generator: data, recipe and minutes in; generator.h5, sample sheets, a log and a checkpoint out."""

from __future__ import annotations

import io
import json
import math
import zipfile
import zlib
from collections.abc import Callable, Sequence
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path

import keras
import numpy as np

from atelier.dataset.loader import batches, remembered_pictures, training_pictures
from atelier.generator.detail import load_generator
from atelier.generator.eye import build_eye, build_heads, build_lite_eye
from atelier.generator.gan import GAN
from atelier.generator.memory import begin_like_the_most_alike, left_out, memory_size, questions
from atelier.generator.networks import (
    build_dcgan_generator,
    build_discriminator,
    build_generator,
    build_patch_discriminator,
    copy_weights,
    grow,
)
from atelier.generator.recipe import Recipe
from atelier.images import contact_sheet, png_bytes, to_uint8, write_atomically
from atelier.progress import progress_bar
from atelier.seeds import STYLES, latent_from_seed
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


def train(
    data: Sequence[str | Path],
    out: str | Path,
    *,
    minutes: float,
    recipe: Recipe | None = None,
    resume: bool = True,
    checkpoint_minutes: float = 5.0,
    start: str | Path | None = None,
    judges: str | Path | None = None,
    measure: Callable[[keras.Model], dict[str, float]] | None = None,
    devices: int = 1,
    clock: Callable[[], float] | None = None,
) -> Path:
    """Train on the pictures of the `data` folders and return the path of the generator.h5 made.

    A folder holds picture files, or the shards that `python -m atelier prepare` made.

    `out` gets `checkpoint.npz` (with it and `resume`, the same call goes on exactly where it stopped),
    `recipe.json`, `history.csv`, `samples/*.png` (one latent a row, one style a column), `logs/` for TensorBoard,
    `generator.h5` and the `judges.npz` of that moment, all written every `checkpoint_minutes` and at the end.

    Args:
        start: a trained generator.h5 to begin with, of the recipe's size or smaller; not read when a run goes on.
        judges: the judges.npz of the run that trained it: without the judges that it grew up with, a generator first
            forgets much of what it knows.
        measure: figures of the averaged generator for the log, such as `evaluation.quick.KidMeter`. If `"kid"` is
            among them, generator.h5 is the one with the lowest so far; while there has been none, it is the latest.
        devices: processors or GPUs that share each batch; more than one needs the JAX backend.
        clock: by whose seconds the minutes are counted (`time.process_time`: a fair race on a busy machine).

    Raises:
        FileNotFoundError: no pictures in `data`.
        ValueError: a setting of the recipe, or a picture file, is bad.
        TrainingError: `out` holds a run with another recipe, the loss became NaN, or the disk is full.
    """
    recipe, out = recipe or Recipe(), Path(out)
    if not 0 < minutes < math.inf:
        raise ValueError(f"minutes is a positive number, not {minutes}")
    recipe.check()
    out.mkdir(parents=True, exist_ok=True)
    checkpoint = out / "checkpoint.npz"
    resume = resume and checkpoint.exists()
    if resume:
        _keep_recipe(out / "recipe.json", recipe, resume)

    images, styles = training_pictures(data, recipe.seen_size, out / "cache")

    keras.utils.set_random_seed(recipe.seed)
    with _setting(recipe, devices):
        gan = build_gan(recipe, *(() if resume else (start, judges)))
        kept = load_state(checkpoint, gan) if resume else {"step": 0, "best_kid": math.inf, "trained": bool(start)}
        gan.trained = bool(kept.get("trained", False))
        if not resume:  # only now: until here a mistake costs nobody an old run
            clear_run(out)
            _keep_recipe(out / "recipe.json", recipe, resume)
        feed, pairs = (images, styles, recipe.batch_size, recipe.latent_dim), None
        if recipe.pairs:
            places, pictures = remembered_pictures(styles, recipe.memory)
            if start and not resume:
                known = memory_size(load_generator(start))
                begin_like_the_most_alike(gan.generator, known, places, images[pictures])
                gan.average.set_weights(gan.generator.get_weights())
            there = ~left_out(gan.generator)[places]
            pairs = pictures[there], questions(gan.generator)[places[there]]
        if start and not resume and recipe.warm_up:
            _warm_up(gan, recipe, batches(*feed, recipe.seed + 1, pairs=pairs))
        log = EventLog(out / "logs", int(kept["step"]))
        keeper = _Keeper(gan, recipe, out, measure, log, kept.get("best_kid", math.inf))
        gan.fit(
            batches(*feed, recipe.seed, int(kept["step"]), pairs),
            steps_per_epoch=2**31,  # one endless epoch: the time limit ends it
            verbose=0,
            shuffle=False,
            callbacks=[
                Progress(minutes, recipe.batch_size),
                TimeLimit(minutes, clock),
                EveryMinutes(checkpoint_minutes, keeper.keep),
                log,  # closes last
            ],
        )
    return keeper.path


@contextmanager
def _setting(recipe: Recipe, devices: int):
    """Keras's global settings of a run, and as they were after it."""
    policy, distribution = keras.config.dtype_policy(), keras.distribution.distribution()
    chosen = None
    if devices != 1:
        if keras.backend.backend() != "jax":
            raise ValueError("several devices share a batch on the JAX backend only: set KERAS_BACKEND=jax")
        there = keras.distribution.list_devices()
        if not 1 < devices <= len(there) or recipe.batch_size % devices:
            raise ValueError(
                f"a batch of {recipe.batch_size} cannot be shared by {devices} devices; {len(there)} are there"
            )
        chosen = keras.distribution.DataParallel(devices=there[:devices])
    try:
        keras.config.set_dtype_policy("mixed_bfloat16" if recipe.mixed_precision else "float32")
        if chosen is not None:
            keras.distribution.set_distribution(chosen)
        yield
    finally:
        keras.config.set_dtype_policy(policy)
        keras.distribution.set_distribution(distribution)


def build_recipe_generator(recipe: Recipe, transposed: bool = False) -> keras.Model:
    """A fresh generator of the recipe's kind; `transposed` as of `build_generator` (a plain DCGAN has but one form)."""
    if recipe.generator == "dcgan":
        return build_dcgan_generator(recipe.resolution, recipe.latent_dim, recipe.width)
    names = ("fine_width", "finest_width", "half_width", "excitation", "subpixel", "grain", "residual", "mapping")
    extras = {name: getattr(recipe, name) for name in (*names, "memory")}
    return build_generator(recipe.resolution, recipe.latent_dim, recipe.width, **extras, transposed=transposed)


def build_gan(recipe: Recipe, start: str | Path | None = None, judges: str | Path | None = None) -> GAN:
    """The compiled training model of a recipe, with its optimizer's state in place; `start`, `judges` as in `train`.

    Raises:
        ValueError: `start` or `judges` cannot be read, or is of another kind or larger.
    """
    generator = build_recipe_generator(recipe)
    if start:
        grow(generator, load_generator(start))
    for layer in generator.layers:
        if recipe.learning and not layer.name.startswith(recipe.learning):
            layer.trainable = False
    if not generator.trainable_variables:
        raise ValueError(f"no layer of the generator has a name that begins with {' or '.join(recipe.learning)}")
    discriminator = patches = None
    eyes = []
    if "pixels" in recipe.judges:
        size = recipe.pixels_size or recipe.seen_size
        discriminator = build_discriminator(size, recipe.discriminator_width, recipe.spectral_norm)
    if "features" in recipe.judges:
        eye = build_eye(recipe.feature_size, recipe.features, seed=recipe.seed)
        eyes.append((eye, build_heads(eye)))
    if "lite" in recipe.judges:
        eye = build_lite_eye(recipe.feature_size, recipe.lite, seed=recipe.seed)
        eyes.append((eye, build_heads(eye, name="lite_heads")))
    if "patches" in recipe.judges:
        patches = build_patch_discriminator(recipe.seen_size, recipe.discriminator_width)
    gan = GAN(
        generator,
        build_recipe_generator(recipe),
        discriminator,
        eyes,
        patches,
        size=recipe.learning_size,
        loss=recipe.loss,
        augment=recipe.augment,
        augment_strength=recipe.augment_strength,
        crowd=recipe.crowd,
        pairs=recipe.pairs,
        feature_every=recipe.feature_every,
        fade=recipe.fade,
        gradient_penalty=recipe.gradient_penalty,
        ema_decay=recipe.ema_decay,
        seed=recipe.seed,
    )
    if judges:
        load_judges(gan, judges)
    _compile(gan, recipe)
    return gan


def _keep_recipe(path: Path, recipe: Recipe, resume: bool) -> None:
    settings = json.loads(json.dumps(asdict(recipe)))  # tuples become lists, as in the file
    # A run of an earlier version lacks what could not be chosen then.
    before = asdict(Recipe()) | json.loads(path.read_text()) if resume and path.exists() else {}
    if before and (before := json.loads(json.dumps(before))) != settings:
        changed = ", ".join(name for name in settings | before if before.get(name) != settings.get(name))
        raise TrainingError(f"{path.parent} holds a run with other settings ({changed}): choose another folder")
    write_atomically(path, json.dumps(settings, indent=1).encode())


def _compile(gan: GAN, recipe: Recipe) -> None:
    """A fresh optimizer, for what is trainable now."""
    # XLA is slower than oneDNN's kernels for these convolutions on a CPU, so TensorFlow goes without it.
    jit = "auto" if keras.backend.backend() == "jax" else False
    optimizer = TwoRateAdam(recipe.learning_rate, recipe.beta_1)
    rates = {id(weight): recipe.judge_rate for judge in gan.judges for weight in judge.trainable_variables}
    rates |= {id(weight): recipe.memory_rate for weight in gan.generator.weights if "memory/" in weight.path}
    optimizer.scales = [rates.get(id(weight), 1.0) for weight in gan.trainable_variables]
    gan.compile(optimizer=optimizer, jit_compile=jit)
    gan.optimizer.build(gan.trainable_variables)


class TwoRateAdam(keras.optimizers.Adam):
    """Adam with a rate of its own for some variables (two time-scales: Heusel et al., 2017, who brought FID as well).

    Attributes:
        scales: multiples of the learning rate, one for each of the variables that it is built for.
    """

    scales: Sequence[float] = ()

    def update_step(self, gradient, variable, learning_rate):
        super().update_step(gradient, variable, learning_rate * self.scales[self._get_variable_index(variable)])


def _warm_up(gan: GAN, recipe: Recipe, feed) -> None:
    """Let the judges learn what the generator they find paints, before it learns from them."""
    learning = [layer for layer in gan.generator.layers if layer.trainable]
    for layer in learning:
        layer.trainable = False
    _compile(gan, recipe)
    bar = keras.callbacks.LambdaCallback(on_train_batch_end=lambda batch, logs: progress.update())
    with progress_bar(total=recipe.warm_up, desc="judges warm up", unit="step") as progress:
        gan.fit(feed, steps_per_epoch=recipe.warm_up, verbose=0, shuffle=False, callbacks=[bar])
    for layer in learning:
        layer.trainable = True
    _compile(gan, recipe)
    gan.steps.assign(0)


class _Keeper:
    """Writes what a run leaves behind."""

    def __init__(self, gan: GAN, recipe: Recipe, out: Path, measure, log: EventLog, best_kid: float):
        self.gan, self.recipe, self.out = gan, recipe, out
        self.measure, self.log, self.best_kid = measure, log, best_kid
        self.path = out / "generator.h5"
        self.latents = np.stack([latent_from_seed(seed, recipe.latent_dim) for seed in range(8)])

    def keep(self, logs: dict[str, float]) -> None:
        step = int(self.gan.steps.value)
        try:
            figures = self.measure(self.gan.whole) if self.measure else {}
            kid = figures.get("kid", math.inf)
            if kid < self.best_kid or math.isinf(self.best_kid) or not self.path.exists():
                self.best_kid = kid
                save_generator(self.gan.whole, self.recipe, self.path)
                save_judges(self.gan, self.out / "judges.npz")
            write_atomically(self.out / "samples" / f"{step:07d}.png", png_bytes(self.sheet()))
            row = {"step": step, "pictures": step * self.recipe.batch_size, **logs, **figures}
            append_row(self.out / "history.csv", row)
            self.log.write(figures, step)
            about = {"step": step, "best_kid": self.best_kid, "trained": self.gan.trained}
            save_state(self.out / "checkpoint.npz", self.gan, **about)
        except OSError as error:
            raise TrainingError(f"cannot write to {self.out}: {error}; the last checkpoint is kept") from error
        self.gan.reset_metrics()  # the next row of the log is the mean since this one

    def sheet(self) -> np.ndarray:
        """(H, W, 3) uint8: one latent a row, one style a column, by the averaged generator."""
        count = len(self.latents)
        columns = [
            self.gan.whole([self.latents, np.full(count, style, np.int32)], training=False)
            for style in range(len(STYLES))
        ]
        pictures = np.stack([keras.ops.convert_to_numpy(column) for column in columns], axis=1)
        return contact_sheet(list(to_uint8(pictures.reshape(-1, *pictures.shape[2:]))), columns=len(STYLES))


def _judges(gan: GAN) -> dict[str, keras.Variable]:
    return {f"{judge.name}/{index:03d}": weight for judge in gan.judges for index, weight in enumerate(judge.weights)}


def save_judges(gan: GAN, path: Path) -> None:
    """Write what the judges have learned (not the frozen features), with which training can begin anew."""
    buffer = io.BytesIO()
    np.savez(buffer, **{name: keras.ops.convert_to_numpy(weight) for name, weight in _judges(gan).items()})
    write_atomically(path, buffer.getvalue())


def load_judges(gan: GAN, path: str | Path) -> None:
    """Read a file of `save_judges`; a judge that it does not hold stays as it is.

    Raises:
        ValueError: no such file, a damaged one, or one of other judges.
    """
    try:
        with np.load(path) as arrays:
            values = {name: arrays[name] for name in arrays}
    except (OSError, ValueError, TypeError, EOFError, zipfile.BadZipFile, zlib.error) as error:
        raise ValueError(f"no judges to start with at {path}: {error}") from error
    wanted = _judges(gan)
    if any(name not in wanted or value.shape != tuple(wanted[name].shape) for name, value in values.items()):
        raise ValueError(f"{path} holds the judges of another recipe")
    for name, value in values.items():
        wanted[name].assign(value)


def save_generator(network: keras.Model, recipe: Recipe, path: Path) -> None:
    """Save a generator's weights as a float32, uncompiled .h5 model that loads without this package, and paints fast.

    Its doublings are transposed convolutions (see `build_generator`); `grow` trains it on.
    """
    policy = keras.config.dtype_policy()
    keras.config.set_dtype_policy("float32")
    try:
        plain = build_recipe_generator(recipe, transposed=True)
    finally:
        keras.config.set_dtype_policy(policy)
    if recipe.generator == "dcgan":
        plain.set_weights(network.get_weights())
    else:
        copy_weights(network, plain)
    save_model(plain, path)
