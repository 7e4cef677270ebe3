"""All the choices of a training in one place: their defaults, how they are read from text, what is allowed."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, fields

from atelier.generator.augment import POLICIES
from atelier.generator.losses import LOSSES
from atelier.generator.networks import check_resolution


@dataclass(frozen=True)
class Recipe:
    """All that decides how a training goes."""

    resolution: int = 64
    latent_dim: int = 128
    generator: str = "skip"  # or "dcgan", the published arrangement
    excitation: bool = False  # small maps weigh the channels of large ones
    subpixel: bool = False  # the last doubling by sub-pixel convolution
    width: int = 32  # of the generator at 32 pixels
    judges: tuple[str, ...] = ("pixels",)  # "pixels", "features" (through a frozen MobileNetV2), or both
    discriminator_width: int = 32
    spectral_norm: bool = False  # in the discriminator of pixels, in place of batch norm
    features: str = "imagenet"  # MobileNetV2's weights: a file, or "imagenet" to download them
    feature_size: int = 96  # side in pixels at which MobileNetV2 looks
    loss: str = "non-saturating"  # or "hinge", "relativistic"
    gradient_penalty: float = 0.0  # gamma of R1, for the discriminator of pixels
    batch_size: int = 16  # many small steps beat few large ones on a CPU
    learning_rate: float = 2e-4  # this and beta_1 are DCGAN's
    beta_1: float = 0.5
    augment: tuple[str, ...] = ("translation", "cutout")  # "color" too, for runs of millions of pictures
    ema_decay: float = 0.999  # half of the average is from the last 700 steps
    finest_only: bool = False  # only what paints the finest detail learns; needs subpixel and a trained generator
    warm_up: int = 0  # steps in which only the judges learn, where training starts with a trained generator
    mixed_precision: bool = False  # bfloat16 arithmetic: faster where the processor has it (AVX512-BF16)
    seed: int = 0

    @classmethod
    def of(cls, settings: Sequence[str]) -> Recipe:
        """The recipe with some settings changed: `["loss=hinge", "judges=pixels,features"]`.

        Raises:
            ValueError: no such setting, or not a value of its kind.
        """
        kinds, changed = {field.name: type(field.default) for field in fields(cls)}, {}
        for setting in settings:
            name, equals, value = setting.partition("=")
            if not equals or name not in kinds:
                raise ValueError(f"a setting is NAME=VALUE with a name out of {', '.join(kinds)}, not {setting!r}")
            changed[name] = _parse(value, kinds[name], name)
        return cls(**changed)

    def check(self) -> None:
        """`ValueError` if a setting is none of those that there are."""
        check_resolution(self.resolution)
        choices = {"generator": ("skip", "dcgan"), "loss": tuple(LOSSES)}
        for name, allowed in choices.items():
            if getattr(self, name) not in allowed:
                raise ValueError(f"{name} is one of {', '.join(allowed)}, not {getattr(self, name)!r}")
        if not self.judges or set(self.judges) - {"pixels", "features"}:
            raise ValueError(f"judges are pixels, features, or both, not {', '.join(self.judges) or 'none'}")
        if self.finest_only and not self.subpixel:
            raise ValueError("finest_only needs subpixel, whose last layers are the finest")
        if self.gradient_penalty and "pixels" not in self.judges:
            raise ValueError("the gradient penalty is for the discriminator of pixels, which these judges lack")
        if self.gradient_penalty and self.mixed_precision:
            raise ValueError("the gradient penalty's small differences are lost in bfloat16: without mixed precision")
        for name in ("latent_dim", "width", "discriminator_width", "batch_size", "learning_rate"):
            if not 0 < getattr(self, name) < math.inf:
                raise ValueError(f"{name} is a positive number, not {getattr(self, name)}")
        ends = {"gradient_penalty": math.inf, "warm_up": math.inf, "ema_decay": 1, "beta_1": 1, "seed": 2**32}
        for name, end in ends.items():
            if not 0 <= getattr(self, name) < end:
                raise ValueError(f"{name} is from 0 up and less than {end}, not {getattr(self, name)}")
        if unknown := set(self.augment) - set(POLICIES):
            raise ValueError(f"augment names {', '.join(POLICIES)}, not {', '.join(sorted(unknown))}")
        if "features" in self.judges and (self.feature_size < 32 or self.feature_size % 32):
            raise ValueError(f"feature_size is a multiple of 32, not {self.feature_size}")


def _parse(value: str, kind: type, name: str):
    if kind is tuple:
        return tuple(part.strip() for part in value.split(",") if part.strip())
    if kind is bool and value.lower() in ("true", "false"):
        return value.lower() == "true"
    try:
        return kind(value) if kind is not bool else {}[value]
    except (ValueError, KeyError):
        raise ValueError(f"{name} is a {kind.__name__}, not {value!r}") from None
