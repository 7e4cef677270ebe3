"""What a frozen ImageNet network sees in a picture: the features by which labels in doubt are found."""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from PIL import Image

from atelier.backend import first_line, import_keras
from atelier.images import from_uint8

SIZE = 224
"""Side in pixels at which the network looks."""


class FeatureError(ValueError):
    """The network's weights cannot be had."""


class Features:
    """MobileNetV2 (Sandler et al., 2018) without its top, pooled; one thread, since workers are processes."""

    def __init__(self, weights: str = "imagenet"):
        """Load it.

        Args:
            weights: a file of Keras's MobileNetV2 weights (with or without the top) or "imagenet" (downloaded).

        Raises:
            FeatureError: no such file, other weights, or no internet.
        """
        keras = import_keras(batches=True)
        _one_thread(keras)
        path = None if weights == "imagenet" else Path(weights)
        if path and not path.is_file():
            raise FeatureError(f"no weights of MobileNetV2 at {path}")
        try:
            top = bool(path) and "no_top" not in path.name
            with contextlib.redirect_stdout(sys.stderr):  # Keras prints its downloads
                model = keras.applications.MobileNetV2(
                    weights=None if path else "imagenet", include_top=top, input_shape=(SIZE, SIZE, 3)
                )
            if path:
                model.load_weights(str(path))
        except Exception as error:  # a failed download is a plain Exception in Keras, a wrong file is anything
            what = "cannot be downloaded" if path is None else f"are not in {path}"
            raise FeatureError(f"the ImageNet weights of MobileNetV2 {what}: {first_line(error)}") from error
        last = model.get_layer("out_relu").output
        self._model = keras.Model(model.input, keras.layers.GlobalAveragePooling2D()(last))
        self._model.jit_compile = False  # XLA would compile for seconds, and again for the last, smaller batch

    def __call__(self, images: Sequence[Image.Image]) -> np.ndarray:
        """Look at RGB pictures of any size, squashed to a square: (N, 1280) float16."""
        square = [np.asarray(image.resize((SIZE, SIZE), Image.Resampling.BICUBIC)) for image in images]
        return self._model.predict_on_batch(from_uint8(np.stack(square))).astype(np.float16)


def _one_thread(keras) -> None:
    if keras.backend.backend() == "tensorflow":
        import tensorflow as tf

        try:
            tf.config.threading.set_intra_op_parallelism_threads(1)
            tf.config.threading.set_inter_op_parallelism_threads(1)
        except RuntimeError:  # TensorFlow is at work already in this process
            pass
