"""The command line: `python -m atelier COMMAND`. JSON lines on standard output, progress on standard error."""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Sequence
from pathlib import Path

from atelier.backend import import_keras
from atelier.captioner import Captioner, CaptionerError
from atelier.config import Config
from atelier.generator.painter import PainterError
from atelier.seeds import STYLES, check_seed, fresh_seed
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
    caption.add_argument("--captioner", type=Path, default=PROJECT / "captioner", metavar="PATH", help="its folder")
    caption.add_argument("--batch", type=int, default=32, metavar="N", help="pictures at a time (default 32)")
    caption.set_defaults(run=_caption)

    train = commands.add_parser("train", help="train the generator or the captioner; goes on where it stopped")
    train.add_argument("what", choices=("generator", "captioner"))
    train.add_argument("--data", type=Path, nargs="+", required=True, metavar="DIR", help="folders of pictures")
    train.add_argument("--out", type=Path, metavar="DIR", help="checkpoints and results (default runs/WHAT)")
    train.add_argument("--minutes", type=float, default=60.0, metavar="M", help="how long (default 60)")
    train.add_argument("--resume", action=argparse.BooleanOptionalAction, default=True, help="go on with DIR's run")
    train.add_argument("--resolution", type=int, metavar="PX", help="generator: side of its pictures")
    train.add_argument("--mixed-precision", action="store_true", help="generator: bfloat16 arithmetic")
    train.add_argument("--stem", default="imagenet", metavar="FILE", help="captioner: a MobileNetV2 to begin with")
    train.set_defaults(run=_train)
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


def seeds_from(first: int | str | None, count: int) -> list[int | str]:
    """`count` seeds: fresh ones, the integers from `first`, or a text with a number behind it ("sea", "sea 2", ...)."""
    if first is None:
        return [fresh_seed() for _ in range(count)]
    first = check_seed(first)
    if isinstance(first, str):
        return [first, *(f"{first} {number}" for number in range(2, count + 1))]
    return [first + step for step in range(count)]


def _number_or_text(text: str) -> int | float | str:
    """What a seed on the command line means: `7` is a number, `sea` is a text, `1.5` is a number (and refused)."""
    for kind in (int, float):
        try:
            return kind(text)
        except ValueError:
            continue
    return text


def _caption(options: argparse.Namespace) -> None:
    from atelier.dataset.source import EXTENSIONS
    from atelier.images import open_picture
    from atelier.progress import progress_bar

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
    captioner = Captioner.load(options.captioner)
    with progress_bar(total=len(paths), desc="captions", unit="picture") as bar:
        for start in range(0, len(paths), options.batch):
            batch = paths[start : start + options.batch]
            pictures, errors = {}, {}
            for path in batch:
                try:
                    pictures[path] = open_picture(path)
                except ValueError as error:
                    errors[path] = str(error)
            captions = dict(zip(pictures, captioner.caption(list(pictures.values())), strict=True))
            for path in batch:
                record = {"image": path.as_posix(), "caption": None, "confidence": None}
                if path in captions:
                    record |= {"caption": captions[path].text, "confidence": captions[path].confidence}
                else:
                    record |= {"error": errors[path]}
                bar.clear()  # so that the bar and the lines do not mix on a terminal
                print(json_line(record), flush=True)
            bar.update(len(batch))


def _train(options: argparse.Namespace) -> None:
    import_keras()
    from atelier.training import TrainingError

    out = options.out or Path("runs") / options.what
    try:
        figures = (_train_generator if options.what == "generator" else _train_captioner)(options, out)
    except TrainingError as error:
        raise ValueError(error) from error
    print(json.dumps({"trained": options.what} | figures))


def _train_generator(options: argparse.Namespace, out: Path) -> dict[str, str]:
    from atelier.generator.train import Recipe, train

    asked = {"resolution": options.resolution, "mixed_precision": options.mixed_precision or None}
    recipe = Recipe(**{name: value for name, value in asked.items() if value is not None})
    made = train(options.data, out, minutes=options.minutes, recipe=recipe, resume=options.resume)
    return {"output": made.as_posix()}


def _train_captioner(options: argparse.Namespace, out: Path) -> dict[str, str | float]:
    from atelier.captioner.train import train

    figures = train(options.data, out, minutes=options.minutes, stem_weights=options.stem, resume=options.resume)
    return {"output": out.as_posix()} | figures


if __name__ == "__main__":
    sys.exit(main())
