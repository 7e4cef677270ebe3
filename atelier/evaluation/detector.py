"""All figures of a detector in one run: `python -m atelier evaluate detector`. docs/detector.md defines them."""

from __future__ import annotations

import hashlib
import io
import json
import time
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from matplotlib.figure import Figure  # not pyplot: no window system, no state
from PIL import Image

from atelier.detector import UNCERTAIN, Detector
from atelier.detector.data import Labelled, find_labelled, labels_of
from atelier.detector.metrics import accuracy, confusion, figures_of, reliability, roc_curve
from atelier.detector.views import CONDITIONS
from atelier.images import open_picture, write_atomically
from atelier.progress import progress_bar

BATCH = 8
STEP = 4 * BATCH  # pictures in memory
WORST = 20


def evaluate_detector(detector: str | Path, data_roots: Sequence[str | Path], out: str | Path) -> dict:
    """Measure a detector on labelled pictures, as they are and after they have suffered.

    On pictures that it has learnt from it does better than on others: the figures of those are the training's, in
    its figures.json.

    Writes `detector.json` and `detector.png` (ROC and calibration curve).

    Args:
        detector: a detector.h5.
        data_roots: folders with pictures of both classes, as `find_labelled` reads them.
        out: where the files go.

    Returns:
        the named figures, as they stand in detector.json.

    Raises:
        DetectorError, FileNotFoundError, ValueError: no detector, no data, or a picture that cannot be read.
    """
    judge = Detector.load(detector)
    pictures = [picture for root in data_roots for picture in find_labelled(root)]
    labels = labels_of(pictures)
    judged, seconds = _judged(judge, pictures)
    plain = judged["plain"]
    decided = (plain <= UNCERTAIN[0]) | (plain >= UNCERTAIN[1])
    wrong = np.argsort(-np.abs(plain - labels), kind="stable")[:WORST]
    figures = {
        "detector": Path(detector).name,
        "detector_sha256": hashlib.sha256(Path(detector).read_bytes()).hexdigest()[:16],
        "pictures": {"ai": int(labels.sum()), "human": int((1 - labels).sum())},
        **{condition: figures_of(labels, found) for condition, found in judged.items()},
        "confusion": confusion(labels, plain),
        "verdicts": {
            "uncertain_between": UNCERTAIN,
            "uncertain": round(float(1 - decided.mean()), 4),
            "accuracy_of_the_others": round(accuracy(labels[decided], plain[decided]), 4) if decided.any() else None,
        },
        "pictures_per_second": round(len(pictures) / seconds, 1),
        "most_wrong": [
            {"picture": pictures[index].path.name, "ai": pictures[index].ai, "ai_probability": round(plain[index], 4)}
            for index in wrong
            if (plain[index] > 0.5) != pictures[index].ai
        ],
    }
    write_atomically(Path(out) / "detector.json", json.dumps(figures, indent=1).encode())
    write_atomically(Path(out) / "detector.png", curves(labels, judged))
    return figures


def _judged(judge: Detector, pictures: Sequence[Labelled]) -> tuple[dict[str, np.ndarray], float]:
    """(N,) probabilities under each of `CONDITIONS`, and the seconds that opening and judging all plainly took."""
    found: dict[str, list] = {condition: [] for condition in CONDITIONS}
    seconds = 0.0
    judge.probabilities([Image.new("RGB", (224, 224))] * BATCH)  # the first batch compiles
    with progress_bar(total=len(pictures), desc="judging", unit="picture") as bar:
        for start in range(0, len(pictures), STEP):
            began = time.perf_counter()
            paths = [picture.path for picture in pictures[start : start + STEP]]
            found["plain"].append(judge.probabilities(paths, BATCH))
            seconds += time.perf_counter() - began
            images = [open_picture(path) for path in paths]
            for condition, change in CONDITIONS.items():
                if condition != "plain":
                    found[condition].append(judge.probabilities([change(image) for image in images], BATCH))
            bar.update(len(images))
    return {condition: np.concatenate(parts) for condition, parts in found.items()}, seconds


def curves(labels: np.ndarray, judged: dict[str, np.ndarray]) -> bytes:
    """A PNG: the ROC curve of each condition, and how often what is called so probable is true."""
    figure = Figure(figsize=(9, 4.2), layout="constrained")
    left, right = figure.subplots(1, 2)
    for condition, probabilities in judged.items():
        left.plot(*roc_curve(labels, probabilities), label=condition)
    left.set(xlabel="human pictures called AI", ylabel="AI pictures called AI", title="ROC")
    left.legend()
    means, shares, counts = reliability(labels, judged["plain"]).T
    right.plot([0, 1], [0, 1], color="0.8")
    right.scatter(means, shares, s=4 + 200 * counts / counts.sum())
    right.set(xlabel="probability told", ylabel="share made by machines", title="Calibration")
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=100)
    return buffer.getvalue()


def share_called_human(detector: str | Path, images: np.ndarray) -> dict:
    """What a detector says of a generator's pictures, (N, H, W, 3) uint8: named figures for its evaluation.

    They are a few dozen pixels wide, enlarged, where the detector learnt from pictures ten times as large: what it
    says of them is a curiosity, not a measure of art.
    """
    probabilities = Detector.load(detector).probabilities(list(images))
    return {
        "label": "what detector.h5 takes the generated pictures for; they are small, and far from its data",
        "called_human": float(np.mean(probabilities <= 0.5)),
        "verdict_human": float(np.mean(probabilities <= UNCERTAIN[0])),
        "mean_ai_probability": float(probabilities.mean()),
    }
