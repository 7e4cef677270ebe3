"""Our BLIP against the one of `transformers`, on tiny models with every weight at random: no download needed."""

import numpy as np
import pytest
from PIL import Image

torch = pytest.importorskip("torch")
transformers = pytest.importorskip("transformers")

from atelier.captioner import Captioner  # noqa: E402
from atelier.captioner.blip import Blip  # noqa: E402
from atelier.captioner.config import BlipConfig  # noqa: E402
from atelier.captioner.decoding import Decoder, Search, generate  # noqa: E402
from atelier.captioner.preprocessing import Preprocessor  # noqa: E402
from atelier.captioner.tokenizer import CaptionTokenizer, train_tokenizer  # noqa: E402
from atelier.captioner.weights import load_weights, read_tensors, save_pretrained  # noqa: E402
from tests.captioner.conftest import CAPTIONS, randomize, tiny_config  # noqa: E402

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


@pytest.fixture(scope="module", params=SHAPES)
def pair(request, tmp_path_factory):
    """(theirs, ours) with the same random weights, ours by way of the files that theirs writes."""
    vision, text = SHAPES[request.param]
    theirs = transformers.BlipForConditionalGeneration(
        transformers.BlipConfig(vision_config=vision, text_config=text | IDS)
    ).eval()
    generator = torch.Generator().manual_seed(7)
    with torch.no_grad():
        for parameter in theirs.parameters():
            # Wide enough that the picture and every word matter; norms about 1.
            parameter.copy_(torch.randn(parameter.shape, generator=generator) * 0.2 + (parameter.mean() > 0.9))
    folder = tmp_path_factory.mktemp("blip")
    theirs.save_pretrained(folder)
    ours = Blip(BlipConfig.from_file(folder / "config.json"))
    load_weights(ours, read_tensors(folder / "model.safetensors"))
    return theirs, ours


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
    ("prompt", "low", "high", "ngram"), [([], 0, 20, 0), ([11, 12, 13], 8, 30, 3), ([50], 20, 24, 2)]
)
def test_generated_tokens(pair, decoder, pixels, beams, prompt, low, high, ngram):
    theirs, _ = pair
    settings = {"num_beams": beams, "min_length": low, "max_length": high, "no_repeat_ngram_size": ngram}
    start = [IDS["bos_token_id"], *prompt]
    # `generate` cuts off the last token, where the tokenizer's [SEP] stands, and overwrites the first.
    ids = torch.tensor([[1, *prompt, IDS["sep_token_id"]]] * len(pixels))
    with torch.no_grad():
        expected = theirs.generate(pixel_values=as_torch(pixels), input_ids=ids, do_sample=False, **settings)
    found = generate(decoder, pixels, start, Search(beams, high, low, ngram))
    for row, (tokens, _) in zip(expected.tolist(), found, strict=True):
        ends = [place for place, token in enumerate(row) if token == IDS["sep_token_id"]]
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


def test_a_hub_checkpoints_config(tmp_path):
    """The whole config.json that transformers writes for its defaults (the large sizes) is understood."""
    transformers.BlipConfig().save_pretrained(tmp_path)
    config = BlipConfig.from_file(tmp_path / "config.json")
    assert config == BlipConfig()
    assert config.vision.grid == 24


def test_captioner_end_to_end_on_theirs(pair, tmp_path):
    """A folder with transformers' own weights and config captions as transformers does."""
    theirs, ours = pair
    words = train_tokenizer(CAPTIONS * 2, ours.config.text.vocab_size - 10)
    theirs.save_pretrained(tmp_path)
    (tmp_path / "tokenizer.json").write_text(words.to_str())
    size = ours.config.vision.image_size
    (tmp_path / "preprocessor_config.json").write_text(Preprocessor(size).to_json())
    image = Image.fromarray(np.random.default_rng(8).integers(0, 256, (80, 80, 3), dtype=np.uint8))
    captioner = Captioner.load(tmp_path)
    found = captioner.caption([image], prompt="an icon of", min_length=0, max_length=20)[0]
    assert found.text.startswith("an icon of")
    ids = torch.tensor([[*captioner.tokenizer.prompt_ids("an icon of"), IDS["sep_token_id"]]])
    pixels = as_torch(captioner.preprocessor([image]))
    with torch.no_grad():
        row = theirs.generate(
            pixel_values=pixels, input_ids=ids, num_beams=3, max_length=20, no_repeat_ngram_size=3, do_sample=False
        )
    assert found.text == captioner.tokenizer.text(row[0].tolist())
