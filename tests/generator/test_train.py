"""Training: what a run leaves behind, and that a run interrupted and resumed is the run uninterrupted."""

import csv
import json
from pathlib import Path
from shutil import copytree

import keras
import numpy as np
import pytest
from PIL import Image

from atelier.generator import train as training
from atelier.generator.train import Recipe, train
from atelier.seeds import STYLES
from atelier.training import EveryMinutes, TimeLimit, TrainingError, append_row, load_state, save_state

RECIPE = Recipe(resolution=16, latent_dim=8, width=4, discriminator_width=4, batch_size=5, seed=3)


class StopAfter(keras.callbacks.Callback):
    """Ends a run after so many steps: the minutes of `train`, made exact."""

    def __init__(self, steps: int):
        super().__init__()
        self.steps = steps

    def on_train_batch_end(self, batch, logs=None):
        self.model.stop_training = batch + 1 >= self.steps


@pytest.fixture
def run(monkeypatch, art_folder):
    """Trains for so many steps and returns the run's folder."""

    def run_for(steps: int, out: Path, recipe: Recipe = RECIPE, **options) -> Path:
        monkeypatch.setattr(training, "TimeLimit", lambda minutes: StopAfter(steps))
        assert train([art_folder], out, minutes=1, recipe=recipe, **options) == out / "generator.h5"
        return out

    return run_for


@pytest.fixture(scope="module")
def finished(tmp_path_factory, art_folder) -> Path:
    """The folder of a run of three steps."""
    out = tmp_path_factory.mktemp("finished")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(training, "TimeLimit", lambda minutes: StopAfter(3))
        train([art_folder], out, minutes=1, recipe=RECIPE)
    return out


def weights(folder: Path) -> list[np.ndarray]:
    return keras.models.load_model(folder / "generator.h5", compile=False).get_weights()


def test_a_run_leaves_all_that_its_docstring_promises(finished):
    out = finished
    assert json.loads((out / "recipe.json").read_text())["resolution"] == 16
    rows = list(csv.DictReader((out / "history.csv").open()))
    assert [(row["step"], row["pictures"]) for row in rows] == [("3", "15")]
    assert all(np.isfinite(float(value)) for value in rows[0].values())
    with Image.open(out / "samples" / "0000003.png") as sheet:
        assert sheet.size == (5 * 20 + 4, 8 * 20 + 4)  # one style a column, one latent a row
    generator = keras.models.load_model(out / "generator.h5", compile=False)
    assert generator.input_shape == [(None, 8), (None,)] and generator.output_shape == (None, 16, 16, 3)
    assert not list(out.rglob("*part*")) and not list(out.glob(".*"))


def test_a_resumed_run_equals_an_uninterrupted_one(tmp_path, run, finished):
    """Weights, averages, optimizer, augmentation's random stream and the order of the pictures all go on."""
    whole = run(5, tmp_path / "whole")
    parts = run(2, copytree(finished, tmp_path / "parts"))
    with np.load(whole / "checkpoint.npz") as one, np.load(parts / "checkpoint.npz") as other:
        assert len(one.files) == len(other.files) and one["extra/step"] == other["extra/step"] == 5
        for name, other_name in zip(one.files, other.files, strict=True):
            if not name.endswith(("/total", "/count")):  # the log's means, which begin anew
                np.testing.assert_allclose(one[name], other[other_name], rtol=1e-4, atol=1e-6, err_msg=name)
    for one, other in zip(weights(whole), weights(parts), strict=True):
        np.testing.assert_allclose(one, other, rtol=1e-4, atol=1e-6)
    steps = [row["step"] for row in csv.DictReader((parts / "history.csv").open())]
    assert steps == ["3", "5"]
    assert not np.allclose(weights(whole)[0], weights(finished)[0])  # training does something


def test_without_resume_a_run_begins_anew(tmp_path, run, finished):
    out = copytree(finished, tmp_path / "run")
    run(2, out, resume=False)
    with np.load(out / "checkpoint.npz") as checkpoint:
        assert checkpoint["extra/step"] == 2
    assert [row["step"] for row in csv.DictReader((out / "history.csv").open())] == ["2"]


def test_mixed_precision_trains_and_saves_a_float32_generator(tmp_path, run):
    out = run(2, tmp_path / "run", recipe=Recipe(**{**vars(RECIPE), "mixed_precision": True}))
    generator = keras.models.load_model(out / "generator.h5", compile=False)
    assert {variable.dtype for variable in generator.weights} == {"float32"}
    assert {layer.dtype_policy.name for layer in generator.layers if layer.weights} == {"float32"}
    assert keras.config.dtype_policy().name == "float32"  # the process is as it was


def test_nan_ends_the_run_and_the_last_checkpoint_stays(tmp_path, run, finished, monkeypatch):
    out = copytree(finished, tmp_path / "run")
    checkpoint, generator = ((out / name).read_bytes() for name in ("checkpoint.npz", "generator.h5"))

    def spoiled(*arguments, **options):
        for step, (batch,) in enumerate(batches(*arguments, **options)):
            yield (batch | {"latent": batch["latent"] * (np.nan if step == 2 else 1)},)

    batches = training.batches
    monkeypatch.setattr(training, "batches", spoiled)
    with pytest.raises(TrainingError, match=r"no longer a number.*last checkpoint is kept"):
        run(9, out)
    assert (out / "checkpoint.npz").read_bytes() == checkpoint
    assert (out / "generator.h5").read_bytes() == generator


def test_a_run_with_another_recipe_is_refused_and_kept(tmp_path, run, finished):
    out = copytree(finished, tmp_path / "run")
    before = (out / "checkpoint.npz").read_bytes()
    other = Recipe(**{**vars(RECIPE), "width": 8, "seed": 4})
    with pytest.raises(TrainingError, match=r"other settings \(width, seed\)"):
        run(1, out, recipe=other)
    assert (out / "checkpoint.npz").read_bytes() == before
    (out / "recipe.json").unlink()  # even then the shapes tell
    with pytest.raises(TrainingError, match="another recipe"):
        run(1, out, recipe=other)


# --- the checkpoint, on a network that is quick to build


def network(width=2) -> keras.Model:
    model = keras.Sequential([keras.Input((3,)), keras.layers.Dense(width), keras.layers.BatchNormalization()])
    model.compile("adam", "mse")
    model.optimizer.build(model.trainable_variables)
    return model


def test_a_state_comes_back_whole(tmp_path):
    one, same = network(), network()
    one.fit(np.ones((4, 3)), np.zeros((4, 2)), verbose=0)
    save_state(tmp_path / "state.npz", one, step=7, minutes=1.5)
    assert load_state(tmp_path / "state.npz", same) == {"step": 7, "minutes": 1.5}
    for a, b in zip(one.variables + one.optimizer.variables, same.variables + same.optimizer.variables, strict=True):
        np.testing.assert_array_equal(a.numpy(), b.numpy())


def test_a_state_of_another_shape_is_refused(tmp_path):
    save_state(tmp_path / "state.npz", network(width=2))
    with pytest.raises(TrainingError, match="another recipe"):
        load_state(tmp_path / "state.npz", network(width=4))


@pytest.mark.parametrize("damage", ["empty", "truncated", "flipped", "text"])
def test_a_damaged_checkpoint_is_a_clear_error(tmp_path, damage):
    path = tmp_path / "state.npz"
    save_state(path, network())
    data = path.read_bytes()
    place = data.index(b"NUMPY") + 130  # within the first array's numbers
    flipped = data[:place] + bytes(255 - byte for byte in data[place : place + 8]) + data[place + 8 :]
    contents = {"empty": b"", "truncated": data[: len(data) // 2], "flipped": flipped, "text": b"hello"}
    path.write_bytes(contents[damage])
    with pytest.raises(TrainingError, match=r"state\.npz cannot be read"):
        load_state(path, network())


def test_a_checkpoint_that_cannot_be_written_is_a_clear_error(tmp_path):
    (tmp_path / "file").write_bytes(b"")
    with pytest.raises(TrainingError, match="cannot write the checkpoint"):
        save_state(tmp_path / "file" / "state.npz", network())


# --- the clock


@pytest.fixture
def clock(monkeypatch):
    """A clock that tests set, in minutes."""
    now = {"minutes": 100.0}
    monkeypatch.setattr("atelier.training.time.monotonic", lambda: now["minutes"] * 60)
    return now


def test_the_time_limit_stops_the_model_when_its_minutes_are_over(clock):
    limit = TimeLimit(5)
    limit.set_model(network())
    clock["minutes"] = 104.9
    limit.on_train_batch_end(0)
    assert not limit.model.stop_training
    clock["minutes"] = 105
    limit.on_train_batch_end(1)
    assert limit.model.stop_training


def test_what_is_kept_is_kept_every_so_many_minutes_and_at_the_end(clock):
    kept = []
    keeper = EveryMinutes(2, kept.append)
    keeper.on_train_begin()
    for step, minutes in enumerate([101, 102, 103, 104.5, 105]):
        clock["minutes"] = minutes
        keeper.on_train_batch_end(step, {"loss": step})
    assert kept == [{"loss": 1}, {"loss": 3}]
    keeper.on_train_end()
    assert kept[-1] == {"loss": 4}


@pytest.mark.parametrize("loss", [float("nan"), float("inf")])
def test_a_step_that_gave_no_number_is_never_kept(clock, loss):
    keeper = EveryMinutes(2, pytest.fail)
    keeper.on_train_begin()
    clock["minutes"] = 103
    with pytest.raises(TrainingError, match="no longer a number"):
        keeper.on_train_batch_end(0, {"loss": loss})


def test_rows_are_added_under_one_header(tmp_path):
    append_row(tmp_path / "log.csv", {"step": 1, "loss": 0.5})
    append_row(tmp_path / "log.csv", {"step": 2, "loss": 0.25})
    assert (tmp_path / "log.csv").read_text().split() == ["step,loss", "1,0.5", "2,0.25"]


# --- what is checked before anything is spent


@pytest.mark.parametrize("minutes", [0, -1, float("nan"), float("inf")])
def test_minutes_are_checked_before_anything_is_made(tmp_path, art_folder, minutes):
    with pytest.raises(ValueError, match="minutes is a positive number"):
        train([art_folder], tmp_path / "run", minutes=minutes, recipe=RECIPE)
    assert not (tmp_path / "run").exists()


def test_a_bad_resolution_is_an_error_before_the_pictures_are_read(tmp_path, art_folder, monkeypatch):
    monkeypatch.setattr(training, "load_images", lambda *_, **__: pytest.fail("read the pictures first"))
    with pytest.raises(ValueError, match="power of two"):
        train([art_folder], tmp_path / "run", minutes=1, recipe=Recipe(resolution=100))


def test_pictures_that_cannot_be_trained_on_are_an_error(tmp_path):
    """Only a validation split: found, but not to be learned from."""
    path = tmp_path / "data" / "validation_set" / STYLES[0] / "a.png"
    path.parent.mkdir(parents=True)
    Image.new("RGB", (16, 16)).save(path)
    with pytest.raises(FileNotFoundError, match="no pictures to train on"):
        train([tmp_path / "data"], tmp_path / "run", minutes=1, recipe=RECIPE)


def test_jax_trains_the_same_model(tmp_path, art_folder, python):
    """A machine that has only JAX runs the same code: one step there equals one step here."""
    pytest.importorskip("jax")
    code = """
import sys
from atelier.generator import train as training
from tests.generator.test_train import RECIPE, StopAfter
training.TimeLimit = lambda minutes: StopAfter(2)
training.train([sys.argv[1]], sys.argv[2], minutes=1, recipe=RECIPE)
"""
    repository = Path(__file__).resolve().parents[2]
    python("-c", code, art_folder, tmp_path / "run", cwd=repository, KERAS_BACKEND="jax")
    assert all(np.isfinite(value).all() for value in weights(tmp_path / "run"))
