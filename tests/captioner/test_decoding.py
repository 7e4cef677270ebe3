import functools
import itertools

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from keras import ops

from atelier.captioner import decoding
from atelier.captioner.decoding import (
    GROUP,
    LARGE_GROUP,
    Beams,
    Decoder,
    Greedy,
    Rules,
    Sampler,
    Search,
    generate,
    groups,
    search,
)

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


@pytest.mark.parametrize("prompt", [1, 4])
@pytest.mark.parametrize("prepared", [False, True])
@pytest.mark.parametrize("count", [1, 2])
def test_steps_with_a_cache_equal_the_whole_pass(captioner, pixels, prompt, prepared, count):
    rng, text = np.random.default_rng(0), captioner.model.text_decoder
    image = text.read_image(captioner.model.vision_model(pixels[:count]))
    begun = rng.integers(0, 60, prompt)
    first = ops.convert_to_tensor(begun[:-1], "int32") if prompt > 1 else None
    layout = text.prepared() if prepared else None
    assert not prepared or layout is not None
    cache = text.empty_cache(count, 3, 16, image, first)
    rows = np.tile(begun, (count, 3, 1))
    origin = np.zeros((count, 3, 16), np.int32)
    for place in range(prompt - 1, 12):  # captions go on from other captions, as beams do
        origin[:, :, place] = np.arange(3)
        state = [ops.convert_to_tensor(value, "int32") for value in (rows[:, :, -1], place, origin)]
        logits, cache = text.step(image, *state, cache, layout)
        pairs = np.repeat(pixels[:count], 3, axis=0)
        whole = np.asarray(captioner.model((pairs, rows.reshape(3 * count, -1))))[:, -1].reshape(count, 3, -1)
        np.testing.assert_allclose(np.asarray(logits), whole, atol=2e-5)
        parents = rng.integers(0, 3, (count, 3))[..., None]
        rows, origin = np.take_along_axis(rows, parents, 1), np.take_along_axis(origin, parents, 1)
        rows = np.concatenate([rows, rng.integers(0, 60, (count, 3, 1))], axis=2)


@pytest.mark.parametrize("most", [GROUP, LARGE_GROUP])
def test_groups_cover_every_picture_once(most):
    for count in range(40):
        sizes = [len(range(count)[some]) for some in groups(count, most)]
        assert [place for some in groups(count, most) for place in range(count)[some]] == list(range(count))
        assert all(size == 1 or 3 <= size <= most for size in sizes)
    assert groups(0) == []


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


def test_few_pictures_are_encoded_at_once(captioner, decoder, pixels, monkeypatch):
    monkeypatch.setattr(decoding, "VECTORS", 40)  # a picture is 17
    second, search = Decoder(captioner.model), Search(max_length=12)
    second._compiled = decoder._compiled
    sizes, encode = [], second._read
    second._read = lambda part: sizes.append(len(part)) or encode(part)
    found = generate(second, pixels[:5], [5], search)
    assert sizes == [2, 2, 1]
    assert [one.tokens for one in found] == [one.tokens for one in generate(decoder, pixels[:5], [5], search)]


def test_a_large_group_finds_what_small_ones_find(captioner, decoder, pixels):
    many, search = np.concatenate([pixels, pixels[:3]]), Search(max_length=12)
    large, small = decoder._group(many, [5], search), decoder(many, [5], search)
    assert [[found.tokens for found in each] for each in large[0]] == [[f.tokens for f in each] for each in small[0]]
    assert large[1].shape == small[1].shape


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


def rules(prompt=(0,), opening=0, low=0, high=6, penalty=1.0, temperature=1.0, top_p=1.0, ngram=0, chance=None):
    """`Rules` from plain numbers."""
    numbers = [ops.convert_to_tensor(prompt, "int32"), ops.convert_to_tensor([len(prompt) + opening, low, high])]
    numbers.append(ops.convert_to_tensor([penalty, temperature, top_p], "float32"))
    return Rules(*numbers, chance, SEP, ngram, penalty != 1.0)


def test_what_is_ruled_out():
    sequences = np.array([[[1, 2, 9, 1, 2, 3]], [[1, 1, 1, 1, 1, 3]], [[4, 5, 6, 7, 8, 3]]])
    apply = functools.partial(Rules.apply, scores=np.zeros((3, 1, 10), "float32"), sequences=sequences, length=5)
    found = np.asarray(apply(rules(low=6, ngram=3)))
    assert [np.flatnonzero(np.isinf(row[0])).tolist() for row in found] == [[3, 9], [1, 3], [3]]
    assert not np.isinf(apply(rules(low=5))).any()


@given(st.lists(st.integers(0, 4), min_size=1, max_size=12), st.integers(1, 4))
def test_runs_that_are_there_already_are_found(tokens, size):
    padded = np.array([[tokens + [SEP] * (12 - len(tokens))]])
    scores = Rules.apply(rules(ngram=size), np.zeros((1, 1, 5), "float32"), padded, len(tokens))
    runs = {tuple(tokens[i : i + size]) for i in range(len(tokens) - size + 1)}
    banned = {
        word for word in range(5) if len(tokens) >= size - 1 and (*tokens[len(tokens) - size + 1 :], word) in runs
    }
    assert set(np.flatnonzero(np.isinf(scores[0, 0]))) == banned


def test_what_is_there_already_is_penalised():
    scores = np.array([[[2.0, -2.0, 2.0, -2.0]]], "float32")
    found = Rules.apply(rules(penalty=4.0), scores, np.array([[[0, 1, 3]]]), 2)
    np.testing.assert_allclose(found, [[[0.5, -8.0, 2.0, -2.0]]])


def chain(table):
    """A step whose next token depends on the last one only: log-probabilities (vocab, vocab) from a table."""
    return lambda ids, place, origin, cache: (ops.take(ops.convert_to_tensor(table, "float32"), ids, axis=0), cache)


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
    # 125 beams can hold every open caption. The search may stop before a longer one overtakes, so lengths are fixed.
    best, tokens = max((score, row) for score, row in every_caption(table, 5) if len(row) == 5)
    sequences, scores = search(chain(table), [], Beams(rules(low=4, high=5), 1, 125, 5))
    assert float(scores[0, 0]) == pytest.approx(best, abs=1e-5)
    assert tuple(np.asarray(sequences[0, 0])) == tokens


TRAP = np.log(np.full((5, 5), 1e-6))
TRAP[0, 1], TRAP[0, 2] = np.log(0.55), np.log(0.45)  # 1 looks better at first,
TRAP[1] = np.log(0.2)
TRAP[2, 4] = TRAP[4, SEP] = np.log(0.99)  # but 2 leads to the better caption
TRAP -= np.log(np.exp(TRAP).sum(-1, keepdims=True))


def test_beams_find_what_greed_misses():
    greedy, low = search(chain(TRAP), [], Greedy(rules(), 1, 1, 6))
    sequences, high = search(chain(TRAP), [], Beams(rules(), 1, 3, 6))
    assert greedy[0, 0, 1] == 1
    assert np.asarray(sequences)[0, 0, :4].tolist() == [0, 2, 4, SEP]
    assert float(high[0, 0]) == pytest.approx((TRAP[0, 2] + TRAP[2, 4] + TRAP[4, SEP]) / 3, abs=1e-5)
    assert high[0, 0] > low[0, 0]


def test_an_opening_is_greedy():
    sequences, _ = search(chain(TRAP), [], Beams(rules(opening=1), 1, 3, 6))
    assert np.all(np.asarray(sequences)[0, :, 1] == 1)


@pytest.mark.parametrize("opening", [0, 1, 3])
@pytest.mark.parametrize("low", [0, 2, 6])  # below, within and behind the opening
def test_an_opening_by_one_row_is_the_same(opening, low):
    widths = []

    def step(ids, place, origin, cache, table):
        widths.append(ids.shape[1])
        return chain(table)(ids, place, origin, cache)

    for seed in range(3):
        table = np.log(np.random.default_rng(seed).dirichlet(np.full(6, 0.5), 6) + 1e-9)
        beams = Beams(rules(opening=opening, low=low, high=8), 2, 3, 8)
        ways = [search(functools.partial(step, table=table), [], beams, opens) for opens in (False, True)]
        for plain, narrow in zip(*ways, strict=True):
            np.testing.assert_array_equal(plain, narrow)
    assert (1 in widths) == (low > 0)


def test_captions_of_a_group_do_not_depend_on_how_an_opening_is_computed(captioner, pixels, monkeypatch):
    widths, step = [], captioner.model.text_decoder.step

    def watched(image, ids, *rest, **options):
        widths.append(ids.shape[1])
        return step(image, ids, *rest, **options)

    monkeypatch.setattr(captioner.model.text_decoder, "step", watched)
    group, kind = (
        np.repeat(pixels[:1], 3, axis=0) + np.arange(3)[:, None, None, None] / 2,
        Search(opening=3, max_length=12),
    )
    found = Decoder(captioner.model)(group.astype("float32"), [5], kind)[0]
    assert set(widths) == {1, 3}
    widths.clear()
    monkeypatch.setattr(decoding, "search", lambda *arguments: search(*arguments[:3]))
    plain = Decoder(captioner.model)(group.astype("float32"), [5], kind)[0]
    assert set(widths) == {3}
    for one, other in zip(itertools.chain(*found), itertools.chain(*plain), strict=True):
        assert one.tokens == other.tokens and one.score == pytest.approx(other.score, abs=1e-5)


def drawn(count, **settings):
    """What is drawn first from 60, 30, 10 and 0 %, `count` times."""
    table = np.log(np.tile([0.6, 0.3, 0.1, 1e-9], (4, 1)))
    chance = ops.convert_to_tensor(np.random.default_rng(0).random((1, count, 4)), "float32")
    sequences, _ = search(chain(table), [], Sampler(rules(high=2, chance=chance, **settings), 1, count, 4))
    return np.bincount(np.asarray(sequences)[0, :, 1], minlength=4) / count


def test_chance_is_as_the_model_says():
    np.testing.assert_allclose(drawn(4000), [0.6, 0.3, 0.1, 0], atol=0.03)
    np.testing.assert_allclose(drawn(4000, temperature=0.5), np.array([36, 9, 1, 0]) / 46, atol=0.03)
    np.testing.assert_allclose(drawn(4000, top_p=0.8), [2 / 3, 1 / 3, 0, 0], atol=0.03)
    np.testing.assert_allclose(drawn(50, top_p=1e-6), [1, 0, 0, 0])


def test_chance_is_the_seeds(decoder, pixels):
    def captions(seed, some):
        return [found.tokens for found in generate(decoder, some, [5], Search(samples=2, temperature=2.0, seed=seed))]

    assert captions(0, pixels[:3]) == captions(0, pixels[:3])
    assert captions(0, pixels[:1]) == captions(0, pixels[:3])[:1]
    assert captions(0, pixels[:3]) != captions(1, pixels[:3])


def test_all_candidates_come_the_best_first(decoder, pixels):
    for kind in (Search(num_beams=3), Search(samples=3)):
        for found in decoder(pixels[:2], [5], kind)[0]:
            scores = [each.score for each in found]
            assert len(scores) == 3 and scores == sorted(scores, reverse=True)
