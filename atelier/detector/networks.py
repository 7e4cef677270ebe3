"""The two networks: a small CNN as the honest baseline, and MobileNetV2 with a new head and a judge of style."""

from __future__ import annotations

import contextlib
import sys
from dataclasses import dataclass, replace
from pathlib import Path

import keras
import numpy as np
from keras import layers

from atelier.backend import first_line
from atelier.detector.style import StyleMachine, style_of
from atelier.detector.views import SIDE

CUT = 6
"""MobileNetV2 up to this block, (14, 14, 64) numbers a view, stays as ImageNet taught it; the rest learns."""

BLOCKS = [(24, 2), (24, 1), (32, 2), (32, 1), (32, 1), (64, 2), (64, 1), (64, 1), (64, 1), (96, 1), (96, 1), (96, 1)]
BLOCKS += [(160, 2), (160, 1), (160, 1), (320, 1)]
"""Channels and strides of MobileNetV2's inverted residual blocks, after the first one."""

STYLED = (2, 5, 6, 12)
"""Blocks whose maps, as ImageNet taught them, give the style; style.py knows their channels."""

UNTUNED = "untuned_"
"""Before the names of the layers beyond the cut that stay as ImageNet taught them, beside those that learn."""


class WeightsError(ValueError):
    """MobileNetV2's weights cannot be had."""


@dataclass(frozen=True)
class Network:
    """One network cut in two; `whole` shares the layers of both halves."""

    frozen: keras.Model
    """(N, SIDE, SIDE, 3) in [0, 255] to maps that never change: (N, 14, 14, 64), of the baseline (N, 96, 96, 3)."""
    learning: keras.Model
    """From there to (N, 1) logits; its last layer is named "head"."""
    whole: keras.Model
    """(N, SIDE, SIDE, 3) in [0, 255] to (N, 1) probabilities that a machine made the picture."""
    style: keras.Model | None = None
    """(N, SIDE, SIDE, 3) in [0, 255] to (N, D) styles, for `with_style`; the baseline has none."""


def build_network(kind: str, weights: str, dropout: float, seed: int) -> Network:
    """`build_transfer` or, for the kind "baseline", `build_baseline`; arguments as theirs."""
    return build_transfer(weights, dropout, seed) if kind == "transfer" else build_baseline(dropout, seed)


def build_transfer(weights: str = "imagenet", dropout: float = 0.3, seed: int = 0) -> Network:
    """MobileNetV2 (Sandler et al., 2018), pooled, with dropout and one unit on top.

    Batch norm is folded into the convolutions from the beginning: its statistics would be those of a few pictures, and
    without it the network is a third faster.

    Args:
        weights: a file of Keras's weights without the top, or "imagenet" (downloaded).
        dropout: of the 1,280 pooled features.
        seed: of the new unit's weights and of the dropout.

    Raises:
        WeightsError: no such file, other weights, or no internet.
    """
    pixels = layers.Input((SIDE, SIDE, 3), name="pixels")
    features, cut, maps = _mobilenet(layers.Rescaling(1 / 127.5, offset=-1, name="to_minus_one_to_one")(pixels))
    dropped = layers.Dropout(dropout, seed=seed, name="dropout")(features)
    start = keras.initializers.GlorotUniform(seed)
    network = _network(pixels, cut, layers.Dense(1, kernel_initializer=start, name="head")(dropped))
    style = keras.Model(pixels, style_of(maps), name="style_of_pixels")
    style.jit_compile = False
    taught = _with_batch_norm(weights)
    for layer in {*network.whole.layers, *style.layers}:
        if isinstance(layer, (layers.Conv2D, layers.DepthwiseConv2D)):
            name = layer.name.removeprefix(UNTUNED)
            layer.set_weights(_folded(taught.get_layer(name), taught.get_layer(_norm_of(name))))
    return replace(network, style=style)


def _mobilenet(x):
    """MobileNetV2 without batch norm, its layers named as in keras.applications.

    Returns:
        the pooled features, the maps at the cut, and those of `STYLED`, which tuning leaves alone.
    """
    x = layers.Conv2D(32, 3, strides=2, padding="same", activation="relu6", name="Conv1")(x)
    x = layers.DepthwiseConv2D(3, padding="same", activation="relu6", name="expanded_conv_depthwise")(x)
    x = layers.Conv2D(16, 1, name="expanded_conv_project")(x)
    maps = []
    for number in range(1, CUT + 1):
        x = _block(x, number)
        maps += [x] if number in STYLED else []
    cut = untuned = x
    for number in range(CUT + 1, STYLED[-1] + 1):
        untuned = _block(untuned, number, UNTUNED)
    for number in range(CUT + 1, len(BLOCKS) + 1):
        x = _block(x, number)
    x = layers.Conv2D(1280, 1, activation="relu6", name="Conv_1")(x)
    return layers.GlobalAveragePooling2D(name="pooled")(x), cut, [*maps, untuned]


def _block(x, number: int, prefix: str = ""):
    """One of `BLOCKS`."""
    (channels, strides), before, name = BLOCKS[number - 1], x, f"{prefix}block_{number}"
    x = layers.Conv2D(6 * x.shape[-1], 1, activation="relu6", name=f"{name}_expand")(x)
    x = layers.DepthwiseConv2D(3, strides, padding="same", activation="relu6", name=f"{name}_depthwise")(x)
    x = layers.Conv2D(channels, 1, name=f"{name}_project")(x)
    return layers.Add(name=f"{name}_add")([before, x]) if x.shape == before.shape else x


def _norm_of(name: str) -> str:
    """What keras.applications calls the batch norm behind a convolution."""
    return {"Conv1": "bn_Conv1", "Conv_1": "Conv_1_bn"}.get(name, f"{name}_BN")


def _folded(convolution: layers.Layer, norm: layers.BatchNormalization) -> list[np.ndarray]:
    """Kernel and bias of a convolution that does what the two layers did, as exactly as float16 holds the kernel.

    In the file kernels are float16: so the styles that training sees are those that the file will see.
    """
    (kernel,), (gamma, beta, mean, variance) = convolution.get_weights(), norm.get_weights()
    scale = gamma / np.sqrt(variance + norm.epsilon)
    depthwise = isinstance(convolution, layers.DepthwiseConv2D)  # (3, 3, channels, 1), others (h, w, in, channels)
    kernel = kernel * (scale[:, None] if depthwise else scale)
    return [kernel.astype(np.float16).astype(np.float32), beta - mean * scale]


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
