"""All the choices of a training in one place: their defaults, how they are read from text, what is allowed."""

from __future__ import annotations

import math
from dataclasses import dataclass

from atelier.generator.augment import POLICIES
from atelier.generator.losses import LOSSES
from atelier.generator.networks import check_resolution
from atelier.recipes import Settings


@dataclass(frozen=True)
class Recipe(Settings):
    """All that decides how a training goes."""

    resolution: int = 64
    latent_dim: int = 128
    generator: str = "skip"  # or "dcgan", the published arrangement
    excitation: bool = False  # small maps weigh the channels of large ones
    grain: bool = False  # noise of the latent's making enters at 16, 32 and 64 pixels
    residual: int = 0  # pairs of convolutions more at every size from 16 pixels on
    mapping: int = 0  # pairs of dense layers that move the latent before anything is made of it
    memory: int = 0  # latents that it remembers of each style, each learned with a training picture
    memory_rate: float = 20.0  # their learning rate as a multiple of the others': each is seen once in a hundred steps
    pairs: float = 0.0  # weight of the difference between a picture and what is painted of its remembered latent
    subpixel: bool = False  # the last doubling by sub-pixel convolution
    width: int = 32  # of the generator at 32 pixels
    fine_width: int = 16  # of the generator at its largest sizes, at least
    finest_width: int = 0  # of the generator at its full resolution; 0: as fine_width says
    half_width: int = 0  # of the generator at half its resolution; 0: as fine_width says
    # Any of "pixels", "patches", and those that look through a frozen network: "features" (MobileNetV2), "lite".
    judges: tuple[str, ...] = ("pixels",)
    pixels_size: int = 0  # side at which the judge of pixels looks, where it is not the whole resolution
    discriminator_width: int = 32
    spectral_norm: bool = False  # in the discriminator of pixels, in place of batch norm
    features: str = "imagenet"  # MobileNetV2's weights: a file, or "imagenet" to download them
    lite: str = "package"  # EfficientNet-Lite0's weights: a file, or that of the package which brings them
    feature_size: int = 96  # side in pixels at which they look
    feature_every: int = 1  # steps from one look of the judge "features" to the next, where there are others beside it
    crowd: float = 0.0  # weight of the energy distance between generated and real pictures in those features
    fade: int = 0  # steps over which the judges come to see what is finer than half the resolution
    loss: str = "non-saturating"  # or "hinge", "relativistic"
    gradient_penalty: float = 0.0  # gamma of R1, for the discriminator of pixels
    batch_size: int = 16  # many small steps beat few large ones on a CPU
    learning_rate: float = 2e-4  # this and beta_1 are DCGAN's
    judge_rate: float = 1.0  # the judges' learning rate as a multiple of the generator's
    beta_1: float = 0.5
    augment: tuple[str, ...] = ("translation", "cutout")  # "color" too, for runs of millions of pictures
    augment_strength: float = 1.0  # how far each of them goes, as a multiple of the paper's
    ema_decay: float = 0.999  # half of the average is from the last 700 steps
    learning: tuple[str, ...] = ()  # what the names of the generator's layers that learn begin with; (): all learn
    learning_size: int = 0  # side up to which the generator learns, its finer part staying; 0: all of it
    warm_up: int = 0  # steps in which only the judges learn, where training starts with a trained generator
    mixed_precision: bool = False  # bfloat16 arithmetic: faster where the processor has it (AVX512-BF16)
    seed: int = 0

    @property
    def seen_size(self) -> int:
        """Side in pixels of the pictures in training, real and generated."""
        return self.learning_size or self.resolution

    def check(self) -> None:
        """`ValueError` if a setting is none of those that there are."""
        check_resolution(self.resolution)
        choices = {"generator": ("skip", "dcgan"), "loss": tuple(LOSSES)}
        for name, allowed in choices.items():
            if getattr(self, name) not in allowed:
                raise ValueError(f"{name} is one of {', '.join(allowed)}, not {getattr(self, name)!r}")
        if not self.judges or set(self.judges) - {"pixels", "features", "lite", "patches"}:
            named = ", ".join(self.judges) or "none"
            raise ValueError(f"judges are any of pixels, features, lite, patches, not {named}")
        if self.learning_size:
            check_resolution(self.learning_size)
            if self.generator != "skip" or self.learning_size >= self.resolution:
                raise ValueError(
                    f"learning_size is for the generator skip, and less than the resolution {self.resolution}, "
                    f"not {self.learning_size}"
                )
        if self.pixels_size:
            check_resolution(self.pixels_size)
            if self.pixels_size > self.seen_size:
                raise ValueError(f"pixels_size is at most the judges' {self.seen_size} px, not {self.pixels_size}")
        looking = {"features", "lite"} & set(self.judges)
        if self.crowd and not looking:
            raise ValueError("the crowd's distance is measured in features: judges=features, or pixels,features")
        if self.gradient_penalty and "pixels" not in self.judges:
            raise ValueError("the gradient penalty is for the discriminator of pixels, which these judges lack")
        if self.gradient_penalty and self.mixed_precision:
            raise ValueError("the gradient penalty's small differences are lost in bfloat16: without mixed precision")
        if self.memory and (self.generator != "skip" or self.latent_dim < 2):
            raise ValueError("a memory is for the generator skip, and a latent_dim from 2 up")
        if self.pairs and not (self.memory and looking):
            raise ValueError("pairs need a memory, and features to compare in: memory=240 judges=pixels,features")
        if self.feature_every > 1 and ("features" not in self.judges or len(self.judges) < 2):
            raise ValueError("feature_every is for the judge features with others beside it: judges=features,lite")
        widths = ("width", "fine_width", "discriminator_width")
        for name in (
            "latent_dim",
            *widths,
            "batch_size",
            "feature_every",
            "learning_rate",
            "judge_rate",
            "memory_rate",
        ):
            if not 0 < getattr(self, name) < math.inf:
                raise ValueError(f"{name} is a positive number, not {getattr(self, name)}")
        ends = {
            "crowd": math.inf,
            "fade": math.inf,
            "gradient_penalty": math.inf,
            "warm_up": math.inf,
            "augment_strength": 2,
            "residual": 4,
            "mapping": 9,
            "memory": math.inf,
            "pairs": math.inf,
            "finest_width": math.inf,
            "half_width": math.inf,
            "ema_decay": 1,
            "beta_1": 1,
            "seed": 2**32,
        }
        for name, end in ends.items():
            if not 0 <= getattr(self, name) < end:
                raise ValueError(f"{name} is from 0 up and less than {end}, not {getattr(self, name)}")
        if unknown := set(self.augment) - set(POLICIES):
            raise ValueError(f"augment names {', '.join(POLICIES)}, not {', '.join(sorted(unknown))}")
        if looking and (self.feature_size < 32 or self.feature_size % 32):
            raise ValueError(f"feature_size is a multiple of 32, not {self.feature_size}")
