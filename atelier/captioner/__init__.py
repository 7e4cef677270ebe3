"""Says what a picture shows: BLIP (Li et al., 2022) in Keras 3. Importing this loads no TensorFlow yet."""

from __future__ import annotations

import functools
import threading
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from atelier.backend import cores, import_keras
from atelier.captioner.errors import CaptionerError

if TYPE_CHECKING:
    from PIL import Image

__all__ = ["Caption", "Captioner", "CaptionerError"]

LARGEST_BATCH = 128


@dataclass(frozen=True)
class Caption:
    """A sentence about a picture."""

    text: str
    """Lower case, single spaces, no full stop."""
    confidence: float
    """The mean natural log-probability of the caption's tokens, its end included and a prompt left out: <= 0,
    the nearer to 0 the surer. Comparable between captions of one captioner only."""
    alignment: float | None = None
    """The cosine of the picture's and the caption's embeddings, in [-1, 1]: how well they fit each other, judged
    without regard to how likely the words are. `None` where the captioner has no text encoder."""


class Captioner:
    """A BLIP with its tokenizer and preprocessing; `load` makes one."""

    def __init__(self, model, tokenizer, preprocessor):
        from atelier.captioner.comparing import Comparer
        from atelier.captioner.decoding import Decoder

        self.model = model
        self.tokenizer = tokenizer
        self.preprocessor = preprocessor
        if model.vision_model.stem:
            model.vision_model.stem.freeze()  # weights do not change from here on
        self._decoder = Decoder(model) if model.config.text else None
        self._comparer = Comparer(model, tokenizer) if model.config.retrieval else None
        self._free_cores = threading.Semaphore(cores())  # whoever calls, one group a core is enough

    @classmethod
    def load(cls, source: str | Path) -> Captioner:
        """Load a captioner from a folder in Hugging Face's layout, or by its id from the hub or the hub's cache.

        There are `config.json`, `tokenizer.json`, `preprocessor_config.json`, and `model.safetensors` or
        `pytorch_model.bin`.

        Raises:
            CaptionerError: there is no such folder or model, or a file in it is missing, broken or of another model.
        """
        from atelier.captioner.hub import locate

        folder = locate(source)
        import_keras()
        from atelier.captioner.weights import from_pretrained

        return cls(*from_pretrained(folder))

    def save(self, folder: str | Path, dtype: str = "float32") -> None:
        """Write the captioner to a folder that `load` and `transformers` (where there is no stem) read.

        Args:
            dtype: of the weights in the file, "float32" or "float16".
        """
        from atelier.captioner.weights import save_pretrained

        save_pretrained(Path(folder), self.model, self.tokenizer, self.preprocessor, dtype)

    def caption(self, images: Sequence[Image.Image | np.ndarray], *, candidates: int = 1, **search) -> list[Caption]:
        """Describe pictures; the same pictures give the same captions again.

        Args:
            images: PIL pictures of any mode and size, or (H, W, 3) uint8 arrays.
            candidates: of so many captions of each picture the one with the best alignment is taken (the likeliest,
                where the captioner has no text encoder). At least as many beams are followed.
            search: as of `candidates`, but greedy by default: beams cost half as much again, or twice as much.

        Returns:
            one `Caption` for each picture, in order.

        Raises:
            ValueError: a picture or a number is none that is allowed; the message says what is.
        """
        _check("candidates", candidates, 1, 16)
        search["num_beams"] = max(search.get("num_beams", 1), candidates if candidates > 1 else 0)
        found = self.candidates(images, count=candidates, **search)
        return [max(each, key=lambda caption: caption.alignment or 0.0) for each in found]

    def candidates(
        self,
        images: Sequence[Image.Image | np.ndarray],
        *,
        count: int = 16,
        prompt: str = "",
        num_beams: int = 3,
        max_length: int = 30,
        min_length: int = 5,
        opening: int | None = None,
        no_repeat_ngram: int = 3,
        repetition_penalty: float = 1.0,
        samples: int = 0,
        temperature: float = 1.0,
        top_p: float = 1.0,
        seed: int = 0,
        batch_size: int = 32,
    ) -> list[list[Caption]]:
        """Several captions of each picture, the likeliest first: as many as there are beams or samples.

        Args:
            images: PIL pictures of any mode and size, or (H, W, 3) uint8 arrays.
            count: at most so many.
            prompt: words that every caption begins with, such as "an engraving of".
            num_beams: captions that beam search follows at a time; 1 is greedy search.
            max_length: at most so many tokens, the first, the prompt's and the last included.
            min_length: at least so many, counted likewise.
            opening: so many tokens after the prompt are each the likeliest before beams part (the shipped captioner's
                name the medium). `None`: what its config.json says, or none after a prompt.
            no_repeat_ngram: no run of so many tokens comes twice; 0 allows it.
            repetition_penalty: above 1, tokens that are there already become less likely.
            samples: draw so many captions by chance instead of searching for the best.
            temperature, top_p: of chance, as `decoding.Search` has them.
            seed: of chance.
            batch_size: pictures computed at once, at most 128.

        Raises:
            ValueError: a picture or a number is none that is allowed; the message says what is.
            CaptionerError: the model can compare texts with pictures, but not write.
        """
        from atelier.captioner.decoding import GROUP, LARGE_GROUP, Search, groups

        if self._decoder is None:
            raise CaptionerError("this BLIP compares texts with pictures, it does not write captions")
        start = self.tokenizer.prompt_ids(prompt)
        _check("num_beams", num_beams, 1, 16)
        _check("batch_size", batch_size, 1, LARGEST_BATCH)
        _check("max_length", max_length, len(start) + 1, self.model.config.text.max_position_embeddings)
        _check("min_length", min_length, 0, max_length)
        if opening is None:
            opening = 0 if prompt else self.model.config.text.opening
        _check("opening", opening, 0, max_length)
        _check("no_repeat_ngram", no_repeat_ngram, 0, max_length)
        _check("samples", samples, 0, 64)
        _check("seed", seed, 0, 2**63)
        _check("count", count, 1, 64)
        for name, value in {"repetition_penalty": repetition_penalty, "temperature": temperature}.items():
            _check_number(name, value, 1e-3, 100.0)
        _check_number("top_p", top_p, 1e-6, 1.0)
        lengths = (num_beams, max_length, min_length, no_repeat_ngram, float(repetition_penalty), opening)
        search = Search(*lengths, samples, float(temperature), float(top_p), seed)
        # Groups run beside each other, so that no operation need be shared among threads.
        # They are large where that leaves no core without one.
        size = LARGE_GROUP if min(len(images), batch_size) >= LARGE_GROUP * cores() else GROUP
        parts = [images[some] for some in groups(len(images), size)]
        workers = min(len(parts), -(-batch_size // size), cores())
        describe = functools.partial(self._describe, start=start, search=search, count=count)
        if workers <= 1:
            return [captions for part in parts for captions in describe(part)]
        with ThreadPoolExecutor(workers) as pool:
            return [captions for part in pool.map(describe, parts) for captions in part]

    def _describe(self, images, start, search, count: int) -> list[list[Caption]]:
        """`candidates` of a few pictures."""
        with self._free_cores:
            found, embeddings = self._decoder(self.preprocessor(images), start, search)
            captions = [[Caption(self.tokenizer.text(ids), score) for ids, score in each[:count]] for each in found]
            if self._comparer is None:
                return captions
            texts = self._comparer.texts([caption.text for each in captions for caption in each])
        cosines = np.einsum("bd,bnd->bn", embeddings, texts.reshape(len(captions), -1, texts.shape[-1]))
        return [
            [replace(caption, alignment=float(cosine)) for caption, cosine in zip(*pair, strict=True)]
            for pair in zip(captions, cosines, strict=True)
        ]

    def embed_images(self, images: Sequence[Image.Image | np.ndarray], batch_size: int = 32) -> np.ndarray:
        """(N, d) float32 embeddings of pictures, of length 1: their cosines with texts' say what fits.

        Raises:
            CaptionerError: the captioner has no text encoder.
        """
        parts = [self._compare().images(self.preprocessor(some)) for some in _batches(images, batch_size)]
        return np.concatenate(parts)

    def embed_texts(self, texts: Sequence[str], batch_size: int = 32) -> np.ndarray:
        """(N, d) float32 embeddings of texts, of length 1, as `embed_images`."""
        return np.concatenate([self._compare().texts(some) for some in _batches(texts, batch_size)])

    def match(self, images: Sequence[Image.Image | np.ndarray], texts: Sequence[str]) -> np.ndarray:
        """(N,) float32 chances in [0, 1] that each picture and its text belong together (BLIP's ITM head).

        Raises:
            CaptionerError: the captioner has no ITM head (the shipped one has none).
        """
        return self._compare().match(self.preprocessor(images), texts)

    def _compare(self):
        if self._comparer is None:
            raise CaptionerError("this captioner has no text encoder, so it cannot compare texts with pictures")
        return self._comparer


def _batches(values: Sequence, size: int):
    return (values[first : first + size] for first in range(0, len(values), size))


def _check(name: str, value: int, low: int, high: int) -> None:
    if isinstance(value, bool) or not isinstance(value, (int, np.integer)) or not low <= value <= high:
        raise ValueError(f"{name} is a whole number from {low} to {high}, not {value!r}")


def _check_number(name: str, value: float, low: float, high: float) -> None:
    if isinstance(value, bool) or not isinstance(value, (int, float, np.number)) or not low <= value <= high:
        raise ValueError(f"{name} is a number from {low:g} to {high:g}, not {value!r}")
