import json

import keras
import numpy as np
import pytest

from atelier.__main__ import main as cli
from atelier.generator.narrow import narrow
from atelier.generator.networks import build_generator
from atelier.seeds import STYLES

RANDOM = np.random.default_rng(0)


def generator(**options) -> keras.Model:
    """With random weights, and 48 maps before its sub-pixels unless told otherwise."""
    model = build_generator(16, latent_dim=8, width=4, transposed=True, **{"subpixel": True} | options)
    for variable in (each for each in model.weights if "smooth" not in each.path):
        low, high = (0.5, 1.5) if variable.path.endswith("variance") else (-0.3, 0.3)
        variable.assign(RANDOM.uniform(low, high, variable.shape))
    return model


def inputs(count: int = 10) -> list[np.ndarray]:
    return [RANDOM.standard_normal((count, 8), np.float32), np.arange(count, dtype=np.int32) % len(STYLES)]


def test_maps_that_say_nothing_are_left_out_and_the_pictures_stay(tmp_path):
    """Those that no later weight listens to: the narrow generator is a plain one with the weights of the others."""
    wide = generator()
    layer, silent = wide.get_layer("to_rgb_16"), RANDOM.permutation(48)[:28]
    kernel, bias = layer.get_weights()
    kernel[:, :, silent] = 0
    layer.set_weights([kernel, bias])
    wide.save(tmp_path / "wide.h5")
    unexplained = narrow(tmp_path / "wide.h5", tmp_path / "narrow.h5", width=20, steps=1, learning_rate=1e-9)
    assert 0 <= unexplained < 1e-6
    made = keras.models.load_model(tmp_path / "narrow.h5", compile=False)
    assert made.get_layer("detail_16").filters == 20 and made.count_params() < wide.count_params()
    latents = inputs()
    np.testing.assert_allclose(made(latents), wide(latents), atol=1e-5)
    same = build_generator(16, latent_dim=8, width=4, transposed=True, subpixel=True, finest_width=20)
    assert [weight.shape for weight in made.weights] == [weight.shape for weight in same.weights]


def test_what_few_maps_add_comes_near_what_many_added(tmp_path):
    wide = generator()
    wide.save(tmp_path / "wide.h5")
    shares = [
        narrow(tmp_path / "wide.h5", tmp_path / f"{steps}.h5", width=24, steps=steps, learning_rate=rate)
        for steps, rate in ((1, 1e-9), (150, 1e-2))
    ]
    assert shares[1] < 0.5 * shares[0]
    before, after = (keras.models.load_model(tmp_path / f"{steps}.h5", compile=False) for steps in (1, 150))
    for layer in before.layers:  # only the finest part has learned
        pairs = zip(layer.get_weights(), after.get_layer(layer.name).get_weights(), strict=True)
        same = all(np.array_equal(*pair) for pair in pairs)
        assert same != (layer.name in ("detail_16", "to_rgb_16"))
    latents = inputs(50)
    pictures = keras.Model(wide.inputs, wide.get_layer("to_rgb_16").output)(latents)
    made = keras.Model(after.inputs, after.get_layer("to_rgb_16").output)(latents)
    share = np.square(np.asarray(made) - pictures).mean() / np.asarray(pictures).var(axis=(0, 1, 2)).mean()
    assert share == pytest.approx(shares[1], rel=0.3)  # other latents


@pytest.mark.parametrize(
    ("options", "changes", "message"),
    [
        ({"subpixel": False}, {}, "has no finest part of sub-pixels"),
        ({}, {"width": 48}, "48 maps: fewer are from 1 to 47, not 48"),
        ({}, {"width": 0}, "not 0"),
        ({}, {"steps": 0}, "above 0"),
        ({}, {"learning_rate": float("nan")}, "above 0"),
    ],
)
def test_what_cannot_be_narrowed_is_an_error_and_nothing_is_written(tmp_path, options, changes, message):
    generator(**options).save(tmp_path / "wide.h5")
    with pytest.raises(ValueError, match=message):
        narrow(tmp_path / "wide.h5", tmp_path / "narrow.h5", **{"width": 8, "steps": 1} | changes)
    assert not (tmp_path / "narrow.h5").exists()


def test_on_the_command_line(tmp_path, capsys):
    generator().save(tmp_path / "wide.h5")
    out = tmp_path / "new" / "generator.h5"
    assert not cli(["narrow", str(tmp_path / "wide.h5"), "--out", str(out), "--width", "8", "--steps", "2"])
    answer = json.loads(capsys.readouterr().out)
    assert answer["output"] == out.as_posix() and answer["unexplained"] > 0 and out.is_file()
    (tmp_path / "text.h5").write_text("hello")
    assert cli(["narrow", str(tmp_path / "text.h5"), "--out", str(out)]) == 2
    assert "no generator to start with" in capsys.readouterr().err
