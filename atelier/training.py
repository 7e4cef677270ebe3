"""What every long training here shares: complete, atomic checkpoints, a time limit, a progress bar, a log."""

from __future__ import annotations

import csv
import io
import time
import zipfile
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path

import keras
import numpy as np

from atelier.images import write_atomically
from atelier.progress import progress_bar


class TrainingError(RuntimeError):
    """Training cannot start or go on; the message says why and what was kept."""


def _state(model: keras.Model) -> Iterator[tuple[str, keras.Variable]]:
    for index, variable in enumerate(model.variables + model.optimizer.variables):
        yield f"{index:04d}/{variable.path}", variable


def save_state(path: Path, model: keras.Model, **extra: float) -> None:
    """Write all that a run needs to go on: weights, averages, optimizer, random state, and `extra` numbers.

    The file appears whole or not at all, so a run killed at any moment leaves the last good one.

    Raises:
        TrainingError: the disk is full or not writable.
    """
    arrays = {name: keras.ops.convert_to_numpy(variable.value) for name, variable in _state(model)}
    arrays |= {f"extra/{name}": np.asarray(value) for name, value in extra.items()}
    buffer = io.BytesIO()
    np.savez(buffer, **arrays)
    try:
        write_atomically(path, buffer.getvalue())
    except OSError as error:
        raise TrainingError(f"cannot write the checkpoint {path}: {error}") from error


def load_state(path: Path, model: keras.Model) -> dict[str, float]:
    """Read a file of `save_state` back into a compiled model; returns the `extra` numbers.

    Raises:
        TrainingError: the file is damaged, or of a model of another shape (another recipe).
    """
    try:
        with np.load(path) as arrays:
            extra = {name[6:]: arrays[name].item() for name in arrays if name.startswith("extra/")}
            # By number: Keras names a layer otherwise in a process where another model has taken its name.
            found = {name[:4]: name for name in arrays if not name.startswith("extra/")}
            wanted = {name[:4]: variable for name, variable in _state(model)}
            values = {number: arrays[name] for number, name in found.items()}
            fits = values.keys() == wanted.keys() and all(values[n].shape == tuple(wanted[n].shape) for n in wanted)
            if not fits:
                raise TrainingError(f"{path} belongs to another recipe: choose another folder, or do not resume")
            for number, variable in wanted.items():
                variable.assign(values[number])
    except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile, zlib.error) as error:
        raise TrainingError(f"the checkpoint {path} cannot be read: {error}") from error
    return extra


class Progress(keras.callbacks.Callback):
    """One bar on standard error for the whole run: percent of its minutes, losses, pictures per second."""

    def __init__(self, minutes: float, batch_size: int):
        super().__init__()
        self.seconds, self.batch_size = minutes * 60, batch_size

    def on_train_begin(self, logs=None):
        self.began = time.monotonic()
        layout = "{l_bar}{bar}| {n_fmt}/{total_fmt} s{postfix}"
        self.bar = progress_bar(total=round(self.seconds), desc="training", bar_format=layout)
        self.batches = 0

    def on_train_batch_end(self, batch, logs=None):
        self.batches += 1
        elapsed = time.monotonic() - self.began
        speed = f"{self.batches * self.batch_size / elapsed:.0f} pictures/s"
        figures = [f"{name} {value:.3f}" for name, value in (logs or {}).items()]
        self.bar.set_postfix_str(", ".join([speed, *figures]), refresh=False)
        self.bar.update(min(int(elapsed), self.bar.total) - self.bar.n)

    def on_train_end(self, logs=None):
        self.bar.close()


class TimeLimit(keras.callbacks.Callback):
    """Ends the run after so many minutes."""

    def __init__(self, minutes: float):
        super().__init__()
        self.until = time.monotonic() + minutes * 60

    def on_train_batch_end(self, batch, logs=None):
        if time.monotonic() >= self.until:
            self.model.stop_training = True


class EveryMinutes(keras.callbacks.Callback):
    """Calls `action(logs)` every so many minutes and once at the end; never after a step that gave NaN."""

    def __init__(self, minutes: float, action: Callable[[dict], None]):
        super().__init__()
        self.period, self.action = minutes * 60, action

    def on_train_begin(self, logs=None):
        self.due = time.monotonic() + self.period
        self.logs = {}

    def on_train_batch_end(self, batch, logs=None):
        self.logs = {name: float(value) for name, value in (logs or {}).items()}
        if not all(np.isfinite(value) for value in self.logs.values()):
            raise TrainingError(f"the loss is no longer a number ({self.logs}); the last checkpoint is kept")
        if time.monotonic() >= self.due:
            self.action(self.logs)
            self.due = time.monotonic() + self.period

    def on_train_end(self, logs=None):
        if self.logs:
            self.action(self.logs)


def append_row(path: Path, row: dict[str, float]) -> None:
    """Add one line of figures to a CSV file, with a header if the file is new."""
    new = not path.exists()
    with path.open("a", newline="") as file:
        writer = csv.DictWriter(file, list(row))
        if new:
            writer.writeheader()
        writer.writerow(row)
