"""The networks that look at pictures for the metrics: pictures in, one feature vector each out."""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from PIL import Image

from atelier.backend import first_line, import_keras
from atelier.images import from_uint8
from atelier.progress import progress_bar

if TYPE_CHECKING:
    import keras

WEIGHTS = Path(__file__).resolve().parents[2] / "data" / "weights"
INCEPTION = "inception_v3_2015_mixed7.h5"
MOBILENET = "mobilenet_v2_1.0_224.weights.h5"
BATCH = 32


class NetworkError(ValueError):
    """A feature network cannot be had; the message says which and what to do."""


class FeatureNetwork:
    """A frozen network that turns pictures into vectors.

    Attributes:
        name: which network, for the labels of the figures.
        size: side in pixels of the pictures that it sees; others are resized.
        dim: length of its vectors.
    """

    def __init__(self, model: keras.Model, name: str):
        """Take a model with one (N, size, size, 3) float32 input in [-1, 1] and one (N, dim) output.

        Raises:
            NetworkError: the model has other inputs or outputs.
        """
        ins, outs = model.input_shape, model.output_shape
        square = isinstance(ins, tuple) and len(ins) == 4 and ins[1] is not None and ins[1] == ins[2] and ins[3] == 3
        if not (square and isinstance(outs, tuple) and len(outs) == 2 and outs[1]):
            raise NetworkError(f"{name} is no feature network: it maps {ins} to {outs}, not (N, S, S, 3) to (N, d)")
        model.jit_compile = False  # XLA would compile for seconds and again for the last, smaller batch
        self._model, self.name, self.size, self.dim = model, name, ins[1], outs[1]

    @classmethod
    def load(cls, path: str | Path | None = None) -> FeatureNetwork:
        """The network of FID, KID, precision and recall.

        Args:
            path: a Keras file. Without one: `data/weights/inception_v3_2015_mixed7.h5` if it is there (the original
                FID network, inception-2015-12-05, up to mixed_7: 768 features; pytorch-fid's `--dims 768`), else
                Keras's ImageNet InceptionV3 from the internet (2,048 features; other weights than the original's).

        Raises:
            NetworkError: no such file, no feature network, or no internet.
        """
        if path is None and not (WEIGHTS / INCEPTION).is_file():
            applications = import_keras(batches=True).applications
            model = _downloaded(
                lambda: applications.InceptionV3(
                    weights="imagenet", include_top=False, pooling="avg", input_shape=(299, 299, 3)
                ),
                "InceptionV3",
                f"put {INCEPTION} into {_shown(WEIGHTS)}, or name a Keras file with --features",
            )
            return cls(model, "Keras ImageNet InceptionV3")
        path = Path(path or WEIGHTS / INCEPTION)
        if not path.is_file():
            raise NetworkError(f"no feature network at {path}")
        try:
            model = import_keras(batches=True).models.load_model(path, compile=False)
        except Exception as error:  # h5py and Keras raise nearly every kind on a damaged file
            raise NetworkError(f"{path} is damaged or no Keras model: {first_line(error)}") from error
        return cls(model, "inception-2015-12-05, mixed_7" if path.name == INCEPTION else path.stem)

    @classmethod
    def load_classes(cls, path: str | Path | None = None) -> FeatureNetwork:
        """The network of the Inception-Score-style figure: (N, 1000) class probabilities by MobileNetV2.

        Args:
            path: its weights, or a whole Keras model. Without one: `data/weights/mobilenet_v2_1.0_224.weights.h5` if
                it is there, else Keras's own ImageNet weights from the internet.

        Raises:
            NetworkError: no such file, other weights, or no internet.
        """
        applications = import_keras(batches=True).applications
        if path is None and (WEIGHTS / MOBILENET).is_file():
            path = WEIGHTS / MOBILENET
        if path is None:
            advice = f"put {MOBILENET} into {_shown(WEIGHTS)}, or name a file with --classes"
            model = _downloaded(lambda: applications.MobileNetV2(weights="imagenet"), "MobileNetV2", advice)
        elif not Path(path).name.endswith(".weights.h5"):
            return cls.load(path)
        elif not Path(path).is_file():
            raise NetworkError(f"no weights of MobileNetV2 at {path}")
        else:
            try:
                model = applications.MobileNetV2(weights=str(path))
            except Exception as error:
                raise NetworkError(f"{path} holds no weights of MobileNetV2: {first_line(error)}") from error
        return cls(model, "MobileNetV2, ImageNet")

    def features(self, images: np.ndarray, desc: str | None = None) -> np.ndarray:
        """Look at pictures.

        Args:
            images: (N, H, W, 3) uint8.
            desc: name of a progress bar; none without it.

        Returns:
            (N, dim) float32.

        Raises:
            ValueError: another shape or dtype.
        """
        images = np.asanyarray(images)  # a memory map stays one
        if images.ndim != 4 or images.shape[3] != 3 or images.dtype != np.uint8:
            raise ValueError(f"pictures are (N, H, W, 3) uint8, not {images.shape} {images.dtype}")
        batches = (images[start : start + BATCH] for start in range(0, len(images), BATCH))
        return self.features_of_batches(batches, len(images), desc)

    def features_of_batches(self, batches: Iterable[np.ndarray], count: int, desc: str | None = None) -> np.ndarray:
        """As `features`, for batches of pictures that need not be in memory together, `count` pictures in all."""
        features = np.empty((count, self.dim), np.float32)
        done = 0
        with progress_bar(total=count, desc=desc, unit="picture", disable=desc is None) as bar:
            for batch in batches:
                seen = self._model.predict_on_batch(from_uint8(resized(batch, self.size)))
                features[done : done + len(batch)] = seen
                done += len(batch)
                bar.update(len(batch))
        return features[:done]


def resized(images: np.ndarray, size: int) -> np.ndarray:
    """(N, H, W, 3) uint8 pictures at (N, size, size, 3), by Pillow's bicubic resampling.

    It is antialiased when it shrinks and the same on every backend; which resampling is used moves FID by whole
    points (Parmar et al., "On Aliased Resizing", 2022), so real and generated pictures both pass through here.
    """
    if images.shape[1:3] == (size, size):
        return images
    pictures = (Image.fromarray(image).resize((size, size), Image.Resampling.BICUBIC) for image in images)
    return np.stack([np.asarray(picture) for picture in pictures])


def _downloaded(build, name: str, advice: str) -> keras.Model:
    try:
        with contextlib.redirect_stdout(sys.stderr):  # Keras prints its downloads
            return build()
    except Exception as error:  # a failed download is a plain Exception in Keras
        raise NetworkError(f"cannot download {name}'s ImageNet weights ({first_line(error)}): {advice}") from error


def _shown(path: Path) -> str:
    return "/".join(path.parts[-2:])
