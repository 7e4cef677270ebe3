"""The last doubling: what it adds, how it learns from pairs, and the generator made of both."""

import json

import keras
import numpy as np
import pytest

from atelier.dataset.loader import training_pictures
from atelier.generator.detail import (
    DetailGAN,
    DetailRecipe,
    build_detail,
    compose,
    load_generator,
    pairs,
    train_detail,
    without_detail,
)
from atelier.generator.networks import build_generator
from atelier.generator.painter import Painter
from atelier.training import TrainingError, save_model

RANDOM = np.random.default_rng(0)
RECIPE = DetailRecipe(size=16, width=4, blocks=1, crop=16, discriminator_width=4, batch_size=4)


def pictures(count=5, side=16):
    return RANDOM.uniform(-1, 1, (count, side, side, 3)).astype(np.float32)


def step_of(folder) -> int:
    with np.load(folder / "checkpoint.npz") as checkpoint:
        return int(checkpoint["extra/step"])


def scattered(model: keras.Model) -> keras.Model:
    for variable in model.weights:
        low, high = (0.5, 1.5) if variable.path.endswith("variance") else (-0.3, 0.3)
        variable.assign(RANDOM.uniform(low, high, variable.shape))
    return model


def test_at_first_it_enlarges_and_adds_nothing():
    images = pictures()
    expected = keras.layers.UpSampling2D(interpolation="bilinear")(images)
    np.testing.assert_allclose(build_detail(16, 4, 2)([images, np.arange(5)]), expected, atol=1e-6)


def test_the_style_decides_how_a_picture_is_painted():
    """And whatever its weights, the picture stays one."""
    detail = scattered(build_detail(16, 4, 2))
    made = np.asarray(detail([np.repeat(pictures(1), 5, axis=0), np.arange(5)]))
    assert made.shape == (5, 32, 32, 3) and np.abs(made).max() <= 1
    assert np.abs(made[1:] - made[0]).max(axis=(1, 2, 3)).min() > 0.01


def test_a_generator_and_its_detail_are_one_file_that_comes_apart_again(tmp_path):
    generator, detail = scattered(build_generator(16, 8, 4)), scattered(build_detail(16, 4, 2))
    save_model(compose(generator, detail), tmp_path / "generator.h5")
    latents, styles = RANDOM.standard_normal((3, 8)).astype(np.float32), np.arange(3, dtype=np.int32)
    small = np.asarray(generator([latents, styles]))
    loaded = keras.models.load_model(tmp_path / "generator.h5", compile=False)
    np.testing.assert_allclose(loaded([latents, styles]), detail([small, styles]), atol=1e-5)
    np.testing.assert_allclose(load_generator(tmp_path / "generator.h5")([latents, styles]), small, atol=1e-5)
    assert Painter.load(tmp_path / "generator.h5").size == 32  # which also checks the contract


def test_what_does_not_fit_together_is_an_error():
    generator, detail = build_generator(16, 8, 4), build_detail(16, 4, 1)
    assert without_detail(generator) is generator
    with pytest.raises(ValueError, match="has its detail already"):
        compose(compose(generator, detail), build_detail(32, 4, 1))
    with pytest.raises(ValueError, match="enlarges pictures of 32 px, and the generator's have 16"):
        compose(generator, build_detail(32, 4, 1))


def test_pairs_show_the_same_piece_of_the_same_picture():
    large = RANDOM.integers(0, 256, (6, 64, 64, 3), np.uint8)
    small = large[:, ::2, ::2]  # every other pixel, so that a piece knows where it comes from
    styles = np.array([0, 1, 2, 3, 4, 0])
    recipe = DetailRecipe(size=32, crop=16, batch_size=8)
    feed, mirrored = pairs(small, large, styles, recipe), 0
    for _ in range(5):
        (batch,) = next(feed)
        assert batch["small"].shape == (8, 16, 16, 3) and batch["large"].shape == (8, 32, 32, 3)
        straight = (batch["large"][:, ::2, ::2] == batch["small"]).all(axis=(1, 2, 3))
        turned = (batch["large"][:, ::2, ::-1][:, :, ::2][:, :, ::-1] == batch["small"][:, :, ::-1]).all(axis=(1, 2, 3))
        flipped = (batch["large"][:, ::2, 1::2] == batch["small"]).all(axis=(1, 2, 3))
        assert (straight | turned | flipped).all()
        mirrored += int(flipped.sum())
    assert 5 < mirrored < 35
    again = pairs(small, large, styles, recipe, start=4)
    assert np.array_equal(next(again)[0]["large"], batch["large"])


def test_it_learns_to_be_sharper_than_enlarging():
    """Stripes of one pixel's width are grey in the small picture; the network learns that they were there."""
    keras.utils.set_random_seed(0)
    stripes = np.zeros((8, 32, 32, 3), np.uint8)
    stripes[:, :, ::2] = RANDOM.integers(100, 256, (8, 1, 1, 3))
    small = stripes.reshape(8, 16, 2, 16, 2, 3).mean(axis=(2, 4)).astype(np.uint8)
    model = DetailGAN(DetailRecipe(size=16, width=8, blocks=1, crop=16, discriminator_width=4, batch_size=8, noise=0))
    model.compile(optimizer=keras.optimizers.Adam(0.01), jit_compile=False)
    batch = {"small": small, "large": stripes, "style": np.zeros(8, np.int32)}
    errors = [float(model.train_on_batch(batch, return_dict=True)["error"]) for _ in range(2)]
    for _ in range(60):
        model.reset_metrics()
        errors.append(float(model.train_on_batch(batch, return_dict=True)["error"]))
    assert errors[-1] < 0.3 * errors[0]
    assert int(model.steps.value) == 62


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"size": 20}, "power of two"),
        ({"crop": 64, "size": 32}, "crop is at most the size 32"),
        ({"width": 0}, "width is a positive number"),
        ({"noise": -1}, "noise is from 0 up"),
        ({"ema_decay": 1.5}, "ema_decay"),
    ],
)
def test_bad_settings_are_errors_before_anything_is_read(tmp_path, changed, message):
    with pytest.raises(ValueError, match=message):
        train_detail(["nowhere"], tmp_path / "run", minutes=1, recipe=DetailRecipe(**changed))
    assert not (tmp_path / "run").exists()


def test_a_run_makes_a_generator_of_twice_the_side_and_goes_on(tmp_path, art_folder):
    generator = scattered(build_generator(16, 8, 4))
    save_model(generator, tmp_path / "generator.h5")
    out = tmp_path / "run"
    options = {"minutes": 0.02, "recipe": RECIPE, "generator": tmp_path / "generator.h5"}
    made = train_detail([art_folder], out, **options)
    assert made == out / "generator.h5" and Painter.load(made).size == 32
    steps = int((out / "history.csv").read_text().splitlines()[-1].split(",")[0])
    assert (out / "samples" / f"{steps:07d}.png").is_file() and (out / "detail.h5").is_file()
    train_detail([art_folder], out, **options)
    assert int((out / "history.csv").read_text().splitlines()[-1].split(",")[0]) > steps
    other = scattered(build_generator(16, 8, 4))
    save_model(other, tmp_path / "other.h5")
    inputs = [RANDOM.standard_normal((2, 8)).astype(np.float32), np.arange(2, dtype=np.int32)]
    made = train_detail([art_folder], out, **(options | {"generator": tmp_path / "other.h5"}))
    np.testing.assert_allclose(load_generator(made)(inputs), other(inputs), atol=1e-5)  # not the checkpoint's painter
    assert json.loads((out / "recipe.json").read_text())["width"] == 4
    sheets = len(list((out / "samples").iterdir()))
    train_detail([art_folder], out, **(options | {"resume": False, "minutes": 1e-6}))
    assert sheets > 1 and len(list((out / "samples").iterdir())) == 1 and step_of(out) == 1
    with pytest.raises(TrainingError, match="other settings"):
        train_detail([art_folder], out, minutes=0.02)
    with pytest.raises(ValueError, match="paints 16 px, and the detail is for 64"):
        train_detail([art_folder], tmp_path / "other", minutes=0.02, generator=tmp_path / "generator.h5")


def test_the_pairs_of_a_run_are_the_same_pictures(art_folder):
    """Both sizes come from the same files in the same order."""
    small, styles = training_pictures([art_folder], 16)
    large, others = training_pictures([art_folder], 32)
    assert np.array_equal(styles, others)
    means = [images.astype(float).mean(axis=(1, 2)) for images in (small, large)]
    assert np.abs(means[0] - means[1]).max() < 8
