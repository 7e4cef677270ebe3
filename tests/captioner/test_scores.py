"""The scores against values counted by hand, and against what they must be whatever the sentences."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from atelier.captioner.scores import bleu, cider, recall, repeats, rouge_l, words

sentences = st.lists(
    st.sampled_from(["a", "red", "barn", "lake", "of", "the", "old", "man"]), min_size=1, max_size=12
).map(" ".join)


def test_words_are_lower_case_without_punctuation():
    assert words("A man's head, three-quarter view; 12 icons.") == [
        "a",
        "man's",
        "head",
        "three-quarter",
        "view",
        "12",
        "icons",
    ]


def test_bleu_by_hand():
    # "the the the the the the the" against "the cat is on the mat": 2 of 7 words count (Papineni et al., 2002).
    assert bleu(["the the the the the the the"], ["the cat is on the mat"], 1) == pytest.approx(2 / 7)
    # Precisions 5/5, 4/4, 3/3, 2/2 and five words where six are wanted.
    assert bleu(["a red barn by lake"], ["a red barn by lake side"]) == pytest.approx(math.exp(1 - 6 / 5))
    # Counted over the whole set, not sentence by sentence: (3 + 1) of (4 + 2) words, and no brevity to pay for.
    assert bleu(["a b c x", "a y"], ["a b c d", "a z"], 1) == pytest.approx(4 / 6)


def test_rouge_by_hand():
    # The longest common subsequence "police the gunman" has 3 of 4 and 3 of 4 words (Lin, 2004).
    assert rouge_l("police kill the gunman", "police killed the gunman") == pytest.approx(0.75)
    precision, recalled = 2 / 4, 2 / 3
    wanted = (1 + 1.44) * precision * recalled / (recalled + 1.44 * precision)
    assert rouge_l("a b x y", "a b c") == pytest.approx(wanted)


def test_cider_by_hand():
    references = ["a b c d", "a b e f"]
    # n = 1: of the caption "a b c d x" only c and d are rare; x was never seen and counts log 2 as well.
    log2 = math.log(2)
    one = (2 * log2**2) / (math.sqrt(3) * log2 * math.sqrt(2) * log2)
    two = (2 * log2**2) / (math.sqrt(3) * log2 * math.sqrt(2) * log2)  # bc, cd of bc, cd, dx; ab is in both
    three = 2 / (math.sqrt(3) * math.sqrt(2))  # abc, bcd of abc, bcd, cdx
    four = 1 / math.sqrt(2)  # abcd of abcd, bcdx
    damping = math.exp(-1 / 72)  # four word pairs where three are wanted
    found = cider(["a b c d x", "a b e f"], references)
    assert found[0] == pytest.approx(10 * damping * (one + two + three + four) / 4)
    assert found[1] == pytest.approx(10)


@given(st.lists(sentences, min_size=2, max_size=6, unique=True))
def test_a_perfect_caption_has_the_best_score(references):
    assert bleu(references, references, 1) == pytest.approx(1)
    assert all(rouge_l(text, text) == pytest.approx(1) for text in references)
    assert all(0 <= score <= 10 + 1e-6 for score in cider(references, references))


@given(sentences, sentences)
def test_scores_stay_in_their_ranges(caption, reference):
    assert 0 <= bleu([caption], [reference]) <= 1
    assert 0 <= rouge_l(caption, reference) <= 1


def test_repeats():
    assert repeats("a red barn by a red barn") == 1
    assert repeats("a red barn by a red barn", 2) == 2
    assert repeats("a red barn") == 0


def test_recall():
    cosines = np.array([[0.9, 0.1, 0.2], [0.8, 0.5, 0.6], [0.3, 0.3, 0.3]])
    assert recall(cosines, 1) == pytest.approx(1 / 3)  # the last row's tie counts against it
    assert recall(cosines, 3) == 1
