"""What a study found, as pictures: its history, which settings mattered, and which values went together."""

from __future__ import annotations

import io
import math
import warnings

import numpy as np
import optuna
from matplotlib.cm import ScalarMappable
from matplotlib.colors import Normalize
from matplotlib.figure import Figure  # not pyplot: no window system, no state
from optuna.trial import TrialState

from atelier.tuning.spaces import Choice, Range, Space, reached_floors


def history(study: optuna.Study, space: Space) -> bytes:
    """A PNG: each trial's goal, and the best so far among those above the floors; the pruned by what they last had."""
    figure = Figure(figsize=(7, 3.8), layout="constrained")
    axes = figure.subplots()
    groups: dict[str, list[tuple[int, float]]] = {"finished": [], "below a floor": [], "pruned": []}
    best: list[tuple[int, float]] = []
    better = min if space.better == "less" else max
    for trial in study.get_trials(deepcopy=False):
        if trial.state == TrialState.PRUNED and "figures" in trial.user_attrs:
            groups["pruned"].append((trial.number, trial.user_attrs["figures"][space.figure]))
        elif trial.state == TrialState.COMPLETE:
            reached = reached_floors(trial)
            groups["finished" if reached else "below a floor"].append((trial.number, trial.value))
            if reached:
                best.append((trial.number, better(trial.value, best[-1][1]) if best else trial.value))
    for (name, points), marker in zip(groups.items(), "ovx", strict=True):
        if points:
            axes.plot(*zip(*points, strict=True), marker, label=f"{name} ({len(points)})")
    if best:
        axes.step(*zip(*best, strict=True), where="post", color="0.6", zorder=0, label="best so far")
    values = [value for points in groups.values() for _, value in points]
    if min(values) > 0 and max(values) > 10 * min(values):
        axes.set_yscale("log")
    axes.set(xlabel="trial", ylabel=f"{space.figure} ({space.better} is better)")
    axes.xaxis.get_major_locator().set_params(integer=True)
    axes.legend(fontsize=8)
    return _png(figure)


def importance(study: optuna.Study, space: Space) -> bytes:
    """A PNG: how much each setting mattered for being in the best quarter (PED-ANOVA, Watanabe et al., 2023)."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("error", UserWarning)  # "too few trials": all would be told to matter alike
            quarter = optuna.importance.PedAnovaImportanceEvaluator(target_quantile=0.25)
            shares = optuna.importance.get_param_importances(study, evaluator=quarter)
    except (ValueError, RuntimeError, UserWarning):
        shares = {}
    figure = Figure(figsize=(7, 0.9 + 0.3 * max(3, len(shares))), layout="constrained")
    axes = figure.subplots()
    finished = len(study.get_trials(deepcopy=False, states=[TrialState.COMPLETE]))
    names = list(reversed(shares))
    axes.barh(names, [shares[name] for name in names])
    if not shares:
        axes.text(0.5, 0.5, "too few finished trials", ha="center", transform=axes.transAxes)
    axes.set(xlabel=f"share of importance for {space.figure}, by {finished} finished trials")
    return _png(figure)


def parallel(study: optuna.Study, space: Space) -> bytes:
    """A PNG: a line for each finished trial through all its settings, coloured by its goal; dashed below a floor."""
    trials = study.get_trials(deepcopy=False, states=[TrialState.COMPLETE])
    names = [name for name in space.search if all(name in trial.params for trial in trials)]
    figure = Figure(figsize=(max(6, 1.25 * len(names)), 4.2), layout="constrained")
    axes = figure.subplots()
    colours = ScalarMappable(Normalize(min(t.value for t in trials), max(t.value for t in trials)), "viridis")
    for trial in trials:
        heights = [_height(space.search[name], trial.params[name]) for name in names]
        style = "-" if reached_floors(trial) else "--"
        axes.plot(heights, style, marker=".", color=colours.to_rgba(trial.value), linewidth=1.4)
    for place, name in enumerate(names):
        axes.axvline(place, color="0.85", zorder=0)
        part = space.search[name]
        for value in part.values if isinstance(part, Choice) else (part.low, part.high):
            label = f"{value:g}" if isinstance(value, (int, float)) else value.replace(",", "\n") or "none"
            behind = {"color": "white", "alpha": 0.8, "linewidth": 0, "pad": 0.6}
            axes.text(place + 0.04, _height(part, value), label, fontsize=7, va="center", bbox=behind, zorder=3)
    axes.set_xticks(range(len(names)), names, rotation=20)
    axes.set(yticks=[], xlim=(-0.1, len(names) - 0.3), ylim=(-0.06, 1.06))  # room for the last axis's labels
    figure.colorbar(colours, ax=axes, label=f"{space.figure} ({space.better} is better)")
    return _png(figure)


def _height(part: Range | Choice, value: bool | int | float | str) -> float:
    """Where a value stands on its axis, 0 to 1."""
    if isinstance(part, Choice):
        return part.values.index(value) / (len(part.values) - 1) if value in part.values else math.nan
    place, low, high = np.log([value, part.low, part.high]) if part.log else (value, part.low, part.high)
    return float((place - low) / (high - low))


def _png(figure: Figure) -> bytes:
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=110)
    return buffer.getvalue()
