"""Says whether a machine made a picture, or a hand. Importing this loads no TensorFlow yet."""

from __future__ import annotations

import threading
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from PIL import Image

from atelier.backend import import_keras
from atelier.detector.metrics import sigmoid
from atelier.detector.views import SIDE, crops

if TYPE_CHECKING:
    import keras

__all__ = ["UNCERTAIN", "Detector", "DetectorError", "Verdict"]

UNCERTAIN = (0.35, 0.65)
"""Between these probabilities the verdict is "uncertain"; docs/detector.md tells how often, and what it gains."""

CROPS = 2
"""Views of a picture whose logits are averaged."""


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
        self.model = model
        self._lock = threading.Lock()  # one batch already uses every core

    @classmethod
    def load(cls, path: str | Path) -> Detector:
        """Load a detector.h5.

        Raises:
            DetectorError: no such file, a damaged one, or one of another model.
        """
        if not Path(path).is_file():
            raise DetectorError(f"no detector at {path}")
        try:
            model = import_keras().models.load_model(path, compile=False)
        except Exception as error:  # h5py and Keras raise nearly every kind on a damaged file
            raise DetectorError(f"{path} is damaged or no Keras model: {str(error).splitlines()[0]}") from error
        return cls(model)

    def probabilities(self, images: Sequence[Image.Image | np.ndarray], batch_size: int = 16) -> np.ndarray:
        """How probably a machine made each picture: (N,) float64.

        A picture is looked at twice, at two places along its longer side, and the logits are averaged.

        Args:
            images: PIL pictures of any mode and size, or (H, W, 3) uint8 arrays.
            batch_size: pictures computed at once; bounds the memory.
        """
        found = [np.empty(0)]
        for start in range(0, len(images), batch_size):
            some = [_rgb(image) for image in images[start : start + batch_size]]
            views = np.concatenate([crops(image, CROPS) for image in some]).astype(np.float32)
            with self._lock:
                each = self.model.predict_on_batch(views).astype(np.float64).reshape(-1, CROPS)
            each = np.clip(each, 1e-7, 1 - 1e-7)
            found.append(sigmoid(np.log(each / (1 - each)).mean(axis=1)))
        return np.concatenate(found)

    def detect(self, images: Sequence[Image.Image | np.ndarray], batch_size: int = 16) -> list[Verdict]:
        """A `Verdict` for each picture, in order; arguments as those of `probabilities`."""
        return [Verdict(float(probability)) for probability in self.probabilities(images, batch_size)]


def _rgb(image: Image.Image | np.ndarray) -> Image.Image:
    return (Image.fromarray(image) if isinstance(image, np.ndarray) else image).convert("RGB")
