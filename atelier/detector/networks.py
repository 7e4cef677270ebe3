"""The networks: a small CNN as the honest baseline; EfficientNet-Lite0 with a new head, and MobileNetV2 for style."""

from __future__ import annotations

import contextlib
import sys
from dataclasses import dataclass, replace
from pathlib import Path

import keras
import numpy as np
from keras import layers

from atelier.backend import first_line
from atelier.detector.recipe import Recipe
from atelier.detector.style import MIXED, StyleMachine, style_of
from atelier.detector.views import SIDE
from atelier.efficientnet import build_lite

BLOCKS = [(24, 2), (24, 1), (32, 2), (32, 1), (32, 1), (64, 2), (64, 1), (64, 1), (64, 1), (96, 1), (96, 1), (96, 1)]
"""Channels and strides of MobileNetV2's inverted residual blocks, after the first one and as far as style asks."""

STYLED = (2, 5, 6, 12)
"""Blocks of MobileNetV2 whose maps give the style, beside EfficientNet-Lite0's at the cut, mixed; style.py knows their
channels."""

LITE_SIDE = 160
"""At which EfficientNet-Lite0 looks: it tells nearly as much as at 224 pixels (docs/detector.md), in half the time."""

CUT = 5
"""Which of its maps, (5, 5, 192) numbers a view, is the last that stays as ImageNet taught it; the rest learns."""


class WeightsError(ValueError):
    """MobileNetV2's weights cannot be had."""


@dataclass(frozen=True)
class Network:
    """One network cut in two; `whole` shares the layers of both halves."""

    frozen: keras.Model
    """(N, SIDE, SIDE, 3) in [0, 255] to maps that never change: (N, 5, 5, 192), of the baseline (N, 96, 96, 3)."""
    learning: keras.Model
    """From there to (N, 1) logits; its last layer is named "head"."""
    whole: keras.Model
    """(N, SIDE, SIDE, 3) in [0, 255] to (N, 1) probabilities that a machine made the picture."""
    style: keras.Model | None = None
    """(N, SIDE, SIDE, 3) in [0, 255] to (N, D) styles, for `with_style`; the baseline has none."""


def build_network(recipe: Recipe, weights: str) -> Network:
    """A recipe's `build_transfer` or `build_baseline`; `weights` as the former takes them."""
    if recipe.network == "transfer":
        return build_transfer(weights, recipe.lite, recipe.dropout, recipe.seed)
    return build_baseline(recipe.dropout, recipe.seed)


def build_transfer(weights: str = "imagenet", lite: str = "package", dropout: float = 0.3, seed: int = 0) -> Network:
    """EfficientNet-Lite0 (Tan and Le, 2019), pooled, with dropout and one unit on top, and beside it MobileNetV2
    (Sandler et al., 2018), of which nothing is tuned, for style.

    Batch norm is folded into the convolutions from the beginning: its statistics would be those of a few pictures, and
    without it the networks are faster.

    Args:
        weights: MobileNetV2's: a file of Keras's weights without the top, or "imagenet" (downloaded).
        lite: EfficientNet-Lite0's, as `build_lite` takes them.
        dropout: of the 1,280 pooled features.
        seed: of the new unit's weights and of the dropout.

    Raises:
        WeightsError: no such file, other weights, or no internet.
        ValueError: the same of EfficientNet-Lite0's.
    """
    taught = _with_batch_norm(weights)
    pixels = layers.Input((SIDE, SIDE, 3), name="pixels")
    scaled = layers.Rescaling(1 / 127.5, offset=-1, name="to_minus_one_to_one")(pixels)
    network = build_lite(LITE_SIDE, lite, top=True)
    trunk = keras.Model(network.input, network.outputs[CUT], name="trunk")
    tail = keras.Model(network.outputs[CUT], network.outputs[-1], name="tail")
    cut = trunk(layers.Resizing(LITE_SIDE, LITE_SIDE, name="small")(scaled))
    features = layers.GlobalAveragePooling2D(name="pooled")(tail(cut))
    dropped = layers.Dropout(dropout, seed=seed, name="dropout")(features)
    start = keras.initializers.GlorotUniform(seed)
    found = _network(pixels, cut, layers.Dense(1, kernel_initializer=start, name="head")(dropped))
    # Fewer covariances than 192 channels have, of which any mixture is as good.
    mixing = keras.initializers.Orthogonal(seed=0)
    mix = layers.Conv2D(MIXED, 1, use_bias=False, kernel_initializer=mixing, trainable=False, name="mix")
    style = keras.Model(pixels, style_of([*_mobilenet(scaled), mix(cut)]), name="style_of_pixels")
    style.jit_compile = False
    for layer in (*style.layers, *trunk.layers):
        if isinstance(layer, (layers.Conv2D, layers.DepthwiseConv2D)):
            known = layer in trunk.layers or layer is mix
            kernel, *bias = layer.get_weights() if known else _folded(taught, layer)
            # In the file kernels are float16: so the styles that training sees are those that the file will see.
            layer.set_weights([kernel.astype(np.float16).astype(np.float32), *bias])
    return replace(found, style=style)


def _mobilenet(x) -> list[keras.KerasTensor]:
    """MobileNetV2 without batch norm, its layers named as in keras.applications, as far as style asks: `STYLED`."""
    x = layers.Conv2D(32, 3, strides=2, padding="same", activation="relu6", name="Conv1")(x)
    x = layers.DepthwiseConv2D(3, padding="same", activation="relu6", name="expanded_conv_depthwise")(x)
    x = layers.Conv2D(16, 1, name="expanded_conv_project")(x)
    maps = []
    for number in range(1, STYLED[-1] + 1):
        x = _block(x, number)
        maps += [x] if number in STYLED else []
    return maps


def _block(x, number: int):
    """One of `BLOCKS`."""
    (channels, strides), before, name = BLOCKS[number - 1], x, f"block_{number}"
    x = layers.Conv2D(6 * x.shape[-1], 1, activation="relu6", name=f"{name}_expand")(x)
    x = layers.DepthwiseConv2D(3, strides, padding="same", activation="relu6", name=f"{name}_depthwise")(x)
    x = layers.Conv2D(channels, 1, name=f"{name}_project")(x)
    return layers.Add(name=f"{name}_add")([before, x]) if x.shape == before.shape else x


def _norm_of(name: str) -> str:
    """What keras.applications calls the batch norm behind a convolution."""
    return "bn_Conv1" if name == "Conv1" else f"{name}_BN"


def _folded(taught: keras.Model, convolution: layers.Layer) -> list[np.ndarray]:
    """Kernel and bias with which a convolution does what that of its name and the batch norm behind it did."""
    norm = taught.get_layer(_norm_of(convolution.name))
    (kernel,), (gamma, beta, mean, variance) = taught.get_layer(convolution.name).get_weights(), norm.get_weights()
    scale = gamma / np.sqrt(variance + norm.epsilon)
    depthwise = isinstance(convolution, layers.DepthwiseConv2D)  # (3, 3, channels, 1), others (h, w, in, channels)
    kernel = kernel * (scale[:, None] if depthwise else scale)
    return [kernel, beta - mean * scale]


def _with_batch_norm(weights: str) -> keras.Model:
    path = None if weights == "imagenet" else Path(weights)
    if path and not path.is_file():
        raise WeightsError(f"no weights of MobileNetV2 at {path}")
    try:
        with contextlib.redirect_stdout(sys.stderr):  # Keras prints its downloads
            return keras.applications.MobileNetV2(
                weights=str(path) if path else "imagenet", include_top=False, input_shape=(SIDE, SIDE, 3)
            )
    except Exception as error:  # a failed download is a plain Exception in Keras, a wrong file is anything
        what = "cannot be downloaded" if path is None else f"are not in {path}"
        raise WeightsError(f"the ImageNet weights of MobileNetV2 {what}: {first_line(error)}") from error


def build_baseline(dropout: float = 0.3, seed: int = 0, side: int = 96, width: int = 16) -> Network:
    """Four strided convolutions from scratch on a small picture, pooled, with dropout and one unit on top."""
    keras.utils.set_random_seed(seed)
    pixels = layers.Input((SIDE, SIDE, 3), name="pixels")
    small = x = layers.Resizing(side, side, antialias=True, name="small")(pixels)
    x = layers.Rescaling(1 / 127.5, offset=-1, name="to_minus_one_to_one")(x)
    for depth in range(4):
        x = layers.Conv2D(width * 2**depth, 3, strides=2, padding="same", use_bias=False)(x)
        x = layers.BatchNormalization(momentum=0.9)(x)
        x = layers.ReLU()(x)
    x = layers.Dropout(dropout, seed=seed)(layers.GlobalAveragePooling2D()(x))
    return _network(pixels, small, layers.Dense(1, name="head")(x))


def _network(pixels, cut, logit) -> Network:
    network = Network(
        keras.Model(pixels, cut, name="frozen"),
        keras.Model(cut, logit, name="learning"),
        keras.Model(pixels, layers.Activation("sigmoid", name="ai_probability")(logit), name="detector"),
    )
    for model in (network.frozen, network.learning, network.whole):
        model.jit_compile = False  # XLA would compile for minutes
    return network


def with_style(network: Network, machine: StyleMachine) -> keras.Model:
    """The whole network with its logit and the style's added up, before the probability: detector.h5."""
    logit = layers.Add()([network.whole.get_layer("head").output, machine.layer_on(network.style.output)])
    probability = layers.Activation("sigmoid", name="ai_probability")(logit)
    model = keras.Model(network.whole.input, probability, name="detector")
    model.jit_compile = False
    return model


def with_temperature(model: keras.Model, temperature: float) -> None:
    """Divide all logits by a number, in the heads' own weights: nothing is added to the network."""
    for head in (layer for layer in model.layers if layer.name in ("head", "style_head")):
        for variable in (head.kernel, head.bias):
            variable.assign(variable / temperature)
