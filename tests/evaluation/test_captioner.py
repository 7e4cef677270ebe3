"""The captioner's evaluation: its figures on captions whose worth is known, and the command that prints them."""

import json

import numpy as np
import pytest

from atelier.__main__ import main
from atelier.captioner import Caption, CaptionerError
from atelier.dataset.source import find_pictures
from atelier.evaluation.captioner import caption_figures, retrieval_figures, variety


@pytest.fixture(scope="module")
def pictures(art_folder):
    return [picture for picture in find_pictures(art_folder) if picture.split == "training"]


def test_true_captions_have_the_best_figures(pictures):
    figures = caption_figures([Caption(picture.caption, -0.5, 0.3) for picture in pictures], pictures)
    assert figures["bleu_4"] == figures["rouge_l"] == figures["distinct"] == 1
    assert figures["cider_d"] == pytest.approx(10)
    # These captions call an icon "an iconography", which nobody does.
    assert figures["medium"] == 0.8 and figures["medium_of"].pop("iconography") == 0
    assert set(figures["medium_of"].values()) == {1.0}
    assert figures["repeated_trigrams"] == 0 and figures["alignment"] == 0.3


def test_one_sentence_for_all_is_told(pictures):
    text = "a painting of a ball of a painting of a ball"
    figures = caption_figures([Caption(text, -1.0)] * len(pictures), pictures)
    assert figures["medium"] == pytest.approx(1 / 5)
    assert figures["medium_of"]["painting"] == 1 and figures["medium_of"]["engraving"] == 0
    assert figures["distinct"] == pytest.approx(1 / len(pictures), abs=1e-4)
    assert figures["repeated_trigrams"] == figures["repeated_4_grams"] == 1
    assert "alignment" not in figures


def test_variety_counts_captions():
    found = variety([Caption("a b c", -1.0), Caption("a b c", -2.0), Caption("a b d", -3.0)])
    assert found["distinct"] == pytest.approx(2 / 3, abs=1e-4) and found["confidence"] == -2


class Finder:
    """Embeds a number as a direction, and finds texts whose numbers are one too high."""

    def embed_images(self, images):
        return np.eye(4)[images]

    def embed_texts(self, texts):
        return np.eye(4)[[(int(text) + 1) % 4 for text in texts]] + 0.1 * np.eye(4)[[int(text) for text in texts]]


class Blind(Finder):
    def embed_images(self, images):
        raise CaptionerError("no text encoder")


def test_recall_both_ways():
    found = retrieval_figures(Finder(), [0, 1, 2, 3], ["0", "1", "2", "3"])
    assert found["image_to_text_r1"] == found["text_to_image_r1"] == 0
    assert found["image_to_text_r5"] == found["text_to_image_r10"] == 1
    assert retrieval_figures(Blind(), [0], ["0"]) == {}


def test_the_command_prints_one_object(art_folder, home, capsys, monkeypatch):
    monkeypatch.setattr(
        "atelier.evaluation.captioner.find_examples", lambda data, share: ([], find_pictures(*data)[:7])
    )
    command = ["evaluate", "captioner", "--captioner", str(home / "captioner"), "--data", str(art_folder)]
    assert main([*command, "--generator", str(home / "generator.h5"), "--count", "6", "--beams", "1"]) == 0
    figures = json.loads(capsys.readouterr().out)
    assert figures["pictures"] == 7 and figures["generated"]["pictures"] == 6
    assert 0 <= figures["cider_d"] <= 10 and 0 <= figures["generated"]["medium"] <= 1
