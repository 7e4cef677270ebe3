"""Words to token ids and back: a lower-case WordPiece vocabulary (Wu et al., 2016), as BERT's."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from pathlib import Path

import numpy as np
from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers, processors, trainers

from atelier.captioner.config import TextConfig
from atelier.captioner.errors import CaptionerError

# In the order of their ids in a vocabulary of ours. [DEC] begins a caption, [SEP] ends it, [PAD] fills up.
SPECIAL_TOKENS = ("[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "[DEC]")


class CaptionTokenizer:
    """A `tokenizers.Tokenizer` with the ids of a `TextConfig`, which decide (the hub's BLIP keeps [DEC] only there)."""

    def __init__(self, tokenizer: Tokenizer, config: TextConfig):
        self.tokenizer = tokenizer
        self.config = config

    @classmethod
    def from_file(cls, path: Path, config: TextConfig) -> CaptionTokenizer:
        """Read a `tokenizer.json`; `CaptionerError` where it is missing or no such file."""
        try:
            return cls(Tokenizer.from_str(path.read_text(encoding="utf-8")), config)
        except Exception as error:  # the tokenizers library raises bare Exception
            raise CaptionerError(f"{path} is no readable tokenizer.json: {error}") from error

    @property
    def cls_id(self) -> int:
        """The id of [CLS], with which a text to be compared with pictures begins."""
        return self.tokenizer.token_to_id("[CLS]")

    def prompt_ids(self, prompt: str) -> list[int]:
        """What a caption begins with: [DEC] and the prompt's tokens, without [CLS] and [SEP]."""
        return [self.config.bos_token_id, *self.tokenizer.encode(prompt, add_special_tokens=False).ids]

    def caption_ids(self, caption: str) -> list[int]:
        """A whole caption as it is learnt: [DEC], its tokens, [SEP]."""
        return [*self.prompt_ids(caption), self.config.sep_token_id]

    def caption_rows(self, captions: Sequence[str], length: int) -> np.ndarray:
        """(N, length) int32: a row of `caption_ids` for each caption, cut to `length` or filled up with [PAD]."""
        rows = np.full((len(captions), length), self.config.pad_token_id, np.int32)
        for row, caption in zip(rows, captions, strict=True):
            ids = self.caption_ids(caption)[:length]
            row[: len(ids)] = ids
        return rows

    def text(self, ids: Sequence[int]) -> str:
        """Token ids to a caption: lower case, single spaces, no special tokens, no full stop at its end."""
        special = {self.config.bos_token_id, self.config.sep_token_id, self.config.pad_token_id}
        text = self.tokenizer.decode([int(i) for i in ids if int(i) not in special], skip_special_tokens=True)
        text = " ".join(text.lower().split())
        text = re.sub(r"(\w) ?- ?(?=\w)", r"\1-", text)  # BERT cuts "three-quarter" in three
        text = re.sub(r"(\w) ?' ?(?=(s|t|d|m|re|ve|ll)\b)", r"\1'", text)
        text = re.sub(r"s ' (?=\w)", "s' ", text)  # "horses' heads"
        text = re.sub(r" ([,.;:!?])", r"\1", text)
        return text.rstrip(" .,")


def train_tokenizer(captions: Iterable[str], vocab_size: int) -> Tokenizer:
    """Learn a lower-case WordPiece vocabulary of at most `vocab_size` tokens from captions.

    The library breaks ties by chance: the same captions may give a few other tokens, so keep what you train with.
    """
    tokenizer = Tokenizer(models.WordPiece(unk_token="[UNK]"))
    tokenizer.normalizer = normalizers.BertNormalizer(lowercase=True)
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    tokenizer.decoder = decoders.WordPiece()
    trainer = trainers.WordPieceTrainer(
        vocab_size=vocab_size, min_frequency=2, special_tokens=list(SPECIAL_TOKENS), show_progress=False
    )
    tokenizer.train_from_iterator(captions, trainer)
    ends = [(token, tokenizer.token_to_id(token)) for token in ("[CLS]", "[SEP]")]
    tokenizer.post_processor = processors.TemplateProcessing(single="[CLS] $A [SEP]", special_tokens=ends)
    return tokenizer
