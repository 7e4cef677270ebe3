"""Says whether a machine made a picture, or a hand. Importing this loads no TensorFlow yet."""

from __future__ import annotations

import threading
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from PIL import Image

from atelier.backend import first_line, import_keras
from atelier.detector.metrics import sigmoid
from atelier.detector.views import SIDE, crops, opened
from atelier.images import to_rgb

if TYPE_CHECKING:
    import keras

__all__ = ["UNCERTAIN", "Detector", "DetectorError", "Verdict"]

UNCERTAIN = (0.35, 0.65)
"""Between these probabilities the verdict is "uncertain"; docs/detector.md tells how often, and what it gains."""

CROPS = 2
"""Views of a picture whose logits are averaged."""

AT_ONCE = 2
"""Batches under way: while one is opened the other is computed, and TensorFlow's threads wait less for each other."""


class DetectorError(ValueError):
    """The detector cannot be loaded."""


@dataclass(frozen=True)
class Verdict:
    """What is thought of a picture."""

    ai_probability: float
    """0 to 1, calibrated on pictures that training had not seen."""

    @property
    def verdict(self) -> str:
        """ "ai", "human", or "uncertain" where the probability lies inside `UNCERTAIN`."""
        low, high = UNCERTAIN
        return "uncertain" if low < self.ai_probability < high else "ai" if self.ai_probability >= high else "human"


class Detector:
    """A network of detector.h5's contract; `load` makes one."""

    def __init__(self, model: keras.Model):
        """Take a model from (N, SIDE, SIDE, 3) pixels in [0, 255] to (N, 1) probabilities.

        Raises:
            DetectorError: the model has other inputs or outputs.
        """
        if model.input_shape != (None, SIDE, SIDE, 3) or model.output_shape != (None, 1):
            raise DetectorError(
                f"the model maps {model.input_shape} to {model.output_shape}, not (N, {SIDE}, {SIDE}, 3) to (N, 1)"
            )
        model.jit_compile = False  # XLA would compile for minutes, and again for every size of a batch
        model.make_predict_function()  # else two threads would make it at once
        self.model = model
        self._known_counts: set[int] = set()
        self._first = threading.Lock()

    @classmethod
    def load(cls, path: str | Path) -> Detector:
        """Load a detector.h5.

        Raises:
            DetectorError: no such file, a damaged one, or one of another model.
        """
        if not Path(path).is_file():
            raise DetectorError(f"no detector at {path}")
        try:
            model = import_keras(batches=True).models.load_model(path, compile=False)
        except Exception as error:  # h5py and Keras raise nearly every kind on a damaged file
            raise DetectorError(f"{path} is damaged or no Keras model: {first_line(error)}") from error
        return cls(model)

    def probabilities(self, images: Sequence[Image.Image | np.ndarray | str | Path], batch_size: int = 8) -> np.ndarray:
        """How probably a machine made each picture: (N,) float64.

        A picture is looked at twice, at two places along its longer side, and the logits are averaged.

        Args:
            images: PIL pictures of any mode and size, (H, W, 3) uint8 arrays, or files. Large JPEG files are the
                faster for it: they are decoded no larger than needed.
            batch_size: pictures in a batch, of which `AT_ONCE` are computed at once; bounds the memory.

        Raises:
            ValueError: a file cannot be read; the message names it.
        """
        if not len(images):
            return np.empty(0)
        size = min(batch_size, -(-len(images) // AT_ONCE))
        opening = threading.Lock()  # the same picture, not yet read, may stand in the list twice

        def judged(start: int) -> np.ndarray:
            with opening:
                views = np.concatenate([_crops_of(image) for image in images[start : start + size]])
            each = self._answers(views.astype(np.float32)).astype(np.float64).reshape(-1, CROPS)
            each = np.clip(each, 1e-7, 1 - 1e-7)
            return sigmoid(np.log(each / (1 - each)).mean(axis=1))

        with ThreadPoolExecutor(AT_ONCE) as pool:
            return np.concatenate(list(pool.map(judged, range(0, len(images), size))))

    def _answers(self, views: np.ndarray) -> np.ndarray:
        """(N, 1) probabilities of (N, SIDE, SIDE, 3) float32 views."""
        with self._first:
            # At the first batch of a size TensorFlow may build a graph: two threads doing so at once have crashed it.
            if len(views) not in self._known_counts:
                answers = self.model.predict_on_batch(views)
                self._known_counts.add(len(views))
                return answers
        return self.model.predict_on_batch(views)

    def detect(self, images: Sequence[Image.Image | np.ndarray | str | Path], batch_size: int = 8) -> list[Verdict]:
        """A `Verdict` for each picture, in order; arguments as those of `probabilities`."""
        return [Verdict(float(probability)) for probability in self.probabilities(images, batch_size)]


def _crops_of(image: Image.Image | np.ndarray | str | Path) -> np.ndarray:
    if isinstance(image, (str, Path)):
        image = opened(image)
    elif isinstance(image, np.ndarray):
        image = Image.fromarray(image)
    return crops(to_rgb(image), CROPS)
