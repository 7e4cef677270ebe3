"""How good probabilities are: accuracy, AUROC, calibration. NumPy only.

A label is 1 where a machine made the picture, else 0.
"""

from __future__ import annotations

import numpy as np

BINS = 10


def sigmoid(logits: np.ndarray) -> np.ndarray:
    """Logits to probabilities, without overflow."""
    return 0.5 * (1 + np.tanh(0.5 * np.asarray(logits, np.float64)))


def accuracy(labels: np.ndarray, probabilities: np.ndarray) -> float:
    """Share on the right side of one half."""
    return float(np.mean((probabilities > 0.5) == (labels > 0.5)))


def roc_curve(labels: np.ndarray, scores: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The ROC curve from (0, 0) to (1, 1), a point for each different score: false and true positive rates."""
    order = np.argsort(-scores, kind="stable")
    last = np.flatnonzero(np.diff(scores[order], append=-np.inf))
    positive = labels[order] > 0.5
    false, true = np.cumsum(~positive)[last], np.cumsum(positive)[last]
    return np.append(0, false / max(false[-1], 1)), np.append(0, true / max(true[-1], 1))


def auroc(labels: np.ndarray, scores: np.ndarray) -> float:
    """The chance that a random AI picture scores higher than a random human one; a tie counts half."""
    return float(np.trapezoid(*roc_curve(labels, scores)[::-1]))


def reliability(labels: np.ndarray, probabilities: np.ndarray, bins: int = BINS) -> np.ndarray:
    """What a calibration curve shows: (filled bins, 3) mean probability, share of AI pictures, and count.

    The bins are equally wide on 0...1, as in Guo et al., "On Calibration of Modern Neural Networks" (2017).
    """
    places = np.minimum((probabilities * bins).astype(int), bins - 1)
    inside = [places == place for place in np.unique(places)]
    return np.array([(probabilities[each].mean(), labels[each].mean(), each.sum()) for each in inside])


def expected_calibration_error(labels: np.ndarray, probabilities: np.ndarray, bins: int = BINS) -> float:
    """ECE of the probability that a machine made it: mean gap of probability and share, weighted by count."""
    means, shares, counts = reliability(labels, probabilities, bins).T
    return float(np.sum(np.abs(means - shares) * counts) / counts.sum())


def log_loss(labels: np.ndarray, logits: np.ndarray) -> float:
    """Mean cross entropy in nats."""
    return float(np.mean(np.logaddexp(0, logits) - labels * logits))


def temperature_of(labels: np.ndarray, logits: np.ndarray) -> float:
    """What logits are to be divided by for the least log loss (Guo et al., 2017): from 0.1 to 10, to two per cent."""
    grid = np.geomspace(0.1, 10, 241)
    return float(grid[np.argmin([log_loss(labels, logits / each) for each in grid])])


def confusion(labels: np.ndarray, probabilities: np.ndarray) -> dict[str, int]:
    """The four counts, named by what is said and what is true."""
    said, true = probabilities > 0.5, labels > 0.5
    return {
        "ai_called_ai": int(np.sum(said & true)),
        "ai_called_human": int(np.sum(~said & true)),
        "human_called_ai": int(np.sum(said & ~true)),
        "human_called_human": int(np.sum(~said & ~true)),
    }


def figures_of(labels: np.ndarray, probabilities: np.ndarray) -> dict[str, float]:
    """Accuracy, AUROC and ECE, rounded."""
    found = {"accuracy": accuracy, "auroc": auroc, "ece": expected_calibration_error}
    return {name: round(measure(labels, probabilities), 4) for name, measure in found.items()}
