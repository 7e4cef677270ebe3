"""Sources to prepare, and what a preparation left."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.conftest import REPOSITORY
from tests.dataset.hostile import ODD_NAMES, broken, encoded, paint, sound, write


@pytest.fixture(scope="session")
def download(tmp_path_factory) -> Path:
    """A data set as Kaggle gives it: two classes, two splits, and everything that may be wrong with its files."""
    root = tmp_path_factory.mktemp("download")
    base = root / "dataset" / "dataset_updated"
    for number in range(40):
        write(base / "training_set" / "painting", f"{number:05d}.jpg", encoded(paint(number), quality=90))
        write(base / "training_set" / "engraving", f"{number:05d}.jpg", encoded(paint(1000 + number), quality=90))
    for name, data in sound(2000).items():
        write(base / "training_set" / "painting", name, data)
    for name, (data, _) in broken(3000).items():
        write(base / "training_set" / "engraving", f"broken-{name}", data)
    for number, name in enumerate(ODD_NAMES):
        write(base / "validation_set" / "painting", name, encoded(paint(4000 + number)))
    write(base / "training_set" / "painting", "same-file.jpg", encoded(paint(0), quality=90))
    write(base / "training_set" / "painting", "same-pixels.png", encoded(paint(1), "BMP"))
    write(base / "validation_set" / "painting", "same-pixels.bmp", encoded(paint(1), "BMP"))
    write(base / "validation_set" / "painting", "twin.jpg", encoded(paint(2).resize((80, 70)), quality=60))
    write(base / "training_set" / "painting", ".DS_Store", b"\0")
    os.mkfifo(base / "training_set" / "engraving" / "pipe.jpg")
    os.symlink("nowhere.jpg", base / "training_set" / "engraving" / "link.jpg")
    return root


@pytest.fixture(scope="session")
def atelier():
    """Runs `python -m atelier prepare` with some arguments; returns the finished process."""

    def run(*arguments, start: bool = False):
        command = [sys.executable, "-m", "atelier", "prepare", *map(os.fspath, arguments)]
        options = {"cwd": REPOSITORY, "text": True, "stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
        return subprocess.Popen(command, **options) if start else subprocess.run(command, **options)

    return run


@pytest.fixture(scope="session")
def prepared(download, atelier, tmp_path_factory) -> Path:
    """The download, prepared without a network of features, in shards of 20 files; its work is kept."""
    pytest.importorskip("daft")
    out = tmp_path_factory.mktemp("prepared") / "out"
    done = atelier(download, out, "--features", "none", "--shard-size", "20", "--keep-work", "--workers", "2")
    assert done.returncode == 0, done.stderr
    (out / "stdout.json").write_text(done.stdout)
    return out


def rows_of(out: Path) -> list[tuple]:
    """All rows of a prepared data set, sorted, shard by shard."""
    from atelier.dataset.shards import iterate_rows, shard_paths

    return sorted(tuple(row.values()) for row in iterate_rows(shard_paths(out)))


def lines_of(path: Path) -> list[dict]:
    return [json.loads(line) for line in path.read_text("utf-8").splitlines()]
