"""Loads generator.h5 and paints batches of latents: all that inference needs of the generator."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from atelier.backend import first_line, import_keras
from atelier.images import to_uint8
from atelier.seeds import STYLES

if TYPE_CHECKING:
    import keras


class PainterError(RuntimeError):
    """The generator cannot be loaded; the message says which file and why."""


class Painter:
    """A generator ready to paint.

    Attributes:
        latent_dim: length of the latents it takes.
        size: side of its pictures in pixels.
    """

    def __init__(self, model: keras.Model):
        self._model = model
        self.latent_dim = model.input_shape[0][-1]
        self.size = model.output_shape[1]

    @classmethod
    def load(cls, path: str | Path) -> Painter:
        """Load a generator saved by the contract: `latent` (N, z) and `style` (N,) in, (N, H, W, 3) out.

        Raises:
            PainterError: no such file, not an HDF5 model, or a model with other inputs or outputs.
        """
        path = Path(path)
        if not path.is_file():
            raise PainterError(f"no generator at {path}: train one with training.ipynb, or restore generator.h5")
        keras = import_keras()  # slow the first time, so only once there is something to load
        try:
            model = keras.models.load_model(path, compile=False)
        except Exception as error:  # h5py and Keras raise nearly every kind on a damaged file
            raise PainterError(f"{path} is damaged or no Keras model: {first_line(error)}") from error
        if problem := _breach_of_contract(model):
            raise PainterError(f"{path} is not one of Atelier's generators: {problem}")
        # Keras would compile with XLA: seconds for every new batch size, to save nothing on a CPU.
        model.jit_compile = False
        return cls(model)

    def paint(self, latents: np.ndarray, styles: list[str], batch_size: int = 16) -> np.ndarray:
        """Paint one picture for each latent.

        Args:
            latents: (N, latent_dim) float32.
            styles: N names out of `STYLES`.
            batch_size: pictures painted at once; bounds the memory.

        Returns:
            (N, size, size, 3) uint8.
        """
        indices = np.array([STYLES.index(style) for style in styles], np.int32)
        parts = []
        for start in range(0, len(indices), batch_size):
            batch = {"latent": latents[start : start + batch_size], "style": indices[start : start + batch_size]}
            parts.append(to_uint8(self._model.predict_on_batch(batch)))
        return np.concatenate(parts) if parts else np.empty((0, self.size, self.size, 3), np.uint8)


def _breach_of_contract(model: keras.Model) -> str | None:
    names = [tensor.name for tensor in model.inputs]
    if names != ["latent", "style"]:
        return f"its inputs are {', '.join(names)}, not latent, style"
    shape = tuple(model.output_shape)
    if len(shape) != 4 or shape[3] != 3 or None in shape[1:] or shape[1] != shape[2]:
        return f"its output has the shape {shape}, not (N, size, size, 3)"
    styles = next((layer.input_dim for layer in model.layers if layer.name == "style_embedding"), len(STYLES))
    return None if styles == len(STYLES) else f"it knows {styles} styles, not {len(STYLES)}"
