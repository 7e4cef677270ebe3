"""Whether a text fits a picture: BLIP's contrastive embeddings (ITC) and its matching head (ITM), compiled."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from keras import ops

from atelier.captioner.blip import Blip
from atelier.captioner.compiling import compiled
from atelier.captioner.errors import CaptionerError
from atelier.captioner.text import encoder_rows
from atelier.captioner.tokenizer import CaptionTokenizer

# Texts are filled up to one of these lengths in tokens, so that few are ever compiled; longer ones are cut, as by BLIP.
LENGTHS = (24, 40)


class Comparer:
    """The parts of a BLIP that compare; each is compiled when it is first asked for."""

    def __init__(self, model: Blip, tokenizer: CaptionTokenizer):
        retrieval, size = model.config.retrieval, model.config.vision.image_size
        self._tokenizer = tokenizer
        self._longest = retrieval.text.max_position_embeddings
        self._matching = retrieval.matching
        cls, pad = tokenizer.cls_id, retrieval.text.pad_token_id
        pictures = ((None, size, size, 3), "float32")

        def texts(ids):
            return model.embed_text(*encoder_rows(ids, cls, pad))

        def match(pixels, ids):
            return ops.softmax(model.match(model.vision_model(pixels), *encoder_rows(ids, cls, pad)))[:, 1]

        def images(pixels):
            return model.embed_image(model.vision_model(pixels))

        self._images = compiled(images, model.variables, [pictures])
        lengths = [min(length, self._longest) for length in LENGTHS]
        self._texts = {length: compiled(texts, model.variables, [((None, length), "int32")]) for length in lengths}
        self._match = compiled(match, model.variables)

    def images(self, pixels: np.ndarray) -> np.ndarray:
        """(B, S, S, 3) preprocessed pixels -> (B, d) embeddings of length 1."""
        return ops.convert_to_numpy(self._images(ops.convert_to_tensor(pixels, "float32")))

    def texts(self, texts: Sequence[str]) -> np.ndarray:
        """N texts -> (N, d) embeddings of length 1; what is longer than 40 tokens is cut."""
        rows = self._rows(texts)
        return ops.convert_to_numpy(self._texts[rows.shape[1]](rows))

    def match(self, pixels: np.ndarray, texts: Sequence[str]) -> np.ndarray:
        """(B,) chances that the pictures and their texts belong together."""
        if not self._matching:
            raise CaptionerError("this captioner has no matching head (ITM)")
        return ops.convert_to_numpy(self._match(ops.convert_to_tensor(pixels, "float32"), self._rows(texts)))

    def _rows(self, texts: Sequence[str]):
        counts = [len(self._tokenizer.caption_ids(text)) for text in texts]
        length = next((length for length in LENGTHS if length >= max(counts, default=0)), LENGTHS[-1])
        return ops.convert_to_tensor(self._tokenizer.caption_rows(texts, min(length, self._longest)), "int32")
