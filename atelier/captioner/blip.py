"""BLIP (Li et al., "BLIP: Bootstrapping Language-Image Pre-training", 2022) in Keras 3."""

from __future__ import annotations

import keras
from keras import layers, ops

from atelier.captioner.config import BlipConfig
from atelier.captioner.text import TextDecoder, TextEncoder
from atelier.captioner.vision import VisionModel


class Blip(keras.Model):
    """The picture encoder and, as `config` has them, the parts behind it; weights are random until they are loaded.

    With `config.text` it is what `transformers` calls `BlipForConditionalGeneration`: `blip((pixels, ids))` with
    (B, S, S, 3) float32 preprocessed pixels and (B, T) token ids gives (B, T, vocab_size) float32 logits, the scores of
    the token after each.

    With `config.retrieval` it is `BlipForImageTextRetrieval`: `embed_image`, `embed_text` and `match`.
    """

    def __init__(self, config: BlipConfig):
        super().__init__(name="blip")
        self.config = config
        width = config.vision.hidden_size
        self.vision_model = VisionModel(config.vision, name="vision_model")
        self.vision_model.build()
        if config.text:
            self.text_decoder = TextDecoder(config.text, width, name="text_decoder")
            self.text_decoder.build()
        if retrieval := config.retrieval:
            text = retrieval.text
            self.text_encoder = TextEncoder(text, width if retrieval.matching else None, name="text_encoder")
            self.text_encoder.build()
            self.vision_proj = layers.Dense(retrieval.hidden_size, name="vision_proj")
            self.vision_proj.build((None, width))
            self.text_proj = layers.Dense(retrieval.hidden_size, name="text_proj")
            self.text_proj.build((None, text.hidden_size))
            if retrieval.matching:
                self.itm_head = layers.Dense(2, name="itm_head")
                self.itm_head.build((None, text.hidden_size))
        self.built = True

    def call(self, inputs, training=False):
        pixels, ids = inputs
        return self.text_decoder(ids, self.vision_model(pixels, training=training), training=training)

    def embed_image(self, image):
        """(B, S, hidden_size) vectors of the picture encoder -> (B, retrieval.hidden_size), of length 1."""
        return ops.normalize(self.vision_proj(image[:, 0]))

    def embed_text(self, ids, mask, training=False):
        """(B, T) ids, [CLS] first, and booleans, false on padding -> (B, retrieval.hidden_size), of length 1."""
        return ops.normalize(self.text_proj(self.text_encoder(ids, mask, training=training)[:, 0]))

    def match(self, image, ids, mask):
        """(B, 2) logits that a text does not, and does, belong to its picture (ITM); arguments as above."""
        return self.itm_head(self.text_encoder(ids, mask, image)[:, 0])
