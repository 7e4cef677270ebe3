"""Near-duplicates: all close pairs are found, and only alike pictures count."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import ImageEnhance

from atelier.dataset.duplicates import close_pairs, groups_of, same_pictures, thumbnail_difference
from atelier.images import perceptual_hash
from tests.dataset.hostile import paint


def all_pairs(hashes, distance):
    bits = np.bitwise_count(hashes[:, None] ^ hashes[None])
    first, second = np.nonzero(np.triu(bits <= distance, 1))
    return list(zip(first.tolist(), second.tolist(), strict=True))


@given(st.integers(0, 10**6), st.integers(0, 9), st.integers(0, 300))
def test_the_pairs_are_those_of_comparing_everything(seed, distance, count):
    random = np.random.default_rng(seed)
    hashes = random.integers(0, 2**64, count, np.uint64)
    for index in range(1, count, 2):  # a relative, up to twelve bits away
        for bit in random.integers(0, 64, random.integers(0, 13)):
            hashes[index] = (hashes[index] if bit % 3 else hashes[index - 1]) ^ np.uint64(1 << int(bit))
    first, second = close_pairs(hashes, distance)
    assert list(zip(first.tolist(), second.tolist(), strict=True)) == all_pairs(hashes, distance)


def test_many_copies_of_one_picture_are_one_group_without_all_their_pairs():
    hashes = np.full(5000, 12345, np.uint64)
    first, second = close_pairs(hashes)
    assert len(first) < 5000 * 300
    assert groups_of(5000, np.stack([first, second], axis=1)).max() == 0


def test_comparisons_grow_far_less_than_the_number_of_pairs(monkeypatch):
    count_bits, compared = np.bitwise_count, []

    def counting(differences):
        compared.append(len(differences))
        return count_bits(differences)

    monkeypatch.setattr("numpy.bitwise_count", counting)

    def comparisons(count):
        compared.clear()
        close_pairs(np.random.default_rng(0).integers(0, 2**64, count, np.uint64))
        return sum(compared)

    few, many = comparisons(8_000), comparisons(80_000)
    assert 0 < few < 8_000**2 / 2 / 100
    assert many < 20 * few  # all pairs would be a hundred times as many


def test_a_distance_out_of_range_is_refused():
    with pytest.raises(ValueError, match="0 to 16"):
        close_pairs(np.zeros(2, np.uint64), 17)


def test_groups_reach_through_others():
    assert groups_of(5, np.array([[0, 3], [3, 4], [1, 2]])).tolist() == [0, 1, 1, 0, 0]
    assert groups_of(6, np.array([[4, 5], [1, 4]])).tolist() == [0, 1, 2, 3, 1, 1]
    assert groups_of(3, np.empty((0, 2), np.int64)).tolist() == [0, 1, 2]


@given(st.integers(0, 10**6), st.integers(1, 120), st.integers(0, 150))
def test_the_groups_are_the_components_of_the_graph_of_pairs(seed, count, edges):
    pairs = np.random.default_rng(seed).integers(0, count, (edges, 2))
    labels = list(range(count))  # one pair at a time, by renaming all of a group
    for one, other in pairs.tolist():
        low, high = sorted((labels[one], labels[other]))
        labels = [low if label == high else label for label in labels]
    assert groups_of(count, pairs).tolist() == labels


def test_a_paler_copy_is_the_same_picture_and_another_is_not():
    pale = ImageEnhance.Brightness(ImageEnhance.Contrast(paint(1)).enhance(0.6)).enhance(1.1)
    one, other, alien = (np.asarray(image.resize((32, 32)))[None] for image in (paint(1), pale, paint(2)))
    assert thumbnail_difference(one, other)[0] < 6 < 30 < thumbnail_difference(one, alien)[0]


def test_near_hashes_of_unlike_pictures_do_not_count():
    images = [paint(1), paint(1).resize((300, 200)), paint(2)]
    thumbnails = np.stack([np.asarray(image.resize((32, 32))) for image in images])
    hashes = np.array([perceptual_hash(image) for image in images], np.uint64)
    hashes[2] = hashes[0] ^ np.uint64(0b111)  # by chance
    first, second, differences = same_pictures(hashes, lambda indices: thumbnails[indices])
    assert (first.tolist(), second.tolist()) == ([0], [1]) and differences[0] < 6
