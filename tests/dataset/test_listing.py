"""What a source holds, in each of its layouts."""

import json
import os
import sys
import threading
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from types import SimpleNamespace

import pytest

from atelier.dataset import listing
from atelier.dataset.listing import SourceError, list_source
from tests.dataset.hostile import ODD_NAMES, write


def about(source):
    return {entry.name: (entry.label, entry.split) for entry in list_source(source)}


def test_kaggles_layout_has_labels_and_splits_and_every_file(tmp_path):
    write(tmp_path, "dataset/dataset_updated/training_set/painting/1.jpg", b"a")
    write(tmp_path, "dataset/dataset_updated/validation_set/engraving/2.txt", b"")
    write(tmp_path, "dataset/.hidden/3.jpg", b"c")
    assert about(tmp_path) == {
        "dataset/dataset_updated/training_set/painting/1.jpg": ("painting", "training"),
        "dataset/dataset_updated/validation_set/engraving/2.txt": ("engraving", "validation"),
    }


def test_class_folders_of_any_name_and_a_folder_that_is_one_itself(tmp_path):
    write(tmp_path / "art", "cubism/a.jpg", b"a")
    write(tmp_path / "art", "pop art/deep/b.jpg", b"b")
    assert about(tmp_path / "art") == {
        "cubism/a.jpg": ("cubism", "training"),
        "pop art/deep/b.jpg": ("deep", "training"),
    }
    assert about(tmp_path / "art" / "cubism") == {"a.jpg": ("cubism", "training")}


@pytest.mark.parametrize("kind", ["csv", "jsonl"])
def test_a_flat_folder_with_a_file_of_labels(tmp_path, kind):
    rows = [{"file": "a.jpg", "label": "cubism", "split": "val"}, {"file": "b,c.jpg", "label": "pop", "split": ""}]
    for row in rows:
        write(tmp_path, row["file"], b"x")
    write(tmp_path, "unnamed.jpg", b"x")
    text = 'file,label,split\na.jpg,cubism,val\n"b,c.jpg",pop,\n' if kind == "csv" else "\n".join(map(json.dumps, rows))
    (tmp_path / f"labels.{kind}").write_text(text)
    expected = {"a.jpg": ("cubism", "validation"), "b,c.jpg": ("pop", "training"), "unnamed.jpg": (None, "training")}
    assert about(tmp_path) == expected


def test_any_name_that_a_file_system_allows_is_listed_and_can_be_read(tmp_path):
    for number, name in enumerate(ODD_NAMES):
        write(tmp_path / "painting", name, bytes([number]))
    entries = list_source(tmp_path)
    assert len({entry.name for entry in entries}) == len(ODD_NAMES)
    assert sorted(Path(os.fsdecode(entry.place)).read_bytes() for entry in entries) == [
        bytes([n]) for n in range(len(ODD_NAMES))
    ]
    assert "painting/caf\\xe9.jpg" in {entry.name for entry in entries}


def test_captions_of_the_source_are_read(tmp_path):
    write(tmp_path, "set/painting/a.jpg", b"x")
    (tmp_path / "captions.jsonl").write_text('{"file": "painting/a.jpg", "caption": "a cat", "flag": "ok"}\n')
    (entry,) = list_source(tmp_path)
    assert (entry.caption, entry.flag, entry.label) == ("a cat", "ok", "painting")


def test_a_missing_empty_or_unlabelled_source_is_one_clear_line(tmp_path):
    with pytest.raises(SourceError, match=r"no folder at .*nowhere"):
        list_source(tmp_path / "nowhere")
    with pytest.raises(SourceError, match=r"no files in .*labels\.csv"):
        list_source(tmp_path)
    write(tmp_path, "training_set/a.jpg", b"x")
    with pytest.raises(SourceError, match=r"no file in .* has a label"):
        list_source(tmp_path)


@pytest.mark.parametrize("line", ["{broken", '{"label": "painting"}', "[1]"])
def test_a_damaged_line_of_labels_is_named(tmp_path, line):
    write(tmp_path, "painting/a.jpg", b"x")
    (tmp_path / "labels.jsonl").write_text('{"file": "painting/a.jpg"}\n' + line)
    with pytest.raises(ValueError, match=r"labels\.jsonl, line 2"):
        list_source(tmp_path)


def test_kaggle_is_asked_for_the_projects_set_by_default_and_its_refusal_names_no_secret(tmp_path, monkeypatch):
    write(tmp_path, "painting/a.jpg", b"x")
    asked = []

    class Kagglehub:
        @staticmethod
        def dataset_download(slug):
            asked.append(slug)
            if slug == "no/such":
                raise RuntimeError("403 for https://user:secret@kaggle.example/?token=secret")
            return str(tmp_path)

    monkeypatch.setitem(sys.modules, "kagglehub", Kagglehub)
    assert about("kaggle") == about("kaggle:some/set") == {"painting/a.jpg": ("painting", "training")}
    assert asked == [listing.KAGGLE, "some/set"]
    with pytest.raises(SourceError, match="no/such") as refused:
        list_source("kaggle:no/such")
    assert "secret" not in str(refused.value)


def test_a_url_is_listed_and_read_by_the_engine(tmp_path):
    pytest.importorskip("daft")
    from atelier.dataset.checks import Limits
    from atelier.dataset.workers import fetch

    write(tmp_path, "set/validation_set/painting/a.jpg", b"one")
    write(tmp_path, "set/training_set/painting/b.jpg", b"two")
    entries = list_source(f"file://{tmp_path}/set")
    assert [(entry.name, entry.label, entry.split) for entry in entries] == [
        ("training_set/painting/b.jpg", "painting", "training"),
        ("validation_set/painting/a.jpg", "painting", "validation"),
    ]
    assert [fetch(entry.place.decode(), Limits()) for entry in entries] == [b"two", b"one"]


@pytest.mark.parametrize("kind", ["text/html", "text/html; charset=utf-8"])
def test_a_web_servers_list_is_read_or_refused_in_one_clear_line(tmp_path, kind):
    pytest.importorskip("daft")

    class Pages(SimpleHTTPRequestHandler):
        def send_header(self, name, value):
            super().send_header(name, kind if value.startswith("text/html") else value)

        def log_message(self, *_):
            pass

    write(tmp_path, "set/training_set/painting/a.jpg", b"one")
    server = ThreadingHTTPServer(("127.0.0.1", 0), partial(Pages, directory=str(tmp_path)))
    threading.Thread(target=server.serve_forever, daemon=True).start()
    url = f"http://127.0.0.1:{server.server_port}/set"
    try:
        if kind == "text/html":
            assert about(url) == {"training_set/painting/a.jpg": ("painting", "training")}
        else:  # which the engine takes for a file: no page may come in as a picture
            with pytest.raises(SourceError, match=r"no files in http://"):
                list_source(url)
    finally:
        server.shutdown()
        server.server_close()


def test_an_error_of_the_engine_without_a_text_is_told_by_its_kind(monkeypatch):
    """Else a worker would die of it."""
    pytest.importorskip("daft")
    import daft

    from atelier.dataset import engine
    from atelier.dataset.checks import Limits, Rejection
    from atelier.dataset.workers import fetch

    def failing(*_, **__):
        raise ConnectionResetError

    monkeypatch.setattr(daft, "File", failing)
    monkeypatch.setattr(daft, "from_glob_path", failing)
    monkeypatch.setitem(sys.modules, "ray", SimpleNamespace(is_initialized=failing))
    with pytest.raises(Rejection) as rejected:
        fetch("s3://bucket/a.jpg", Limits())
    assert rejected.value.value == "ConnectionResetError"
    with pytest.raises(SourceError, match="cannot list s3://bucket: ConnectionResetError"):
        list_source("s3://bucket")
    with pytest.raises(engine.EngineError, match="no Ray cluster at this machine: ConnectionResetError"):
        engine.choose_runner("ray")
