import json
from dataclasses import replace

import keras
import numpy as np
import pytest

from atelier.__main__ import main as cli
from atelier.generator.narrow import narrow
from atelier.generator.recipe import Recipe
from atelier.generator.train import build_recipe_generator, save_generator
from atelier.seeds import STYLES

RANDOM = np.random.default_rng(0)

WIDE = Recipe(resolution=32, latent_dim=8, width=4, fine_width=12, residual=1, grain=True, mapping=1, subpixel=True)
"""With 12 maps at 16 pixels, and 36 before its sub-pixels."""

SLIM = replace(WIDE, half_width=8, finest_width=16)


def saved(path, recipe: Recipe = WIDE, spread: float = 0.3) -> keras.Model:
    """A generator with random weights, and its file."""
    model = build_recipe_generator(recipe)
    for variable in model.weights:
        low, high = (0.5, 1.5) if variable.path.endswith("variance") else (-spread, spread)
        variable.assign(RANDOM.uniform(low, high, variable.shape))
    save_generator(model, recipe, path)
    return model


def inputs(count: int = 10) -> list[np.ndarray]:
    return [RANDOM.standard_normal((count, 8), np.float32), np.arange(count, dtype=np.int32) % len(STYLES)]


def silence(model: keras.Model, silent: dict[str, list[int]]) -> None:
    """No layer that is named listens to these of its maps."""
    for name, maps in silent.items():
        kernel, *bias = model.get_layer(name).get_weights()
        kernel[:, :, maps] = 0
        model.get_layer(name).set_weights([kernel, *bias])


@pytest.mark.parametrize(
    ("wide", "slim"),
    [
        (replace(WIDE, residual=2), replace(SLIM, residual=2)),
        (WIDE, replace(WIDE, finest_width=16)),
        (replace(WIDE, subpixel=False), replace(WIDE, subpixel=False, half_width=8)),
    ],
    ids=["both", "finest", "without sub-pixels"],
)
def test_maps_that_say_nothing_are_left_out_and_the_pictures_stay(tmp_path, wide, slim):
    """Those that no layer listens to: the narrow generator is a plain one with the weights of all others."""
    model = build_recipe_generator(wide)
    model.set_weights(saved(tmp_path / "wide.h5", wide).get_weights())
    if slim.half_width:
        known = {layer.name for layer in model.layers}
        after = {"to_rgb_16", "refine_16", "refine_2_16", "detail_32", "up_32"} & known
        silence(model, {name: [1, 4, 5, 9] for name in after})
        silence(model, {name: [0, 3, 7, 11] for name in {"refined_16", "refined_2_16"} & known})
    if wide.subpixel:
        silence(model, {"to_rgb_32": RANDOM.permutation(36)[:20]})
    save_generator(model, wide, tmp_path / "wide.h5")
    assert narrow(tmp_path / "wide.h5", tmp_path / "slim.h5", slim, steps=1, learning_rate=1e-12) > 60
    made = keras.models.load_model(tmp_path / "slim.h5", compile=False)
    latents = inputs()
    np.testing.assert_allclose(made(latents), model(latents), atol=1e-3)
    same = build_recipe_generator(slim, transposed=True)
    assert [weight.shape for weight in made.weights] == [weight.shape for weight in same.weights]


def test_what_few_maps_paint_comes_near_what_many_painted(tmp_path):
    wide = saved(tmp_path / "wide.h5", spread=0.1)
    ratios = [
        narrow(tmp_path / "wide.h5", tmp_path / f"{steps}.h5", SLIM, steps=steps, learning_rate=rate)
        for steps, rate in ((1, 1e-9), (150, 1e-2))
    ]
    assert ratios[1] > ratios[0] + 3
    before, after = (keras.models.load_model(tmp_path / f"{steps}.h5", compile=False) for steps in (1, 150))
    for layer in before.layers:  # only what has fewer maps has learned, and no norm's averages
        if not layer.weights:
            continue
        pairs = zip(layer.get_weights(), after.get_layer(layer.name).get_weights(), strict=True)
        same = all(np.array_equal(*pair) for pair in pairs)
        large = layer.name.endswith(("_16", "_32"))
        learned = large and "norm" not in layer.name and not layer.name.startswith("grain_")
        assert same != learned, layer.name
    latents = inputs(50)
    ratio = 10 * np.log10(4 / np.square(np.asarray(wide(latents)) - np.asarray(after(latents))).mean())
    assert ratio == pytest.approx(ratios[1], abs=1)  # other latents


@pytest.mark.parametrize(
    ("recipe", "options", "message"),
    [
        (WIDE, {}, "as narrow as the recipe already"),
        (
            replace(SLIM, half_width=20),
            {},
            r"layer up_16 .* \(3, 3, 16, 12\) .* \(3, 3, 16, 20\)",
        ),
        (replace(SLIM, residual=0), {}, "only one of both has a layer refine_16"),
        (replace(SLIM, resolution=64), {}, "only one of both has a layer"),
        (SLIM, {"steps": 0}, "above 0"),
        (SLIM, {"learning_rate": float("nan")}, "above 0"),
    ],
)
def test_what_cannot_be_narrowed_is_an_error_and_nothing_is_written(tmp_path, recipe, options, message):
    saved(tmp_path / "wide.h5")
    with pytest.raises(ValueError, match=message):
        narrow(tmp_path / "wide.h5", tmp_path / "slim.h5", recipe, **{"steps": 1} | options)
    assert not (tmp_path / "slim.h5").exists()


def test_on_the_command_line(tmp_path, capsys):
    saved(tmp_path / "wide.h5")
    out, recipe = tmp_path / "new" / "generator.h5", tmp_path / "recipe.yaml"
    settings = ("resolution", "latent_dim", "width", "fine_width", "residual", "grain", "mapping", "subpixel")
    recipe.write_text("".join(f"{name}: {json.dumps(getattr(WIDE, name))}\n" for name in settings))
    command = ["narrow", str(tmp_path / "wide.h5"), "--config", str(recipe), "--out", str(out), "--steps", "2"]
    assert not cli([*command, "--set", "half_width=8"])
    answer = json.loads(capsys.readouterr().out)
    assert answer["output"] == out.as_posix() and answer["psnr"] > 0 and out.is_file()
    assert cli(command) == 2
    assert "as narrow as the recipe already" in capsys.readouterr().err
    (tmp_path / "wide.h5").write_text("hello")
    assert cli([*command, "--set", "half_width=8"]) == 2
    assert "no generator to start with" in capsys.readouterr().err
