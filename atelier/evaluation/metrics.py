"""The figures themselves: NumPy only, float64, from feature vectors to numbers.

Every function takes (N, d) arrays of any real dtype and raises `ValueError` with one line for anything else:
another shape, NaN or infinity, fewer rows than the figure needs. Distances are computed in blocks, so memory
stays at about BLOCK x N numbers.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

BLOCK = 512


def check_features(features: np.ndarray, name: str, least: int = 2) -> np.ndarray:
    """The features as (N, d) float64; `ValueError` unless they are finite and at least `least` rows."""
    try:
        features = np.asarray(features, np.float64)
    except (TypeError, ValueError) as error:
        raise ValueError(f"{name} features are no array of numbers") from error
    if features.ndim != 2 or features.shape[1] == 0:
        raise ValueError(f"{name} features have the shape {features.shape}, not (pictures, features)")
    if len(features) < least:
        raise ValueError(f"too few {name} pictures: {len(features)}, and {least} are needed")
    if not np.isfinite(features).all():
        raise ValueError(f"{name} features contain NaN or infinity")
    return features


def _check_two(
    first: np.ndarray, second: np.ndarray, names: tuple[str, str] = ("real", "generated"), least: int = 2
) -> tuple[np.ndarray, np.ndarray]:
    first, second = (check_features(each, name, least) for each, name in zip((first, second), names, strict=True))
    if first.shape[1] != second.shape[1]:
        raise ValueError(f"{first.shape[1]} {names[0]} features but {second.shape[1]} {names[1]}: two networks")
    return first, second


def fid(real: np.ndarray, generated: np.ndarray) -> float:
    """Fréchet inception distance (Heusel et al., 2017, arXiv:1706.08500): 0 for equal mean and covariance.

    Biased upwards by few pictures, so compare only figures of equal counts.

    Args:
        real, generated: (N, d) and (M, d) features; N and M at least 2.
    """
    real, generated = _check_two(real, generated)
    first, second = (np.atleast_2d(np.cov(each, rowvar=False)) for each in (real, generated))
    return frechet_distance(real.mean(0), first, generated.mean(0), second)


def frechet_distance(
    mean_1: np.ndarray, covariance_1: np.ndarray, mean_2: np.ndarray, covariance_2: np.ndarray
) -> float:
    """|m1 - m2|^2 + tr(C1 + C2 - 2 (C1 C2)^1/2) of two Gaussians; means (d,), covariances (d, d) symmetric, >= 0.

    tr (C1 C2)^1/2 is the sum of the roots of the eigenvalues of the symmetric C1^1/2 C2 C1^1/2, which has the same
    ones: no complex numbers and no trouble with singular covariances, unlike a general matrix square root.
    """
    values, vectors = np.linalg.eigh(covariance_1)
    root = (vectors * np.sqrt(np.maximum(values, 0))) @ vectors.T
    product = np.linalg.eigvalsh(root @ covariance_2 @ root)
    shift = np.sum((np.asarray(mean_1) - mean_2) ** 2)
    distance = shift + np.trace(covariance_1) + np.trace(covariance_2) - 2 * np.sqrt(np.maximum(product, 0)).sum()
    return float(max(distance, 0.0))  # rounding may give -1e-12 for equal ones


def mmd2(first: np.ndarray, second: np.ndarray) -> float:
    """Unbiased squared maximum mean discrepancy (Gretton et al., 2012) for the kernel (x·y / d + 1)^3.

    Args:
        first, second: (N, d) and (M, d) features. The figure may be slightly negative: its mean is 0 for one and
            the same distribution.
    """
    first, second = _check_two(first, second)
    n, m, d = len(first), len(second), first.shape[1]

    def kernel(a: np.ndarray, b: np.ndarray) -> np.ndarray:
        return (a @ b.T / d + 1) ** 3

    def within(a: np.ndarray) -> float:  # the diagonal left out: that makes it unbiased
        values = kernel(a, a)
        return (values.sum() - np.trace(values)) / (len(a) * (len(a) - 1))

    return float(within(first) + within(second) - 2 * kernel(first, second).sum() / (n * m))


def kid(
    real: np.ndarray, generated: np.ndarray, subsets: int = 100, subset_size: int | None = None, seed: int = 0
) -> tuple[float, float]:
    """Kernel inception distance (Binkowski et al., 2018, arXiv:1801.01401): `mmd2` over random subsets.

    Args:
        real, generated: (N, d) and (M, d) features; N and M at least 4.
        subsets: how many are drawn, each without repetition.
        subset_size: pictures of each side in a subset; by default half of the smaller side and at most 1,000, so
            that subsets differ on both sides.
        seed: of the subsets.

    Returns:
        mean and standard deviation over the subsets. The mean has no bias at any count.
    """
    real, generated = _check_two(real, generated, least=4)
    most = min(len(real), len(generated))
    size = min(1000, most // 2) if subset_size is None else subset_size
    if not 2 <= size <= most or subsets < 1:
        raise ValueError(f"KID takes subsets of 2 to {most} pictures and at least one, not {subsets} of {size}")
    random = np.random.default_rng(seed)
    values = [
        mmd2(
            real[random.choice(len(real), size, replace=False)],
            generated[random.choice(len(generated), size, replace=False)],
        )
        for _ in range(subsets)
    ]
    return float(np.mean(values)), float(np.std(values))


def precision_recall(real: np.ndarray, generated: np.ndarray, k: int = 3) -> tuple[float, float]:
    """Improved precision and recall (Kynkäänniemi et al., 2019, arXiv:1904.06991).

    Precision is the share of generated pictures inside a ball around some real picture that reaches to its k-th
    nearest other real picture; recall is the same with the sides exchanged. Take equal counts on both sides: recall
    depends on the number of generated, precision on the number of real pictures.

    Args:
        real, generated: (N, d) and (M, d) features, each more than k pictures.
    """
    if k < 1:
        raise ValueError(f"k is a number of neighbours from 1 up, not {k}")
    real, generated = _check_two(real, generated, least=k + 1)
    return _share_inside(real, generated, k), _share_inside(generated, real, k)


def _share_inside(manifold: np.ndarray, points: np.ndarray, k: int) -> float:
    radii = np.empty(len(manifold))
    for rows, squared in _squared_distances(manifold, manifold):
        squared[np.arange(len(squared)), np.arange(rows.start, rows.stop)] = np.inf  # not its own neighbour
        radii[rows] = np.partition(squared, k - 1, axis=1)[:, k - 1]
    inside = [(squared <= radii).any(axis=1) for _, squared in _squared_distances(points, manifold)]
    return float(np.concatenate(inside).mean())


def _squared_distances(queries: np.ndarray, references: np.ndarray) -> Iterator[tuple[slice, np.ndarray]]:
    """Blocks of the matrix of squared Euclidean distances: which rows, and (rows, N) float64."""
    centre = references.mean(0)  # |a - b|^2 = |a|^2 + |b|^2 - 2 a·b loses fewest digits near the origin
    queries, references = queries - centre, references - centre
    norms = np.einsum("nd,nd->n", references, references)
    for start in range(0, len(queries), BLOCK):
        rows = slice(start, min(start + BLOCK, len(queries)))
        block = queries[rows]
        squared = np.einsum("nd,nd->n", block, block)[:, None] + norms - 2 * block @ references.T
        yield rows, np.maximum(squared, 0)


def nearest_neighbours(queries: np.ndarray, references: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The nearest reference of each query.

    Args:
        queries, references: (N, d) and (M, d) features.

    Returns:
        (N,) float64 Euclidean distances and (N,) int64 indices of references.
    """
    queries, references = _check_two(queries, references, ("query", "reference"), least=1)
    indices = [squared.argmin(axis=1) for _, squared in _squared_distances(queries, references)]
    indices = np.concatenate(indices)
    return np.linalg.norm(queries - references[indices], axis=1), indices


def mean_pairwise_distance(features: np.ndarray) -> float:
    """How varied pictures are: the mean Euclidean distance over all pairs of (N, d) features; N at least 2."""
    features = check_features(features, "pairwise")
    total = 0.0
    for rows, squared in _squared_distances(features, features):
        squared[np.arange(len(squared)), np.arange(rows.start, rows.stop)] = 0  # exactly, not up to rounding
        total += np.sqrt(squared).sum()
    return float(total / (len(features) * (len(features) - 1)))


def inception_score(probabilities: np.ndarray, splits: int = 10) -> tuple[float, float]:
    """Inception score (Salimans et al., 2016, arXiv:1606.03498): exp of the mean KL(p(y|x) || p(y)).

    1 when every picture gets the same answer; the number of classes when all classes are named, each surely and
    equally often. Grows with the pictures in a split: compare equal counts only.

    Args:
        probabilities: (N, classes), rows that sum to 1; N at least `splits`.
        splits: consecutive parts that are scored on their own.

    Returns:
        mean and standard deviation over the splits.
    """
    if splits < 1:
        raise ValueError(f"splits is a number from 1 up, not {splits}")
    probabilities = check_features(probabilities, "class", least=splits)
    if (probabilities < 0).any() or not np.allclose(probabilities.sum(1), 1, atol=1e-3):
        raise ValueError("class probabilities are numbers >= 0 that sum to 1 for each picture")
    scores = []
    for part in np.array_split(probabilities, splits):
        marginal = part.mean(0)
        # 0 log 0 is 0; where p(y) is 0 every p(y|x) is, too.
        ratio = np.divide(part, marginal, out=np.ones_like(part), where=part > 0)
        scores.append(np.exp((part * np.log(ratio)).sum(1).mean()))
    return float(np.mean(scores)), float(np.std(scores))
