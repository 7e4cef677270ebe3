"""One figure while training goes on: KID of a few pictures against the held-out real ones."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from atelier.evaluation.features import FeatureNetwork
from atelier.evaluation.metrics import kid
from atelier.evaluation.real import RealPictures, media_in_proportion, real_features
from atelier.generator.painter import Painter
from atelier.seeds import latent_from_seed

if TYPE_CHECKING:
    import keras


class KidMeter:
    """KID of what a generator in training paints, from the same seeds every time.

    Unbiased at any count (Binkowski et al., "Demystifying MMD GANs", 2018), so a few hundred pictures do.

    Args:
        network: what looks at the pictures.
        held_out: (N, network.dim) float32 features of real pictures at the generator's resolution.
        media: M names out of `STYLES`, one for each picture to paint.
    """

    def __init__(self, network: FeatureNetwork, held_out: np.ndarray, media: list[str]):
        self.network, self.held_out, self.media = network, held_out, media

    @classmethod
    def of(
        cls,
        data: Sequence[str | Path],
        resolution: int,
        cache: Path,
        count: int = 500,
        features: str | Path | None = None,
    ) -> KidMeter:
        """The meter for a data set: its held-out pictures, brought to `resolution`, in the proportions of their media.

        Args:
            cache: a folder that keeps what is known of the real pictures, so that the next call is immediate.
            count: pictures to paint.
            features: a Keras file, as `FeatureNetwork.load` takes it.

        Raises:
            ValueError: no network to look with, too few pictures, or no held-out picture that has no twin in training.
        """
        if count < 100:
            raise ValueError(f"KID needs at least 100 pictures, not {count}")
        real = RealPictures.find(data, cache)  # first: quick to fail, where the network may be a download
        network = FeatureNetwork.load(features)
        held_out = real_features(network, real.held_out, resolution, cache, "held-out pictures")
        return cls(network, held_out, media_in_proportion([picture.medium for picture in real.held_out], count))

    def __call__(self, generator: keras.Model) -> dict[str, float]:
        """`{"kid", "kid_std"}`: mean and standard deviation over subsets, of a generator as `build_generator` makes."""
        painter = Painter(generator)
        latents = np.stack([latent_from_seed(seed, painter.latent_dim) for seed in range(len(self.media))])
        mean, spread = kid(self.held_out, self.network.features(painter.paint(latents, self.media)))
        return {"kid": mean, "kid_std": spread}
