"""From pictures to tokens: searches that run as one compiled loop, with a key/value cache.

A search knows a `step` only: a function that is given the newest token of every row and tells the scores (logits) of
the next. So a new way to search is a new `Picker` here, and nothing else. All of it is `keras.ops`: nothing comes back
to Python between two words.
"""

from __future__ import annotations

import functools
import math
import threading
from collections.abc import Callable
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from keras import ops

from atelier.backend import hand_back
from atelier.captioner.blip import Blip
from atelier.captioner.compiling import compiled
from atelier.captioner.text import is_small

# A cache has room for a multiple of so many words, so that few lengths are ever compiled.
CACHE_STEP = 16
# So many pictures are searched together, or one alone, so that only three sizes are ever compiled. A picture costs less
# in a large group, but a group runs on one core.
GROUP, LARGE_GROUP = 8, 16
# The picture encoder works on so many vectors at a time: what it remembers meanwhile grows with them, its speed hardly.
VECTORS = 1200
# Scores of words are looked through in parts of at most so many.
PART = 120
IMPOSSIBLE = -1e9


@dataclass(frozen=True)
class Search:
    """How to look for a caption; lengths count every token, [DEC], prompt and [SEP] included."""

    num_beams: int = 3
    """Captions that grow side by side; 1: only the likeliest word counts (greedy), or chance (`samples`)."""
    max_length: int = 30
    min_length: int = 5
    no_repeat_ngram: int = 3
    """No run of so many tokens comes twice; 0 allows it."""
    repetition_penalty: float = 1.0
    """Divides the chances of tokens that are there already (Keskar et al., "CTRL", 2019); 1 does nothing."""
    opening: int = 0
    """So many tokens after the prompt are the likeliest ones; only then do beams part. With 0 they part at once."""
    samples: int = 0
    """Draw so many captions by chance instead of searching for the best; 0: search."""
    temperature: float = 1.0
    """Of chance: below 1 likely words are drawn more often than the model says, above 1 less often."""
    top_p: float = 1.0
    """Of chance: only the likeliest words that share so much of it are drawn (Holtzman et al., 2020)."""
    seed: int = 0
    """Of chance."""

    @property
    def rows(self) -> int:
        """Captions that grow at a time for each picture."""
        return self.samples or self.num_beams


class Found(NamedTuple):
    """A caption's tokens (prompt included, [SEP] left out), and how likely it is."""

    tokens: list[int]
    score: float
    """The mean natural log-probability of the tokens after the prompt, [SEP] included."""


def groups(count: int, size: int = GROUP) -> list[slice]:
    """Which of `count` pictures are searched together: up to `size` of them, but one or two left over each alone."""
    alone = count % size if count % size < 3 else 0
    together = [slice(first, min(first + size, count)) for first in range(0, count - alone, size)]
    return together + [slice(place, place + 1) for place in range(count - alone, count)]


class Decoder:
    """A BLIP that writes: searches compiled once for each kind of search, and kept."""

    def __init__(self, model: Blip):
        self.config = model.config.text
        self._model = model

        def read(pixels):
            image = model.vision_model(pixels)
            return image, model.embed_image(image) if model.config.retrieval else image[:, 0, :0]

        vision = model.config.vision
        self._vectors = (1 + vision.grid**2, vision.hidden_size)
        self._at_once = min(GROUP, max(1, VECTORS // self._vectors[0]))
        self._read = compiled(read, model.variables, [((None, vision.image_size, vision.image_size, 3), "float32")])
        self._compiled: dict[tuple, Callable] = {}
        self._begun: set[tuple] = set()
        self._lock = threading.Lock()  # groups may be searched by several threads

    def __call__(self, pixels: np.ndarray, prompt: list[int], search: Search) -> tuple[list[list[Found]], np.ndarray]:
        """Caption pictures.

        Args:
            pixels: (B, S, S, 3) float32 preprocessed pixels.
            prompt: the first tokens, [DEC] included.

        Returns:
            for each picture its captions, the likeliest first: as many as there are beams or samples; and (B, d) what
            `Blip.embed_image` says of the pictures (nothing, d = 0, where the model has no such part).
        """
        parts = [self._group(pixels[some], prompt, search) for some in groups(len(pixels))]
        return [found for part, _ in parts for found in part], np.concatenate([images for _, images in parts])

    def _group(self, pixels: np.ndarray, prompt: list[int], search: Search) -> tuple[list[list[Found]], np.ndarray]:
        """`__call__` for one picture, or up to `LARGE_GROUP`."""
        count = len(pixels)
        size = 1 if count == 1 else GROUP if count <= GROUP else LARGE_GROUP
        run, arguments = self._prepared(size, prompt, search)
        parts = [pixels[first : first + self._at_once] for first in range(0, count, self._at_once)]
        read = [self._read(ops.convert_to_tensor(part, "float32")) for part in parts]
        image, embeddings = (ops.concatenate(part) for part in zip(*read, strict=True))
        image = ops.pad(image, [(0, size - count), (0, 0), (0, 0)])  # filled up with nothing
        sequences, scores = map(ops.convert_to_numpy, run(image, *arguments))
        found = [
            [Found(self._tokens(row, len(prompt)), float(score)) for row, score in zip(*pair, strict=True)]
            for pair in zip(sequences[:count], scores[:count], strict=True)
        ]
        return found, ops.convert_to_numpy(embeddings)

    def _prepared(self, size: int, prompt: list[int], search: Search) -> tuple[Callable, list]:
        """The compiled search for `size` pictures, and what it takes beside them."""
        length = min(-(-search.max_length // CACHE_STEP) * CACHE_STEP, self.config.max_position_embeddings)
        # The opening's own loop is seconds more to compile, and one picture would not gain a millisecond by it.
        opens = size > 1 and search.opening > 0 and search.num_beams > 1 and not search.samples
        kind = (search.rows, bool(search.samples), search.no_repeat_ngram, search.repetition_penalty != 1.0, opens)
        limits = [len(prompt) + search.opening, search.min_length, search.max_length]
        tuning = [search.repetition_penalty, search.temperature, search.top_p]
        chance = np.zeros((size, search.rows, length), np.float32)
        if search.samples:  # each picture's own, whatever stands beside it in the batch
            chance[:] = np.random.default_rng(search.seed).random(chance.shape[1:], np.float32)
        arguments = zip((prompt, limits, tuning, chance), ("int32", "int32", "float32", "float32"), strict=True)
        arguments = [ops.convert_to_tensor(np.asarray(value, dtype)) for value, dtype in arguments]
        with self._lock:
            run, new = self._function(length, *kind), (length, kind, size, len(prompt))
            if not is_small(self.config) and new not in self._begun:
                # What is needed once only, to compile and for the first steps of all, is given back bit by bit, and
                # before pictures are read: else it is what a process of this size needs most memory for.
                self._begun.add(new)
                nothing = ops.zeros((size, *self._vectors))
                for longest in (0, min(len(prompt) + 2, search.max_length)):
                    few = ops.convert_to_tensor([0, 0, longest], "int32")
                    run(nothing, arguments[0], few, *arguments[2:])
                    hand_back(libraries=True)
        return run, arguments

    def _tokens(self, row: np.ndarray, start: int) -> list[int]:
        ends = np.flatnonzero(row[start:] == self.config.sep_token_id)
        return row[: start + int(ends[0]) if len(ends) else None].tolist()

    def _function(self, length: int, rows: int, sampled: bool, ngram: int, penalised: bool, opens: bool) -> Callable:
        """The compiled search with caches of `length` words."""
        key = (length, rows, sampled, ngram, penalised, opens)
        if key in self._compiled:
            return self._compiled[key]
        text = self._model.text_decoder

        def run(image, prompt, limits, tuning, chance):
            batch, image = chance.shape[0], text.read_image(image)
            cache = text.empty_cache(batch, rows, length, image, prompt[:-1] if prompt.shape[0] > 1 else None)
            rules = Rules(prompt, limits, tuning, chance, self.config.sep_token_id, ngram, penalised)
            picker = (Sampler if sampled else Greedy if rows == 1 else Beams)(rules, batch, rows, length)
            return search(functools.partial(text.step, image, prepared=text.prepared()), cache, picker, opens)

        self._compiled[key] = compiled(run, self._model.variables, xla=is_small(self.config))
        return self._compiled[key]


@dataclass(frozen=True)
class Rules:
    """What a caption may go on with. Arrays are the compiled function's arguments, the rest is compiled in."""

    prompt: object
    """(P,) int32."""
    limits: object
    """(3,) int32: where the opening ends, the shortest and the longest caption, all counted in tokens."""
    tuning: object
    """(3,) float32: repetition penalty, temperature, top-p."""
    chance: object
    """(B, rows, length) float32 in [0, 1), one for each word to be drawn."""
    sep: int
    ngram: int
    penalised: bool

    def apply(self, scores, sequences, length):
        """Penalise what is there already; rule out to end too early, or to say the same again.

        Args:
            scores: (B, rows, V) logits or log-probabilities.
            sequences: (B, rows, T) tokens, of which the first `length` () are there.
        """
        vocab = scores.shape[-1]
        if self.penalised:
            there = _mark(sequences, ops.arange(sequences.shape[-1]) < length, vocab)
            penalty = self.tuning[0]
            scores = ops.where(there, ops.where(scores < 0, scores * penalty, scores / penalty), scores)
        ending = ops.logical_and(ops.arange(vocab) == self.sep, length < self.limits[1])
        scores = ops.where(ending, -math.inf, scores)
        if self.ngram:
            scores = ops.where(self._repeats(sequences, length, vocab), -math.inf, scores)
        return scores

    def _repeats(self, sequences, length, vocab: int):
        """(B, rows, V) booleans: tokens that would end a run of `ngram` tokens which is there already."""
        total, size = sequences.shape[-1], self.ngram
        if size > total:
            return ops.zeros_like(sequences[..., :1], "bool")
        places = ops.arange(total - size + 1)  # where a run may begin
        repeats = ops.logical_and(places + size <= length, length >= size)
        for offset in range(size - 1):
            last = ops.take(sequences, ops.maximum(length - size + 1 + offset, 0), axis=-1)[..., None]
            repeats = ops.logical_and(repeats, sequences[..., offset : offset + total - size + 1] == last)
        return _mark(sequences[..., size - 1 :], repeats, vocab)


def _mark(tokens, chosen, vocab: int):
    """(B, rows, V) booleans: which tokens occur in the (B, rows, T) `tokens` where `chosen` holds."""
    batch, rows, total = ops.shape(tokens)
    count = batch * rows
    columns = ops.reshape(ops.where(chosen, tokens, vocab), (count * total,))  # a column more for those not chosen
    lines = ops.repeat(ops.arange(count), total)
    hits = ops.scatter(ops.stack([lines, columns], axis=1), ops.ones_like(columns, "float32"), (count, vocab + 1))
    return ops.reshape(hits[:, :vocab] > 0, (batch, rows, vocab))


def search(step: Callable, cache: list, picker, opens: bool = False):
    """Let captions grow until the picker has what it wants.

    Args:
        step: (ids (B, n), place (), origin (B, n, T), cache) -> (logits (B, n, V), cache), for n = 1 and n = rows.
        cache: what `step` is first given.
        picker: chooses the words.
        opens: whether beams have an opening worth a loop of its own, in which only the first row is computed.

    Returns:
        (B, rows, T) int32 tokens filled up with [SEP], and (B, rows) float32 scores, the best first.
    """

    def body(length, state, cache, rows=None):
        ids, place, origin = picker.newest(state, length)
        logits, cache = step(ids[:, :rows], place, origin[:, :rows], cache)
        logits = ops.broadcast_to(logits, (*ids.shape, logits.shape[-1]))
        return length + 1, picker.choose(state, logits, length), cache

    def going(length, state, cache):
        return ops.logical_and(length < picker.rules.limits[2], picker.going(state))

    def alone(length, state, cache):
        return ops.logical_and(picker.alone(length), going(length, state, cache))

    values = ops.convert_to_tensor(picker.rules.prompt.shape[0], "int32"), picker.start(), cache
    if opens:
        values = _while(alone, functools.partial(body, rows=1), values)
    return picker.result(_while(going, body, values)[1])


def _while(going: Callable, body: Callable, values: tuple):
    """`ops.while_loop` for (scalar, tuple, list), which it wants flat."""
    size = len(values[1])

    def nested(flat):
        return flat[0], tuple(flat[1 : 1 + size]), list(flat[1 + size :])

    def flat(length, state, cache):
        return (length, *state, *cache)

    return nested(ops.while_loop(lambda *f: going(*nested(f)), lambda *f: flat(*body(*nested(f))), flat(*values)))


class Greedy:
    """The likeliest token at every step.

    Its state: tokens (B, rows, T), sums of log-probabilities (B, rows), how many they are, which captions have ended.
    """

    def __init__(self, rules: Rules, batch, rows: int, length: int):
        self.rules, self.batch, self.rows, self.length = rules, batch, rows, length

    def start(self):
        sequences = _begun(self.rules, self.batch, self.rows, self.length)
        none = ops.zeros((self.batch, self.rows), "float32")
        return sequences, none, none, ops.zeros((self.batch, self.rows), "bool")

    def newest(self, state, length):
        """What `search` steps with: the last tokens, their place, and which row holds which word."""
        rows = ops.arange(self.rows)[None, :, None]
        origin = ops.broadcast_to(rows, (self.batch, self.rows, self.length))
        return ops.take(state[0], length - 1, axis=2), length - 1, origin

    def choose(self, state, logits, length):
        """The state with one more word."""
        sequences, totals, steps, done = state
        ids = self.pick(self.rules.apply(logits, sequences, length), length)
        ids = ops.where(done, self.rules.sep, ops.cast(ids, "int32"))
        hit = ops.take_along_axis(ops.log_softmax(logits), ids[..., None], axis=-1)[..., 0]
        totals = totals + ops.where(done, 0.0, hit)
        steps = steps + ops.cast(ops.logical_not(done), "float32")
        sequences = _written(sequences, ids, length)
        return sequences, totals, steps, ops.logical_or(done, ids == self.rules.sep)

    def pick(self, scores, length):
        """(B, rows, V) scores -> (B, rows) tokens."""
        return ops.argmax(scores, axis=-1)

    def going(self, state):
        return ops.logical_not(ops.all(state[3]))

    def result(self, state):
        sequences, totals, steps, _ = state
        return sequences, totals / steps


class Sampler(Greedy):
    """Tokens by chance, each as likely as the model says; of `temperature` and `top_p` as `Search` has them."""

    def pick(self, scores, length):
        _, temperature, top_p = (self.rules.tuning[place] for place in range(3))
        chances = ops.softmax(scores / temperature)
        ids = ops.argsort(-chances, axis=-1)
        chances = ops.take_along_axis(chances, ids, axis=-1)
        before = ops.cumsum(chances, axis=-1) - chances
        chances = ops.where(before < top_p, chances, 0.0)  # the likeliest always stays
        ends = ops.cumsum(chances, axis=-1)
        drawn = ops.take(self.rules.chance, length, axis=2)[..., None] * ends[..., -1:]
        place = ops.minimum(ops.sum(ops.cast(ends <= drawn, "int32"), axis=-1), scores.shape[-1] - 1)
        return ops.take_along_axis(ids, place[..., None], axis=-1)[..., 0]

    def result(self, state):
        sequences, scores = super().result(state)
        return _chosen(sequences, ops.argsort(-scores, axis=1)), -ops.sort(-scores, axis=1)


class Beams:
    """The best finished captions among those that grow side by side, as `transformers` searches.

    The score of a caption is its mean log-probability (a length penalty of 1). A picture is done when its likeliest
    open caption scores less than the worst of its finished ones.

    Its state: open captions (B, beams, T) and their sums of log-probabilities, finished ones and their scores, whether
    a picture's open captions may still improve (B, 1), and which beam wrote each word of the open ones (B, beams, T).
    """

    def __init__(self, rules: Rules, batch, rows: int, length: int):
        self.rules, self.batch, self.beams, self.length = rules, batch, rows, length

    def start(self):
        sequences = _begun(self.rules, self.batch, self.beams, self.length)
        first = ops.arange(self.beams) == 0  # at first all beams are alike: only one may go on
        totals = ops.broadcast_to(ops.where(first, 0.0, IMPOSSIBLE), (self.batch, self.beams))
        scores = ops.full((self.batch, self.beams), IMPOSSIBLE, "float32")
        improving = ops.ones((self.batch, 1), "bool")
        return sequences, totals, sequences, scores, improving, ops.zeros_like(sequences)

    def newest(self, state, length):
        rows = ops.arange(self.beams)[None, :]
        origin = _written(state[5], ops.broadcast_to(rows, (self.batch, self.beams)), length - 1)
        return ops.take(state[0], length - 1, axis=2), length - 1, origin

    def alone(self, length):
        """Whether only the first beam can go on now: all that chooses the next word is its logits."""
        # An end within the opening would leave it with no beam ahead of the others.
        return length <= ops.minimum(self.rules.limits[0], self.rules.limits[1])

    def choose(self, state, logits, length):
        running, totals, finished, scores, improving, origin = state
        beams, vocab, rules = self.beams, logits.shape[-1], self.rules
        _, _, origin = self.newest(state, length)
        allowed = rules.apply(ops.log_softmax(logits), running, length)
        candidates = ops.reshape(allowed + totals[..., None], (self.batch, beams * vocab))
        # Twice as many as there are beams: if every beam's best token is the end, as many go on.
        values, best = _likeliest(candidates, 2 * beams)
        parents, ids = best // vocab, ops.cast(best % vocab, "int32")
        grown = _written(_chosen(running, parents), ids, length)
        words = ops.cast(length + 1 - rules.prompt.shape[0], "float32")
        ends = ops.logical_or(ids == rules.sep, length + 1 == rules.limits[2])

        accepted = ops.logical_and(ops.logical_and(ends, improving), ops.arange(2 * beams) < beams)
        merged = ops.concatenate([scores, ops.where(accepted, values / words, IMPOSSIBLE)], axis=1)
        scores, keep = ops.top_k(merged, beams)
        finished = _chosen(ops.concatenate([finished, grown], axis=1), keep)

        open_values = ops.where(ends, values + IMPOSSIBLE, values)
        # Within the opening, all but the likeliest are as impossible as at the start.
        alone = ops.logical_and(length < rules.limits[0], ops.arange(2 * beams) > 0)
        open_values = ops.where(alone, open_values + IMPOSSIBLE, open_values)
        totals, keep = ops.top_k(open_values, beams)
        running, origin = _chosen(grown, keep), _chosen(_chosen(origin, parents), keep)
        improving = ops.logical_and(improving, totals[:, :1] / words > scores[:, -1:])
        return running, totals, finished, scores, improving, origin

    def going(self, state):
        return ops.any(state[4])

    def result(self, state):
        return state[2], state[3]


def _likeliest(values, count: int):
    """`ops.top_k` of long rows (B, n) in two rounds: which parts hold the largest, then the best of those parts.

    The first only takes a maximum of each part, which is faster than to keep an order of all.
    """
    total = values.shape[-1]
    size = next((size for size in range(PART, 1, -1) if total % size == 0 and total > count * size), 1)
    parts = ops.reshape(values, (-1, total // size, size))
    _, chosen = ops.top_k(ops.max(parts, axis=-1), count)
    chosen = ops.cast(chosen, "int32")
    values, best = ops.top_k(ops.reshape(_chosen(parts, chosen), (-1, count * size)), count)
    best = ops.cast(best, "int32")
    return values, ops.take_along_axis(chosen, best // size, axis=1) * size + best % size


def _begun(rules: Rules, batch, rows: int, length: int):
    """(B, rows, length) tokens: the prompt, filled up with [SEP]."""
    start = rules.prompt.shape[0]
    row = ops.concatenate([rules.prompt, ops.full((length - start,), rules.sep, "int32")])
    return ops.broadcast_to(row, (batch, rows, length))


def _written(sequences, ids, place):
    """(B, rows, T) with (B, rows) `ids` at `place` ()."""
    return ops.where(ops.arange(sequences.shape[-1]) == place, ids[..., None], sequences)


def _chosen(sequences, rows):
    """(B, rows, T), (B, n) numbers of rows -> (B, n, T)."""
    return ops.take_along_axis(sequences, ops.cast(rows, "int32")[..., None], axis=1)


def generate(decoder: Decoder, pixels: np.ndarray, prompt: list[int], search: Search) -> list[Found]:
    """The best caption of each picture; arguments as of `Decoder`."""
    return [found[0] for found in decoder(pixels, prompt, search)[0]]
