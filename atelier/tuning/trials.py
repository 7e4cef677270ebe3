"""One trial of each kind: the project's own training, stopped after its minutes and judged on the way.

Each class here is a `study.Run`: called with settings, a folder, and what to report to.
"""

from __future__ import annotations

import fcntl
import hashlib
import math
import shutil
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, replace
from functools import cache
from pathlib import Path

import keras
import numpy as np
import optuna

from atelier.captioner.train import Recipe as CaptionerRecipe
from atelier.captioner.train import Run as CaptionerRun
from atelier.captioner.train import goodness
from atelier.detector.data import find_labelled, grouped_folds, labels_of, open_labelled
from atelier.detector.metrics import log_loss, temperature_of
from atelier.detector.networks import build_network
from atelier.detector.recipe import Recipe as DetectorRecipe
from atelier.detector.train import Clock, Examples, Learner, examples_of, train_fold
from atelier.evaluation.metrics import kid, mean_pairwise_distance, precision_recall
from atelier.evaluation.quick import KidMeter
from atelier.generator import train as generator_training
from atelier.generator.painter import Painter
from atelier.generator.recipe import Recipe as GeneratorRecipe
from atelier.seeds import latent_from_seed
from atelier.training import TrainingError
from atelier.tuning.study import Report

_ONLY_LEARNING = {"folds", "epochs", "patience", "validation", "batch_size"}
_ONLY_LEARNING |= {"learning_rate", "weight_decay", "dropout", "smoothing", "mixup"}
"""Settings of a detector's recipe on which the features of its pictures do not depend."""


class GeneratorTrials:
    """Trains generators: KID, precision and recall of each, against held-out pictures, from the same seeds.

    Args:
        data: folders of picture files.
        minutes: of training; what it takes to judge does not count.
        checks: how often a trial is judged, the end included.
        shared: a folder for what all trials need: the decoded pictures, and the real ones' features.
        pictures: that are painted to judge a generator.
        features: the feature network, as `FeatureNetwork.load` takes it.
        start, judges: a trained generator and its judges to begin with, as for `generator.train.train`.
        clock: that counts the minutes; `time.process_time` is fair on a machine with other work.
    """

    def __init__(
        self,
        data: Sequence[Path],
        *,
        minutes: float,
        checks: int,
        shared: Path,
        pictures: int = 500,
        features: Path | None = None,
        start: Path | None = None,
        judges: Path | None = None,
        clock: Callable[[], float] = time.monotonic,
    ):
        self.data, self.minutes, self.checks, self.shared = data, minutes, checks, shared
        self.start, self.judges, self.clock = start, judges, clock
        self.meter = cache(lambda resolution: RecallMeter.of(data, resolution, shared, pictures, features))

    def __call__(self, settings: list[str], out: Path, report: Report) -> None:
        recipe = GeneratorRecipe.of(settings)
        recipe.check()
        with locked(self.shared):
            meter = self.meter(recipe.resolution)
        watch, number = Stopwatch(self.clock), 0

        def measure(generator: keras.Model) -> dict[str, float]:
            nonlocal number
            due = math.floor(self.checks * watch() / (60 * self.minutes) + 1e-6)
            if due <= number:
                return {}
            number = min(due, self.checks)
            with watch.stopped():
                figures = meter(generator)
            report(figures, number / self.checks)
            return figures

        # `train` calls `measure` by the wall's clock. Where another one counts, it asks oftener, and `due` decides.
        period = self.minutes / self.checks / (1 if self.clock is time.monotonic else 4)
        with _trial_folder(out, keep=("generator.h5", "history.csv", "recipe.json", "samples")):
            (out / "cache").symlink_to(self.shared.resolve(), target_is_directory=True)
            generator_training.train(
                self.data,
                out,
                minutes=self.minutes,
                recipe=recipe,
                resume=False,
                checkpoint_minutes=period,
                start=self.start,
                judges=self.judges,
                measure=measure,
                clock=watch,
            )


class RecallMeter(KidMeter):
    """KID, and whether the same pictures are varied, which KID hardly asks.

    Recall (Kynkäänniemi et al., 2019) is 0 for a generator that collapsed, and for one that has just begun, too.
    `diversity`, the mean distance of two generated pictures' features over that of two real ones', tells these apart.
    """

    def __call__(self, generator: keras.Model) -> dict[str, float]:
        """`{"kid", "kid_std", "precision", "recall", "diversity"}`."""
        painter = Painter(generator)
        latents = np.stack([latent_from_seed(seed, painter.latent_dim) for seed in range(len(self.media))])
        features = self.network.features(painter.paint(latents, self.media))
        count = min(len(features), len(self.held_out))  # precision and recall want equal counts
        real = self.held_out[np.random.default_rng(0).permutation(len(self.held_out))[:count]]
        names = ("kid", "kid_std", "precision", "recall", "diversity")
        diversity = mean_pairwise_distance(features) / mean_pairwise_distance(real)
        figures = (*kid(self.held_out, features), *precision_recall(real, features[:count]), diversity)
        return dict(zip(names, figures, strict=True))


class CaptionerTrials:
    """Trains captioners: the figures of `captioner.evaluate.Judge`, and `goodness`, by which training keeps its best.

    Args:
        data, minutes, checks, shared: as for `GeneratorTrials`; `shared` keeps the stem's features of all views.
        stem_weights, start: as for `captioner.train.train`.
    """

    def __init__(
        self,
        data: Sequence[Path],
        *,
        minutes: float,
        checks: int,
        shared: Path,
        stem_weights: str | Path = "imagenet",
        start: Path | None = None,
    ):
        self.data, self.minutes, self.checks, self.shared = data, minutes, checks, shared
        self.stem_weights, self.start = stem_weights, start

    def __call__(self, settings: list[str], out: Path, report: Report) -> None:
        recipe = CaptionerRecipe.of(settings)
        recipe = replace(recipe, judge_minutes=self.minutes / self.checks, checkpoint_minutes=math.inf)
        with _trial_folder(out, keep=("log.jsonl",)):
            (out / "run").symlink_to(self.shared.resolve(), target_is_directory=True)
            with locked(self.shared):
                run = CaptionerRun(self.data, out, recipe, self.stem_weights, self.start, resume=False)
            judge, number = run.judge, 0

            def reporting_judge() -> dict[str, float]:
                nonlocal number
                figures, number = judge(), number + 1
                report(figures | {"goodness": goodness(figures)}, min(1.0, number / self.checks))
                return figures

            run.judge = reporting_judge
            run.go_on(60 * self.minutes)


class DetectorTrials:
    """Trains the folds of a detector: log loss (nats) and accuracy of the held-out pictures of all folds so far.

    A detector's training ends with its epochs, so the minutes are a bound: a trial that has not done all folds by
    then is pruned. Its checks are the ends of its folds.

    Args:
        data: a folder with pictures of both classes.
        minutes, shared: as for `GeneratorTrials`; `shared` keeps the feature maps of all views.
        weights: MobileNetV2's without the top, as for `detector.train.train`.
    """

    def __init__(self, data: Path, *, minutes: float, shared: Path, weights: str = "imagenet"):
        self.data, self.minutes, self.shared, self.weights = data, minutes, shared, weights
        self._known: dict[Path, Examples] = {}

    def __call__(self, settings: list[str], out: Path, report: Report) -> None:
        recipe = DetectorRecipe.of(settings)
        recipe.check()
        examples = self._shared_examples(recipe)
        folds = grouped_folds(examples.labels, examples.groups, recipe.folds, recipe.seed)
        until = time.monotonic() + 60 * self.minutes
        labels, logits = [], []
        with _trial_folder(out, keep=("log.csv",)):
            learner = Learner(build_network(recipe, self.weights), recipe)
            for fold in range(recipe.folds):
                if time.monotonic() >= until:
                    raise optuna.TrialPruned(f"{fold} of {recipe.folds} folds in its time")
                train_fold(examples, folds, fold, learner, out)
                with np.load(out / f"fold-{fold}.npz") as result:
                    labels.append(examples.labels[result["pictures"]])
                    logits.append(result["plain"])
                report(_held_out_figures(*map(np.concatenate, (labels, logits))), (fold + 1) / recipe.folds)

    def _shared_examples(self, recipe: DetectorRecipe) -> Examples:
        """The feature maps of all views, which trials share if they differ only in how the rest learns from them."""
        seen = {name: value for name, value in asdict(recipe).items() if name not in _ONLY_LEARNING}
        key = hashlib.sha256(repr((self.data, self.weights, seen)).encode()).hexdigest()[:12]
        views = self.shared / f"views-{key}"
        if views not in self._known:
            pictures = find_labelled(self.data)
            images, labels = open_labelled(pictures), labels_of(pictures)
            with locked(self.shared):
                self._known[views] = examples_of(images, labels, views, recipe, self.weights, Clock(math.inf))
        return self._known[views]


def _held_out_figures(labels: np.ndarray, logits: np.ndarray) -> dict[str, float]:
    """Log loss at the temperature that suits these pictures best, as detector.h5 gets one, and accuracy."""
    loss = log_loss(labels, logits / temperature_of(labels, logits))
    return {"log_loss": loss, "accuracy": float(np.mean((logits > 0) == (labels > 0.5)))}


class Stopwatch:
    """Seconds since the first look at it, without those in which it was stopped."""

    def __init__(self, clock: Callable[[], float]):
        self._clock, self._began, self._stopped = clock, None, 0.0

    def __call__(self) -> float:
        now = self._clock()
        if self._began is None:
            self._began = now
        return now - self._began - self._stopped

    @contextmanager
    def stopped(self) -> Iterator[None]:
        """For as long as the block takes."""
        began = self._clock()
        try:
            yield
        finally:
            self._stopped += self._clock() - began


@contextmanager
def locked(folder: Path) -> Iterator[None]:
    """Only one process at a time in here: the first prepares what all need, the others then find it."""
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / "lock").open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)  # ends with the file, also if the process is killed
        yield


@contextmanager
def _trial_folder(out: Path, keep: Sequence[str]) -> Iterator[None]:
    """A new folder of a trial, in which only what is worth keeping stays; a loss that is no number prunes the trial."""
    shutil.rmtree(out, ignore_errors=True)
    out.mkdir(parents=True)
    keras.utils.clear_session(free_memory=True)
    try:
        yield
    except TrainingError as error:
        if isinstance(error.__cause__, OSError):  # the disk is full: no trial would do better
            raise
        raise optuna.TrialPruned(str(error)) from error
    finally:
        for path in out.iterdir():
            if path.name not in keep:
                path.unlink() if path.is_symlink() or not path.is_dir() else shutil.rmtree(path)
