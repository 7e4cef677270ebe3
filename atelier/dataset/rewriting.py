"""A language model's pass over captions, if one is asked for: off by default, and no caption is ever lost to it."""

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

from atelier.captioner.styles import LanguageModel
from atelier.config import Config
from atelier.seeds import medium_in_words

AT_ONCE = 8
"""Questions that one worker has open at a time."""

PATIENCE = 32
"""After so many captions in a row for which nothing usable came, the rest of a shard is not asked for: where the model
is gone, 100 shards cost 100 times `PATIENCE / AT_ONCE` timeouts and not 100,000."""

SOURCE = " + llm"
"""What is put behind the `caption_source` of a caption that the model rewrote."""


@dataclass(frozen=True)
class Rewriter(LanguageModel):
    """A chat model that says known captions in another style; it sees a caption and no picture.

    Raises:
        ConfigError: on construction, for what config.yaml's `caption_llm...` and `caption_style` would not take either.
    """

    style: str = "plain"
    """One of `config.CAPTION_STYLES`."""

    def __post_init__(self):
        Config(
            caption_llm=self.url,
            caption_llm_model=self.model,
            caption_llm_timeout=self.timeout,
            caption_style=self.style,
        )
        if "@" in self.url or "?" in self.url:  # the address stands in the report, so no secret may stand in it
            raise ValueError("a language model's address holds no password: its key goes into ATELIER_LLM_KEY")

    def rewrite(self, captions: Sequence[str]) -> list[str | None]:
        """Each caption as the model says it, or `None`: the model failed, was late, or said nothing usable."""
        found: list[str | None] = []
        with ThreadPoolExecutor(AT_ONCE) as threads:
            for start in range(0, len(captions), PATIENCE):
                answers = list(threads.map(self._usable, captions[start : start + PATIENCE]))
                found += answers
                if not any(answers):
                    break
        return found + [None] * (len(captions) - len(found))

    def _usable(self, caption: str) -> str | None:
        said = self.styled(caption, self.style)
        # An apology names no medium, an invention perhaps another one; half a surrogate pair cannot be stored.
        usable = said != caption and said.isprintable() and medium_in_words(said) == medium_in_words(caption)
        return said if usable else None
