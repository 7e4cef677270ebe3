"""BLIP for captioning (Li et al., "BLIP: Bootstrapping Language-Image Pre-training", 2022) in Keras 3."""

from __future__ import annotations

import keras

from atelier.captioner.config import BlipConfig
from atelier.captioner.text import TextDecoder
from atelier.captioner.vision import VisionModel


class Blip(keras.Model):
    """What `transformers` calls `BlipForConditionalGeneration`; its weights are random until `weights.load_weights`.

    `blip((pixels, ids))` with (B, S, S, 3) float32 preprocessed pixels and (B, T) token ids gives (B, T, vocab_size)
    float32 logits: the scores of the token after each.
    """

    def __init__(self, config: BlipConfig):
        super().__init__(name="blip")
        self.config = config
        self.vision_model = VisionModel(config.vision, name="vision_model")
        self.text_decoder = TextDecoder(config.text, config.vision.hidden_size, name="text_decoder")
        self.vision_model.build()
        self.text_decoder.build()
        self.built = True

    def call(self, inputs, training=False):
        pixels, ids = inputs
        return self.text_decoder(ids, self.vision_model(pixels, training=training), training=training)
