"""Gathers what the evaluations and benchmarks left: `figures.yaml` and their files become one `report.json`."""

from __future__ import annotations

import csv
import hashlib
import json
import math
import struct
from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path

import yaml

SPEC = Path(__file__).with_name("figures.yaml")


def gather(project: Path, earlier: Mapping | None = None) -> dict:
    """The report: `sections` with their `figures`, `curves`, and `notes` about what is missing or old.

    Args:
        project: the folder in which the commands were run.
        earlier: a report of before; it keeps the sections, and the baselines, whose files are not there now.

    Returns:
        what stands in report.json. A figure has `label`, `value`, `text`, and perhaps `spread`, `baseline`, `floor`.

    Raises:
        ValueError: a file is damaged, or lacks one of its figures.
    """
    spec, earlier = yaml.safe_load(SPEC.read_text(encoding="utf-8")), earlier or {}
    sections, notes = {}, []
    curves = spec.pop("curves")
    for name, about in spec.items():
        kept = earlier.get("sections", {}).get(name)
        try:
            sections[name] = _section(about, project, kept or {})
            base = about.get("baseline")
            if "baseline" in sections[name] and not (project / base["file"]).is_file():
                notes.append(f"{name}: the baseline as in the earlier report, no {base['file']}: {base['command']}")
        except FileNotFoundError as error:
            notes.append(f"{name}: {'as in the earlier report' if kept else 'none'}, no {error}: {about['command']}")
            if kept:
                sections[name] = kept
        for file, mark in sections.get(name, {}).get("weights", {}).items():
            if (project / file).is_file() and not _sha256(project / file).startswith(mark):
                notes.append(f"{name}: these figures are of another {file} than the one here: {about['command']}")
    found = {name: _curves(about, project) for name, about in curves.items()}
    found = {name: lines or earlier.get("curves", {}).get(name, {}).get("lines", {}) for name, lines in found.items()}
    drawn = {name: curves[name] | {"lines": lines} for name, lines in found.items() if lines}
    return {"sections": sections, "curves": drawn, "notes": notes}


def texts(report: Mapping) -> dict[str, str]:
    """How each figure is written, by its key: `generator.kid`, `generator.kid.floor`, `generator.kid.baseline`."""
    found = {}
    for section, about in report["sections"].items():
        for name, figure in about["figures"].items():
            found[f"{section}.{name}"] = figure["text"]
            for other in ("baseline", "floor"):
                if other in figure:
                    found[f"{section}.{name}.{other}"] = figure[other]["text"]
    return found


def _section(about: Mapping, project: Path, earlier: Mapping) -> dict:
    source = _read(project / about["file"], about["file"]) if "file" in about else _files(project)
    told = {key: about[key] for key in ("title", "command", "file", "floor_is") if key in about}
    if "file" in about:
        told["made"] = _day(project / about["file"])
    base, baseline = about.get("baseline"), None
    if base and (project / base["file"]).is_file():
        baseline = _read(project / base["file"], base["file"])
        told["baseline"] = {key: base[key] for key in ("is", "command")}
    elif base and "baseline" in earlier:
        told["baseline"] = earlier["baseline"]
    figures = {}
    for name, how in about["figures"].items():
        place = about.get("file", "the files")
        if place.endswith(".jsonl") and how["value"].partition(".")[0] not in source:
            continue  # a benchmark that was left out, for lack of what it compares with
        figures[name] = {"label": how["label"]} | _figure(source, how, how["value"], how.get("spread"), place)
        if "floor" in how:
            figures[name]["floor"] = _figure(source, how, how["floor"], how.get("floor_spread"), place)
        if not how.get("compared", True):
            continue
        if baseline is not None:
            figures[name]["baseline"] = _figure(baseline, how, how["value"], how.get("spread"), base["file"])
        elif before := earlier.get("figures", {}).get(name, {}).get("baseline"):
            figures[name]["baseline"] = before
    if "weights" in about:
        told["weights"] = {file: str(source.get(place)) for file, place in about["weights"].items()}
    return told | {"figures": figures}


def _figure(source: Mapping, how: Mapping, value: str, spread: str | None, file: str) -> dict:
    digits, times = how["digits"], how.get("times", 1)
    numbers = {"value": _at(source, value, file) * times}
    if spread:
        numbers["spread"] = _at(source, spread, file) * times
    text = " ± ".join(f"{number:,.{digits}f}" for number in numbers.values()) + how.get("unit", "")
    return {name: float(f"{number:.6g}") for name, number in numbers.items()} | {"text": text}


def _at(source: Mapping, place: str, file: str) -> float:
    found = source
    for name in place.split("."):
        if not isinstance(found, Mapping) or name not in found:
            raise ValueError(f"{file} has no {place}: run its command again")
        found = found[name]
    if not isinstance(found, (int, float)) or not math.isfinite(found):
        raise ValueError(f"{file}: {place} is no number but {found!r}")
    return found


def _read(path: Path, shown: str) -> dict:
    if not path.is_file():
        raise FileNotFoundError(shown)
    try:
        text = path.read_text(encoding="utf-8")
        if path.suffix != ".jsonl":
            return json.loads(text)
        return {record["name"]: record for record in map(json.loads, text.splitlines())}  # the last of a name counts
    except (ValueError, KeyError, TypeError) as error:
        raise ValueError(f"{shown} is damaged: {error}") from error


def _files(project: Path) -> dict:
    """Size and number of parameters of what the repository ships."""
    about = {}
    for name in ("generator", "detector"):
        path = project / f"{name}.h5"
        if not path.is_file():
            raise FileNotFoundError(path.name)
        about[name] = {"megabytes": path.stat().st_size / 1e6, "parameters": _parameters_of_h5(path)}
    folder = project / "captioner"
    if not (folder / "model.safetensors").is_file():
        raise FileNotFoundError("captioner/model.safetensors")
    size = sum(path.stat().st_size for path in folder.iterdir())
    parameters = _parameters_of_safetensors(folder / "model.safetensors")
    return about | {"captioner": {"megabytes": size / 1e6, "parameters": parameters}}


def _parameters_of_h5(path: Path) -> int:
    import h5py

    sizes: list[int] = []
    with h5py.File(path) as file:
        weights = file["model_weights"]
        weights.visititems(lambda _, each: sizes.append(each.size) if isinstance(each, h5py.Dataset) else None)
    return sum(sizes)


def _parameters_of_safetensors(path: Path) -> int:
    """From the header alone: eight bytes of its length, then JSON with a shape for each tensor."""
    with path.open("rb") as file:
        header = json.loads(file.read(struct.unpack("<Q", file.read(8))[0]))
    return sum(math.prod(about["shape"]) for name, about in header.items() if name != "__metadata__")


def _sha256(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


def _day(path: Path) -> str:
    return datetime.fromtimestamp(path.stat().st_mtime, UTC).date().isoformat()


def _curves(about: Mapping, project: Path) -> dict[str, list[tuple[float, float]]]:
    """Points by line: a run's folder, or the value of the column `by`."""
    lines: dict[str, list[tuple[float, float]]] = {}
    for path in sorted(project.glob(about["files"])):
        with path.open(newline="", encoding="utf-8") as file:
            rows = [json.loads(line) for line in file] if path.suffix == ".jsonl" else list(csv.DictReader(file))
        for row in rows:
            if row.get(about["x"]) and row.get(about["y"]):
                line = f"{about['by']} {row[about['by']]}" if "by" in about else path.parent.name
                point = float(row[about["x"]]), float(row[about["y"]]) * about.get("times", 1)
                lines.setdefault(line, []).append(tuple(float(f"{number:.5g}") for number in point))
    return {line: points for line, points in lines.items() if len(points) > 1}
