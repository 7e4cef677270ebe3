"""Captions that are known by hash: found in other copies of a picture, and never for another picture."""

import json

import numpy as np
import pytest

from atelier.dataset.known import CAPTIONS, KnownCaptions, make_known
from atelier.images import perceptual_hash
from tests.dataset.hostile import encoded, paint, write


@pytest.fixture
def known(tmp_path):
    for number in range(20):
        write(tmp_path, f"painting/{number}.png", encoded(paint(number), "PNG"))
    write(tmp_path, "engraving/twin.png", encoded(paint(0), "PNG"))  # the same picture under another label
    names = [*(f"painting/{number}.png" for number in range(20)), "engraving/twin.png"]
    lines = [{"file": name, "caption": f"of {name}", "flag": "bad" if "/3" in name else "ok"} for name in names]
    (tmp_path / "captions.jsonl").write_text("\n".join(map(json.dumps, lines)))
    assert make_known([str(tmp_path)], tmp_path / "known.jsonl") == 19
    return KnownCaptions(tmp_path / "known.jsonl")


def test_a_resized_recompressed_copy_gets_its_caption_and_another_picture_gets_none(known):
    copies = [paint(number).resize((210, 130)) for number in range(20)]
    hashes = np.array([perceptual_hash(copy) for copy in copies], np.uint64)
    found = known.find(hashes)
    assert found[1:3] == [("of painting/1.png", None), ("of painting/2.png", None)]
    assert found[3] == ("of painting/3.png", "bad")
    assert found[0] is None  # two labels claimed it
    strangers = np.array([perceptual_hash(paint(number)) for number in range(100, 200)], np.uint64)
    assert known.find(strangers) == [None] * 100


def test_a_damaged_file_is_named(tmp_path):
    (tmp_path / "known.jsonl").write_text('{"hash": "00", "caption": "a"}\n{"hash": "xyz", "caption": "b"}\n')
    with pytest.raises(ValueError, match=r"known\.jsonl, line 2"):
        KnownCaptions(tmp_path / "known.jsonl")
    with pytest.raises(ValueError, match=r"none\.jsonl"):
        KnownCaptions(tmp_path / "none.jsonl")


def test_the_projects_captions_are_whole():
    known = KnownCaptions(CAPTIONS)
    assert len(known.records) == len(np.unique(known.hashes)) > 8000
    assert all(4 <= len(caption.split()) <= 30 and caption == caption.strip() for caption, _ in known.records)
    assert {flag for _, flag in known.records} == {None, "bad", "med"}
