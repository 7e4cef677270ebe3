import json

import numpy as np
import pytest
from PIL import Image

from atelier.captioner import CaptionerError
from atelier.captioner.preprocessing import CLIP_MEAN, CLIP_STD, Preprocessor


def test_the_numbers_of_one_grey_picture():
    pixels = Preprocessor(8)([Image.new("RGB", (30, 20), (51, 102, 255))])
    assert pixels.shape == (1, 8, 8, 3)
    assert pixels.dtype == np.float32
    expected = (np.array([0.2, 0.4, 1.0]) - CLIP_MEAN) / CLIP_STD
    np.testing.assert_allclose(pixels[0, 3, 5], expected, atol=1e-6)


def test_the_resize_is_bicubic():
    image = Image.fromarray(np.random.default_rng(0).integers(0, 256, (40, 50, 3), dtype=np.uint8))
    found = Preprocessor(16)([image])[0] * CLIP_STD + CLIP_MEAN
    wanted = np.asarray(image.resize((16, 16), Image.Resampling.BICUBIC)) / 255
    np.testing.assert_allclose(found, wanted, atol=1e-6)


@pytest.mark.parametrize("mode", ["L", "P", "CMYK", "1", "RGBA"])
def test_every_mode_is_seen_as_rgb(mode):
    image = Image.fromarray(np.random.default_rng(0).integers(0, 256, (16, 16, 3), dtype=np.uint8)).convert(mode)
    np.testing.assert_array_equal(Preprocessor(16)([image]), Preprocessor(16)([image.convert("RGB")]))


def test_behind_a_transparent_picture_is_white():
    image = Image.new("RGBA", (20, 20), (255, 0, 0, 51))  # red, a fifth of it
    expected = Preprocessor(8)([Image.new("RGB", (20, 20), (255, 204, 204))])
    np.testing.assert_allclose(Preprocessor(8)([image]), expected, atol=0.02)
    clear = Image.new("LA", (20, 20), (0, 0))
    np.testing.assert_array_equal(Preprocessor(8)([clear]), Preprocessor(8)([Image.new("L", (20, 20), 255)]))


def test_sixteen_bit_greys_keep_their_tones():
    tones = np.linspace(0, 65535, 64).astype(np.uint16).reshape(8, 8)
    found = Preprocessor(8)([Image.fromarray(tones)])[0] * CLIP_STD + CLIP_MEAN
    np.testing.assert_allclose(found[..., 0], tones / 65535, atol=0.005)


def test_arrays_are_pictures():
    array = np.random.default_rng(0).integers(0, 256, (12, 20, 3), dtype=np.uint8)
    np.testing.assert_array_equal(Preprocessor(8)([array]), Preprocessor(8)([Image.fromarray(array)]))


@pytest.mark.parametrize(
    "image", [np.zeros((4, 4, 3)), np.zeros((4, 4), np.uint8), np.zeros((4, 4, 4), np.uint8), "cat.png", None]
)
def test_what_is_no_picture_is_said(image):
    with pytest.raises(ValueError, match="a picture is"):
        Preprocessor(8)([image])


def test_the_file_survives_and_both_forms_of_size_are_read(tmp_path):
    path = tmp_path / "preprocessor_config.json"
    path.write_text(Preprocessor(192, (0.1, 0.2, 0.3), (0.4, 0.5, 0.6)).to_json())
    assert Preprocessor.from_file(path) == Preprocessor(192, (0.1, 0.2, 0.3), (0.4, 0.5, 0.6))
    record = {"size": 384, "image_mean": CLIP_MEAN, "image_std": CLIP_STD}
    path.write_text(json.dumps(record))
    assert Preprocessor.from_file(path) == Preprocessor(384)
    path.write_text(json.dumps(record | {"size": {"height": 3, "width": 4}}))
    with pytest.raises(CaptionerError, match="square"):
        Preprocessor.from_file(path)
