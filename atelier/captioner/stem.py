"""MobileNetV2 (Sandler et al., 2018) as a picture encoder's stem.

Its batch norms always use the statistics they came with, so each is a scale and a shift, and both are folded into the
convolution before it: TensorFlow makes one operation of convolution, bias and ReLU then.
"""

from __future__ import annotations

from collections.abc import Iterator

from keras import layers, ops

BLOCKS = [(16, 1), (24, 2), (24, 1), (32, 2), (32, 1), (32, 1), (64, 2), (64, 1), (64, 1), (64, 1)]
BLOCKS += [(96, 1), (96, 1), (96, 1), (160, 2), (160, 1), (160, 1), (320, 1)]
"""Channels and strides of the inverted residual blocks."""

CHANNELS = 1280
"""Of the feature map."""


class Stem(layers.Layer):
    """Pixels to a feature map a 32nd as high and wide.

    Layers, their names and order are those of `keras.applications.MobileNetV2` without its top, so its weights fit.
    """

    def __init__(self, **kwargs):
        super().__init__(**kwargs)
        self.convolutions, self.norms = [], []
        self._folded = None

    def build(self, shape=None):
        self._add("Conv1", "bn_Conv1", 3, 32)
        channels = 32
        for number, (width, _) in enumerate(BLOCKS):
            name, grown = f"block_{number}_" if number else "expanded_conv_", channels
            if number:  # the first block has nothing that expands
                grown = 6 * channels
                self._add(f"{name}expand", f"{name}expand_BN", channels, grown)
            self._add(f"{name}depthwise", f"{name}depthwise_BN", grown, None)
            self._add(f"{name}project", f"{name}project_BN", grown, width)
            channels = width
        self._add("Conv_1", "Conv_1_bn", channels, CHANNELS)

    def _add(self, name: str, norm: str, before: int, channels: int | None) -> None:
        """A convolution of `before` channels, depthwise where `channels` is None, and its batch norm."""
        if channels is None:
            layer = layers.DepthwiseConv2D(3, use_bias=False, name=name)
        else:
            layer = layers.Conv2D(channels, 3 if name == "Conv1" else 1, use_bias=False, name=name)
        self.convolutions.append(layer)
        self.norms.append(layers.BatchNormalization(epsilon=1e-3, name=norm))
        layer.build((None, None, None, before))
        self.norms[-1].build((None, None, None, channels or before))

    def _fold(self) -> Iterator[tuple]:
        """Kernel and bias of each convolution that do what convolution and batch norm did."""
        for convolution, norm in zip(self.convolutions, self.norms, strict=True):
            scale = norm.gamma * ops.rsqrt(norm.moving_variance + norm.epsilon)
            depthwise = isinstance(convolution, layers.DepthwiseConv2D)  # (3, 3, channels, 1), others (h, w, in, out)
            yield convolution.kernel * (scale[:, None] if depthwise else scale), norm.beta - norm.moving_mean * scale

    def freeze(self) -> None:
        """Fold once for all: every later call is faster, and does not see later changes of the weights."""
        self._folded = tuple(self._fold())

    def call(self, x):
        """(B, H, W, 3) float32 pixels in [-1, 1] -> (B, H / 32, W / 32, 1280) float32 features."""
        folded = iter(self._folded or self._fold())

        def convolve(x, strides=1, convolution=ops.conv, active=True):
            kernel, bias = next(folded)
            x = convolution(x, kernel, strides, "same") + bias
            return ops.relu6(x) if active else x

        x = convolve(x, 2)
        for number, (width, strides) in enumerate(BLOCKS):
            before = x
            if number:
                x = convolve(x)
            x = convolve(x, strides, ops.depthwise_conv)
            x = convolve(x, active=False)
            if strides == 1 and width == before.shape[-1]:
                x = x + before
        return convolve(x)
