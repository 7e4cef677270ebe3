"""From a picture to tokens: one compiled step with a key/value cache, and the searches that call it.

A search knows a `Session` only: rows of tokens that grow by one word a step. So a new way to search (or to sample)
is a new function here, and nothing else.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from keras import ops

from atelier.captioner.blip import Blip
from atelier.captioner.compiling import compiled

# A batch is filled up to one of these sizes, so that few shapes are ever compiled.
BATCH_SIZES = (1, 8, 32, 128)
# A cache begins with room for so many words and grows by as many, since every step moves all of it.
CACHE_STEP = 16
IMPOSSIBLE = -1e9


@dataclass(frozen=True)
class Search:
    """How to look for a caption; lengths count every token, [DEC], prompt and [SEP] included."""

    num_beams: int = 3
    max_length: int = 30
    min_length: int = 5
    no_repeat_ngram: int = 3
    """No run of so many tokens comes twice; 0 allows it."""


class Decoder:
    """A BLIP's two compiled functions: `read` a batch of pictures, and one `step` of all their captions."""

    def __init__(self, model: Blip):
        self.config = model.config.text
        text = model.text_decoder

        def read(pixels):
            return text.read_image(model.vision_model(pixels))

        def step(ids, parents, position, image, cache):
            cache = [ops.take(layer, parents, axis=1) for layer in cache]
            logits, cache = text.step(ids, position, image, cache)
            return ops.log_softmax(logits), cache

        self._text = text
        self._read = compiled(read, model.variables)
        self._step = compiled(step, model.variables)

    def start(self, pixels: np.ndarray, beams: int) -> Session:
        """Begin captions of (B, S, S, 3) pixels, with `beams` rows for each picture."""
        return Session(self, pixels, beams)


class Session:
    """The captions of one batch while they grow: `rows` = B * beams, each picture's beams together."""

    def __init__(self, decoder: Decoder, pixels: np.ndarray, beams: int):
        self.rows = len(pixels) * beams
        self._decoder = decoder
        self._image = decoder._read(ops.convert_to_tensor(pixels, "float32"))
        self._cache = decoder._text.empty_cache(self.rows, CACHE_STEP)
        self._position = 0

    def step(self, ids: np.ndarray, parents: np.ndarray | None = None) -> np.ndarray:
        """Append one token to every row.

        Args:
            ids: (rows,) the tokens.
            parents: (rows,) which row each row continues; `None`: its own.

        Returns:
            (rows, vocab_size) float32 log-probabilities of the token after.
        """
        parents = np.arange(self.rows) if parents is None else parents
        if self._position and self._position % CACHE_STEP == 0:
            more = self._decoder._text.empty_cache(self.rows, CACHE_STEP)
            self._cache = [ops.concatenate(pair, axis=3) for pair in zip(self._cache, more, strict=True)]
        log_probs, self._cache = self._decoder._step(
            ops.convert_to_tensor(ids, "int32"),
            ops.convert_to_tensor(parents, "int32"),
            ops.convert_to_tensor(self._position, "int32"),
            self._image,
            self._cache,
        )
        self._position += 1
        return ops.convert_to_numpy(log_probs)

    def begin(self, prompt: list[int]) -> np.ndarray:
        """Give every row the same first tokens; returns what `step` returns for the last of them."""
        for token in prompt:
            log_probs = self.step(np.full(self.rows, token))
        return log_probs


def generate(decoder: Decoder, pixels: np.ndarray, prompt: list[int], search: Search) -> list[tuple[list[int], float]]:
    """Caption pictures.

    Args:
        pixels: (B, S, S, 3) float32 preprocessed pixels; B is at most the last of `BATCH_SIZES`.
        prompt: the first tokens, [DEC] included.

    Returns:
        for each picture its tokens (prompt included, [SEP] left out) and the mean natural log-probability of the
        tokens after the prompt, [SEP] included.
    """
    count = len(pixels)
    size = next(size for size in BATCH_SIZES if size >= count)
    pixels = np.concatenate([pixels, np.repeat(pixels[-1:], size - count, axis=0)])
    session = decoder.start(pixels, search.num_beams)
    find = greedy_search if search.num_beams == 1 else beam_search
    sequences, scores = find(session, prompt, search, decoder.config.sep_token_id)
    ends = [_end(row, len(prompt), decoder.config.sep_token_id) for row in sequences]
    return [(row[:end].tolist(), float(score)) for row, end, score in zip(sequences, ends, scores, strict=True)][:count]


def _end(row: np.ndarray, start: int, sep: int) -> int:
    ends = np.flatnonzero(row[start:] == sep)
    return start + int(ends[0]) if len(ends) else len(row)


def allow(log_probs: np.ndarray, sequences: np.ndarray, search: Search, sep: int) -> np.ndarray:
    """Rule out what a caption may not go on with: to end too early, or to say the same again.

    Args:
        log_probs: (rows, vocab_size), changed in place.
        sequences: (rows, T) the tokens so far.
    """
    length = sequences.shape[1]
    if length < search.min_length:
        log_probs[:, sep] = -np.inf
    size = search.no_repeat_ngram
    if 0 < size <= length:
        heads = np.lib.stride_tricks.sliding_window_view(sequences, size, axis=1)  # (rows, T - size + 1, size)
        repeats = (heads[..., :-1] == sequences[:, None, length - size + 1 :]).all(-1)
        row, place = np.nonzero(repeats)
        log_probs[row, heads[row, place, -1]] = -np.inf
    return log_probs


def greedy_search(session: Session, prompt: list[int], search: Search, sep: int) -> tuple[np.ndarray, np.ndarray]:
    """The likeliest token at every step: ((rows, T) tokens filled up with `sep`, (rows,) mean log-probabilities)."""
    sequences = np.tile(np.asarray(prompt, np.int64), (session.rows, 1))
    total, steps = np.zeros(session.rows), np.zeros(session.rows)
    done = np.zeros(session.rows, bool)
    log_probs = session.begin(prompt)
    while True:
        log_probs = allow(np.array(log_probs), sequences, search, sep)
        ids = np.where(done, sep, log_probs.argmax(-1))
        total += np.where(done, 0.0, np.take_along_axis(log_probs, ids[:, None], -1)[:, 0])
        steps += ~done
        done |= ids == sep
        sequences = np.concatenate([sequences, ids[:, None]], axis=1)
        if done.all() or sequences.shape[1] >= search.max_length:
            return sequences, total / steps
        log_probs = session.step(ids)


def beam_search(session: Session, prompt: list[int], search: Search, sep: int) -> tuple[np.ndarray, np.ndarray]:
    """The best finished caption among `num_beams` that grow side by side, as `transformers` searches.

    The score of a caption is its mean log-probability (a length penalty of 1). A picture is done when its likeliest
    open caption scores less than the worst of `num_beams` finished ones.

    Returns:
        ((B, max_length) tokens filled up with `sep`, (B,) scores).
    """
    beams, length = search.num_beams, len(prompt)
    batch = session.rows // beams
    rows = np.arange(batch)[:, None]
    running = np.full((batch, beams, search.max_length), sep, np.int64)
    running[:, :, :length] = prompt
    totals = np.full((batch, beams), IMPOSSIBLE, np.float32)  # sums of log-probabilities
    totals[:, 0] = 0.0  # at first all beams are alike: only one may go on
    finished, scores = running.copy(), np.full((batch, beams), IMPOSSIBLE)
    improving = np.ones((batch, 1), bool)
    log_probs = session.begin(prompt)
    while True:
        log_probs = allow(np.array(log_probs), running[:, :, :length].reshape(batch * beams, -1), search, sep)
        candidates = (log_probs.reshape(batch, beams, -1) + totals[:, :, None]).reshape(batch, -1)
        # Twice as many as there are beams: if every beam's best token is the end, as many go on.
        best = _top(candidates, 2 * beams)  # (B, 2 * beams)
        values = np.take_along_axis(candidates, best, 1)
        parents, ids = np.divmod(best, log_probs.shape[-1])
        grown = running[rows, parents]
        grown[:, :, length] = ids
        length += 1
        ends = (ids == sep) | (length == search.max_length)

        accepted = ends & improving & (np.arange(2 * beams) < beams)
        merged = np.concatenate([scores, np.where(accepted, values / (length - len(prompt)), IMPOSSIBLE)], axis=1)
        keep = _top(merged, beams)
        finished = np.concatenate([finished, grown], axis=1)[rows, keep]
        scores = merged[rows, keep]

        keep = _top(np.where(ends, values + IMPOSSIBLE, values), beams)
        running, totals, ids, parents = grown[rows, keep], values[rows, keep], ids[rows, keep], parents[rows, keep]
        improving &= totals[:, :1] / (length - len(prompt)) > scores[:, -1:]
        if not improving.any() or length == search.max_length:
            return finished[:, 0], scores[:, 0]
        log_probs = session.step(ids.ravel(), (parents + rows * beams).ravel())


def _top(values: np.ndarray, count: int) -> np.ndarray:
    """The columns of each row's `count` largest values, the largest first, the first of equals before the others."""
    values, rows, best = values.copy(), np.arange(len(values)), []
    for _ in range(count):  # faster than a partition of so many columns for so few
        best.append(values.argmax(axis=1))
        values[rows, best[-1]] = -np.inf
    return np.stack(best, axis=1)
