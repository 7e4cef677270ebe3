"""The pipeline as users run it: in = kept + quarantined, whatever comes; killed and gone on; on Ray the same."""

import io
import json
import os
import signal
import time
from collections import Counter

import pyarrow.parquet as pq
import pytest
from PIL import Image

from atelier.dataset.shards import PICTURES, iterate_rows, shard_paths
from atelier.images import perceptual_hash
from tests.dataset.conftest import lines_of, rows_of
from tests.dataset.hostile import ODD_NAMES, broken, encoded, paint, sound, write

pytest.importorskip("daft")

OPTIONS = ("--features", "none", "--shard-size", "20", "--workers", "2")


def test_every_file_is_kept_or_quarantined(download, prepared):
    files = {
        os.path.relpath(os.path.join(folder, name), os.fsencode(download)).decode("utf-8", "backslashreplace")
        for folder, _, names in os.walk(os.fsencode(download))
        for name in names
        if not name.startswith(b".")
    }
    kept = [row["source"] for row in iterate_rows(shard_paths(prepared), ["source"])]
    gone = [row["source"] for row in lines_of(prepared / "quarantine.jsonl")]
    assert sorted(kept + gone) == sorted(files)
    report = json.loads((prepared / "report.json").read_text())
    assert (report["files"], report["kept"], report["quarantined"]) == (len(files), len(kept), len(gone))
    assert sum(report["reasons"].values()) == len(gone) and sum(report["labels"].values()) == len(kept)


def test_each_rejection_has_its_reason_and_value(prepared):
    gone = {row["source"].rsplit("/", 1)[-1]: row for row in lines_of(prepared / "quarantine.jsonl")}
    expected = {f"broken-{name}": reason for name, (_, reason) in broken(3000).items()}
    expected |= {"pipe.jpg": "unreadable", "link.jpg": "unreadable"}
    # Of the copies one stays: the validation one, else the first by name.
    expected |= {"00001.jpg": "near-duplicate", "00002.jpg": "near-duplicate"}
    expected |= {"same-file.jpg": "exact duplicate", "same-pixels.png": "exact duplicate"}
    assert {name: row["reason"] for name, row in gone.items()} == expected
    assert all(row["value"] is not None for row in gone.values())
    assert gone["broken-tiny.png"]["value"] == "40x90"
    twin = gone["00002.jpg"]["value"]
    assert twin["of"].endswith("validation_set/painting/twin.jpg") and 0 < twin["difference"] < 12
    assert gone["same-pixels.png"]["value"]["of"].endswith("validation_set/painting/same-pixels.bmp")


def test_the_shards_have_the_schema_and_whole_pictures(prepared):
    names = set()
    for path in shard_paths(prepared):
        assert pq.read_schema(path).equals(PICTURES)
        for row in iterate_rows([path]):
            image = Image.open(io.BytesIO(row["image"]))
            assert (image.format, image.mode, image.size) == ("JPEG", "RGB", (row["width"], row["height"]))
            assert image.load() and row["split"] in ("training", "validation")
            assert row["label"] in ("painting", "engraving") and len(row["hash"]) == 16
            names.add(row["source"].rsplit("/", 1)[-1])
    assert set(sound(2000)) <= names
    assert {name.decode("utf-8", "backslashreplace") for name in ODD_NAMES} <= names


def test_standard_output_is_one_json_object_and_the_report_is_one_file(prepared):
    answer = json.loads((prepared / "stdout.json").read_text())
    assert answer["files"] == answer["kept"] + answer["quarantined"]
    page = (prepared / "report.html").read_text()
    assert "data:image/jpeg;base64," in page and "near-duplicate" in page
    assert "http" not in page.replace("</html>", "")


def test_captions_come_from_the_source_then_by_hash_and_confidence_from_the_captioner(
    tmp_path, atelier, tiny_captioner
):
    for number in range(6):
        write(tmp_path / "source" / "painting", f"{number}.png", encoded(paint(number), "PNG"))
    record = {"file": "painting/0.png", "label": "painting", "caption": "given"}
    (tmp_path / "source" / "captions.jsonl").write_text(json.dumps(record) + "\n")
    known = {"hash": f"{perceptual_hash(paint(1)):016x}", "caption": "known", "flag": "med"}
    (tmp_path / "known.jsonl").write_text(json.dumps(known) + "\n")
    out = tmp_path / "out"
    done = atelier(
        tmp_path / "source", out, *OPTIONS, "--captions", tmp_path / "known.jsonl", "--captioner", tiny_captioner
    )
    assert done.returncode == 0, done.stderr
    rows = {row["source"]: row for row in iterate_rows(shard_paths(out))}
    assert len(rows) == 6
    first, second, third = (rows[f"painting/{number}.png"] for number in range(3))
    assert (first["caption"], first["caption_source"], first["confidence"]) == ("given", "given", None)
    assert (second["caption"], second["caption_source"], second["flag"]) == ("known", "known", "med")
    assert third["caption_source"] == "captioner" and third["caption"] and third["confidence"] < 0
    assert {line["file"]: line["caption"] for line in lines_of(out / "captions.jsonl")}["painting/1.png"] == "known"


def test_styles_are_selected(download, tmp_path, atelier):
    done = atelier(download, tmp_path / "out", *OPTIONS, "--styles", "engraving")
    assert done.returncode == 0, done.stderr
    assert {row["label"] for row in iterate_rows(shard_paths(tmp_path / "out"), ["label"])} == {"engraving"}
    gone = Counter(
        row["label"] for row in lines_of(tmp_path / "out" / "quarantine.jsonl") if row["reason"] == "not selected"
    )
    assert set(gone) == {"painting"}


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["SOURCE/nowhere"], "no folder at"),
        (["EMPTY"], "no files in"),
        (["file:///nowhere/at/all"], "cannot list file:///nowhere/at/all"),
        (["SOURCE", "--styles", "cubism"], "no cubism in"),
        (["SOURCE", "--captions", "SOURCE/none.jsonl"], "no captions at"),
        (["SOURCE", "--captioner", "SOURCE"], "no captioner at"),
        (["SOURCE", "--features", "SOURCE/none.h5"], "no weights of features at"),
        (["SOURCE", "--address", "here:1"], "--address names a Ray cluster"),
        (["SOURCE", "--shard-size", "0"], "at least one file"),
    ],
)
def test_bad_input_is_one_clear_line(tmp_path, atelier, arguments, message):
    write(tmp_path / "SOURCE" / "painting", "a.png", encoded(paint(0), "PNG"))
    (tmp_path / "EMPTY").mkdir()
    local = [each for each in arguments if each.isupper() or ("/" in each and "://" not in each)]
    arguments = [str(tmp_path / each) if each in local else each for each in arguments]
    done = atelier(arguments[0], tmp_path / "out", *arguments[1:])
    assert done.returncode == 2 and not done.stdout
    assert message in done.stderr and len(done.stderr.strip().splitlines()) == 1


def test_a_folder_with_something_else_or_other_settings_is_left_alone(download, prepared, tmp_path, atelier):
    (tmp_path / "notes.txt").write_text("mine")
    done = atelier(download, tmp_path, *OPTIONS)
    assert done.returncode == 2 and "no preparation" in done.stderr
    assert os.listdir(tmp_path) == ["notes.txt"]
    done = atelier(download, prepared, "--features", "none", "--shard-size", "20", "--min-side", "10")
    assert done.returncode == 2 and "other settings (limits)" in done.stderr


def test_a_finished_preparation_is_not_made_again(download, prepared, atelier):
    before = {path: path.stat().st_mtime_ns for path in prepared.rglob("*") if path.is_file()}
    assert atelier(download, prepared, "--features", "none", "--shard-size", "20", "--keep-work").returncode == 0
    assert {path: path.stat().st_mtime_ns for path in prepared.rglob("*") if path.is_file()} == before


FEW = (("examined", 2), ("shards", 2))
MANY = (("files", 1), ("examined", 1), ("examined", 4), ("decided", 1), ("shards", 2))


@pytest.mark.parametrize("moments", [FEW, pytest.param(MANY, marks=pytest.mark.slow)])
def test_killed_at_any_moment_it_goes_on_and_loses_and_doubles_nothing(download, prepared, tmp_path, atelier, moments):
    out = tmp_path / "out"
    finished = {}  # shards that were whole when the run was killed
    for folder, least in moments:
        place = out / ("shards" if folder == "shards" else f"work/{folder}")
        process = atelier(download, out, *OPTIONS, start=True)
        while process.poll() is None and len(list(place.glob("part-*"))) < least:
            time.sleep(0.002)
        process.send_signal(signal.SIGKILL)
        process.communicate()
        assert process.returncode == -signal.SIGKILL, "it was over before it could be killed"
        for path, modified in finished.items():
            assert path.stat().st_mtime_ns == modified, f"{path.name} was made twice"
        time.sleep(0.5)  # a worker that outlives its parent may finish its shard
        finished = {path: path.stat().st_mtime_ns for path in (out / "work" / "examined").glob("part-*")}
    done = atelier(download, out, *OPTIONS)
    assert done.returncode == 0, done.stderr
    assert rows_of(out) == rows_of(prepared)
    assert lines_of(out / "quarantine.jsonl") == lines_of(prepared / "quarantine.jsonl")
    assert not (out / "work").exists()


def test_how_many_workers_is_no_part_of_the_result(download, prepared, tmp_path, atelier):
    done = atelier(download, tmp_path / "out", "--features", "none", "--shard-size", "20", "--workers", "1")
    assert done.returncode == 0, done.stderr
    assert rows_of(tmp_path / "out") == rows_of(prepared)


def test_without_a_network_of_features_the_doubts_are_left_out_and_the_report_says_so(tmp_path, atelier, monkeypatch):
    monkeypatch.setenv("KERAS_HOME", str(tmp_path / "keras"))  # nothing was downloaded before
    monkeypatch.setenv("https_proxy", "http://127.0.0.1:9")  # and no internet is there
    for number in range(4):
        write(tmp_path / "source" / "painting", f"{number}.png", encoded(paint(number), "PNG"))
    done = atelier(tmp_path / "source", tmp_path / "out", "--features", "imagenet", "--workers", "1")
    assert done.returncode == 0, done.stderr
    (note,) = json.loads(done.stdout)["notes"]
    assert "not judged" in note and "cannot be downloaded" in note
    assert json.loads(done.stdout)["kept"] == 4
    assert all(row["label_doubt"] is None for row in iterate_rows(shard_paths(tmp_path / "out")))


@pytest.mark.slow
def test_ray_gives_the_same_rows(download, prepared, tmp_path, atelier):
    pytest.importorskip("ray")
    done = atelier(download, tmp_path / "out", *OPTIONS, "--runner", "ray")
    assert done.returncode == 0, done.stderr
    assert rows_of(tmp_path / "out") == rows_of(prepared)
    assert lines_of(tmp_path / "out" / "quarantine.jsonl") == lines_of(prepared / "quarantine.jsonl")
