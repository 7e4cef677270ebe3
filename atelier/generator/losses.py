"""What the discriminator and the generator each want, as functions of the discriminator's logits.

Every function takes the logits of real and of generated pictures, both (N, K) float32 with the same style in the same
row, and gives a scalar; K logits of one picture are K opinions on it.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

from keras import ops


class Loss(NamedTuple):
    """The two sides of one game: `discriminator(real, fake)` and `generator(real, fake)`."""

    discriminator: Callable
    generator: Callable


# Goodfellow et al., "Generative adversarial nets" (2014): cross entropy, for the generator turned around.
NON_SATURATING = Loss(
    lambda real, fake: ops.mean(ops.softplus(-real)) + ops.mean(ops.softplus(fake)),
    lambda real, fake: ops.mean(ops.softplus(-fake)),
)

# Lim and Ye, "Geometric GAN" (2017): what is told apart by a margin is pushed no further.
HINGE = Loss(
    lambda real, fake: ops.mean(ops.relu(1.0 - real)) + ops.mean(ops.relu(1.0 + fake)),
    lambda real, fake: -ops.mean(fake),
)

# Jolicoeur-Martineau, "The relativistic discriminator" (2019), as in "The GAN is dead; long live the GAN!" (Huang et
# al., 2024): a generated picture is held against a real one of its medium, so that only their difference counts.
RELATIVISTIC = Loss(
    lambda real, fake: ops.mean(ops.softplus(fake - real)),
    lambda real, fake: ops.mean(ops.softplus(ops.stop_gradient(real) - fake)),
)

LOSSES = {"non-saturating": NON_SATURATING, "hinge": HINGE, "relativistic": RELATIVISTIC}
