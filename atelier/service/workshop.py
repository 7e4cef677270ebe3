"""The models and the store behind the routes: a few threads paint, caption, judge and save, for everybody."""

from __future__ import annotations

import asyncio
import base64
import contextlib
import logging
import threading
from collections.abc import Callable, Iterator, Sequence
from typing import Any, NamedTuple

import numpy as np
from PIL import Image

from atelier.detector import Detector, Verdict
from atelier.seeds import STYLES
from atelier.service.batcher import Batcher, Closed, Full
from atelier.service.metrics import Metrics
from atelier.service.problems import Busy
from atelier.service.settings import Settings
from atelier.service.store import Store
from atelier.service.uploads import read_upload
from atelier.studio import Studio

log = logging.getLogger("atelier.service")

PATIENCE = 0.16
"""Seconds that an artwork waits longer than an upload where many wait: alone it takes longer, too, and whoever uploads
a picture should not feel the crowd more than whoever has one painted. With 0.24, artworks that many uploads
overtake wait for a batch more."""


class _Wish(NamedTuple):
    """An artwork to make."""

    seed: int | str
    style: str | None
    caption_style: str | None


class Workshop:
    """What the API and the demo ask for artworks, captions and detections.

    Args:
        studio: the studio, or what opens it; called in the first of the models' threads.
        settings: limits, and where artworks are kept.

    Raises:
        OSError: the data folder cannot be used.
    """

    def __init__(self, studio: Studio | Callable[[], Studio], settings: Settings):
        self.settings, self.metrics = settings, Metrics()
        self.store = Store(settings.data, settings.max_artworks, settings.max_age_days * 86_400)
        self._open = studio if callable(studio) else lambda: studio
        self._studio: Studio | None = None
        self._detector: Detector | None = None
        self._loading = threading.Lock()
        self._decoding = asyncio.Semaphore(2)  # a picture of 50 million pixels takes 150 MB
        self._batch_seconds = 1.0
        self.batcher = Batcher(
            {"captioned": self._make_and_caption, "detections": self._detect},
            prepare=self._warm_up,
            threads=settings.model_threads,
            max_batch=settings.max_batch,
            max_waiting=settings.max_waiting,
            window=settings.batch_window,
            watch=self._watch,
        )
        self.metrics.waiting.set_function(lambda: self.batcher.waiting)
        self.metrics.ready.set_function(lambda: self.batcher.ready)
        self.metrics.artworks.set_function(lambda: len(self.store))

    def start(self) -> None:
        """Load and warm up the models in their thread; without it the first request does."""
        self.batcher.start()

    def close(self) -> None:
        """Finish what was accepted, then let go of the data folder."""
        self.batcher.close()
        self.store.close()

    async def make(
        self,
        seeds: Sequence[int | str],
        style: str | None,
        caption_style: str | None = None,
        with_picture: bool = False,
    ) -> list[dict[str, Any]]:
        """Make and keep one artwork for each seed.

        Args:
            seeds: that `check_seed` has passed.
            style: one of `STYLES`, or `None`: each seed chooses.
            caption_style: one of `config.CAPTION_STYLES`, or `None`: as the configuration says.
            with_picture: put the PNG file into the record, too, as `image_base64`.

        Returns:
            their records, as `Store.add` tells them.

        Raises:
            Busy: no room, or no result in time.
        """
        wishes = [_Wish(seed, style, caption_style) for seed in seeds]
        made = await self._wait("captioned", wishes, PATIENCE)
        if not with_picture:
            return [record for record, _ in made]
        return [record | {"image_base64": base64.b64encode(png).decode()} for record, png in made]

    async def describe(self, data: bytes) -> tuple[Image.Image, dict[str, Any]]:
        """Caption an uploaded picture file.

        Returns:
            the picture as `read_upload` gives it, and its `caption` and `confidence`.

        Raises:
            NotAPicture, TooManyPixels: as `read_upload`.
            Busy: no room, no result in time, or the captioner fails.
        """
        picture = await self._read(data)
        ((caption, confidence, error),) = await self._wait("captioned", [picture])
        if error:
            raise Busy("the captioner fails at the moment", 30)
        return picture, {"caption": caption, "confidence": confidence}

    async def detect(self, data: bytes) -> tuple[Image.Image, dict[str, Any]]:
        """Say whether a machine made an uploaded picture file.

        Returns:
            the picture as `read_upload` gives it, and its `ai_probability` and `verdict`.

        Raises:
            NotAPicture, TooManyPixels: as `read_upload`.
            Busy: no room, no result in time, or the detector fails.
        """
        picture = await self._read(data)
        (found,) = await self._wait("detections", [picture])
        if found is None:
            raise Busy("the detector fails at the moment", 30)
        return picture, {"ai_probability": found.ai_probability, "verdict": found.verdict}

    async def _read(self, data: bytes) -> Image.Image:
        async with self._decoding:
            return await asyncio.to_thread(read_upload, data, self.settings.max_pixels)

    async def _wait(self, kind: str, items: list, patience: float = 0.0) -> list:
        try:
            future = self.batcher.submit(kind, items, patience)
        except Full:
            raise Busy("too many pictures are waiting; please try again", self._retry_after()) from None
        except Closed:
            raise Busy("the service is stopping, or its models could not be loaded", 30) from None
        try:
            return await asyncio.wait_for(asyncio.wrap_future(future), self.settings.work_seconds)
        except TimeoutError:  # which cancels the job, too
            raise Busy("the models were too busy; please try again", self._retry_after()) from None
        except Closed:
            raise Busy("the models could not be loaded", 30) from None

    def _retry_after(self) -> float:
        """Seconds until about half of what waits is done."""
        return self.batcher.waiting / self.settings.max_batch * self._batch_seconds / 2

    # What follows runs in the models' threads.

    def _warm_up(self) -> None:
        studio = self._open()
        # The models compile for a few sizes of a batch: better now than while somebody waits.
        for count in (1, self.settings.max_batch):
            artworks = studio.create([0] * count, STYLES[0])
        if artworks[0].caption_error:
            log.warning("there will be no captions: %s", artworks[0].caption_error)
        self._studio = studio

    def _make_and_caption(self, items: list[_Wish | Image.Image]) -> Iterator[tuple[int, tuple]]:
        """The place of each item, and what `Store.add` says of a wish, or `Studio.captions` of an upload."""
        size = self.settings.max_batch
        for start in range(0, len(items), size):  # one request may want more than a batch
            for place, said in self._batch(items[start : start + size]):
                yield start + place, said

    def _batch(self, items: list[_Wish | Image.Image]) -> Iterator[tuple[int, tuple]]:
        wishes = {place: item for place, item in enumerate(items) if isinstance(item, _Wish)}
        pictures = {place: np.asarray(item) for place, item in enumerate(items) if place not in wishes}
        seeds, styles, manners = ([getattr(wish, name) for wish in wishes.values()] for name in _Wish._fields)
        artworks, described = self._studio.create_beside(list(pictures.values()), seeds, styles, caption_style=manners)
        for place, said in zip(pictures, described, strict=True):  # at once: artworks have to be saved first
            if said[2]:
                log.warning("no caption for an upload: %s", said[2])
            yield place, said
        added = self.store.add(artworks) if artworks else []
        for place, (record, png) in zip(wishes, added, strict=True):
            if reason := record.get("caption_error"):
                log.warning("no caption for %s: %s", record["id"], reason)
            yield place, (record, png)

    def _detect(self, pictures: list[Image.Image]) -> Iterator[tuple[int, Verdict | None]]:
        try:
            with self._loading:
                if self._detector is None:  # few visitors ask for it, so that none waits for it at the start
                    self._detector = Detector.load(self.settings.detector)
            found = self._detector.detect(pictures)
        except Exception:  # as the captioner's failures, told in the log and not to strangers
            log.exception("no detection")
            found = [None] * len(pictures)
        yield from enumerate(found)

    def _watch(self, kind: str, items: list, seconds: float) -> None:
        self._batch_seconds = seconds
        with contextlib.suppress(Exception):  # a metric must never cost a picture
            wishes = sum(isinstance(item, _Wish) for item in items)
            uploads = "detections" if kind == "detections" else "captions"
            self.metrics.watch_batch(kind, {"artworks": wishes, uploads: len(items) - wishes}, seconds)
