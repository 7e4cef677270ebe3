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


EXTRAS_LEFT_OUT = """
import sys
from atelier.backend import EXTRAS, import_keras
import_keras()
finders = [one for one in sys.meta_path if type(one).__module__ == "atelier.backend"]
print(sorted(set(EXTRAS) & set(sys.modules)), finders)
import matplotlib
print(matplotlib.__name__)
"""


def test_extras_are_left_out_of_the_import_only():
    command = [sys.executable, "-c", EXTRAS_LEFT_OUT]
    environment = os.environ | {"KERAS_BACKEND": "tensorflow"}
    done = subprocess.run(command, capture_output=True, text=True, check=True, env=environment, cwd=REPOSITORY)
    assert done.stdout.splitlines() == ["[] []", "matplotlib"]


def test_extras_that_were_there_before_stay():
    code = "import matplotlib; from atelier.backend import import_keras; import_keras(); import matplotlib.pyplot"
    subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, cwd=REPOSITORY)


HANDED_BACK = r"""
import re, sys
import numpy as np
from atelier.backend import hand_back, import_keras
def resident(kind):
    return int(re.search(rf"{kind}:\s+(\d+) kB", open("/proc/self/status").read())[1]) // 1024
keras = import_keras()
model = keras.Sequential([keras.layers.Input((64, 64, 3)), keras.layers.Conv2D(8, 3)])
x = np.ones((1, 64, 64, 3), "float32")
first, before = model.predict_on_batch(x), resident("RssFile")
hand_back(libraries=True)
after = resident("RssFile")
assert np.array_equal(model.predict_on_batch(x), first)
print(before, after)
"""


@pytest.mark.skipif(
    platform.libc_ver()[0] != "glibc" or not os.path.exists("/proc/self/smaps"), reason="no such system"
)
def test_pages_of_libraries_are_handed_back_and_come_again():
    done = subprocess.run(
        [sys.executable, "-c", HANDED_BACK], capture_output=True, text=True, check=True, cwd=REPOSITORY
    )
    before, after = map(int, done.stdout.split())
    assert after < before / 2


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


@pytest.mark.skipif(platform.system() != "Linux" or platform.machine() != "x86_64", reason="no oneDNN in TensorFlow")
@pytest.mark.parametrize(("batches", "wish", "expected"), [(True, None, "1"), (True, "0", "0"), (False, None, "")])
def test_for_batches_tensorflow_computes_with_onednn_unless_it_is_told_not_to(batches, wish, expected):
    environment = {name: value for name, value in os.environ.items() if name != "TF_ENABLE_ONEDNN_OPTS"}
    environment |= {"TF_ENABLE_ONEDNN_OPTS": wish, "ONEDNN_VERBOSE": "1"} if wish else {"ONEDNN_VERBOSE": "1"}
    code = f"""
import os
import numpy as np
from atelier.backend import import_keras
keras = import_keras({batches})
keras.layers.Conv2D(8, 3)(np.ones((1, 16, 16, 8), np.float32))
print("asked:", os.environ.get("TF_ENABLE_ONEDNN_OPTS", ""))
"""
    command = [sys.executable, "-c", code]
    done = subprocess.run(command, capture_output=True, text=True, check=True, env=environment, cwd=REPOSITORY)
    assert f"asked: {expected}\n" in done.stdout
    if expected:  # without a wish the processor decides
        assert ("convolution" in done.stdout) == (expected == "1")  # oneDNN's own log names its kernels


@pytest.mark.parametrize(
    ("error", "line"),
    [(OSError("no such host"), "no such host"), (ValueError("\n one \ntwo"), "one "), (TimeoutError(), "TimeoutError")],
)
def test_an_error_is_told_in_one_line_even_without_a_text(error, line):
    assert first_line(error) == line
