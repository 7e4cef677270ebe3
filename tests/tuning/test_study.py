"""The search itself, on a toy: what wins, what is pruned, that it goes on, and that processes share it."""

import io
import json
import os
import signal
import subprocess
import sys
import time

import optuna
import pytest
from optuna.trial import TrialState
from PIL import Image

from atelier.config import settings_in
from atelier.tuning import study as studies
from atelier.tuning.plots import history, importance, parallel
from atelier.tuning.study import open_study, search
from tests.conftest import REPOSITORY
from tests.tuning.conftest import TOY, toy_run


@pytest.fixture(autouse=True)
def blank_plots(monkeypatch):
    """Drawing takes longer than all the toy's trials; the command's test has the real plots."""
    for name in ("history", "importance", "parallel"):
        monkeypatch.setattr(studies.plots, name, lambda study, space: b"a picture")


def test_a_collapsed_trial_cannot_win(toy_study, tmp_path):
    study, records = toy_study(), []
    for rate, mode in ((0.5, "fine"), (0.1, "collapsed"), (0.2, "fine"), (0.3, "collapsed")):
        study.enqueue_trial({"rate": rate, "mode": mode})
    best = search(study, TOY, toy_run, tmp_path, trials=4, told=records.append)
    assert [record["floors_reached"] for record in records] == [True, False, True, False]
    assert best == records[2] and best["figures"]["kid"] == pytest.approx(0.2)
    assert records[1]["figures"]["kid"] < best["figures"]["kid"]


def test_without_a_trial_above_the_floors_nothing_wins(toy_study, tmp_path):
    strict = TOY.with_floors(["recall=0.9"])
    assert search(toy_study(strict), strict, toy_run, tmp_path, trials=2) is None
    assert json.loads((tmp_path / "study.json").read_text())["best"] is None
    assert not (tmp_path / "best.yaml").exists() and (tmp_path / "parallel.png").exists()


def test_trials_worse_than_the_median_are_stopped(toy_study, tmp_path):
    finished = []

    def run(settings, out, report):
        worse = len(finished)  # each trial is worse than all before it
        report({"kid": 1.0 + worse, "recall": 1.0}, 0.5)
        finished.append(worse)
        report({"kid": 0.5, "recall": 1.0}, 1.0)

    study = toy_study()
    search(study, TOY, run, tmp_path, trials=7)
    states = [trial.state for trial in study.trials]
    assert states == [TrialState.COMPLETE] * 4 + [TrialState.PRUNED] * 3
    assert finished == [0, 1, 2, 3]  # a pruned one does not go on after its report
    pruned = json.loads((tmp_path / "study.json").read_text())["trials"][-1]
    assert pruned["state"] == "pruned" and pruned["figures"]["kid"] == 5 and pruned["floors_reached"]
    assert "median" in pruned["note"]


def test_what_has_collapsed_does_not_stop_the_others(toy_study, tmp_path):
    goals = iter([0.01] * 6 + [1.0])

    def run(settings, out, report):
        goal = next(goals)
        for done in (0.5, 1.0):
            report({"kid": goal, "recall": 0.0 if goal < 1 else 0.3}, done)

    best = search(toy_study(), TOY, run, tmp_path, trials=7)
    assert best["number"] == 6 and best["figures"]["kid"] == 1.0


def test_what_is_below_a_floor_may_rise_above_it(toy_study, tmp_path):
    trials = iter([(0.3, 0.3)] * 4 + [(0.0, 0.3)])

    def run(settings, out, report):
        for recall, done in zip(next(trials), (0.5, 1.0), strict=True):
            report({"kid": 1.0 if recall else 0.1, "recall": recall}, done)

    study = toy_study()
    search(study, TOY, run, tmp_path, trials=5)
    assert [trial.state for trial in study.trials] == [TrialState.COMPLETE] * 5


def test_the_first_trial_is_the_recipe_and_the_same_command_adds(toy_study, tmp_path):
    first = {"rate": 0.25, "mode": "fine"}
    search(toy_study(), TOY, toy_run, tmp_path, trials=1, first=first)
    best = search(toy_study(), TOY, toy_run, tmp_path, trials=2, first=first)
    known = json.loads((tmp_path / "study.json").read_text())
    assert [trial["number"] for trial in known["trials"]] == [0, 1, 2] and known["best"] == best["number"]
    assert [trial["settings"] == first for trial in known["trials"]] == [True, False, False]
    assert sorted(path.name for path in (tmp_path / "trials").iterdir()) == ["0000", "0001", "0002"]
    recipe = settings_in(tmp_path / "best.yaml")  # what --config reads: what was fixed, and what was found
    assert recipe == ["seed=3", *(f"{name}={value}" for name, value in best["settings"].items())]


def test_trials_of_another_length_do_not_enter_a_study(toy_study):
    toy_study(minutes=1)
    with pytest.raises(ValueError, match="toy has minutes 1"):
        toy_study(minutes=2)
    with pytest.raises(ValueError, match="floors"):
        toy_study(TOY.with_floors(["recall=0"]))


@pytest.mark.parametrize(
    "storage", ["sqlite:////nowhere/at/all/study.db", "nonsense", "strange://here/study", "postgresql://127.0.0.1:9/x"]
)
def test_a_database_that_cannot_be_had_is_one_line(storage, monkeypatch):
    monkeypatch.setattr(time, "sleep", lambda seconds: None)
    with pytest.raises(ValueError, match="no study in") as caught:
        open_study("toy", storage, TOY, {"settings": []})
    assert "\n" not in str(caught.value)


def test_an_error_of_the_training_ends_the_search(toy_study, tmp_path):
    def run(settings, out, report):
        raise ValueError("no such pictures")

    with pytest.raises(ValueError, match="no such pictures"):
        search(toy_study(), TOY, run, tmp_path, trials=3)
    assert [trial.state for trial in toy_study().trials] == [TrialState.FAIL]


def test_the_plots_show_every_kind_of_trial(tmp_path, toy_study):
    study = toy_study()
    search(study, TOY, toy_run, tmp_path, trials=3)
    pictures = {draw: draw(study, TOY) for draw in (history, importance, parallel)}
    study.add_trial(
        optuna.trial.create_trial(
            state=TrialState.PRUNED,
            params={"rate": 0.02, "mode": "fine"},
            distributions=study.trials[0].distributions,
            user_attrs={"figures": {"kid": 3.0, "recall": 0.3}},
        )
    )
    assert history(study, TOY) != pictures[history]
    for picture in pictures.values():
        shown = Image.open(io.BytesIO(picture)).convert("L")
        assert min(shown.size) > 100 and len(shown.getcolors(1 << 16)) > 10


WORKER = """
import sys, time
from pathlib import Path
from atelier.tuning.study import open_study, search
from tests.tuning.conftest import TOY, toy_run

def run(settings, out, report):
    print(int(out.name), flush=True)
    time.sleep(0.3)
    toy_run(settings, out, report)

study = open_study("toy", sys.argv[1], TOY, {"minutes": 1, "settings": []}, heartbeat=1)
search(study, TOY, run, Path(sys.argv[2]), trials=int(sys.argv[3]))
"""


def worker(storage: str, out, trials: int) -> subprocess.Popen:
    command = [sys.executable, "-c", WORKER, storage, str(out), str(trials)]
    return subprocess.Popen(command, cwd=REPOSITORY, stdout=subprocess.PIPE, text=True)


@pytest.mark.slow
def test_two_processes_share_a_study(tmp_path):
    """They begin at once, on a database that is not there yet; every trial is run by one of them."""
    storage = f"sqlite:///{tmp_path / 'study.db'}"
    both = [worker(storage, tmp_path, 8) for _ in range(2)]
    numbers = [[int(line) for line in process.communicate()[0].split()] for process in both]
    assert [process.returncode for process in both] == [0, 0]
    assert sorted(numbers[0] + numbers[1]) == list(range(16)) and all(len(own) == 8 for own in numbers)
    assert min(numbers[0]) < max(numbers[1]) and min(numbers[1]) < max(numbers[0])  # side by side
    study = optuna.load_study(study_name="toy", storage=storage)
    assert len(json.loads((tmp_path / "study.json").read_text())["trials"]) >= 15  # by the one that ended last
    assert {trial.state for trial in study.trials} <= {TrialState.COMPLETE, TrialState.PRUNED}


@pytest.mark.slow
def test_a_trial_that_was_killed_counts_as_failed_and_the_search_goes_on(tmp_path):
    storage = f"sqlite:///{tmp_path / 'study.db'}"
    killed = worker(storage, tmp_path, 1000)
    assert killed.stdout.readline().strip() == "0"
    os.kill(killed.pid, signal.SIGKILL)
    killed.communicate()
    time.sleep(3)  # more than two of its heartbeats
    after = worker(storage, tmp_path, 2)
    after.communicate()
    states = [trial.state for trial in optuna.load_study(study_name="toy", storage=storage).trials]
    assert after.returncode == 0 and states.count(TrialState.FAIL) == 1 and TrialState.RUNNING not in states
