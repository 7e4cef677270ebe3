"""The settings of a training as text: `["loss=hinge", "epochs=8"]` to a dataclass of defaults, some of them changed."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import fields
from typing import Self


class Settings:
    """Base of the dataclasses that hold a training's settings, all of which have defaults."""

    @classmethod
    def of(cls, settings: Sequence[str]) -> Self:
        """The defaults with `settings` (NAME=VALUE, the last wins) changed: `["loss=hinge", "judges=pixels,features"]`.

        Raises:
            ValueError: no such setting, or not a value of its default's type.
        """
        kinds, changed = {field.name: type(field.default) for field in fields(cls)}, {}
        for setting in settings:
            name, equals, value = setting.partition("=")
            if not equals or name not in kinds:
                raise ValueError(f"a setting is NAME=VALUE with a name out of {', '.join(kinds)}, not {setting!r}")
            changed[name] = _parse(value, kinds[name], name)
        return cls(**changed)


def _parse(value: str, kind: type, name: str):
    if kind is tuple:
        return tuple(part.strip() for part in value.split(",") if part.strip())
    if kind is bool and value.lower() in ("true", "false"):
        return value.lower() == "true"
    try:
        return kind(value) if kind is not bool else {}[value]
    except (ValueError, KeyError):
        raise ValueError(f"{name} is a {kind.__name__}, not {value!r}") from None
