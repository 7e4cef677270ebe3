"""Imports Keras, without TensorFlow's start-up chatter, and for as little memory as may be."""

from __future__ import annotations

import contextlib
import ctypes
import os
import sys
from types import ModuleType


def import_keras() -> ModuleType:
    """The `keras` module; the first import takes seconds, so inference calls this only when it must.

    TensorFlow writes some of its start-up notes straight to file descriptor 2, before its log level counts,
    so that descriptor points nowhere during the first import. An import error is still raised.
    """
    if "keras" not in sys.modules:
        os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
        share_arenas()
        with _silent_stderr():
            import keras  # noqa: F401
    return sys.modules["keras"]


def cores() -> int:
    """How many this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def share_arenas() -> None:
    """Let threads share the C library's memory arenas, one a core, unless `MALLOC_ARENA_MAX` says otherwise.

    glibc makes up to eight a core, and each keeps what was freed in it: a tenth of all the memory that we take.
    Where there is no glibc nothing is done.
    """
    if "MALLOC_ARENA_MAX" not in os.environ:
        with contextlib.suppress(OSError, AttributeError):
            ctypes.CDLL("libc.so.6").mallopt(-8, cores())  # M_ARENA_MAX


def first_line(error: BaseException) -> str:
    """The first line of an error's text; its type's name where it has none."""
    return (str(error).strip().splitlines() or [type(error).__name__])[0]


@contextlib.contextmanager
def _silent_stderr():
    try:
        sys.stderr.flush()
        kept = os.dup(2)
    except (OSError, AttributeError):  # no standard error at all (a windowed program): nothing to silence
        yield
        return
    nowhere = os.open(os.devnull, os.O_WRONLY)
    try:
        os.dup2(nowhere, 2)
        yield
    finally:
        os.dup2(kept, 2)
        os.close(kept)
        os.close(nowhere)
