"""Finds near-duplicate pictures, so that no two of them stand on both sides of a split."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np

# Rows of the distance matrix that are looked at together: 256 x 10,000 bytes stay in the processor's cache.
ROWS = 256


def near_duplicate_groups(hashes: Iterable[int], max_distance: int = 6) -> np.ndarray:
    """Group pictures whose perceptual hashes are near each other, directly or through others.

    Groups are the connected components of the graph whose edges join hashes at most `max_distance` bits apart.

    Args:
        hashes: N 64-bit hashes, as `atelier.images.perceptual_hash` gives them.
        max_distance: the most bits (0...64) in which two hashes of one group's neighbours differ.

    Returns:
        (N,) int64 group numbers 0, 1, 2, ... in the order in which the groups first appear.

    Raises:
        ValueError: `max_distance` lies outside 0...64.
    """
    if not 0 <= max_distance <= 64:
        raise ValueError(f"max_distance is a number of bits from 0 to 64, not {max_distance}")
    hashes = np.fromiter(hashes, np.uint64)
    parent = np.arange(len(hashes))

    def root(item: int) -> int:
        while parent[item] != item:
            parent[item] = parent[parent[item]]  # path halving (Tarjan and van Leeuwen, 1984)
            item = parent[item]
        return item

    for start in range(0, len(hashes), ROWS):
        rows = hashes[start : start + ROWS, None]
        distance = np.bitwise_count(rows ^ hashes[None, start:])  # (rows, N - start)
        for first, second in np.argwhere(distance <= max_distance) + start:
            if first < second:
                low, high = sorted((root(first), root(second)))
                parent[high] = low  # the smallest index leads: the result depends on no order of the edges
    roots = [root(item) for item in range(len(hashes))]
    return np.unique(np.asarray(roots, np.int64), return_inverse=True)[1].astype(np.int64)
