"""Where the detector looks."""

from __future__ import annotations

import keras
import numpy as np
from keras import layers

from atelier.detector.views import SIDE


def heat_maps(model: keras.Model, views: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """What in each view speaks for a machine, and what for a hand.

    Grad-CAM (Selvaraju et al., 2017): the last feature maps, weighted by how the logit changes with them. Behind the
    average of the maps stands one linear unit here, so those weights are the unit's own, and the sum of a map is the
    network's logit but for the bias. The style's logit, which knows no places, is not in it.

    Args:
        model: a detector.h5's, with layers named "pooled" and "head".
        views: (N, SIDE, SIDE, 3) pixels in [0, 255].

    Returns:
        (N, SIDE, SIDE) float32, positive where a place speaks for a machine, and (N,) float32 probabilities.
    """
    maps, weights = model.get_layer("pooled").input, model.get_layer("head").kernel
    outputs = keras.Model(model.input, [maps, model.output])
    outputs.jit_compile = False
    found, probabilities = outputs.predict_on_batch(np.asarray(views, np.float32))  # (N, 5, 5, 1280), (N, 1)
    heat = found @ np.asarray(weights)  # (N, 5, 5, 1)
    return np.asarray(layers.Resizing(SIDE, SIDE)(heat))[..., 0], probabilities[:, 0]
