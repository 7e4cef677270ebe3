import json

import keras
import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

from atelier.captioner import Captioner, CaptionerError
from atelier.captioner.blip import Blip
from atelier.captioner.stem import Stem
from atelier.captioner.weights import load_weights, to_tensors
from tests.captioner.conftest import randomize, tiny_config


@pytest.fixture()
def folder(captioner, tmp_path):
    captioner.save(tmp_path / "saved")
    return tmp_path / "saved"


def logits(captioner):
    rng = np.random.default_rng(2)
    pixels = rng.standard_normal((2, 32, 32, 3)).astype("float32")
    return np.asarray(captioner.model((pixels, rng.integers(6, 60, (2, 7)))))


def test_a_saved_captioner_loads_the_same(captioner, folder, pictures):
    loaded = Captioner.load(folder)
    np.testing.assert_array_equal(logits(loaded), logits(captioner))
    assert loaded.caption(pictures) == captioner.caption(pictures)
    assert {path.name for path in folder.iterdir()} == {
        "config.json",
        "model.safetensors",
        "tokenizer.json",
        "preprocessor_config.json",
    }


def test_half_precision_files_load_as_float32(captioner, tmp_path):
    captioner.save(tmp_path, dtype="float16")
    assert load_file(tmp_path / "model.safetensors")["text_decoder.cls.predictions.bias"].dtype == np.float16
    loaded = Captioner.load(tmp_path)
    assert {variable.dtype for variable in loaded.model.weights} == {"float32"}
    np.testing.assert_allclose(logits(loaded), logits(captioner), atol=0.02)


def test_hugging_face_layout(captioner, folder):
    tensors = load_file(folder / "model.safetensors")
    layer = captioner.model.vision_model.blocks[1]
    np.testing.assert_array_equal(
        tensors["vision_model.encoder.layers.1.self_attn.qkv.weight"], np.asarray(layer.qkv.kernel).T
    )
    patches = tensors["vision_model.embeddings.patch_embedding.weight"]
    assert patches.shape == (24, 3, 8, 8)
    kernel = np.asarray(captioner.model.vision_model.patch_embedding.kernel)
    assert patches[4, 2, 5, 7] == kernel[5, 7, 2, 4]
    assert "text_decoder.bert.encoder.layer.2.crossattention.self.key.weight" in tensors


def test_missing_tensors_are_all_named(folder):
    tensors = load_file(folder / "model.safetensors")
    gone = ["text_decoder.bert.encoder.layer.0.output.dense.bias", "vision_model.post_layernorm.weight"]
    save_file({name: value for name, value in tensors.items() if name not in gone}, folder / "model.safetensors")
    with pytest.raises(CaptionerError, match="2 missing tensors") as error:
        Captioner.load(folder)
    assert all(name in str(error.value) for name in gone)


def test_no_random_weights_are_made_first(captioner, folder, monkeypatch):
    def refuse(*_, **__):
        raise AssertionError("a random weight was made")

    for kind in (keras.initializers.GlorotUniform, keras.initializers.RandomNormal, keras.initializers.TruncatedNormal):
        monkeypatch.setattr(kind, "__call__", refuse)
    np.testing.assert_array_equal(logits(Captioner.load(folder)), logits(captioner))


def test_a_keras_without_our_way_in_loads_the_same(captioner, folder, monkeypatch):
    monkeypatch.setattr(keras.Variable, "_initializer", property(lambda self: self.first, keep_first), raising=False)
    np.testing.assert_array_equal(logits(Captioner.load(folder)), logits(captioner))


def keep_first(variable, initializer):
    """Set an initializer, unless there is one already."""
    variable.__dict__.setdefault("first", None)
    variable.__dict__["first"] = variable.__dict__["first"] or initializer


def test_extra_tensors_are_left_aside(captioner, folder):
    tensors = load_file(folder / "model.safetensors")
    tensors["itm_head.weight"] = np.ones((2, 24), "float32")
    tensors["text_decoder.cls.predictions.decoder.weight"] = np.zeros((7, 7), "float32")
    save_file(tensors, folder / "model.safetensors")
    np.testing.assert_array_equal(logits(Captioner.load(folder)), logits(captioner))


def test_a_tensor_of_another_shape_is_named(folder):
    tensors = load_file(folder / "model.safetensors")
    tensors["vision_model.post_layernorm.bias"] = np.zeros(25, "float32")
    save_file(tensors, folder / "model.safetensors")
    with pytest.raises(CaptionerError, match=r"vision_model\.post_layernorm\.bias has shape \(25,\)"):
        Captioner.load(folder)
    save_file(tensors | {"vision_model.post_layernorm.bias": np.zeros(24, "float32")}, folder / "model.safetensors")
    Captioner.load(folder)  # nothing of the failure is left in Keras


@pytest.mark.parametrize("name", ["config.json", "model.safetensors", "tokenizer.json", "preprocessor_config.json"])
@pytest.mark.parametrize("damage", ["truncated", "garbage", "missing"])
def test_a_broken_file_is_one_clear_error(folder, name, damage):
    path = folder / name
    data = path.read_bytes()
    path.unlink()
    if damage != "missing":
        path.write_bytes(data[: len(data) // 2] if damage == "truncated" else b"<html>not found</html>" * 20)
    with pytest.raises(CaptionerError, match=name) as error:
        Captioner.load(folder)
    assert "\n" not in str(error.value)


def test_a_missing_folder_is_said(tmp_path):
    with pytest.raises(CaptionerError, match="no such folder"):
        Captioner.load(tmp_path / "nowhere")


@pytest.mark.parametrize(
    ("part", "key", "value", "words"),
    [
        ("vision_config", "hidden_act", "relu", "hidden_act"),
        ("vision_config", "stem", "resnet", "stem"),
        ("text_config", "num_attention_heads", 7, "num_attention_heads"),
        ("text_config", "hidden_size", "wide", "hidden_size"),
    ],
)
def test_a_config_that_cannot_be_built_is_said(folder, part, key, value, words):
    record = json.loads((folder / "config.json").read_text())
    record[part][key] = value
    (folder / "config.json").write_text(json.dumps(record))
    with pytest.raises(CaptionerError, match=words):
        Captioner.load(folder)


def test_the_stem_is_mobilenet():
    known = keras.applications.MobileNetV2(include_top=False, weights=None, input_shape=(64, 64, 3))
    rng = np.random.default_rng(0)
    for variable in known.weights:
        if not variable.path.endswith("kernel"):
            variable.assign(rng.uniform(0.5, 1.5, variable.shape))
    stem = Stem()
    stem.build()
    stem.set_weights(known.get_weights())
    assert [v.path.split("/")[-2:] for v in stem.weights] == [v.path.split("/")[-2:] for v in known.weights]
    pixels = rng.uniform(-1, 1, (2, 64, 64, 3)).astype("float32")
    expected = np.asarray(known(pixels, training=False))
    assert expected.std() > 0.01
    np.testing.assert_allclose(stem(pixels), expected, atol=1e-4)
    stem.freeze()
    np.testing.assert_allclose(stem(pixels), expected, atol=1e-4)


def test_the_stem_is_in_the_same_file():
    config = tiny_config(60, image_size=64, patch_size=1, stem="mobilenet_v2")
    first, second = Blip(config), Blip(config)
    randomize(first)
    tensors = to_tensors(first)
    assert tensors["vision_model.embeddings.stem.Conv1.weight"].shape == (32, 3, 3, 3)
    assert tensors["vision_model.embeddings.stem.expanded_conv_depthwise.weight"].shape == (32, 1, 3, 3)
    assert "vision_model.embeddings.stem.bn_Conv1.running_var" in tensors
    load_weights(second, tensors)
    pixels = np.random.default_rng(0).standard_normal((1, 64, 64, 3)).astype("float32")
    features = [np.asarray(model.vision_model(pixels)) for model in (first, second)]
    assert features[0].shape == (1, 1 + 2 * 2, 24)
    np.testing.assert_array_equal(*features)
