"""A feature network and a network of classes, both tiny, in place of those that take a download."""

from pathlib import Path

import pytest


@pytest.fixture(scope="session")
def tiny_networks(tmp_path_factory) -> dict[str, Path]:
    """`{"features": ..., "classes": ...}`: Keras files that see 24-pixel pictures."""
    import keras

    keras.utils.set_random_seed(0)
    folder = tmp_path_factory.mktemp("networks")
    paths = {}
    for name, width, activation in (("features", 12, None), ("classes", 7, "softmax")):
        layers = keras.layers
        model = keras.Sequential(
            [
                keras.Input((24, 24, 3)),
                layers.Conv2D(12, 5, strides=3, activation="relu"),
                layers.GlobalAveragePooling2D(),
                layers.Dense(width, activation=activation),
            ]
        )
        paths[name] = folder / f"{name}.h5"
        model.save(paths[name])
    return paths


@pytest.fixture(scope="session")
def network(tiny_networks):
    from atelier.evaluation.features import FeatureNetwork

    return FeatureNetwork.load(tiny_networks["features"])
