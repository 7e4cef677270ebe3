"""How well a captioner does on pictures that it has not learnt from."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from keras import ops
from PIL import Image

from atelier.captioner.blip import Blip
from atelier.captioner.compiling import compiled
from atelier.captioner.decoding import Decoder, Search, generate
from atelier.captioner.examples import open_rgb
from atelier.captioner.preprocessing import Preprocessor
from atelier.captioner.tokenizer import CaptionTokenizer
from atelier.dataset.source import Picture, medium_in_words

BATCH = 32


def small_and_large_again(image: Image.Image, side: int = 64) -> Image.Image:
    """What is left of a picture that is shrunk to `side` pixels and enlarged again, as the generator's are."""
    kernel = Image.Resampling.LANCZOS
    return image.resize((side, side), kernel).resize(image.size, kernel)


class Judge:
    """Judges one model on one set of pictures, as often as it is called."""

    def __init__(
        self,
        model: Blip,
        tokenizer: CaptionTokenizer,
        preprocessor: Preprocessor,
        pictures: Sequence[Picture],
        max_tokens: int,
    ):
        self.tokenizer, self.preprocessor, self.pictures = tokenizer, preprocessor, pictures
        self.ids = tokenizer.caption_rows([picture.caption for picture in pictures], max_tokens)
        self._decoder = Decoder(model)

        def surprise(pixels, ids):
            log_probs = ops.log_softmax(model((pixels, ids[:, :-1])))
            hit = ops.take_along_axis(log_probs, ids[:, 1:, None], axis=-1)[..., 0]
            return -ops.sum(hit * ops.cast(ids[:, 1:] != tokenizer.config.pad_token_id, "float32"))

        self._surprise = compiled(surprise, model.variables)

    def __call__(self) -> dict[str, float]:
        """Judge the pictures as they are, and as 64-pixel pictures enlarged (`..._64px`).

        Returns:
            `loss`: mean cross entropy (nats) of the true captions' tokens, the earlier ones given.
            `medium`: share of greedy captions that name the picture's medium before any other.
        """
        figures = {}
        for name, look in (("", lambda image: image), ("_64px", small_and_large_again)):
            surprise, right = 0.0, 0
            for start in range(0, len(self.pictures), BATCH):
                some = self.pictures[start : start + BATCH]
                pixels = self.preprocessor([look(open_rgb(picture.path)) for picture in some])
                ids = self.ids[start : start + BATCH]
                empty = [(0, BATCH - len(some)), (0, 0)]  # rows of padding, which count for nothing
                surprise += float(self._surprise(np.pad(pixels, [*empty, (0, 0), (0, 0)]), np.pad(ids, empty)))
                prompt = self.tokenizer.prompt_ids("")
                for picture, (found, _) in zip(
                    some, generate(self._decoder, pixels, prompt, Search(num_beams=1)), strict=True
                ):
                    right += medium_in_words(self.tokenizer.text(found)) == picture.medium
            figures[f"loss{name}"] = surprise / np.count_nonzero(self.ids[:, 1:])
            figures[f"medium{name}"] = right / len(self.pictures)
        return {key: round(float(value), 4) for key, value in figures.items()}
