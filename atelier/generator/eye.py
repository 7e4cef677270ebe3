"""A discriminator that looks through a network which has seen the world: frozen ImageNet features, small heads.

After Sauer et al., "Projected GANs converge faster" (2021): pictures are projected into the features of a frozen
network at several scales, which fixed random 1x1 convolutions mix across channels and scales, so that no
part of the features can be ignored; only the small heads behind them learn. Used beside the discriminator of pixels
it is Kumari et al., "Ensembling off-the-shelf models for GAN training" (2022).
"""

from __future__ import annotations

import contextlib
import sys
from pathlib import Path

import keras
from keras import layers, ops

from atelier.backend import first_line
from atelier.efficientnet import build_lite
from atelier.generator.networks import initializer
from atelier.seeds import STYLES

SCALES = ("block_2_add", "block_5_add", "block_12_add", "block_16_project_BN")
"""MobileNetV2's last layers at 1/4, 1/8, 1/16 and 1/32 of its input's side, of 24, 32, 96 and 320 channels."""

WIDTHS = (32, 32, 96, 192)
"""Channels after mixing. With 32 at every scale a linear probe told generated pictures, enlarged to 128 px, 76 and 69
times of 100 at the last two scales; with these 87 and 84 times, as they are 91 and 88 times (benchmarks/judges.py)."""

LITE_WIDTHS = (32, 40, 128, 192)
"""The same of EfficientNet-Lite0's maps at 1/4, 1/8, 1/16 (two of them, 80 and 112 channels) and 1/32."""


def build_eye(
    size: int, weights: str | Path = "imagenet", widths: tuple[int, ...] = WIDTHS, seed: int = 0
) -> keras.Model:
    """The frozen part: `image` (N, H, W, 3) in [-1, 1] to four maps (N, size / 4...32, size / 4...32, width).

    Args:
        size: side in pixels at which MobileNetV2 looks, a multiple of 32; pictures are resized to it.
        weights: a file of MobileNetV2's weights without its top, or "imagenet" to download them.
        widths: channels of each map.
        seed: of the random mixing, which must be the same when a run goes on.

    Raises:
        ValueError: the size is no multiple of 32, or the weights cannot be had.
    """
    _check_size(size)
    if weights != "imagenet" and not Path(weights).is_file():
        raise ValueError(f"no weights of MobileNetV2 at {weights}")
    try:
        known = None if weights != "imagenet" else weights
        with contextlib.redirect_stdout(sys.stderr):  # Keras prints its downloads
            network = keras.applications.MobileNetV2(include_top=False, weights=known, input_shape=(size, size, 3))
        if known is None:
            network.load_weights(str(weights))
    except Exception as error:
        raise ValueError(f"the weights of MobileNetV2 ({weights}) cannot be had: {first_line(error)}") from error
    backbone = keras.Model(network.input, [network.get_layer(name).output for name in SCALES])
    return _eye(backbone, size, widths, seed, "eye")


def build_lite_eye(size: int, weights: str | Path, seed: int = 0) -> keras.Model:
    """As `build_eye`, through EfficientNet-Lite0, whose maps have `LITE_WIDTHS` channels after mixing.

    Args:
        weights: as `build_lite` takes them.
    """
    _check_size(size)
    network = build_lite(size, weights)
    _, quarter, eighth, *sixteenth, thirtysecond, _ = network.outputs
    backbone = keras.Model(network.input, [quarter, eighth, layers.Concatenate()(sixteenth), thirtysecond])
    return _eye(backbone, size, LITE_WIDTHS, seed + 100, "lite_eye")


def _check_size(size: int) -> None:
    if size < 32 or size % 32:
        raise ValueError(f"the feature network looks at a multiple of 32 pixels, not {size}")


def _eye(backbone: keras.Model, size: int, widths: tuple[int, ...], seed: int, name: str) -> keras.Model:
    """Resizing, a frozen network and the fixed random mixing of its maps, each with those above it."""
    image = keras.Input((None, None, 3), name="image", dtype="float32")
    maps = backbone(layers.Resizing(size, size, interpolation="bilinear", dtype="float32")(image), training=False)
    mixed, above = [], None
    for number, features in reversed(list(enumerate(maps))):
        width = widths[number]
        features = _mix(width, seed + number, f"mix_{number}")(features)
        if above is not None:
            above = layers.UpSampling2D(interpolation="bilinear")(above)
            if above.shape[-1] != width:
                above = _mix(width, seed + 10 + number, f"narrow_{number}")(above)
            features = layers.Add()([features, above])
        mixed.insert(0, features)
        above = features
    eye = keras.Model(image, mixed, name=name)
    eye.trainable = False
    return eye


def _mix(width: int, seed: int, name: str) -> layers.Layer:
    """A fixed random 1x1 convolution."""
    random = keras.initializers.HeNormal(seed=seed)
    return layers.Conv2D(width, 1, use_bias=False, kernel_initializer=random, name=name)


def build_heads(eye: keras.Model, width: int = 48, name: str = "heads") -> keras.Model:
    """What learns: the eye's maps and `style` (N,) to `logits` (N, K), a few patches' opinions from every scale."""
    maps = [keras.Input(output.shape[1:], name=f"map_{number}") for number, output in enumerate(eye.outputs)]
    style = keras.Input((), name="style", dtype="int32")
    logits = []
    for number, x in enumerate(maps):
        while x.shape[1] > 4:
            x = layers.Conv2D(width, 4, 2, "same", kernel_initializer=initializer(), use_bias=False)(x)
            x = layers.LeakyReLU(0.2)(layers.BatchNormalization()(x))
        x = layers.Conv2D(width, 3, padding="same", kernel_initializer=initializer(), use_bias=False)(x)
        x = layers.LeakyReLU(0.2)(layers.BatchNormalization()(x))
        real = layers.Conv2D(1, 1, kernel_initializer=initializer(), dtype="float32")(x)  # (N, h, w, 1)
        styles = layers.Embedding(len(STYLES), width, embeddings_initializer=initializer(), dtype="float32")(style)
        match = ops.einsum("nhwc,nc->nhw", ops.cast(x, "float32"), styles)[..., None] / width**0.5
        logits.append(layers.Flatten(dtype="float32", name=f"logits_{number}")(real + match))
    return keras.Model([*maps, style], layers.Concatenate(dtype="float32")(logits), name=name)
