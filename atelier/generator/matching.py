"""Generated pictures are drawn to real ones as a crowd and in pairs, not only judged one by one.

A discriminator asks whether one picture could be real, so a generator may answer with a few kinds of picture that can.
The energy distance (Szekely and Rizzo, 2013; for images Bellemare et al., "The Cramer distance as a solution to biased
Wasserstein gradients", 2017) between the features of all generated and of all real pictures is 0 only if both are
spread alike: each generated picture is drawn to the real ones and pushed off the other generated ones. The features
are those of the frozen network (as dos Santos et al., "Learning implicit generative models by matching perceptual
features", 2019), and queues of the latest pictures make up for a small batch (He et al., MoCo, 2020).
"""

from __future__ import annotations

import keras
from keras import ops


class CrowdDistance(keras.layers.Layer):
    """The energy distance from a batch of generated pictures to the real ones of their media, for the generator.

    Args:
        shapes: of the feature maps (h, w, channels), square. Each is averaged down to at most
            4x4 places and at most `most` numbers; its differences count in parts of their usual size.
        length: how many of the latest pictures, real and generated, are kept to compare with.
    """

    def __init__(self, shapes, length: int = 2048, most: int = 1024, **kwargs):
        super().__init__(trainable=False, dtype="float32", **kwargs)
        self.length = length
        self.sides = [
            max(side for side in (1, 2, 4) if height % side == 0 and (side == 1 or side**2 * channels <= most))
            for height, _, channels in shapes
        ]
        widths = [side**2 * channels for side, (_, _, channels) in zip(self.sides, shapes, strict=True)]
        self.real, self.fake = (
            [
                self.add_weight(name=f"{kind}_{number}", shape=(length, width), initializer="zeros", trainable=False)
                for number, width in enumerate(widths)
            ]
            for kind in ("real", "fake")
        )
        self.styles = self.add_weight(
            name="styles", shape=(length,), initializer=keras.initializers.Constant(-1), dtype="int32", trainable=False
        )
        self.built = True

    def call(self, real, fake, style):
        """Feature maps (N, h, w, C) of either side and the style (N,) to a scalar; remembers both afterwards."""
        same = ops.cast(ops.equal(style[:, None], self.styles.value[None, :]), "float32")  # (N, length)
        same = same / ops.maximum(ops.sum(same, axis=1, keepdims=True), 1.0)
        total, kept = 0.0, []
        for number, (theirs, ours) in enumerate(zip(real, fake, strict=True)):
            theirs, ours = (_places(maps, self.sides[number]) for maps in (theirs, ours))
            real_queue, fake_queue = self.real[number].value, self.fake[number].value
            usual = ops.mean(ops.sum(same * _distances(theirs, real_queue), axis=1))
            closer = ops.sum(same * _distances(ours, real_queue), axis=1)
            apart = ops.sum(same * _distances(ours, fake_queue), axis=1)
            total = total + ops.mean(closer - apart) / ops.stop_gradient(ops.maximum(usual, 1e-3))
            kept += [(self.real[number], theirs), (self.fake[number], ours)]
        for queue, latest in [*kept, (self.styles, style)]:
            latest = ops.cast(ops.stop_gradient(latest), queue.dtype)
            queue.assign(ops.concatenate([latest, queue.value])[: self.length])
        return total / len(real)


def difference(real, fake, paired):
    """How far generated pictures are from those beside them, as a frozen network sees them: a scalar.

    The mean squared difference of its maps, at each place and, twice as heavy, of their means over all places, in parts
    of the variance of the real pictures' channels (a perceptual loss, Johnson et al., 2016). Of unrelated pictures it
    is some 2.

    Args:
        real, fake: lists of maps (N, h, w, C).
        paired: (N,) weights in 0...1 of the pictures: 0 does not count.
    """
    total = 0.0
    for theirs, ours in zip(real, fake, strict=True):
        theirs, ours = ops.cast(theirs, "float32"), ops.cast(ours, "float32")
        apart = (theirs - ours) / (ops.std(theirs, axis=(0, 1, 2)) + 1e-3)
        places, means = ops.mean(apart**2, axis=(1, 2, 3)), ops.mean(ops.mean(apart, axis=(1, 2)) ** 2, axis=1)
        total = total + places + 2.0 * means
    return ops.sum(paired * total) / (ops.maximum(ops.sum(paired), 1.0) * len(real))


def tones_apart(real, fake, paired, side: int = 16):
    """The mean squared difference of pictures (N, H, W, 3) in [-1, 1], averaged down to `side` pixels: a scalar.

    Networks that were taught to name things hardly see colours. `paired` as above.
    """
    times = max(1, real.shape[1] // side)
    apart = ops.cast(real, "float32") - ops.cast(fake, "float32")
    apart = ops.mean(ops.average_pool(apart, times, times) ** 2, axis=(1, 2, 3))
    return ops.sum(paired * apart) / ops.maximum(ops.sum(paired), 1.0)


def _places(x, side: int):
    """Maps (N, h, h, C) averaged down to (N, side * side * C)."""
    times = x.shape[1] // side
    if times > 1:
        x = ops.average_pool(x, times, times)
    return ops.cast(ops.reshape(x, (-1, side * side * x.shape[3])), "float32")


def _distances(x, y):
    """(N, D) and (M, D) to the (N, M) lengths of their differences."""
    squares = ops.sum(x * x, axis=1)[:, None] + ops.sum(y * y, axis=1)[None, :] - 2.0 * ops.matmul(x, ops.transpose(y))
    return ops.sqrt(ops.maximum(squares, 1e-6))
