"""The whole flow, batched: seeds in; pictures, captions and their records out.

What `main()`, the command line and every service call. Nothing here imports a trainer, a data engine or a server.
"""

from __future__ import annotations

import functools
import json
import os
import re
import secrets
import sys
import threading
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from atelier.captioner import Captioner, CaptionerError
from atelier.captioner.hub import is_hub_id
from atelier.captioner.styles import LanguageModel, styled
from atelier.config import CAPTION_STYLES, Config
from atelier.generator.painter import Painter
from atelier.images import enlarge, png_bytes, write_atomically
from atelier.seeds import check_seed, check_style, fresh_seed, latent_from_seed, style_from_seed

PROJECT = Path(__file__).resolve().parent.parent
"""The folder with generator.h5, captioner/ and config.yaml."""

_LOADING = threading.Lock()


def json_line(values: dict[str, Any]) -> str:
    """A JSON object in readable characters; in escaped ones where some (half a surrogate pair) cannot be written."""
    line = json.dumps(values, ensure_ascii=False)
    try:
        line.encode()
    except UnicodeEncodeError:
        line = json.dumps(values)
    return line


class Record(str):
    """A JSON object as text that also answers `record["output"]`: callers use either form."""

    def __new__(cls, values: dict[str, Any]):
        record = super().__new__(cls, json_line(values))
        record.values = values
        return record

    def __getnewargs__(self):
        return (self.values,)

    def __getitem__(self, key):
        return self.values[key] if isinstance(key, str) else super().__getitem__(key)

    def get(self, key: str, default: Any = None) -> Any:
        return self.values.get(key, default)


@dataclass(frozen=True, eq=False)
class Artwork:
    """One picture, what made it, and what the captioner saw in it."""

    image: np.ndarray
    """(H, W, 3) uint8, at the size that is saved."""
    seed: int | str
    style: str
    truncation: float | None
    caption: str | None = None
    confidence: float | None = None
    """Mean log-probability of the caption's tokens (<= 0; nearer to 0 is surer)."""
    alignment: float | None = None
    """How well picture and caption fit: the cosine of their embeddings, in [-1, 1]; `None`: no captioner can say."""
    caption_error: str | None = None
    """Why there is no caption, if there is none."""
    path: Path | None = None
    """Where the picture was saved, if it was."""

    def png(self) -> bytes:
        """The picture as a PNG file that also says what made it."""
        about = {"Software": "Atelier", "Seed": str(self.seed), "Style": self.style, "Truncation": str(self.truncation)}
        return png_bytes(self.image, about)

    def record(self) -> Record:
        """What `main()` returns."""
        values = {
            "output": self.path.as_posix() if self.path else None,
            "caption": self.caption,
            "confidence": self.confidence,
            "alignment": self.alignment,
            "seed": self.seed,
            "style": self.style,
            "truncation": self.truncation,
            "width": self.image.shape[1],
            "height": self.image.shape[0],
        }
        if self.caption_error:
            values["caption_error"] = self.caption_error
        return Record(values)


class Studio:
    """A painter and a captioner at work together.

    Args:
        painter: paints latents.
        captioner: a callable that returns the captioner; asked for when the first picture is there, and again
            at the next call if it failed.
        truncation, scale, num_beams, caption_style, caption_candidates: as in `Config`.
        language_model: what styles captions in place of `captioner.styles`, if anything.
    """

    def __init__(
        self,
        painter: Painter,
        captioner,
        truncation: float | None = 1.5,
        scale: int = 2,
        num_beams: int = 3,
        caption_style: str = "plain",
        caption_candidates: int = 1,
        language_model: LanguageModel | None = None,
    ):
        self.painter, self._captioner = painter, captioner
        self.truncation, self.scale, self.num_beams = truncation, scale, num_beams
        self.caption_style, self.caption_candidates = caption_style, caption_candidates
        self.language_model = language_model

    @classmethod
    def open(cls, config: Config | None = None, home: Path = PROJECT) -> Studio:
        """A studio by its configuration; the models are loaded once in a process, whatever the other settings.

        Args:
            config: defaults to `Config()`.
            home: the folder at which the configuration's relative model paths start.

        Raises:
            PainterError: the generator cannot be loaded. (A captioner that cannot is told by each artwork.)
        """
        config = config or Config()
        painter = _painter(home / config.generator)
        # A folder beside the configuration, or else by its name from the hub.
        folder = home / config.captioner
        source = config.captioner if is_hub_id(config.captioner) and not folder.is_dir() else folder
        captioner = functools.partial(_captioner_once, source, config.captioner_fallback)
        llm = None
        if config.caption_llm:
            llm = LanguageModel(config.caption_llm, config.caption_llm_model, config.caption_llm_timeout)
        manner = (config.caption_style, config.caption_candidates, llm)
        return cls(painter, captioner, config.truncation, config.scale, config.num_beams, *manner)

    def create(
        self,
        seeds: Sequence[int | str | None],
        style: str | Sequence[str | None] | None = None,
        folder: str | Path | None = None,
        caption_style: Sequence[str | None] | None = None,
    ) -> list[Artwork]:
        """Make one artwork for each seed: paint, save (if a folder is given), then caption.

        Args:
            seeds: as `check_seed` allows; `None` draws a fresh one.
            style: one of `STYLES` for all, or one for each seed; `None` lets the seed choose.
            folder: where the PNG files go; their names are never used twice.
            caption_style: one of `config.CAPTION_STYLES` for each seed; `None`: the studio's own.

        Returns:
            the artworks in the order of the seeds. A captioner that fails leaves `caption=None` and the reason.

        Raises:
            ValueError: a bad seed, style or caption style; nothing is painted or written then.
            OSError: the folder cannot be written.
        """
        return self.create_beside([], seeds, style, folder, caption_style)[0]

    def create_beside(
        self,
        pictures: Sequence[np.ndarray],
        seeds: Sequence[int | str | None],
        style: str | Sequence[str | None] | None = None,
        folder: str | Path | None = None,
        caption_style: Sequence[str | None] | None = None,
    ) -> tuple[list[Artwork], list[tuple[str | None, float | None, str | None]]]:
        """`create`, and `captions` of (H, W, 3) uint8 pictures, in one batch of the captioner's.

        One that is half full costs nearly as much as a full one.

        Returns:
            what `create` returns, and what `captions` does.
        """
        if isinstance(seeds, str) or not isinstance(seeds, Iterable):
            raise ValueError(f"expected a list of seeds, not {seeds!r}")  # a text would be a list of letters
        seeds = [fresh_seed() if seed is None else check_seed(seed) for seed in seeds]
        wished = list(style) if isinstance(style, (list, tuple)) else [style] * len(seeds)
        if len(wished) != len(seeds):
            raise ValueError(f"one style for all or one for each seed, not {len(wished)} styles for {len(seeds)} seeds")
        manners = [manner or self.caption_style for manner in caption_style or [None] * len(seeds)]
        if len(manners) != len(seeds) or set(manners) - set(CAPTION_STYLES):
            raise ValueError(f"for each seed one caption style ({', '.join(CAPTION_STYLES)}), not {caption_style!r}")
        styles = [style_from_seed(seed) if s is None else check_style(s) for seed, s in zip(seeds, wished, strict=True)]
        if not seeds:
            return [], self.captions(pictures)
        if folder is not None:
            _check_folder(Path(folder))  # before anything is spent

        latents = np.stack([latent_from_seed(seed, self.painter.latent_dim, self.truncation) for seed in seeds])
        painted = self.painter.paint(latents, styles)
        artworks = [
            Artwork(enlarge(image, self.scale), seed, style, self.truncation)
            for image, seed, style in zip(painted, seeds, styles, strict=True)
        ]
        if folder is not None:
            # Saved before anything is captioned: a captioner that fails, however badly, never loses a picture.
            artworks = [replace(artwork, path=_save(artwork, Path(folder))) for artwork in artworks]
        said = self._describe(
            [*painted, *pictures],
            [*styles, *[None] * len(pictures)],
            [*manners, *[self.caption_style] * len(pictures)],
        )
        artworks = [replace(artwork, **about) for artwork, about in zip(artworks, said, strict=False)]
        return artworks, _told(said[len(artworks) :])

    def captions(self, images: Sequence[np.ndarray]) -> list[tuple[str | None, float | None, str | None]]:
        """Caption (H, W, 3) uint8 pictures: (caption, confidence, None) for each, or (None, None, reason) for all.

        Nothing is raised: a captioner that fails must not cost anybody a picture.
        """
        return _told(self._describe(images, [None] * len(images), [self.caption_style] * len(images)))

    def _describe(
        self, images: Sequence[np.ndarray], styles: Sequence[str | None], manners: Sequence[str]
    ) -> list[dict[str, Any]]:
        """What an `Artwork` says of its caption, for each picture; where the captioner fails, why."""
        if not len(images):
            return []
        try:
            search = {"num_beams": self.num_beams, "candidates": self.caption_candidates}
            captions = self._captioner().caption(list(images), **search)
            return [
                {"caption": self._say(each.text, *about), "confidence": each.confidence, "alignment": each.alignment}
                for each, *about in zip(captions, images, styles, manners, strict=True)
            ]
        except Exception as error:
            return [{"caption_error": f"{type(error).__name__}: {error}"}] * len(images)

    def _say(self, caption: str, image: np.ndarray, style: str | None, manner: str) -> str:
        if manner != "plain" and self.language_model:
            return self.language_model.styled(caption, manner)
        return styled(caption, manner, image, style)


def _told(said: list[dict[str, Any]]) -> list[tuple[str | None, float | None, str | None]]:
    return [(each.get("caption"), each.get("confidence"), each.get("caption_error")) for each in said]


def _check_folder(folder: Path) -> None:
    try:
        folder.mkdir(parents=True, exist_ok=True)
        if not os.access(folder, os.W_OK | os.X_OK):
            raise PermissionError("permission denied")
    except OSError as error:
        raise OSError(f"cannot write pictures to {folder}: {error.strerror or error}") from error


def _save(artwork: Artwork, folder: Path) -> Path:
    # The seed so that people find it, the random end so that no two calls or processes ever share a name.
    readable = re.sub(r"[^A-Za-z0-9]+", "-", str(artwork.seed)).strip("-")[:40]
    path = folder / f"{artwork.style}-{readable}-{secrets.token_hex(5)}.png"
    write_atomically(path, artwork.png())
    return path


@functools.lru_cache(maxsize=4)
def _painter(path: Path) -> Painter:
    return Painter.load(path)


def _captioner_once(source: str | Path, fallback: bool) -> Captioner:
    with _LOADING:  # threads that ask at the same time would each load their own
        return _captioner(source, fallback)


@functools.lru_cache(maxsize=4)
def _captioner(source: str | Path, fallback: bool) -> Captioner:
    try:
        return Captioner.load(source)
    except CaptionerError as error:
        if not fallback or source == PROJECT / "captioner":
            raise
        print(f"atelier: {error}; the shipped captioner is used instead", file=sys.stderr)
        return Captioner.load(PROJECT / "captioner")
