"""The adversarial game as one Keras model: `fit()` brings compilation, callbacks, mixed precision and every backend."""

from __future__ import annotations

import keras
from keras import ops

from atelier.backend import with_gradients
from atelier.generator.augment import DiffAugment
from atelier.generator.losses import LOSSES, Loss
from atelier.generator.matching import CrowdDistance, difference, tones_apart
from atelier.generator.networks import up_to


class GAN(keras.Model):
    """Generator against one discriminator or several: of pixels, of patches, of frozen features.

    All losses are one sum: the generator's part sees the discriminators with their weights held still, the
    discriminators' part sees the pictures held still, so one gradient step trains everybody.

    A batch is a dict: `image` (N, H, W, 3) uint8, `style` (N,) int32, `latent` (N, latent_dim) float32, and with
    `pairs` `paired` (N,) float32, 1 where the latent is the picture's own.

    Args:
        generator, average: two equal networks as `build_generator` makes them.
        size: side up to which the generator learns, its finer part staying as it is (`up_to`); 0: all of it.
        discriminator: of pixels, as `build_discriminator` makes it, or `None`. If it is for smaller pictures than the
            generator's, it sees them averaged down.
        eyes: pairs of an eye and its heads, as `build_eye` or `build_lite_eye` and `build_heads` make them.
        patches: as `build_patch_discriminator` makes it, or `None`.
        loss: a name out of `LOSSES`.
        augment, augment_strength: as `DiffAugment` takes them.
        crowd: weight of the energy distance between generated and real pictures as each eye sees them, which keeps
            the generator from painting a few kinds of picture only; 0 leaves it out.
        pairs: weight of the difference between a picture and what is painted of its own latent (`matching.difference`);
            0 leaves it out.
        feature_every: steps from one look through the first eye to the next. In between it is spared, and the others
            judge alone: what costs most is asked less often (as the regularization of Karras et al., StyleGAN2, 2020).
            More than 1 on the TensorFlow backend only.
        fade: steps over which the judges come to see what is finer than half the resolution: at first they see it as
            little as if the pictures had been painted at half the size (the fade-in of Karras et al., "Progressive
            growing of GANs", 2018, for judges that stay the same); 0 shows all of it from the start.
        gradient_penalty: gamma of R1, which flattens the discriminator of pixels around the real ones
            (Mescheder et al., 2018); 0 leaves it out.

    Raises:
        ValueError: `feature_every` on a backend that cannot leave out a look.

    Attributes:
        average: the generator with exponentially averaged weights (EMA), batch-norm statistics included:
            smoother pictures than the last step's (Yazici et al., "The unusual effectiveness of averaging", 2019).
        whole: the average with its finer part, which does not learn where there is a `size`; else the average itself.
        trained: whether the generator was a trained one at step 0, so that its average is worth keeping.
    """

    def __init__(
        self,
        generator,
        average,
        discriminator=None,
        eyes=(),
        patches=None,
        *,
        size=0,
        loss="non-saturating",
        augment=(),
        augment_strength=1.0,
        crowd=0.0,
        pairs=0.0,
        feature_every=1,
        fade=0,
        gradient_penalty=0.0,
        ema_decay=0.999,
        seed=0,
    ):
        super().__init__()
        if feature_every > 1 and keras.backend.backend() != "tensorflow":
            raise ValueError("looking less often (feature_every) is for the TensorFlow backend: feature_every=1")
        self.generator = up_to(generator, size) if size else generator
        self.discriminator, self.patches = discriminator, patches
        self.eyes, self.heads = [eye for eye, _ in eyes], [heads for _, heads in eyes]
        self.loss_pair = LOSSES[loss]
        self.augment = DiffAugment(augment, augment_strength, seed=seed)
        self.crowd, self.pairs, self.feature_every, self.fade = crowd, pairs, feature_every, fade
        seen = self.eyes if crowd else []
        self.crowd_distances = [CrowdDistance([output.shape[1:] for output in eye.outputs]) for eye in seen]
        average.trainable = False
        average.set_weights(generator.get_weights())  # a fresh network starts from other random numbers
        self.average = up_to(average, size) if size else average
        self.whole = average
        self.gradient_penalty, self.ema_decay, self.trained = gradient_penalty, ema_decay, False
        self.noise = keras.random.SeedGenerator(seed + 1)
        self.steps = self.add_weight(name="steps", shape=(), initializer="zeros", dtype="int32", trainable=False)
        names = ["g_loss", "d_loss", "d_real", "d_fake", *(["crowd"] if crowd else []), *(["pairs"] if pairs else [])]
        self.trackers = [keras.metrics.Mean(name) for name in names]
        self.built = True

    def call(self, batch, training=False):
        return self.generator([batch["latent"], batch["style"]], training=training)

    def compute_loss(self, x, y=None, y_pred=None, sample_weight=None, training=True):
        style = x["style"]
        real, fake = self._augmented(self._faded(ops.cast(x["image"], "float32") / 127.5 - 1.0), self._faded(y_pred))
        games = []
        if self.discriminator is not None:
            games.append(play(self.discriminator, self.loss_pair, [self._seen(real)], [self._seen(fake)], style))
        if self.patches is not None:
            games.append(play(self.patches, self.loss_pair, [real], [fake], style))
        looks = [self._look_through(number, real, fake, x) for number in range(len(self.eyes))]
        looked = len(games) + sum(look[-1] for look in looks)
        g_loss, d_loss, right_real, right_fake = (
            sum(parts) / looked for parts in zip(*games, *(look[:4] for look in looks), strict=True)
        )
        crowd = [sum(look[4] for look in looks)] if self.crowd else []
        pair = []
        if self.pairs:
            apart = sum(look[5] for look in looks) / ops.maximum(sum(look[-1] for look in looks), 1.0)
            pair = [apart + 20.0 * tones_apart(real, fake, x["paired"])]
        for tracker, value in zip(self.trackers, (g_loss, d_loss, right_real, right_fake, *crowd, *pair), strict=True):
            tracker.update_state(value)
        if crowd:
            g_loss = g_loss + self.crowd * crowd[0]
        if pair:
            g_loss = g_loss + self.pairs * pair[0]
        if self.gradient_penalty:
            d_loss = d_loss + self._penalty(self._seen(real), style)
        self._update_average()
        return g_loss + d_loss

    def _look_through(self, number: int, real, fake, x):
        """What one eye's heads say, as of `play`, the crowd's distance and the pairs' as it sees them, and that it did.

        Six scalars and a 1, or seven zeros in a step in which it does not look.
        """
        eye, heads = self.eyes[number], self.heads[number]

        def look():
            seen_real, seen_fake = eye(real, training=False), eye(fake, training=False)
            game = play(heads, self.loss_pair, seen_real, seen_fake, x["style"])
            zero = ops.zeros(())
            crowd = self.crowd_distances[number](seen_real, seen_fake, x["style"]) if self.crowd else zero
            pair = difference(seen_real, seen_fake, x["paired"]) if self.pairs else zero
            return *(ops.cast(value, "float32") for value in (*game, crowd, pair)), ops.ones(())

        if number or self.feature_every == 1:
            return look()
        return ops.cond(self.steps.value % self.feature_every == 0, look, lambda: (ops.zeros(()),) * 7)

    def _augmented(self, real, fake):
        """Both sides, changed at random; where pictures are compared in pairs, both of a pair in the same way."""
        if not self.pairs:
            return self.augment(real), self.augment(fake)
        stream = self.augment.random.state
        state = ops.copy(stream.value)
        real = self.augment(real)
        stream.assign(state)
        return real, self.augment(fake)

    @property
    def judges(self) -> list[keras.Model]:
        """The networks that learn to tell."""
        return [judge for judge in (self.discriminator, *self.heads, self.patches) if judge is not None]

    def _faded(self, images):
        """Pictures with as much of their finest detail as the judges are to see by now."""
        if not self.fade:
            return images
        share = ops.minimum(1.0, ops.cast(self.steps.value, "float32") / self.fade)
        side = images.shape[1]
        coarse = ops.image.resize(ops.average_pool(images, 2, 2), (side, side), interpolation="bilinear")
        return coarse + share * (images - coarse)

    def _seen(self, images):
        """Pictures at the size at which the discriminator of pixels looks."""
        times = images.shape[1] // self.discriminator.inputs[0].shape[1]
        return ops.average_pool(images, times, times) if times > 1 else images

    def _penalty(self, real, style, sigma: float = 0.01):
        """R1 = gamma / 2 * |grad D(real)|^2 without second derivatives, which not every backend's `fit` can take.

        For noise e ~ N(0, sigma^2), E (D(x + e) - D(x))^2 = sigma^2 |grad D(x)|^2 up to higher orders (Lin et al.,
        "Diffusion adversarial post-training for one-step video generation", 2025).
        """
        noise = keras.random.normal(ops.shape(real), stddev=sigma, seed=self.noise)
        twice = self.discriminator(
            [ops.concatenate([real, real + noise]), ops.concatenate([style, style])], training=True
        )
        here, there = ops.split(twice, 2)
        return self.gradient_penalty / 2 * ops.mean(ops.square((there - here) / sigma))

    def _update_average(self):
        """Move the average a little towards the generator as it was before this step."""
        move_average(self.average, self.generator, self.ema_decay, None if self.trained else self.steps)
        self.steps.assign(self.steps.value + 1)


def play(judge, loss: Loss, real, fake, style):
    """One judge's game: the generator's loss, the judge's, and how often it tells real and generated right.

    Args:
        judge: a network from a list of inputs and the style to logits (N, K).
        real, fake: what it sees of either side; the generator learns through `fake`.
    """
    real_logits = judge([*real, style], training=True)
    fake_logits, felt = _look(judge, fake, style)
    d_loss = loss.discriminator(real_logits, fake_logits)
    g_loss = loss.generator(real_logits, felt)
    return g_loss, d_loss, _share(real_logits > 0), _share(fake_logits < 0)


def _look(judge, fake, style):
    """The judge's logits of generated pictures, twice from one pass: by one the judge learns, by the other its inputs.

    With `stop_gradient` it would have to look twice, at pictures held still and with its weights held still, for the
    very same numbers.
    """
    parts = [fake, judge.trainable_variables, judge.non_trainable_variables]
    first, last = len(fake), len(fake) + len(judge.trainable_variables)

    @ops.custom_gradient
    def look(*tensors):
        fake, weights, statistics = list(tensors[:first]), list(tensors[first:last]), list(tensors[last:])

        def logits_of(fake, weights):
            return judge.stateless_call(weights, statistics, [*fake, style], training=True)

        logits, updated, pull_back = with_gradients(logits_of, fake, weights)

        def gradients(*upstream):
            for_judge, for_fake, *_ = upstream[0] if len(upstream) == 1 else upstream  # JAX hands over one tuple
            return *pull_back(for_fake)[0], *pull_back(for_judge)[1], *map(ops.zeros_like, statistics)

        return (logits, ops.copy(logits), *updated), gradients

    logits, felt, *updated = look(*(ops.copy(tensor) for part in parts for tensor in part))
    for variable, value in zip(judge.non_trainable_variables, updated, strict=True):
        variable.assign(ops.stop_gradient(value))
    return logits, felt


def move_average(average: keras.Model, network: keras.Model, decay: float, steps: keras.Variable | None = None) -> None:
    """Move a network's averaged twin a little towards it.

    Args:
        steps: taken since a random start, which is to be forgotten quickly: at first the average moves by more. `None`
            where the start was trained and is worth keeping.
    """
    if steps is not None:
        step = ops.cast(steps.value, "float32")
        decay = ops.minimum(decay, (1.0 + step) / (10.0 + step))
    for mean, weight in zip(average.weights, network.weights, strict=True):
        mean.assign(mean.value * decay + (1.0 - decay) * weight.value)


def _share(condition):
    return ops.mean(ops.cast(condition, "float32"))
