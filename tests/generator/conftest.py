"""What the generator's tests share."""

from pathlib import Path

import numpy as np
import pytest


@pytest.fixture(scope="session")
def eye_weights(tmp_path_factory) -> Path:
    """A file of MobileNetV2's weights, random ones: what "imagenet" would download."""
    import keras

    random = np.random.default_rng(0)
    network = keras.applications.MobileNetV2(weights=None, include_top=False, input_shape=(32, 32, 3))
    for kernel in (variable for variable in network.trainable_variables if variable.path.endswith("kernel")):
        height, width, channels, kinds = kernel.shape
        inputs = height * width * (1 if kinds == 1 else channels)  # depthwise: of its own channel only
        kernel.assign(random.normal(0, (2 / inputs) ** 0.5, kernel.shape))  # what goes through keeps its size
    path = tmp_path_factory.mktemp("eye") / "mobilenet.weights.h5"
    network.save_weights(path)
    return path
