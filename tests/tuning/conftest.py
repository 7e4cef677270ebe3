"""A search whose trials cost nothing: what a toy training would report."""

from pathlib import Path

import pytest

from atelier.tuning.spaces import Choice, Range, Space
from atelier.tuning.study import open_study

TOY = Space("kid", "less", {"recall": 0.1}, {"rate": Range(0.01, 1.0, log=True), "mode": Choice(("fine", "collapsed"))})


def toy_run(settings: list[str], out: Path, report) -> None:
    """KID is least at the rate 0.1; a collapsed trial has a lower one still, and no recall."""
    values = dict(setting.split("=") for setting in settings)
    distance = abs(float(values["rate"]) - 0.1)
    collapsed = values["mode"] == "collapsed"
    out.mkdir(parents=True)
    for done in (0.5, 1.0):
        report({"kid": (distance + 0.1) / done * (0.01 if collapsed else 1), "recall": 0.0 if collapsed else 0.3}, done)


@pytest.fixture
def toy_study(tmp_path):
    """Opens the toy's study, the same one at every call."""

    def open_it(space: Space = TOY, **facts):
        facts = {"minutes": 1, "settings": ["seed=3"], **facts}
        return open_study("toy", f"sqlite:///{tmp_path / 'study.db'}", space, facts)

    return open_it
