"""`python -m atelier report`: gathers the figures, writes the page, and fills the texts that take numbers from it."""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence
from pathlib import Path

from atelier.images import write_atomically
from atelier.reporting.gather import gather, texts
from atelier.reporting.marks import fill, marked
from atelier.reporting.page import page


def report(project: Path, docs: Path, filled: Sequence[Path]) -> dict:
    """Write `docs/report.json` and `docs/report.html`, and the report's numbers into the files of `filled`.

    Args:
        project: the folder in which the evaluations and benchmarks were run.
        docs: where the report goes; one that is there keeps what cannot be gathered now.
        filled: Markdown files with marked numbers.

    Returns:
        how many figures there are, which files were changed, and the notes about what is missing or old.

    Raises:
        ValueError, OSError: a file is damaged, or a mark in a text is wrong; no text is changed then.
    """
    path = docs / "report.json"
    try:
        earlier = json.loads(path.read_text(encoding="utf-8")) if path.is_file() else None
    except ValueError as error:
        raise ValueError(f"{path} is damaged: {error}") from error
    found = gather(project, earlier)
    known = texts(found)
    changed = {}
    for file in filled:
        before = file.read_text(encoding="utf-8")
        try:
            after = fill(before, known)
        except ValueError as error:
            raise ValueError(f"{file}: {error}") from error
        if after != before:
            changed[file] = after
        if not any(marked(before)):
            print(f"{file} has no marked figures", file=sys.stderr)
    write_atomically(path, json.dumps(found, indent=1, ensure_ascii=False).encode() + b"\n")
    write_atomically(docs / "report.html", page(found, docs).encode())
    for file, text in changed.items():
        write_atomically(file, text.encode())
    names = [file.as_posix() for file in changed]
    return {
        "output": (docs / "report.html").as_posix(),
        "figures": len(known),
        "filled": names,
        "notes": found["notes"],
    }
