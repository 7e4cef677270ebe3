"""The figures against other implementations, and against what they must be."""

import numpy as np
import pytest
from sklearn.metrics import roc_auc_score
from sklearn.metrics import roc_curve as sklearn_roc_curve

from atelier.detector.metrics import (
    accuracy,
    auroc,
    confusion,
    expected_calibration_error,
    figures_of,
    log_loss,
    reliability,
    roc_curve,
    sigmoid,
    temperature_of,
)


@pytest.fixture
def told():
    rng = np.random.default_rng(0)
    labels = (rng.random(500) < 0.6).astype(np.float32)
    return labels, rng.normal(labels * 1.5, 1.0).round(1)  # rounded, so that there are ties


def test_auroc_and_curve_are_those_of_scikit_learn(told):
    labels, scores = told
    assert auroc(labels, scores) == pytest.approx(roc_auc_score(labels, scores))
    false, true, _ = sklearn_roc_curve(labels, scores, drop_intermediate=False)
    assert np.allclose(roc_curve(labels, scores), (false, true))


@pytest.mark.parametrize(("scores", "area"), [([1, 2, 3, 4], 1), ([4, 3, 2, 1], 0), ([1, 1, 1, 1], 0.5)])
def test_auroc_at_its_ends(scores, area):
    assert auroc(np.array([0, 0, 1, 1]), np.array(scores, float)) == area


def test_calibrated_probabilities_have_no_calibration_error():
    probabilities = np.repeat([0.05, 0.25, 0.75], 400)
    labels = np.concatenate([np.arange(400) < share * 400 for share in (0.05, 0.25, 0.75)]).astype(float)
    assert expected_calibration_error(labels, probabilities) == pytest.approx(0, abs=1e-9)
    assert expected_calibration_error(labels, np.clip(probabilities + 0.1, 0, 1)) == pytest.approx(0.1)
    assert reliability(labels, probabilities)[:, 2].tolist() == [400, 400, 400]


def test_probabilities_of_0_and_1_have_bins():
    assert expected_calibration_error(np.array([0.0, 1.0]), np.array([0.0, 1.0])) == 0


def test_the_temperature_of_exaggerated_logits_is_found():
    rng = np.random.default_rng(1)
    logits = rng.normal(0, 2, 20000)
    labels = (rng.random(20000) < sigmoid(logits)).astype(float)
    assert temperature_of(labels, 3 * logits) == pytest.approx(3, rel=0.05)
    assert log_loss(labels, logits) < log_loss(labels, 3 * logits)


def test_counts_and_shares():
    labels, probabilities = np.array([1, 1, 0, 0, 0.0]), np.array([0.9, 0.2, 0.6, 0.1, 0.5])
    assert confusion(labels, probabilities) == {
        "ai_called_ai": 1,
        "ai_called_human": 1,
        "human_called_ai": 1,
        "human_called_human": 2,
    }
    assert accuracy(labels, probabilities) == 0.6
    assert figures_of(labels, probabilities).keys() == {"accuracy", "auroc", "ece"}


def test_no_logit_overflows():
    with np.errstate(all="raise"):
        assert sigmoid(np.array([-1e4, 0, 1e4])).tolist() == [0, 0.5, 1]
