"""A trained generator's finest part, made narrow: a few maps learn to add to the picture what many added.

Half of what a generator with sub-pixels computes is its last two convolutions (`build_generator`), while all that they
are told are the maps before them. So a narrower pair can learn from the wide one alone, without any picture or judge
(Hinton et al., "Distilling the knowledge in a neural network", 2015; of a layer's numbers: Romero et al., "FitNets",
2015), and everything before it stays as it is.
"""

from __future__ import annotations

import math
from pathlib import Path

import keras
import numpy as np
from keras import layers

from atelier.generator.detail import load_generator
from atelier.progress import progress_bar
from atelier.seeds import STYLES
from atelier.training import save_model


def narrow(
    generator: str | Path,
    out: str | Path,
    *,
    width: int = 32,
    steps: int = 1000,
    batch_size: int = 16,
    learning_rate: float = 2e-3,
    seed: int = 0,
) -> float:
    """Write a generator whose last but one convolution has `width` maps, and else is the one in the file `generator`.

    Args:
        generator: a file of `save_generator`, of pictures painted by sub-pixels.
        out: where the new one goes.
        width: of the new finest part; less than it has now.
        steps: of the training, whose rate falls from `learning_rate` to nothing by half a cosine.
        batch_size: latents a step.

    Returns:
        what the new part cannot tell: the mean squared difference to what the wide one adds to the picture, in parts
        of its variance, of latents that neither has seen.

    Raises:
        ValueError: no such generator, it has no sub-pixels, or its finest part is as narrow already.
        OSError: `out` cannot be written.
    """
    if min(steps, batch_size) < 1 or not 0 < learning_rate < math.inf:
        raise ValueError("steps, pictures a step and the learning rate are above 0")
    wide = load_generator(generator)
    names = [f"{kind}_{wide.output_shape[1]}" for kind in ("detail", "to_rgb")]
    found = {layer.name: layer for layer in wide.layers if layer.name in names}
    if len(found) < 2:
        raise ValueError(f"{generator} has no finest part of sub-pixels")
    inner, outer = (found[name] for name in names)
    if not 0 < width < inner.filters:
        raise ValueError(
            f"the finest part has {inner.filters} maps: fewer are from 1 to {inner.filters - 1}, not {width}"
        )
    finest = _begun(inner, outer, width)

    told = keras.Model(wide.inputs, [inner.input, outer.output])
    told.trainable = False
    maps, wanted = told(wide.inputs, training=False)
    student = keras.Model(wide.inputs, layers.Subtract()([finest(maps), wanted]))
    rate = keras.optimizers.schedules.CosineDecay(learning_rate, steps)
    jit = "auto" if keras.backend.backend() == "jax" else False
    student.compile(keras.optimizers.Adam(rate), loss=_mean_square, jit_compile=jit)
    random = np.random.default_rng(seed)
    with progress_bar(total=steps, desc="narrowing", unit="step") as bar:
        step = keras.callbacks.LambdaCallback(on_train_batch_end=lambda batch, logs: bar.update())
        feed = _latents(random, batch_size, wide.input_shape[0][-1])
        student.fit(feed, steps_per_epoch=steps, verbose=0, shuffle=False, callbacks=[step])

    fresh = [next(_latents(random, 16, wide.input_shape[0][-1]))[0] for _ in range(8)]
    differences, all_of_it = (
        np.concatenate([model.predict_on_batch(batch) for batch in fresh])
        for model in (student, keras.Model(wide.inputs, outer.output))
    )
    save_model(_with_finest(wide, names, finest), Path(out))
    return float(np.square(differences).mean() / all_of_it.var(axis=(0, 1, 2)).mean())


def _begun(inner: layers.Conv2D, outer: layers.Conv2D, width: int) -> keras.Sequential:
    """Both convolutions with only those of the maps between them that say most."""
    (kernel, bias), (last, last_bias) = inner.get_weights(), outer.get_weights()
    says = np.square(kernel).sum(axis=(0, 1, 2)) * np.square(last).sum(axis=(0, 1, 3))
    kept = np.sort(np.argsort(says)[-width:])
    finest = keras.Sequential(
        [
            keras.Input(inner.input.shape[1:]),
            layers.Conv2D(width, inner.kernel_size, padding="same", activation="relu"),
            layers.Conv2D(outer.filters, outer.kernel_size, padding="same", dtype="float32"),
        ]
    )
    finest.set_weights([kernel[..., kept], bias[kept], last[:, :, kept], last_bias])
    return finest


def _latents(random: np.random.Generator, count: int, dim: int):
    """Endless batches for `fit`: latents, styles and a target of nothing."""
    while True:
        batch = {"latent": random.standard_normal((count, dim), np.float32)}
        batch["style"] = random.integers(len(STYLES), size=count).astype(np.int32)
        yield batch, np.zeros((count, 1), np.float32)


def _mean_square(_, difference):
    return keras.ops.mean(keras.ops.square(difference))


def _with_finest(wide: keras.Model, names: list[str], finest: keras.Sequential) -> keras.Model:
    """The generator again, its last two convolutions replaced."""
    config = wide.get_config()
    inner, outer = (next(layer for layer in config["layers"] if layer["name"] == name) for name in names)
    width = finest.layers[0].filters
    inner["config"]["filters"] = width
    for layer in (inner, outer):
        layer.pop("build_config", None)  # the old shapes
    made = keras.Model.from_config(config)
    for layer in made.layers:
        if layer.name not in names:
            layer.set_weights(wide.get_layer(layer.name).get_weights())
    for name, layer in zip(names, finest.layers, strict=True):
        made.get_layer(name).set_weights(layer.get_weights())
    return made
