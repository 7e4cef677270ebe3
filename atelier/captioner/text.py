"""BLIP's text models: BERTs (Devlin et al., 2019) that look at a picture, too (Li et al., 2022).

The decoder writes: its words see what came before them. The encoder reads: its words see each other, and, to judge
whether a text fits a picture, the picture.

Layers are named after their modules in Hugging Face's BLIP, as in `vision`.
"""

from __future__ import annotations

from keras import layers, ops

from atelier.captioner.attention import attend, split_heads, split_keys, split_parts
from atelier.captioner.config import TextConfig
from atelier.captioner.vision import gelu

# With a vocabulary of at most so many numbers a text model is a small one: see `is_small`.
SMALL = 2**22
# Which axis of keys and of values tells words apart.
PLACES = (3, 2)


def is_small(config: TextConfig) -> bool:
    """Whether a word costs mostly the starting of operations, and not, as in a large model, the reading of the weights.

    For a small model searches are one program (XLA), and its matrices are laid out for it before the loop. A large one
    gains nothing by either: copies of its matrices cost more than they save, and the compiler takes seconds and a
    quarter of the memory of the weights.
    """
    return config.vocab_size * config.hidden_size <= SMALL


def product(x, kernel, small: bool):
    """(T, n) rows by an (n, m) matrix; of a `small` model two to four rows go one by one.

    XLA is best at one row by a wide matrix: three rows at once took as long or longer.
    """
    rows = x.shape[0]
    if not small or rows is None or not 1 < rows <= 4:
        return ops.matmul(x, kernel)
    return ops.concatenate([ops.matmul(row, kernel) for row in ops.split(x, rows)])


class TextLayer(layers.Layer):
    """Attention to words, to the picture, then feed-forward; each added and normalised after (post-LN).

    Args:
        image_dim: numbers in each of the picture's vectors; `None`: the layer cannot look at pictures.
    """

    def __init__(self, config: TextConfig, image_dim: int | None, **kwargs):
        super().__init__(**kwargs)
        dim = config.hidden_size
        self.dim, self.image_dim, self.heads = dim, image_dim, config.num_attention_heads
        self.small = is_small(config)

        def norm(name):
            return layers.LayerNormalization(epsilon=config.layer_norm_eps, name=name)

        self.query = layers.Dense(dim, name="attention.self.query")
        self.key = layers.Dense(dim, name="attention.self.key")
        self.value = layers.Dense(dim, name="attention.self.value")
        self.output_dense = layers.Dense(dim, name="attention.output.dense")
        self.output_norm = norm("attention.output.LayerNorm")
        if image_dim is not None:
            self.cross_query = layers.Dense(dim, name="crossattention.self.query")
            self.cross_key = layers.Dense(dim, name="crossattention.self.key")
            self.cross_value = layers.Dense(dim, name="crossattention.self.value")
            self.cross_dense = layers.Dense(dim, name="crossattention.output.dense")
            self.cross_norm = norm("crossattention.output.LayerNorm")
        self.fc1 = layers.Dense(config.intermediate_size, name="intermediate.dense")
        self.fc2 = layers.Dense(dim, name="output.dense")
        self.norm = norm("output.LayerNorm")
        self.attention_dropout = layers.Dropout(config.attention_probs_dropout_prob)
        self.dropout = layers.Dropout(config.hidden_dropout_prob)

    def build(self, shape=None):
        own_sized = (self.query, self.key, self.value, self.output_dense, self.output_norm, self.fc1, self.norm)
        if self.image_dim is not None:
            own_sized += (self.cross_query, self.cross_dense, self.cross_norm)
            for layer in (self.cross_key, self.cross_value):
                layer.build((None, None, self.image_dim))
        for layer in own_sized:
            layer.build((None, None, self.dim))
        self.fc2.build((None, None, self.fc1.units))

    def read_image(self, image):
        """The picture's vectors (B, S, image_dim) as this layer's keys (B, heads, d, S) and values (B, heads, S, d)."""
        length = image.shape[1]
        keys, values = self.cross_key(image), self.cross_value(image)
        return split_keys(keys, self.heads, length), split_heads(values, self.heads, length)

    def packed(self):
        """The (kernel, bias) of queries, keys and values side by side."""
        parts = (self.query, self.key, self.value)
        return ops.concatenate([p.kernel for p in parts], axis=1), ops.concatenate([p.bias for p in parts])

    def read_words(self, x, length: int, packed=None):
        """Words as this layer's queries (B, heads, T, d), keys (B, heads, d, T) and values (B, heads, T, d).

        Args:
            x: (B * T, dim).
            length: T.
            packed: of `packed`, where that is at hand: one wide product is faster than three.
        """
        if packed is None:
            parts = [part(x) for part in (self.query, self.key, self.value)]
        else:
            parts = ops.split(product(x, packed[0], self.small) + packed[1], 3, axis=-1)
        return split_parts(parts, self.heads, length)

    def call(self, x, words, image, mask, length: int, training=False):
        """One layer's work on B rows of T words, which stand below each other: matrices are faster than stacks of them.

        Args:
            x: (B * T, dim).
            words: their queries (B, heads, T, d), and what to look at: keys (B, heads, d, L), values (B, heads, L, d).
            image: the (keys, values) of B pictures; `None`: no picture is looked at.
            mask: booleans that broadcast to (B, heads, T, L): which words may be seen.
            length: T.
        """

        def drop(y):
            return self.dropout(y, training=training)

        def look(query, key, value, mask=None):
            context = attend(query, key, value, mask, lambda w: self.attention_dropout(w, training=training))
            return ops.reshape(context, (-1, self.dim))

        x = self.output_norm(x + drop(self.output_dense(look(*words, mask))))
        if image is not None:
            query = split_heads(self.cross_query(x), self.heads, length)
            x = self.cross_norm(x + drop(self.cross_dense(look(query, *image))))
        grown = gelu(product(x, self.fc1.kernel, self.small) + self.fc1.bias)
        return self.norm(x + drop(self.fc2(grown)))


class TextModel(layers.Layer):
    """What decoder and encoder have in common: embeddings, and a stack of layers.

    Args:
        image_dim: as of `TextLayer`.
        prefix: of the layers' names.
    """

    def __init__(self, config: TextConfig, image_dim: int | None, prefix: str = "", **kwargs):
        super().__init__(**kwargs)
        self.config = config
        dim = config.hidden_size
        self.word_embeddings = layers.Embedding(
            config.vocab_size,
            dim,
            embeddings_initializer="truncated_normal",
            name=f"{prefix}embeddings.word_embeddings",
        )
        self.position_embeddings = layers.Embedding(
            config.max_position_embeddings, dim, name=f"{prefix}embeddings.position_embeddings"
        )
        self.embedding_norm = layers.LayerNormalization(
            epsilon=config.layer_norm_eps, name=f"{prefix}embeddings.LayerNorm"
        )
        self.dropout = layers.Dropout(config.hidden_dropout_prob)
        self.blocks = [
            TextLayer(config, image_dim, name=f"{prefix}encoder.layer.{i}") for i in range(config.num_hidden_layers)
        ]

    def build(self, shape=None):
        self.word_embeddings.build()
        self.position_embeddings.build()
        for layer in (self.embedding_norm, *self.blocks):
            layer.build((None, None, self.config.hidden_size))

    def _embed(self, ids, positions, training=False):
        """(B, T) ids at (T,) positions -> (B * T, hidden_size)."""
        x = self.word_embeddings(ids) + self.position_embeddings(positions)
        x = ops.reshape(x, (-1, self.config.hidden_size))
        return self.dropout(self.embedding_norm(x), training=training)


class TextEncoder(TextModel):
    """Tokens, and by choice a picture, to one vector for each token; the first ([CLS]) stands for the whole."""

    def call(self, ids, mask, image=None, training=False):
        """Read texts.

        Args:
            ids: (B, T) token ids.
            mask: (B, T) booleans, false where a row is filled up.
            image: (B, S, image_dim) picture vectors to be looked at.

        Returns:
            (B, T, hidden_size).
        """
        length = ids.shape[1]
        x = self._embed(ids, ops.arange(length), training)
        for block in self.blocks:
            seen = None if image is None else block.read_image(image)
            x = block(x, block.read_words(x, length), seen, mask[:, None, None, :], length=length, training=training)
        return ops.reshape(x, (-1, length, self.config.hidden_size))


class TextDecoder(TextModel):
    """Tokens and a picture to the scores (logits) of each next token."""

    def __init__(self, config: TextConfig, image_dim: int, **kwargs):
        super().__init__(config, image_dim, prefix="bert.", **kwargs)
        dim, eps = config.hidden_size, config.layer_norm_eps
        self.transform = layers.Dense(dim, activation=gelu, name="cls.predictions.transform.dense")
        self.transform_norm = layers.LayerNormalization(epsilon=eps, name="cls.predictions.transform.LayerNorm")

    def build(self, shape=None):
        super().build()
        for layer in (self.transform, self.transform_norm):
            layer.build((None, None, self.config.hidden_size))
        self.bias = self.add_weight(shape=(self.config.vocab_size,), initializer="zeros", name="cls.predictions.bias")

    def call(self, ids, image, training=False, rows: int = 1):
        """(B * rows, T) token ids and (B, S, image_dim) picture vectors -> (B * rows, T, vocab_size) logits.

        Args:
            rows: texts of each picture, below each other.
        """
        length = ids.shape[1]
        mask = ops.tril(ops.ones((length, length), "bool"))  # a word sees itself and what came before
        x = self._embed(ids, ops.arange(length), training)
        for block in self.blocks:
            seen = block.read_image(image)
            if rows > 1:
                seen = [ops.repeat(part, rows, axis=0) for part in seen]
            x = block(x, block.read_words(x, length), seen, mask, length=length, training=training)
        return self._logits(x, length, ops.transpose(self.word_embeddings.embeddings))

    def read_image(self, image):
        """What the decoder needs of a picture, computed once: the (keys, values) of each layer."""
        return [block.read_image(image) for block in self.blocks]

    def empty_cache(self, batch, rows: int, length: int, image, prompt=None):
        """Room for the keys and values of `length` words of `rows` captions of each picture.

        Args:
            batch: B pictures.
            image: of `read_image`.
            prompt: (P,) tokens that all captions begin with; they fill the first places.

        Returns:
            for each layer its keys (B, heads, d, length * rows) and its values (B, heads, length * rows, d): the rows'
            first words, their second words, and so on.
        """
        heads = self.config.num_attention_heads
        width, places = self.config.hidden_size // heads, length * rows
        if prompt is None:
            keys, values = ((batch, heads, *shape) for shape in ((width, places), (places, width)))
            return [ops.zeros(keys, "float32"), ops.zeros(values, "float32")] * len(self.blocks)
        count = prompt.shape[0]
        mask = ops.tril(ops.ones((count, count), "bool"))
        x = self._embed(ops.broadcast_to(prompt, (batch, count)), ops.arange(count))
        cache = []
        for block, seen in zip(self.blocks, image, strict=True):
            words = block.read_words(x, count)
            x = block(x, words, seen, mask, length=count)
            for part, axis in zip(words[1:], PLACES, strict=True):
                room = [(0, 0)] * 4
                room[axis] = (0, (length - count) * rows)
                cache.append(ops.pad(ops.repeat(part, rows, axis=axis), room))
        return cache

    def prepared(self):
        """The vocabulary and each layer's `packed`, as `step` likes them best; `None` for a large model."""
        if not is_small(self.config):
            return None
        return ops.transpose(self.word_embeddings.embeddings), [block.packed() for block in self.blocks]

    def step(self, image, ids, place, origin, cache, prepared=None):
        """`call` for one more word of every caption, with the keys and values of the words before from the cache.

        A picture's captions stand beside each other like the words of one text; what each may look at tells a mask.
        So captions may go on from other captions (in a beam search) without anything being moved in the cache.

        Args:
            image: of `read_image`.
            ids: (B, n) the newest token of each caption, or of the first n rows' captions.
            place: () int32, its place.
            origin: (B, n, T) int32: which row wrote each word of a caption, for the places up to `place`.
            cache: of `empty_cache` or an earlier step.
            prepared: of `prepared`, once for many steps.

        Returns:
            (B, n, vocab_size) logits, and the cache with this word in it.
        """
        rows, length = origin.shape[1:]
        kept = cache[0].shape[PLACES[0]] // length  # rows that the cache has room for
        mask = origin[..., None] == ops.arange(kept)  # (B, n, T, kept)
        mask = ops.logical_and(mask, (ops.arange(length) <= place)[:, None])
        mask = ops.reshape(mask, (-1, 1, rows, length * kept))
        x = self._embed(ids, place[None])
        begin = [ops.stack([place * kept if axis == at else 0 for axis in range(4)]) for at in PLACES]
        cache = list(cache)
        vocabulary, packed = prepared or (None, [None] * len(self.blocks))
        for number, (block, seen) in enumerate(zip(self.blocks, image, strict=True)):
            query, *words = block.read_words(x, rows, packed[number])
            held = slice(2 * number, 2 * number + 2)
            cache[held] = [ops.slice_update(*part) for part in zip(cache[held], begin, words, strict=True)]
            x = block(x, (query, *cache[held]), seen, mask, length=rows)
        return self._logits(x, rows, vocabulary), cache

    def _logits(self, x, length: int, vocabulary):
        """(B * T, hidden_size) -> (B, T, vocab_size).

        Args:
            vocabulary: the word embeddings, to which the scores are tied, as columns. `None`: they are used as they
                are, which is best for few rows: these are turned about then, and not the largest matrix of all.
        """
        x = self.transform_norm(self.transform(x))
        if vocabulary is None:
            logits = ops.transpose(ops.matmul(self.word_embeddings.embeddings, ops.transpose(x)))
        else:
            logits = ops.matmul(x, vocabulary)
        return ops.reshape(logits + self.bias, (-1, length, self.config.vocab_size))


def copied(text: TextDecoder) -> TextDecoder:
    """Another decoder with the same weights."""
    copy = TextDecoder(text.config, text.blocks[0].image_dim, name=text.name)
    copy.build()
    copy.set_weights(text.get_weights())
    return copy


def encoder_rows(ids, cls: int, pad: int):
    """Rows of [DEC] tokens [SEP] -> (rows of [CLS] tokens [SEP], where there is no padding)."""
    ids = ops.cast(ids, "int32")
    first = ops.full_like(ids[:, :1], cls)
    return ops.concatenate([first, ids[:, 1:]], axis=1), ids != pad
