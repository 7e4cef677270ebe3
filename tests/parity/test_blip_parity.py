"""Our BLIP against the one of `transformers`, on tiny models with every weight at random: no download needed."""

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

torch = pytest.importorskip("torch")
transformers = pytest.importorskip("transformers")

from atelier.captioner import Captioner  # noqa: E402
from atelier.captioner.blip import Blip  # noqa: E402
from atelier.captioner.checkpoints import read_tensors  # noqa: E402
from atelier.captioner.config import BlipConfig, RetrievalConfig  # noqa: E402
from atelier.captioner.decoding import Decoder, Search, generate  # noqa: E402
from atelier.captioner.preprocessing import Preprocessor  # noqa: E402
from atelier.captioner.tokenizer import CaptionTokenizer, train_tokenizer  # noqa: E402
from atelier.captioner.weights import build, save_pretrained  # noqa: E402
from tests.captioner.conftest import CAPTIONS, randomize, tiny_config  # noqa: E402

BASE = Path(__file__).parents[2] / "data" / "blip-base"
IDS = {"bos_token_id": 97, "pad_token_id": 0, "sep_token_id": 3, "eos_token_id": 2}
SHAPES = {
    "narrow text": (
        {"hidden_size": 48, "intermediate_size": 80, "num_hidden_layers": 3, "num_attention_heads": 4}
        | {"image_size": 64, "patch_size": 16},
        {"hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2, "num_attention_heads": 8}
        | {"vocab_size": 99, "max_position_embeddings": 40},
    ),
    "wide text": (
        {"hidden_size": 30, "intermediate_size": 44, "num_hidden_layers": 2, "num_attention_heads": 5}
        | {"image_size": 36, "patch_size": 12},
        {"hidden_size": 56, "intermediate_size": 60, "num_hidden_layers": 4, "num_attention_heads": 2}
        | {"vocab_size": 130, "max_position_embeddings": 33},
    ),
}


def shake(theirs, spread=0.2):
    """Give every parameter another value: wide enough that the picture and every word matter; norms about 1."""
    generator = torch.Generator().manual_seed(7)
    with torch.no_grad():
        for parameter in theirs.parameters():
            parameter.copy_(torch.randn(parameter.shape, generator=generator) * spread + (parameter.mean() > 0.9))


def load(folder, weights="model.safetensors"):
    """Our model from the files that theirs wrote."""
    return build(BlipConfig.from_file(folder / "config.json"), read_tensors(folder / weights))


@pytest.fixture(scope="module", params=SHAPES)
def pair(request, tmp_path_factory):
    """(theirs, ours) with the same random weights, ours by way of the files that theirs writes."""
    vision, text = SHAPES[request.param]
    theirs = transformers.BlipForConditionalGeneration(
        transformers.BlipConfig(vision_config=vision, text_config=text | IDS)
    ).eval()
    shake(theirs)
    folder = tmp_path_factory.mktemp("blip")
    theirs.save_pretrained(folder)
    return theirs, load(folder)


@pytest.fixture(scope="module")
def decoder(pair):
    return Decoder(pair[1])


@pytest.fixture(scope="module")
def pixels(pair):
    size = pair[1].config.vision.image_size
    return np.random.default_rng(3).standard_normal((4, size, size, 3)).astype("float32")


def as_torch(pixels):
    return torch.from_numpy(pixels.transpose(0, 3, 1, 2).copy())


def test_vision(pair, pixels):
    theirs, ours = pair
    with torch.no_grad():
        expected = theirs.vision_model(as_torch(pixels)).last_hidden_state.numpy()
    np.testing.assert_allclose(np.asarray(ours.vision_model(pixels)), expected, atol=1e-4)


def test_logits(pair, pixels):
    theirs, ours = pair
    ids = np.random.default_rng(4).integers(4, 97, (4, 11))
    with torch.no_grad():
        expected = theirs(pixel_values=as_torch(pixels), input_ids=torch.from_numpy(ids)).logits.numpy()
    assert np.abs(expected).std() > 0.1
    np.testing.assert_allclose(np.asarray(ours((pixels, ids))), expected, atol=1e-4)


@pytest.mark.parametrize("beams", [1, 3])
@pytest.mark.parametrize(
    ("prompt", "low", "high", "ngram", "penalty"),
    [([], 0, 20, 0, 1.0), ([11, 12, 13], 8, 30, 3, 1.0), ([50], 20, 24, 2, 1.0), ([50, 51], 5, 16, 1, 1.7)],
)
def test_generated_tokens(pair, decoder, pixels, beams, prompt, low, high, ngram, penalty):
    theirs, _ = pair
    settings = {"num_beams": beams, "min_length": low, "max_length": high, "no_repeat_ngram_size": ngram}
    settings["repetition_penalty"] = penalty
    start = [IDS["bos_token_id"], *prompt]
    # `generate` cuts off the last token, where the tokenizer's [SEP] stands, and overwrites the first.
    ids = torch.tensor([[1, *prompt, IDS["sep_token_id"]]] * len(pixels))
    with torch.no_grad():
        expected = theirs.generate(pixel_values=as_torch(pixels), input_ids=ids, do_sample=False, **settings)
    found = generate(decoder, pixels, start, Search(beams, high, low, ngram, penalty))
    for row, (tokens, _) in zip(expected.tolist(), found, strict=True):
        ends = [place for place, token in enumerate(row) if token == IDS["sep_token_id"]]
        assert tokens == row[: ends[0] if ends else None]


def test_bin_and_safetensors_are_the_same(pair, tmp_path):
    theirs, ours = pair
    theirs.config.save_pretrained(tmp_path)
    torch.save(theirs.state_dict(), tmp_path / "pytorch_model.bin")
    for one, other in zip(ours.weights, load(tmp_path, "pytorch_model.bin").weights, strict=True):
        np.testing.assert_array_equal(one, other)


@pytest.mark.parametrize("shape", SHAPES)
def test_scores_of_pictures_and_texts(shape, tmp_path):
    vision, text = SHAPES[shape]
    settings = transformers.BlipConfig(vision_config=vision, text_config=text | IDS, image_text_hidden_size=20)
    theirs = transformers.BlipForImageTextRetrieval(settings).eval()
    shake(theirs)
    theirs.save_pretrained(tmp_path)
    ours = load(tmp_path)
    assert ours.config.text is None and ours.config.retrieval.hidden_size == 20
    rng, size = np.random.default_rng(9), ours.config.vision.image_size
    pixels = rng.standard_normal((3, size, size, 3)).astype("float32")
    ids, mask = rng.integers(4, 97, (3, 9)), np.arange(9) < np.array([[9], [5], [7]])
    inputs = {"input_ids": torch.from_numpy(ids), "attention_mask": torch.from_numpy(mask.astype(int))}
    with torch.no_grad():
        cosines = theirs(**inputs, pixel_values=as_torch(pixels), use_itm_head=False).itm_score.numpy()
        matches = theirs(**inputs, pixel_values=as_torch(pixels), use_itm_head=True).itm_score.numpy()
    image = ours.vision_model(pixels)
    found = np.asarray(ours.embed_image(image)) @ np.asarray(ours.embed_text(ids, mask)).T
    assert cosines.std() > 0.05 and matches.std() > 0.05
    np.testing.assert_allclose(found, cosines, atol=1e-4)
    np.testing.assert_allclose(np.asarray(ours.match(image, ids, mask)), matches, atol=1e-4)


@pytest.mark.slow
@pytest.mark.skipif(not BASE.is_dir(), reason="needs the base model's config.json in data/blip-base")
def test_the_base_model_in_full_size(tmp_path):
    """Every parameter of `Salesforce/blip-image-captioning-base`'s shape at random, by way of a torch.save file."""
    settings = transformers.BlipConfig.from_pretrained(BASE)
    theirs = transformers.BlipForConditionalGeneration(settings).eval()
    shake(theirs, 0.05)
    settings.save_pretrained(tmp_path)
    torch.save(theirs.state_dict(), tmp_path / "pytorch_model.bin")
    ours = load(tmp_path, "pytorch_model.bin")
    rng = np.random.default_rng(3)
    pixels = rng.standard_normal((2, 384, 384, 3)).astype("float32")
    ids = rng.integers(1000, 30000, (2, 11))
    with torch.no_grad():
        vision = theirs.vision_model(as_torch(pixels)).last_hidden_state.numpy()
        logits = theirs(pixel_values=as_torch(pixels), input_ids=torch.from_numpy(ids)).logits.numpy()
    np.testing.assert_allclose(np.asarray(ours.vision_model(pixels)), vision, atol=1e-4)
    np.testing.assert_allclose(np.asarray(ours((pixels, ids))), logits, atol=1e-4)
    decoder, start = Decoder(ours), [settings.text_config.bos_token_id, 1037, 3861, 1997]
    prompt = torch.tensor([[*start, 102]] * 2)
    for beams in (1, 3):
        with torch.no_grad():
            kind = {"num_beams": beams, "max_length": 16, "min_length": 10, "do_sample": False}
            expected = theirs.generate(pixel_values=as_torch(pixels), input_ids=prompt, **kind)
        found = generate(decoder, pixels, start, Search(beams, 16, 10, 0))
        for row, (tokens, _) in zip(expected.tolist(), found, strict=True):
            ends = [place for place, token in enumerate(row) if token == 102]
            assert tokens == row[: ends[0] if ends else None]


def test_pixels():
    rng = np.random.default_rng(5)
    images = [
        Image.fromarray(rng.integers(0, 256, (90, 50, 3), dtype=np.uint8)),
        Image.fromarray(rng.integers(0, 256, (20, 33), dtype=np.uint8)),
        Image.fromarray(rng.integers(0, 256, (64, 64, 4), dtype=np.uint8)),
    ]
    try:
        from transformers.models.blip.image_processing_pil_blip import BlipImageProcessorPil as Processor
    except ImportError:  # before transformers 5 there was one, and it used PIL
        from transformers import BlipImageProcessor as Processor
    theirs = Processor(size={"height": 48, "width": 48})
    expected = theirs(images, return_tensors="np")["pixel_values"].transpose(0, 2, 3, 1)
    np.testing.assert_allclose(Preprocessor(48)(images), expected, atol=1e-5)


def test_transformers_reads_what_we_write(tmp_path):
    words = train_tokenizer(CAPTIONS * 2, 120)
    config = tiny_config(words.get_vocab_size())
    ours = Blip(config)
    randomize(ours)
    save_pretrained(tmp_path, ours, CaptionTokenizer(words, config.text), Preprocessor(32))
    theirs, report = transformers.BlipForConditionalGeneration.from_pretrained(tmp_path, output_loading_info=True)
    assert not any(report.values()), report
    rng = np.random.default_rng(6)
    pixels, ids = rng.standard_normal((2, 32, 32, 3)).astype("float32"), rng.integers(6, 60, (2, 9))
    with torch.no_grad():
        expected = theirs.eval()(pixel_values=as_torch(pixels), input_ids=torch.from_numpy(ids)).logits.numpy()
    np.testing.assert_allclose(np.asarray(ours((pixels, ids))), expected, atol=1e-4)


def test_transformers_reads_our_heads(tmp_path):
    words = train_tokenizer(CAPTIONS * 2, 120)
    text = tiny_config(words.get_vocab_size()).text
    ours = Blip(BlipConfig(tiny_config(120).vision, None, RetrievalConfig(text, 20)))
    randomize(ours)
    save_pretrained(tmp_path, ours, CaptionTokenizer(words, text), Preprocessor(32))
    theirs, report = transformers.BlipForImageTextRetrieval.from_pretrained(tmp_path, output_loading_info=True)
    assert not any(report.values()), report
    rng = np.random.default_rng(6)
    pixels, ids = rng.standard_normal((2, 32, 32, 3)).astype("float32"), rng.integers(6, 60, (2, 9))
    with torch.no_grad():
        expected = theirs.eval()(input_ids=torch.from_numpy(ids), pixel_values=as_torch(pixels)).itm_score.numpy()
    found = ours.match(ours.vision_model(pixels), ids, np.ones(ids.shape, bool))
    np.testing.assert_allclose(np.asarray(found), expected, atol=1e-4)


def test_a_hub_checkpoints_config(tmp_path):
    """The whole config.json that transformers writes for its defaults (the large sizes) is understood."""
    transformers.BlipConfig().save_pretrained(tmp_path)
    config = BlipConfig.from_file(tmp_path / "config.json")
    assert config == BlipConfig()
    assert config.vision.grid == 24


@pytest.mark.parametrize("beams", [1, 3])
def test_captioner_end_to_end_on_theirs(pair, beams, tmp_path):
    """A folder with transformers' own weights and config captions as transformers does, greedily by default."""
    theirs, ours = pair
    words = train_tokenizer(CAPTIONS * 2, ours.config.text.vocab_size - 10)
    theirs.save_pretrained(tmp_path)
    (tmp_path / "tokenizer.json").write_text(words.to_str())
    size = ours.config.vision.image_size
    (tmp_path / "preprocessor_config.json").write_text(Preprocessor(size).to_json())
    image = Image.fromarray(np.random.default_rng(8).integers(0, 256, (80, 80, 3), dtype=np.uint8))
    captioner = Captioner.load(tmp_path)
    search = {"num_beams": beams} if beams > 1 else {}
    found = captioner.caption([image], prompt="an icon of", min_length=0, max_length=20, **search)[0]
    assert found.text.startswith("an icon of")
    ids = torch.tensor([[*captioner.tokenizer.prompt_ids("an icon of"), IDS["sep_token_id"]]])
    pixels = as_torch(captioner.preprocessor([image]))
    with torch.no_grad():
        row = theirs.generate(
            pixel_values=pixels, input_ids=ids, num_beams=beams, max_length=20, no_repeat_ngram_size=3, do_sample=False
        )
    assert found.text == captioner.tokenizer.text(row[0].tolist())
