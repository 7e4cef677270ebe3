"""Keras is imported in silence, standard error is as it was afterwards, and errors are told in one line."""

import os
import sys

import pytest

from atelier.backend import _silent_stderr, first_line, import_keras


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


@pytest.mark.parametrize(
    ("error", "line"),
    [(OSError("no such host"), "no such host"), (ValueError("\n one \ntwo"), "one "), (TimeoutError(), "TimeoutError")],
)
def test_an_error_is_told_in_one_line_even_without_a_text(error, line):
    assert first_line(error) == line
