"""BLIP's text decoder: a BERT (Devlin et al., 2019) that looks back only, and at the picture (Li et al., 2022).

Layers are named after their modules in Hugging Face's BLIP, as in `vision`.
"""

from __future__ import annotations

from keras import layers, ops

from atelier.captioner.attention import attend, split_heads
from atelier.captioner.config import TextConfig
from atelier.captioner.vision import gelu


class TextLayer(layers.Layer):
    """Attention to the words before, to the picture, then feed-forward; each added and normalised after (post-LN)."""

    def __init__(self, config: TextConfig, image_dim: int, **kwargs):
        super().__init__(**kwargs)
        dim = config.hidden_size
        self.dim, self.image_dim, self.heads = dim, image_dim, config.num_attention_heads

        def norm(name):
            return layers.LayerNormalization(epsilon=config.layer_norm_eps, name=name)

        self.query = layers.Dense(dim, name="attention.self.query")
        self.key = layers.Dense(dim, name="attention.self.key")
        self.value = layers.Dense(dim, name="attention.self.value")
        self.output_dense = layers.Dense(dim, name="attention.output.dense")
        self.output_norm = norm("attention.output.LayerNorm")
        self.cross_query = layers.Dense(dim, name="crossattention.self.query")
        self.cross_key = layers.Dense(dim, name="crossattention.self.key")
        self.cross_value = layers.Dense(dim, name="crossattention.self.value")
        self.cross_dense = layers.Dense(dim, name="crossattention.output.dense")
        self.cross_norm = norm("crossattention.output.LayerNorm")
        self.fc1 = layers.Dense(config.intermediate_size, activation=gelu, name="intermediate.dense")
        self.fc2 = layers.Dense(dim, name="output.dense")
        self.norm = norm("output.LayerNorm")
        self.attention_dropout = layers.Dropout(config.attention_probs_dropout_prob)
        self.dropout = layers.Dropout(config.hidden_dropout_prob)

    def build(self, shape=None):
        picture_sized = (self.cross_key, self.cross_value)
        own_sized = (self.query, self.key, self.value, self.output_dense, self.output_norm)
        own_sized += (self.cross_query, self.cross_dense, self.cross_norm, self.fc1, self.norm)
        for layer in own_sized:
            layer.build((None, None, self.dim))
        for layer in picture_sized:
            layer.build((None, None, self.image_dim))
        self.fc2.build((None, None, self.fc1.units))

    def read_image(self, image):
        """The picture's vectors (B, S, image_dim) as the (keys, values) of this layer, each (B, heads, S, d)."""
        return split_heads(self.cross_key(image), self.heads), split_heads(self.cross_value(image), self.heads)

    def read_words(self, x):
        """Words (N, T, dim) as the (keys, values) of this layer, each (N, heads, T, d)."""
        return split_heads(self.key(x), self.heads), split_heads(self.value(x), self.heads)

    def call(self, x, words, image, mask, training=False):
        """One layer's work on N rows of T words.

        Args:
            x: (N, T, dim).
            words: the (keys, values) to look back at, each (N, heads, L, d).
            image: the (keys, values) of B pictures; each picture's N / B rows (its beams) stand together.
            mask: booleans that broadcast to (N, heads, T, L): which words may be seen.
        """

        def drop(y):
            return self.dropout(y, training=training)

        def drop_weights(weights):
            return self.attention_dropout(weights, training=training)

        context = attend(split_heads(self.query(x), self.heads), *words, mask=mask, dropout=drop_weights)
        x = self.output_norm(x + drop(self.output_dense(context)))
        # The beams of a picture are just more queries to it, so its keys and values need no copies.
        rows, length, dim = ops.shape(x)
        batch = ops.shape(image[0])[0]
        query = ops.reshape(self.cross_query(x), (batch, rows // batch * length, dim))
        context = attend(split_heads(query, self.heads), *image, dropout=drop_weights)
        context = ops.reshape(context, (rows, length, dim))
        x = self.cross_norm(x + drop(self.cross_dense(context)))
        return self.norm(x + drop(self.fc2(self.fc1(x))))


class TextDecoder(layers.Layer):
    """Tokens and a picture to the scores (logits) of each next token."""

    def __init__(self, config: TextConfig, image_dim: int, **kwargs):
        super().__init__(**kwargs)
        self.config = config
        dim, eps = config.hidden_size, config.layer_norm_eps
        self.word_embeddings = layers.Embedding(
            config.vocab_size, dim, embeddings_initializer="truncated_normal", name="bert.embeddings.word_embeddings"
        )
        self.position_embeddings = layers.Embedding(
            config.max_position_embeddings, dim, name="bert.embeddings.position_embeddings"
        )
        self.embedding_norm = layers.LayerNormalization(epsilon=eps, name="bert.embeddings.LayerNorm")
        self.dropout = layers.Dropout(config.hidden_dropout_prob)
        self.blocks = [
            TextLayer(config, image_dim, name=f"bert.encoder.layer.{i}") for i in range(config.num_hidden_layers)
        ]
        self.transform = layers.Dense(dim, activation=gelu, name="cls.predictions.transform.dense")
        self.transform_norm = layers.LayerNormalization(epsilon=eps, name="cls.predictions.transform.LayerNorm")

    def build(self, shape=None):
        words = (None, None, self.config.hidden_size)
        self.word_embeddings.build()
        self.position_embeddings.build()
        for layer in (self.embedding_norm, *self.blocks, self.transform, self.transform_norm):
            layer.build(words)
        self.bias = self.add_weight(shape=(self.config.vocab_size,), initializer="zeros", name="cls.predictions.bias")

    def call(self, ids, image, training=False):
        """(B, T) token ids and (B, S, image_dim) picture vectors -> (B, T, vocab_size) logits."""
        length = ops.shape(ids)[1]
        mask = ops.tril(ops.ones((length, length), "bool"))  # a word sees itself and what came before
        x = self._embed(ids, ops.arange(length), training)
        for block in self.blocks:
            x = block(x, block.read_words(x), block.read_image(image), mask, training=training)
        return self._logits(x)

    def read_image(self, image):
        """What the decoder needs of a picture, computed once: the (keys, values) of each layer."""
        return [block.read_image(image) for block in self.blocks]

    def empty_cache(self, rows: int, length: int):
        """Room for the keys and values of `length` words in `rows` rows, one (2, rows, heads, length, d) a layer."""
        heads = self.config.num_attention_heads
        shape = (2, rows, heads, length, self.config.hidden_size // heads)
        return [ops.zeros(shape, "float32") for _ in self.blocks]

    def step(self, ids, position, image, cache):
        """`call` for one more word, with the keys and values of the words before taken from the cache.

        Args:
            ids: (N,) the newest token of each row.
            position: () int32, its place in the row.
            image: of `read_image`, for B pictures; N is a multiple of B.
            cache: of `empty_cache` or an earlier step.

        Returns:
            (N, vocab_size) logits, and the cache with this word in it.
        """
        slots = ops.arange(ops.shape(cache[0])[3])
        here = ops.reshape(slots == position, (1, 1, 1, -1, 1))
        mask = slots <= position
        x = self._embed(ids[:, None], position[None], False)  # (N, 1, dim)
        filled = []
        for block, seen, old in zip(self.blocks, image, cache, strict=True):
            words = ops.where(here, ops.stack(block.read_words(x)), old)
            x = block(x, (words[0], words[1]), seen, mask)
            filled.append(words)
        return self._logits(x)[:, 0], filled

    def _embed(self, ids, positions, training):
        x = self.word_embeddings(ids) + self.position_embeddings(positions)
        return self.dropout(self.embedding_norm(x), training=training)

    def _logits(self, x):
        x = self.transform_norm(self.transform(x))
        return ops.matmul(x, ops.transpose(self.word_embeddings.embeddings)) + self.bias  # tied to the embedding
