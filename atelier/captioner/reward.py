"""Teaches a trained captioner by what its own captions are worth: self-critical sequence training.

The language loss asks for each word after the true ones; a search goes on from its own. Here several captions of a
picture are drawn by chance, and each becomes likelier by as much as its CIDEr-D exceeds the mean of the others
(Rennie et al., "Self-critical Sequence Training for Image Captioning", 2017, with the baseline of Luo, "A Better
Variant of Self-Critical Sequence Training", 2020). Only the decoder learns: what the pictures' vectors are stays as it
is, and with it all that compares texts with pictures.
"""

from __future__ import annotations

import functools
from collections.abc import Sequence

import keras
import numpy as np
from keras import ops

from atelier.captioner.blip import Blip
from atelier.captioner.compiling import compiled
from atelier.captioner.decoding import Greedy, Rules, search
from atelier.captioner.losses import caption_loss
from atelier.captioner.scores import Cider
from atelier.captioner.text import copied
from atelier.captioner.tokenizer import CaptionTokenizer

END = "[end]"
"""A word that stands at the end of every caption, so that one which breaks off is worth less."""


class Draw(Greedy):
    """Each word by chance, `rules.tuning[1]` its temperature: `decoding.Sampler` without an order of all words."""

    def pick(self, scores, length):
        ends = ops.cumsum(ops.softmax(scores / self.rules.tuning[1]), axis=-1)
        drawn = ops.take(self.rules.chance, length, axis=2)[..., None] * ends[..., -1:]
        return ops.minimum(ops.sum(ops.cast(ends <= drawn, "int32"), axis=-1), scores.shape[-1] - 1)


class Reward:
    """CIDEr-D of a picture's captions, the end counted as a word.

    Args:
        captions: the true ones of N pictures, which also tell how rare a word is.
    """

    def __init__(self, captions: Sequence[str]):
        self._cider = Cider([f"{caption} {END}" for caption in captions])

    def __call__(self, places: Sequence[int], captions: Sequence[Sequence[str]]) -> np.ndarray:
        """(B, K) float32 in [0, 10]: of K captions of each of B pictures, whose numbers are `places`."""
        pairs = zip(places, captions, strict=True)
        return np.array([[self._cider(f"{one} {END}", place) for one in some] for place, some in pairs], np.float32)


def advantages(rewards: np.ndarray) -> np.ndarray:
    """(B, K) rewards less the mean of the picture's other captions'."""
    count = rewards.shape[1]
    return (rewards - rewards.mean(axis=1, keepdims=True)) * count / (count - 1)


class Critic(keras.Model):
    """A BLIP whose decoder learns from captions that it has drawn.

    Args:
        reward: what the captions of the training pictures are worth.
        recipe: a `train.Recipe`.
    """

    def __init__(self, blip: Blip, tokenizer: CaptionTokenizer, reward: Reward, recipe):
        super().__init__(name="critic")
        self.decoder, self.tokenizer, self.reward, self.recipe = blip.text_decoder, tokenizer, reward, recipe
        # What named the medium before: whoever is paid for whole captions forgets it in favour of the commoner one.
        self.before = copied(blip.text_decoder)
        self.before.trainable = False
        self.built = True
        optimizer = keras.optimizers.AdamW(recipe.reward_rate, weight_decay=0.0, global_clipnorm=1.0)
        optimizer.build(self.trainable_variables)
        self.compile(optimizer, jit_compile=False)
        self._draw = compiled(self._drawn, self.decoder.variables, xla=True)

    def _drawn(self, image, chance):
        text, (batch, rows, length) = self.decoder, chance.shape
        image = text.read_image(image)
        limits = ops.convert_to_tensor([0, 0, self.recipe.max_tokens], "int32")
        tuning = ops.convert_to_tensor([1.0, self.recipe.drawn_temperature, 1.0], "float32")
        prompt = ops.convert_to_tensor([text.config.bos_token_id], "int32")
        rules = Rules(prompt, limits, tuning, chance, text.config.sep_token_id, 0, False)
        cache = text.empty_cache(batch, rows, length, image)
        step = functools.partial(text.step, image, prepared=text.prepared())
        return search(step, cache, Draw(rules, batch, rows, length))[0]

    def draw(self, image: np.ndarray, rng: np.random.Generator) -> tuple[np.ndarray, list[list[str]]]:
        """Captions by chance: (B, T, d) vectors of pictures -> (B * K, L) int32 rows as they are learnt, and texts."""
        recipe, config = self.recipe, self.decoder.config
        chance = rng.random((len(image), recipe.drawn, recipe.max_tokens), np.float32)
        tokens = ops.convert_to_numpy(self._draw(ops.convert_to_tensor(image), ops.convert_to_tensor(chance)))
        ends = np.cumsum(tokens == config.sep_token_id, axis=-1)
        # The first end is learnt, what stands behind it is padding.
        tokens = np.where(ends - (tokens == config.sep_token_id) > 0, config.pad_token_id, tokens)
        texts = [[self.tokenizer.text(row) for row in some] for some in tokens]
        return tokens.reshape(-1, recipe.max_tokens), texts

    def learn(self, image: np.ndarray, rows: np.ndarray, places: np.ndarray, rng: np.random.Generator) -> float:
        """One step: the mean reward of what was drawn.

        Args:
            image: (B, T, d) float32 vectors of the pictures.
            rows: (B, L) their true captions as `caption_rows`.
            places: (B,) their numbers among the training pictures.
        """
        drawn, texts = self.draw(image, rng)
        rewards = self.reward(places, texts)
        self.train_on_batch((image, drawn, rows), (drawn, rows, advantages(rewards).reshape(-1)))
        return float(rewards.mean())

    def call(self, inputs, training=False):
        """Logits of drawn and of true captions, and the chances of the true ones' openings before this training."""
        image, drawn, rows = inputs
        opening = self.decoder.config.opening
        before = ops.softmax(self.before(rows[:, :opening], image, training=False)) if opening else None
        # Without dropout: what was drawn is judged by whoever drew it.
        written = self.decoder(drawn[:, :-1], image, training=False, rows=self.recipe.drawn)
        return written, self.decoder(rows[:, :-1], image, training=False), before

    def compute_loss(self, x=None, y=None, y_pred=None, sample_weight=None, training=True):
        """The drawn captions' log-probabilities weighed by their advantages, the language loss, and the anchor."""
        (drawn, rows, worth), (written, true, before), recipe = y, y_pred, self.recipe
        pad = self.decoder.config.pad_token_id
        log_probs = ops.log_softmax(written / recipe.drawn_temperature)
        hit = ops.take_along_axis(log_probs, ops.cast(drawn[:, 1:, None], "int32"), axis=-1)[..., 0]
        there = ops.cast(drawn[:, 1:] != pad, hit.dtype)
        loss = -ops.sum(hit * there * ops.cast(worth, hit.dtype)[:, None]) / ops.sum(there)
        loss += recipe.truth * caption_loss(rows[:, 1:], true, pad, recipe.label_smoothing)
        if before is None:
            return loss
        now = ops.log_softmax(true[:, : before.shape[1]])
        return loss - recipe.anchor * ops.mean(ops.sum(ops.stop_gradient(before) * now, axis=-1))
