"""Differentiable augmentation: what the discriminator sees is jittered, so that it cannot learn a small set by heart.

Zhao et al., "Differentiable augmentation for data-efficient GAN training" (2020). Real and generated pictures pass
through the same random changes, and the generator's gradient flows back through them.
"""

from __future__ import annotations

import keras
from keras import ops

POLICIES = ("color", "translation", "cutout")


class DiffAugment(keras.layers.Layer):
    """Pictures (N, H, W, 3) in [-1, 1] to randomly changed ones of the same shape; every picture has its own change.

    Args:
        policy: names out of `POLICIES`, in the order in which they act.
        strength: from 0 (nothing changes) through 1 (the paper's changes) to less than 2: multiplies how far each goes.
        seed: of the layer's own random stream, whose state is saved with the layer.
    """

    def __init__(self, policy: tuple[str, ...] = POLICIES, strength: float = 1.0, seed: int = 0, **kwargs):
        super().__init__(**kwargs)
        if unknown := set(policy) - set(POLICIES):
            raise ValueError(f"augmentations are {', '.join(POLICIES)}, not {', '.join(sorted(unknown))}")
        if not 0 <= strength < 2:
            raise ValueError(f"strength is from 0 up and less than 2, not {strength}")
        self.policy, self.strength = tuple(policy), strength
        self.random = keras.random.SeedGenerator(seed)

    def call(self, images):
        dtype = images.dtype
        images = ops.cast(images, "float32")
        for name in self.policy:
            images = getattr(self, name)(images)
        return ops.cast(images, dtype)

    def _uniform(self, shape, low, high):
        return keras.random.uniform(shape, low, high, seed=self.random)

    def color(self, images):
        """Brightness by +-0.5, saturation by 0...2, contrast by 0.5...1.5, at strength 1."""
        each, strength = (ops.shape(images)[0], 1, 1, 1), self.strength
        images = images + self._uniform(each, -0.5 * strength, 0.5 * strength)
        grey = ops.mean(images, axis=3, keepdims=True)
        images = grey + (images - grey) * self._uniform(each, max(0.0, 1 - strength), 1 + strength)
        mean = ops.mean(images, axis=(1, 2, 3), keepdims=True)
        return mean + (images - mean) * self._uniform(each, 1 - 0.5 * strength, 1 + 0.5 * strength)

    def translation(self, images, ratio: float = 0.125):
        """Shifted by up to `ratio` of the side both ways; what comes in from outside is grey (0)."""
        count, height, width = ops.shape(images)[0], images.shape[1], images.shape[2]
        # A shift is a product with a shifted identity matrix: one way that is fast, and differentiable, everywhere.
        rows = self._shifts(count, height, ratio * self.strength)
        columns = self._shifts(count, width, ratio * self.strength)
        images = ops.reshape(ops.matmul(rows, ops.reshape(images, (-1, height, width * 3))), (-1, height, width, 3))
        return ops.einsum("nvw,nhwc->nhvc", columns, images)

    def _shifts(self, count, side: int, ratio: float):
        """(count, side, side) matrices, each moving a line of `side` pixels by a random whole number."""
        most = int(side * ratio + 0.5)
        shift = ops.floor(self._uniform((count, 1, 1), -most, most + 1))
        place = ops.arange(side, dtype="float32")
        return ops.cast(ops.equal(place[None, :, None] + shift, place[None, None, :]), "float32")

    def cutout(self, images, ratio: float = 0.5):
        """A square of `ratio` of the side, anywhere (also partly outside), becomes grey (0)."""
        count, height, width = ops.shape(images)[0], images.shape[1], images.shape[2]
        ratio = ratio * self.strength
        inside = self._span(count, height, ratio)[:, :, None, None] * self._span(count, width, ratio)[:, None, :, None]
        return images * (1.0 - inside)

    def _span(self, count, side: int, ratio: float):
        """(count, side): 1 within a random stretch of `ratio` of the side, else 0."""
        centre = ops.floor(self._uniform((count, 1), 0, side + 1))
        place = ops.arange(side, dtype="float32")[None, :]
        return ops.cast(ops.abs(place - centre) < ratio * side / 2, "float32")
