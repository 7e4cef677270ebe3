"""Batch norm folded into the convolution before it: fewer passes over the picture, the same numbers."""

from __future__ import annotations

from itertools import pairwise

import keras
import numpy as np
from keras import layers


def fold_batch_norm(network: keras.Model) -> keras.Model:
    """A copy of a functional network, for inference, whose convolutions do their batch norms' work.

    A batch norm that keeps its statistics is a factor and an offset for each channel (Jacob et al., "Quantization and
    Training of Neural Networks", 2018, section 3.2). Later changes of the network's weights do not reach the copy.
    """
    norms = {
        conv.name: norm
        for conv, norm in pairwise(network.layers)
        if isinstance(norm, layers.BatchNormalization) and isinstance(conv, (layers.Conv2D, layers.DepthwiseConv2D))
    }
    gone = {norm.name for norm in norms.values()}

    def clone(layer):
        if layer.name in gone:
            return layers.Identity(name=layer.name)
        config = layer.get_config()
        if layer.name in norms:
            config["use_bias"] = True
        return type(layer).from_config(config)

    folded = keras.models.clone_model(network, clone_function=clone)
    for name, norm in norms.items():
        conv = network.get_layer(name)
        gamma, beta, mean, variance = norm.get_weights()
        factor = gamma / np.sqrt(variance + norm.epsilon)
        kernel = conv.get_weights()[0]
        depthwise = isinstance(conv, layers.DepthwiseConv2D)  # (H, W, channels, 1), others (H, W, in, channels)
        folded.get_layer(name).set_weights([kernel * (factor[:, None] if depthwise else factor), beta - mean * factor])
    return folded
