"""The shape of a BLIP, read from a Hugging Face `config.json`."""

from __future__ import annotations

import dataclasses
import json
from dataclasses import dataclass, field
from pathlib import Path

from atelier.captioner.errors import CaptionerError

# What Hugging Face calls a checkpoint that writes captions, and one that compares texts with pictures.
CAPTIONING, RETRIEVAL = "BlipForConditionalGeneration", "BlipForImageTextRetrieval"


@dataclass(frozen=True)
class VisionConfig:
    """The picture encoder; names and defaults are those of `transformers.BlipVisionConfig`."""

    hidden_size: int = 768
    intermediate_size: int = 3072
    num_hidden_layers: int = 12
    num_attention_heads: int = 12
    image_size: int = 384
    patch_size: int = 16
    hidden_act: str = "gelu"
    layer_norm_eps: float = 1e-5
    attention_dropout: float = 0.0
    dropout: float = 0.0
    """After each attention and feed-forward, in training only."""
    stem: str | None = None
    """Our one addition: `"mobilenet_v2"` cuts the patches from its feature map, `None` from the picture."""

    @property
    def grid(self) -> int:
        """Patches along one side."""
        return self.image_size // (32 if self.stem else 1) // self.patch_size


@dataclass(frozen=True)
class TextConfig:
    """The text decoder; names and defaults are those of `transformers.BlipTextConfig`."""

    vocab_size: int = 30524
    hidden_size: int = 768
    intermediate_size: int = 3072
    num_hidden_layers: int = 12
    num_attention_heads: int = 8
    max_position_embeddings: int = 512
    hidden_act: str = "gelu"
    layer_norm_eps: float = 1e-12
    hidden_dropout_prob: float = 0.0
    attention_probs_dropout_prob: float = 0.0
    bos_token_id: int = 30522
    pad_token_id: int = 0
    sep_token_id: int = 102
    """Ends a caption. (The hub's `eos_token_id` is 2 and unused.)"""
    opening: int = 0
    """Ours: so many tokens of a caption, those that name its medium, are found greedily before beams part."""


@dataclass(frozen=True)
class RetrievalConfig:
    """What tells whether a text fits a picture: the parts of a `BlipForImageTextRetrieval`."""

    text: TextConfig = field(default_factory=TextConfig)
    """The text encoder's shape. In Hugging Face's files it is the decoder's; ours may have fewer layers."""
    hidden_size: int = 256
    """Numbers of the embedding that pictures and texts share."""
    matching: bool = True
    """Whether the text encoder can look at the picture and judge the pair (ITM). Ours need not."""


@dataclass(frozen=True)
class BlipConfig:
    """A BLIP's shape: the picture encoder, and the parts that its checkpoint has behind it."""

    vision: VisionConfig = field(default_factory=VisionConfig)
    text: TextConfig | None = field(default_factory=TextConfig)
    """The text decoder's (`BlipForConditionalGeneration`); `None`: it cannot write captions."""
    retrieval: RetrievalConfig | None = None
    """`BlipForImageTextRetrieval`'s parts; `None`: it cannot compare texts with pictures."""

    def __post_init__(self):
        texts = [self.text, self.retrieval.text if self.retrieval else None]
        for part in (self.vision, *filter(None, texts)):
            if part.hidden_act != "gelu":
                raise CaptionerError(f"hidden_act {part.hidden_act!r} is not supported, only 'gelu'")
            if part.hidden_size % part.num_attention_heads:
                raise CaptionerError(
                    f"hidden_size {part.hidden_size} is no multiple of num_attention_heads {part.num_attention_heads}"
                )
        if self.vision.stem not in (None, "mobilenet_v2"):
            raise CaptionerError(f"vision_config.stem is 'mobilenet_v2' or absent, not {self.vision.stem!r}")

    @classmethod
    def from_file(cls, path: Path) -> BlipConfig:
        """Read a `config.json`; keys that do not shape the model are ignored, absent ones have their defaults.

        Which parts there are follows from its `architectures`; where it names none, it is a captioner.

        Raises:
            CaptionerError: the file is missing, no JSON, or describes no BLIP that this package can build.
        """
        try:
            record = json.loads(path.read_text(encoding="utf-8"))
            vision, text = record["vision_config"], record["text_config"]
            parts = record.get("architectures") or [CAPTIONING]
            encoder = record.get("text_encoder_config") or {}
        except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
            raise CaptionerError(f"{path} is no readable BLIP config.json: {error!r}") from error
        if not all(isinstance(part, dict) for part in (vision, text, encoder)):
            raise CaptionerError(f"{path}: vision_config and text_config are no JSON objects")
        if not {CAPTIONING, RETRIEVAL} & set(parts):
            raise CaptionerError(f"{path}: architectures is {CAPTIONING} or {RETRIEVAL}, not {', '.join(parts)}")
        retrieval = None
        if RETRIEVAL in parts:
            head = {"hidden_size": record.get("image_text_hidden_size"), "matching": encoder.get("matching")}
            retrieval = _pick(RetrievalConfig, head | {"text": _pick(TextConfig, text | encoder)})
        return cls(_pick(VisionConfig, vision), _pick(TextConfig, text) if CAPTIONING in parts else None, retrieval)

    def to_json(self) -> str:
        """The text of a `config.json` that `transformers` reads, too (where there is no stem)."""
        vision = dataclasses.asdict(self.vision)
        if vision["stem"] is None:
            del vision["stem"]
        shape = self.text or self.retrieval.text
        # transformers expects an eos_token_id; generation ends at sep_token_id all the same.
        text = dataclasses.asdict(shape)
        if not text["opening"]:
            del text["opening"]
        text |= {"eos_token_id": shape.sep_token_id, "encoder_hidden_size": self.vision.hidden_size}
        record = {
            "architectures": [CAPTIONING] * bool(self.text) + [RETRIEVAL] * bool(self.retrieval),
            "model_type": "blip",
            "vision_config": vision | {"model_type": "blip_vision_model"},
            "text_config": text | {"model_type": "blip_text_model", "is_decoder": True},
        }
        if self.retrieval:
            record["image_text_hidden_size"] = self.retrieval.hidden_size
            ours = dataclasses.asdict(self.retrieval.text)
            encoder = {name: value for name, value in ours.items() if value != getattr(shape, name)}
            encoder |= {} if self.retrieval.matching else {"matching": False}
            record |= {"text_encoder_config": encoder} if encoder else {}
        return json.dumps(record, indent=2)


def _pick(kind: type, record: dict):
    """The values of `record` that `kind` has a place for, checked to be text, whole numbers or numbers as there."""
    chosen = {}
    for item in dataclasses.fields(kind):
        value = record.get(item.name)
        if value is None:
            continue
        kinds = {"int": int, "float": (int, float), "bool": bool, "TextConfig": TextConfig}
        wanted = kinds.get(item.type, str)
        if not isinstance(value, wanted) or isinstance(value, bool) != (wanted is bool):
            raise CaptionerError(f"config.json: {item.name} is {value!r}, which is no {item.type}")
        chosen[item.name] = value
    return kind(**chosen)
