"""Seeds: the same numbers on every machine, for everything that may be a seed, and an error for all else."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from atelier.seeds import STYLES, check_seed, check_style, check_truncation, fresh_seed, medium_in_words
from atelier.seeds import latent_from_seed as latent
from atelier.seeds import style_from_seed as style

SURROGATES = "\udc80 half a character"
TEXTS = st.text(st.characters(exclude_categories=()), min_size=1).filter(str.strip)
SEEDS = st.integers(min_value=0) | TEXTS

# Written down once: a change here changes every artwork that anybody has made.
GOLDEN = {
    0: ([-0.52446622, -0.28218481, -0.04479381, 0.16630994], "sculpture"),
    7: ([-0.18828832, -2.73874426, 0.44167212, -0.25923311], "engraving"),
    "7": ([-0.56544071, -0.90631795, -0.34996924, -0.91397244], "iconography"),
    2**70: ([2.04992962, 0.99223369, 0.7865802, 0.06159157], "iconography"),
    "sea": ([0.33869925, 2.80412912, -0.27877894, 0.55663228], "sculpture"),
}


@pytest.mark.parametrize("seed", GOLDEN)
def test_a_seed_gives_the_numbers_it_has_always_given(seed):
    numbers, medium = GOLDEN[seed]
    np.testing.assert_allclose(latent(seed, 6)[:4], numbers, atol=1e-6)
    assert style(seed) == medium


def test_truncation_draws_again_the_numbers_it_has_always_drawn():
    np.testing.assert_allclose(latent(7, 6, 0.5)[:4], [-0.18828832, 0.44167212, -0.25923311, -0.16596399], atol=1e-6)


@given(SEEDS)
def test_any_seed_gives_finite_numbers_and_a_style_and_gives_them_again(seed):
    numbers = latent(seed, 16)
    assert numbers.shape == (16,) and numbers.dtype == np.float32 and np.isfinite(numbers).all()
    np.testing.assert_array_equal(numbers, latent(seed, 16))
    assert style(seed) == style(seed) in STYLES


@given(SEEDS, SEEDS)
def test_different_seeds_give_different_numbers(one, other):
    same = type(one) is type(other) and one == other
    assert np.array_equal(latent(one, 8), latent(other, 8)) == same


def kind_of(value) -> str:
    """A test's name that is printable whatever the value."""
    return type(value).__name__


@pytest.mark.parametrize("seed", ["\0", "a\0b", SURROGATES, "海", "🎨", "x" * 100_000, 10**3000], ids=kind_of)
def test_odd_seeds_are_seeds(seed):
    assert check_seed(seed) == seed
    assert np.isfinite(latent(seed, 8)).all()


def test_a_number_and_its_digits_are_different_seeds():
    assert not np.array_equal(latent(7, 8), latent("7", 8))


@pytest.mark.parametrize("kind", [np.int8, np.uint64, np.int32])
def test_numpy_integers_are_the_integers_they_stand_for(kind):
    assert type(check_seed(kind(7))) is int
    np.testing.assert_array_equal(latent(kind(7), 8), latent(7, 8))


def test_kinds_of_text_are_the_text_they_hold():
    assert type(check_seed(np.str_("sea"))) is str
    np.testing.assert_array_equal(latent(np.str_("sea"), 8), latent("sea", 8))
    assert style(np.str_("sea")) == style("sea")


@pytest.mark.parametrize(
    "seed",
    [-1, 1.5, 7.0, "", "  \n", True, False, None, np.True_, np.float32(7), b"sea", [7], {}, 10**4000, -(10**9999)],
    ids=kind_of,
)
def test_what_is_no_seed_is_an_error_that_says_what_is(seed):
    with pytest.raises(ValueError, match=r"integer >= 0 or a non-empty string|at most 3,000 digits"):
        check_seed(seed)


@pytest.mark.parametrize("name", ["cubism", "Painting", "", " painting", None, 3, True, ["painting"], 1.5])
def test_what_is_no_style_is_an_error_that_names_the_styles(name):
    with pytest.raises(ValueError, match="drawings, engraving, iconography, painting, sculpture"):
        check_style(name)


@pytest.mark.parametrize("value", [0, 0.1, -1, 11, True, "1.5", float("nan"), float("inf"), [1.5]])
def test_what_is_no_truncation_is_an_error(value):
    with pytest.raises(ValueError, match=r"truncation is a number from 0\.2"):
        check_truncation(value)


@given(SEEDS, st.floats(0.2, 10))
def test_truncation_bounds_every_number_and_keeps_the_length(seed, truncation):
    numbers = latent(seed, 64, truncation)
    assert numbers.shape == (64,)
    assert np.abs(numbers).max() <= np.float32(truncation)


def test_truncation_leaves_out_what_is_beyond_it_and_nothing_else():
    whole = latent(3, 200)
    near = whole[np.abs(whole) <= 1]
    np.testing.assert_array_equal(latent(3, 200, 1.0)[: len(near)], near)


def test_the_numbers_are_standard_normal():
    numbers = np.sort(np.concatenate([latent(seed, 128) for seed in range(400)]))
    assert abs(numbers.mean()) < 0.02 and abs(numbers.std() - 1) < 0.02
    # The share of numbers below -2, -1, 0, 1, 2.
    shares = np.searchsorted(numbers, [-2, -1, 0, 1, 2]) / len(numbers)
    np.testing.assert_allclose(shares, [0.0228, 0.1587, 0.5, 0.8413, 0.9772], atol=0.01)


def test_neighbouring_seeds_have_nothing_in_common():
    numbers = np.stack([latent(seed, 256) for seed in range(40)])
    correlations = np.corrcoef(numbers)[~np.eye(40, dtype=bool)]
    assert np.abs(correlations).max() < 0.35  # 5.6 standard deviations of 1 / sqrt(256)


def test_styles_are_equally_likely():
    counts = np.unique([STYLES.index(style(seed)) for seed in range(5000)], return_counts=True)[1]
    np.testing.assert_allclose(counts, 1000, atol=120)  # four standard deviations


def test_fresh_seeds_are_seeds_and_differ():
    seeds = [fresh_seed() for _ in range(20)]
    assert all(check_seed(seed) == seed < 2**32 for seed in seeds)
    assert len(set(seeds)) > 15


@pytest.mark.parametrize(
    ("caption", "medium"),
    [
        ("an ink drawing of a statue", "drawings"),
        ("two etchings, framed", "engraving"),
        ("a gold Icon.", "iconography"),
        ("a photograph of a cat", None),
        ("", None),
    ],
)
def test_the_first_medium_in_a_caption_counts(caption, medium):
    assert medium_in_words(caption) == medium
