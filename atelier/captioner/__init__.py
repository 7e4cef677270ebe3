"""Says what a picture shows: BLIP (Li et al., 2022) in Keras 3. Importing this loads no TensorFlow yet."""

from __future__ import annotations

import threading
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from atelier.backend import import_keras
from atelier.captioner.errors import CaptionerError

if TYPE_CHECKING:
    from PIL import Image

__all__ = ["Caption", "Captioner", "CaptionerError"]


@dataclass(frozen=True)
class Caption:
    """A sentence about a picture."""

    text: str
    """Lower case, single spaces, no full stop."""
    confidence: float
    """The mean natural log-probability of the caption's tokens, its end included and a prompt left out: <= 0,
    the nearer to 0 the surer. Comparable between captions of one captioner only."""


class Captioner:
    """A BLIP with its tokenizer and preprocessing; `load` makes one."""

    def __init__(self, model, tokenizer, preprocessor):
        from atelier.captioner.decoding import Decoder

        self.model = model
        self.tokenizer = tokenizer
        self.preprocessor = preprocessor
        self._decoder = Decoder(model)
        self._lock = threading.Lock()  # one batch already uses every core

    @classmethod
    def load(cls, source: str | Path) -> Captioner:
        """Load a captioner from a folder in Hugging Face's layout.

        The folder holds `config.json`, `model.safetensors`, `tokenizer.json` and `preprocessor_config.json`.

        Raises:
            CaptionerError: there is no such folder, or a file in it is missing, broken or of another model.
        """
        if not Path(source).is_dir():
            raise CaptionerError(f"no captioner at {source}: there is no such folder")
        import_keras()
        from atelier.captioner.weights import from_pretrained

        return cls(*from_pretrained(Path(source)))

    def save(self, folder: str | Path, dtype: str = "float32") -> None:
        """Write the captioner to a folder that `load` and `transformers` (where there is no stem) read.

        Args:
            dtype: of the weights in the file, "float32" or "float16".
        """
        from atelier.captioner.weights import save_pretrained

        save_pretrained(Path(folder), self.model, self.tokenizer, self.preprocessor, dtype)

    def caption(
        self,
        images: Sequence[Image.Image | np.ndarray],
        *,
        prompt: str = "",
        num_beams: int = 3,
        max_length: int = 30,
        min_length: int = 5,
        batch_size: int = 32,
    ) -> list[Caption]:
        """Describe pictures; the same pictures give the same captions again.

        Args:
            images: PIL pictures of any mode and size, or (H, W, 3) uint8 arrays.
            prompt: words that every caption begins with, such as "an engraving of".
            num_beams: captions that beam search follows at a time; 1 is greedy search.
            max_length: at most so many tokens, the first, the prompt's and the last included.
            min_length: at least so many, counted likewise.
            batch_size: pictures computed at once, at most 128.

        Returns:
            one `Caption` for each picture, in order.

        Raises:
            ValueError: a picture or a number is none that is allowed; the message says what is.
        """
        from atelier.captioner.decoding import BATCH_SIZES, Search, generate

        start = self.tokenizer.prompt_ids(prompt)
        longest = self.model.config.text.max_position_embeddings
        _check("num_beams", num_beams, 1, 16)
        _check("batch_size", batch_size, 1, BATCH_SIZES[-1])
        _check("max_length", max_length, len(start) + 1, longest)
        _check("min_length", min_length, 0, max_length)
        search = Search(num_beams, max_length, min_length)
        captions = []
        for first in range(0, len(images), batch_size):
            pixels = self.preprocessor(images[first : first + batch_size])
            with self._lock:
                found = generate(self._decoder, pixels, start, search)
            captions += [Caption(self.tokenizer.text(ids), score) for ids, score in found]
        return captions


def _check(name: str, value: int, low: int, high: int) -> None:
    if isinstance(value, bool) or not isinstance(value, (int, np.integer)) or not low <= value <= high:
        raise ValueError(f"{name} is a whole number from {low} to {high}, not {value!r}")
