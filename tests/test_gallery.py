"""The samples: every medium for every seed, and the same files whenever they are made again."""

import io
import json

from PIL import Image

from atelier.gallery import captioned_sheet, make_samples
from atelier.seeds import STYLES
from tests.conftest import FakeCaptioner


def test_samples_are_complete_and_the_same_again(studio, tmp_path, monkeypatch):
    from pathlib import Path

    monkeypatch.chdir(tmp_path)
    records = make_samples(studio, Path("outputs"), seeds=[0, 1])
    assert [(record["seed"], record["style"]) for record in records] == [(s, style) for s in (0, 1) for style in STYLES]
    lines = Path("outputs/samples.jsonl").read_text(encoding="utf-8").splitlines()
    assert [json.loads(line) for line in lines] == [record.values for record in records]
    files = {path: path.read_bytes() for path in Path("outputs").rglob("*") if path.is_file()}
    assert len(files) == 10 + 2 and all(Path(record["output"]) in files for record in records)
    make_samples(studio, Path("outputs"), seeds=[0, 1])
    assert files == {path: path.read_bytes() for path in Path("outputs").rglob("*") if path.is_file()}


def test_a_sheet_shows_captions_of_any_characters(painter):
    """Dollars are no formula, and no caption is no error."""
    from atelier.captioner import Caption
    from atelier.studio import Studio

    class Odd(FakeCaptioner):
        def caption(self, images, **_):
            return [Caption(text, -1.0) for text in (r"$\frac$ a_b^c {", "", "a long sentence " * 40)[: len(images)]]

    artworks = Studio(painter, Odd).create([1, 2, 3])
    for columns in (1, 2, 3, 5):
        with Image.open(io.BytesIO(captioned_sheet(artworks, columns))) as sheet:
            assert sheet.width > 100 * columns
