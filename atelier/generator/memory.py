"""A generator's memory: latents that are each tied to a picture, and how a latent asks for one of them.

Learned with the weights (Bojanowski et al., "Optimizing the latent space of generative networks", 2018), in the game
against the judges; recalled by soft attention (Bahdanau et al., 2015) to fixed random keys.
"""

from __future__ import annotations

import keras
import numpy as np
from keras import layers

from atelier.seeds import STYLES

RECALL = 16.0
"""The inverse temperature of a memory's softmax: most questions are answered by one latent."""

UNASKED = -1e4
"""What a memory's softmax gets for latents that are not to be recalled: those of other styles, and those left out."""

BESIDE = 0.6
"""How far from a remembered latent one paints, in deviations of the latent: with less, two questions that recall the
same one may paint nearly the same picture (docs/experiments.md)."""

MEMORY = ("memory", "memory_keys", "memory_styles")
"""The layers that it is made of."""

APART = 0.3
"""Deviation of what is added to a copied latent, so that two pictures which share a start can part."""


def recalled(latent, style, memory: int, start: keras.Initializer):
    """The remembered latent of the style that the first half of `latent` asks for, and a little of `latent`.

    Args:
        latent, style: (N, latent_dim) float32 and (N,) int32 symbolic tensors.
        memory: latents of each style.
        start: what they are before anything is learned.
    """
    total, dim = len(STYLES) * memory, latent.shape[-1]
    ask = layers.Dense(total, use_bias=False, trainable=False, dtype="float32", name="memory_keys")
    own = layers.Embedding(len(STYLES), total, trainable=False, dtype="float32", name="memory_styles")
    question = layers.Flatten()(layers.Cropping1D((0, dim - dim // 2))(layers.Reshape((dim, 1))(latent)))
    likeness = layers.Add(dtype="float32")([ask(question), own(style)])  # (N, total)
    keys = np.random.default_rng(0).standard_normal((dim // 2, total))
    ask.set_weights([keys * RECALL / np.linalg.norm(keys, axis=0)])
    own.set_weights([np.where(np.arange(len(STYLES))[:, None] == np.arange(total) // memory, 0.0, UNASKED)])
    recall = layers.Dense(dim, use_bias=False, kernel_initializer=start, name="memory")
    return layers.Add()([recall(layers.Softmax(dtype="float32")(likeness)), layers.Rescaling(BESIDE)(latent)])


def memory_size(generator: keras.Model) -> int:
    """How many latents of each style a generator remembers: 0 without a memory."""
    return len(questions(generator)) // len(STYLES)


def questions(generator: keras.Model) -> np.ndarray:
    """What asks a generator's memory for each of its latents: first halves of latents, (len(STYLES) * memory,
    latent_dim // 2) float32 of a normal one's length, those of a style together. Without a memory there are none.
    """
    if "memory_keys" not in [layer.name for layer in generator.layers]:
        return np.zeros((0, generator.inputs[0].shape[-1] // 2), np.float32)
    keys = np.asarray(generator.get_layer("memory_keys").get_weights()[0]).T
    return (keys * keys.shape[1] ** 0.5 / RECALL).astype(np.float32)


def leave_out(generator: keras.Model, places: np.ndarray) -> None:
    """Let a generator's memory never again answer with the latents at (P,) places; what asked for them gets others."""
    layer = generator.get_layer("memory_styles")
    weights = layer.get_weights()[0]
    weights[:, places] = UNASKED
    layer.set_weights([weights])


def left_out(generator: keras.Model) -> np.ndarray:
    """Which latents of a generator's memory are left out: (len(STYLES) * memory,) bool."""
    return np.asarray(generator.get_layer("memory_styles").get_weights()[0]).max(axis=0) < UNASKED / 2


def remember_more(generator: keras.Model, trained: keras.Model) -> None:
    """Give a memory what a smaller one holds: of each style its latents first, then copies of them in turn, a little
    apart; `begin_like_the_most_alike` chooses better where the pictures are at hand. What is left out stays so.
    """
    few, many = memory_size(trained), memory_size(generator)
    latents, out = trained.get_layer("memory").get_weights()[0].reshape(len(STYLES), few, -1), left_out(trained)
    turns = np.arange(many) % few
    apart = APART * np.random.default_rng(0).standard_normal((len(STYLES), many, latents.shape[-1]))
    apart[:, :few] = 0.0
    generator.get_layer("memory").set_weights([(latents[:, turns] + apart).reshape(len(STYLES) * many, -1)])
    styles, places = np.divmod(np.flatnonzero(out), few)
    leave_out(generator, styles * many + places)


def begin_like_the_most_alike(
    generator: keras.Model, known: int, places: np.ndarray, pictures: np.ndarray, side: int = 8
) -> None:
    """Let the latents that are new in a memory begin as that of the most alike picture remembered before, a little
    apart from it.

    Args:
        generator: with a memory of which the first `known` latents of each style have learned.
        places: (P,) where in the memory.
        pictures: (P, H, W, 3) uint8, what stands there; alike are those of a style whose tones, averaged down to
            `side` pixels, differ least (mean squared difference).
    """
    memory, layer = memory_size(generator), generator.get_layer("memory")
    latents, random = layer.get_weights()[0], np.random.default_rng(1)
    count, height, width, _ = pictures.shape
    blocks = pictures.reshape(count, side, height // side, side, width // side, 3)
    tones = blocks.mean(axis=(2, 4), dtype=np.float32).reshape(count, -1)
    learned = places % memory < known
    for style in range(len(STYLES)):
        old, new = (np.flatnonzero((places // memory == style) & which) for which in (learned, ~learned))
        for index in new if len(old) else ():
            nearest = old[((tones[old] - tones[index]) ** 2).sum(axis=1).argmin()]
            apart = APART * random.standard_normal(latents.shape[1])
            latents[places[index]] = latents[places[nearest]] + apart
    layer.set_weights([latents])
