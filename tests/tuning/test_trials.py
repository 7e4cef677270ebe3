"""Trials of the real trainings, in small, and the command."""

import itertools
import json
import math
import os

import keras
import numpy as np
import optuna
import pytest
import tensorflow as tf

from atelier.__main__ import main
from atelier.evaluation.quick import KidMeter
from atelier.evaluation.real import RealPictures
from atelier.training import EveryMinutes, TrainingError
from atelier.tuning import trials
from atelier.tuning.trials import CaptionerTrials, DetectorTrials, GeneratorTrials, RecallMeter, Stopwatch
from tests.detector.conftest import draw
from tests.evaluation.conftest import tiny_networks  # noqa: F401  (a fixture)

SMALL = ["resolution=16", "latent_dim=8", "width=4", "discriminator_width=4", "batch_size=5"]


@pytest.fixture(autouse=True)
def uncompiled():
    """Begins sooner than it would compiled."""
    tf.config.run_functions_eagerly(True)
    yield
    tf.config.run_functions_eagerly(False)


@pytest.fixture
def generator_trials(art_folder, tmp_path, monkeypatch):
    """Makes trials that are judged by how bright a generator's pictures are: no network has to look."""

    def brightness(generator):
        pictures = generator([np.zeros((5, 8), np.float32), np.arange(5)], training=False)
        return {"kid": float(np.mean(pictures)), "recall": 0.5, "diversity": 1.0}

    def make(**options):
        made = GeneratorTrials([art_folder], shared=tmp_path / "shared", **{"minutes": 0.01, "checks": 2} | options)
        made.meter = lambda resolution: brightness
        return made

    return make


class EveryStep(EveryMinutes):
    """Asks for figures after each step, however long it took."""

    def __init__(self, minutes, action):
        super().__init__(0, action)


def test_a_generator_is_trained_and_judged_at_even_times(generator_trials, tmp_path, monkeypatch):
    monkeypatch.setattr(trials.generator_training, "EveryMinutes", EveryStep)
    looks, reports = itertools.count(), []
    made = generator_trials(minutes=6 / 60, clock=lambda: next(looks))  # a second passes whenever it is asked
    made(SMALL, tmp_path / "trial", lambda figures, done: reports.append((done, figures["kid"])))
    assert [done for done, _ in reports] == [0.5, 1.0]
    left = sorted(path.name for path in (tmp_path / "trial").iterdir())
    assert left == ["generator.h5", "history.csv", "recipe.json", "samples"]
    assert json.loads((tmp_path / "trial" / "recipe.json").read_text())["width"] == 4
    assert list((tmp_path / "shared").glob("images-*.npy"))  # decoded once for all trials
    generator = keras.models.load_model(tmp_path / "trial" / "generator.h5", compile=False)
    told = float(np.mean(generator([np.zeros((5, 8), np.float32), np.arange(5)])))
    assert any(told == pytest.approx(value, abs=1e-5) for _, value in reports)


def test_a_pruned_training_stops_at_its_report(generator_trials, tmp_path):
    seen = []

    def report(figures, done):
        seen.append(done)
        raise optuna.TrialPruned

    with pytest.raises(optuna.TrialPruned):
        generator_trials()(SMALL, tmp_path / "trial", report)
    assert len(seen) == 1 and not list((tmp_path / "trial").glob("checkpoint*"))


def test_a_loss_that_is_no_number_prunes_and_a_full_disk_ends_the_search(generator_trials, tmp_path, monkeypatch):
    def failing(cause):
        def train(*_, **__):
            raise TrainingError("what training says") from cause

        return train

    monkeypatch.setattr(trials.generator_training, "train", failing(None))
    with pytest.raises(optuna.TrialPruned, match="what training says"):
        generator_trials()(SMALL, tmp_path / "trial", lambda *_: None)
    monkeypatch.setattr(trials.generator_training, "train", failing(OSError(28, "No space left on device")))
    with pytest.raises(TrainingError, match="what training says"):
        generator_trials()(SMALL, tmp_path / "trial", lambda *_: None)


def test_a_bad_setting_is_refused(generator_trials, tmp_path):
    with pytest.raises(ValueError, match="batch_size"):
        generator_trials()([*SMALL, "batch_size=0"], tmp_path / "trial", lambda *_: None)


class Pixels:
    """A feature network that sees the mean colour of each quarter, with a little of everything else."""

    dim = 12

    def features(self, images):
        return images.reshape(len(images), 2, 8, 2, 8, 3).mean((2, 4)).reshape(len(images), 12) / 255


class Generator:
    """Paints by the latent, or, collapsed, always the same."""

    input_shape, output_shape = [(None, 8), (None,)], (None, 16, 16, 3)

    def __init__(self, collapsed):
        self.collapsed = collapsed

    def __call__(self, inputs, training=False):
        latents = np.tanh(np.asarray(inputs[0], np.float32))
        if self.collapsed:
            latents = 0 * latents + 0.3
        return np.ones((len(latents), 16, 16, 3), np.float32) * latents[:, None, None, :3]


def test_the_meter_tells_a_collapsed_generator(monkeypatch):
    monkeypatch.setattr(trials.Painter, "__init__", lambda self, model: setattr(self, "model", model))
    monkeypatch.setattr(trials.Painter, "latent_dim", 8, raising=False)

    def paint(self, latents, media):
        return np.uint8(127.5 * (np.asarray(self.model([latents, None])) + 1))

    monkeypatch.setattr(trials.Painter, "paint", paint)
    latents = np.random.default_rng(9).normal(size=(150, 8))
    real = Pixels().features(paint(trials.Painter(Generator(False)), latents, None))
    meter = RecallMeter(Pixels(), real, ["painting"] * 100)
    varied, same = meter(Generator(False)), meter(Generator(True))
    assert varied["recall"] > 0.7 and 0.8 < varied["diversity"] < 1.25
    assert same["recall"] == 0 and same["diversity"] == 0
    assert varied["kid"] < same["kid"]
    assert varied["kid"] == KidMeter(Pixels(), real, ["painting"] * 100)(Generator(False))["kid"]


def test_the_stopwatch_stands_still_while_it_is_stopped():
    times = iter([10.0, 11.0, 13.0, 20.0, 21.0])
    watch = Stopwatch(lambda: next(times))
    assert watch() == 0 and watch() == 1
    with watch.stopped():  # from 13 to 20
        pass
    assert watch() == 4


def test_a_detectors_folds_are_its_checks(tmp_path):
    for folder, ai in (("AiArtData", True), ("RealArt", False)):
        (tmp_path / "data" / folder).mkdir(parents=True)
        for number in range(8):
            draw(ai, number).save(tmp_path / "data" / folder / f"{number}.jpg", quality=90)
    reports = []
    made = DetectorTrials(tmp_path / "data", minutes=10, shared=tmp_path / "shared")
    settings = ["network=baseline", "folds=2", "views=1", "crops=1", "epochs=1", "batch_size=4"]
    made(settings, tmp_path / "trial", lambda figures, done: reports.append((figures, done)))
    assert [done for _, done in reports] == [0.5, 1.0]
    assert all(0 <= figures["accuracy"] <= 1 and 0 < figures["log_loss"] < math.inf for figures, _ in reports)
    views = {path: path.stat().st_mtime_ns for path in (tmp_path / "shared").rglob("*.npy")}
    with pytest.raises(optuna.TrialPruned, match="0 of 2 folds"):  # and other settings of learning find the same views
        made.minutes = 0
        made([*settings, "dropout=0.1"], tmp_path / "trial", lambda *_: None)
    assert views and {path: path.stat().st_mtime_ns for path in (tmp_path / "shared").rglob("*.npy")} == views


def test_a_captioner_is_judged_on_the_way(tmp_path, monkeypatch):
    class CaptionerRun:
        """In place of the real one, whose stem takes seconds to build: its judge and its loop."""

        def __init__(self, data, out, recipe, stem_weights, start, resume):
            assert not resume and (out / "run").is_dir()
            self.recipe, self.judge = recipe, lambda: {"cider": 0.5, "cider_64px": 0.25, "recall_5": 0.125, "loss": 3.0}
            self.out = out

        def go_on(self, seconds):
            (self.out / "log.jsonl").write_text("{}")
            for _ in range(round(seconds / 60 / self.recipe.judge_minutes)):
                self.judge()

    monkeypatch.setattr(trials, "CaptionerRun", CaptionerRun)
    reports = []
    made = CaptionerTrials(["data"], minutes=6, checks=3, shared=tmp_path / "shared")
    made(["batch=8"], tmp_path / "trial", lambda figures, done: reports.append((figures["goodness"], round(done, 2))))
    assert reports == [(0.875, 0.33), (0.875, 0.67), (0.875, 1.0)]
    assert os.listdir(tmp_path / "trial") == ["log.jsonl"] and (tmp_path / "shared").is_dir()


def test_the_command_tunes_and_says_what_it_found(art_folder, tiny_networks, tmp_path, capsys, monkeypatch):  # noqa: F811
    monkeypatch.setattr("atelier.evaluation.real.NEAR", -1)  # the drawn pictures are all alike to the hash
    space = tmp_path / "space.yaml"
    space.write_text(
        "generator:\n  goal: {figure: kid, better: less}\n  floors: {recall: 0}\n"
        "  search: {learning_rate: {low: 0.0001, high: 0.01, log: true}, width: [4, 8]}\n"
    )
    command = ["tune", "generator", "--data", str(art_folder), "--space", str(space), "--out", str(tmp_path / "out")]
    command += ["--minutes", "0.01", "--checks", "1", "--kid", "100", "--features", str(tiny_networks["features"])]
    for setting in SMALL:
        if not setting.startswith("width"):
            command += ["--set", setting]
    assert main([*command, "--trials", "1"]) == 0
    written = capsys.readouterr()
    assert "outside the space" in written.err  # the recipe's width is 32
    record, last = (json.loads(line) for line in written.out.splitlines())
    assert last["best"] == record and record["state"] == "complete" and 0 <= record["figures"]["recall"] <= 1
    assert np.isfinite(record["figures"]["kid"]) and set(record["settings"]) == {"learning_rate", "width"}
    assert len(RealPictures.find([art_folder], tmp_path / "out" / "shared").held_out) == 10
    for plot in ("history", "importance", "parallel"):
        assert (tmp_path / "out" / f"{plot}.png").read_bytes().startswith(b"\x89PNG")
    best = (tmp_path / "out" / "best.yaml").read_text()
    assert "resolution: '16'" in best and "learning_rate:" in best
    assert main([*command, "--trials", "0"]) == 0  # the plots again
    assert main([*command, "--minutes", "2", "--trials", "1"]) == 2
    assert "minutes 0.01" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("options", "told"),
    [
        (["--trials", "-1"], "--trials"),
        (["--minutes", "nan"], "--minutes"),
        (["--set", "width=8"], "width: either set or searched"),
        (["--only", "colour"], "not colour"),
        (["--space", "nowhere.yaml"], "nowhere.yaml"),
        (["--set", "colour=8"], "colour"),
        (["--kid", "10"], "at least 100 pictures"),
        (["--data", "nowhere"], "nowhere"),
    ],
)
def test_bad_options_are_one_line(art_folder, tmp_path, capsys, options, told):
    base = ["tune", "generator", "--data", str(art_folder), "--out", str(tmp_path / "out"), "--trials", "1"]
    assert main([*base, *options]) == 2
    written = capsys.readouterr().err.splitlines()
    assert written[-1].startswith("atelier: error: ") and told in written[-1]


def test_processor_time_is_the_generators(tmp_path, capsys):
    assert main(["tune", "detector", "--data", "nowhere", "--processor-time", "--out", str(tmp_path)]) == 2
    assert "for the generator" in capsys.readouterr().err
