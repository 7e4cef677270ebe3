"""What is searched, and what decides: `spaces.yaml` as objects."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Self

import yaml

if TYPE_CHECKING:
    import optuna

SPACES = Path(__file__).with_name("spaces.yaml")

WORST = 1e30
"""Worse than any figure, and still a number of which medians can be taken."""

Value = bool | int | float | str


@dataclass(frozen=True)
class Range:
    """Numbers from `low` to `high`, both included; whole ones if both ends are."""

    low: float
    high: float
    log: bool = False

    def suggest(self, trial: optuna.Trial, name: str) -> Value:
        """One of them, chosen by the study's sampler."""
        whole = isinstance(self.low, int) and isinstance(self.high, int)
        suggest = trial.suggest_int if whole else trial.suggest_float
        return suggest(name, self.low, self.high, log=self.log)

    def __contains__(self, value: Value) -> bool:
        return isinstance(value, (int, float)) and self.low <= value <= self.high


@dataclass(frozen=True)
class Choice:
    """One of some values; a list among them stands as text, as `--set` takes it: "translation,cutout"."""

    values: tuple[Value, ...]

    def suggest(self, trial: optuna.Trial, name: str) -> Value:
        """One of them, chosen by the study's sampler."""
        return trial.suggest_categorical(name, self.values)

    def __contains__(self, value: Value) -> bool:
        return value in self.values


@dataclass(frozen=True)
class Space:
    """A search space, and by what its trials are judged.

    Attributes:
        figure: the name of the figure that decides.
        better: "less" or "more" of it.
        floors: what other figures must reach.
        search: the settings that are searched.
    """

    figure: str
    better: str
    floors: Mapping[str, float]
    search: Mapping[str, Range | Choice]

    @classmethod
    def read(cls, what: str, path: Path | None = None) -> Self:
        """The block `what` of a file like spaces.yaml (by default that one).

        Raises:
            ValueError: the file, or what stands in it, is no search space; the message says where.
        """
        path = path or SPACES
        try:
            block = yaml.safe_load(path.read_text(encoding="utf-8"))[what]
            goal, floors, search = block["goal"], block.get("floors") or {}, block["search"]
            floors = {name: float(floor) for name, floor in floors.items()}
            space = cls(str(goal["figure"]), goal["better"], floors, {name: _part(search[name]) for name in search})
        except OSError as error:
            raise ValueError(f"cannot read {path}: {error.strerror}") from error
        except (yaml.YAMLError, KeyError, TypeError, AttributeError, ValueError) as error:
            raise ValueError(f"{path} holds no search space for the {what}: {error or type(error).__name__}") from error
        if space.better not in ("less", "more") or not search:
            raise ValueError(f"{path}: the {what}'s goal is better with less or more, and something is searched")
        return space

    def only(self, names: Sequence[str]) -> Space:
        """The space with these settings alone; all of it for no names.

        Raises:
            ValueError: a name that is not searched.
        """
        if unknown := set(names) - set(self.search):
            raise ValueError(f"searched are {', '.join(self.search)}, not {', '.join(sorted(unknown))}")
        return replace(self, search={name: self.search[name] for name in names}) if names else self

    def with_floors(self, floors: Sequence[str]) -> Space:
        """The space with some floors changed, given as NAME=VALUE.

        Raises:
            ValueError: not NAME=VALUE, or no number.
        """
        changed = dict(self.floors)
        for floor in floors:
            name, _, value = floor.partition("=")
            try:
                changed[name] = float(value)
            except ValueError:
                raise ValueError(f"a floor is NAME=NUMBER, not {floor!r}") from None
        return replace(self, floors=changed)

    def suggest(self, trial: optuna.Trial) -> list[str]:
        """A trial's settings as NAME=VALUE, which the recipes' `of` reads."""
        return as_settings({name: part.suggest(trial, name) for name, part in self.search.items()})

    def beginning(self, recipe: Callable[[Sequence[str]], object]) -> dict[str, Value] | None:
        """The values that a recipe without any search has, for the first trial; `None` where one is outside the space.

        Args:
            recipe: makes a recipe of NAME=VALUE texts.

        Raises:
            ValueError: a setting that the recipe does not know, or a value of another kind.
        """
        for name, part in self.search.items():
            for value in part.values if isinstance(part, Choice) else (part.low, part.high):
                recipe(as_settings({name: value}))
        defaults = recipe(())
        values = {name: _plain(getattr(defaults, name)) for name in self.search}
        return values if all(values[name] in part for name, part in self.search.items()) else None

    def check(self, figures: Mapping[str, float]) -> None:
        """`ValueError` if the goal or a floor is none of a training's figures."""
        if unknown := {self.figure, *self.floors} - set(figures):
            raise ValueError(f"the figures are {', '.join(figures)}, without {', '.join(sorted(unknown))}")

    def shortfalls(self, figures: Mapping[str, float]) -> dict[str, float]:
        """By how much each floor is missed: above 0 where it is, as Optuna's constraints want it."""
        return {name: floor - figures[name] for name, floor in self.floors.items()}

    def standing(self, figures: Mapping[str, float]) -> float:
        """The goal, by which trials are pruned; below a floor the worst there is."""
        if any(shortfall > 0 for shortfall in self.shortfalls(figures).values()):
            return WORST if self.better == "less" else -WORST
        return figures[self.figure]


def reached_floors(trial: optuna.trial.FrozenTrial) -> bool:
    """Whether a trial misses none of the floors, as far as it came."""
    return all(shortfall <= 0 for shortfall in trial.constraints.values())


def as_settings(values: Mapping[str, Value]) -> list[str]:
    """`{"width": 32, "excitation": True}` as `["width=32", "excitation=true"]`."""
    return [f"{name}={str(value).lower() if isinstance(value, bool) else value}" for name, value in values.items()]


def _part(written: object) -> Range | Choice:
    if isinstance(written, list) and len(written) > 1:
        return Choice(tuple(_plain(value) for value in written))
    if not isinstance(written, dict) or not written["low"] < written["high"]:
        raise ValueError(f"a range {{low, high}} or a list of choices is wanted, not {written!r}")
    return Range(**written)


def _plain(value: object) -> Value:
    return ",".join(map(str, value)) if isinstance(value, (list, tuple)) else value
