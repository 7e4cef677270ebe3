"""What a preparation leaves to read: captions.jsonl, quarantine.jsonl, report.json, and report.html to look at."""

from __future__ import annotations

import base64
import html
import io
import json
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from PIL import Image, ImageOps

from atelier.dataset.checks import Limits, Rejection, read_file
from atelier.dataset.rewriting import SOURCE
from atelier.dataset.shards import PICTURES, iterate_rows, read_rows, shard_name
from atelier.images import contact_sheet, open_picture, to_picture, write_atomically
from atelier.progress import progress_bar

CELL, COLUMNS, SHOWN = 96, 12, 48
MEASURED = ("width", "height", "contrast", "label_doubt", "presentation_doubt")

STYLE = """body{font:15px/1.5 system-ui,sans-serif;margin:2em auto;max-width:76em;padding:0 1em;color:#222}
h1,h2{font-weight:600}h2{margin-top:2em}table{border-collapse:collapse}td,th{padding:.2em .8em;text-align:right;
border-bottom:1px solid #ddd}td:first-child,th:first-child{text-align:left}img{max-width:100%;display:block}
.plots{display:flex;flex-wrap:wrap;gap:2em}figure{margin:0}figcaption{color:#555;font-size:.9em}
small,.note{color:#555}"""


def write_report(out: Path, plan: dict, summary: dict) -> None:
    """Write the four files into `out`; `report.json` comes last and says that the preparation is complete.

    Args:
        plan: what `out/plan.json` holds.
        summary: what `decide` returned.
    """
    numbers = range(len(plan["counts"]))
    kept, gone, measured, sheets = [], [], {name: [] for name in MEASURED}, _Sheets(out)
    for number in progress_bar(numbers, desc="report  ", unit="shard"):
        name = shard_name(number)
        columns = [column for column in PICTURES.names if column != "image"]
        kept += read_rows(out / "shards" / name, columns)
        files = read_rows(
            out / "work" / "examined" / name, ["index", "source", "label", "split", "contrast", "width", "height"]
        )
        fates = read_rows(out / "work" / "decided" / name)
        for file, fate in zip(files, fates, strict=True):
            row = file | fate
            if row["reason"]:
                value = json.loads(row["value"])
                gone.append({key: row[key] for key in ("source", "label", "split", "reason")} | {"value": value})
                for doubt in ("label_doubt", "presentation_doubt"):
                    if row[doubt] is not None:
                        gone[-1][doubt] = round(row[doubt], 4)
                sheets.want(row["reason"], number, row)
            for name_ in MEASURED:
                if row[name_] is not None:
                    measured[name_].append(row[name_])
    files = sum(plan["counts"])
    if len(kept) + len(gone) != files:
        raise RuntimeError(f"{files} files came in, but {len(kept)} were kept and {len(gone)} quarantined")
    kept.sort(key=lambda row: row["source"])
    gone.sort(key=lambda row: row["source"])
    captions = ({"file": row["source"]} | {key: row[key] for key in _CAPTION_KEYS} for row in kept)
    write_atomically(out / "captions.jsonl", _lines(row for row in captions if row["caption"]))
    write_atomically(out / "quarantine.jsonl", _lines(gone))
    without = out / "work" / "no-features.txt"
    notes = [
        *([f"labels and presentation were not judged: {without.read_text()}"] if without.exists() else summary["notes"])
    ]
    if rewriter := plan["settings"].get("rewriter"):
        sources = [row["caption_source"] for row in kept if row["caption"]]
        if as_they_were := sum(not source.endswith(SOURCE) for source in sources):
            notes.append(
                f"{as_they_were:,} of {len(sources):,} captions stayed as they were: "
                f"the language model at {rewriter['url']} failed, was late, or said nothing usable"
            )
    report = {
        "files": files,
        "kept": len(kept),
        "quarantined": len(gone),
        "reasons": dict(Counter(row["reason"] for row in gone).most_common()),
        "labels": _counts(kept, "label"),
        "splits": _counts(kept, "split"),
        "caption_sources": _counts(kept, "caption_source"),
        "quarantined_by_label": _counts(gone, "label"),
        "measured": {name: _five_numbers(values) for name, values in measured.items() if values},
        "shards": len(plan["counts"]),
        "notes": notes,
        "settings": plan["settings"],
    }
    page = _page(report, kept, gone, measured, sheets, summary["near_duplicates"])
    write_atomically(out / "report.html", page.encode("utf-8", "backslashreplace"))
    write_atomically(out / "report.json", json.dumps(report, indent=1, ensure_ascii=False).encode())


_CAPTION_KEYS = ("label", "split", "caption", "caption_source", "confidence", "hash")


def _lines(rows) -> bytes:
    return "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows).encode("utf-8", "backslashreplace")


def _counts(rows: Sequence[dict], key: str) -> dict[str, int]:
    return dict(sorted(Counter(row[key] or "none" for row in rows).items()))


def _five_numbers(values: Sequence[float]) -> dict[str, float]:
    names = ("least", "quarter", "middle", "three_quarters", "most")
    return dict(zip(names, np.round(np.quantile(values, [0, 0.25, 0.5, 0.75, 1]).tolist(), 4).tolist(), strict=True))


class _Sheets:
    """Collects which pictures are to be shown for which reason, and draws them."""

    def __init__(self, out: Path):
        self.out = out
        self.wanted: dict[str, list[tuple[int, dict]]] = {}

    def want(self, reason: str, shard: int, row: dict) -> None:
        """Show this file for its reason, if there is room: the first ones of a shuffled order are a fair sample."""
        if len(shown := self.wanted.setdefault(reason, [])) < SHOWN:
            shown.append((shard, row))

    def of_reason(self, reason: str) -> str:
        images = [self._picture(shard, row) for shard, row in self.wanted[reason]]
        return _sheet([image for image in images if image is not None])

    def of_kept(self, label: str, kept: Sequence[dict]) -> str:
        """A row of kept pictures of a label."""
        wanted = {row["source"] for row in kept if row["label"] == label}
        found = []
        for path in sorted((self.out / "shards").glob("part-*.parquet")):
            for row in iterate_rows([path], ["source", "image"]):
                if row["source"] in wanted:
                    found.append(_cell(open_picture(io.BytesIO(row["image"]))))
                    if len(found) == COLUMNS:
                        return _sheet(found)
        return _sheet(found)

    def of_pairs(self, pairs: Sequence[dict], counts: Sequence[int]) -> str:
        """Near-duplicates: the kept picture, then the one that is gone."""
        edges = np.cumsum([0, *counts])
        cells = []
        for pair in pairs[: SHOWN // 2]:
            for index in (pair["kept"], pair["gone"]):
                shard = int(np.searchsorted(edges, index, "right") - 1)
                cells.append(self._picture(shard, {"index": index}))
        return _sheet([cell for cell in cells if cell is not None])

    def _picture(self, shard: int, row: dict) -> np.ndarray | None:
        rows = self._shard(shard)
        about = rows[row["index"] - rows[0]["index"]]
        try:
            if about["image"]:
                return _cell(open_picture(io.BytesIO(about["image"])))
            if b"://" in about["place"]:
                return None
            return _cell(open_picture(io.BytesIO(read_file(about["place"], Limits()))))
        except (ValueError, Rejection):
            return None

    def _shard(self, shard: int) -> list[dict]:
        if getattr(self, "_number", None) != shard:
            path = self.out / "work" / "examined" / shard_name(shard)
            self._number, self._rows = shard, read_rows(path, ["index", "image", "place"])
        return self._rows


def _cell(image: Image.Image) -> np.ndarray:
    return np.asarray(ImageOps.pad(image, (CELL, CELL), color=(235, 235, 235)))


def _sheet(images: Sequence[np.ndarray]) -> str:
    if not images:
        return "<p class=note>No picture to show.</p>"
    buffer = io.BytesIO()
    to_picture(contact_sheet(images, COLUMNS)).save(buffer, "JPEG", quality=82)
    return f'<img alt="" src="data:image/jpeg;base64,{base64.b64encode(buffer.getvalue()).decode()}">'


def _page(report: dict, kept, gone, measured, sheets: _Sheets, pairs: list[dict]) -> str:
    parts = [
        f"<!doctype html><html lang=en><meta charset=utf-8><title>Data set report</title><style>{STYLE}</style>",
        f"<h1>{report['files']:,} files: {report['kept']:,} kept, {report['quarantined']:,} quarantined</h1>",
        f"<p class=note>Source: {html.escape(report['settings']['source'])}</p>",
        *(f"<p class=note>{html.escape(note)}</p>" for note in report["notes"]),
        _table(report, kept),
        "<h2>What was measured</h2><div class=plots>",
        *(_histogram(name, values) for name, values in measured.items() if values),
        "</div><h2>Kept</h2>",
    ]
    for label in report["labels"]:
        parts.append(f"<h3>{html.escape(label)}</h3>{sheets.of_kept(label, kept)}")
    parts.append("<h2>Quarantined</h2>")
    for reason, count in report["reasons"].items():
        parts.append(f"<h3>{html.escape(reason)}: {count:,}</h3>")
        if reason == "near-duplicate":
            counts = [len(read_rows(path, ["index"])) for path in sorted((sheets.out / "work" / "files").glob("*"))]
            parts.append(f"<p class=note>In pairs: kept, gone.</p>{sheets.of_pairs(pairs, counts)}")
        else:
            parts.append(sheets.of_reason(reason))
            some = [row for row in gone if row["reason"] == reason][:6]
            shown = (f"{row['source']} ({json.dumps(row['value'], ensure_ascii=False)})" for row in some)
            parts.append(f"<p><small>{html.escape(' · '.join(shown))}</small></p>")
    return "\n".join([*parts, "</html>"])


def _table(report: dict, kept: Sequence[dict]) -> str:
    splits = sorted(report["splits"])
    cells = Counter((row["label"], row["split"]) for row in kept)
    head = "".join(f"<th>{html.escape(name)}" for name in ("label", *splits, "quarantined"))
    labels = sorted({*report["labels"], *report["quarantined_by_label"]})
    rows = (
        "".join(
            f"<td>{cell}"
            for cell in (
                html.escape(label),
                *(f"{cells[label, split]:,}" for split in splits),
                f"{report['quarantined_by_label'].get(label, 0):,}",
            )
        )
        for label in labels
    )
    sources = ", ".join(f"{name}: {count:,}" for name, count in report["caption_sources"].items())
    return f"<table><tr>{head}<tr>{'<tr>'.join(rows)}</table><p>Captions by source: {html.escape(sources)}.</p>"


def _histogram(name: str, values: Sequence[float], bins: int = 32) -> str:
    """An SVG of counts by value."""
    counts, edges = np.histogram(values, bins)
    heights = 78 * counts / counts.max()
    bars = "".join(
        f'<rect x="{i * 8}" y="{80 - height:.1f}" width="7" height="{height:.1f}"/>' for i, height in enumerate(heights)
    )
    return (
        f'<figure><svg width="{bins * 8}" height="82" fill="#47689a">{bars}</svg>'
        f"<figcaption>{name.replace('_', ' ')}: {edges[0]:.4g} to {edges[-1]:.4g}</figcaption></figure>"
    )
