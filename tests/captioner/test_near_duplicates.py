import numpy as np
import pytest

from atelier.dataset.clean import ROWS, near_duplicate_groups
from atelier.images import hamming_distance


def test_neighbours_share_a_group_through_others():
    chain = [0, 0b111, 0b111111]  # three bits from link to link, six from end to end
    far = (1 << 63) | (1 << 40) | (1 << 20) | (1 << 10)
    assert near_duplicate_groups([*chain, far], 3).tolist() == [0, 0, 0, 1]
    assert near_duplicate_groups([*chain, far], 2).tolist() == [0, 1, 2, 3]
    assert near_duplicate_groups([far, *chain, far], 0).tolist() == [0, 1, 2, 3, 0]
    assert near_duplicate_groups([]).tolist() == []


def test_the_groups_are_the_components_of_the_graph_of_neighbours():
    rng = np.random.default_rng(0)
    hashes = []
    while len(hashes) < 2 * ROWS + 50:  # clusters that straddle the blocks in which distances are computed
        base = int(rng.integers(0, 1 << 63))
        hashes += [base ^ (1 << int(rng.integers(63))) for _ in range(rng.integers(1, 4))]
    hashes = [hashes[i] for i in rng.permutation(len(hashes))]
    groups, limit = near_duplicate_groups(hashes, 4), 4
    labels = list(range(len(hashes)))  # by brute force: spread the least label until nothing changes
    near = [[j for j, other in enumerate(hashes) if hamming_distance(one, other) <= limit] for one in hashes]
    while (spread := [min(labels[j] for j in row) for row in near]) != labels:
        labels = spread
    order = {label: number for number, label in enumerate(dict.fromkeys(labels))}
    assert groups.tolist() == [order[label] for label in labels]


@pytest.mark.parametrize("distance", [-1, 65])
def test_a_distance_beyond_64_bits_is_refused(distance):
    with pytest.raises(ValueError, match="0 to 64"):
        near_duplicate_groups([1, 2], distance)
