"""What goes in and out of the API, as pydantic models: they check requests and write the OpenAPI document."""

from __future__ import annotations

from datetime import datetime
from typing import Annotated, Any, Literal

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, ValidationError, WrapValidator
from pydantic_core import PydanticCustomError

from atelier.config import CAPTION_STYLES
from atelier.seeds import STYLES
from atelier.service.store import ID_PATTERN

Style = Literal[STYLES]
# What Python's str.strip() leaves over, in the words of a JSON schema: a visible character somewhere.
SeedText = Annotated[str, Field(min_length=1, max_length=1000, pattern=r"[^\s\u001c-\u001f\u0085]")]
SeedNumber = Annotated[int, Field(ge=0, lt=10**100)]


def _whole(value: Any) -> Any:
    """To JSON, 7.0 is a whole number, and some clients write one so."""
    return int(value) if isinstance(value, float) and value.is_integer() else value


def _one_sentence(value: Any, handler) -> int | str:
    # Where pydantic would tell for each kind in turn why the value is not of it.
    try:
        return handler(_whole(value))
    except ValidationError:
        message = "a seed is a whole number from 0 (of at most 100 digits) or a text of at most 1,000 characters"
        raise PydanticCustomError("seed", message) from None


Seed = Annotated[SeedNumber | SeedText, WrapValidator(_one_sentence)]
Id = Annotated[str, Field(pattern=ID_PATTERN, description="128 random bits.")]

EXAMPLE_ID = "q3Zk1v8o5bTn0yWc2RfGaA"
EXAMPLE = {
    "id": EXAMPLE_ID,
    "created": "2026-01-31T12:00:00Z",
    "image_url": f"/v1/artworks/{EXAMPLE_ID}.png",
    "caption": "an engraving of a robed figure in a dark vaulted hall with a tall tree, in brown tones",
    "confidence": -1.26,
    "alignment": 0.41,
    "seed": 7,
    "style": "engraving",
    "truncation": 1.5,
    "width": 256,
    "height": 256,
}


class Wish(BaseModel):
    """What to make."""

    model_config = ConfigDict(
        strict=True,
        extra="forbid",
        json_schema_extra={
            "examples": [{"seed": 7, "style": "engraving"}, {"seed": "sea", "count": 3, "caption_style": "poetic"}, {}]
        },
    )

    seed: Seed | None = Field(
        None,
        description="A number or any text; the same seed and style are the same picture again. None: a new picture. "
        "With a `count`, the numbers from it on, or the text with a number behind it.",
    )
    style: Style | None = Field(None, description="The medium. None: the seed chooses.")
    caption_style: Literal[CAPTION_STYLES] | None = Field(
        None, description="How the caption is said. None: as the service is configured."
    )
    count: Annotated[int, BeforeValidator(_whole)] = Field(
        1, ge=1, description="How many; the service says what it allows."
    )
    image: Literal["url", "base64"] = Field("url", description="`base64`: the PNG file, too, as `image_base64`.")


class ArtworkRecord(BaseModel):
    """An artwork: what `main()` returns, with an id and an `image_url` in place of a path.

    What a newer `main()` says beyond these fields stands here, too.
    """

    model_config = ConfigDict(extra="allow", json_schema_extra={"examples": [EXAMPLE]})

    id: Id
    created: datetime
    image_url: str = Field(description="The PNG file, as a path on this server.")
    image_base64: str | None = Field(None, description="The PNG file, if it was asked for.")
    caption: str | None
    caption_error: str | None = Field(None, description="Why there is no caption, if there is none.")
    confidence: float | None = Field(description="Mean log-probability of the caption's tokens; nearer to 0 is surer.")
    alignment: float | None = Field(
        None, ge=-1.001, le=1.001, description="How well picture and caption fit: the cosine of their embeddings."
    )
    seed: int | str
    style: Style
    truncation: float | None
    width: int
    height: int


class Artworks(BaseModel):
    artworks: list[ArtworkRecord]


class ArtworkPage(Artworks):
    next: Id | None = Field(description="`before` of the next page; none: this is the last.")


class CaptionRecord(BaseModel):
    """A sentence about a picture."""

    model_config = ConfigDict(
        json_schema_extra={"examples": [{"caption": "a painting of a river under a pale sky", "confidence": -1.02}]}
    )

    caption: str
    confidence: float = Field(description="Mean log-probability of the caption's tokens; nearer to 0 is surer.")


class DetectionRecord(BaseModel):
    """Whether a machine made a picture, or a hand."""

    model_config = ConfigDict(json_schema_extra={"examples": [{"ai_probability": 0.07, "verdict": "human"}]})

    ai_probability: float = Field(ge=0, le=1, description="That a machine made it, calibrated.")
    verdict: Literal["ai", "human", "uncertain"] = Field(description="`uncertain`: the probability says too little.")


class Styles(BaseModel):
    styles: list[Style] = Field(examples=[list(STYLES)])


class Health(BaseModel):
    status: str = Field(examples=["ready"])
