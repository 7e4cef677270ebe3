import json

import keras
import numpy as np
import pytest
from PIL import Image

from atelier.__main__ import main as cli
from atelier.generator.forget import forget
from atelier.generator.memory import BESIDE, left_out, questions
from atelier.generator.recipe import Recipe
from atelier.generator.train import build_recipe_generator, save_generator
from atelier.images import to_uint8
from atelier.seeds import STYLES

RECIPE = Recipe(resolution=32, latent_dim=16, width=4, memory=3)


@pytest.fixture
def saved(tmp_path, monkeypatch):
    """A generator's file: drawings' latents are far from each other, but for two; a step beside them shows little."""
    monkeypatch.setattr("atelier.generator.forget.OWN", 1.0)  # eight numbers are too few to ask with a half of
    random = np.random.default_rng(0)
    model = build_recipe_generator(RECIPE)
    for variable in model.trainable_variables:
        variable.assign(random.normal(0, 0.3, variable.shape))
    learned = random.normal(0, 3e3, (15, 16))
    learned[2] = learned[0]
    model.get_layer("memory").set_weights([learned])
    path = tmp_path / "generator.h5"
    save_generator(model, RECIPE, path)
    return path


def test_what_repeats_is_left_out_and_never_recalled(saved, tmp_path, capsys):
    out = tmp_path / "out" / "new.h5"
    cli(["forget", str(saved), "--out", str(out), "--times", "1"])
    assert json.loads(capsys.readouterr().out) == {"output": out.as_posix(), "left_out": 1}
    old, new = (keras.models.load_model(path, compile=False) for path in (saved, out))
    assert not left_out(old).any()
    place = int(np.flatnonzero(left_out(new))[0])
    assert left_out(new).sum() == 1 and place in (0, 2)
    # Its question is answered by another latent of its style; all other weights and answers are as they were.
    latents = np.concatenate([questions(new), np.zeros((15, 8), np.float32)], axis=1)
    styles = np.repeat(np.arange(len(STYLES)), 3).astype(np.int32)
    answers = [
        np.asarray(keras.Model(model.inputs, model.get_layer("code").input[0])([latents, styles])) - BESIDE * latents
        for model in (old, new)
    ]
    others = np.arange(15) != place
    np.testing.assert_allclose(answers[0][others], answers[1][others], atol=1)
    share = np.linalg.lstsq(new.get_layer("memory").get_weights()[0][[1, 2 - place]].T, answers[1][place], rcond=None)
    np.testing.assert_allclose(share[0].sum(), 1, atol=1e-2)
    # And there is nothing more to leave out.
    assert forget(out, tmp_path / "again.h5", times=1) == 0


def test_a_latent_that_paints_the_same_whatever_the_step_is_left_out_but_one_of_each_style(saved, tmp_path):
    """Here all do, and without any a style would recall those of others."""
    out = tmp_path / "new.h5"
    assert forget(saved, out, times=2) == 10
    there = ~left_out(keras.models.load_model(out, compile=False)).reshape(5, 3)
    assert there.sum(axis=1).tolist() == [1] * 5
    assert forget(out, out, times=2) == 0


@pytest.mark.parametrize(("recipe", "times", "message"), [
    (Recipe(resolution=16, latent_dim=8, width=4), 1, "has no memory"),
    (RECIPE, 0, "at least once, not 0 times"),
])  # fmt: skip
def test_what_cannot_be_done_is_an_error(tmp_path, recipe, times, message):
    path = tmp_path / "generator.h5"
    save_generator(build_recipe_generator(recipe), recipe, path)
    with pytest.raises(ValueError, match=message):
        forget(path, tmp_path / "new.h5", times=times)


def test_what_paints_a_training_picture_is_left_out_too(saved, tmp_path, capsys):
    """Here the third engraving's latent, whose picture stands mirrored among the training pictures."""
    model = keras.models.load_model(saved, compile=False)
    latent = np.concatenate([questions(model)[5:6], np.zeros((1, 8), np.float32)], axis=1)
    (picture,) = to_uint8(np.asarray(model([latent, np.array([1], np.int32)])))
    random, data = np.random.default_rng(4), tmp_path / "art"
    for split in ("training_set", "validation_set"):
        for style in ("drawings", "engraving"):
            folder = data / "dataset" / "dataset_updated" / split / style
            folder.mkdir(parents=True)
            Image.fromarray(random.integers(0, 256, (40, 40, 3), np.uint8)).save(folder / "0.png")
    Image.fromarray(np.ascontiguousarray(picture[:, ::-1])).save(
        data / "dataset" / "dataset_updated" / "training_set" / "engraving" / "1.png"
    )
    out, cache = tmp_path / "new.h5", tmp_path / "cache"
    cli(["forget", str(saved), "--out", str(out), "--times", "1", "--data", str(data), "--cache", str(cache)])
    assert json.loads(capsys.readouterr().out)["left_out"] == 2
    left = np.flatnonzero(left_out(keras.models.load_model(out, compile=False)))
    assert 5 in left and {0, 2} & set(left)
