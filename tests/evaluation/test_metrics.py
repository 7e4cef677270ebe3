"""The figures against closed forms and against slow, obvious implementations."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from atelier.evaluation import metrics
from atelier.evaluation.metrics import (
    fid,
    frechet_distance,
    inception_score,
    kid,
    mean_pairwise_distance,
    mmd2,
    nearest_neighbours,
    precision_recall,
)


def normal(seed, *shape):
    return np.random.default_rng(seed).standard_normal(shape)


def covariance(seed, d):
    root = normal(seed, d, d)
    return root @ root.T / d


@pytest.fixture(autouse=True)
def small_blocks(monkeypatch):
    monkeypatch.setattr(metrics, "BLOCK", 7)  # so that these few pictures, too, are taken in several blocks


# --- FID


def test_frechet_distance_of_diagonal_gaussians_is_the_closed_form():
    first, second = np.array([1.0, 4.0, 9.0]), np.array([4.0, 1.0, 0.0])
    mean = np.array([1.0, -2.0, 0.5])
    expected = np.sum(mean**2) + np.sum((np.sqrt(first) - np.sqrt(second)) ** 2)
    assert frechet_distance(mean, np.diag(first), np.zeros(3), np.diag(second)) == pytest.approx(expected)


@pytest.mark.parametrize("seed", range(5))
def test_frechet_distance_agrees_with_a_general_matrix_square_root(seed):
    d = 6
    first, second = covariance(seed, d), covariance(seed + 100, d)
    # Denman and Beavers' iteration (1976) for the square root of the product itself.
    root, inverse = first @ second, np.eye(d)
    for _ in range(60):
        root, inverse = (root + np.linalg.inv(inverse)) / 2, (inverse + np.linalg.inv(root)) / 2
    assert np.allclose(root @ root, first @ second)
    expected = np.trace(first + second - 2 * root)
    assert frechet_distance(np.zeros(d), first, np.zeros(d), second) == pytest.approx(expected, rel=1e-6)


def test_fid_of_samples_nears_that_of_their_gaussians():
    real, generated = normal(0, 20_000, 3), normal(1, 20_000, 3) * [1, 2, 0.5] + [0, 1, 0]
    assert fid(real, generated) == pytest.approx(1 + 1 + 0.25, abs=0.1)
    assert fid(real, real) == pytest.approx(0, abs=1e-9)


def test_fid_takes_fewer_pictures_than_features():
    real, generated = normal(0, 5, 20), normal(1, 6, 20)
    assert np.isfinite(fid(real, generated)) and fid(real, generated) == pytest.approx(fid(generated, real))
    assert fid(real, real + 2) == pytest.approx(20 * 4)  # moved, not changed


def test_fid_of_a_single_feature():
    assert fid([[0.0], [2.0]], [[1.0], [3.0]]) == pytest.approx(1)


# --- KID


def naive_mmd2(first, second):
    def kernel(a, b):
        return (float(np.dot(a, b)) / len(a) + 1) ** 3

    n, m = len(first), len(second)
    one = sum(kernel(first[i], first[j]) for i in range(n) for j in range(n) if i != j) / (n * (n - 1))
    two = sum(kernel(second[i], second[j]) for i in range(m) for j in range(m) if i != j) / (m * (m - 1))
    return one + two - 2 * sum(kernel(a, b) for a in first for b in second) / (n * m)


def test_mmd2_agrees_with_a_double_loop():
    first, second = normal(0, 12, 5), normal(1, 9, 5) + 0.5
    assert mmd2(first, second) == pytest.approx(naive_mmd2(first, second), rel=1e-9)


def test_kid_of_whole_subsets_is_mmd2():
    first, second = normal(0, 12, 5), normal(1, 12, 5) + 0.5
    mean, std = kid(first, second, subsets=3, subset_size=12)
    assert mean == pytest.approx(mmd2(first, second)) and std == pytest.approx(0, abs=1e-12)


def test_kid_is_unbiased_at_small_counts():
    estimates = [mmd2(normal((0, number), 10, 8), normal((1, number), 10, 8)) for number in range(2000)]
    error = np.std(estimates) / np.sqrt(len(estimates))
    assert abs(np.mean(estimates)) < 4 * error
    assert min(estimates) < 0 < max(estimates)


def test_kid_tells_distributions_apart_and_repeats_itself():
    real, same, other = normal(0, 200, 8), normal(1, 200, 8), normal(2, 200, 8) + 1
    (near, spread), (far, _) = kid(real, same), kid(real, other)
    assert abs(near) < 3 * spread and far > 20 * spread
    assert kid(real, same) == kid(real, same) and kid(real, same, seed=1) != kid(real, same)


@pytest.mark.parametrize(("subsets", "size"), [(0, 2), (1, 1), (1, 6)])
def test_kid_refuses_subsets_that_cannot_be_drawn(subsets, size):
    with pytest.raises(ValueError, match="subsets of 2 to 5 pictures"):
        kid(normal(0, 5, 2), normal(1, 9, 2), subsets, size)


# --- precision and recall


def brute_share_inside(manifold, points, k):
    radii = [sorted(np.linalg.norm(manifold - each, axis=1))[k] for each in manifold]  # [0] is itself
    return np.mean([any(np.linalg.norm(p - m) <= r for m, r in zip(manifold, radii, strict=True)) for p in points])


@given(st.integers(0, 1000), st.integers(1, 4), st.floats(0, 3))
def test_precision_and_recall_agree_with_brute_force(seed, k, shift):
    real, generated = normal((seed, 0), 20, 3), normal((seed, 1), 17, 3) * 0.7 + shift
    expected = brute_share_inside(real, generated, k), brute_share_inside(generated, real, k)
    assert precision_recall(real, generated, k) == pytest.approx(expected)


def test_precision_and_recall_at_the_extremes():
    real = normal(0, 50, 4)
    assert precision_recall(real, real) == (1, 1)
    assert precision_recall(real, real + 100) == (0, 0)
    collapsed = real[:1] + normal(1, 50, 4) * 1e-3
    precision, recall = precision_recall(real, collapsed)
    assert precision == 1 and recall < 0.05


def test_k_is_at_least_one_and_less_than_the_pictures():
    with pytest.raises(ValueError, match="neighbours"):
        precision_recall(normal(0, 9, 2), normal(1, 9, 2), k=0)
    with pytest.raises(ValueError, match="too few generated pictures: 3, and 4 are needed"):
        precision_recall(normal(0, 9, 2), normal(1, 3, 2), k=3)


# --- Inception Score


def test_inception_score_of_answers_that_never_differ_is_one():
    assert inception_score(np.full((40, 7), 1 / 7), 4) == pytest.approx((1, 0))
    assert inception_score(np.tile(np.eye(7)[2], (40, 1)), 4) == pytest.approx((1, 0))


def test_inception_score_of_sure_and_balanced_answers_is_the_number_of_classes():
    assert inception_score(np.tile(np.eye(7), (8, 1)), 4) == pytest.approx((7, 0))


def test_inception_score_agrees_with_its_formula():
    answers = np.random.default_rng(0).dirichlet(np.ones(5), 30)
    scores = []
    for part in answers.reshape(3, 10, 5):
        marginal = part.mean(0)
        scores.append(np.exp(np.mean([np.sum(row * np.log(row / marginal)) for row in part])))
    assert inception_score(answers, 3) == pytest.approx((np.mean(scores), np.std(scores)))


@pytest.mark.parametrize("answers", [np.ones((20, 4)), np.tile([1.5, -0.5], (20, 1))])
def test_inception_score_takes_probabilities_only(answers):
    with pytest.raises(ValueError, match="sum to 1"):
        inception_score(answers)


# --- distances


def test_nearest_neighbours_and_pairwise_distance_agree_with_brute_force():
    queries, references = normal(0, 20, 3), normal(1, 30, 3)
    matrix = np.linalg.norm(queries[:, None] - references, axis=2)
    distances, indices = nearest_neighbours(queries, references)
    assert distances == pytest.approx(matrix.min(1)) and (indices == matrix.argmin(1)).all()
    own = np.linalg.norm(queries[:, None] - queries, axis=2)
    assert mean_pairwise_distance(queries) == pytest.approx(own.sum() / (20 * 19))


def test_distances_far_from_the_origin_keep_their_digits():
    points = np.array([[1e6, 0.0], [1e6 + 1e-3, 0.0]])
    assert nearest_neighbours(points[:1], points[1:])[0] == pytest.approx(1e-3, rel=1e-4)
    assert mean_pairwise_distance(points) == pytest.approx(1e-3, rel=1e-4)


# --- what is refused

PAIRS = [fid, mmd2, kid, precision_recall, nearest_neighbours]
SINGLES = [inception_score, mean_pairwise_distance]


@pytest.mark.parametrize("figure", PAIRS)
@pytest.mark.parametrize(
    ("features", "problem"),
    [
        (np.ones(8), "shape"),
        (np.ones((8, 2, 2)), "shape"),
        (np.ones((8, 0)), "shape"),
        (np.ones((0, 3)), "too few"),
        (np.full((8, 3), np.nan), "NaN"),
        (np.full((8, 3), np.inf), "NaN or infinity"),
        (np.ones((8, 4)), "two networks"),
        ([["a"] * 3] * 8, "no array of numbers"),
    ],
)
def test_features_that_are_none_are_refused_in_one_line(figure, features, problem):
    good = normal(0, 8, 3)
    for arguments in ((good, features), (features, good)):
        with pytest.raises(ValueError, match=problem) as caught:
            figure(*arguments)
        assert "\n" not in str(caught.value)


@pytest.mark.parametrize("figure", SINGLES)
@pytest.mark.parametrize("features", [np.ones(8), np.ones((1, 3)), np.full((12, 3), np.nan)])
def test_a_single_side_is_checked_as_well(figure, features):
    with pytest.raises(ValueError):
        figure(features)


@given(st.integers(0, 1000))
def test_inputs_are_left_alone_and_their_order_does_not_count(seed):
    real, generated = normal((seed, 0), 9, 3).astype(np.float32), normal((seed, 1), 11, 3).astype(np.float32)
    kept = real.copy(), generated.copy()
    for figure in (fid, mmd2, precision_recall):
        shuffled = figure(real[::-1], generated[::-1])
        assert figure(real, generated) == pytest.approx(shuffled, abs=1e-9)
    assert (real == kept[0]).all() and (generated == kept[1]).all()
