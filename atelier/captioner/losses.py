"""What a captioner is taught by: to write a picture's caption, and to find it among others."""

from __future__ import annotations

from keras import ops


def contrastive_loss(images, texts, scale, same):
    """How hard it is to find each picture's text in the batch, and each text's picture (InfoNCE, in nats).

    Args:
        images, texts: (B, d) embeddings of length 1, a pair in each row.
        scale: () factor of their cosines, one over the temperature.
        same: (B, B) booleans: which texts are alike, so that each of them is right.
    """
    cosines = scale * ops.matmul(images, ops.transpose(texts))  # (B pictures, B texts)
    right = ops.cast(same, cosines.dtype)
    right = right / ops.sum(right, axis=1, keepdims=True)
    both = ops.log_softmax(cosines, axis=1) + ops.log_softmax(cosines, axis=0)
    return -0.5 * ops.mean(ops.sum(right * both, axis=1))


def caption_loss(ids, logits, pad: int, smoothing: float = 0.0):
    """Mean cross entropy (nats) of the tokens that are no padding.

    Args:
        ids: (B, T) the tokens to be foreseen, `pad` where a caption has ended.
        logits: (B, T, vocab_size).
        smoothing: share of the target that is spread over the whole vocabulary (Szegedy et al., 2016).
    """
    ids = ops.cast(ids, "int32")
    log_probs = ops.log_softmax(logits)
    hit = ops.take_along_axis(log_probs, ids[..., None], axis=-1)[..., 0]  # (B, T)
    loss = -(1.0 - smoothing) * hit - smoothing * ops.mean(log_probs, axis=-1)
    counts = ops.cast(ids != pad, loss.dtype)
    return ops.sum(loss * counts) / ops.sum(counts)
