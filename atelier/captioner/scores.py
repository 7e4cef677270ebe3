"""How near captions are to their references: BLEU, CIDEr-D and ROUGE-L, as the COCO caption evaluation counts them.

Written here because the library of that evaluation starts a Java program to split words, and the kept ones ask for
torch. The figures are the same (see `tests/captioner/test_scores.py`); sentences are split at spaces after
punctuation is dropped.
"""

from __future__ import annotations

import math
import re
from collections import Counter
from collections.abc import Sequence

import numpy as np

ORDERS = 4
SIGMA = 6.0  # CIDEr-D: words by which a caption may miss its reference's length before it pays for it
BETA = 1.2  # ROUGE-L: how much recall counts beside precision


def words(sentence: str) -> list[str]:
    """Lower-case words; hyphens and apostrophes inside them stay, other punctuation goes."""
    return re.findall(r"[^\W_]+(?:['-][^\W_]+)*", sentence.lower())


def ngrams(tokens: Sequence[str], order: int) -> Counter:
    """How often each run of `order` words occurs."""
    return Counter(zip(*(tokens[start:] for start in range(order)), strict=False))


def bleu(captions: Sequence[str], references: Sequence[str], orders: int = ORDERS) -> float:
    """BLEU of a whole set (Papineni et al., 2002), in [0, 1]: one reference a caption, no smoothing.

    The geometric mean of the clipped n-gram precisions for n = 1 to `orders`, counted over all sentences, times the
    brevity penalty.
    """
    hits, totals, length, wanted = [0] * orders, [0] * orders, 0, 0
    for caption, reference in zip(map(words, captions), map(words, references), strict=True):
        length, wanted = length + len(caption), wanted + len(reference)
        for order in range(1, orders + 1):
            found = ngrams(caption, order)
            hits[order - 1] += (found & ngrams(reference, order)).total()
            totals[order - 1] += found.total()
    if not all(hits):
        return 0.0
    precision = math.exp(sum(math.log(hit / total) for hit, total in zip(hits, totals, strict=True)) / orders)
    return precision * min(1.0, math.exp(1 - wanted / length))


def cider(captions: Sequence[str], references: Sequence[str]) -> list[float]:
    """CIDEr-D of each caption against its own reference; their mean is the set's figure."""
    score = Cider(references)
    return [score(caption, place) for caption, place in zip(captions, range(len(references)), strict=True)]


class Cider:
    """CIDEr-D (Vedantam et al., 2015), in [0, 10], with one reference a picture.

    The cosine of both sentences' n-gram counts weighed by rarity among the references, clipped to what the reference
    has and damped where the lengths differ, mean over n = 1 to 4, times 10.
    """

    def __init__(self, references: Sequence[str]):
        counts = [_counts(reference) for reference in references]
        self._documents = Counter(gram for orders in counts for grams in orders for gram in grams)
        self._total = len(counts)
        self._references = [(self._weighed(orders), orders[1].total()) for orders in counts]

    def __call__(self, caption: str, place: int) -> float:
        """Of a caption of the picture whose reference is number `place`."""
        ours, (theirs, pairs) = _counts(caption), self._references[place]
        # The COCO code takes the number of word pairs for the length.
        damping = math.exp(-((ours[1].total() - pairs) ** 2) / (2 * SIGMA**2))
        return 10.0 * damping * sum(map(_clipped_cosine, self._weighed(ours), theirs)) / ORDERS

    def _weighed(self, orders: list[Counter]) -> list[dict[tuple, float]]:
        return [
            {gram: count * math.log(self._total / max(1, self._documents[gram])) for gram, count in counts.items()}
            for counts in orders
        ]


def _counts(sentence: str) -> list[Counter]:
    tokens = words(sentence)
    return [ngrams(tokens, order) for order in range(1, ORDERS + 1)]


def _clipped_cosine(ours: dict[tuple, float], theirs: dict[tuple, float]) -> float:
    norms = math.hypot(*ours.values()) * math.hypot(*theirs.values())
    if not norms:
        return 0.0
    return sum(min(value, theirs[gram]) * theirs[gram] for gram, value in ours.items() if gram in theirs) / norms


def rouge_l(caption: str, reference: str) -> float:
    """ROUGE-L of one caption (Lin, 2004), in [0, 1]: the F-measure of the longest common subsequence of words."""
    ours, theirs = words(caption), words(reference)
    common = _common_subsequence(ours, theirs)
    if not common:
        return 0.0
    precision, recall = common / len(ours), common / len(theirs)
    return (1 + BETA**2) * precision * recall / (recall + BETA**2 * precision)


def _common_subsequence(one: Sequence[str], other: Sequence[str]) -> int:
    row = [0] * (len(other) + 1)
    for word in one:
        above, row = row, [0]
        for place, another in enumerate(other):
            row.append(above[place] + 1 if word == another else max(above[place + 1], row[-1]))
    return row[-1]


def repeats(caption: str, order: int = 3) -> int:
    """How many runs of `order` words stand in the caption once more than once."""
    counts = ngrams(words(caption), order)
    return counts.total() - len(counts)


def recall(cosines: np.ndarray, count: int) -> float:
    """Recall at `count`: the share of rows whose own column is among the nearest, ties counted against it.

    Args:
        cosines: (N, N), row i and column i belonging together; transposed for the other way round.
    """
    own = np.diag(cosines)[:, None]
    before = (cosines >= own).sum(axis=1) - 1  # itself left out
    return float((before < count).mean())
