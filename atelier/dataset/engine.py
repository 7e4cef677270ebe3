"""The data engine: Daft, on this machine's cores or on a Ray cluster. The one place that imports it."""

from __future__ import annotations

import contextlib
import logging
import os
import sys
from collections.abc import Iterator, Sequence
from types import ModuleType

from atelier.backend import first_line

WORKERS = max(1, len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1)
"""Processors that this process may use."""


class EngineError(ValueError):
    """The engine is not installed, or its cluster is not there."""


def engine() -> ModuleType:
    """The `daft` module, with its telemetry, its progress bars and its log off.

    Raises:
        EngineError: it is not installed.
    """
    os.environ.setdefault("DO_NOT_TRACK", "1")
    os.environ.setdefault("DAFT_ANALYTICS_ENABLED", "0")
    os.environ.setdefault("DAFT_PROGRESS_BAR", "0")
    logging.getLogger("daft_local_execution").setLevel(logging.CRITICAL)  # it tells what the engine raises as well
    try:
        import daft
    except ImportError:
        raise EngineError("preparing a data set needs Daft: pip install -r extras/prepare.txt") from None
    return daft


def choose_runner(runner: str, address: str | None = None) -> None:
    """Run what follows on `"local"` processes or on `"ray"`, at `address` or on a cluster started here.

    Raises:
        EngineError: no such runner, Ray is not installed, or no cluster answers.
    """
    daft = engine()
    if runner not in ("local", "ray"):
        raise EngineError(f"a runner is local or ray, not {runner!r}")
    if runner == "local":
        if address:
            raise EngineError("--address names a Ray cluster: add --runner ray")
        return
    try:
        import ray
    except ImportError:
        raise EngineError("the Ray runner needs Ray: pip install ray") from None
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    try:
        if not ray.is_initialized():
            ray.init(address=address, log_to_driver=False, logging_level="ERROR", include_dashboard=False)
        daft.set_runner_ray(noop_if_initialized=True)
    except Exception as error:
        raise EngineError(f"no Ray cluster at {address or 'this machine'}: {first_line(error)}") from error


def map_shards(kind: type, arguments: Sequence, shards: Sequence[int], workers: int) -> Iterator[str]:
    """Do `kind(*arguments)(shard)` for every shard, on the runner's workers; yields the answers as they come.

    Each worker is a process of its own that makes one object of the class and keeps it, so that a network
    is loaded once. A shard's work leaves its result in a file; through the engine pass its number and a short answer.

    Args:
        kind: a class whose objects are called with a shard's number and return text.
        arguments: for the class; they must pickle.
        shards: the numbers of the shards.
        workers: processes at most.
    """
    daft = engine()
    if not shards:
        return

    class Worker:
        def __init__(self, arguments: Sequence):
            self.work = kind(*arguments)

        @daft.method.batch(return_dtype=daft.DataType.string(), batch_size=1)
        def run(self, numbers):
            return [self.work(number) for number in numbers.to_pylist()]

    worker = daft.cls(Worker, max_concurrency=min(workers, len(shards)), use_process=True)(arguments)
    frame = daft.from_pydict({"shard": list(shards)})
    if daft.get_or_infer_runner_type() == "ray":  # what a machine of the cluster is given at a time
        frame = frame.into_partitions(len(shards))
    for row in frame.select(worker.run(daft.col("shard")).alias("answer")).iter_rows(results_buffer_size=None):
        yield row["answer"]


@contextlib.contextmanager
def stdout_to_stderr() -> Iterator[None]:
    """Send what is written to standard output, by whatever part of this process, to standard error meanwhile.

    The engine passes on what workers print, and not through Python's `sys.stdout`.
    """
    sys.stdout.flush()
    try:
        kept = os.dup(1)
    except OSError:  # no standard output at all
        yield
        return
    os.dup2(2, 1)
    try:
        yield
    finally:
        sys.stdout.flush()
        os.dup2(kept, 1)
        os.close(kept)
