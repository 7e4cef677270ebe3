"""Keras is imported in silence, standard error is as it was afterwards, and errors are told in one line."""

import os
import platform
import subprocess
import sys

import pytest

from atelier.backend import _silent_stderr, first_line, import_keras
from tests.conftest import REPOSITORY


def test_keras_is_keras():
    import keras

    assert import_keras() is keras


def test_what_is_written_meanwhile_is_lost_and_what_is_written_later_is_not(capfd):
    with pytest.raises(ImportError), _silent_stderr():
        os.write(2, b"chatter\n")
        raise ImportError("no Keras here")
    os.write(2, b"later\n")
    assert capfd.readouterr().err == "later\n"


def test_a_program_without_standard_error_can_import(monkeypatch):
    monkeypatch.setattr(sys, "stderr", None)
    with _silent_stderr():
        pass


ARENAS = """
import ctypes, os, sys, threading
from atelier.backend import cores, share_arenas
os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[:2])
share_arenas()
libc, together = ctypes.CDLL("libc.so.6"), threading.Barrier(12)
def take():
    together.wait()  # all are there at once, so none gets the arena of one that has ended
    libc.malloc(100_000)
    together.wait()
threads = [threading.Thread(target=take) for _ in range(12)]
for thread in threads: thread.start()
for thread in threads: thread.join()
libc.malloc_stats()
print(cores())
"""


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="another C library")
@pytest.mark.parametrize("limit", [None, "8"])
def test_threads_share_the_memory_arenas(limit):
    environment = {name: value for name, value in os.environ.items() if name != "MALLOC_ARENA_MAX"}
    environment |= {"MALLOC_ARENA_MAX": limit} if limit else {}
    command = [sys.executable, "-c", ARENAS]
    done = subprocess.run(command, capture_output=True, text=True, check=True, env=environment, cwd=REPOSITORY)
    arenas = done.stderr.count("Arena ")
    assert arenas == 8 if limit else 1 <= arenas <= int(done.stdout)


@pytest.mark.parametrize(
    ("error", "line"),
    [(OSError("no such host"), "no such host"), (ValueError("\n one \ntwo"), "one "), (TimeoutError(), "TimeoutError")],
)
def test_an_error_is_told_in_one_line_even_without_a_text(error, line):
    assert first_line(error) == line
