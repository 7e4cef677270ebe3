"""All settings of the detector's training, in one place: what makes two runs differ stands here."""

from __future__ import annotations

import math
from dataclasses import dataclass, fields

from atelier.detector.views import Augmentation
from atelier.recipes import Settings


@dataclass(frozen=True)
class Recipe(Settings):
    """All that decides how a training goes. docs/detector.md says what was tried."""

    network: str = "transfer"  # or "baseline", a small CNN from scratch
    lite: str = "package"  # EfficientNet-Lite0's weights: a file, or that of the package which brings them
    folds: int = 5
    views: int = 10  # augmented views of a picture, computed once; an epoch shows one of each picture
    crops: int = 2  # views of a picture that is judged, whose logits are averaged
    epochs: int = 10
    batch_size: int = 32
    learning_rate: float = 3e-4
    weight_decay: float = 0.02
    dropout: float = 0.3  # of the pooled features
    smoothing: float = 0.05  # of the labels: some are wrong
    mixup: float = 0.0  # alpha of the Beta distribution by which two pictures' feature maps are mixed; 0: never
    style: bool = False  # whether a kernel machine on the pictures' style has a say beside the network (style.py)
    style_crops: int = 4  # views of a picture that the style machine learns from
    validation: float = 0.0  # of a fold's training pictures, for stopping early; 0: the schedule ends the training
    patience: int = 4  # epochs without a better validation loss until a fold stops
    shrink: float = 0.5  # these are those of views.Augmentation
    jpeg: float = 0.5
    blur: float = 0.15
    smallest_area: float = 0.4
    stretch: float = 1.2
    colour: float = 0.15
    seed: int = 0

    @property
    def augmentation(self) -> Augmentation:
        """How a random view differs from its picture."""
        return Augmentation(**{field.name: getattr(self, field.name) for field in fields(Augmentation)})

    def check(self) -> None:
        """`ValueError` if a setting is out of its range."""
        for name in ("views", "crops", "style_crops", "epochs", "batch_size", "learning_rate", "patience"):
            if not 0 < getattr(self, name) < math.inf:
                raise ValueError(f"{name} is a positive number, not {getattr(self, name)}")
        for name in ("weight_decay", "mixup", "seed"):
            if not 0 <= getattr(self, name) < 2**32:
                raise ValueError(f"{name} is a number from 0 up, not {getattr(self, name)}")
        for name in ("dropout", "smoothing", "shrink", "jpeg", "blur", "colour"):
            if not 0 <= getattr(self, name) < 1:
                raise ValueError(f"{name} is from 0 up and less than 1, not {getattr(self, name)}")
        if self.network not in ("transfer", "baseline"):
            raise ValueError(f"network is transfer or baseline, not {self.network!r}")
        if self.style and self.network != "transfer":
            raise ValueError("style is of the network transfer only")
        if self.folds < 2:
            raise ValueError(f"folds are at least 2, not {self.folds}")
        if not 0 <= self.validation <= 0.5:
            raise ValueError(f"validation is a share from 0 to 0.5, not {self.validation}")
        if not 0 < self.smallest_area <= 1 <= self.stretch:
            raise ValueError("smallest_area is above 0 and at most 1, stretch is at least 1")
