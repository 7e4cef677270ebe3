"""report.json as a page to look at: one HTML file, with the plots in it and the sample sheets beside it."""

from __future__ import annotations

import base64
import html
import io
from collections.abc import Mapping
from pathlib import Path

from matplotlib.figure import Figure  # not pyplot: no window system, no state

STYLE = """body{font:15px/1.5 system-ui,sans-serif;margin:2em auto;max-width:62em;padding:0 1em;color:#222}
h1,h2{font-weight:600}h2{margin-top:2em}table{border-collapse:collapse}td,th{padding:.2em 1em .2em 0;text-align:right;
border-bottom:1px solid #ddd}td:first-child,th:first-child{text-align:left}img{max-width:100%;display:block}
code{font-size:.85em}.note{color:#555}figure{margin:1em 0}figcaption{color:#555;font-size:.9em}"""


def page(report: Mapping, docs: Path) -> str:
    """The whole HTML page; it shows the pictures that lie in `docs`, the folder it is for, by relative links."""
    parts = [
        f'<!doctype html><html lang="en"><meta charset="utf-8"><title>Atelier: figures</title><style>{STYLE}</style>'
    ]
    parts += ["<h1>Figures</h1><p>Every figure is made by the command under its table; <code>make report</code> puts"]
    parts += ["them here. <a href='report.json'>report.json</a> holds the same.</p>"]
    parts += [f'<p class="note">{html.escape(note)}</p>' for note in report["notes"]]
    for name, about in report["sections"].items():
        parts.append(f"<h2>{html.escape(about['title'])}</h2>")
        parts.append(_table(about))
        if name in report["curves"]:
            parts.append(_picture(_curves(report["curves"][name]), report["curves"][name]["title"]))
        if name == "generator":
            parts += _linked(docs, "gallery/*.jpg", "sixteen seeds, nothing picked")
    for study in sorted(docs.glob("tuning/*/study.json")):
        parts.append(f"<h2>Search: {html.escape(study.parent.name)}</h2>")
        parts += _linked(
            docs, f"{study.parent.relative_to(docs).as_posix()}/*.png", "docs/tuning.md tells what it says"
        )
    return "\n".join(parts) + "\n"


def _table(about: Mapping) -> str:
    figures = about["figures"].values()
    columns = {"": "", "text": "measured"}
    for other in ("baseline", "floor"):
        if any(other in figure for figure in figures):
            columns[other] = about["baseline"]["is"] if other == "baseline" else about.get("floor_is", "floor")
    rows = ["".join(f"<th>{html.escape(title)}</th>" for title in columns.values())]
    for figure in figures:
        cells = [figure["label"], figure["text"]]
        cells += [figure[other]["text"] if other in figure else "" for other in list(columns)[2:]]
        rows.append("".join(f"<td>{html.escape(cell)}</td>" for cell in cells))
    notes = [f"<code>{html.escape(about['command'])}</code>" + (f", {about['made']}" if "made" in about else "")]
    if "baseline" in columns:
        notes.append(
            f"{html.escape(about['baseline']['is'])}: <code>{html.escape(about['baseline']['command'])}</code>"
        )
    table = "<table>" + "".join(f"<tr>{row}</tr>" for row in rows) + "</table>"
    return table + "".join(f'<p class="note">{note}</p>' for note in notes)


def _curves(about: Mapping) -> bytes:
    figure = Figure(figsize=(7, 3.6), layout="constrained")
    axes = figure.subplots()
    for line, points in about["lines"].items():
        axes.plot(*zip(*points, strict=True), marker=".", markersize=3, linewidth=1, label=line)
    axes.set(xlabel=about["x"], ylabel=about["y"])
    axes.legend(fontsize=7)
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=90)
    return buffer.getvalue()


def _picture(png: bytes, caption: str) -> str:
    data = base64.b64encode(png).decode()
    caption = html.escape(caption)
    return (
        f'<figure><img src="data:image/png;base64,{data}" alt="{caption}"><figcaption>{caption}</figcaption></figure>'
    )


def _linked(docs: Path, pattern: str, caption: str) -> list[str]:
    """The pictures of a pattern, each with its name."""
    return [
        f'<figure><img src="{path.relative_to(docs).as_posix()}" alt="{path.stem}" loading="lazy">'
        f"<figcaption>{path.stem}: {caption}</figcaption></figure>"
        for path in sorted(docs.glob(pattern))
    ]
