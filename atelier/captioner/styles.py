"""Ways to say a caption: plain, poetic or as a catalogue does; from what is known, and never more.

What is known: the caption, the medium, and what the picture's pixels say of its colours and its light. So a style puts
words together and invents nothing. By choice a language model behind an OpenAI-compatible URL does it instead, for
which nobody can vouch; it is off unless it is configured, and where it fails the plain caption stays.
"""

from __future__ import annotations

import colorsys
import json
import os
import re
import urllib.request
from collections import Counter
from dataclasses import dataclass
from http.client import HTTPException

import numpy as np
from PIL import Image

from atelier.seeds import medium_in_words

SHARE = 0.12  # of the picture's area that a colour needs to be named
LIGHT = {"dark": "in deep shade", "even": "in even light", "light": "in pale light"}
MEDIA = {"drawings": "drawing", "iconography": "icon"}  # the others are called as their classes
LONGEST_ANSWER = 400  # characters of a language model's answer that count as one caption


def styled(caption: str, style: str, image: np.ndarray, medium: str | None = None) -> str:
    """A caption in one of `config.CAPTION_STYLES`.

    Args:
        caption: as the captioner says it.
        image: (H, W, 3) uint8, whose colours and light are named.
        medium: one of `seeds.STYLES`; `None`: what the caption names.
    """
    if style == "plain":
        return caption
    head, subject = split_caption(caption)
    colours, light = palette(image), tone(image)
    if style == "poetic":
        lines = [subject, f"in {_joined(colours)}, {LIGHT[light]}", head]
        return " / ".join(line for line in lines if line)
    medium = medium or medium_in_words(caption)
    parts = [MEDIA.get(medium, medium) if medium else head, subject, f"{_joined(colours)}; {light} in tone"]
    return " ".join(f"{part[0].upper()}{part[1:]}." for part in parts if part)


def split_caption(caption: str) -> tuple[str, str]:
    """ "an engraving of a tower" -> ("an engraving", "a tower"); without a medium in front, ("", the caption)."""
    head, of, subject = caption.partition(" of ")
    if of and medium_in_words(head):
        return head, subject
    return "", caption


def palette(image: np.ndarray, count: int = 2) -> list[str]:
    """The names of the colours that cover most of an (H, W, 3) uint8 picture, the commonest first."""
    small = np.asarray(Image.fromarray(image).resize((24, 24), Image.Resampling.BOX)).reshape(-1, 3)
    names = Counter(colour_name(*pixel) for pixel in small.tolist())
    common = [name for name, number in names.most_common(count) if number >= SHARE * len(small)]
    return common or [names.most_common(1)[0][0]]


def colour_name(red: int, green: int, blue: int) -> str:
    """The plain English name of a colour from its bytes."""
    hue, lightness, saturation = colorsys.rgb_to_hls(red / 255, green / 255, blue / 255)
    if lightness < 0.13:
        return "black"
    if lightness > 0.93:
        return "white"
    if saturation < 0.12:
        return "grey"
    degrees = hue * 360
    if 15 <= degrees < 70 and lightness > 0.7:
        return "cream"
    if (degrees < 50 or degrees >= 345) and (lightness < 0.4 or saturation < 0.4) and degrees >= 12:
        return "brown"
    ends = ((15, "red"), (45, "orange"), (70, "yellow"), (165, "green"), (195, "teal"), (255, "blue"), (290, "violet"))
    name = next((name for end, name in ends if degrees < end), "pink" if degrees < 345 else "red")
    return "pink" if name == "red" and lightness > 0.7 else name


def tone(image: np.ndarray) -> str:
    """How light an (H, W, 3) uint8 picture is as a whole: "dark", "even" or "light"."""
    luminance = float((image.reshape(-1, 3) @ np.array([0.299, 0.587, 0.114])).mean())
    return "dark" if luminance < 85 else "light" if luminance > 170 else "even"


def _joined(names: list[str]) -> str:
    return " and ".join(names)


@dataclass(frozen=True)
class LanguageModel:
    """A chat model behind an OpenAI-compatible URL, such as `http://localhost:8080/v1`."""

    url: str
    model: str = "default"
    timeout: float = 5.0
    """Seconds of silence until the plain caption is taken instead."""

    def styled(self, caption: str, style: str) -> str:
        """The caption in another style, or the caption itself where the model fails or says no single sentence.

        `ATELIER_LLM_KEY` in the environment is sent as the bearer token.
        """
        order = (
            f"Rewrite the description of an artwork in a {style} style, as one line. Add nothing that it does not say."
        )
        messages = [{"role": "system", "content": order}, {"role": "user", "content": caption}]
        try:
            answer = self._ask({"model": self.model, "messages": messages, "temperature": 0})
            text = " ".join(answer["choices"][0]["message"]["content"].split())
        except (OSError, HTTPException, ValueError, KeyError, IndexError, TypeError, AttributeError, RecursionError):
            return caption
        return text if 0 < len(text) <= LONGEST_ANSWER else caption

    def _ask(self, question: dict) -> dict:
        headers = {"Content-Type": "application/json"}
        if key := os.environ.get("ATELIER_LLM_KEY"):
            headers["Authorization"] = f"Bearer {key}"
        url = re.sub(r"/+$", "", self.url) + "/chat/completions"
        request = urllib.request.Request(url, json.dumps(question).encode(), headers)
        with _opener.open(request, timeout=self.timeout) as response:
            return json.loads(response.read(1_000_000))


class _Unmoved(urllib.request.HTTPRedirectHandler):
    """Follows no redirect: the key is for the host that was named, and no other."""

    def redirect_request(self, *_):
        return None


_opener = urllib.request.build_opener(_Unmoved)
