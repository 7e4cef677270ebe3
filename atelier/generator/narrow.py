"""A trained generator made narrow: fewer maps at its largest sizes learn to paint what many painted.

Most of what a generator computes stands at its largest sizes, while what is painted and where has been decided before.
So layers of fewer maps can learn from the wide ones alone, without any picture or judge (Hinton et al., "Distilling the
knowledge in a neural network", 2015), and all other layers stay as they are. They begin with the maps that say most
(Li et al., "Pruning filters for efficient convnets", 2017).
"""

from __future__ import annotations

import math
import re
from pathlib import Path

import keras
import numpy as np
from keras import layers

from atelier.generator.detail import load_generator
from atelier.generator.networks import layer_weights, learned_layers
from atelier.generator.recipe import Recipe
from atelier.generator.train import build_recipe_generator, save_generator
from atelier.progress import progress_bar
from atelier.seeds import STYLES

PROBES = 64
"""Latents that tell how large the maps are."""


def narrow(
    generator: str | Path,
    out: str | Path,
    recipe: Recipe,
    *,
    steps: int = 2000,
    batch_size: int = 16,
    learning_rate: float = 3e-4,
    seed: int = 0,
) -> float:
    """Write a generator as narrow as a recipe's, which paints as nearly as it can what the one in a file paints.

    Args:
        generator: a file of `save_generator`.
        out: where the new one goes.
        recipe: that of `generator`, with fewer maps somewhere (`half_width`, `finest_width`).
        steps: of the training, whose rate falls from `learning_rate` to nothing by half a cosine.
        batch_size: latents a step.

    Returns:
        the peak signal-to-noise ratio in dB between both generators' pictures, of latents that no step has seen.

    Raises:
        ValueError: no such generator, or it is of another kind or no wider than the recipe's.
        OSError: `out` cannot be written.
    """
    if min(steps, batch_size) < 1 or not 0 < learning_rate < math.inf:
        raise ValueError("steps, pictures a step and the learning rate are above 0")
    wide, small = load_generator(generator), build_recipe_generator(recipe)
    dim = wide.input_shape[0][-1]
    fewer = _copy_and_choose(wide, small, *next(_latents(np.random.default_rng(seed), PROBES, dim))[0].values())
    for layer in small.layers:
        layer.trainable = layer.name in fewer and not isinstance(layer, layers.BatchNormalization)

    wide.trainable = False
    student = keras.Model(wide.inputs, layers.Subtract()([small(wide.inputs), wide.output]))
    rate = keras.optimizers.schedules.CosineDecay(learning_rate, steps)
    jit = "auto" if keras.backend.backend() == "jax" else False
    student.compile(keras.optimizers.Adam(rate, clipnorm=1.0), loss=_mean_square, jit_compile=jit)
    feed = _latents(np.random.default_rng([seed, 1]), batch_size, dim)
    with progress_bar(total=steps, desc="narrowing", unit="step") as bar:
        for _ in range(steps):
            student.reset_metrics()  # so that the loss is this step's
            loss = student.train_on_batch(*next(feed))
            bar.set_postfix(loss=f"{float(loss):.5f}", refresh=False)
            bar.update()

    unseen = _latents(np.random.default_rng([seed, 2]), 16, dim)
    errors = [
        np.square(wide.predict_on_batch(batch) - small.predict_on_batch(batch)).mean()
        for batch, _ in (next(unseen) for _ in range(8))
    ]
    save_generator(small, recipe, Path(out))
    return float(10 * np.log10(4 / np.mean(errors)))  # of a range of 2


def _copy_and_choose(wide: keras.Model, small: keras.Model, latents: np.ndarray, styles: np.ndarray) -> set[str]:
    """Give the narrow generator the wide one's weights, where it has fewer maps those of the maps that say most.

    Returns:
        the names of the layers that lack some.

    Raises:
        ValueError: a layer that only one of both has, or that is wider in the narrow one; or none lacks any.
    """
    known, ours = ({layer.name: layer for layer in learned_layers(each)} for each in (wide, small))
    if odd := sorted(known.keys() ^ ours.keys()):
        raise ValueError(f"the generator is not of the recipe's kind: only one of both has a layer {odd[0]}")
    listeners: dict[str, list[layers.Layer]] = {}
    for name, layer in known.items():
        if isinstance(layer, (layers.Conv2D, layers.Conv2DTranspose)):
            listeners.setdefault(_groups(name, known)[0], []).append(layer)
    heard = {layer.name: layer.input for group in listeners.values() for layer in group}
    inputs = keras.Model(wide.inputs, heard).predict_on_batch([latents, styles])
    kept: dict[str, np.ndarray] = {}

    def chosen(group: str, count: int, of: int) -> np.ndarray:
        """Which of a group's maps stay: those of which most arrives in the layers that listen to them."""
        if count == of:
            return np.arange(of)
        if group not in kept:
            says = np.zeros(of)
            for layer in listeners.get(group, ()):
                kernel = layer_weights(layer)[0]  # (h, w, in, out)
                says += np.square(inputs[layer.name]).mean(axis=(0, 1, 2)) * np.square(kernel).sum(axis=(0, 1, 3))
            kept[group] = np.sort(np.argsort(says)[of - count :])
        return kept[group]

    fewer = set()
    for name, place in ours.items():
        hears, speaks = _groups(name, known)
        weights = layer_weights(known[name])
        shapes = [tuple(weight.shape) for weight in place.weights]
        for index, (weight, shape) in enumerate(zip(weights, shapes, strict=True)):
            if len(shape) != weight.ndim or any(few > many for few, many in zip(shape, weight.shape, strict=True)):
                raise ValueError(f"layer {name} has {weight.shape} weights, which do not become {shape}")
            if shape == weight.shape:
                continue
            fewer.add(name)
            weight = weight.take(chosen(speaks, shape[-1], weight.shape[-1]), axis=-1)
            if weight.ndim == 4:
                weight = weight.take(chosen(hears, shape[-2], weight.shape[-2]), axis=-2)
            if weight.shape != shape:
                raise ValueError(f"layer {name} cannot have fewer maps")
            weights[index] = weight
        place.set_weights(weights)
    if not fewer:
        raise ValueError("the generator is as narrow as the recipe already: a smaller half_width or finest_width")
    return fewer


def _groups(name: str, known: dict[str, layers.Layer]) -> tuple[str, str]:
    """Names for the maps that a layer of `build_generator` takes and for those that it makes."""
    if parts := re.fullmatch(r"(refined?)_(\d+_)?((?:norm|scale|shift)_)?(\d+)", name):
        kind, number, modulation, size = parts.groups()
        here, inside = f"maps {size}", f"inside {number or ''}{size}"
        return (inside, here) if kind == "refined" else ("" if modulation else here, inside)
    parts = re.fullmatch(r"([a-z_]+)_(\d+)", name)
    if not parts:
        return "", ""
    kind, size = parts[1], int(parts[2])
    here, finest = f"maps {size}", f"finest {size}"
    if kind == "detail":
        return f"maps {size // 2}", finest
    if kind == "to_rgb":
        return finest if f"detail_{size}" in known else here, "colours"
    return f"maps {size // 2}" if kind == "up" else "", here


def _latents(random: np.random.Generator, count: int, dim: int):
    """Endless batches: latents, styles and a target of nothing."""
    while True:
        batch = {"latent": random.standard_normal((count, dim), np.float32)}
        batch["style"] = random.integers(len(STYLES), size=count).astype(np.int32)
        yield batch, np.zeros((count, 1), np.float32)


def _mean_square(_, difference):
    return keras.ops.mean(keras.ops.square(difference))
