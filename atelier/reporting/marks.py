"""Numbers in a text that are taken from the report.

In Markdown, where it does not show: `KID <!--generator.kid-->0.45 ± 0.02<!--/--> on 1,600 pictures`.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping

MARK = re.compile(r"<!--(?P<key>[a-z_]+\.[a-z_0-9.]+)-->(?P<text>[^\n]*?)<!--/-->")
_LOOSE = re.compile(r"<!--(?:/|[a-z_]+\.[a-z_0-9.]+)-->")


def marked(text: str) -> Iterator[tuple[str, str]]:
    """Each marked number's key, and what stands there.

    Raises:
        ValueError: a mark that is opened and not closed on its line, or closed and not opened.
    """
    if loose := _LOOSE.search(MARK.sub("", text)):
        raise ValueError(f"the mark {loose[0]} stands alone: a figure is <!--KEY-->TEXT<!--/-->, on one line")
    return ((match["key"], match["text"]) for match in MARK.finditer(text))


def fill(text: str, texts: Mapping[str, str]) -> str:
    """The text with every marked number as the report has it.

    Raises:
        ValueError: a key that the report does not have, or as `marked`.
    """
    if unknown := {key for key, _ in marked(text)} - set(texts):
        raise ValueError(f"the report has no {', '.join(sorted(unknown))}")
    return MARK.sub(lambda match: f"<!--{match['key']}-->{texts[match['key']]}<!--/-->", text)
