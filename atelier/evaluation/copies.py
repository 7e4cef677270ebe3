"""Looks for pictures that are all too alike: generated ones among themselves, and copies of training pictures."""

from __future__ import annotations

import numpy as np

from atelier.images import perceptual_hash, to_picture

BLOCK = 512

ALIKE = 16.0
"""Two pictures whose hashes are near each other are near-identical if their pixels differ by no more, on average.

Hashes alone raise false alarms: of the Kaggle set's training pairs with 0 to 2 differing bits nearly all are the same
picture and differ by 1 to 15 grey levels; those with 5 or 6 bits are chance likenesses of 15 to 120.
"""


def pixel_difference(first: np.ndarray, second: np.ndarray) -> float:
    """Mean absolute difference, 0 to 255, of two uint8 pictures of one shape."""
    return float(np.abs(first.astype(np.int16) - second).mean())


def hash_images(images: np.ndarray) -> np.ndarray:
    """Perceptual hashes of (N, H, W, 3) uint8 pictures: (N,) uint64."""
    return np.array([perceptual_hash(to_picture(np.ascontiguousarray(image))) for image in images], np.uint64)


def nearest_hashes(queries: np.ndarray, references: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The reference whose hash differs from the query's in the fewest bits.

    Args:
        queries, references: (N,) and (M,) uint64; M at least 1.

    Returns:
        (N,) int64 numbers of bits, 0 to 64, and (N,) int64 indices of references (the first of equals).

    Raises:
        ValueError: there are no references.
    """
    if not len(references):
        raise ValueError("no pictures to compare with")
    distances, indices = np.empty(len(queries), np.int64), np.empty(len(queries), np.int64)
    for start in range(0, len(queries), BLOCK):
        bits = np.bitwise_count(queries[start : start + BLOCK, None] ^ references)
        indices[start : start + BLOCK] = bits.argmin(axis=1)
        distances[start : start + BLOCK] = bits.min(axis=1)
    return distances, indices


def nearest_hashes_mirrored(images: np.ndarray, references: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """As `nearest_hashes`, for (N, H, W, 3) uint8 pictures of which the mirror image counts as well."""
    found = [nearest_hashes(hash_images(each), references) for each in (images, images[:, :, ::-1])]
    (plain, plain_index), (mirrored, mirrored_index) = found
    return np.minimum(plain, mirrored), np.where(mirrored < plain, mirrored_index, plain_index)


def close_pairs(hashes: np.ndarray, max_distance: int) -> tuple[int, list[tuple[int, int]]]:
    """How near the two nearest of N >= 2 pictures are.

    Args:
        hashes: (N,) uint64.
        max_distance: bits in which a close pair differs at most.

    Returns:
        the smallest distance in bits between two pictures, and the pairs (first < second) within `max_distance`.

    Raises:
        ValueError: fewer than two hashes.
    """
    if len(hashes) < 2:
        raise ValueError("it takes two pictures to be alike")
    smallest, pairs = 64, []
    for start in range(0, len(hashes), BLOCK):
        bits = np.bitwise_count(hashes[start : start + BLOCK, None] ^ hashes[None]).astype(np.int64)
        rows = np.arange(start, start + len(bits))
        bits[np.arange(len(hashes)) <= rows[:, None]] = 65  # each pair once, and none with itself
        smallest = min(smallest, int(bits.min()))
        pairs += [(int(row + start), int(column)) for row, column in np.argwhere(bits <= max_distance)]
    return smallest, pairs
