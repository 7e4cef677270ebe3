"""One code, two backends: what JAX trains, TensorFlow paints; and a batch that two devices share is the same batch."""

import csv
import json
import os
import subprocess
import sys
from pathlib import Path

import keras
import numpy as np
import pytest

from atelier.generator.train import train
from tests.generator.test_train import RECIPE

REPOSITORY = Path(__file__).resolve().parents[2]

# One process does all: most of its time goes into starting and compiling.
ON_JAX = """
import json, sys
from dataclasses import replace
from pathlib import Path
import keras, numpy as np
from atelier.generator import train as training
from tests.generator.test_train import RECIPE, StopAfter

training.TimeLimit = lambda *_: StopAfter(2)
inputs = np.load("inputs.npz")
for run in ("1", "2", "pairs"):
    out, seen, devices = Path(run), [], 2 if run == "2" else 1

    def measure(average):
        np.save(out / "painted.npy", average([inputs["latent"], inputs["style"]], training=False))
        seen.append(len(average.weights[0].value.sharding.device_set))
        return {"mean": float(np.mean(average.get_weights()[0]))}

    recipe = replace(RECIPE, batch_size=6)
    if run == "pairs":
        recipe = replace(recipe, judges=("pixels", "lite"), lite=sys.argv[2], feature_size=32, memory=3, pairs=1.0)
    # With a checkpoint after every step: also within the run, not only when its weights are back in their places.
    training.train([sys.argv[1]], out, minutes=1, recipe=recipe, devices=devices, measure=measure, checkpoint_minutes=0)
    (out / "devices.json").write_text(json.dumps(seen))
    assert keras.distribution.distribution() is None
"""


@pytest.fixture(scope="module")
def on_jax(tmp_path_factory, art_folder, lite_weights) -> Path:
    """A folder with the runs that a machine with only JAX made: on one device and on two, `1` and `2`, and `pairs`."""
    pytest.importorskip("jax")
    folder, random = tmp_path_factory.mktemp("jax"), np.random.default_rng(0)
    latent, style = random.standard_normal((5, RECIPE.latent_dim), np.float32), np.arange(5, dtype=np.int32)
    np.savez(folder / "inputs.npz", latent=latent, style=style)
    environment = os.environ | {
        "KERAS_BACKEND": "jax",
        "JAX_PLATFORMS": "cpu",
        "XLA_FLAGS": "--xla_force_host_platform_device_count=2",
        "PYTHONPATH": str(REPOSITORY),
    }
    command = [sys.executable, "-c", ON_JAX, str(art_folder), str(lite_weights)]
    done = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return folder


@pytest.mark.parametrize("name", ["1", "pairs"])
def test_tensorflow_paints_what_jax_painted(on_jax, name):
    """The very network of the training, at its last step, and then its file, on the other backend."""
    assert keras.backend.backend() == "tensorflow"
    generator = keras.models.load_model(on_jax / name / "generator.h5", compile=False)
    with np.load(on_jax / "inputs.npz") as inputs:
        pictures = generator([inputs["latent"], inputs["style"]])
    painted = np.load(on_jax / name / "painted.npy")
    assert painted.shape == (5, 16, 16, 3) and np.ptp(painted) > 1e-3
    np.testing.assert_allclose(pictures, painted, atol=1e-4 * np.ptp(painted))


def rows(folder: Path) -> list[dict[str, float]]:
    with (folder / "history.csv").open() as file:
        return [{name: float(value) for name, value in row.items()} for row in csv.DictReader(file)]


def test_jax_learns_in_pairs(on_jax):
    assert all(0 < row["pairs"] < np.inf for row in rows(on_jax / "pairs"))


def test_jax_leaves_what_tensorflow_leaves(on_jax):
    history = rows(on_jax / "1")
    assert [row["step"] for row in history] == [1, 2] and [row["pictures"] for row in history] == [6, 12]
    assert all(np.isfinite(list(row.values())).all() for row in history)
    assert sorted(path.name for path in (on_jax / "1" / "samples").iterdir()) == ["0000001.png", "0000002.png"]
    with np.load(on_jax / "1" / "checkpoint.npz") as checkpoint:
        assert checkpoint["extra/step"] == 2
    assert history[0]["mean"] != history[1]["mean"]  # the average moved, and was seen to move within the run


def test_two_devices_train_as_one(on_jax):
    """Batch norm and all: the same losses and weights, from halves of the same batches."""
    assert json.loads((on_jax / "1" / "devices.json").read_text()) == [1, 1]
    assert json.loads((on_jax / "2" / "devices.json").read_text()) == [2, 2]
    for one, two in zip(rows(on_jax / "1"), rows(on_jax / "2"), strict=True):
        assert one == pytest.approx(two, rel=1e-3, abs=1e-5)
    one, two = (keras.models.load_model(on_jax / name / "generator.h5", compile=False).get_weights() for name in "12")
    for values, others in zip(one, two, strict=True):
        np.testing.assert_allclose(values, others, rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize("devices", [0, 2])
def test_devices_that_cannot_share_are_an_error_and_leave_the_process_as_it_was(tmp_path, art_folder, devices):
    recipe = type(RECIPE)(**{**vars(RECIPE), "mixed_precision": True})
    with pytest.raises(ValueError, match="on the JAX backend only: set KERAS_BACKEND=jax"):
        train([art_folder], tmp_path / "run", minutes=1, recipe=recipe, devices=devices)
    assert keras.config.dtype_policy().name == "float32"
    assert keras.distribution.distribution() is None
