"""Near-duplicates without comparing every picture with every other."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from itertools import combinations, pairwise

import numpy as np

MAX_DISTANCE = 6
"""Bits in which the perceptual hashes of two pictures may differ for them to be looked at more closely."""

ALIKE = 12.0
"""Candidates are the same picture if their thumbnails differ by no more grey levels (of 255) on average."""

MOST_COPIES = 64  # of pictures with the very same hash, so many are paired with each other


def close_pairs(hashes: np.ndarray, max_distance: int = MAX_DISTANCE) -> tuple[np.ndarray, np.ndarray]:
    """All pairs of hashes at most `max_distance` bits apart, in far less than quadratic time.

    Block permutation (Manku, Jain and Das Sarma, "Detecting near-duplicates for web crawling", 2007): cut in
    `max_distance + k` blocks, two such hashes agree in `k` blocks at least. For every choice of `k` blocks the hashes
    are sorted by those bits, and only runs of equal ones are compared. `k` grows with N, so that runs stay short.
    Where many pictures share one hash, each is paired with its 64 neighbours only: still one group.

    Args:
        hashes: (N,) uint64.
        max_distance: 0 to 16 bits.

    Returns:
        two (P,) int64 arrays `first < second`, sorted, each pair once.

    Raises:
        ValueError: `max_distance` lies outside 0...16.
    """
    if not 0 <= max_distance <= 16:
        raise ValueError(f"max_distance is a number of bits from 0 to 16, not {max_distance}")
    hashes = np.asarray(hashes, np.uint64)
    order = np.argsort(hashes, kind="stable")
    unique, starts, counts = np.unique(hashes[order], return_index=True, return_counts=True)
    found = [_neighbours(order, starts, counts)]
    for first, second in _close(unique, max_distance):
        alone = (counts[first] == 1) & (counts[second] == 1)
        found.append(np.stack([order[starts[first[alone]]], order[starts[second[alone]]]], axis=1))
        for one, other in zip(first[~alone], second[~alone], strict=True):
            groups = (order[starts[each] : starts[each] + min(counts[each], MOST_COPIES)] for each in (one, other))
            found.append(np.stack([each.ravel() for each in np.meshgrid(*groups)], axis=1))
    pairs = np.unique(np.sort(np.concatenate(found), axis=1), axis=0)
    return pairs[:, 0], pairs[:, 1]


def _neighbours(order: np.ndarray, starts: np.ndarray, counts: np.ndarray) -> np.ndarray:
    """(P, 2) pairs of items with the same hash."""
    pairs = [np.empty((0, 2), np.int64)]
    ends = np.repeat(starts + counts, counts)  # for each place in the order, where its hash ends
    for offset in range(1, min(int(counts.max(initial=1)), MOST_COPIES + 1)):
        here = np.flatnonzero(np.arange(len(order)) + offset < ends)
        pairs.append(np.stack([order[here], order[here + offset]], axis=1))
    return np.concatenate(pairs)


def _close(hashes: np.ndarray, max_distance: int) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Pairs of (N,) different hashes at most `max_distance` bits apart; a pair may come more than once."""
    for mask in _masks(len(hashes), max_distance):
        keys = hashes & mask
        order = np.argsort(keys, kind="stable")
        keys = keys[order]
        starts, offset = np.arange(len(keys)), 0
        while len(starts):
            offset += 1
            starts = starts[starts + offset < len(keys)]
            starts = starts[keys[starts] == keys[starts + offset]]
            first, second = order[starts], order[starts + offset]
            near = np.bitwise_count(hashes[first] ^ hashes[second]) <= max_distance
            yield first[near], second[near]


def _masks(count: int, max_distance: int) -> list[np.uint64]:
    """The bits of each choice of blocks: as few choices as give about as many keys as there are hashes."""
    agreeing = next((k for k in range(1, 5) if 64 * k / (max_distance + k) >= np.log2(max(count, 2))), 5)
    edges = np.linspace(0, 64, max_distance + agreeing + 1).astype(int)
    blocks = [sum(1 << bit for bit in range(low, high)) for low, high in pairwise(edges)]
    return [np.uint64(sum(chosen)) for chosen in combinations(blocks, agreeing)]


def groups_of(count: int, pairs: np.ndarray) -> np.ndarray:
    """(count,) int64: the smallest index that pairs lead to; near-duplicates share it, directly or through others.

    Args:
        count: items in all.
        pairs: (P, 2) int64.
    """
    groups = np.arange(count)
    while True:
        lowest = groups.copy()
        np.minimum.at(lowest, pairs[:, 0], groups[pairs[:, 1]])
        np.minimum.at(lowest, pairs[:, 1], groups[pairs[:, 0]])
        lowest = lowest[lowest]  # where the other end has got to: a long chain needs few rounds
        if np.array_equal(lowest, groups):
            return groups
        groups = lowest


def thumbnail_difference(first: np.ndarray, second: np.ndarray) -> np.ndarray:
    """How unlike pairs of thumbnails are, whatever their brightness and contrast.

    Args:
        first, second: (P, h, w, 3) uint8.

    Returns:
        (P,) float32: mean absolute difference, in grey levels, of their grey values after each has been brought to
        a mean of 128 and a standard deviation of 64, so that a scan that is paler than another still counts as like it.
    """
    return np.abs(_levelled(first) - _levelled(second)).mean(axis=(1, 2))


def _levelled(thumbnails: np.ndarray) -> np.ndarray:
    grey = thumbnails.astype(np.float32) @ np.array([0.299, 0.587, 0.114], np.float32)
    grey -= grey.mean(axis=(1, 2), keepdims=True)
    return 64 * grey / np.maximum(grey.std(axis=(1, 2), keepdims=True), 4) + 128


def same_pictures(
    hashes: np.ndarray,
    thumbnails: Callable[[np.ndarray], np.ndarray],
    max_distance: int = MAX_DISTANCE,
    alike: float = ALIKE,
    block: int = 8192,
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """The pairs of near-identical pictures: near hashes, and then like thumbnails.

    Hashes alone raise false alarms: pairs 5 or 6 bits apart are mostly chance likenesses.

    Args:
        hashes: (N,) uint64.
        thumbnails: gives the (n, h, w, 3) uint8 thumbnails of (n,) sorted indices; asked for candidates alone.
        block: pairs compared at a time.

    Returns:
        (P,) int64 first, (P,) int64 second (first < second) and (P,) float32 differences of their thumbnails.
    """
    first, second = close_pairs(hashes, max_distance)
    differences = np.empty(len(first), np.float32)
    for start in range(0, len(first), block):
        pairs = np.stack([first[start : start + block], second[start : start + block]])
        wanted, places = np.unique(pairs, return_inverse=True)
        seen = thumbnails(wanted)
        places = places.reshape(pairs.shape)
        differences[start : start + block] = thumbnail_difference(seen[places[0]], seen[places[1]])
    like = differences <= alike
    return first[like], second[like], differences[like]
