"""Training: what a run leaves behind, and that a run interrupted and resumed is the run uninterrupted."""

import csv
import errno
import json
import os
import re
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path
from shutil import copytree

import keras
import numpy as np
import pytest
import tensorflow as tf
from PIL import Image
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from tensorboard.util.tensor_util import make_ndarray

from atelier.generator import train as training
from atelier.generator.memory import leave_out, left_out, questions
from atelier.generator.networks import build_generator, copy_weights
from atelier.generator.train import Recipe, build_gan, train
from atelier.seeds import STYLES
from atelier.training import EventLog, EveryMinutes, TimeLimit, TrainingError, append_row, load_state, save_state

RECIPE = Recipe(resolution=16, latent_dim=8, width=4, discriminator_width=4, batch_size=5, seed=3)


class StopAfter(keras.callbacks.Callback):
    """Ends a run after so many steps: the minutes of `train`, made exact."""

    def __init__(self, steps: int):
        super().__init__()
        self.steps = steps

    def on_train_batch_end(self, batch, logs=None):
        if batch + 1 >= self.steps:  # not before: asking for the model would bring JAX's weights back
            self.model.stop_training = True


@pytest.fixture
def run(monkeypatch, art_folder):
    """Trains for so many steps and returns the run's folder. Uncompiled, unless it is asked for: begins sooner."""

    def run_for(steps: int, out: Path, recipe: Recipe = RECIPE, compiled=False, **options) -> Path:
        monkeypatch.setattr(training, "TimeLimit", lambda *_: StopAfter(steps))
        tf.config.run_functions_eagerly(not compiled)
        try:
            assert train([art_folder], out, minutes=1, recipe=recipe, **options) == out / "generator.h5"
        finally:
            tf.config.run_functions_eagerly(False)
        return out

    return run_for


@pytest.fixture(scope="module")
def finished(tmp_path_factory, art_folder) -> Path:
    """The folder of a run of three steps."""
    out = tmp_path_factory.mktemp("finished")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(training, "TimeLimit", lambda *_: StopAfter(3))
        train([art_folder], out, minutes=1, recipe=RECIPE)
    return out


def made(folder: Path, recipe: Recipe | None = None) -> keras.Model:
    """The generator of a run, in the form in which it is trained."""
    generator = training.build_recipe_generator(recipe or RECIPE)
    copy_weights(keras.models.load_model(folder / "generator.h5", compile=False), generator)
    return generator


def weights(folder: Path) -> list[np.ndarray]:
    return made(folder).get_weights()


def history(folder: Path, *columns: str) -> list[tuple[float, ...]]:
    with (folder / "history.csv").open() as file:
        return [tuple(float(row[column]) for column in columns) for row in csv.DictReader(file)]


def step_of(folder: Path) -> int:
    with np.load(folder / "checkpoint.npz") as checkpoint:
        return int(checkpoint["extra/step"])


def curve(folder: Path, name: str) -> list[tuple[int, float]]:
    """TensorBoard's points, read as TensorBoard reads them."""
    events = EventAccumulator(str(folder / "logs"), size_guidance={"tensors": 0})
    events.Reload()
    return [(point.step, float(make_ndarray(point.tensor_proto))) for point in events.Tensors(name)]


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
    whole = run(5, tmp_path / "whole", compiled=True)
    parts = run(2, copytree(finished, tmp_path / "parts"), compiled=True)
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
    """What the earlier one left must not pass for this one's: its rows, its sheets, its curves."""
    out = copytree(finished, tmp_path / "run")
    run(2, out, resume=False, measure=lambda generator: {"figure": 1.0})
    assert step_of(out) == 2 and history(out, "step") == [(2,)]
    assert [path.name for path in (out / "samples").iterdir()] == ["0000002.png"]
    assert curve(out, "figure") == [(2, 1.0)] and len(list((out / "logs").iterdir())) == 1


def test_a_run_that_begins_anew_and_stops_at_once_does_not_go_on_with_the_old_one(tmp_path, run, finished, monkeypatch):
    """Its recipe may be another one, of the same shapes, that the old checkpoint must not be taken for."""
    out = copytree(finished, tmp_path / "run")
    with monkeypatch.context() as patch:
        patch.setattr(training, "EveryMinutes", lambda *_: StopAfter(1))  # which keeps nothing
        run(1, out, resume=False, recipe=replace(RECIPE, seed=4))
    run(1, out, recipe=replace(RECIPE, seed=4))
    assert step_of(out) == 1


def test_the_generator_with_the_lowest_kid_is_kept_also_when_the_run_goes_on(tmp_path, run):
    """The file is looked at when the next figure is measured: what was there before, and what is there now."""
    out, kids, painted, files = tmp_path / "run", iter([3.0, 1.0, 2.0, 1.5, 0.5]), [], []

    def measure(generator):
        painted.append(generator.get_weights())
        files.append(weights(out) if (out / "generator.h5").exists() else None)
        return {"kid": next(kids), "kid_std": 0.25}

    run(3, out, measure=measure, checkpoint_minutes=0)
    files.append(weights(out))
    run(2, out, measure=measure, checkpoint_minutes=0, start=tmp_path / "gone.h5")  # not read when a run goes on
    files.append(weights(out))
    assert files[0] is None and len(painted) == 5
    # after figure 1, 2 and 3; when the run goes on; after figure 4 and 5
    for file, best in zip(files[1:], [0, 1, 1, 1, 1, 4], strict=True):
        for value, expected in zip(file, painted[best], strict=True):
            np.testing.assert_allclose(value, expected, atol=1e-7)
    assert not np.array_equal(painted[0][0], painted[1][0])
    rows = history(out, "step", "kid", "kid_std")
    assert rows == [(1, 3, 0.25), (2, 1, 0.25), (3, 2, 0.25), (4, 1.5, 0.25), (5, 0.5, 0.25)]
    assert curve(out, "kid") == [row[:2] for row in rows]  # TensorBoard's, of both runs
    assert sorted(path.name for path in (out / "samples").iterdir()) == [f"{step:07d}.png" for step in range(1, 6)]


def test_without_a_kid_the_latest_generator_is_kept(tmp_path, run):
    out, painted = tmp_path / "run", []
    run(
        2,
        out,
        measure=lambda generator: painted.append(generator.get_weights()) or {"other": 1.0},
        checkpoint_minutes=0,
    )
    for value, expected in zip(weights(out), painted[-1], strict=True):
        np.testing.assert_allclose(value, expected, atol=1e-7)
    assert history(out, "step", "other") == [(1, 1), (2, 1)]


def test_a_measure_that_has_nothing_to_say_for_once_changes_nothing(tmp_path, run):
    kids = iter([{"kid": 1.0}, {}, {"kid": 2.0}])
    painted = []
    run(3, tmp_path / "run", measure=lambda g: painted.append(g.get_weights()) or next(kids), checkpoint_minutes=0)
    for value, expected in zip(weights(tmp_path / "run"), painted[0], strict=True):
        np.testing.assert_allclose(value, expected, atol=1e-7)


def test_a_mistake_costs_nobody_an_old_run(tmp_path, run, finished):
    """Not even where a new one was asked for in its folder."""
    out = copytree(finished, tmp_path / "run")
    before = {path.name: path.read_bytes() for path in out.iterdir() if path.is_file()}
    with pytest.raises(ValueError, match="no generator to start with"):
        run(1, out, resume=False, recipe=replace(RECIPE, seed=4), start=tmp_path / "gone.h5")
    assert {path.name: path.read_bytes() for path in out.iterdir() if path.is_file()} == before


def test_a_figure_that_is_new_when_a_run_goes_on_has_its_own_column(tmp_path, run, finished):
    out = copytree(finished, tmp_path / "run")
    run(1, out, measure=lambda generator: {"kid": 2.0})
    with (out / "history.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert [(row["step"], row["kid"]) for row in rows] == [("3", ""), ("4", "2.0")]


def test_a_run_begins_with_a_trained_generator_and_its_averages_do_too(tmp_path, run, finished):
    """Of 16 pixels for one of 32. A step changes weights by the learning rate at most; a fresh one differs by far."""
    recipe = replace(RECIPE, resolution=32, seed=4)
    gan = build_gan(recipe, finished / "generator.h5")
    trained = keras.models.load_model(finished / "generator.h5", compile=False)
    random = np.random.default_rng(0)
    inputs = [random.standard_normal((5, 8), np.float32), np.arange(5)]
    before_tanh = keras.Model(trained.inputs, trained.get_layer("image").input)(inputs)
    expected = np.tanh(keras.layers.UpSampling2D(interpolation="bilinear")(before_tanh))
    for network in (gan.generator, gan.average):
        np.testing.assert_allclose(network(inputs), expected, atol=1e-5)
    assert np.ptp(expected) > 1e-3

    out = run(1, tmp_path / "run", recipe=recipe, start=finished / "generator.h5")
    keras.utils.set_random_seed(recipe.seed)
    fresh = training.build_recipe_generator(recipe)
    begun, trained = made(out, recipe), made(finished)
    for name in ("canvas", "up_16", "to_rgb_8"):
        kernels = [np.asarray(network.get_layer(name).kernel) for network in (begun, trained, fresh)]
        np.testing.assert_allclose(kernels[0], kernels[1], atol=3e-4)
        assert np.abs(kernels[2] - kernels[1]).max() > 0.01


def test_that_the_start_was_trained_is_known_to_a_run_that_goes_on(tmp_path, run, finished, monkeypatch):
    """For such a start is not to be forgotten by the average."""
    seen = []

    class Watched(training.GAN):
        def fit(self, *args, **kwargs):
            seen.append(self.trained)
            return super().fit(*args, **kwargs)

    monkeypatch.setattr(training, "GAN", Watched)
    out = run(1, tmp_path / "run", start=finished / "generator.h5")
    run(1, out)
    run(1, tmp_path / "fresh")
    assert seen == [True, True, False]


@pytest.mark.parametrize(
    ("start", "message"),
    [("gone.h5", "no generator to start with"), ("text.h5", "no generator to start with"), ("wide.h5", "does not fit")],
)
def test_a_start_that_is_none_is_an_error(tmp_path, run, start, message):
    (tmp_path / "text.h5").write_text("hello")
    build_generator(16, latent_dim=8, width=8).save(tmp_path / "wide.h5")
    with pytest.raises(ValueError, match=message):
        run(1, tmp_path / "run", start=tmp_path / start)
    assert not (tmp_path / "run" / "checkpoint.npz").exists()


def judges_of(gan) -> list[np.ndarray]:
    return [weight for judge in gan.judges for weight in judge.get_weights()]


def test_a_run_begins_with_the_judges_of_the_one_before(finished):
    """Their statistics too, as they were at its end: those of the checkpoint, without the frozen features."""
    before = build_gan(RECIPE)
    load_state(finished / "checkpoint.npz", before)
    gan = build_gan(replace(RECIPE, seed=4), finished / "generator.h5", finished / "judges.npz")
    assert len(judges_of(gan)) > 5
    for value, expected in zip(judges_of(gan), judges_of(before), strict=True):
        np.testing.assert_array_equal(value, expected)
    for value, expected in zip(gan.generator.get_weights(), before.average.get_weights(), strict=True):
        np.testing.assert_allclose(value, expected, atol=1e-7)
    fresh = judges_of(build_gan(replace(RECIPE, seed=4)))
    assert any(not np.array_equal(value, expected) for value, expected in zip(fresh, judges_of(gan), strict=True))


def test_in_the_warm_up_only_the_judges_learn(tmp_path, run, finished, monkeypatch):
    """What trains afterwards is the generator too, at step 0, with an optimizer that has seen nothing."""
    seen = []

    def watched(gan, recipe, feed):
        before, judges = gan.generator.get_weights(), judges_of(gan)
        warm_up(gan, recipe, feed)
        same = [np.array_equal(*pair) for pair in zip(before, gan.generator.get_weights(), strict=True)]
        moved = [not np.array_equal(*pair) for pair in zip(judges, judges_of(gan), strict=True)]
        seen.append((all(same), any(moved), int(gan.steps.value), int(gan.optimizer.iterations.value)))

    warm_up = training._warm_up
    monkeypatch.setattr(training, "_warm_up", watched)
    recipe = replace(RECIPE, warm_up=2)
    out = run(1, tmp_path / "run", recipe=recipe, start=finished / "generator.h5")
    assert seen == [(True, True, 0, 0)] and step_of(out) == 1
    run(1, out, recipe=recipe, start=finished / "generator.h5")  # a run that goes on is warm
    assert len(seen) == 1 and step_of(out) == 2


def test_a_few_layers_may_learn_alone(tmp_path, run, finished):
    """All others stay, averages of the batch norms included, also after the warm-up."""
    recipe = replace(RECIPE, mapping=1, learning=("mapping_", "mapped_"), warm_up=1)
    out = run(2, tmp_path / "run", recipe=recipe, start=finished / "generator.h5")
    learned, trained = made(out, recipe), made(finished)
    assert {layer.name for layer in learned.layers if layer.weights} - {layer.name for layer in trained.layers} == {
        "mapping_1",
        "mapped_1",
    }
    for layer in (each for each in trained.layers if each.weights):
        for before, after in zip(layer.get_weights(), learned.get_layer(layer.name).get_weights(), strict=True):
            np.testing.assert_allclose(before, after, rtol=1e-5, atol=1e-7)  # their average is rounded
    assert np.abs(learned.get_layer("mapped_1").kernel).max() > 0
    with pytest.raises(ValueError, match="no layer of the generator has a name that begins with maping"):
        run(1, tmp_path / "none", recipe=replace(recipe, learning=("maping",)))


@pytest.mark.parametrize("damage", ["missing", "empty", "text", "truncated", "array", "other"])
def test_judges_that_do_not_fit_are_an_error_that_names_their_file(tmp_path, finished, damage):
    path, content = tmp_path / "judges.npz", (finished / "judges.npz").read_bytes()
    if damage == "array":
        with path.open("wb") as file:
            np.save(file, np.zeros(3))
    elif damage != "missing":
        contents = {"empty": b"", "text": b"hello", "truncated": content[: len(content) // 2], "other": content}
        path.write_bytes(contents[damage])
    recipe = replace(RECIPE, discriminator_width=8) if damage == "other" else RECIPE
    with pytest.raises(ValueError, match=r"judges.*judges\.npz|judges\.npz holds the judges of another recipe"):
        build_gan(recipe, judges=path)


def test_judges_with_frozen_features_train_and_go_on(tmp_path, run, eye_weights, lite_weights):
    """The eyes are made again by their seeds, and their files' weights, and the checkpoint fits."""
    recipe = replace(RECIPE, judges=("pixels", "features", "lite"), features=str(eye_weights), lite=str(lite_weights))
    recipe = replace(recipe, feature_size=32, loss="hinge", gradient_penalty=0.1, spectral_norm=True, crowd=1.0)
    out = run(1, tmp_path / "run", recipe=recipe)
    first = weights(out)
    run(1, out, recipe=recipe)
    assert step_of(out) == 2 and not np.array_equal(first[0], weights(out)[0])
    with np.load(out / "judges.npz") as judges:  # those of pixels and of features, without the frozen ones
        assert {name.split("/")[0] for name in judges} == {"discriminator", "heads", "lite_heads"}
    assert (out / "judges.npz").stat().st_size < 4_000_000 < (out / "checkpoint.npz").stat().st_size


def test_what_is_remembered_learns_with_its_picture_and_faster(tmp_path, run, lite_weights):
    recipe = replace(RECIPE, judges=("lite",), lite=str(lite_weights), feature_size=32, memory=3, pairs=1.0)
    out = run(2, tmp_path / "run", recipe=recipe)
    keras.utils.set_random_seed(recipe.seed)
    fresh = training.build_recipe_generator(recipe)
    moved = {
        layer.name: [
            np.abs(one - other).max() for one, other in zip(layer.get_weights(), old.get_weights(), strict=True)
        ]
        for layer, old in zip(made(out, recipe).layers, fresh.layers, strict=True)
    }
    share = 1 - 2 / 11  # the average holds so much of Adam's first step, which is as long as the rate, by now
    assert moved["memory"][0] == pytest.approx(recipe.memory_rate * recipe.learning_rate * share, rel=0.05)
    assert 0 < moved["to_rgb_16"][0] < 2 * recipe.learning_rate
    assert moved["memory_keys"][0] < 1e-5 and moved["memory_styles"][0] < 1e-2  # rounding, of 8 and of 10,000
    assert history(out, "pairs")[0] > (0.0,)


def test_what_is_left_out_of_the_memory_stays_so_and_learns_with_no_picture(tmp_path, run, lite_weights, monkeypatch):
    recipe = replace(RECIPE, judges=("lite",), lite=str(lite_weights), feature_size=32, memory=3, pairs=1.0)
    start, fed, batches = training.build_recipe_generator(recipe), [], training.batches
    leave_out(start, np.array([1, 7]))
    training.save_generator(start, recipe, tmp_path / "start.h5")
    monkeypatch.setattr(training, "batches", lambda *feed: fed.append(feed[-1]) or batches(*feed))
    out = run(1, tmp_path / "run", recipe=recipe, start=tmp_path / "start.h5")
    ((pictures, asked),) = fed
    there = np.flatnonzero(np.isin(np.arange(15), [1, 7], invert=True))
    assert len(pictures) == 13
    np.testing.assert_allclose(asked, questions(start)[there])
    assert np.flatnonzero(left_out(made(out, recipe))).tolist() == [1, 7]


def test_a_larger_memory_begins_with_what_the_start_remembers(tmp_path, run, lite_weights):
    recipe = replace(RECIPE, judges=("lite",), lite=str(lite_weights), feature_size=32, memory=2, pairs=1.0)
    start, larger = training.build_recipe_generator(recipe), replace(recipe, memory=3)
    training.save_generator(start, recipe, tmp_path / "start.h5")
    out = run(1, tmp_path / "run", recipe=larger, start=tmp_path / "start.h5")
    old = start.get_layer("memory").get_weights()[0].reshape(5, 2, 8)
    new = made(out, larger).get_layer("memory").get_weights()[0].reshape(5, 3, 8)
    moved = 1.01 * recipe.memory_rate * recipe.learning_rate  # one step of Adam, of which the average takes a part
    assert np.abs(new[:, :2] - old).max() < moved
    apart = np.abs(new[:, 2:] - old).std(axis=2).min(axis=1)
    assert (apart < 3 * 0.3).all() and np.abs(new[:, 2:] - old).min(axis=1).min() > 0


def test_up_to_a_size_the_generator_learns_and_its_finer_part_stays(tmp_path, run, finished):
    """Also when the run goes on: the file is whole, and the judges see the smaller pictures."""
    recipe = replace(RECIPE, resolution=64, learning_size=16, ema_decay=0.5)
    whole = training.build_recipe_generator(recipe)
    finer = [layer.name for layer in whole.layers if layer.weights and layer.name.endswith(("_32", "_64"))]
    training.save_generator(whole, recipe, tmp_path / "start.h5")
    out = run(1, tmp_path / "run", recipe=recipe, start=tmp_path / "start.h5")
    run(1, out, recipe=recipe)
    assert step_of(out) == 2
    after = made(out, recipe)
    assert after.output_shape == (None, 64, 64, 3) and len(finer) == 10
    for layer in (layer for layer in whole.layers if layer.weights):
        weights = zip(layer.get_weights(), after.get_layer(layer.name).get_weights(), strict=True)
        assert any(np.abs(old - new).max() > 1e-5 for old, new in weights) == (layer.name not in finer), layer.name
    with np.load(out / "judges.npz") as judges, np.load(finished / "judges.npz") as small:
        assert [judges[name].shape for name in judges] == [small[name].shape for name in small]
    sheet = Image.open(out / "samples" / "0000002.png")
    assert sheet.width > 5 * 64


def test_a_judge_that_the_file_lacks_begins_anew(tmp_path, run, eye_weights, lite_weights):
    """So that EfficientNet-Lite0 can be set beside judges that have learned."""
    recipe = replace(RECIPE, judges=("pixels", "features"), features=str(eye_weights), feature_size=32)
    out = run(1, tmp_path / "run", recipe=recipe)
    recipe = replace(recipe, judges=("pixels", "features", "lite"), lite=str(lite_weights))
    gan = build_gan(recipe, out / "generator.h5", out / "judges.npz")
    with np.load(out / "judges.npz") as judges:
        np.testing.assert_array_equal(gan.heads[0].weights[0], judges["heads/000"])
    assert [heads.name for heads in gan.heads] == ["heads", "lite_heads"]


def test_a_killed_run_goes_on(tmp_path, run, art_folder):
    """Killed where it hurts, for it writes all the time: its folder is good, and its steps are counted on."""
    out = tmp_path / "run"
    code = """
import sys
from atelier.generator.train import train
from tests.generator.test_train import RECIPE
train([sys.argv[1]], sys.argv[2], minutes=60, recipe=RECIPE, checkpoint_minutes=0)
"""
    repository, errors = Path(__file__).resolve().parents[2], tmp_path / "errors.txt"
    with errors.open("w") as file:
        command = [sys.executable, "-c", code, str(art_folder), str(out)]
        process = subprocess.Popen(command, cwd=repository, stderr=file, stdout=file)
        try:
            until = time.monotonic() + 300
            while (
                len(list((out / "samples").glob("*.png"))) < 4 and process.poll() is None and time.monotonic() < until
            ):
                time.sleep(0.01)
        finally:
            process.kill()
            process.wait()
    assert process.returncode == -signal.SIGKILL, errors.read_text()
    steps = step_of(out)
    assert steps >= 3 and all(np.isfinite(value).all() for value in weights(out))
    run(2, out)
    assert step_of(out) == steps + 2 and all(np.isfinite(value).all() for value in weights(out))
    counted = [step for (step,) in history(out, "step")]
    assert counted[:steps] == list(range(1, steps + 1)) and counted[-1] == steps + 2


FULL = OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


@pytest.mark.parametrize("what", ["generator.h5", "sheet", "log", "checkpoint.npz"])
def test_a_full_disk_ends_the_run_and_the_last_checkpoint_stays(tmp_path, run, finished, monkeypatch, what):
    out = copytree(finished, tmp_path / "run")
    before = (out / "checkpoint.npz").read_bytes()

    def full(*arguments, **options):
        raise FULL

    def full_for_pictures(path, data):
        return full() if path.suffix == ".png" else write_atomically(path, data)

    write_atomically = training.write_atomically
    places = {
        "generator.h5": (keras.Model, "save", full),
        "sheet": (training, "write_atomically", full_for_pictures),
        "log": (training, "append_row", full),
        "checkpoint.npz": (sys.modules["atelier.training"], "write_atomically", full),
    }
    monkeypatch.setattr(*places[what])
    with pytest.raises(TrainingError, match=f"cannot write .*{re.escape(str(out))}.*No space left on device"):
        run(1, out)
    assert (out / "checkpoint.npz").read_bytes() == before
    monkeypatch.undo()
    run(1, out)  # when there is room again
    assert step_of(out) == 4 and not list(out.rglob(".*"))


def test_mixed_precision_trains_and_saves_a_float32_generator(tmp_path, run):
    out = run(2, tmp_path / "run", recipe=replace(RECIPE, mixed_precision=True), compiled=True)
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


def test_a_run_from_before_a_setting_was_there_goes_on(tmp_path, run, finished):
    """What its recipe.json does not name had no other value then than the default."""
    out = copytree(finished, tmp_path / "run")
    path = out / "recipe.json"
    settings = json.loads(path.read_text())
    assert settings.pop("residual") == Recipe().residual
    path.write_text(json.dumps(settings))
    run(9, out)
    assert json.loads(path.read_text())["residual"] == 0
    path.write_text(json.dumps(settings | {"bygone": 1}))
    with pytest.raises(TrainingError, match=r"other settings \(bygone\)"):
        run(9, out)


def test_a_run_with_another_recipe_is_refused_and_kept(tmp_path, run, finished):
    out = copytree(finished, tmp_path / "run")
    before = (out / "checkpoint.npz").read_bytes()
    other = replace(RECIPE, width=8, seed=4)
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


def test_the_time_limit_can_go_by_another_clock(clock):
    seconds = {"now": 7.0}
    limit = TimeLimit(1, lambda: seconds["now"])
    limit.set_model(network())
    clock["minutes"] = 1000  # the wall's
    for seconds["now"], over in ((66.9, False), (67.0, True)):
        limit.on_train_batch_end(0)
        assert limit.model.stop_training == over


def test_what_is_kept_is_kept_every_so_many_minutes_and_at_the_end(clock):
    kept = []
    keeper = EveryMinutes(2, kept.append)
    keeper.set_model(network())
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
    keeper.set_model(network())
    keeper.on_train_begin()
    clock["minutes"] = 103
    with pytest.raises(TrainingError, match="no longer a number"):
        keeper.on_train_batch_end(0, {"loss": loss})


def test_rows_are_added_under_one_header(tmp_path):
    append_row(tmp_path / "log.csv", {"step": 1, "loss": 0.5})
    append_row(tmp_path / "log.csv", {"step": 2, "loss": 0.25})
    assert (tmp_path / "log.csv").read_text().split() == ["step,loss", "1,0.5", "2,0.25"]


def test_the_minutes_can_be_another_clocks(tmp_path, art_folder):
    """One that goes on by 20 seconds whenever it is asked: once when the run begins and once for each step."""
    seconds = iter(range(0, 10_000, 20))
    tf.config.run_functions_eagerly(True)
    try:
        train([art_folder], tmp_path, minutes=1, recipe=RECIPE, clock=lambda: next(seconds))
    finally:
        tf.config.run_functions_eagerly(False)
    assert step_of(tmp_path) == 3


# --- the curves


def test_curves_have_a_point_every_so_many_steps_and_go_on(tmp_path):
    for begin in (0, 5):
        log = EventLog(tmp_path / "logs", begin, every=2)
        log.on_train_begin()
        for step in range(begin + 1, begin + 6):
            log.on_train_batch_end(step, {"loss": step / 8})
        log.on_train_end()
    assert curve(tmp_path, "loss") == [(step, step / 8) for step in (2, 4, 6, 8, 10)]


# --- what is checked before anything is spent


@pytest.mark.parametrize("minutes", [0, -1, float("nan"), float("inf")])
def test_minutes_are_checked_before_anything_is_made(tmp_path, art_folder, minutes):
    with pytest.raises(ValueError, match="minutes is a positive number"):
        train([art_folder], tmp_path / "run", minutes=minutes, recipe=RECIPE)
    assert not (tmp_path / "run").exists()


def test_a_bad_resolution_is_an_error_before_the_pictures_are_read(tmp_path, art_folder, monkeypatch):
    monkeypatch.setattr(training, "training_pictures", lambda *_, **__: pytest.fail("read the pictures first"))
    with pytest.raises(ValueError, match="power of two"):
        train([art_folder], tmp_path / "run", minutes=1, recipe=Recipe(resolution=100))


def test_pictures_that_cannot_be_trained_on_are_an_error(tmp_path):
    """Only a validation split: found, but not to be learned from."""
    path = tmp_path / "data" / "validation_set" / STYLES[0] / "a.png"
    path.parent.mkdir(parents=True)
    Image.new("RGB", (16, 16)).save(path)
    with pytest.raises(FileNotFoundError, match="no pictures to train on"):
        train([tmp_path / "data"], tmp_path / "run", minutes=1, recipe=RECIPE)


def some_batch():
    random = np.random.default_rng(0)
    return {
        "image": random.integers(0, 256, (8, 16, 16, 3), np.uint8),
        "style": random.integers(0, 5, 8).astype(np.int32),
        "latent": random.standard_normal((8, 8)).astype(np.float32),
    }


def test_the_judges_may_learn_at_another_rate():
    """Adam's first step is the learning rate, whatever the gradient: so each network's steps show its own."""
    gan = build_gan(Recipe(resolution=16, width=4, discriminator_width=4, latent_dim=8, judge_rate=3.0, augment=()))
    before = [weight.numpy() for weight in gan.trainable_variables]
    gan.train_on_batch(some_batch())
    judged = {id(weight) for weight in gan.discriminator.trainable_variables}
    for weight, old in zip(gan.trainable_variables, before, strict=True):
        if weight.path.endswith("kernel"):
            step = np.abs(weight.numpy() - old).max() / 2e-4
            assert step == pytest.approx(3.0 if id(weight) in judged else 1.0, rel=0.01)
