"""The generator and the discriminator: a class-conditional DCGAN, narrow enough for a CPU.

After Radford et al., "Unsupervised representation learning with deep convolutional GANs" (2016), with three
additions that small, labelled data repays: the latent and the style scale and shift every batch-normalized
feature ("self-modulation", Chen et al., 2019), every size adds its part to the picture ("skip" generator, Karras et
al., StyleGAN2, 2020), and the discriminator is told the style by projection (Miyato and Koyama, 2018).
"""

from __future__ import annotations

import keras
from keras import layers, ops

from atelier.seeds import STYLES


def _init(stddev: float = 0.02) -> keras.initializers.Initializer:
    """DCGAN's normal initializer, a new one for every layer: one that is used twice gives the same numbers twice."""
    return keras.initializers.RandomNormal(stddev=stddev)


def _channels(size: int, width: int) -> int:
    """Feature maps at a given side length: halved whenever the side doubles, `width` at 32 pixels."""
    return min(8 * width, max(16, 32 * width // size))


def build_generator(resolution: int = 64, latent_dim: int = 128, width: int = 32) -> keras.Model:
    """A functional model of built-in layers only, so that its .h5 file loads without this package.

    Args:
        resolution: side of the pictures, a power of two >= 16.
        latent_dim: length of the latent.
        width: feature maps at 32 pixels; 32 gives 1.2 M parameters (a 5 MB file).

    Returns:
        a model from `latent` (N, latent_dim) float32 and `style` (N,) int32 (an index into `STYLES`)
        to pictures (N, resolution, resolution, 3) float32 in [-1, 1].

    Raises:
        ValueError: the resolution is no power of two >= 16.
    """
    check_resolution(resolution)
    latent = keras.Input((latent_dim,), name="latent", dtype="float32")
    style = keras.Input((), name="style", dtype="int32")
    # As large as the latent from the start, so that the media differ before anything else is learned.
    styles = layers.Embedding(len(STYLES), 32, embeddings_initializer=_init(1.0), name="style_embedding")
    code = layers.Concatenate(name="code")([latent, styles(style)])

    size, channels = 4, _channels(4, width)
    x = layers.Dense(size * size * channels, kernel_initializer=_init(), name="canvas")(code)
    x = layers.Reshape((size, size, channels))(x)
    x = layers.ReLU()(_modulated_batch_norm(x, code))
    image = None
    while size < resolution:
        size, channels = 2 * size, _channels(2 * size, width)
        # Repeating pixels and then convolving: a transposed convolution weaves a grid of its own into the picture
        # (Odena et al., "Deconvolution and checkerboard artifacts", 2016).
        x = layers.UpSampling2D()(x)
        x = layers.Conv2D(channels, 3, padding="same", kernel_initializer=_init(), use_bias=False, name=f"up_{size}")(x)
        x = layers.ReLU()(_modulated_batch_norm(x, code))
        rgb = layers.Conv2D(3, 3, padding="same", kernel_initializer=_init(), dtype="float32", name=f"to_rgb_{size}")(x)
        image = rgb if image is None else layers.Add()([layers.UpSampling2D(interpolation="bilinear")(image), rgb])
    image = layers.Activation("tanh", dtype="float32", name="image")(image)
    return keras.Model([latent, style], image, name="generator")


def _modulated_batch_norm(x, code):
    """Batch norm whose scale and shift are linear in the code (latent and style)."""
    channels = x.shape[-1]
    x = layers.BatchNormalization(center=False, scale=False)(x)
    scale = layers.Dense(channels, kernel_initializer=_init(), bias_initializer="ones")(code)
    shift = layers.Dense(channels, kernel_initializer=_init())(code)
    x = layers.Multiply()([x, layers.Reshape((1, 1, channels))(scale)])
    return layers.Add()([x, layers.Reshape((1, 1, channels))(shift)])


def build_discriminator(resolution: int = 64, width: int = 32) -> keras.Model:
    """A model from `image` (N, resolution, resolution, 3) in [-1, 1] and `style` (N,) int32 to `logits` (N, 1).

    Positive means real. Batch normalization everywhere but in the first layer, as in DCGAN.

    Raises:
        ValueError: the resolution is no power of two >= 16.
    """
    check_resolution(resolution)
    image = keras.Input((resolution, resolution, 3), name="image")
    style = keras.Input((), name="style", dtype="int32")
    x, size = image, resolution
    while size > 4:
        size //= 2
        x = layers.Conv2D(_channels(size, width), 4, 2, "same", kernel_initializer=_init(), name=f"down_{size}")(x)
        if size < resolution // 2:
            x = layers.BatchNormalization()(x)
        x = layers.LeakyReLU(0.2)(x)
    x = layers.Activation("linear", dtype="float32")(x)  # (N, 4, 4, C)
    # How much the pictures of a batch differ, as one more feature: a collapsed generator shows
    # (minibatch standard deviation, Karras et al., "Progressive growing of GANs", 2018).
    spread = ops.mean(ops.sqrt(ops.var(x, axis=0) + 1e-8))  # the slope of a root is infinite at 0
    spread = ops.zeros_like(x[:, 0, 0, :1]) + spread  # (N, 1)
    # One weight for every feature at every place: what belongs where counts, not only what is there.
    places = layers.Concatenate(dtype="float32")([layers.Flatten(dtype="float32")(x), spread])
    realness = layers.Dense(1, kernel_initializer=_init(), dtype="float32", name="realness")(places)
    styles = layers.Embedding(len(STYLES), x.shape[-1], embeddings_initializer=_init(), dtype="float32", name="styles")
    match = ops.sum(ops.mean(x, axis=(1, 2)) * styles(style), axis=-1, keepdims=True)
    return keras.Model([image, style], realness + match, name="discriminator")


def check_resolution(resolution: int) -> None:
    """`ValueError` unless the networks can be built for pictures of this side."""
    if resolution < 16 or resolution & (resolution - 1):
        raise ValueError(f"resolution is a power of two from 16 up, not {resolution}")
