"""Imports Keras, without TensorFlow's start-up chatter, for as little memory as may be; and what backends differ in."""

from __future__ import annotations

import contextlib
import ctypes
import importlib.abc
import os
import re
import sys
import threading
from collections.abc import Callable
from types import ModuleType

# What TensorFlow (its converters) and Keras (tables, plots, notebooks) import where it happens to be installed, for
# parts of theirs that nobody here calls. With all of them it takes twice as long, and 270 MiB.
EXTRAS = ("jax", "scipy", "dill", "pandas", "matplotlib", "sklearn", "IPython")


def import_keras(batches: bool = False) -> ModuleType:
    """The `keras` module; the first import takes seconds, so inference calls this only when it must.

    Args:
        batches: whether many pictures at a time are to come. TensorFlow then computes with oneDNN's kernels, which it
            uses by itself on the newest server processors only. On others, too, batches are painted, judged and
            trained faster by them, but single pictures more slowly (docs/scaling.md). The first import decides;
            `TF_ENABLE_ONEDNN_OPTS` in the environment wins.

    TensorFlow writes some of its start-up notes straight to file descriptor 2, before its log level counts,
    so that descriptor points nowhere during the first import. An import error is still raised.
    """
    if "keras" not in sys.modules:
        os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
        if batches:
            os.environ.setdefault("TF_ENABLE_ONEDNN_OPTS", "1")
        share_arenas()
        with _silent_stderr(), _without_extras():
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


def hand_back(libraries: bool = False) -> None:
    """Give the system what memory is taken, but not in use. Without Linux and glibc nothing is done.

    Args:
        libraries: not only what was freed, and kept by the C library for the next time, but the pages of libraries'
            files, too. Of TensorFlow 350 MiB are read while it is loaded, and 40 when it then runs a model; those come
            back by themselves. Takes some 50 ms.
    """
    with contextlib.suppress(OSError, AttributeError):
        libc = ctypes.CDLL("libc.so.6")
        libc.malloc_trim(0)
        for first, last in _library_pages() if libraries else ():
            libc.madvise(ctypes.c_void_p(first), ctypes.c_size_t(last - first), 4)  # MADV_DONTNEED


def _library_pages() -> list[tuple[int, int]]:
    """Where this process's libraries stand in memory just as in their files, from the first address to the last.

    Others must stay: the tables that are filled in when a library is loaded are copies of which no file knows.
    """
    with open("/proc/self/smaps", encoding="utf-8", errors="replace") as file:
        parts = re.split(r"^(?=[0-9a-f]+-[0-9a-f]+ )", file.read(), flags=re.MULTILINE)
    found = []
    for part in parts:
        library = re.match(r"([0-9a-f]+)-([0-9a-f]+) r-[-x]p .*\.so(\.[.\d]+)?\n", part)
        if library and all(re.search(rf"^{kind}: +0 kB$", part, re.MULTILINE) for kind in ("Anonymous", "Swap")):
            found.append((int(library[1], 16), int(library[2], 16)))
    return found


def with_gradients(function: Callable, *arguments: list) -> tuple:
    """What a function makes of lists of tensors, and how any gradient of it is pulled back to them, on either backend.

    Args:
        function: returns a tensor and what else it has computed.

    Returns:
        Both, and a function from the gradient of that tensor to those of the arguments, lists as they are. It may be
        called several times.
    """
    import keras

    if keras.backend.backend() == "jax":
        import jax

        value, pull_back, more = jax.vjp(function, *arguments, has_aux=True)
        return value, more, pull_back
    import tensorflow as tf

    with tf.GradientTape(persistent=True) as tape:
        tape.watch(arguments)
        value, more = function(*arguments)
    return value, more, lambda upstream: tape.gradient(value, arguments, upstream)


def first_line(error: BaseException) -> str:
    """The first line of an error's text; its type's name where it has none."""
    return (str(error).strip().splitlines() or [type(error).__name__])[0]


class _NoExtras(importlib.abc.MetaPathFinder):
    """Says to the thread that made it, while it imports Keras on TensorFlow, that no `EXTRAS` are installed."""

    def __init__(self):
        self.thread = threading.get_ident()

    def find_spec(self, name, path=None, target=None):
        if name not in EXTRAS or threading.get_ident() != self.thread:
            return
        config = sys.modules.get("keras.src.backend.config")  # other backends need some of them
        if config and config.backend() == "tensorflow":
            raise ModuleNotFoundError(f"{name} is left out here", name=name)


@contextlib.contextmanager
def _without_extras():
    finder = _NoExtras()
    sys.meta_path.insert(0, finder)
    try:
        yield
    finally:
        sys.meta_path.remove(finder)


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
