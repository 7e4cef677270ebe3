"""config.yaml as a typed, frozen object: what it does not know, it names."""

from __future__ import annotations

import difflib
import typing
from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any

import yaml

from atelier.seeds import check_seed, check_style, check_truncation


class ConfigError(ValueError):
    """A setting is unknown, of the wrong type or out of range; the message names it and says what is allowed."""


@dataclass(frozen=True)
class Config:
    """The settings of one way to make artworks. Field names are the keys of config.yaml.

    Relative `generator` and `captioner` paths start at the project's folder, `output_dir` at the working directory.

    Raises:
        ConfigError: on construction, for a value of the wrong type or out of range.
    """

    version: int = 1
    output: dict = field(default_factory=lambda: {"type": "image"}, hash=False)
    requirement: str = "requirement.txt"
    main: str = "main.ipynb"
    seed: int | str | None = None
    style: str | None = None
    truncation: float | None = 1.5
    scale: int = 4
    output_dir: str = "outputs"
    generator: str = "generator.h5"
    captioner: str = "captioner"
    num_beams: int = 3

    def __post_init__(self):
        checks = {
            "version": lambda value: _check(value == 1, "is 1", value),
            "output": lambda value: _check(value == {"type": "image"}, "is {type: image}", value),
            "seed": lambda value: value is None or check_seed(value),
            "style": lambda value: value is None or check_style(value),
            "truncation": lambda value: value is None or check_truncation(value),
            "scale": lambda value: _check(1 <= value <= 16, "is a whole number from 1 to 16", value),
            "num_beams": lambda value: _check(1 <= value <= 16, "is a whole number from 1 to 16", value),
            "output_dir": lambda value: _check(value.strip(), "is a folder's path", value),
        }
        for name, allowed in typing.get_type_hints(Config).items():
            value = getattr(self, name)
            try:
                if name not in ("seed", "style", "truncation"):  # whose own checks say more
                    _check_type(value, allowed)
                if name in checks:
                    checks[name](value)
            except ValueError as error:
                raise ConfigError(f"{name}: {error}") from error

    @classmethod
    def from_mapping(cls, settings: Mapping[str, Any]) -> Config:
        """Settings by name; what is left out has its default.

        Raises:
            ConfigError: an unknown name (with the nearest known one), or as on construction.
        """
        known = [each.name for each in fields(cls)]
        for name in settings:
            if name not in known:
                near = difflib.get_close_matches(str(name), known, n=1)
                hint = f"did you mean {near[0]!r}?" if near else f"known are {', '.join(known)}"
                raise ConfigError(f"unknown key {name!r}: {hint}")
        return cls(**settings)

    @classmethod
    def from_yaml(cls, path: str | Path) -> Config:
        """Read a config.yaml.

        Raises:
            ConfigError: no such file, no YAML mapping in it, or as `from_mapping`; the message names the file.
        """
        path = Path(path)
        try:
            settings = yaml.safe_load(path.read_text(encoding="utf-8"))
        except OSError as error:
            raise ConfigError(f"cannot read {path}: {error.strerror or error}") from error
        except (yaml.YAMLError, ValueError, AttributeError, RecursionError) as error:
            # Not only YAMLError: PyYAML lets through what a bad date, a huge number or deep nesting raises inside it.
            raise ConfigError(f"{path} is not YAML: {' '.join(str(error).split())}") from error
        if not isinstance(settings, dict):
            raise ConfigError(f"{path} holds no settings: expected lines like 'style: painting'")
        try:
            return cls.from_mapping(settings)
        except ConfigError as error:
            raise ConfigError(f"{path}: {error}") from error


def _check(fine: object, rule: str, value: object) -> None:
    if not fine:
        raise ValueError(f"{rule}, not {value!r}")


def _check_type(value: object, kind: type) -> None:
    # To Python a bool is an int, which isinstance would let pass.
    if not isinstance(value, kind) or isinstance(value, bool):
        raise ValueError(f"expected {kind.__name__}, not {value!r}")
