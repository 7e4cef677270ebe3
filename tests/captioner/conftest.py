"""A captioner of a few thousand random weights, built on the fly."""

import numpy as np
import pytest
from PIL import Image

from atelier.captioner import Captioner
from atelier.captioner.blip import Blip
from atelier.captioner.config import BlipConfig, TextConfig, VisionConfig
from atelier.captioner.preprocessing import Preprocessor
from atelier.captioner.tokenizer import CaptionTokenizer, train_tokenizer

CAPTIONS = [
    "an oil painting of a red barn beside a quiet lake",
    "an engraving of a ruined tower beside a river",
    "an icon of a saint with an open book",
    "a marble statue of a seated man in a quiet garden",
    "an ink drawing of a horse and a red dog",
]


def randomize(model, seed=0):
    """Give every weight a value that no initializer chose, so that none can be forgotten unnoticed."""
    rng = np.random.default_rng(seed)
    for variable in model.weights:
        scale, centre = (0.1, 1.0) if variable.path.endswith(("gamma", "moving_variance")) else (0.2, 0.0)
        variable.assign((centre + scale * rng.standard_normal(variable.shape)).astype("float32"))


def tiny_config(vocab_size, **vision):
    """A config whose vision and text differ in every size."""
    vision = {"image_size": 32, "patch_size": 8} | vision
    return BlipConfig(
        VisionConfig(24, 40, num_hidden_layers=2, num_attention_heads=3, **vision),
        TextConfig(vocab_size, 32, 48, 3, 4, max_position_embeddings=40, bos_token_id=5, sep_token_id=3),
    )


@pytest.fixture(scope="session")
def captioner():
    words = train_tokenizer(CAPTIONS * 2, 120)
    config = tiny_config(words.get_vocab_size())
    model = Blip(config)
    randomize(model)
    return Captioner(model, CaptionTokenizer(words, config.text), Preprocessor(config.vision.image_size))


@pytest.fixture(scope="session")
def pictures():
    """Eleven pictures of noise, of different sizes."""
    rng = np.random.default_rng(1)
    return [Image.fromarray(rng.integers(0, 256, (20 + 3 * i, 60 - i, 3), dtype=np.uint8)) for i in range(11)]
