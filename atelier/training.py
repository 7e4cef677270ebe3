"""What every long training here shares: complete, atomic checkpoints, a time limit, a progress bar, a log."""

from __future__ import annotations

import csv
import io
import logging
import os
import shutil
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


def clear_run(out: Path) -> None:
    """Take away what an earlier run left, so that its rows and sheets do not pass for this one's."""
    for name in ("history.csv", "checkpoint.npz"):
        (out / name).unlink(missing_ok=True)
    shutil.rmtree(out / "logs", ignore_errors=True)
    for sheet in (out / "samples").glob("*.png"):
        sheet.unlink()


def save_model(network: keras.Model, path: Path) -> None:
    """Save a network as an .h5 file, whole or not at all.

    Raises:
        TrainingError: it cannot be written.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_name(f".{os.getpid()}.{path.name}")
    log = logging.getLogger("absl")
    level = log.level
    log.setLevel(logging.ERROR)  # Keras warns that .h5 is an old format: it is, and it is what everything can load
    try:
        network.save(part)
        part.replace(path)
    except OSError as error:
        part.unlink(missing_ok=True)
        raise TrainingError(f"cannot write {path}: {error}") from error
    finally:
        log.setLevel(level)


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
        if time.monotonic() - self.began >= self.seconds:
            self.bar.update(self.bar.total - self.bar.n)
        self.bar.close()


class TimeLimit(keras.callbacks.Callback):
    """Ends the run after so many minutes, of the wall's clock or another."""

    def __init__(self, minutes: float, clock: Callable[[], float] | None = None):
        super().__init__()
        self.clock = clock or time.monotonic
        self.until = self.clock() + minutes * 60

    def on_train_batch_end(self, batch, logs=None):
        if self.clock() >= self.until:
            self.model.stop_training = True


class EveryMinutes(keras.callbacks.Callback):
    """Calls `action(logs)` every so many minutes and once at the end; never after a step that gave NaN."""

    def __init__(self, minutes: float, action: Callable[[dict], None]):
        super().__init__()
        self.period, self.action = minutes * 60, action

    def on_train_begin(self, logs=None):
        self.due = time.monotonic() + self.period
        self.logs, self.done = {}, True

    def on_train_batch_end(self, batch, logs=None):
        self.done = False
        self.logs = {name: float(value) for name, value in (logs or {}).items()}
        if not all(np.isfinite(value) for value in self.logs.values()):
            raise TrainingError(f"the loss is no longer a number ({self.logs}); the last checkpoint is kept")
        if time.monotonic() >= self.due:
            _ = self.model  # where steps run on copies of the weights (JAX), asking for the model brings them back
            self.action(self.logs)
            self.due, self.done = time.monotonic() + self.period, True

    def on_train_end(self, logs=None):
        if not self.done:
            self.action(self.logs)


class EventLog(keras.callbacks.Callback):
    """TensorBoard's curves: `tensorboard --logdir FOLDER`. Written without TensorFlow, so on every backend.

    Args:
        folder: where the event files go; a run that goes on adds one.
        step: of the model, when the callback is made.
        every: steps between two points.
    """

    def __init__(self, folder: Path, step: int = 0, every: int = 50):
        super().__init__()
        self.folder, self.step, self.every = folder, step, every

    def on_train_begin(self, logs=None):
        from tensorboard.summary import Writer

        self.writer = Writer(str(self.folder))

    def on_train_batch_end(self, batch, logs=None):
        self.step += 1
        if self.step % self.every == 0:
            self.write({name: float(value) for name, value in (logs or {}).items()})

    def write(self, figures: dict[str, float], step: int | None = None) -> None:
        """Add one point to each curve, at the step reached if not at another."""
        for name, value in figures.items():
            self.writer.add_scalar(name, value, self.step if step is None else step)
        self.writer.flush()

    def on_train_end(self, logs=None):
        self.writer.close()


def append_row(path: Path, row: dict[str, float]) -> None:
    """Add one line of figures to a CSV file; a figure that the file does not know yet becomes a new column."""
    rows: list[dict] = [row]
    if path.exists():
        with path.open(newline="") as file:
            rows = [*csv.DictReader(file), row]
    columns = list(dict.fromkeys(name for each in rows for name in each))
    text = io.StringIO()
    writer = csv.DictWriter(text, columns, lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    write_atomically(path, text.getvalue().encode())
