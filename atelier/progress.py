"""The progress bar of every long task here: on standard error, lively on a terminal, sparse in a log or a notebook."""

from __future__ import annotations

import sys
from collections.abc import Iterable

from tqdm import tqdm


def progress_bar(iterable: Iterable | None = None, **options) -> tqdm:
    """A tqdm bar that takes tqdm's options."""
    return tqdm(iterable, mininterval=0.2 if sys.stderr.isatty() else 10.0, **options)
