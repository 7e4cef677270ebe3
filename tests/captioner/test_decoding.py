import itertools

import numpy as np
import pytest

from atelier.captioner.decoding import Search, allow, beam_search, generate, greedy_search

SEP = 3


@pytest.fixture(scope="module")
def decoder(captioner):
    return captioner._decoder  # what it has compiled serves here, too


@pytest.fixture(scope="module")
def pixels(captioner, pictures):
    return captioner.preprocessor(pictures)


def full_log_probs(model, pixels, ids):
    """(B, T, vocab) by one forward pass without a cache."""
    logits = np.asarray(model((pixels, ids)), np.float64)
    logits -= logits.max(-1, keepdims=True)
    return logits - np.log(np.exp(logits).sum(-1, keepdims=True))


def test_steps_with_a_cache_equal_the_whole_pass(captioner, decoder, pixels):
    ids = np.random.default_rng(0).integers(0, 60, (8, 36))  # longer than the cache is at first
    session = decoder.start(pixels[:8], 1)
    steps = np.stack([session.step(column) for column in ids.T], axis=1)
    np.testing.assert_allclose(steps, full_log_probs(captioner.model, pixels[:8], ids), atol=2e-5)


def test_rows_may_go_on_from_other_rows(captioner, decoder, pixels):
    rng = np.random.default_rng(1)
    session = decoder.start(pixels[:1], 3)
    rows = np.empty((3, 0), int)
    for _ in range(19):
        parents, ids = rng.integers(0, 3, 3), rng.integers(0, 60, 3)
        rows = np.concatenate([rows[parents], ids[:, None]], axis=1)
        found = session.step(ids, parents)
    whole = full_log_probs(captioner.model, np.repeat(pixels[:1], 3, axis=0), rows)[:, -1]
    np.testing.assert_allclose(found, whole, atol=2e-5)


def test_greedy_search_takes_the_likeliest_token(captioner, decoder, pixels):
    search = Search(num_beams=1, max_length=16, min_length=4, no_repeat_ngram=0)
    for picture, (found, score) in zip(pixels[:4], generate(decoder, pixels[:4], [5, 9], search), strict=True):
        ids, total = [5, 9], []
        while len(ids) < 16 and ids[-1] != SEP:
            log_probs = full_log_probs(captioner.model, picture[None], np.array([ids]))[0, -1]
            if len(ids) < 4:
                log_probs[SEP] = -np.inf
            ids.append(int(log_probs.argmax()))
            total.append(log_probs.max())
        assert found == [token for token in ids if token != SEP]
        assert score == pytest.approx(np.mean(total), abs=1e-4)


@pytest.mark.parametrize("beams", [1, 3])
def test_a_caption_does_not_depend_on_its_batch(decoder, pixels, beams):
    search = Search(num_beams=beams, max_length=20)
    together = generate(decoder, pixels, [5], search)
    alone = [generate(decoder, picture[None], [5], search)[0] for picture in pixels]
    assert [ids for ids, _ in together] == [ids for ids, _ in alone]
    np.testing.assert_allclose([score for _, score in together], [score for _, score in alone], atol=1e-4)
    assert len({tuple(ids) for ids, _ in together}) > 1  # the pictures do matter


@pytest.mark.parametrize("beams", [1, 3])
@pytest.mark.parametrize(("low", "high"), [(0, 6), (9, 9), (12, 20)])
def test_lengths_are_kept(decoder, pixels, beams, low, high):
    for ids, _ in generate(decoder, pixels, [5], Search(beams, high, low)):
        assert low <= len(ids) + 1  # with [SEP]
        assert len(ids) <= high


def test_no_trigram_comes_twice(decoder, pixels):
    def repeats(ids):
        trigrams = list(zip(ids, ids[1:], ids[2:], strict=False))
        return len(trigrams) - len(set(trigrams))

    free = Search(num_beams=1, max_length=40, min_length=40, no_repeat_ngram=0)
    assert any(repeats(ids) for ids, _ in generate(decoder, pixels, [5], free))
    for beams in (1, 3):
        bound = Search(num_beams=beams, max_length=40, min_length=40)
        assert not any(repeats(ids) for ids, _ in generate(decoder, pixels, [5], bound))


def test_what_is_ruled_out():
    sequences = np.array([[1, 2, 3, 1, 2], [1, 1, 1, 1, 1], [4, 5, 6, 7, 8]])
    found = allow(np.zeros((3, 10)), sequences, Search(min_length=6, no_repeat_ngram=3), sep=0)
    assert [np.flatnonzero(np.isinf(row)).tolist() for row in found] == [[0, 3], [0, 1], [0]]
    found = allow(np.zeros((3, 10)), sequences, Search(min_length=5, no_repeat_ngram=0), sep=0)
    assert not np.isinf(found).any()


class Chain:
    """A session whose next token depends on the last one only: log-probabilities (vocab, vocab) from a table."""

    def __init__(self, table, rows):
        self.table, self.rows = table, rows

    def begin(self, prompt):
        return self.step(np.full(self.rows, prompt[-1]))

    def step(self, ids, parents=None):
        return self.table[ids]


def every_caption(table, length):
    """(score, tokens) of every way to go on from token 0 up to `length` tokens in all, by brute force."""
    vocab = len(table)
    for size in range(1, length):
        for tail in itertools.product(range(vocab), repeat=size):
            early_end = SEP in tail[:-1]
            unfinished = tail[-1] != SEP and size < length - 1
            if not early_end and not unfinished:
                steps = zip((0, *tail), tail, strict=False)
                yield sum(table[a, b] for a, b in steps) / size, (0, *tail)


@pytest.mark.parametrize("seed", range(6))
def test_a_wide_beam_finds_the_best_caption_of_all(seed):
    table = np.log(np.random.default_rng(seed).dirichlet(np.full(5, 0.4), 5) + 1e-9)
    best, tokens = max(every_caption(table, 5))
    # 125 beams can hold every open caption. The search may stop before a longer one overtakes, so lengths are fixed.
    search = Search(num_beams=125, max_length=5, min_length=4, no_repeat_ngram=0)
    best, tokens = max((score, row) for score, row in every_caption(table, 5) if len(row) == 5)
    sequences, scores = beam_search(Chain(table, 125), [0], search, SEP)
    assert scores[0] == pytest.approx(best)
    assert tuple(sequences[0]) == tokens


def test_beams_find_what_greed_misses():
    table = np.log(np.full((5, 5), 1e-6))
    table[0, 1], table[0, 2] = np.log(0.55), np.log(0.45)  # 1 looks better at first,
    table[1] = np.log(0.2)
    table[2, 4] = table[4, SEP] = np.log(0.99)  # but 2 leads to the better caption
    search = Search(num_beams=3, max_length=6, min_length=0, no_repeat_ngram=0)
    greedy, low = greedy_search(Chain(table, 1), [0], search, SEP)
    sequences, high = beam_search(Chain(table, 3), [0], search, SEP)
    assert greedy[0, 1] == 1
    assert sequences[0, :4].tolist() == [0, 2, 4, SEP]
    assert high[0] == pytest.approx((np.log(0.45) + 2 * np.log(0.99)) / 3)
    assert high[0] > low[0]
