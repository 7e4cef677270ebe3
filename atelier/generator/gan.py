"""The adversarial game as one Keras model: `fit()` brings compilation, callbacks, mixed precision and every backend."""

from __future__ import annotations

import keras
from keras import ops

from atelier.generator.augment import DiffAugment
from atelier.generator.networks import build_discriminator, build_generator


class GAN(keras.Model):
    """Generator against discriminator with the non-saturating loss (Goodfellow et al., 2014).

    Both losses are one sum: the generator's part sees the discriminator with its weights held still, the
    discriminator's part sees the pictures held still, so one gradient step trains both.

    A batch is a dict: `image` (N, H, W, 3) uint8, `style` (N,) int32, `latent` (N, latent_dim) float32.

    Attributes:
        generator, discriminator: the networks in training.
        average: the generator with exponentially averaged weights (EMA), batch-norm statistics included:
            smoother pictures than the last step's (Yazici et al., "The unusual effectiveness of averaging", 2019).
    """

    def __init__(
        self, resolution=64, latent_dim=128, width=32, discriminator_width=32, augment=(), ema_decay=0.999, seed=0
    ):
        super().__init__()
        self.generator = build_generator(resolution, latent_dim, width)
        self.discriminator = build_discriminator(resolution, discriminator_width)
        self.augment = DiffAugment(augment, seed=seed)
        self.average = build_generator(resolution, latent_dim, width)
        self.average.trainable = False
        self.average.set_weights(self.generator.get_weights())  # a fresh network starts from other random numbers
        self.ema_decay = ema_decay
        self.steps = self.add_weight(name="steps", shape=(), initializer="zeros", dtype="int32", trainable=False)
        self.trackers = [keras.metrics.Mean(name) for name in ("g_loss", "d_loss", "d_real", "d_fake")]
        self.built = True

    def call(self, batch, training=False):
        return self.generator([batch["latent"], batch["style"]], training=training)

    def compute_loss(self, x, y=None, y_pred=None, sample_weight=None, training=True):
        style = x["style"]
        real = self.augment(ops.cast(x["image"], "float32") / 127.5 - 1.0)
        fake = self.augment(y_pred)

        real_logits = self.discriminator([real, style], training=True)
        fake_logits = self.discriminator([ops.stop_gradient(fake), style], training=True)
        d_loss = ops.mean(ops.softplus(-real_logits)) + ops.mean(ops.softplus(fake_logits))

        held_still = [ops.stop_gradient(v.value) for v in self.discriminator.trainable_variables]
        statistics = [v.value for v in self.discriminator.non_trainable_variables]
        logits, _ = self.discriminator.stateless_call(held_still, statistics, [fake, style], training=True)
        g_loss = ops.mean(ops.softplus(-logits))

        right = [ops.mean(ops.cast(real_logits > 0, "float32")), ops.mean(ops.cast(fake_logits < 0, "float32"))]
        for tracker, value in zip(self.trackers, [g_loss, d_loss, *right], strict=True):
            tracker.update_state(value)
        self._update_average()
        return g_loss + d_loss

    def _update_average(self):
        """Move the average a little towards the generator as it was before this step."""
        step = ops.cast(self.steps.value, "float32")
        decay = ops.minimum(self.ema_decay, (1.0 + step) / (10.0 + step))  # forgets the random start quickly
        for mean, weight in zip(self.average.weights, self.generator.weights, strict=True):
            mean.assign(mean.value * decay + (1.0 - decay) * weight.value)
        self.steps.assign(self.steps.value + 1)
