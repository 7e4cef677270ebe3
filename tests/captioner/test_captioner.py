import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from atelier.captioner import Caption, Captioner

SHIPPED = Path(__file__).parents[2] / "captioner"


def test_importing_the_package_loads_no_tensorflow():
    code = "import sys, atelier.captioner; print(sorted({'tensorflow', 'keras', 'torch'} & sys.modules.keys()))"
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert found.stdout.strip() == "[]"


def test_captions_come_in_order_whatever_the_batch(captioner, pictures):
    captions = captioner.caption(pictures, batch_size=8)
    assert len(captions) == len(pictures)
    assert [captioner.caption([picture])[0].text for picture in pictures] == [caption.text for caption in captions]
    assert [caption.text for caption in captioner.caption(pictures, batch_size=3)] == [c.text for c in captions]


def test_a_caption_is_text_and_confidence(captioner, pictures):
    for caption in captioner.caption(pictures[:3]):
        assert isinstance(caption, Caption)
        assert caption.text == " ".join(caption.text.lower().split())
        assert not caption.text.endswith((".", " "))
        assert caption.confidence < 0


def test_the_same_pictures_have_the_same_captions(captioner, pictures):
    assert captioner.caption(pictures) == captioner.caption(pictures)


def test_no_pictures_no_captions(captioner):
    assert captioner.caption([]) == []


@pytest.mark.parametrize("beams", [1, 3])
def test_a_prompt_begins_every_caption(captioner, pictures, beams):
    for caption in captioner.caption(pictures[:3], prompt="An icon of", num_beams=beams):
        assert caption.text.startswith("an icon of")


@pytest.mark.parametrize(
    "wrong",
    [
        {"num_beams": 0},
        {"num_beams": True},
        {"max_length": 41},
        {"max_length": 1},
        {"min_length": 31},
        {"batch_size": 0},
        {"batch_size": 2.0},
        {"prompt": "a red barn", "max_length": 3},
    ],
)
def test_a_number_out_of_bounds_is_said(captioner, pictures, wrong):
    with pytest.raises(ValueError, match="is a whole number from"):
        captioner.caption(pictures[:1], **wrong)


@pytest.fixture(scope="module")
def shipped():
    if not (SHIPPED / "config.json").is_file():
        pytest.skip("the trained captioner is not here")
    return Captioner.load(SHIPPED)


def test_the_shipped_captioner_is_small(shipped):
    assert sum(path.stat().st_size for path in SHIPPED.iterdir()) < 25e6


def test_the_shipped_captioner_says_sentences(shipped):
    rng = np.random.default_rng(0)
    noise = rng.integers(0, 256, (64, 64, 3), dtype=np.uint8)
    images = [noise, Image.new("L", (300, 200), 240), Image.new("RGB", (40, 40), (200, 160, 40))]
    captions = shipped.caption(images)
    for caption in captions:
        assert re.fullmatch(r"an? [a-z][a-z ,'-]+", caption.text)
        assert len(caption.text.split()) >= 5
        assert caption.confidence < 0
    assert captions == shipped.caption(images)
