"""BLIP's picture encoder: a Vision Transformer (Dosovitskiy et al., 2021), by choice on a convolutional stem.

Layers are named after their modules in Hugging Face's BLIP, since a variable's path is its tensor's name in a
weights file (see `weights`).
"""

from __future__ import annotations

import keras
from keras import layers, ops

from atelier.captioner.attention import attend, split_heads
from atelier.captioner.config import VisionConfig
from atelier.captioner.preprocessing import CLIP_MEAN, CLIP_STD


def gelu(x):
    """The exact Gaussian error linear unit, not its tanh approximation."""
    return ops.gelu(x, approximate=False)


class VisionBlock(layers.Layer):
    """Attention and feed-forward, each normalised before (pre-LN) and added to what came in."""

    def __init__(self, config: VisionConfig, **kwargs):
        super().__init__(**kwargs)
        dim, eps = config.hidden_size, config.layer_norm_eps
        self.heads = config.num_attention_heads
        self.layer_norm1 = layers.LayerNormalization(epsilon=eps, name="layer_norm1")
        self.qkv = layers.Dense(3 * dim, name="self_attn.qkv")
        self.projection = layers.Dense(dim, name="self_attn.projection")
        self.layer_norm2 = layers.LayerNormalization(epsilon=eps, name="layer_norm2")
        self.fc1 = layers.Dense(config.intermediate_size, activation=gelu, name="mlp.fc1")
        self.fc2 = layers.Dense(dim, name="mlp.fc2")
        self.attention_dropout = layers.Dropout(config.attention_dropout)
        self.dropout = layers.Dropout(config.dropout)

    def build(self, shape):
        for layer in (self.layer_norm1, self.qkv, self.projection, self.layer_norm2, self.fc1):
            layer.build(shape)
        self.fc2.build((*shape[:-1], self.fc1.units))

    def call(self, x, training=False):
        # One packed projection: the first third of its outputs are the queries, then the keys, then the values.
        packed = ops.split(self.qkv(self.layer_norm1(x)), 3, -1)
        query, key, value = (split_heads(part, self.heads, x.shape[1]) for part in packed)
        context = attend(query, key, value, dropout=lambda w: self.attention_dropout(w, training=training))
        x = x + self.dropout(self.projection(context), training=training)
        return x + self.dropout(self.fc2(self.fc1(self.layer_norm2(x))), training=training)


class VisionModel(layers.Layer):
    """Pixels to one vector for the picture and one for each of its patches."""

    def __init__(self, config: VisionConfig, **kwargs):
        super().__init__(**kwargs)
        self.config = config
        self.stem = None
        self.patch_embedding = layers.Conv2D(
            config.hidden_size, config.patch_size, strides=config.patch_size, name="embeddings.patch_embedding"
        )
        self.blocks = [VisionBlock(config, name=f"encoder.layers.{i}") for i in range(config.num_hidden_layers)]
        self.post_layernorm = layers.LayerNormalization(epsilon=config.layer_norm_eps, name="post_layernorm")

    def build(self, shape=None):
        config, size = self.config, self.config.image_size
        channels = 3
        if config.stem:
            with keras.name_scope("embeddings.stem"):
                self.stem = keras.applications.MobileNetV2(include_top=False, weights=None, input_shape=(size, size, 3))
            channels = self.stem.output_shape[-1]
        tokens = (None, 1 + config.grid**2, config.hidden_size)
        self.class_embedding = self.add_weight(
            shape=(1, 1, config.hidden_size), initializer="random_normal", name="embeddings.class_embedding"
        )
        self.position_embedding = self.add_weight(
            shape=(1, *tokens[1:]), initializer="random_normal", name="embeddings.position_embedding"
        )
        self.patch_embedding.build((None, None, None, channels))
        for layer in (*self.blocks, self.post_layernorm):
            layer.build(tokens)

    def call(self, pixels, training=False):
        """(B, image_size, image_size, 3) preprocessed pixels -> (B, 1 + grid * grid, hidden_size)."""
        return self.encode(self.feature_map(pixels), training=training)

    def feature_map(self, pixels):
        """What the patches are cut from: the stem's (B, h, w, C) features, or without a stem the pixels themselves."""
        if self.stem is None:
            return pixels
        # CLIP's normalisation undone, then MobileNet's range [-1, 1].
        pixels = (pixels * ops.array(CLIP_STD, "float32") + ops.array(CLIP_MEAN, "float32")) * 2.0 - 1.0
        return self.stem(pixels, training=False)  # batch norm keeps its statistics, in fine-tuning too

    def encode(self, features, training=False):
        """Patches of a feature map -> (B, 1 + grid * grid, hidden_size), the class token first."""
        x = self.patch_embedding(features)  # (B, grid, grid, hidden)
        height, width, dim = x.shape[1:]
        x = ops.reshape(x, (-1, height * width, dim))
        x = ops.concatenate([ops.broadcast_to(self.class_embedding, (ops.shape(x)[0], 1, dim)), x], axis=1)
        x = x + self.position_embedding
        for block in self.blocks:
            x = block(x, training=training)
        return self.post_layernorm(x)
