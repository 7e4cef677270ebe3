"""Labels and presentation in doubt: found where they were planted, and not judged where nothing can be learned."""

import numpy as np
import pytest

pytest.importorskip("cleanlab")

from atelier.dataset.doubt import (
    LABEL_DOUBT,
    PRESENTATION_DOUBT,
    DoubtError,
    PresentationJudge,
    Reducer,
    label_doubt,
)
from atelier.dataset.presentation import KINDS, SIDE, spoil
from tests.dataset.hostile import paint


@pytest.fixture(scope="module")
def clusters():
    """Three hundred features of three labels, of which every tenth is said to be another's."""
    random = np.random.default_rng(0)
    true = np.arange(300) % 3
    features = (6 * np.eye(3)[true] @ random.normal(size=(3, 40)) + random.normal(size=(300, 40))).astype(np.float16)
    said = true.copy()
    said[::10] = (true[::10] + 1) % 3
    return features, np.array(["a", "b", "c"])[said], said != true


def test_wrong_labels_are_found_and_right_ones_are_not(clusters):
    features, labels, wrong = clusters
    doubt = label_doubt(Reducer(features)(features), labels)
    assert doubt.dtype == np.float32 and ((doubt >= 0) & (doubt <= 1)).all()
    assert ((doubt >= LABEL_DOUBT) == wrong).mean() > 0.98


def test_rare_labels_are_not_judged(clusters):
    features, labels, _ = clusters
    labels = labels.astype("<U4")
    labels[:5] = "rare"
    doubt = label_doubt(Reducer(features)(features), labels)
    assert np.isnan(doubt[:5]).all() and not np.isnan(doubt[5:]).any()
    with pytest.raises(DoubtError, match="20 pictures"):
        label_doubt(Reducer(features)(features), ["same"] * 300)


def test_presentation_is_judged_by_models_that_never_saw_the_picture():
    random = np.random.default_rng(0)
    direction = random.normal(size=30)
    clean, folds = random.normal(size=(400, 30)), np.arange(400) % 5
    judge = PresentationJudge(clean, clean + direction, folds)
    shown_badly = random.normal(size=(50, 30)) + 2 * direction
    assert judge(shown_badly, np.zeros(50, int)).min() > np.quantile(judge(clean, folds), 0.95)
    assert (judge(clean, folds) >= PRESENTATION_DOUBT).mean() < 0.2
    # What a fold's model says does not depend on that fold's pictures.
    other = clean.copy()
    other[folds == 2] += 50
    again = PresentationJudge(other, np.where((folds == 2)[:, None], other, clean + direction), folds)
    here = folds == 2
    np.testing.assert_allclose(judge(clean[here], folds[here]), again(clean[here], folds[here]))


def test_presentation_needs_a_hundred_pictures():
    with pytest.raises(DoubtError, match="100 pictures"):
        PresentationJudge(np.zeros((99, 4)), np.zeros((99, 4)), np.arange(99) % 5)


@pytest.mark.parametrize("kind", KINDS)
def test_a_spoiled_copy_still_shows_the_picture_but_not_over_the_whole_of_it(kind):
    image = paint(1, (SIDE, SIDE))
    copy = kind(image, [paint(2), paint(3)], np.random.default_rng(0))
    assert copy.size == (SIDE, SIDE) and copy.mode == "RGB"
    changed = np.abs(np.asarray(copy, int) - np.asarray(image, int)).mean(axis=2) > 20
    assert changed.mean() > 0.3


def test_the_same_copy_is_made_again():
    copies = [spoil(paint(1), [paint(2)], np.random.default_rng(7)).tobytes() for _ in range(2)]
    assert copies[0] == copies[1] != spoil(paint(1), [paint(2)], np.random.default_rng(8)).tobytes()


def test_missing_weights_are_named(tmp_path):
    from atelier.dataset.features import FeatureError, Features

    with pytest.raises(FeatureError, match=r"nowhere\.h5"):
        Features(str(tmp_path / "nowhere.h5"))
    (tmp_path / "wrong.weights.h5").write_bytes(b"no weights")
    with pytest.raises(FeatureError, match=r"wrong\.weights\.h5"):
        Features(str(tmp_path / "wrong.weights.h5"))
