"""Pictures in, vectors out; and what is said where no network is to be had."""

import numpy as np
import pytest

from atelier.evaluation import features
from atelier.evaluation.features import INCEPTION, MOBILENET, WEIGHTS, FeatureNetwork, NetworkError, resized
from tests.conftest import draw_shape


def pictures(count, size=24):
    return np.stack([np.asarray(draw_shape("painting", number, size)) for number in range(count)])


def test_features_are_one_float32_vector_a_picture_whatever_the_batch(network, monkeypatch):
    images = pictures(7)
    whole = network.features(images)
    assert whole.shape == (7, network.dim) == (7, 12) and whole.dtype == np.float32
    monkeypatch.setattr(features, "BATCH", 3)
    assert network.features(images) == pytest.approx(whole, abs=1e-5)
    assert network.features(images[:0]).shape == (0, 12)
    assert network.name == "features"


def test_pictures_of_another_size_are_resized_without_aliasing():
    lines = np.zeros((1, 96, 96, 3), np.uint8)
    lines[:, ::2] = 255
    small = resized(lines, 24).astype(int)
    assert small.shape == (1, 24, 24, 3) and abs(small[:, 2:-2] - 128).max() < 6  # grey, no bands
    assert resized(lines, 96) is lines
    assert resized(lines, 299).dtype == np.uint8


@pytest.mark.parametrize(
    "images",
    [np.zeros((2, 8, 8, 3), np.float32), np.zeros((8, 8, 3), np.uint8), np.zeros((2, 8, 8, 1), np.uint8), [[1]]],
)
def test_other_arrays_are_refused(network, images):
    with pytest.raises(ValueError, match=r"pictures are \(N, H, W, 3\) uint8"):
        network.features(images)


def test_a_file_that_is_no_network_is_refused(tmp_path, tiny_generator):
    broken = tmp_path / "network.h5"
    broken.write_bytes(b"no network")
    with pytest.raises(NetworkError, match="damaged or no Keras model"):
        FeatureNetwork.load(broken)
    with pytest.raises(NetworkError, match="no feature network at"):
        FeatureNetwork.load(tmp_path / "none.h5")
    with pytest.raises(NetworkError, match="is no feature network"):
        FeatureNetwork.load(tiny_generator)
    weights = tmp_path / "some.weights.h5"
    with pytest.raises(NetworkError, match="no weights of MobileNetV2 at"):
        FeatureNetwork.load_classes(weights)
    weights.write_bytes(b"no weights")
    with pytest.raises(NetworkError, match="holds no weights of MobileNetV2"):
        FeatureNetwork.load_classes(weights)


@pytest.mark.parametrize(
    ("load", "builder", "file"),
    [(FeatureNetwork.load, "InceptionV3", INCEPTION), (FeatureNetwork.load_classes, "MobileNetV2", MOBILENET)],
)
def test_without_file_and_internet_one_line_says_what_to_do(load, builder, file, tmp_path, monkeypatch, capsys):
    import keras

    def offline(**_):
        print("Downloading data from somewhere")
        raise Exception("URL fetch failure on somewhere:\nmore")  # what Keras raises

    monkeypatch.setattr(features, "WEIGHTS", tmp_path / "data" / "weights")
    monkeypatch.setattr(keras.applications, builder, offline)
    with pytest.raises(NetworkError) as caught:
        load()
    message = str(caught.value)
    assert "\n" not in message and file in message and "data/weights" in message and builder in message
    written = capsys.readouterr()
    assert not written.out and "Downloading" in written.err


def test_with_internet_the_label_names_keras_weights(tmp_path, monkeypatch):
    import keras

    real = keras.applications.InceptionV3
    asked = {}

    def without_download(weights, **options):
        asked["weights"] = weights
        return real(weights=None, **options)

    monkeypatch.setattr(features, "WEIGHTS", tmp_path)
    monkeypatch.setattr(keras.applications, "InceptionV3", without_download)
    network = FeatureNetwork.load()
    assert asked["weights"] == "imagenet"
    assert (network.name, network.dim, network.size) == ("Keras ImageNet InceptionV3", 2048, 299)


@pytest.mark.skipif(not (WEIGHTS / INCEPTION).is_file(), reason=f"data/weights/{INCEPTION} is not here")
def test_the_default_network_is_the_original_fid_networks_mixed_7():
    network = FeatureNetwork.load()
    assert (network.name, network.dim, network.size) == ("inception-2015-12-05, mixed_7", 768, 299)
    seen = network.features(pictures(2, 64))
    assert np.isfinite(seen).all() and np.ptp(seen, axis=0).max() > 0


@pytest.mark.skipif(not (WEIGHTS / MOBILENET).is_file(), reason=f"data/weights/{MOBILENET} is not here")
def test_the_default_classes_are_imagenets():
    network = FeatureNetwork.load_classes()
    assert (network.name, network.dim, network.size) == ("MobileNetV2, ImageNet", 1000, 224)
    assert network.features(pictures(2, 64)).sum(1) == pytest.approx(1, abs=1e-3)
