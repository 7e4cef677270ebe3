"""Sample artworks for people to look at: the same seeds in every medium, nothing picked by hand."""

from __future__ import annotations

import io
import textwrap
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from atelier.images import write_atomically
from atelier.seeds import STYLES
from atelier.studio import Artwork, Record, Studio


def make_samples(studio: Studio, folder: Path, seeds: Sequence[int] = (0, 1)) -> list[Record]:
    """Make the seeds' artworks in all media.

    Writes `samples/STYLE-SEED.png`, `samples.jsonl` (their records) and `contact_sheet.png` (all, with captions)
    into the folder, over those of an earlier call, and returns the records.
    """
    wanted = [(seed, style) for seed in seeds for style in STYLES]
    artworks = studio.create([seed for seed, _ in wanted], [style for _, style in wanted])
    records = []
    for artwork in artworks:
        path = folder / "samples" / f"{artwork.style}-{artwork.seed}.png"
        write_atomically(path, artwork.png())
        records.append(replace(artwork, path=path).record())
    write_atomically(folder / "samples.jsonl", "".join(f"{record}\n" for record in records).encode())
    write_atomically(folder / "contact_sheet.png", captioned_sheet(artworks, columns=len(STYLES)))
    return records


def captioned_sheet(artworks: Sequence[Artwork], columns: int) -> bytes:
    """A PNG of the artworks in rows, each with its medium above and its caption below."""
    from matplotlib.figure import Figure  # not pyplot: no window system, no state

    rows = -(-len(artworks) // columns)
    figure = Figure(figsize=(2.6 * columns, 3.3 * rows), layout="constrained")
    for axes, artwork in zip(figure.subplots(rows, columns, squeeze=False).flat, artworks, strict=False):
        axes.imshow(artwork.image)
        axes.set_title(f"{artwork.style}, seed {artwork.seed}", fontsize=8, color="0.4", parse_math=False)
        axes.set_xlabel(textwrap.fill(artwork.caption or "(no caption)", 34), fontsize=8, parse_math=False)
        axes.set_xticks([])
        axes.set_yticks([])
        axes.spines[:].set_visible(False)
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=100)
    return buffer.getvalue()
