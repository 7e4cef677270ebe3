"""The command line: `python -m atelier COMMAND`. JSON lines on standard output, progress on standard error."""

from __future__ import annotations

import argparse
import atexit
import contextlib
import json
import os
import sys
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

from atelier.backend import import_keras
from atelier.captioner import Captioner, CaptionerError
from atelier.config import CAPTION_STYLES, Config, settings_in
from atelier.generator.painter import PainterError
from atelier.seeds import STYLES, seeds_from
from atelier.studio import PROJECT, Studio, json_line


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command; returns the exit code: 0, or 2 with one line on standard error for bad input."""
    options = _parser().parse_args(arguments)
    try:
        options.run(options)
    except BrokenPipeError:  # the reader of a pipe had enough
        sys.stderr.close()
    except KeyboardInterrupt:
        print("atelier: stopped", file=sys.stderr)
        return 130
    except (ValueError, OSError, PainterError, CaptionerError) as error:
        return _refuse(error)
    return 0


def _refuse(error: Exception) -> int:
    print(f"atelier: error: {' '.join(str(error).split())}", file=sys.stderr)
    return 2


class _Parser(argparse.ArgumentParser):
    """Says what is wrong in one line, without the usage in front of it."""

    def error(self, message: str):
        self.exit(_refuse(ValueError(f"{message} (see {self.prog} --help)")))


def _parser() -> argparse.ArgumentParser:
    parser = _Parser(prog="python -m atelier", description="One seed in, one artwork out.")
    commands = parser.add_subparsers(required=True, metavar="COMMAND")

    create = commands.add_parser("create", help="make artworks: one JSON record a line, as main() returns it")
    create.add_argument("--count", type=int, default=1, metavar="N", help="how many (default 1)")
    create.add_argument("--seed", metavar="S", help="of the first; the others follow it (default: fresh ones)")
    create.add_argument("--style", metavar="NAME", help=f"{', '.join(STYLES)} (default: the seed chooses)")
    create.add_argument("--out", type=Path, metavar="DIR", help="where the pictures go (default: config's output_dir)")
    create.add_argument("--config", type=Path, default=PROJECT / "config.yaml", metavar="FILE", help="other settings")
    create.set_defaults(run=_create)

    samples = commands.add_parser("samples", help="make outputs/samples again: two of each medium, and a sheet")
    samples.add_argument("--out", type=Path, default=Path("outputs"), metavar="DIR", help="where (default outputs)")
    samples.set_defaults(run=_samples)

    caption = commands.add_parser("caption", help="say what pictures show: one JSON record a picture")
    caption.add_argument("images", type=Path, nargs="+", metavar="IMAGE|DIR", help="pictures, or folders of pictures")
    shipped = str(PROJECT / "captioner")
    caption.add_argument("--captioner", default=shipped, metavar="PATH|ID", help="its folder or hub id")
    caption.add_argument("--batch", type=int, default=32, metavar="N", help="pictures at a time (default 32)")
    caption.set_defaults(run=_caption)

    detect = commands.add_parser("detect", help="say whether a machine made pictures: one JSON record a picture")
    detect.add_argument("images", type=Path, nargs="+", metavar="IMAGE|DIR", help="pictures, or folders of pictures")
    detect.add_argument("--detector", type=Path, default=PROJECT / "detector.h5", metavar="FILE", help="which one")
    detect.add_argument("--batch", type=int, default=16, metavar="N", help="pictures at a time (default 16)")
    detect.set_defaults(run=_detect)

    prepare = commands.add_parser("prepare", help="clean and caption a data set into Parquet shards; goes on if killed")
    prepare.add_argument(
        "source", metavar="SOURCE", help="a folder, kaggle, kaggle:OWNER/NAME, or s3://..., https://..."
    )
    prepare.add_argument("out", type=Path, metavar="OUT", help="a folder for the shards and the report")
    prepare.add_argument("--styles", type=_names, default=(), metavar="A,B", help="only these classes (default: all)")
    prepare.add_argument("--captions", type=Path, metavar="FILE", help="known captions by hash (default: ours)")
    prepare.add_argument("--captioner", type=Path, metavar="PATH", help="its folder, for pictures without a caption")
    prepare.add_argument("--beams", type=int, default=1, metavar="N", help="of the captioner's search (default 1)")
    prepare.add_argument("--llm", metavar="URL", help="OpenAI-compatible, rewrites captions; its key: ATELIER_LLM_KEY")
    prepare.add_argument("--llm-model", default="default", metavar="NAME", help="the model to ask for there")
    prepare.add_argument("--llm-style", default="plain", metavar="NAME", help=f"{', '.join(CAPTION_STYLES)}")
    prepare.add_argument("--llm-timeout", type=float, default=5.0, metavar="S", help="then a caption stays (default 5)")
    prepare.add_argument("--features", metavar="FILE", help="MobileNetV2's weights, imagenet (download) or none")
    prepare.add_argument("--label-doubt", type=float, metavar="T", help="0 to 1: from here on a label counts as wrong")
    prepare.add_argument("--presentation-doubt", type=float, metavar="T", help="0 to 1: frames, collages, shop photos")
    prepare.add_argument("--min-side", type=int, metavar="PX", help="of the shorter side (default 64)")
    prepare.add_argument("--max-aspect", type=float, metavar="R", help="longer by shorter side (default 4)")
    prepare.add_argument("--max-side", type=int, metavar="PX", help="longer pictures are made smaller (default 1024)")
    prepare.add_argument("--shard-size", type=int, default=1000, metavar="N", help="files in a shard (default 1000)")
    prepare.add_argument("--runner", choices=("local", "ray"), default="local", help="processes here, or a Ray cluster")
    prepare.add_argument("--address", metavar="HOST:PORT", help="of the Ray cluster (default: one is started here)")
    prepare.add_argument("--workers", type=int, metavar="N", help="processes at most (default: the processors)")
    prepare.add_argument("--keep-work", action="store_true", help="leave the intermediate files in OUT/work")
    prepare.set_defaults(run=_prepare)

    train = commands.add_parser("train", help="train generator, captioner or detector; goes on where it stopped")
    train.add_argument("what", choices=("generator", "detail", "captioner", "detector"))
    train.add_argument("--data", type=Path, nargs="+", required=True, metavar="DIR", help="of pictures, or prepared")
    train.add_argument("--out", type=Path, metavar="DIR", help="checkpoints and results (default runs/WHAT)")
    train.add_argument("--minutes", type=float, default=60.0, metavar="M", help="how long (default 60)")
    train.add_argument("--resume", action=argparse.BooleanOptionalAction, default=True, help="go on with DIR's run")
    train.add_argument("--resolution", type=int, metavar="PX", help="generator: side of its pictures")
    train.add_argument("--set", action="append", default=[], metavar="NAME=VALUE", help="of the recipe")
    train.add_argument("--config", type=Path, metavar="FILE", help="a recipe in YAML, as configs/ holds; --set wins")
    train.add_argument("--start", type=Path, metavar="FILE", help="a trained generator or captioner to begin with")
    train.add_argument("--judges", type=Path, metavar="FILE", help="generator: the judges.npz that trained it")
    train.add_argument("--checkpoint-minutes", type=float, default=5.0, metavar="M", help="generator: how often")
    train.add_argument("--mixed-precision", action="store_true", help="generator: bfloat16 arithmetic")
    train.add_argument("--devices", type=int, default=1, metavar="N", help="generator: that share a batch (JAX)")
    train.add_argument("--kid", type=int, default=500, metavar="N", help="generator: pictures for KID; 0: none")
    train.add_argument("--features", type=Path, metavar="FILE", help="generator: KID's feature network")
    train.add_argument("--stem", metavar="FILE", help="captioner, detector: the MobileNetV2 to begin with")
    train.set_defaults(run=_train)

    narrow = commands.add_parser("narrow", help="make a generator cheaper: fewer maps at its largest sizes")
    narrow.add_argument("generator", type=Path, metavar="FILE", help="the trained generator.h5")
    narrow.add_argument(
        "--out", type=Path, default=Path("runs/narrow/generator.h5"), metavar="FILE", help="the new one"
    )
    recipe = PROJECT / "configs" / "generator.yaml"
    narrow.add_argument("--config", type=Path, default=recipe, metavar="FILE", help="its recipe (default: the shipped)")
    narrow.add_argument(
        "--set", action="append", default=[], metavar="NAME=VALUE", help="what differs: half_width=N, finest_width=N"
    )
    narrow.add_argument("--steps", type=int, default=2000, metavar="N", help="of 16 latents each (default 2000)")
    narrow.set_defaults(run=_narrow)

    forget = commands.add_parser("forget", help="leave out of a generator's memory what paints the same picture twice")
    forget.add_argument("generator", type=Path, metavar="FILE", help="the trained generator.h5")
    forget.add_argument(
        "--out", type=Path, default=Path("runs/forget/generator.h5"), metavar="FILE", help="the new one"
    )
    forget.add_argument(
        "--data", type=Path, nargs="+", default=[], metavar="DIR", help="and what paints one of these training pictures"
    )
    forget.add_argument(
        "--cache", type=Path, default=Path("runs/cache"), metavar="DIR", help="hashes of those pictures"
    )
    forget.add_argument("--times", type=int, default=4, metavar="N", help="pictures of each latent (default 4)")
    forget.set_defaults(run=_forget)

    evaluate = commands.add_parser("evaluate", help="measure a model: one JSON object of named figures")
    evaluate.add_argument("what", choices=("generator", "captioner", "detector"))
    evaluate.add_argument("--generator", type=Path, default=PROJECT / "generator.h5", metavar="FILE", help="which one")
    evaluate.add_argument("--data", type=Path, nargs="+", required=True, metavar="DIR", help="folders of real pictures")
    evaluate.add_argument("--detector", type=Path, default=PROJECT / "detector.h5", metavar="FILE", help="which one")
    evaluate.add_argument(
        "--captioner", default=shipped, metavar="PATH|ID", help="which one, on generator's pictures too"
    )
    evaluate.add_argument("--beams", type=int, default=1, metavar="N", help="captioner: of its search (default 1)")
    evaluate.add_argument("--candidates", type=int, default=1, metavar="N", help="captioner: the best of so many")
    evaluate.add_argument("--out", type=Path, default=Path("runs/evaluation"), metavar="DIR", help="figures and plots")
    evaluate.add_argument(
        "--count", type=int, default=1600, metavar="N", help="generated pictures (default 1600; captioner: 500)"
    )
    evaluate.add_argument("--seed", type=int, default=0, metavar="S", help="chooses the real pictures (default 0)")
    evaluate.add_argument("--truncation", type=float, metavar="T", help="of the latents (default: none)")
    evaluate.add_argument("--features", type=Path, metavar="FILE", help="another feature network, a Keras file")
    evaluate.add_argument("--classes", type=Path, metavar="FILE", help="weights of the Inception Score's network")
    evaluate.add_argument("--full-size", action="store_true", help="compare with real pictures at their own size")
    evaluate.add_argument("--all-training", action="store_true", help="nearest features among all training pictures")
    evaluate.add_argument("--cache", type=Path, default=Path("runs/cache"), metavar="DIR", help="features of real ones")
    evaluate.set_defaults(run=_evaluate)

    tune = commands.add_parser("tune", help="search for settings by trainings of equal length; the same command adds")
    tune.add_argument("what", choices=("generator", "captioner", "detector"))
    tune.add_argument("--data", type=Path, nargs="+", required=True, metavar="DIR", help="folders of picture files")
    tune.add_argument("--trials", type=int, default=20, metavar="N", help="more of them (default 20; 0: plots only)")
    tune.add_argument("--minutes", type=float, default=10.0, metavar="M", help="of each trial (default 10)")
    tune.add_argument("--checks", type=int, default=3, metavar="N", help="judgements in a trial (default 3)")
    tune.add_argument("--study", metavar="NAME", help="which one (default: WHAT)")
    tune.add_argument("--storage", metavar="URL", help="its database (default sqlite:///OUT/study.db)")
    tune.add_argument("--out", type=Path, metavar="DIR", help="trials, study.json, plots (default runs/tuning/WHAT)")
    tune.add_argument("--space", type=Path, metavar="FILE", help="another file than atelier/tuning/spaces.yaml")
    tune.add_argument("--only", type=_names, default=(), metavar="A,B", help="search only these settings of it")
    tune.add_argument("--floor", action="append", default=[], metavar="NAME=VALUE", help="that a winner must reach")
    tune.add_argument("--set", action="append", default=[], metavar="NAME=VALUE", help="of the recipe, for all trials")
    tune.add_argument("--config", type=Path, metavar="FILE", help="a recipe in YAML for all trials; --set wins")
    tune.add_argument("--start", type=Path, metavar="FILE", help="a trained generator or captioner to begin with")
    tune.add_argument("--judges", type=Path, metavar="FILE", help="generator: the judges.npz that trained it")
    tune.add_argument("--kid", type=int, default=500, metavar="N", help="generator: pictures that are judged")
    tune.add_argument("--features", type=Path, metavar="FILE", help="generator: KID's feature network")
    tune.add_argument("--processor-time", action="store_true", help="generator: count minutes of the processor")
    tune.add_argument("--stem", metavar="FILE", help="captioner, detector: the MobileNetV2 to begin with")
    tune.set_defaults(run=_tune)

    report = commands.add_parser("report", help="gather all figures into docs/report.html, report.json and the texts")
    report.add_argument("--docs", type=Path, default=PROJECT / "docs", metavar="DIR", help="where it goes")
    report.add_argument("--fill", type=Path, nargs="*", metavar="FILE", help="with marked figures (README, cards)")
    report.set_defaults(run=_report)

    serve = commands.add_parser("serve", help="a REST API and the web demo; needs the requirements in extras/")
    serve.add_argument("--host", default="127.0.0.1", help="where to listen (default 127.0.0.1; 0.0.0.0: everywhere)")
    serve.add_argument("--port", type=int, default=8000, help="(default 8000; 0: any that is free)")
    serve.add_argument("--data", type=Path, metavar="DIR", help="where artworks are kept (default outputs/service)")
    serve.add_argument("--demo", action=argparse.BooleanOptionalAction, help="the page (default: unless API key)")
    serve.add_argument("--config", type=Path, default=PROJECT / "config.yaml", metavar="FILE", help="other settings")
    serve.set_defaults(run=_serve)
    return parser


def _create(options: argparse.Namespace) -> None:
    if options.count < 1:
        raise ValueError(f"--count is a whole number from 1 up, not {options.count}")
    config = Config.from_yaml(options.config)
    seeds = seeds_from(config.seed if options.seed is None else _number_or_text(options.seed), options.count)
    style = config.style if options.style is None else options.style
    studio = Studio.open(config, options.config.resolve().parent)
    folder = options.out or Path(config.output_dir)
    for start in range(0, len(seeds), 32):
        for artwork in studio.create(seeds[start : start + 32], style, folder):
            print(artwork.record(), flush=True)


def _samples(options: argparse.Namespace) -> None:
    from atelier.gallery import make_samples

    studio = Studio.open(Config.from_yaml(PROJECT / "config.yaml"))
    for record in make_samples(studio, options.out):
        print(record)


def _number_or_text(text: str) -> int | float | str:
    """What a seed on the command line means: `7` is a number, `sea` is a text, `1.5` is a number (and refused)."""
    for kind in (int, float):
        try:
            return kind(text)
        except ValueError:
            continue
    return text


def _caption(options: argparse.Namespace) -> None:
    paths = _picture_files(options)
    captioner = Captioner.load(options.captioner)

    def records(pictures: list) -> list[dict]:
        found = captioner.caption(pictures)
        return [{"caption": e.text, "confidence": e.confidence, "alignment": e.alignment} for e in found]

    none = {"caption": None, "confidence": None, "alignment": None}
    _print_records(paths, options.batch, "captions", none, records)


def _detect(options: argparse.Namespace) -> None:
    from atelier.detector import Detector
    from atelier.detector.views import opened

    paths = _picture_files(options)
    detector = Detector.load(options.detector)

    def records(pictures: list) -> list[dict]:
        found = detector.detect(pictures, options.batch)
        return [{"ai_probability": each.ai_probability, "verdict": each.verdict} for each in found]

    _print_records(paths, options.batch, "pictures", {"ai_probability": None, "verdict": None}, records, opened)


def _picture_files(options: argparse.Namespace) -> list[Path]:
    """The files that a command is to look at: those named, and those in the folders named."""
    from atelier.dataset.source import EXTENSIONS

    if options.batch < 1:
        raise ValueError(f"--batch is a whole number from 1 up, not {options.batch}")
    paths: list[Path] = []
    for path in options.images:
        if path.is_dir():
            inside = sorted(each for each in path.rglob("*") if each.suffix.lower() in EXTENSIONS and each.is_file())
            if not inside:
                raise ValueError(f"no pictures in {path}")
            paths += inside
        elif path.is_file():
            paths.append(path)
        else:
            raise ValueError(f"no picture or folder at {path}")
    return paths


def _print_records(
    paths: Sequence[Path],
    size: int,
    desc: str,
    unknown: dict,
    records: Callable[[list], list[dict]],
    read: Callable | None = None,
) -> None:
    """Print a JSON line for each file, with what `records` says of its picture, or `unknown` and the error.

    A file is opened by `read` (default `open_picture`), while the batch before is looked at.

    Raises:
        ValueError: all lines are printed, and no file was a picture. (One bad file among good ones is no failure.)
    """
    from atelier.images import open_picture
    from atelier.progress import progress_bar

    def opened(start: int) -> tuple[dict, dict]:
        pictures, errors = {}, {}
        for path in paths[start : start + size]:
            try:
                pictures[path] = (read or open_picture)(path)
            except ValueError as error:
                errors[path] = str(error)
        return pictures, errors

    unread: list[str] = []
    with progress_bar(total=len(paths), desc=desc, unit="picture") as bar, ThreadPoolExecutor(1) as pool:
        following = pool.submit(opened, 0)
        for start in range(0, len(paths), size):
            (pictures, errors), following = following.result(), pool.submit(opened, start + size)
            known = dict(zip(pictures, records(list(pictures.values())), strict=True))
            for path in paths[start : start + size]:
                if path in errors:
                    unread.append(errors[path])
                record = {"image": path.as_posix()} | (known.get(path) or unknown | {"error": errors[path]})
                bar.clear()  # so that the bar and the lines do not mix on a terminal
                print(json_line(record), flush=True)
            bar.update(len(paths[start : start + size]))
    if len(unread) == len(paths):
        raise ValueError(unread[0] if len(unread) == 1 else f"none of {len(unread)} files is a readable picture")


def _names(text: str) -> tuple[str, ...]:
    return tuple(name.strip() for name in text.split(",") if name.strip())


def _mobilenet() -> str:
    """MobileNetV2's weights: the file in data/, or "imagenet" to download them."""
    weights = PROJECT / "data" / "weights" / "mobilenet_v2_1.0_224_no_top.weights.h5"
    return str(weights) if weights.is_file() else "imagenet"


def _prepare(options: argparse.Namespace) -> None:
    from atelier.dataset.checks import Limits
    from atelier.dataset.engine import WORKERS, stdout_to_stderr
    from atelier.dataset.prepare import Settings, prepare
    from atelier.dataset.rewriting import Rewriter

    def given(*names: str) -> dict:
        return {name: value for name in names if (value := getattr(options, name)) is not None}

    features = options.features or _mobilenet()
    settings = Settings(
        options.source,
        options.styles,
        Limits(**given("min_side", "max_aspect", "max_side")),
        None if features == "none" else features,
        captioner=str(options.captioner) if options.captioner else None,
        beams=options.beams,
        rewriter=Rewriter(options.llm, options.llm_model, options.llm_timeout, options.llm_style)
        if options.llm
        else None,
        shard_size=options.shard_size,
        **given("label_doubt", "presentation_doubt"),
        **({"captions": str(options.captions)} if options.captions else {}),
    )
    with stdout_to_stderr():
        report = prepare(
            settings,
            options.out,
            runner=options.runner,
            address=options.address,
            workers=WORKERS if options.workers is None else options.workers,
            keep_work=options.keep_work,
        )
    for note in report["notes"]:
        print(f"atelier: {note}", file=sys.stderr)
    about = {name: report[name] for name in ("files", "kept", "quarantined", "reasons", "caption_sources", "notes")}
    print(json.dumps({"output": options.out.as_posix()} | about, ensure_ascii=False))


def _train(options: argparse.Namespace) -> None:
    import_keras(batches=True)
    from atelier.training import TrainingError

    out = options.out or Path("runs") / options.what
    if options.config:
        options.set = [*settings_in(options.config), *options.set]
    train = {
        "generator": _train_generator,
        "detail": _train_detail,
        "captioner": _train_captioner,
        "detector": _train_detector,
    }[options.what]
    try:
        figures = train(options, out)
    except TrainingError as error:
        raise ValueError(error) from error
    print(json.dumps({"trained": options.what} | figures))


def _train_generator(options: argparse.Namespace, out: Path) -> dict[str, str]:
    from atelier.generator.train import Recipe, train

    recipe = Recipe.of(options.set)
    if options.resolution is not None:
        recipe = replace(recipe, resolution=options.resolution)
    if options.mixed_precision:
        recipe = replace(recipe, mixed_precision=True)
    recipe.check()
    if options.kid and options.kid < 100:
        raise ValueError(f"--kid is 0, or at least 100 pictures, not {options.kid}")
    made = train(
        options.data,
        out,
        minutes=options.minutes,
        recipe=recipe,
        resume=options.resume,
        checkpoint_minutes=options.checkpoint_minutes,
        start=options.start,
        judges=options.judges,
        measure=_kid_meter(options, recipe.resolution, out) if options.kid else None,
        devices=options.devices,
    )
    return {"output": made.as_posix()}


def _train_detail(options: argparse.Namespace, out: Path) -> dict[str, str]:
    from atelier.generator.detail import DetailRecipe, train_detail

    made = train_detail(
        options.data,
        out,
        minutes=options.minutes,
        recipe=DetailRecipe.of(options.set),
        resume=options.resume,
        checkpoint_minutes=options.checkpoint_minutes,
        generator=options.start,
    )
    return {"output": made.as_posix()}


def _kid_meter(options: argparse.Namespace, resolution: int, out: Path):
    """KID against the held-out pictures, or `None`, and a line that says so, where it cannot be measured."""
    from atelier.dataset.loader import is_prepared
    from atelier.evaluation.quick import KidMeter

    files = [folder for folder in options.data if not is_prepared(folder)]
    try:
        if not files:
            raise ValueError("KID's held-out pictures are read from folders of picture files")
        return KidMeter.of(files, resolution, out / "cache", options.kid, options.features)
    except ValueError as error:
        if options.features:
            raise
        print(f"training goes on without KID, and keeps the latest generator: {error}", file=sys.stderr)
        return None


def _narrow(options: argparse.Namespace) -> None:
    import_keras(batches=True)
    from atelier.generator.narrow import narrow
    from atelier.generator.recipe import Recipe

    recipe = Recipe.of([*settings_in(options.config), *options.set])
    recipe.check()
    options.out.parent.mkdir(parents=True, exist_ok=True)
    psnr = narrow(options.generator, options.out, recipe, steps=options.steps)
    print(json.dumps({"output": options.out.as_posix(), "psnr": round(psnr, 2)}))


def _forget(options: argparse.Namespace) -> None:
    import_keras(batches=True)
    from atelier.generator.forget import forget

    options.out.parent.mkdir(parents=True, exist_ok=True)
    count = forget(options.generator, options.out, times=options.times, data=options.data, cache=options.cache)
    print(json.dumps({"output": options.out.as_posix(), "left_out": count}))


def _train_captioner(options: argparse.Namespace, out: Path) -> dict[str, str | float]:
    from atelier.captioner.train import Recipe, train

    figures = train(
        options.data,
        out,
        minutes=options.minutes,
        stem_weights=options.stem or _mobilenet(),
        start=options.start,
        resume=options.resume,
        recipe=Recipe.of(options.set),
    )
    return {"output": out.as_posix()} | figures


def _train_detector(options: argparse.Namespace, out: Path) -> dict:
    from atelier.detector.recipe import Recipe
    from atelier.detector.train import train

    if len(options.data) > 1:
        raise ValueError("the detector learns from one --data folder, with a folder for each class in it")
    figures = train(
        options.data[0],
        out,
        recipe=Recipe.of(options.set),
        weights=options.stem or _mobilenet(),
        minutes=options.minutes,
        resume=options.resume,
    )
    return {"output": (out / "detector.h5").as_posix()} | figures


def _evaluate(options: argparse.Namespace) -> None:
    import_keras(batches=True)
    if options.what == "detector":
        from atelier.evaluation.detector import evaluate_detector

        print(json.dumps(evaluate_detector(options.detector, options.data, options.out)))
        return
    if options.what == "captioner":
        from atelier.evaluation.captioner import evaluate_captioner

        search = {"num_beams": options.beams, "candidates": options.candidates, "count": min(options.count, 500)}
        generator = options.generator if options.generator.is_file() else None
        figures = evaluate_captioner(options.captioner, options.data, generator=generator, **search)
        print(json.dumps(figures, ensure_ascii=False))
        return
    from atelier.evaluation.generator import evaluate_generator

    others = ("run", "what", "data", "captioner", "beams", "candidates")
    asked = {name: value for name, value in vars(options).items() if name not in others}
    print(json.dumps(evaluate_generator(data_roots=options.data, **asked), ensure_ascii=False))


def _tune(options: argparse.Namespace) -> None:
    import_keras(batches=True)
    try:
        from atelier.tuning.command import tune
    except ImportError as error:
        raise ValueError(f"{error}: pip install -r extras/tune.txt") from error
    if options.config:
        options.set = [*settings_in(options.config), *options.set]
    options.out = options.out or Path("runs/tuning") / options.what
    best = tune(options, _mobilenet(), lambda record: print(json.dumps(record), flush=True))
    print(json.dumps({"tuned": options.what, "output": options.out.as_posix(), "best": best}))


def _report(options: argparse.Namespace) -> None:
    from atelier.reporting.command import report

    texts = [PROJECT / "README.md", *sorted((PROJECT / "docs" / "cards").glob("*.md"))]
    filled = texts if options.fill is None else options.fill
    print(json.dumps(report(PROJECT, options.docs, filled), ensure_ascii=False))


def _serve(options: argparse.Namespace) -> None:
    if not 0 <= options.port < 65536:
        raise ValueError(f"--port is a number from 0 to 65535, not {options.port}")
    try:
        from atelier.service.server import serve

        serve(options.config, options.host, options.port, options.demo, options.data)
    except ImportError as error:  # the page's packages are asked for inside
        raise ValueError(f"{error}: pip install -r extras/service.txt") from error


def _leave(code: int) -> None:
    """End this process with an exit code.

    Native threads of the data engine may still run when the interpreter ends, and then, now and then, abort a process
    whose work is done. So the interpreter's own end is left out where the engine was used.
    """
    if "daft" in sys.modules:
        atexit._run_exitfuncs()
        with contextlib.suppress(OSError, ValueError):  # nobody reads any more
            sys.stdout.flush()
            sys.stderr.flush()
        os._exit(code)
    sys.exit(code)


if __name__ == "__main__":
    _leave(main())
