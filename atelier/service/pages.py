"""The demo's pieces of HTML. Everything that people or models wrote is escaped here, and nowhere else."""

from __future__ import annotations

import base64
import io
from collections.abc import Sequence
from html import escape
from typing import Any
from urllib.parse import quote, urlencode

from PIL import Image


def permalink(record: dict[str, Any]) -> str:
    """The address, after the page's own, that makes this artwork again."""
    # Half a surrogate pair has no place in an address; the API lets none in, but other stores might.
    seed = str(record["seed"]).encode("utf-8", "replace").decode()
    return "?" + urlencode({"seed": seed, "style": record["style"]}, quote_via=quote)


def artwork_html(record: dict[str, Any]) -> str:
    """One artwork on the wall: picture, label, what can be done with it."""
    seed, identity = escape(str(record["seed"])), quote(record["id"])
    caption = escape(record["caption"]) if record["caption"] else "The captioner was lost for words."
    facts = f"{escape(record['style'])} · seed {seed[:80]}"
    if record.get("alignment") is not None:  # where the captioner measures how well picture and words agree
        share = float(record["alignment"])
        facts += f'<label>words and picture agree <meter value="{share:.3f}"></meter> {share:.0%}</label>'
    file = f"atelier-{escape(record['style'])}-{identity[:6]}"
    return f"""<figure class="piece" data-link="{escape(permalink(record))}">
<div class="frame"><img src="v1/artworks/{identity}.png" alt="{caption}" width="512" height="512"></div>
<figcaption><p class="says">{caption}</p><p class="facts">{facts}</p>
<div class="doings"><a href="v1/artworks/{identity}.png" download="{file}.png" title="Download it">↓ Picture</a>
<a href="v1/artworks/{identity}" download="{file}.json" title="Download what is known about it">↓ JSON</a>
<a href="{escape(permalink(record))}" title="Makes it again">Permalink</a></div></figcaption></figure>"""


def notice_html(text: str, kind: str = "") -> str:
    """An empty frame with words in it; `kind`: "" (an invitation), "working" or "trouble"."""
    role = "alert" if kind == "trouble" else "status"
    inside = f'<div class="inside" role="{role}">{escape(text)}</div>'
    return f'<figure class="piece notice {kind}"><div class="frame">{inside}</div></figure>'


def shelf_html(records: Sequence[dict[str, Any]]) -> str:
    """What a visitor made, the newest first; nothing where there is nothing."""
    if not records:
        return ""
    items = "".join(
        f'<li><button type="button" data-id="{quote(record["id"])}" title="{escape(record["style"])}, '
        f'seed {escape(str(record["seed"])[:80])}"><img src="v1/artworks/{quote(record["id"])}.png" alt="" '
        f'loading="lazy"><span>{escape(record["caption"] or record["style"])}</span></button></li>'
        for record in records
    )
    return f'<section class="shelf"><h2>What you made</h2><ul>{items}</ul></section>'


def captioned_html(picture: Image.Image, caption: str) -> str:
    """A visitor's own picture with its caption."""
    return _own_picture(picture, f'<p class="says">{escape(caption)}</p>')


VERDICTS = {
    "ai": "A machine made this, it seems.",
    "human": "A hand made this, it seems.",
    "uncertain": "A hand or a machine: this one could be either.",
}


def detected_html(picture: Image.Image, record: dict[str, Any]) -> str:
    """A visitor's own picture with what the detector thinks of it."""
    share = float(record["ai_probability"])
    meter = f'<label>made by a machine <meter value="{share:.3f}"></meter> {share:.0%}</label>'
    return _own_picture(picture, f'<p class="says">{VERDICTS[record["verdict"]]}</p><p class="facts">{meter}</p>')


def _own_picture(picture: Image.Image, words: str) -> str:
    """A visitor's picture with words (HTML) below. It stands in the page itself: nothing of it is kept."""
    small = picture.copy()
    small.thumbnail((640, 640))
    buffer = io.BytesIO()
    small.save(buffer, "JPEG", quality=88)
    source = base64.b64encode(buffer.getvalue()).decode()
    image = f'<img src="data:image/jpeg;base64,{source}" alt="your picture">'
    return f"""<figure class="piece"><div class="frame">{image}</div>
<figcaption>{words}</figcaption></figure>"""
