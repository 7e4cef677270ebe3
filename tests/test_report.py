"""The report: figures from what commands left, a page, and texts whose numbers are the report's."""

import hashlib
import json
from html.parser import HTMLParser

import pytest

from atelier.__main__ import main
from atelier.reporting import gather as gathering
from atelier.reporting.gather import gather, texts
from atelier.reporting.marks import fill, marked
from atelier.reporting.page import page
from tests.conftest import REPOSITORY

REPORT = REPOSITORY / "docs" / "report.json"
TEXTS = sorted((REPOSITORY / "docs" / "cards").glob("*.md"))

SPEC = """
generator:
  title: Generator
  file: runs/figures.json
  command: evaluate it
  weights: {generator.h5: sha}
  floor_is: real pictures
  baseline: {is: a plain one, file: runs/plain.json, command: evaluate the plain one}
  figures:
    kid: {label: KID <× 1000>, value: kid.mean, spread: kid.std, floor: floor.kid, times: 1000, digits: 2}
    share: {label: share, value: share, times: 100, digits: 0, unit: " %"}
    count: {label: pictures, value: count, digits: 0, compared: false}
speed:
  title: Speed
  file: runs/speed.jsonl
  command: measure it
  figures:
    ratio: {label: ratio, value: captions.ratio, digits: 1, unit: " ×"}
curves:
  generator: {title: KID, files: "runs/*/history.csv", x: pictures, y: kid}
"""


@pytest.fixture
def project(tmp_path, monkeypatch):
    """A folder with what commands left, and a small list of figures."""
    spec = tmp_path / "figures.yaml"
    spec.write_text(SPEC)
    monkeypatch.setattr(gathering, "SPEC", spec)
    (tmp_path / "generator.h5").write_bytes(b"weights")
    sha = hashlib.sha256(b"weights").hexdigest()[:16]
    leave(tmp_path, "figures.json", {"kid": {"mean": 0.00045, "std": 2e-5}, "floor": {"kid": 1e-5}, "sha": sha})
    leave(
        tmp_path,
        "figures.json",
        json.loads((tmp_path / "runs/figures.json").read_text()) | {"share": 0.777, "count": 1600},
    )
    leave(tmp_path, "plain.json", {"kid": {"mean": 0.004, "std": 1e-4}, "share": 0.5, "count": 1600})
    lines = [{"name": "captions", "ratio": 1.0}, {"name": "captions", "ratio": 2.04}]
    (tmp_path / "runs/speed.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    (tmp_path / "runs/one").mkdir()
    (tmp_path / "runs/one/history.csv").write_text("pictures,kid\n10,\n20,0.5\n30,0.25\n")
    return tmp_path


def leave(folder, name, content):
    (folder / "runs").mkdir(exist_ok=True)
    (folder / "runs" / name).write_text(json.dumps(content))


def test_figures_are_read_and_written_as_the_list_says(project):
    report = gather(project)
    assert texts(report) == {
        "generator.kid": "0.45 ± 0.02",
        "generator.kid.floor": "0.01",
        "generator.kid.baseline": "4.00 ± 0.10",
        "generator.share": "78 %",
        "generator.share.baseline": "50 %",
        "generator.count": "1,600",
        "speed.ratio": "2.0 ×",  # of a benchmark that was run twice, the last
    }
    assert report["curves"]["generator"]["lines"] == {"one": [(20, 0.5), (30, 0.25)]}
    assert report["notes"] == [] and report["sections"]["speed"]["command"] == "measure it"


def test_what_is_not_there_stays_as_it_was(project):
    earlier = json.loads(json.dumps(gather(project)))
    for lost in ("runs/speed.jsonl", "runs/one/history.csv"):
        (project / lost).unlink()
    report = json.loads(json.dumps(gather(project, earlier)))
    assert "earlier report" in report.pop("notes")[0] and earlier.pop("notes") == [] and report == earlier
    assert "speed.ratio" not in texts(gather(project))


def test_a_baseline_that_is_not_there_stays_as_it_was(project):
    """It took hours to train, and does not change with the figures that it is held against."""
    earlier = gather(project)
    (project / "runs/plain.json").unlink()
    leave(project, "figures.json", json.loads((project / "runs/figures.json").read_text()) | {"share": 0.8})
    report = gather(project, earlier)
    assert texts(report) == texts(earlier) | {"generator.share": "80 %"}
    assert report["sections"]["generator"]["baseline"] == earlier["sections"]["generator"]["baseline"]
    assert report["notes"] == [
        "generator: the baseline as in the earlier report, no runs/plain.json: evaluate the plain one"
    ]
    assert "generator.kid.baseline" not in texts(gather(project))


def test_a_benchmark_that_was_left_out_is_no_figure(project):
    (project / "runs/speed.jsonl").write_text('{"name": "training", "ratio": 1.5}')
    report = gather(project)
    assert report["sections"]["speed"]["figures"] == {} and report["notes"] == []
    assert "measure it" in page(report, project)


def test_figures_of_other_weights_are_told(project):
    (project / "generator.h5").write_bytes(b"other weights")
    (note,) = gather(project)["notes"]
    assert "another generator.h5" in note and "evaluate it" in note


@pytest.mark.parametrize(
    ("content", "told"),
    [
        ("{", "damaged"),
        ("{}", "no kid.mean"),
        ('{"kid": {"mean": "low", "std": 1}}', "no number"),
        ("[]", "no kid.mean"),
    ],
)
def test_a_damaged_file_is_named(project, content, told):
    (project / "runs/figures.json").write_text(content)
    with pytest.raises(ValueError, match=rf"runs/figures\.json.*{told}"):
        gather(project)


class Reader(HTMLParser):
    """All text of a page, and what its pictures are."""

    def __init__(self, text):
        super().__init__()
        self.words, self.pictures = [], []
        self.feed(text)

    def handle_data(self, data):
        self.words.append(data)

    def handle_starttag(self, tag, attributes):
        if tag == "img":
            self.pictures.append(dict(attributes)["src"])


def test_the_page_shows_all_of_it(project):
    docs = project / "docs"
    (docs / "gallery").mkdir(parents=True)
    (docs / "gallery/painting.jpg").write_bytes(b"")
    report = gather(project)
    read = Reader(page(report, docs))
    words = "\n".join(read.words)
    for text in (*texts(report).values(), "KID <× 1000>", "evaluate the plain one", "measure it", "real pictures"):
        assert text in words
    assert "gallery/painting.jpg" in read.pictures and any(src.startswith("data:image/png") for src in read.pictures)


def test_marked_numbers_are_found_and_filled():
    text = "KID <!--generator.kid-->0.5<!--/--> on <!--generator.count-->9<!--/--> <!-- a comment -->"
    assert list(marked(text)) == [("generator.kid", "0.5"), ("generator.count", "9")]
    filled = fill(text, {"generator.kid": r"0.45 ± \1", "generator.count": "1,600"})
    assert (
        filled == r"KID <!--generator.kid-->0.45 ± \1<!--/--> on <!--generator.count-->1,600<!--/--> <!-- a comment -->"
    )
    with pytest.raises(ValueError, match=r"no generator\.kid"):
        fill(text, {"generator.count": "1"})


@pytest.mark.parametrize("text", ["a <!--generator.kid-->0.5", "0.5<!--/-->", "<!--a.b-->1\n2<!--/-->"])
def test_half_a_mark_is_refused(text):
    with pytest.raises(ValueError, match="stands alone"):
        list(marked(text))


def test_the_command_writes_the_report_and_fills_texts(project, capsys, monkeypatch):
    monkeypatch.setattr("atelier.__main__.PROJECT", project)
    readme, card = project / "README.md", project / "docs/cards/generator.md"
    card.parent.mkdir(parents=True)
    readme.write_text("of <!--generator.count-->2<!--/--> pictures")
    card.write_text("<!--speed.ratio-->2.0 ×<!--/-->")
    assert main(["report", "--docs", str(project / "docs")]) == 0
    answer = json.loads(capsys.readouterr().out)
    assert answer["filled"] == [readme.as_posix()] and answer["figures"] == 7
    assert readme.read_text() == "of <!--generator.count-->1,600<!--/--> pictures"
    before = (project / "docs/report.json").read_bytes()
    assert texts(json.loads(before))["speed.ratio"] == "2.0 ×" and (project / "docs/report.html").is_file()
    leave(project, "plain.json", {"kid": {"mean": 1, "std": 1}, "share": 0, "count": 1})
    card.write_text("<!--speed.nothing-->1<!--/-->")
    assert main(["report", "--docs", str(project / "docs")]) == 2
    assert "the report has no speed.nothing" in capsys.readouterr().err
    assert (project / "docs/report.json").read_bytes() == before  # nothing is written by halves


# --- what the repository holds


@pytest.mark.parametrize("path", [REPOSITORY / "README.md", *TEXTS], ids=lambda path: path.name)
def test_the_numbers_of_a_text_are_the_reports(path):
    text, known = path.read_text(encoding="utf-8"), texts(json.loads(REPORT.read_text(encoding="utf-8")))
    assert text == fill(text, known), "run `make report`"
    assert any(marked(text))


def test_the_figures_are_of_the_weights_that_ship():
    for section in json.loads(REPORT.read_text(encoding="utf-8"))["sections"].values():
        for file, mark in section.get("weights", {}).items():
            assert hashlib.sha256((REPOSITORY / file).read_bytes()).hexdigest().startswith(mark), section["command"]


def test_the_page_is_the_reports():
    report = json.loads(REPORT.read_text(encoding="utf-8"))
    shown = (REPOSITORY / "docs/report.html").read_text(encoding="utf-8")
    words = "\n".join(Reader(shown).words)
    assert all(text in words for text in texts(report).values())
    for src in Reader(shown).pictures:
        assert src.startswith("data:") or (REPOSITORY / "docs" / src).is_file(), src
