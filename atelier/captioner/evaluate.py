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
from atelier.captioner.scores import cider, recall
from atelier.captioner.text import encoder_rows
from atelier.captioner.tokenizer import CaptionTokenizer
from atelier.dataset.source import Picture
from atelier.seeds import medium_in_words

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
        cls, pad = tokenizer.cls_id, tokenizer.config.pad_token_id

        def examine(pixels, ids):
            image = model.vision_model(pixels)
            log_probs = ops.log_softmax(model.text_decoder(ids[:, :-1], image))
            hit = ops.take_along_axis(log_probs, ids[:, 1:, None], axis=-1)[..., 0]
            surprise = -ops.sum(hit * ops.cast(ids[:, 1:] != pad, "float32"))
            return surprise, model.embed_image(image), model.embed_text(*encoder_rows(ids, cls, pad))

        self._examine = compiled(examine, model.variables)

    def __call__(self) -> dict[str, float]:
        """Judge the pictures as they are, and as 64-pixel pictures enlarged (`..._64px`).

        Returns:
            `loss`: mean cross entropy (nats) of the true captions' tokens, the earlier ones given.
            `cider`: mean CIDEr-D of greedy captions, in [0, 10].
            `medium`: share of greedy captions that name the picture's medium before any other.
            `recall_5`: share of pictures whose own caption is among the five nearest of all.
        """
        figures = {}
        for name, look in (("", lambda image: image), ("_64px", small_and_large_again)):
            surprise, images, texts, captions = 0.0, [], [], []
            for start in range(0, len(self.pictures), BATCH):
                some = self.pictures[start : start + BATCH]
                pixels = self.preprocessor([look(open_rgb(picture.path)) for picture in some])
                ids = self.ids[start : start + BATCH]
                empty = [(0, BATCH - len(some)), (0, 0)]  # rows of padding, which count for nothing
                found = self._examine(np.pad(pixels, [*empty, (0, 0), (0, 0)]), np.pad(ids, empty))
                surprise += float(found[0])
                images.append(ops.convert_to_numpy(found[1])[: len(some)])
                texts.append(ops.convert_to_numpy(found[2])[: len(some)])
                greedy = generate(self._decoder, pixels, self.tokenizer.prompt_ids(""), Search(num_beams=1))
                captions += [self.tokenizer.text(tokens) for tokens, _ in greedy]
            pairs = list(zip(self.pictures, captions, strict=True))
            figures[f"loss{name}"] = surprise / np.count_nonzero(self.ids[:, 1:])
            figures[f"cider{name}"] = np.mean(cider(captions, [picture.caption for picture in self.pictures]))
            figures[f"medium{name}"] = np.mean([medium_in_words(text) == picture.medium for picture, text in pairs])
            cosines = np.concatenate(images) @ np.concatenate(texts).T
            figures[f"recall_5{name}"] = recall(cosines, 5)
        return {key: round(float(value), 4) for key, value in figures.items()}
