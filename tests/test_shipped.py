"""What the repository ships: the trained parts keep the contract, and the samples are what they paint."""

import json

import numpy as np
import pytest

from atelier.captioner import Captioner
from atelier.config import Config
from atelier.generator.painter import Painter
from atelier.images import open_picture
from atelier.seeds import STYLES
from atelier.studio import Studio
from tests.conftest import REPOSITORY

GENERATOR, CAPTIONER = REPOSITORY / "generator.h5", REPOSITORY / "captioner"
SAMPLES = REPOSITORY / "outputs" / "samples.jsonl"
has_generator = pytest.mark.skipif(not GENERATOR.is_file(), reason="no generator.h5 yet")
has_captioner = pytest.mark.skipif(not CAPTIONER.is_dir(), reason="no captioner yet")
has_samples = pytest.mark.skipif(not SAMPLES.is_file(), reason="no samples yet")


@has_generator
def test_the_generator_keeps_the_contract():
    assert GENERATOR.stat().st_size <= 16 * 2**20
    painter = Painter.load(GENERATOR)
    assert painter.size >= 64
    latents = np.random.default_rng(0).standard_normal((10, painter.latent_dim)).astype(np.float32)
    pictures = painter.paint(latents, list(STYLES) * 2).astype(int)
    assert pictures.std() > 20  # no grey fog
    distances = [np.abs(one - other).mean() for i, one in enumerate(pictures) for other in pictures[:i]]
    assert min(distances) > 8  # no two latents paint one picture


@has_captioner
def test_the_captioner_keeps_the_contract():
    assert sum(path.stat().st_size for path in CAPTIONER.iterdir()) <= 40 * 10**6
    (caption,) = Captioner.load(CAPTIONER).caption([np.full((64, 64, 3), 200, np.uint8)])
    assert len(caption.text.split()) >= 3 and caption.confidence <= 0


@has_samples
@has_generator
def test_the_samples_are_what_the_shipped_weights_paint():
    records = [json.loads(line) for line in SAMPLES.read_text(encoding="utf-8").splitlines()]
    assert sorted(record["style"] for record in records) == sorted(STYLES * 2)
    studio = Studio.open(Config(), REPOSITORY)
    again = studio.create([record["seed"] for record in records], [record["style"] for record in records])
    for record, artwork in zip(records, again, strict=True):
        saved = np.asarray(open_picture(REPOSITORY / record["output"]), int)
        assert np.abs(saved - artwork.image).max() <= 4, record["output"]  # other processors round otherwise
        assert record["caption"]
