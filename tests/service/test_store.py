"""Artworks on disk: what was promised is there, what was not is swept, the old make room."""

import os
import re
import subprocess
import sys

import numpy as np
import pytest

from atelier.service.store import ID_PATTERN, Store
from atelier.studio import Artwork
from tests.conftest import REPOSITORY


def artwork(seed=1):
    image = np.full((8, 8, 3), len(str(seed)), np.uint8)
    return Artwork(image, seed, "painting", 1.5, caption=f"number {seed}", confidence=-1.0)


@pytest.fixture
def open_store(tmp_path):
    stores = []

    def build(**options):
        stores.append(Store(tmp_path / "data", **options))
        return stores[-1]

    yield build
    for store in stores:
        store.close()


def pictures(store):
    return sorted(os.listdir(store.folder / "pictures"))


def test_what_was_added_is_there_and_after_a_restart_too(open_store):
    store = open_store()
    added = store.add([artwork("sea"), artwork(2**70)])
    store.close()
    store = open_store()
    assert len(store) == 2
    for record, png in added:
        assert store.record(record["id"]) == record and store.picture(record["id"]) == png
    assert [record["seed"] for record, _ in added] == ["sea", 2**70] and "output" not in added[0][0]


def test_half_a_character_in_a_seed_is_kept(open_store):
    store = open_store()
    ((record, _),) = store.add([artwork("\udc80 half")])
    assert store.record(record["id"])["seed"] == "\udc80 half"


def test_ids_are_long_random_and_fit_their_pattern(open_store):
    ids = {record["id"] for record, _ in open_store().add([artwork(7) for _ in range(50)])}
    assert len(ids) == 50 and all(re.fullmatch(ID_PATTERN, each) for each in ids)


@pytest.mark.parametrize("identity", ["", "x", "../../etc/passwd", "a" * 22, "%", "' OR 1=1 --", "index.sqlite3", "\0"])
def test_an_unknown_id_is_nothing(open_store, identity):
    store = open_store()
    store.add([artwork()])
    assert store.record(identity) is None and store.picture(identity) is None


def test_the_latest_come_page_by_page(open_store):
    store = open_store()
    store.add([artwork(seed) for seed in range(5)])
    first = store.latest(2)
    rest = store.latest(10, before=first[-1]["id"])
    assert [record["seed"] for record in first + rest] == [4, 3, 2, 1, 0]
    assert store.latest(10, before="a" * 22) is None


def test_the_oldest_make_room(open_store):
    store = open_store(max_artworks=3)
    ids = [store.add([artwork(seed)])[0][0]["id"] for seed in range(5)]
    assert [store.record(each) is None for each in ids] == [True, True, False, False, False]
    assert pictures(store) == sorted(f"{each}.png" for each in ids[2:])


def test_the_aged_are_gone(open_store, monkeypatch):
    store = open_store(max_age=60)
    ((old, _),) = store.add([artwork(1)])
    later = old["created"] + 61
    monkeypatch.setattr("atelier.service.store.time.time", lambda: later)
    assert store.record(old["id"]) is None and store.picture(old["id"]) is None and store.latest(9) == []
    ((new, _),) = store.add([artwork(2)])
    assert pictures(store) == [f"{new['id']}.png"] and len(store) == 1


def test_a_start_sweeps_what_nobody_was_told_of_and_nothing_else(open_store):
    store = open_store()
    added = [record["id"] for record, _ in store.add([artwork(1), artwork(2)])]
    store.close()
    folder = store.folder / "pictures"
    orphans = ["b" * 22 + ".png", "." + "c" * 22 + ".png.123.abcd.part"]
    foreign = ["holiday.png", "notes.txt", "b" * 22 + ".jpg"]
    for name in orphans + foreign:
        (folder / name).write_bytes(b"x")
    (folder / f"{added[0]}.png").unlink()  # somebody deleted a picture
    store = open_store()
    assert pictures(store) == sorted([*foreign, f"{added[1]}.png"])
    assert store.record(added[0]) is None and len(store) == 1


def test_a_picture_whose_row_was_never_committed_is_not_told_of(open_store, monkeypatch):
    store = open_store()
    monkeypatch.setattr("atelier.service.store.time.time", lambda: 1 / 0)  # after the file, before the row
    with pytest.raises(ZeroDivisionError):
        store.add([artwork()])
    monkeypatch.undo()
    assert len(store) == 0 and len(pictures(store)) == 1
    store.close()
    assert pictures(open_store()) == []


def test_a_folder_is_used_by_one_process_at_a_time(open_store):
    store = open_store()
    code = f"from atelier.service.store import Store; Store({str(store.folder)!r})"
    command = [sys.executable, "-c", code]
    done = subprocess.run(command, cwd=REPOSITORY, capture_output=True, text=True)
    assert done.returncode and "another service uses" in done.stderr
    store.close()
    assert not subprocess.run(command, cwd=REPOSITORY).returncode


def test_a_broken_index_is_one_clear_error(tmp_path):
    (tmp_path / "index.sqlite3").write_bytes(b"this is no database " * 100)
    with pytest.raises(OSError, match="cannot use the index"):
        Store(tmp_path)
