"""Scaled dot-product attention (Vaswani et al., 2017), the one operation both halves of BLIP share."""

from __future__ import annotations

from keras import ops


def split_heads(x, heads: int, length: int):
    """(B, T, heads * d) or (B * T, heads * d) -> (B, heads, T, d), with T = `length`."""
    return ops.transpose(ops.reshape(x, (-1, length, heads, x.shape[-1] // heads)), (0, 2, 1, 3))


def split_keys(x, heads: int, length: int):
    """As `split_heads`, but (B, heads, d, T): keys stand as a matrix product wants them, and are turned only once."""
    return ops.transpose(ops.reshape(x, (-1, length, heads, x.shape[-1] // heads)), (0, 2, 3, 1))


def split_parts(parts, heads: int, length: int):
    """(queries, keys, values), each as `split_heads` takes it, as `attend` takes them."""
    query, key, value = parts
    return split_heads(query, heads, length), split_keys(key, heads, length), split_heads(value, heads, length)


def merge_heads(x):
    """(B, heads, T, d) -> (B, T, heads * d)."""
    _, heads, length, width = x.shape
    return ops.reshape(ops.transpose(x, (0, 2, 1, 3)), (-1, length, heads * width))


def attend(query, key, value, mask=None, dropout=None):
    """Each query's weighted mean of the values.

    Args:
        query: (B, heads, T, d).
        key: (B, heads, d, S).
        value: (B, heads, S, d).
        mask: booleans that broadcast to (B, heads, T, S); where it is false nothing is read.
        dropout: called on the weights, where given.

    Returns:
        (B, T, heads * d).
    """
    scores = ops.matmul(query, key) / query.shape[-1] ** 0.5  # (B, heads, T, S)
    if mask is not None:
        scores = ops.where(mask, scores, -1e9)
    weights = ops.softmax(scores)
    if dropout is not None:
        weights = dropout(weights)
    return merge_heads(ops.matmul(weights, value))
