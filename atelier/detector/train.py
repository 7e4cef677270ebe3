"""Trains the detector: k-fold for honest figures, then once more on all pictures for detector.h5.

OUT/views/       feature maps and styles of all views, which the frozen half of the network computes once
OUT/fold-K.npz   what fold K's network says of the pictures it has not seen; a run that goes on skips it
OUT/log.csv      losses and figures, epoch by epoch
OUT/held_out.csv what was said of each picture by the network that had not seen it
OUT/figures.json, curves.png, detector.h5
"""

from __future__ import annotations

import csv
import hashlib
import io
import json
import shutil
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path

import h5py
import keras
import numpy as np
from matplotlib.figure import Figure  # not pyplot: no window system, no state
from PIL import Image

from atelier.dataset.duplicates import groups_of
from atelier.detector.data import find_labelled, grouped_folds, labels_of, near_duplicates, open_labelled
from atelier.detector.leaks import leak_baseline
from atelier.detector.metrics import figures_of, log_loss, sigmoid, temperature_of
from atelier.detector.networks import Network, build_network, with_style, with_temperature
from atelier.detector.recipe import Recipe
from atelier.detector.style import StyleMachine
from atelier.detector.views import CONDITIONS, crops, random_view
from atelier.images import write_atomically
from atelier.progress import progress_bar
from atelier.training import TrainingError, append_row

BATCH = 32


@dataclass(frozen=True)
class Examples:
    """What training learns from: labels, what belongs together, and the feature maps of all views."""

    labels: np.ndarray
    """(N,) float32: 1 where a machine made the picture."""
    groups: np.ndarray
    """(N,) int64: near-duplicates share a number."""
    augmented: list[np.ndarray]
    """For each round of views, (N, *maps) float16."""
    judged: dict[str, np.ndarray]
    """For each of `CONDITIONS`, (N, crops, *maps) float16."""
    styles: dict[str, np.ndarray]
    """For each of `CONDITIONS`, (N, crops, D) float32; empty without `Recipe.style`."""
    studied: np.ndarray | None = None
    """(N, style_crops, D) float32: the styles that the style machine learns from, if there is one."""

    def style_machine(self, chosen: np.ndarray) -> StyleMachine:
        """What has learnt from the chosen pictures, as they are and, with less weight, changed."""
        changed = [self.styles[name][chosen] for name in CONDITIONS if name != "plain"]
        return StyleMachine.fit(self.studied[chosen], self.labels[chosen], np.concatenate(changed, axis=1))


class Clock:
    """The time that a run may take."""

    def __init__(self, minutes: float):
        self._until = time.monotonic() + minutes * 60

    def check(self, done: str) -> None:
        """`TrainingError` if it is over."""
        if time.monotonic() >= self._until:
            raise TrainingError(f"the time is over after {done}; the same command goes on from there")


def train(
    data: str | Path,
    out: str | Path,
    *,
    recipe: Recipe | None = None,
    weights: str = "imagenet",
    minutes: float = 240,
    resume: bool = True,
) -> dict:
    """Train and judge a detector.

    Args:
        data: a folder with pictures of both classes, as `find_labelled` reads it.
        out: for the results.
        recipe: all settings.
        weights: MobileNetV2's without the top: a file, or "imagenet" to download them.
        minutes: after which it stops at the next chance; the same call goes on.
        resume: go on with `out`'s run; otherwise its earlier results are deleted.

    Returns:
        the figures, as in figures.json; those of a run that is complete at once.

    Raises:
        TrainingError: the time is over, or `out` holds a run of another recipe or other pictures.
        ValueError, FileNotFoundError: a setting, the data or the weights do not serve.
    """
    recipe, out, clock = recipe or Recipe(), Path(out), Clock(minutes)
    recipe.check()
    pictures = find_labelled(data)
    files = [picture.path.relative_to(data).as_posix() for picture in pictures]
    _claim(out, {"recipe": asdict(recipe), "files": hashlib.sha256("\n".join(files).encode()).hexdigest()}, resume)
    if (out / "figures.json").is_file():
        return json.loads((out / "figures.json").read_text())
    examples = examples_of(open_labelled(pictures), labels_of(pictures), out / "views", recipe, weights, clock)
    folds = grouped_folds(examples.labels, examples.groups, recipe.folds, recipe.seed)
    network = build_network(recipe, weights)
    learner = Learner(network, recipe)
    for fold in range(recipe.folds):
        if not (out / f"fold-{fold}.npz").is_file():
            clock.check(f"{fold} of {recipe.folds} folds")
            train_fold(examples, folds, fold, learner, out)
    results = [dict(np.load(out / f"fold-{fold}.npz")) for fold in range(recipe.folds)]
    clock.check("all folds, before the last training on all pictures")

    temperature = temperature_of(*_pooled(examples.labels, results))
    epochs = int(np.median([result["epochs"] for result in results]))

    everything, nothing = np.arange(len(examples.labels)), np.empty(0, np.int64)
    learner.fit(examples, everything, nothing, epochs, _logger(out / "log.csv", "all"))
    model = network.whole
    if recipe.style:
        model = with_style(network, examples.style_machine(everything))
    with_temperature(model, temperature)
    save(model, out / "detector.h5")
    figures = {
        "pictures": {"ai": int(examples.labels.sum()), "human": int((1 - examples.labels).sum())},
        "near_duplicates": len(pictures) - len(np.unique(examples.groups)),
        "epochs": epochs,
        "temperature": round(temperature, 3),
        "recipe": asdict(recipe),
        "file_traits_alone": leak_baseline(pictures, examples.labels, folds),
        "alone": {name: cross_validated(examples.labels, part) for name, part in _parts(results).items()},
    } | cross_validated(examples.labels, results)
    write_atomically(out / "held_out.csv", _held_out_table(files, examples.labels, folds, results))
    write_atomically(out / "curves.png", _curves(out / "log.csv"))
    write_atomically(out / "figures.json", json.dumps(figures, indent=1).encode())
    shutil.rmtree(out / "views")
    return figures


def _claim(out: Path, identity: dict, resume: bool) -> None:
    """Make `out` this run's folder."""
    path = out / "run.json"
    if not resume:
        for old in (path, *out.glob("fold-*.npz"), out / "log.csv", out / "figures.json"):
            old.unlink(missing_ok=True)
        shutil.rmtree(out / "views", ignore_errors=True)
    text = json.dumps(identity, indent=1)
    if path.is_file() and path.read_text() != text:
        raise TrainingError(f"{out} holds a run of another recipe or other pictures: another --out, or --no-resume")
    write_atomically(path, text.encode())


def examples_of(
    images: list[Image.Image], labels: np.ndarray, folder: Path, recipe: Recipe, weights: str, clock: Clock
) -> Examples:
    network = build_network(recipe, weights)
    augmented, judged, styles, studied = [], {}, {}, None
    for number in range(recipe.views):
        clock.check(f"{number} of {recipe.views} rounds of views")
        randoms = [np.random.default_rng([1000 * recipe.seed + number, index]) for index in range(len(images))]
        views = (random_view(*each, recipe.augmentation)[None] for each in zip(images, randoms, strict=True))
        path = folder / f"augmented-{number:02d}.npy"
        augmented.append(_features(network.frozen, views, len(images), path)[:, 0])
    for name, change in CONDITIONS.items():
        views = (crops(change(image), recipe.crops) for image in images)
        judged[name] = _features(network.frozen, views, len(images), folder / f"{name}.npy")
        if recipe.style:
            views = (crops(change(image), recipe.crops) for image in images)
            path = folder / f"style-{name}.npy"
            styles[name] = _features(network.style, views, len(images), path, np.float32)
    if recipe.style:
        views = (crops(image, recipe.style_crops) for image in images)
        studied = _features(network.style, views, len(images), folder / "style-studied.npy", np.float32)
    return Examples(labels, groups_of(len(images), near_duplicates(images)), augmented, judged, styles, studied)


def _features(
    model: keras.Model, views: Iterator[np.ndarray], count: int, path: Path, dtype: type = np.float16
) -> np.ndarray:
    """What a model makes of each picture's views, (count, V, *features), as a file mapped into memory."""
    if not path.is_file():
        path.parent.mkdir(parents=True, exist_ok=True)
        found, part = [], path.with_suffix(".part")
        batch: list[np.ndarray] = []
        for number, some in enumerate(progress_bar(views, total=count, desc=path.stem, unit="picture"), start=1):
            batch.append(some)
            if len(batch) * len(some) >= BATCH or number == count:
                features = model.predict_on_batch(np.concatenate(batch).astype(np.float32)).astype(dtype)
                found.append(features.reshape(len(batch), -1, *features.shape[1:]))
                batch = []
        with part.open("wb") as file:
            np.save(file, np.concatenate(found))
        part.replace(path)
    return np.load(path, mmap_mode="r")


class Learner:
    """The learning half of a network, compiled once, that can be put back to its beginning for the next fold."""

    def __init__(self, network: Network, recipe: Recipe):
        self.model, self.recipe = network.learning, recipe
        loss = keras.losses.BinaryCrossentropy(from_logits=True, label_smoothing=recipe.smoothing)
        optimizer = keras.optimizers.AdamW(recipe.learning_rate, weight_decay=recipe.weight_decay, clipnorm=1.0)
        self.model.compile(optimizer, loss, jit_compile=False)
        optimizer.build(self.model.trainable_variables)
        self._variables = self.model.variables + optimizer.variables  # the random state of dropout is one of them
        self._beginning = [np.array(variable) for variable in self._variables]

    def fit(
        self, examples: Examples, chosen: np.ndarray, validation: np.ndarray, epochs: int, log: Callable[[dict], None]
    ) -> int:
        """Train on some pictures from the beginning on, one augmented view of each an epoch.

        The rate warms up for a tenth of the recipe's epochs and falls along a cosine. With `validation` pictures the
        weights of the least loss on them are kept, and `patience` epochs without a lesser one end the training.

        Returns:
            the number of epochs that the kept weights have learnt.
        """
        for variable, value in zip(self._variables, self._beginning, strict=True):
            variable.assign(value)
        rng, size = np.random.default_rng(self.recipe.seed), self.recipe.batch_size
        steps = -(-len(chosen) // size)
        best, kept, kept_epoch = np.inf, None, epochs
        for epoch in range(epochs):
            losses = []
            order = np.resize(rng.permutation(chosen), steps * size)  # the last batch is full, too: one graph for all
            for step, batch in enumerate(order.reshape(steps, size)):
                self.model.optimizer.learning_rate = self._rate((epoch + step / steps) / self.recipe.epochs)
                maps = np.asarray(examples.augmented[epoch % len(examples.augmented)][batch], np.float32)
                mixed = _mixed(maps, examples.labels[batch, None], self.recipe.mixup, rng)
                losses.append(float(self.model.train_on_batch(*mixed)))
            if not np.isfinite(losses).all():
                raise TrainingError("the loss is no longer a number: a smaller learning_rate may help")
            row = {"epoch": epoch + 1, "loss": float(np.mean(losses))}
            if len(validation):
                logits = judge(self.model, examples.judged["plain"], validation)
                row["validation_loss"] = log_loss(examples.labels[validation], logits)
                if row["validation_loss"] < best:
                    best, kept, kept_epoch = row["validation_loss"], self.model.get_weights(), epoch + 1
            log(row)
            if kept is not None and epoch + 1 - kept_epoch >= self.recipe.patience:
                break
        if kept is not None:
            self.model.set_weights(kept)
        return kept_epoch

    def _rate(self, progress: float) -> float:
        """The learning rate at a share (0 to 1) of the recipe's epochs."""
        share = progress / 0.1 if progress < 0.1 else 0.51 + 0.49 * np.cos(np.pi * (progress - 0.1) / 0.9)
        return self.recipe.learning_rate * max(share, 0.02)


def _mixed(
    maps: np.ndarray, labels: np.ndarray, alpha: float, rng: np.random.Generator
) -> tuple[np.ndarray, np.ndarray]:
    """Mixup (Zhang et al., 2018) of feature maps (Verma et al., "Manifold mixup", 2019), if `alpha` is above 0."""
    if not alpha:
        return maps, labels
    share = rng.beta(alpha, alpha, (len(maps), 1)).astype(np.float32)
    other, wide = rng.permutation(len(maps)), share[:, :, None, None]
    return wide * maps + (1 - wide) * maps[other], share * labels + (1 - share) * labels[other]


def judge(model: keras.Model, maps: np.ndarray, chosen: np.ndarray) -> np.ndarray:
    """The mean logit of the chosen pictures' crops, out of their (N, crops, *maps): (n,) float64."""
    found = []
    for start in range(0, len(chosen), BATCH):
        batch = np.resize(chosen[start : start + BATCH], BATCH)  # full, as in training
        some = np.asarray(maps[batch], np.float32)
        found.append(model.predict_on_batch(some.reshape(-1, *some.shape[2:])).reshape(BATCH, -1).mean(axis=1))
    return np.concatenate(found)[: len(chosen)].astype(np.float64)


def train_fold(examples: Examples, folds: np.ndarray, fold: int, learner: Learner, out: Path) -> None:
    recipe = learner.recipe
    held_out, learnt = np.flatnonzero(folds == fold), np.flatnonzero(folds != fold)
    validation = np.empty(0, np.int64)
    if recipe.validation:
        count, seed = round(1 / recipe.validation), recipe.seed + 1
        parts = grouped_folds(examples.labels[learnt], examples.groups[learnt], count, seed)
        learnt, validation = learnt[parts != 0], learnt[parts == 0]

    epochs = learner.fit(examples, learnt, validation, recipe.epochs, _logger(out / "log.csv", fold))
    logits = {name: judge(learner.model, maps, held_out) for name, maps in examples.judged.items()}
    if recipe.style:
        machine = examples.style_machine(learnt)
        alone = {f"{name}_style": machine.judge(styles[held_out]) for name, styles in examples.styles.items()}
        logits |= {name: logits[name] + alone[f"{name}_style"] for name in CONDITIONS} | alone
    part = out / f"fold-{fold}.part.npz"
    np.savez(part, pictures=held_out, epochs=epochs, **logits)
    part.replace(out / f"fold-{fold}.npz")


def _logger(path: Path, fold: int | str) -> Callable[[dict], None]:
    """What adds a fold's rows to the log, in which it has none: those of a run that was stopped are gone."""
    if path.is_file():
        lines = path.read_text().splitlines(keepends=True)
        write_atomically(path, "".join(line for line in lines if not line.startswith(f"{fold},")).encode())
    return lambda row: append_row(path, {"fold": fold} | row)


def _parts(results: list[dict]) -> dict[str, list[dict]]:
    """What the network and the style would say alone, in the form of `results`; nothing where there is one part."""
    if "plain_style" not in results[0]:
        return {}
    return {
        "network": [each | {name: each[name] - each[f"{name}_style"] for name in CONDITIONS} for each in results],
        "style": [each | {name: each[f"{name}_style"] for name in CONDITIONS} for each in results],
    }


def _pooled(labels: np.ndarray, results: list[dict], condition: str = "plain") -> tuple[np.ndarray, np.ndarray]:
    """All folds' held-out labels and logits."""
    return tuple(
        np.concatenate(each)
        for each in zip(*((labels[result["pictures"]], result[condition]) for result in results), strict=True)
    )


def held_out_probabilities(labels: np.ndarray, results: list[dict], condition: str = "plain") -> np.ndarray:
    """What the folds' networks say of the pictures that they have not seen: (N,) float64, calibrated.

    Each fold's temperature is fitted on the other folds' held-out logits, so that calibration is honest, too.
    """
    told = np.empty(len(labels))
    for number, result in enumerate(results):
        others = [each for place, each in enumerate(results) if place != number]
        told[result["pictures"]] = sigmoid(result[condition] / temperature_of(*_pooled(labels, others)))
    return told


def cross_validated(labels: np.ndarray, results: list[dict]) -> dict:
    """Figures of `held_out_probabilities`: of all pictures together, and mean and standard deviation over folds."""
    figures: dict = {}
    for condition in CONDITIONS:
        told = held_out_probabilities(labels, results, condition)
        each = [figures_of(labels[result["pictures"]], told[result["pictures"]]) for result in results]
        figures[condition] = {"together": figures_of(labels, told)} | {
            name: {"mean": round(float(np.mean(values)), 4), "std": round(float(np.std(values, ddof=1)), 4)}
            for name in each[0]
            if (values := [fold[name] for fold in each])
        }
    return figures


def _held_out_table(files: list[str], labels: np.ndarray, folds: np.ndarray, results: list[dict]) -> bytes:
    """A CSV file: what was said of each picture by the network that had not seen it."""
    told = [held_out_probabilities(labels, results, condition) for condition in CONDITIONS]
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(["picture", "ai", "fold", *CONDITIONS])
    for index, file in enumerate(files):
        writer.writerow([file, int(labels[index]), folds[index], *(round(each[index], 5) for each in told)])
    return text.getvalue().encode()


def _curves(log: Path) -> bytes:
    """A PNG of each fold's losses."""
    with log.open(newline="") as file:
        rows = list(csv.DictReader(file))
    names = [name for name in ("loss", "validation_loss") if name in rows[0]]
    figure = Figure(figsize=(4 * len(names), 3.6), layout="constrained")
    for axes, name in zip(figure.subplots(1, len(names), squeeze=False)[0], names, strict=True):
        for fold in dict.fromkeys(row["fold"] for row in rows):
            points = [(int(row["epoch"]), float(row[name])) for row in rows if row["fold"] == fold and row[name]]
            if points:
                axes.plot(*zip(*points, strict=True), label=f"fold {fold}" if fold.isdigit() else fold)
        axes.set(xlabel="epoch", title=name.replace("_", " "))
        axes.legend(fontsize=7)
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=100)
    return buffer.getvalue()


def save(model: keras.Model, path: Path) -> None:
    """Write a model as one HDF5 file, whole or not at all. Kernels are stored as float16, and float32 when loaded.

    They are compressed, too, which HDF5 undoes by itself.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    part, small = path.with_name(f"part-{path.name}"), path.with_name(f"small-{path.name}")
    model.save(part)
    with h5py.File(part) as whole, h5py.File(small, "w") as half:

        def copy(name: str, item: h5py.Group | h5py.Dataset) -> None:
            if isinstance(item, h5py.Group):
                half.require_group(name)
            else:
                values = np.asarray(item, np.float16 if item.ndim > 1 else np.float32)
                packed = {"compression": "gzip", "shuffle": True} if item.ndim else {}
                half.create_dataset(name, data=values, **packed)
            half[name].attrs.update(item.attrs)

        half.attrs.update(whole.attrs)
        whole.visititems(copy)
    part.unlink()
    small.replace(path)
