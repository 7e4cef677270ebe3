"""A study: trials of equal length, judged while they run, kept in a database that many processes may share."""

from __future__ import annotations

import json
import time
import warnings
from collections.abc import Callable, Mapping
from pathlib import Path

import optuna
import sqlalchemy.exc
import yaml
from optuna.trial import FrozenTrial, TrialState

from atelier.images import write_atomically
from atelier.progress import progress_bar
from atelier.tuning import plots
from atelier.tuning.spaces import Space, reached_floors

optuna.logging.set_verbosity(optuna.logging.WARNING)

Report = Callable[[Mapping[str, float], float], None]
"""Called by a training with its figures and the share (above 0, at most 1) of its time that is over."""

Run = Callable[[list[str], Path, Report], None]
"""Trains once: settings as NAME=VALUE, a folder for the results, and what to call at each check and at the end."""

HEARTBEAT = 60
"""Seconds between two signs of life of a trial; one that gives none for twice as long counts as failed."""


def open_study(
    name: str, storage: str, space: Space, facts: Mapping[str, object], heartbeat: int = HEARTBEAT
) -> optuna.Study:
    """The study of this name, made if there is none.

    Trials are suggested by TPE (Bergstra et al., 2011), for which a constraint that is missed counts as worse than any
    goal, and pruned where they are worse than the median of the earlier ones at the same share of their time. Below a
    floor counts there as worse than all, so that what has collapsed does not set the median that stops others.

    Args:
        storage: a database URL, as SQLAlchemy reads it: `sqlite:///study.db`, `postgresql://...`.
        facts: what all trials of a study must share, `settings` (NAME=VALUE) and others such as their minutes: a study
            that began with others is refused.
        heartbeat: seconds, as `HEARTBEAT`.

    Raises:
        ValueError: no such database, or a study of other facts.
    """
    facts = json.loads(json.dumps(facts | {"goal": space.figure, "floors": space.floors}))
    directions = {"less": "minimize", "more": "maximize"}
    try:
        study = _patiently(
            lambda: optuna.create_study(
                study_name=name,
                storage=_database(storage, heartbeat),
                direction=directions[space.better],
                load_if_exists=True,
                sampler=optuna.samplers.TPESampler(n_startup_trials=6),
                pruner=optuna.pruners.MedianPruner(n_startup_trials=4, n_min_trials=3),
            )
        )
    except (sqlalchemy.exc.SQLAlchemyError, ImportError, RuntimeError) as error:
        raise ValueError(f"no study in {storage}: {str(error).splitlines()[0]}") from error
    known = study.user_attrs.get("facts")
    if known is None:
        study.set_user_attr("facts", facts)
    elif known != facts:
        other = ", ".join(f"{key} {known.get(key)}" for key in facts if known.get(key) != facts[key])
        raise ValueError(f"the study {name} has {other}: its trials would not compare, take another --study")
    return study


def _database(url: str, heartbeat: int) -> optuna.storages.RDBStorage:
    waiting = {"connect_args": {"timeout": 60}} if url.startswith("sqlite") else {}  # seconds for another's lock
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)  # which the heartbeat is since 2021
        return optuna.storages.RDBStorage(url, engine_kwargs=waiting, heartbeat_interval=heartbeat)


def _patiently(action: Callable[[], optuna.Study]) -> optuna.Study:
    """Two processes that make one database at the same moment get in each other's way; the second look finds it."""
    for wait in (0.3, 0.6, 0.9, 1.2):
        try:
            return action()
        except (sqlalchemy.exc.SQLAlchemyError, RuntimeError):
            time.sleep(wait)
    return action()


def search(
    study: optuna.Study,
    space: Space,
    run: Run,
    out: Path,
    *,
    trials: int,
    first: Mapping[str, object] | None = None,
    told: Callable[[dict], None] = lambda record: None,
) -> dict | None:
    """Run so many trials more and write what the study then knows; other processes may do the same at once.

    `out` gets `trials/NNNN/`, what each training left, and what `write_results` writes.

    Args:
        run: trains once.
        first: the values of the first trial of a new study: those that it shall better.
        told: called with the record of each trial that ends.

    Returns:
        the record of the best trial of all, `None` where none has ended above the floors.
    """
    if first and not study.get_trials(deepcopy=False):
        study.enqueue_trial(dict(first))
    with progress_bar(total=trials, desc="trials", unit="trial") as bar:

        def after(study: optuna.Study, trial: FrozenTrial) -> None:
            bar.clear()
            told(record_of(trial))
            if best := best_of(study):
                bar.set_postfix_str(f"best {space.figure} {best.value:.6g}, trial {best.number}", refresh=False)
            bar.update()

        def objective(trial: optuna.Trial) -> float:
            return _objective(trial, space, run, out / "trials" / f"{trial.number:04d}")

        try:
            if trials:
                study.optimize(objective, n_trials=trials, callbacks=[after])
        finally:  # also of what was found until somebody stopped it
            write_results(study, space, out)
    best = best_of(study)
    return record_of(best) if best else None


def _objective(trial: optuna.Trial, space: Space, run: Run, folder: Path) -> float:
    last: dict[str, float] = {}

    def report(figures: Mapping[str, float], done: float) -> None:
        space.check(figures)
        last.update(figures)
        trial.set_user_attr("figures", last)
        trial.report(space.standing(figures), round(100 * done))
        below = any(shortfall > 0 for shortfall in space.shortfalls(figures).values())  # and may yet rise above it
        if done < 1 and not below and trial.should_prune():
            raise optuna.TrialPruned("worse than the median of the earlier ones")

    try:
        run(space.suggest(trial), folder, report)
        return last[space.figure]
    except optuna.TrialPruned as pruned:
        trial.set_user_attr("note", str(pruned))
        raise
    finally:
        for name, shortfall in (space.shortfalls(last) if last else {}).items():
            trial.set_constraint(name, shortfall)


def best_of(study: optuna.Study) -> FrozenTrial | None:
    """The best trial that ended above the floors."""
    try:
        return study.best_trial
    except ValueError:  # none yet
        return None


def record_of(trial: FrozenTrial) -> dict:
    """A trial for JSON.

    Returns:
        `number`, `state`, `floors_reached` (as far as it came), `minutes` (by the wall's clock, with all judging),
        `figures`, `settings`, and for a pruned one a `note` that says why.
    """
    took = (trial.datetime_complete - trial.datetime_start).total_seconds() if trial.datetime_complete else None
    return {
        "number": trial.number,
        "state": trial.state.name.lower(),
        "floors_reached": reached_floors(trial) if trial.constraints else None,
        "minutes": round(took / 60, 2) if took else None,
        "figures": {name: float(f"{value:.6g}") for name, value in trial.user_attrs.get("figures", {}).items()},
        "settings": trial.params,
        **({"note": trial.user_attrs["note"]} if "note" in trial.user_attrs else {}),
    }


def write_results(study: optuna.Study, space: Space, out: Path) -> None:
    """Write `study.json` (all trials that ended), `best.yaml` (a recipe for --config), and the plots."""
    ended = [trial for trial in study.get_trials(deepcopy=False) if trial.state.is_finished()]
    best = best_of(study)
    about = {"study": study.study_name, **study.user_attrs["facts"], "best": best.number if best else None}
    about["trials"] = [record_of(trial) for trial in ended]
    write_atomically(out / "study.json", json.dumps(about, indent=1).encode())
    if best:
        note = f"# The best of {len(ended)} trials of the study {study.study_name}: {space.figure} {best.value:.6g}\n"
        settings = dict(setting.split("=", 1) for setting in about["settings"]) | best.params
        write_atomically(out / "best.yaml", (note + yaml.safe_dump(settings, sort_keys=False)).encode())
    draw = {"history": plots.history, "importance": plots.importance, "parallel": plots.parallel}
    for name, plot in draw.items():
        if any(trial.state == TrialState.COMPLETE for trial in ended):
            write_atomically(out / f"{name}.png", plot(study, space))
