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

CAPTION_STYLES = ("plain", "poetic", "catalogue")
CHECKED_ALONE = ("seed", "style", "truncation", "captioner_fallback", "caption_llm", "caption_llm_timeout")


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
    scale: int = 2
    output_dir: str = "outputs"
    generator: str = "generator.h5"
    captioner: str = "captioner"
    num_beams: int = 3
    captioner_fallback: bool = False
    caption_candidates: int = 1
    caption_style: str = "plain"
    caption_llm: str | None = None
    caption_llm_model: str = "default"
    caption_llm_timeout: float = 5.0

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
            "caption_style": lambda value: _check(
                value in CAPTION_STYLES, f"is one of {', '.join(CAPTION_STYLES)}", value
            ),
            "caption_candidates": lambda value: _check(1 <= value <= 16, "is a whole number from 1 to 16", value),
            "captioner_fallback": lambda value: _check(isinstance(value, bool), "is true or false", value),
            "caption_llm": lambda value: _check(
                value is None or str(value).startswith(("http://", "https://")),
                "is null or an http address",
                value,
            ),
            "caption_llm_timeout": lambda value: _check(
                isinstance(value, (int, float)) and not isinstance(value, bool) and 0 < value <= 60,
                "is a number of seconds up to 60",
                value,
            ),
        }
        for name, allowed in typing.get_type_hints(Config).items():
            value = getattr(self, name)
            try:
                if name not in CHECKED_ALONE:  # whose own checks say more
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
        settings = _yaml_mapping(path, "style: painting")
        try:
            return cls.from_mapping(settings)
        except ConfigError as error:
            raise ConfigError(f"{path}: {error}") from error


def _yaml_mapping(path: str | Path, example: str) -> dict:
    try:
        settings = yaml.safe_load(Path(path).read_text(encoding="utf-8"))
    except OSError as error:
        raise ConfigError(f"cannot read {path}: {error.strerror or error}") from error
    except (yaml.YAMLError, ValueError, AttributeError, RecursionError) as error:
        # Not only YAMLError: PyYAML lets through what a bad date, a huge number or deep nesting raises inside it.
        raise ConfigError(f"{path} is not YAML: {' '.join(str(error).split())}") from error
    if not isinstance(settings, dict):
        raise ConfigError(f"{path} holds no settings: expected lines like '{example}'")
    return settings


def _check(fine: object, rule: str, value: object) -> None:
    if not fine:
        raise ValueError(f"{rule}, not {value!r}")


def _check_type(value: object, kind: type) -> None:
    # To Python a bool is an int, which isinstance would let pass.
    if not isinstance(value, kind) or isinstance(value, bool):
        raise ValueError(f"expected {kind.__name__}, not {value!r}")


def settings_in(path: str | Path) -> list[str]:
    """A YAML file of a training's recipe as `NAME=VALUE` texts, which the recipes' own `of` reads and checks.

    Raises:
        ConfigError: no such file, or no YAML mapping in it.
    """
    return [f"{name}={_as_text(value)}" for name, value in _yaml_mapping(path, "batch_size: 16").items()]


def _as_text(value: Any) -> str:
    if isinstance(value, list):
        return ",".join(map(_as_text, value))
    return str(value).lower() if isinstance(value, bool) else str(value)
