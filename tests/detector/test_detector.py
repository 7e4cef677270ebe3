"""The detector as the command line, the service and programs use it."""

import json
import shutil
import time

import numpy as np
import pytest
from PIL import Image

from atelier.__main__ import main
from atelier.detector import UNCERTAIN, Detector, DetectorError, Verdict
from atelier.detector.data import find_labelled, labels_of
from atelier.detector.metrics import accuracy
from atelier.detector.views import CONDITIONS
from atelier.evaluation.detector import evaluate_detector, share_called_human
from atelier.images import open_picture
from tests.conftest import REPOSITORY
from tests.detector.conftest import DATA, needs_data

SHIPPED = REPOSITORY / "detector.h5"
has_detector = pytest.mark.skipif(not SHIPPED.is_file(), reason="no detector.h5 yet")


@pytest.fixture(scope="module")
def detector(tiny_detector):
    return Detector.load(tiny_detector)


def test_pictures_of_all_kinds_get_a_verdict(detector):
    images = [Image.new("RGB", (300, 20)), Image.new("L", (5, 5), 255), np.full((40, 30, 3), 128, np.uint8)]
    images += [Image.new("RGBA", (9, 9), (0, 0, 0, 0)), Image.new("CMYK", (8, 8))]  # white both
    images += [Image.fromarray(np.full((9, 9), grey, np.uint16)) for grey in (0, 128 * 257, 65535)]
    verdicts = detector.detect(images, batch_size=2)
    expected = ["ai", "human", "uncertain", "human", "human", "ai", "uncertain", "human"]
    assert [each.verdict for each in verdicts] == expected
    assert detector.detect([]) == []


def test_files_get_the_verdicts_of_their_pictures(detector, two_classes):
    """In order, over several batches; a file that cannot be read is named, and the next call works."""
    paths = [picture.path for picture in find_labelled(two_classes)][:5]
    expected = [detector.probabilities([open_picture(path)])[0] for path in paths]
    assert detector.probabilities([*paths, str(paths[0])], batch_size=2) == pytest.approx([*expected, expected[0]])
    with pytest.raises(ValueError, match="missing"):
        detector.probabilities([*paths, two_classes / "missing.jpg"], batch_size=2)
    assert detector.probabilities(paths[:1]) == pytest.approx(expected[:1])


def test_the_same_unread_picture_may_come_twice(detector, two_classes):
    path = find_labelled(two_classes)[0].path
    image = Image.open(path)
    assert len(set(detector.probabilities([image] * 5, batch_size=2))) == 1
    assert image.size == Image.open(path).size


def test_the_first_batch_of_each_size_is_computed_alone(tiny_detector, monkeypatch):
    """TensorFlow may build a graph then, and two threads that do so at once have crashed it."""
    detector = Detector.load(tiny_detector)
    compute, events = detector.model.predict_on_batch, []

    def slowly(views):
        events.append("begun")
        time.sleep(0.05)  # long enough for the other thread to come by
        answers = compute(views)
        events.append("ended")
        return answers

    monkeypatch.setattr(detector.model, "predict_on_batch", slowly)
    pictures = [np.full((8, 8, 3), 128, np.uint8)] * 12
    detector.probabilities(pictures, batch_size=2)
    assert events[:2] == ["begun", "ended"] and events.count("ended") == 6
    events.clear()
    detector.probabilities(pictures, batch_size=3)
    assert events[:2] == ["begun", "ended"] and events.count("ended") == 4


def test_the_band_of_uncertainty():
    low, high = UNCERTAIN
    told = [Verdict(each).verdict for each in (0, low, (low + high) / 2, high, 1)]
    assert told == ["human", "human", "uncertain", "ai", "ai"]


def test_what_is_no_detector_is_refused(tmp_path, tiny_generator):
    with pytest.raises(DetectorError, match="no detector at"):
        Detector.load(tmp_path / "missing.h5")
    (tmp_path / "broken.h5").write_bytes(b"hello")
    with pytest.raises(DetectorError, match="damaged"):
        Detector.load(tmp_path / "broken.h5")
    with pytest.raises(DetectorError, match="maps"):
        Detector.load(tiny_generator)


def test_an_error_without_a_text_is_told_by_its_kind(tmp_path, monkeypatch):
    import keras

    def failing(*_, **__):
        raise MemoryError

    monkeypatch.setattr(keras.models, "load_model", failing)
    (tmp_path / "detector.h5").touch()
    with pytest.raises(DetectorError, match="MemoryError"):
        Detector.load(tmp_path / "detector.h5")


def test_detect_on_the_command_line(tiny_detector, two_classes, tmp_path, capsys):
    shutil.copy(two_classes / "RealArt" / "00.jpg", tmp_path / "a.jpg")
    (tmp_path / "b.jpg").write_text("no picture")
    (tmp_path / "c.png").write_bytes((tmp_path / "a.jpg").read_bytes()[:200])
    assert main(["detect", "--detector", str(tiny_detector), str(tmp_path), "--batch", "2"]) == 0
    records = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert [record["image"].rsplit("/", 1)[1] for record in records] == ["a.jpg", "b.jpg", "c.png"]
    assert records[0]["verdict"] in ("ai", "human", "uncertain") and 0 <= records[0]["ai_probability"] <= 1
    for record in records[1:]:
        assert record["ai_probability"] is None and record["verdict"] is None and "readable" in record["error"]


@pytest.mark.parametrize("arguments", [["missing.png"], ["--batch", "0", "."], ["--detector", "missing.h5", "."]])
def test_bad_arguments_are_one_line(arguments, two_classes, monkeypatch, capsys):
    monkeypatch.chdir(two_classes)
    assert main(["detect", *arguments]) == 2
    written = capsys.readouterr()
    assert not written.out and written.err.count("\n") == 1


def test_a_detector_is_evaluated(tiny_detector, two_classes, tmp_path):
    figures = evaluate_detector(tiny_detector, [two_classes], tmp_path)
    assert json.loads((tmp_path / "detector.json").read_text()) == json.loads(json.dumps(figures))
    assert set(figures["plain"]) == {"accuracy", "auroc", "ece"} and sum(figures["confusion"].values()) == 24
    assert figures["pictures_per_second"] > 0 and (tmp_path / "detector.png").read_bytes().startswith(b"\x89PNG")


def test_the_command_line_trains_and_evaluates(two_classes, tmp_path, capsys):
    recipe = tmp_path / "recipe.yaml"
    recipe.write_text("network: baseline\nfolds: 2\nviews: 1\nepochs: 9\nvalidation: 0.5\n")
    out = tmp_path / "out"
    command = ["train", "detector", "--data", str(two_classes), "--out", str(out), "--config", str(recipe)]
    assert main([*command, "--set", "epochs=1"]) == 0
    told = json.loads(capsys.readouterr().out)
    assert told["recipe"]["epochs"] == 1 and told["recipe"]["folds"] == 2
    assert main([*command, "--set", "epochs=2"]) == 2 and "another recipe" in capsys.readouterr().err
    command = ["evaluate", "detector", "--data", str(two_classes), "--detector", told["output"], "--out", str(out)]
    assert main(command) == 0
    assert "confusion" in json.loads(capsys.readouterr().out)


def test_a_generators_pictures_are_judged(tiny_detector):
    pictures = np.stack([np.full((16, 16, 3), grey, np.uint8) for grey in (0, 250, 251, 252)])
    assert share_called_human(tiny_detector, pictures)["called_human"] == 0.75


@has_detector
def test_the_shipped_detector_keeps_the_contract(python, tmp_path):
    assert SHIPPED.stat().st_size <= 12 * 2**20
    code = f"import keras; print(keras.models.load_model({str(SHIPPED)!r}, compile=False).input_shape)"
    assert python("-c", code, cwd=tmp_path).stdout.splitlines()[-1] == "(None, 224, 224, 3)"


@pytest.mark.slow
@has_detector
@needs_data
def test_compression_and_size_do_not_decide():
    """On pictures that it has learnt from, which only makes the first figure better, and the fall larger."""
    pictures = find_labelled(DATA)[::6]
    detector, labels = Detector.load(SHIPPED), labels_of(pictures)
    images = [open_picture(picture.path) for picture in pictures]
    reached = {
        name: accuracy(labels, detector.probabilities([change(image) for image in images]))
        for name, change in CONDITIONS.items()
    }
    print(reached)
    assert reached["plain"] >= 0.86 and min(reached.values()) >= reached["plain"] - 0.05
