import json

import pytest

from atelier.captioner.config import TextConfig
from atelier.captioner.tokenizer import CaptionTokenizer, train_tokenizer
from tests.captioner.conftest import CAPTIONS


@pytest.fixture(scope="module")
def words():
    return train_tokenizer(CAPTIONS * 2 + ["a three-quarter view of the artist's horses"] * 2, 300)


@pytest.fixture(scope="module")
def tokenizer(words):
    return CaptionTokenizer(words, TextConfig(words.get_vocab_size(), bos_token_id=5, sep_token_id=3))


def test_special_tokens_have_berts_places(words):
    tokens = ("[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "[DEC]")
    assert [words.token_to_id(token) for token in tokens] == [*range(6)]


def test_a_prompt_begins_with_dec_and_does_not_end(words, tokenizer):
    with_ends = words.encode("an engraving of").ids
    assert with_ends[0] == words.token_to_id("[CLS]")
    assert with_ends[-1] == words.token_to_id("[SEP]")
    assert tokenizer.prompt_ids("an engraving of") == [5, *with_ends[1:-1]]
    assert tokenizer.prompt_ids("An  ENGRAVING of ") == tokenizer.prompt_ids("an engraving of")
    assert tokenizer.prompt_ids("") == [5]


def test_dec_may_be_known_to_the_config_alone(words, tmp_path):
    # The hub's tokenizer.json ends before [DEC], which its config.json calls bos_token_id.
    record = json.loads(words.to_str())
    record["model"]["vocab"].pop("[DEC]")
    record["added_tokens"] = [token for token in record["added_tokens"] if token["content"] != "[DEC]"]
    (tmp_path / "tokenizer.json").write_text(json.dumps(record))
    tokenizer = CaptionTokenizer.from_file(tmp_path / "tokenizer.json", TextConfig(bos_token_id=999, sep_token_id=3))
    ids = tokenizer.caption_ids("an icon of a saint")
    assert (ids[0], ids[-1]) == (999, 3)
    assert tokenizer.text(ids) == "an icon of a saint"


@pytest.mark.parametrize("caption", [*CAPTIONS, "a three-quarter view of the artist's horses"])
def test_captions_survive_the_way_there_and_back(tokenizer, caption):
    assert tokenizer.text(tokenizer.caption_ids(caption)) == caption


def test_text_ends_without_a_full_stop(tokenizer):
    ids = tokenizer.tokenizer.encode("a red barn", add_special_tokens=False).ids
    stop = tokenizer.tokenizer.token_to_id("[SEP]")
    assert tokenizer.text([5, *ids, stop, 0, 0]) == "a red barn"


def test_rows_are_cut_and_filled_up(tokenizer):
    rows = tokenizer.caption_rows(["a red barn", CAPTIONS[0]], 6)
    whole = tokenizer.caption_ids("a red barn")
    assert rows[0].tolist() == (whole + [0] * 6)[:6]
    assert rows[1].tolist() == tokenizer.caption_ids(CAPTIONS[0])[:6]
    assert rows.dtype == "int32"
