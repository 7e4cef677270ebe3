"""`python -m atelier tune`: from the command's options to a study and its trials."""

from __future__ import annotations

import argparse
import math
import sys
import time
from collections.abc import Callable

from atelier.dataset.loader import is_prepared
from atelier.training import TrainingError
from atelier.tuning.spaces import Space
from atelier.tuning.study import Run, open_study, search
from atelier.tuning.trials import (
    CaptionerRecipe,
    CaptionerTrials,
    DetectorRecipe,
    DetectorTrials,
    GeneratorRecipe,
    GeneratorTrials,
)

RECIPES = {"generator": GeneratorRecipe, "captioner": CaptionerRecipe, "detector": DetectorRecipe}


def tune(options: argparse.Namespace, mobilenet: str, told: Callable[[dict], None]) -> dict | None:
    """Run the trials that the options ask for.

    Args:
        options: as `python -m atelier tune` reads them.
        mobilenet: MobileNetV2's weights where --stem names none: a file, or "imagenet" to download them.
        told: called with the record of each trial that ends.

    Returns:
        the record of the study's best trial, `None` where none reached the floors.

    Raises:
        ValueError, FileNotFoundError: an option, a file or the data does not serve.
    """
    what, recipe = options.what, RECIPES[options.what]
    if options.trials < 0 or options.checks < 1 or not 0 < options.minutes < math.inf:
        raise ValueError("--trials is a number from 0 up, --checks from 1 up, and --minutes is above 0")
    if options.processor_time and what != "generator":
        raise ValueError("--processor-time is for the generator: the others count the wall's clock")
    space = Space.read(what, options.space).only(options.only).with_floors(options.floor)
    if twice := {setting.partition("=")[0] for setting in options.set} & set(space.search):
        raise ValueError(
            f"{', '.join(sorted(twice))}: either set or searched, not both (--only names what is searched)"
        )
    first = space.beginning(lambda settings: recipe.of([*options.set, *settings]))
    if first is None:
        print("the recipe itself is outside the space, so no trial begins with it", file=sys.stderr)
    trials = _trials(options, mobilenet)

    def run(settings, out, report):
        trials([*options.set, *settings], out, report)

    options.out.mkdir(parents=True, exist_ok=True)
    storage = options.storage or f"sqlite:///{options.out / 'study.db'}"
    names = ("minutes", "checks", "kid", "processor_time") if what == "generator" else ("minutes", "checks")
    facts = {"what": what, **{name: getattr(options, name) for name in names}, "settings": options.set}
    facts["start"] = options.start and options.start.as_posix()
    study = open_study(options.study or what, storage, space, facts)
    try:
        best = search(study, space, run, options.out, trials=options.trials, first=first, told=told)
    except TrainingError as error:
        raise ValueError(error) from error
    if best is None and options.trials:
        floors = ", ".join(f"{name} {floor:g}" for name, floor in space.floors.items())
        print(f"no trial has ended above the floors ({floors}): longer trials, or --floor", file=sys.stderr)
    return best


def _trials(options: argparse.Namespace, mobilenet: str) -> Run:
    shared = {"minutes": options.minutes, "shared": options.out / "shared"}
    if options.what == "detector":
        if len(options.data) > 1:
            raise ValueError("the detector learns from one --data folder, with a folder for each class in it")
        return DetectorTrials(options.data[0], weights=options.stem or mobilenet, **shared)
    if options.what == "captioner":
        stem = options.stem or mobilenet
        return CaptionerTrials(options.data, checks=options.checks, stem_weights=stem, start=options.start, **shared)
    if prepared := [folder.as_posix() for folder in options.data if is_prepared(folder)]:
        raise ValueError(f"KID's held-out pictures are read from folders of picture files, not of {prepared[0]}")
    return GeneratorTrials(
        options.data,
        checks=options.checks,
        pictures=options.kid,
        features=options.features,
        start=options.start,
        judges=options.judges,
        clock=time.process_time if options.processor_time else time.monotonic,
        **shared,
    )
