"""What whoever runs the service may decide, with defaults that are safe on a small machine."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from pathlib import Path

from atelier.config import ConfigError
from atelier.studio import PROJECT


@dataclass(frozen=True)
class Settings:
    """Limits and switches of the service.

    Raises:
        ConfigError: on construction, for a number that is out of range.
    """

    data: Path = Path("outputs/service")
    """The folder of the artworks and their index; one process at a time uses it."""
    detector: Path = PROJECT / "detector.h5"
    """What answers `POST /v1/detections`; it is loaded with the first of them."""
    api_key: str | None = field(default=None, repr=False)
    """What clients must send as `X-API-Key`; `None` asks for nothing."""
    listing: bool = True
    """Whether `GET /v1/artworks` tells everybody's artworks, seeds that visitors typed included."""
    max_artworks: int = 10_000
    """The oldest beyond so many are deleted."""
    max_age_days: float = 30.0
    """Older ones are deleted."""
    max_count: int = 16
    """Artworks in one request."""
    max_batch: int = 8
    """Pictures that the models see at a time. The captioner searches one or eight together: nine cost a turn more."""
    model_threads: int = 2
    """Batches that are computed at the same time: the small steps of a caption do not keep two cores busy by one."""
    batch_window: float = 0.01
    """Seconds that the first request of a batch waits for others."""
    max_waiting: int = 256
    """Pictures waiting for the models; a request beyond them is answered 503."""
    max_body_bytes: int = 10 * 2**20
    """Of a request, an uploaded picture included."""
    body_seconds: float = 20.0
    """In which a request's body must have arrived."""
    work_seconds: float = 60.0
    """That a request waits for the models."""
    max_pixels: int = 50_000_000
    """Of an uploaded picture (its width times its height)."""
    frame_ancestors: str = "'self'"
    """Who may show the pages in a frame, as Content-Security-Policy says it."""

    def __post_init__(self):
        for each in fields(self):
            value = getattr(self, each.name)
            if isinstance(value, (int, float)) and not isinstance(value, bool) and not value > 0:
                raise ConfigError(f"{each.name} is a number above 0, not {value!r}")
        if self.api_key is not None and not (self.api_key.isascii() and self.api_key.strip() == self.api_key != ""):
            raise ConfigError("api_key is ASCII text without spaces around it")
        if any(sign in self.frame_ancestors for sign in ";,\r\n"):
            raise ConfigError(f"frame_ancestors are addresses with spaces between them, not {self.frame_ancestors!r}")

    @classmethod
    def from_environment(cls, environment: Mapping[str, str] = os.environ, **given) -> Settings:
        """Settings out of `ATELIER_DATA`, `ATELIER_API_KEY`, `ATELIER_MAX_ARTWORKS` and so on.

        Args:
            environment: names to texts.
            given: settings that count more than the environment's.

        Raises:
            ConfigError: a text that is not of its setting's kind; the message names the variable.
        """
        read = {"Path": Path, "str | None": str, "str": str, "int": int, "float": float, "bool": _switch}
        for each in fields(cls):
            variable = f"ATELIER_{each.name.upper()}"
            text = environment.get(variable, "")
            if text and each.name not in given:
                try:
                    given[each.name] = read[each.type](text)
                except ValueError as error:
                    raise ConfigError(f"{variable}: expected {each.type}, not {text!r}") from error
        return cls(**given)


def _switch(text: str) -> bool:
    known = {"1": True, "true": True, "yes": True, "on": True, "0": False, "false": False, "no": False, "off": False}
    if text.lower() not in known:
        raise ValueError(text)
    return known[text.lower()]
