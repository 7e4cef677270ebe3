"""Pictures to the numbers that BLIP sees, as `transformers.BlipImageProcessor` makes them."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image

from atelier.captioner.errors import CaptionerError
from atelier.images import to_rgb

# Mean and spread of the red, green and blue of CLIP's training pictures (Radford et al., 2021), which BLIP took over.
CLIP_MEAN = (0.48145466, 0.4578275, 0.40821073)
CLIP_STD = (0.26862954, 0.26130258, 0.27577711)


@dataclass(frozen=True)
class Preprocessor:
    """Resizes (bicubic, to a square, whatever the picture's shape) and normalises pictures."""

    size: int
    mean: tuple[float, float, float] = CLIP_MEAN
    std: tuple[float, float, float] = CLIP_STD

    @classmethod
    def from_file(cls, path: Path) -> Preprocessor:
        """Read a Hugging Face `preprocessor_config.json`; `CaptionerError` where it is no such file."""
        try:
            record = json.loads(path.read_text(encoding="utf-8"))
            size = record["size"]  # 384 or {"height": 384, "width": 384}
            if isinstance(size, dict):
                if size["height"] != size["width"]:
                    raise CaptionerError(f"{path}: BLIP takes square pictures, not {size}")
                size = size["height"]
            return cls(int(size), tuple(record["image_mean"]), tuple(record["image_std"]))
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise CaptionerError(f"{path} is no readable preprocessor_config.json: {error!r}") from error

    def to_json(self) -> str:
        """The text of a `preprocessor_config.json` that `transformers` reads, too."""
        record = {
            "image_processor_type": "BlipImageProcessor",
            "processor_class": "BlipProcessor",
            "do_resize": True,
            "size": {"height": self.size, "width": self.size},
            "resample": int(Image.Resampling.BICUBIC),
            "do_rescale": True,
            "rescale_factor": 1 / 255,
            "do_normalize": True,
            "image_mean": list(self.mean),
            "image_std": list(self.std),
            "do_convert_rgb": True,
        }
        return json.dumps(record, indent=2)

    def __call__(self, images: Sequence[Image.Image | np.ndarray]) -> np.ndarray:
        """Preprocess pictures.

        Args:
            images: N PIL pictures of any mode and size, or (H, W, 3) uint8 arrays.

        Returns:
            (N, size, size, 3) float32, channels last, about [-2, 2.3].

        Raises:
            ValueError: one of them is neither.
        """
        pixels = np.empty((len(images), self.size, self.size, 3), np.float32)
        std = np.array(self.std)
        scale, shift = np.float32(1 / (255 * std)), np.float32(-np.array(self.mean) / std)
        for row, image in zip(pixels, images, strict=True):
            small = as_picture(image).resize((self.size, self.size), Image.Resampling.BICUBIC)
            np.multiply(np.asarray(small), scale, out=row)
            row += shift
        return pixels


def as_picture(image: Image.Image | np.ndarray) -> Image.Image:
    """A PIL picture (any mode) or (H, W, 3) uint8 array as an RGB PIL picture; `ValueError` for anything else."""
    if isinstance(image, Image.Image):
        return to_rgb(image)
    if isinstance(image, np.ndarray) and image.dtype == np.uint8 and image.ndim == 3 and image.shape[-1] == 3:
        return Image.fromarray(image)
    found = f"{image.dtype} array of shape {image.shape}" if isinstance(image, np.ndarray) else type(image).__name__
    raise ValueError(f"a picture is a PIL image or a (height, width, 3) uint8 array, not a {found}")
