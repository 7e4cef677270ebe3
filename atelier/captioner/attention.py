"""Scaled dot-product attention (Vaswani et al., 2017), the one operation both halves of BLIP share."""

from __future__ import annotations

from keras import ops


def split_heads(x, heads: int):
    """(B, T, heads * d) -> (B, heads, T, d)."""
    batch, length, width = ops.shape(x)
    return ops.transpose(ops.reshape(x, (batch, length, heads, width // heads)), (0, 2, 1, 3))


def merge_heads(x):
    """(B, heads, T, d) -> (B, T, heads * d)."""
    batch, heads, length, width = ops.shape(x)
    return ops.reshape(ops.transpose(x, (0, 2, 1, 3)), (batch, length, heads * width))


def attend(query, key, value, mask=None, dropout=None):
    """Each query's weighted mean of the values.

    Args:
        query: (B, heads, T, d).
        key, value: (B, heads, S, d).
        mask: booleans that broadcast to (B, heads, T, S); where it is false nothing is read.
        dropout: called on the weights, where given.

    Returns:
        (B, T, heads * d).
    """
    scores = ops.matmul(query, ops.transpose(key, (0, 1, 3, 2))) / query.shape[-1] ** 0.5  # (B, heads, T, S)
    if mask is not None:
        scores = ops.where(mask, scores, -1e9)
    weights = ops.softmax(scores)
    if dropout is not None:
        weights = dropout(weights)
    return merge_heads(ops.matmul(weights, value))
