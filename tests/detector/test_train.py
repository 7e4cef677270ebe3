"""A whole training in small: folds, resuming, the file it leaves, and what refuses to start."""

import dataclasses
import json

import keras
import numpy as np
import pytest

from atelier.detector import Detector, style
from atelier.detector.data import find_labelled, labels_of, open_labelled
from atelier.detector.heatmap import heat_maps
from atelier.detector.networks import WeightsError, build_network, build_transfer, with_style, with_temperature
from atelier.detector.recipe import Recipe
from atelier.detector.style import StyleMachine
from atelier.detector.train import cross_validated, save, train
from atelier.efficientnet import build_lite
from atelier.training import TrainingError

SMALL = Recipe(
    network="baseline", folds=2, views=2, epochs=4, batch_size=8, learning_rate=0.02, patience=4, validation=0.5
)


@pytest.fixture(scope="module")
def run(two_classes, tmp_path_factory):
    out = tmp_path_factory.mktemp("run")
    return out, train(two_classes, out, recipe=SMALL)


def test_a_training_leaves_figures_and_a_detector(run, two_classes):
    out, figures = run
    assert json.loads((out / "figures.json").read_text()) == figures
    for condition in ("plain", "jpeg60", "half"):
        assert set(figures[condition]) == {"together", "accuracy", "auroc", "ece"}
    assert figures["pictures"] == {"ai": 12, "human": 12} and figures["recipe"]["network"] == "baseline"
    assert set(figures["file_traits_alone"]) == {"accuracy", "auroc", "ece"}
    rows = (out / "log.csv").read_text().splitlines()
    assert {row.split(",")[0] for row in rows} == {"fold", "0", "1", "all"}
    lines = (out / "held_out.csv").read_text().splitlines()
    assert lines[0] == "picture,ai,fold,plain,jpeg60,half" and len(lines) == 25
    assert (out / "curves.png").read_bytes().startswith(b"\x89PNG") and not (out / "views").exists()
    pictures = find_labelled(two_classes)
    told = Detector.load(out / "detector.h5").probabilities(open_labelled(pictures))
    labels = labels_of(pictures)
    assert told[labels == 1].mean() > told[labels == 0].mean()


def test_the_file_loads_bare(run, python, tmp_path):
    out, _ = run
    code = (
        "import keras, numpy as np, sys\n"
        f"model = keras.models.load_model({str(out / 'detector.h5')!r}, compile=False)\n"
        "print(model.predict(np.full((2, 224, 224, 3), 128.0), verbose=0).shape, 'atelier' in sys.modules)"
    )
    assert python("-c", code, cwd=tmp_path).stdout.splitlines()[-1] == "(2, 1) False"


def test_a_run_goes_on_where_it_stopped(run, two_classes, tmp_path):
    with pytest.raises(TrainingError, match="the same command goes on"):
        train(two_classes, tmp_path, recipe=SMALL, minutes=0)
    figures = train(two_classes, tmp_path, recipe=SMALL)
    assert figures["plain"] == run[1]["plain"]  # and whoever stops ends where the others end
    assert train(two_classes, tmp_path, recipe=SMALL, minutes=0) == figures  # nothing is left to do
    for lost in ("fold-1.npz", "figures.json"):
        (tmp_path / lost).unlink()
    before = (tmp_path / "fold-0.npz").stat().st_mtime_ns
    train(two_classes, tmp_path, recipe=SMALL)
    assert (tmp_path / "fold-0.npz").stat().st_mtime_ns == before
    rows = [row.split(",")[:2] for row in (tmp_path / "log.csv").read_text().splitlines()[1:]]
    assert len(rows) == len({tuple(row) for row in rows})  # what was done again is logged once
    assert {fold for fold, _ in rows} == {"0", "1", "all"}


def test_without_validation_the_schedule_ends_the_training(two_classes, tmp_path):
    recipe = dataclasses.replace(SMALL, validation=0.0, epochs=1)
    assert train(two_classes, tmp_path, recipe=recipe)["epochs"] == 1
    assert (tmp_path / "curves.png").is_file()


def test_another_recipe_needs_another_folder(run, two_classes):
    with pytest.raises(TrainingError, match="another recipe"):
        train(two_classes, run[0], recipe=Recipe(folds=3))


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        (["epochs"], "NAME=VALUE"),
        (["what=3"], "NAME=VALUE"),
        (["epochs=many"], "epochs is a int"),
        (["epochs=0"], "epochs is a positive"),
        (["dropout=1"], "dropout"),
        (["network=vit"], "network is"),
        (["folds=1"], "folds"),
        (["validation=0.6"], "validation"),
        (["stretch=0.5"], "stretch"),
        (["mixup=-1"], "mixup"),
        (["network=baseline", "style=true"], "style"),
        (["learning_rate=nan"], "learning_rate"),
    ],
)
def test_bad_settings_are_named(settings, message):
    with pytest.raises(ValueError, match=message):
        Recipe.of(settings).check()


@pytest.fixture(scope="module")
def random_weights(tmp_path_factory):
    """MobileNetV2's weights as nobody taught them, batch norm's statistics included."""
    path = tmp_path_factory.mktemp("weights") / "random_no_top.weights.h5"
    model = keras.applications.MobileNetV2(weights=None, include_top=False, input_shape=(224, 224, 3))
    random = np.random.default_rng(0)
    for layer in model.layers:
        if isinstance(layer, keras.layers.BatchNormalization):
            layer.set_weights([random.uniform(0.5, 1.5, each.shape) for each in layer.get_weights()])
    model.save_weights(path)
    return path, model


def test_the_transfer_network_is_efficientnet_lite_on_a_smaller_picture(random_weights, lite_weights):
    network = build_transfer(str(random_weights[0]), str(lite_weights))
    pixels = np.random.default_rng(0).uniform(0, 255, (2, 224, 224, 3)).astype(np.float32)
    maps = network.frozen.predict_on_batch(pixels)
    lite = build_lite(160, lite_weights, top=True)
    *_, wanted, _, top = lite.predict_on_batch(np.asarray(keras.layers.Resizing(160, 160)(pixels / 127.5 - 1)))
    assert maps.shape == wanted.shape == (2, 5, 5, 12)
    assert np.abs(maps - wanted).max() < 0.01 * np.abs(wanted).max()  # its kernels are rounded
    head = network.learning.get_layer("head")
    logits = network.learning.predict_on_batch(maps)
    assert np.allclose(logits, top.mean(axis=(1, 2)) @ head.get_weights()[0], atol=0.01)
    assert np.allclose(network.whole.predict_on_batch(pixels), 1 / (1 + np.exp(-logits)), atol=1e-5)
    with_temperature(network.whole, 2.0)
    assert np.allclose(network.learning.predict_on_batch(maps), logits / 2, atol=1e-4)


def test_style_looks_through_mobilenet_with_batch_norm_folded(random_weights, lite_weights):
    path, model = random_weights
    pixels = np.random.default_rng(0).uniform(0, 255, (2, 224, 224, 3)).astype(np.float32)
    style = build_transfer(str(path), str(lite_weights)).style
    for name in ("block_2_add", "block_12_add"):
        found = keras.Model(style.input, style.get_layer(name).output).predict_on_batch(pixels)
        wanted = keras.Model(model.input, model.get_layer(name).output).predict_on_batch(pixels / 127.5 - 1)
        assert np.abs(found - wanted).max() < 0.01 * np.abs(wanted).max()


def test_heat_maps_add_up_to_the_logit(random_weights, lite_weights):
    network = build_transfer(str(random_weights[0]), str(lite_weights))
    views = np.random.default_rng(1).uniform(0, 255, (1, 224, 224, 3))
    heat, probabilities = heat_maps(network.whole, views)
    assert heat.shape == (1, 224, 224)
    assert heat.mean() == pytest.approx(np.log(probabilities[0] / (1 - probabilities[0])), rel=0.05, abs=0.01)


def test_the_style_machine_is_kernel_ridge_regression(monkeypatch):
    """A Gaussian kernel along the first principal components, a linear one along all others, solved by hand.

    Changed pictures count less, and neither scale nor axes are theirs.
    """
    monkeypatch.setattr(style, "COMPONENTS", 12)
    rng = np.random.default_rng(0)
    styles, labels = rng.lognormal(0, 1, (45, 2, style.LEVEL.size)), np.repeat([1.0, 0.0], [25, 20])
    styles[:25] *= 1.2
    learnt, changed, asked = styles[:, 0], styles[:, 1] * 1.1, styles[:10, 1] + 0.1
    machine = StyleMachine.fit(np.float32(learnt[:, None]), labels, np.float32(changed[:, None]))

    def tamed(some):
        scaled = (some - learnt.mean(axis=0)) / (learnt.std(axis=0) + 1e-4)
        return scaled / (1 + np.abs(scaled)) * style.LEVEL

    own, every = tamed(learnt), np.concatenate([tamed(learnt), tamed(changed)])
    middle, size = own.mean(axis=0), np.square(own - own.mean(axis=0)).sum(axis=1).mean()
    axes = np.linalg.svd(own - middle, full_matrices=False)[2][: style.COMPONENTS].T

    def kernel(some):
        here, there = (some - middle) @ axes, (every - middle) @ axes
        distances = np.square(here[:, None] - there).sum(axis=2)
        linear = (some - middle) @ (every - middle).T - here @ there.T
        return np.exp(-distances / (2 * size * style.WIDTH)) + style.REST * linear / size

    targets = np.tile(2 * labels - 1, 2)
    ridge = np.repeat([style.RIDGE, style.RIDGE / style.CHANGED], 45)
    weights = np.linalg.solve(kernel(every) + np.diag(ridge), targets - targets.mean())
    wanted = style.LOGITS * (kernel(tamed(asked)) @ weights + targets.mean())
    assert np.abs(machine.line).max() > 0
    assert np.allclose(machine.judge(np.float32(asked[:, None])), wanted, atol=0.01)


def test_the_style_has_its_say_in_the_file(random_weights, lite_weights, tmp_path, monkeypatch):
    """What the layers tell is what the two parts told; the styles are the covariances of the maps."""
    monkeypatch.setattr(style, "COMPONENTS", 3)  # of five that six styles have, so that the linear kernel has a share
    network = build_transfer(str(random_weights[0]), str(lite_weights))
    pixels = np.random.default_rng(2).uniform(0, 255, (6, 224, 224, 3)).astype(np.float32)
    pixels[3:, ::2] = 0
    styles = network.style.predict_on_batch(pixels)
    for name, first, channels in (("block_5_add", 24**2, 32), ("mix", -(96**2), 96)):
        maps = keras.Model(network.style.input, network.style.get_layer(name).output).predict_on_batch(pixels)
        wanted = np.cov(maps[4].reshape(-1, channels).T, bias=True)
        found = styles[4, first:][: channels**2].reshape(channels, channels)
        assert np.allclose(found, wanted, rtol=1e-3, atol=1e-3 * wanted.max())

    machine = StyleMachine.fit(styles[:, None], np.array([1, 1, 1, 0, 0, 0]))
    told = machine.judge(styles[:, None])
    assert (told[:3] > 0).all() and (told[3:] < 0).all()
    logits = network.learning.predict_on_batch(network.frozen.predict_on_batch(pixels))[:, 0] + told
    model = with_style(network, machine)
    with_temperature(model, 2.0)
    wanted = 1 / (1 + np.exp(-logits / 2))
    assert np.allclose(model.predict_on_batch(pixels)[:, 0], wanted, atol=1e-3)
    save(model, tmp_path / "detector.h5")
    loaded = keras.models.load_model(tmp_path / "detector.h5", compile=False)
    assert np.allclose(loaded.predict_on_batch(pixels)[:, 0], wanted, atol=0.01)
    assert (tmp_path / "detector.h5").stat().st_size <= 12 * 2**20


def test_network_and_style_are_trained_together(two_classes, random_weights, lite_weights, tmp_path):
    """Each picture by the fold that has not seen it; what either judge would say alone is told as well."""
    recipe = Recipe(folds=2, views=1, epochs=1, batch_size=8, style=True, lite=str(lite_weights))
    figures = train(two_classes, tmp_path, recipe=recipe, weights=str(random_weights[0]))
    assert set(figures["alone"]) == {"network", "style"}
    assert figures["alone"]["style"]["plain"]["auroc"]["mean"] > 0.9  # coarse and fine blocks
    for fold in range(2):
        with np.load(tmp_path / f"fold-{fold}.npz") as told:
            assert np.abs(told["plain"] - told["plain_style"]).max() > 0  # the network has its say
    pictures = find_labelled(two_classes)
    told = Detector.load(tmp_path / "detector.h5").probabilities(open_labelled(pictures))
    labels = labels_of(pictures)
    assert told[labels == 1].min() > told[labels == 0].max()


def test_weights_that_cannot_be_had_are_told(tmp_path):
    with pytest.raises(WeightsError, match="no weights"):
        build_transfer(str(tmp_path / "missing.h5"))
    (tmp_path / "broken.weights.h5").write_bytes(b"no weights")
    with pytest.raises(WeightsError, match="are not in"):
        build_transfer(str(tmp_path / "broken.weights.h5"))


def test_the_same_seed_is_the_same_network():
    recipe = Recipe(network="baseline", seed=5)
    one, other = (build_network(recipe, "imagenet").learning.get_weights() for _ in range(2))
    assert all(np.array_equal(*pair) for pair in zip(one, other, strict=True))


def test_each_folds_temperature_comes_from_the_others():
    """Logits ten times too large in all folds are put right; what is right stays so."""
    rng = np.random.default_rng(0)
    logits = rng.normal(0, 2, 4000)
    labels = (rng.random(4000) < 1 / (1 + np.exp(-logits))).astype(np.float32)
    results = [
        {"pictures": part, **{name: 10 * logits[part] for name in ("plain", "jpeg60", "half")}}
        for part in np.array_split(np.arange(4000), 4)
    ]
    figures = cross_validated(labels, results)
    assert figures["plain"]["together"]["ece"] < 0.03 and figures["plain"]["auroc"]["std"] < 0.03
