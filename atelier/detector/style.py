"""A second opinion beside the tuned network: kernel ridge regression on a picture's style.

Style is meant as by Gatys et al., "Image Style Transfer Using Convolutional Neural Networks" (2016): which channels of
feature maps go together, wherever in the picture. A few hundred pictures are too few to tune early layers by,
but pictures of one style lie close to each other already, and a kernel machine needs no more than that. Nearness is
asked for along a few directions, in which styles differ most; in all others, a weight for each covariance serves.
"""

from __future__ import annotations

from dataclasses import dataclass

import keras
import numpy as np
from keras import layers

MIXED = 96
"""Channels to which a fixed random 1x1 convolution brings EfficientNet-Lite0's maps."""

CHANNELS = (24, 32, 64, 96, MIXED)
"""Of the feature maps whose covariances are the style: those of `networks.STYLED`, and the mixed ones."""

LEVEL = np.repeat(1 / np.array(CHANNELS), np.square(CHANNELS)).astype(np.float32)
"""(D,) what each covariance is multiplied by, so that all levels count alike."""

COMPONENTS = 64
"""Principal components of the styles that are compared by a Gaussian kernel."""

WIDTH = 0.6
"""Of the Gaussian kernel, as a share of the mean squared distance of two styles."""

REST = 0.4
"""What the linear kernel of all that those components leave out counts, beside the Gaussian one."""

RIDGE = 0.1
"""What is added to the kernel matrix' diagonal."""

CHANGED = 0.1
"""What a style of a changed picture counts in learning, beside one of the picture as it is."""

LOGITS = 10.0
"""Logits for an answer of 1, where the targets are -1 and 1: the style's logits spread twice as far as the network's,
since it is the better judge."""


def style_of(maps: list[keras.KerasTensor]) -> keras.KerasTensor:
    """The covariances of each map's channels over all its places: (N, D), D the sum of the squares of `CHANNELS`."""
    return layers.Concatenate(name="style")([_covariances(each) for each in maps])


def _covariances(maps):
    _, height, width, channels = maps.shape
    flat = layers.Reshape((height * width, channels))(maps)  # (N, places, channels)
    centred = layers.Subtract()([flat, layers.GlobalAveragePooling1D(keepdims=True)(flat)])
    products = layers.Dot(axes=1)([centred, centred])  # (N, channels, channels)
    return layers.Flatten()(layers.Rescaling(1 / (height * width))(products))


@dataclass(frozen=True)
class StyleMachine:
    """Kernel ridge regression (Saunders et al., 1998) on styles, float32.

    Its kernel is the sum of a Gaussian one on the first principal components and a linear one on all others. What the
    latter learns is one vector, however long, while the former needs an axis for each component.
    """

    mean: np.ndarray
    """(D,) of the training styles."""
    deviation: np.ndarray
    """(D,), their standard deviation."""
    axes: np.ndarray
    """(D, C) principal axes of the standardised and tamed styles, so long that the kernel is exp(-squared distance)."""
    centre: np.ndarray
    """(C,), where the mean of the training styles lies on the axes."""
    points: np.ndarray
    """(P, C) training styles on the axes."""
    weights: np.ndarray
    """(P,) of the points, in logits."""
    line: np.ndarray
    """(D,) of the standardised and tamed styles, in logits: what the linear kernel has learnt."""
    bias: float
    """In logits."""

    @classmethod
    def fit(cls, styles: np.ndarray, labels: np.ndarray, changed: np.ndarray | None = None) -> StyleMachine:
        """Learn from (N, V, D) styles of N pictures' views, and (N,) labels, 1 for AI, else 0.

        Args:
            changed: (N, W, D), of views of the same pictures after what is to tell nothing, such as compression. They
                are learnt from, too, but what styles are like and in which directions they differ most the others say.
        """
        mean, deviation = styles.mean(axis=(0, 1)), styles.std(axis=(0, 1)) + 1e-4
        sets = [styles] if changed is None else [styles, changed]
        tamed = np.concatenate([_softsign((each - mean) / deviation).reshape(-1, styles.shape[-1]) for each in sets])
        tamed *= LEVEL
        targets = np.concatenate([np.repeat(2.0 * labels - 1, each.shape[1]) for each in sets])
        own = labels.size * styles.shape[1]
        middle = tamed[:own].mean(axis=0)
        tamed -= middle
        products = tamed @ tamed.T  # far fewer styles than covariances: these serve
        lengths, turned = np.linalg.eigh(products[:own, :own])
        kept = np.flatnonzero(lengths > 1e-5 * lengths[-1])[-COMPONENTS:]
        axes = tamed[:own].T @ (turned[:, kept] / np.sqrt(lengths[kept]))
        inside, size = tamed @ axes, float(np.trace(products[:own, :own])) / own
        rest = products - inside @ inside.T
        longer = np.sqrt(1 / (WIDTH * 2 * size))
        points = inside * longer
        kernel = np.exp(-_squared_distances(points, points).astype(np.float64)) + REST / size * rest
        ridge = np.where(np.arange(targets.size) < own, RIDGE, RIDGE / CHANGED)  # an error's weight is 1 / ridge
        weights = LOGITS * np.linalg.solve(kernel + np.diag(ridge), targets - targets.mean())
        line = REST / size * (weights @ tamed - axes @ (weights @ inside))
        axes *= longer
        found = (mean, deviation, LEVEL[:, None] * axes, middle @ axes, points, weights, LEVEL * line)
        bias = LOGITS * targets.mean() - middle @ line
        return cls(*(part.astype(np.float32) for part in found), bias=float(bias))

    def judge(self, styles: np.ndarray) -> np.ndarray:
        """The mean logit of each picture's views, out of their (N, V, D) styles: (N,) float64."""
        tamed = _softsign((styles.reshape(-1, styles.shape[-1]) - self.mean) / self.deviation)
        near = np.exp(-_squared_distances(tamed @ self.axes - self.centre, self.points))
        logits = near.astype(np.float64) @ self.weights + tamed @ self.line + self.bias
        return logits.reshape(len(styles), -1).mean(axis=1)

    def layer_on(self, style: keras.KerasTensor) -> keras.KerasTensor:
        """The same as built-in layers, from (N, D) styles to (N, 1) logits; the last one is named "style_head"."""
        components, count = self.axes.shape[1], len(self.points)
        standardise = layers.BatchNormalization(center=False, scale=False, epsilon=0.0, trainable=False)
        project = layers.Dense(components)
        compare = layers.Dense(count, activation="exponential")  # of -|x - p|² = -|x|² + 2 x p - |p|²
        weigh = layers.Dense(1)
        head = layers.Dense(1, name="style_head")
        tamed = layers.Activation("softsign")(standardise(style))  # (N, D)
        x = project(tamed)  # (N, C)
        length = layers.Rescaling(-1.0)(layers.Dot(axes=1)([x, x]))  # (N, 1)
        near = compare(layers.Concatenate()([x, length]))  # (N, P)
        logit = head(layers.Concatenate()([near, weigh(tamed)]))
        standardise.set_weights([self.mean, np.square(self.deviation)])
        project.set_weights([self.axes, -self.centre])
        kernel = np.concatenate([2 * self.points.T, np.ones((1, count))])
        compare.set_weights([kernel, -np.square(self.points).sum(axis=1)])
        weigh.set_weights([self.line[:, None], np.zeros(1)])
        head.set_weights([np.append(self.weights, 1)[:, None], np.array([self.bias])])
        return logit


def _softsign(x: np.ndarray) -> np.ndarray:
    """x / (1 + |x|): covariances have heavy tails."""
    return x / (1 + np.abs(x))


def _squared_distances(rows: np.ndarray, others: np.ndarray) -> np.ndarray:
    lengths = np.square(rows).sum(axis=1)[:, None] + np.square(others).sum(axis=1)
    return np.maximum(lengths - 2 * rows @ others.T, 0)
