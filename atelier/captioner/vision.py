"""BLIP's picture encoder: a Vision Transformer (Dosovitskiy et al., 2021), by choice on a convolutional stem.

Layers are named after their modules in Hugging Face's BLIP, since a variable's path is its tensor's name in a
weights file (see `weights`).
"""

from __future__ import annotations

import numpy as np
from keras import layers, ops

from atelier.captioner.attention import attend, split_parts
from atelier.captioner.config import VisionConfig
from atelier.captioner.preprocessing import CLIP_MEAN, CLIP_STD
from atelier.captioner.stem import CHANNELS, Stem


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

    def call(self, x, length: int, training=False):
        """One layer's work on B rows of T vectors, which stand below each other: (B * T, dim), with T = `length`."""
        # One packed projection: the first third of its outputs are the queries, then the keys, then the values.
        packed = ops.split(self.qkv(self.layer_norm1(x)), 3, -1)
        query, key, value = split_parts(packed, self.heads, length)
        context = attend(query, key, value, dropout=lambda w: self.attention_dropout(w, training=training))
        x = x + self.dropout(self.projection(ops.reshape(context, (-1, x.shape[-1]))), training=training)
        return x + self.dropout(self.fc2(self.fc1(self.layer_norm2(x))), training=training)


class VisionModel(layers.Layer):
    """Pixels to one vector for the picture and one for each of its patches."""

    def __init__(self, config: VisionConfig, **kwargs):
        super().__init__(**kwargs)
        self.config = config
        self.stem = Stem(name="embeddings.stem") if config.stem else None
        self.patch_embedding = layers.Conv2D(
            config.hidden_size, config.patch_size, strides=config.patch_size, name="embeddings.patch_embedding"
        )
        self.blocks = [VisionBlock(config, name=f"encoder.layers.{i}") for i in range(config.num_hidden_layers)]
        self.post_layernorm = layers.LayerNormalization(epsilon=config.layer_norm_eps, name="post_layernorm")

    def build(self, shape=None):
        config = self.config
        if self.stem:
            self.stem.build()
        tokens = (None, 1 + config.grid**2, config.hidden_size)
        self.class_embedding = self.add_weight(
            shape=(1, 1, config.hidden_size), initializer="random_normal", name="embeddings.class_embedding"
        )
        self.position_embedding = self.add_weight(
            shape=(1, *tokens[1:]), initializer="random_normal", name="embeddings.position_embedding"
        )
        self.patch_embedding.build((None, None, None, CHANNELS if self.stem else 3))
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
        scale, shift = 2.0 * np.float32(CLIP_STD), 2.0 * np.float32(CLIP_MEAN) - 1.0
        return self.stem(pixels * scale + shift)

    def encode(self, features, training=False):
        """Patches of a feature map -> (B, 1 + grid * grid, hidden_size), the class token first."""
        dim, length = self.config.hidden_size, 1 + self.config.grid**2
        # A convolution whose strides are as long as its kernel is a matrix product of the patches, and faster as one.
        kernel = ops.reshape(self.patch_embedding.kernel, (-1, dim))
        x = ops.reshape(ops.matmul(self._patches(features), kernel) + self.patch_embedding.bias, (-1, length - 1, dim))
        x = ops.concatenate([ops.broadcast_to(self.class_embedding, (ops.shape(x)[0], 1, dim)), x], axis=1)
        x = ops.reshape(x + self.position_embedding, (-1, dim))
        for block in self.blocks:
            x = block(x, length=length, training=training)
        return ops.reshape(self.post_layernorm(x), (-1, length, dim))

    def _patches(self, features):
        """(B, h, w, C) -> (B * grid * grid, patch * patch * C): the numbers of each patch in a row."""
        grid, patch, channels = self.config.grid, self.config.patch_size, features.shape[-1]
        x = features[:, : grid * patch, : grid * patch]
        if patch > 1:
            x = ops.transpose(ops.reshape(x, (-1, grid, patch, grid, patch, channels)), (0, 1, 3, 2, 4, 5))
        return ops.reshape(x, (-1, patch * patch * channels))
