"""Finds pictures whose label, or whose presentation, is in doubt. No human judgement of a picture goes into either.

Both work on features of a frozen ImageNet network, and judge each picture by models that never saw it (five folds).
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

LABEL_DOUBT = 0.85
"""From this doubt on a label is taken to be wrong."""

PRESENTATION_DOUBT = 0.58
"""From this on a picture is taken to show a frame, a shop photo, a collage or a page rather than a work."""

FOLDS = 5
LEAST = 20
"""Labels of fewer pictures are not judged: nothing can be learned from so few."""

COMPONENTS = 256
SAMPLE = 20_000
"""Pictures from which is learned what is usual; all are then judged by it, so that time grows in proportion."""


class DoubtError(ValueError):
    """There is too little to learn from."""


class Reducer:
    """Principal components of features: (n, d) float to (n, at most 256) float32."""

    def __init__(self, sample: np.ndarray):
        from sklearn.decomposition import PCA

        count = min(COMPONENTS, *sample.shape)
        self._pca = PCA(count, svd_solver="randomized" if count == COMPONENTS else "full", random_state=0)
        self._pca.fit(sample.astype(np.float32))

    def __call__(self, features: np.ndarray) -> np.ndarray:
        return self._pca.transform(features.astype(np.float32)).astype(np.float32)


def label_doubt(reduced: np.ndarray, labels: Sequence[str]) -> np.ndarray:
    """How unlikely each label is, by confident learning (Northcutt et al., 2021; the `cleanlab` library).

    Out-of-fold probabilities of two classifiers that err differently are averaged: linear discriminant analysis
    and the 50 nearest neighbours (by cosine). The doubt is one minus the given label's probability.

    Args:
        reduced: (N, d) float32 features.
        labels: N names.

    Returns:
        (N,) float32 in 0...1, NaN for labels of fewer than 20 pictures.

    Raises:
        DoubtError: fewer than two labels have 20 pictures.
    """
    from cleanlab.rank import get_label_quality_scores
    from sklearn.discriminant_analysis import LinearDiscriminantAnalysis
    from sklearn.model_selection import StratifiedKFold
    from sklearn.neighbors import KNeighborsClassifier

    names, codes, counts = np.unique(np.asarray(labels, str), return_inverse=True, return_counts=True)
    judged = np.flatnonzero((counts >= LEAST)[codes])
    if (counts >= LEAST).sum() < 2:
        raise DoubtError(f"labels are judged where two of them or more have {LEAST} pictures; here {len(names)} do not")
    x, y = reduced[judged], np.unique(codes[judged], return_inverse=True)[1]
    unit = x / np.maximum(np.linalg.norm(x, axis=1, keepdims=True), 1e-9)
    probabilities = np.zeros((len(x), y.max() + 1))
    random = np.random.default_rng(0)
    for train, test in StratifiedKFold(FOLDS, shuffle=True, random_state=0).split(x, y):
        if len(train) > SAMPLE:
            train = np.sort(random.choice(train, SAMPLE, replace=False))
        linear = LinearDiscriminantAnalysis(solver="lsqr", shrinkage=0.1).fit(x[train], y[train])
        near = KNeighborsClassifier(min(50, len(train))).fit(unit[train], y[train])
        for start in range(0, len(test), 4096):
            part = test[start : start + 4096]
            for model, data in ((linear, x), (near, unit)):
                probabilities[part[:, None], model.classes_] += model.predict_proba(data[part]) / 2
    doubt = np.full(len(codes), np.nan, np.float32)
    doubt[judged] = 1 - get_label_quality_scores(y, probabilities, method="self_confidence")
    return doubt


class PresentationJudge:
    """Tells pictures of works from pictures of frames, shops, collages and pages.

    It learned from pictures and copies of them that were spoiled on purpose (`atelier.dataset.presentation`): a
    logistic regression for each fold, so strongly regularised that it is close to the difference of the two means
    (C falls with the number of pictures, so that the doubts of small and large sets are alike).
    """

    def __init__(self, features: np.ndarray, spoiled: np.ndarray, folds: np.ndarray):
        """Learn.

        Args:
            features: (n, d) of the sample's pictures as they are.
            spoiled: (n, d) of their spoiled copies.
            folds: (n,) int, 0 to 4: the fold of each picture.

        Raises:
            DoubtError: fewer than 100 pictures.
        """
        from sklearn.linear_model import LogisticRegression
        from sklearn.pipeline import make_pipeline
        from sklearn.preprocessing import StandardScaler

        if len(features) < 100:
            raise DoubtError(f"presentation is judged from 100 pictures up, not {len(features)}")
        self._models = []
        for fold in range(FOLDS):
            seen = folds != fold
            x = np.concatenate([features[seen], spoiled[seen]]).astype(np.float32)
            model = make_pipeline(StandardScaler(), LogisticRegression(C=0.16 / len(x), max_iter=500))
            self._models.append(model.fit(x, np.repeat([0, 1], seen.sum())))

    def __call__(self, features: np.ndarray, folds: np.ndarray) -> np.ndarray:
        """(N, d) features and (N,) folds to (N,) float32 doubts in 0...1, each by a model that never saw it."""
        doubt = np.empty(len(features), np.float32)
        for fold, model in enumerate(self._models):
            here = folds == fold
            if here.any():
                doubt[here] = model.predict_proba(features[here].astype(np.float32))[:, 1]
        return doubt
