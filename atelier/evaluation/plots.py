"""Pictures beside the figures: nearest neighbours, a map of the features, asked against named media."""

from __future__ import annotations

import io
from collections.abc import Sequence

import numpy as np
from matplotlib.figure import Figure  # not pyplot: no window system, no state

from atelier.dataset.source import Picture
from atelier.evaluation.features import resized
from atelier.evaluation.medium import MediumClassifier
from atelier.evaluation.real import squared
from atelier.generator.painter import Painter
from atelier.images import contact_sheet, to_picture
from atelier.seeds import STYLES, latent_from_seed

SHOWN = 4
SIDE = 128
GAP = 18


def small(picture: Picture) -> np.ndarray:
    """A file as (SIDE, SIDE, 3) uint8."""
    return squared(picture, SIDE)


def gallery(painter: Painter, style: str, truncation: float | None) -> bytes:
    """A JPEG of what the seeds 0 ... 15 give in a medium, in two rows, nothing picked."""
    latents = np.stack([latent_from_seed(seed, painter.latent_dim, truncation) for seed in range(16)])
    sheet = io.BytesIO()
    to_picture(contact_sheet(list(painter.paint(latents, [style] * 16)), columns=8)).save(sheet, "JPEG", quality=90)
    return sheet.getvalue()


def neighbours(
    images: np.ndarray,
    media: Sequence[str],
    nearest: Sequence[tuple[Picture, Picture]],
    distances: np.ndarray,
    bits: np.ndarray,
) -> bytes:
    """A PNG: generated pictures, each beside its nearest training picture by features and by perceptual hash.

    One row a medium: its first pictures, nothing picked, and last the one that is nearest to any training picture.

    Args:
        images: (N, H, W, 3) uint8, the pictures of the seeds 0 ... N-1.
        media: their N media.
        nearest: for each the nearest training picture by features, and by hash.
        distances, bits: (N,) how far those are.
    """
    shown, titles = [], []
    for style in STYLES:
        own = np.flatnonzero(np.array(media) == style)
        if not len(own):
            continue
        chosen = np.resize(own, SHOWN)  # again from the first where there are too few
        chosen[-1] = own[np.argmin(distances[own])]
        for index in chosen:
            by_features, by_hash = nearest[index]
            shown += [resized(images[index : index + 1], SIDE)[0], small(by_features), small(by_hash)]
            titles += [f"{style}, seed {index}", f"by features, {distances[index]:.2f}", f"by hash, {bits[index]} bits"]
    columns = 3 * SHOWN
    sheet = contact_sheet(shown, columns, GAP)
    figure = Figure(figsize=(sheet.shape[1] / 100, sheet.shape[0] / 100))
    axes = figure.add_axes((0, 0, 1, 1))
    axes.imshow(sheet)
    axes.set_axis_off()
    for number, title in enumerate(titles):
        row, column = divmod(number, columns)
        left, top = GAP + column * (SIDE + GAP), GAP + row * (SIDE + GAP) - 4
        axes.text(left, top, title, fontsize=6.5, color="black" if column % 3 == 0 else "0.5")
    return _png(figure, dpi=100)


def overview(held_out: np.ndarray, generated: np.ndarray, media: Sequence[str], judge: MediumClassifier) -> bytes:
    """A PNG with two panels: a map of held-out and generated features, and which medium was named for which asked.

    Args:
        held_out, generated: (N, d) and (M, d) features.
        media: the M media that were asked for.
        judge: names the media.
    """
    figure = Figure(figsize=(10, 4.5), layout="constrained")
    left, right = figure.subplots(1, 2)
    centre = held_out.mean(0)
    _, _, axes_of_most_variance = np.linalg.svd(held_out - centre, full_matrices=False)
    for name, features, colour in (("held-out real", held_out, "tab:blue"), ("generated", generated, "tab:orange")):
        places = (features - centre) @ axes_of_most_variance[:2].T
        left.scatter(*places.T, s=5, alpha=0.5, color=colour, label=name, linewidths=0)
    left.set(title="features on the real pictures' first two principal axes", xticks=[], yticks=[])
    left.legend(fontsize=8)

    named, asked = judge(generated), np.array(media)
    shares = np.array([[(named[asked == a] == b).mean() if (asked == a).any() else 0 for b in STYLES] for a in STYLES])
    right.imshow(shares, vmin=0, vmax=1, cmap="Blues")
    for (row, column), share in np.ndenumerate(shares):
        right.text(column, row, f"{share:.0%}", ha="center", va="center", color="white" if share > 0.6 else "black")
    right.set(title="generated pictures", xlabel="medium named by the classifier", ylabel="medium asked for")
    right.set_xticks(range(len(STYLES)), STYLES, rotation=20)
    right.set_yticks(range(len(STYLES)), STYLES)
    return _png(figure, dpi=110)


def _png(figure: Figure, dpi: int) -> bytes:
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=dpi)
    return buffer.getvalue()
