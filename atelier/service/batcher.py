"""Many requests, few batches: what waits for the models is computed together, by one thread or a few.

Knows nothing of pictures or HTTP.
"""

from __future__ import annotations

import bisect
import logging
import threading
import time
from collections import deque
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import Future
from dataclasses import dataclass, field
from typing import Any

log = logging.getLogger("atelier.service")


class Full(Exception):
    """Too much is waiting; later there may be room."""


class Closed(Exception):
    """The batcher takes nothing more: the service stops, or what it needs could not be loaded."""


@dataclass(eq=False)
class _Job:
    kind: str
    items: Sequence
    due: float
    """Of those that wait the one that is due first is begun first."""
    future: Future = field(default_factory=Future)


class Batcher:
    """Gathers jobs of a kind into batches and runs them in threads of its own.

    Args:
        work: for each kind, a function of a list of items that yields (place, result) for each of them, in any order.
            A job has its results as soon as its own items have theirs.
        prepare: is called in the first thread before anything else, to load and warm up; until it has returned jobs
            wait.
        threads: batches that run at the same time.
        max_batch: items in a batch; a larger job is a batch of its own.
        max_waiting: items that may wait.
        window: seconds that the first job of a batch waits for others.
        watch: is told (kind, items, seconds) of every batch that was computed, before its last job has its results.
    """

    def __init__(
        self,
        work: dict[str, Callable[[list], Iterable[tuple[int, Any]]]],
        *,
        prepare: Callable[[], None] = lambda: None,
        threads: int = 1,
        max_batch: int = 32,
        max_waiting: int = 256,
        window: float = 0.01,
        watch: Callable[[str, list, float], None] = lambda *_: None,
    ):
        self._work, self._prepare, self._watch = work, prepare, watch
        self._max_batch, self._max_waiting, self._window = max_batch, max_waiting, window
        self._jobs: deque[_Job] = deque()
        self._change = threading.Condition()
        self._closing = False
        self._wanted_threads, self._threads = threads, []
        self.ready = False
        """Whether jobs are begun at once: prepared, and not closing."""
        self.failure: str | None = None
        """Why `prepare` failed, if it did."""

    @property
    def waiting(self) -> int:
        """Items that wait."""
        with self._change:
            return self._waiting()

    def _waiting(self) -> int:
        return sum(len(job.items) for job in self._jobs)

    def start(self) -> None:
        """Start the threads, unless they run already."""
        with self._change:
            if not self._threads:
                self._start_thread(self._run)

    def _start_thread(self, target: Callable[[], None]) -> None:
        thread = threading.Thread(target=target, name=f"atelier-models-{len(self._threads)}", daemon=True)
        self._threads.append(thread)
        thread.start()

    def submit(self, kind: str, items: Sequence, patience: float = 0.0) -> Future:
        """Have items computed; the future gives their results in order.

        Cancelling the future takes the job out of the queue if it has not begun.

        Args:
            patience: seconds; jobs that come by so much later, and have none, are begun before this one.

        Raises:
            Full: more than `max_waiting` items would wait.
            Closed: after `close`, or if `prepare` failed.
        """
        self.start()
        job = _Job(kind, list(items), time.monotonic() + patience)
        if not job.items:
            job.future.set_result([])
            return job.future
        with self._change:
            if self._closing or self.failure:
                raise Closed
            if self._jobs and self._waiting() + len(job.items) > self._max_waiting:
                self._forget_cancelled()
                if self._waiting() + len(job.items) > self._max_waiting:
                    raise Full
            bisect.insort(self._jobs, job, key=lambda job: job.due)
            self._change.notify()
        return job.future

    def close(self, timeout: float | None = None) -> None:
        """Take nothing more, finish what was accepted, and end the threads."""
        with self._change:
            self._closing, self.ready = True, False
            self._change.notify_all()
        for thread in self._threads:  # the first one starts the others before it ends
            thread.join(timeout)

    def _run(self) -> None:
        try:
            self._prepare()
        except Exception as error:
            log.exception("the models cannot be loaded")
            with self._change:
                self.failure = f"{type(error).__name__}: {error}"
                jobs, self._jobs = self._jobs, deque()
            for job in jobs:
                if job.future.set_running_or_notify_cancel():
                    job.future.set_exception(Closed())
            return
        with self._change:
            for _ in range(self._wanted_threads - 1):
                self._start_thread(self._work_off)
            self.ready = not self._closing
        self._work_off()

    def _work_off(self) -> None:
        while batch := self._next_batch():
            self._compute(batch)

    def _next_batch(self) -> list[_Job]:
        """The jobs to compute next, begun; none when closed and nothing is left."""
        with self._change:
            while True:
                self._forget_cancelled()
                if self._jobs:
                    break
                if self._closing:
                    return []
                self._change.wait()
            kind = self._jobs[0].kind  # what is due first decides, so that neither kind starves
            until = time.monotonic() + self._window
            while self._count(kind) < self._max_batch and not self._closing:
                if (left := until - time.monotonic()) <= 0:
                    break
                self._change.wait(left)
            batch, count, rest = [], 0, deque()
            for job in self._jobs:
                fits = job.kind == kind and (not batch or count + len(job.items) <= self._max_batch)
                if not fits:
                    rest.append(job)
                elif job.future.set_running_or_notify_cancel():  # from here on it cannot be cancelled
                    batch.append(job)
                    count += len(job.items)
            self._jobs = rest
        return batch or self._next_batch()

    def _count(self, kind: str) -> int:
        return sum(len(job.items) for job in self._jobs if job.kind == kind)

    def _forget_cancelled(self) -> None:
        self._jobs = deque(job for job in self._jobs if not job.future.cancelled())

    def _compute(self, batch: list[_Job]) -> None:
        kind, items = batch[0].kind, [item for job in batch for item in job.items]
        owners, results = [job for job in batch for _ in job.items], [None] * len(items)
        missing, began = {job: len(job.items) for job in batch}, time.monotonic()
        try:
            for place, result in self._work[kind](items):
                job = owners[place]
                results[place] = result
                missing[job] -= 1
                if not any(missing.values()):
                    self._watch(kind, items, time.monotonic() - began)
                if not missing[job]:
                    first = owners.index(job)
                    job.future.set_result(results[first : first + len(job.items)])
            if any(missing.values()):
                raise RuntimeError(f"{sum(missing.values())} of {len(items)} results are missing")
        except Exception as error:
            failed = [job for job, count in missing.items() if count]
            if len(batch) > 1:  # so that one bad job does not spoil those it happened to be computed with
                for job in failed:
                    self._compute([job])
            else:
                log.exception("a %s job failed", kind)
                for job in failed:
                    job.future.set_exception(error)
