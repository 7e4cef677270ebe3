"""The generator and the discriminator: a class-conditional DCGAN, narrow enough for a CPU.

After Radford et al., "Unsupervised representation learning with deep convolutional GANs" (2016), with three
additions that small, labelled data repays: the latent and the style scale and shift every batch-normalized
feature ("self-modulation", Chen et al., 2019), every size adds its part to the picture ("skip" generator, Karras et
al., StyleGAN2, 2020), and the discriminator is told the style by projection (Miyato and Koyama, 2018).
`build_dcgan_generator` is the published arrangement without them, to compare with.
"""

from __future__ import annotations

import keras
import numpy as np
from keras import layers, ops

from atelier.generator.memory import MEMORY, memory_size, recalled, remember_more
from atelier.seeds import STYLES

EXCITED_BY = {64: 4, 128: 8, 256: 16}
"""Which small map tells each large one what matters, where skip-layer excitation is asked for."""


def initializer(stddev: float = 0.02) -> keras.initializers.Initializer:
    """DCGAN's normal initializer, a new one for every layer: one that is used twice gives the same numbers twice."""
    return keras.initializers.RandomNormal(stddev=stddev)


def _channels(size: int, width: int, least: int = 16) -> int:
    """Feature maps at a given side length: halved whenever the side doubles, `width` at 32 pixels, never fewer than
    `least`."""
    return min(8 * width, max(least, 32 * width // size))


def build_generator(
    resolution: int = 64,
    latent_dim: int = 128,
    width: int = 32,
    fine_width: int = 16,
    excitation: bool = False,
    subpixel: bool = False,
    grain: bool = False,
    residual: int = 0,
    mapping: int = 0,
    memory: int = 0,
    finest_width: int = 0,
    half_width: int = 0,
    transposed: bool = False,
) -> keras.Model:
    """A functional model of built-in layers only, so that its .h5 file loads without this package.

    Args:
        resolution: side of the pictures, a power of two >= 16.
        latent_dim: length of the latent.
        width: feature maps at 32 pixels; 32 gives 1.2 M parameters (a 5 MB file).
        fine_width: feature maps at any size, at least: the largest have what detail is made of.
        excitation: small maps weigh the channels of large ones (skip-layer excitation, Liu et al., "Towards
            faster and stabilized GAN training", 2021).
        subpixel: the largest maps have half the picture's side, and each of their places paints 2x2 pixels (Shi et
            al., "Real-time single image super-resolution", 2016): a third of the time of maps at full size. What
            they paint is smoothed and added to a picture that, averaged over those 2x2, is the one of half the side
            again.
        grain: maps of noise, each a product of the latent, enter at 16, 32 and 64 pixels. Without them all texture
            has to come from where the repeated pixels meet, and looks like it. (Karras et al., StyleGAN, 2019, draw
            such noise anew for every picture; here a latent always gives the same picture.)
        residual: pairs of convolutions more at every size from 16 pixels on, which add to what was found before them
            (He et al., "Deep residual learning", 2016) and begin by adding nothing. All but the first stand at 8
            pixels, too.
        mapping: pairs of dense layers that move the latent, by what it is and by the style, before anything is made
            of it: away from where the pictures are bad (the mapping network of Karras et al., StyleGAN, 2019; here it
            begins by moving nothing).
        memory: latents of each style that the generator remembers; training may tie each to a picture (Bojanowski et
            al., "Optimizing the latent space of generative networks", 2018). The first half of `latent` is a question
            then, answered by the remembered latent whose key is nearest to it (soft attention, Bahdanau et al., 2015,
            to fixed random keys), and all of it is a step beside that one.
        finest_width: feature maps at the full resolution, or before the sub-pixel convolution; 0: as many as
            `fine_width` says, or three times as many.
        half_width: feature maps at half the resolution; 0: as many as `fine_width` says. With sub-pixels they are the
            largest maps there are, and most of the time.
        transposed: each doubling is one transposed convolution, which with the kernels of `transpose_kernel` paints
            the same pictures in less time: to paint with, not to train.

    Returns:
        a model from `latent` (N, latent_dim) float32 and `style` (N,) int32 (an index into `STYLES`)
        to pictures (N, resolution, resolution, 3) float32 in [-1, 1].

    Raises:
        ValueError: the resolution is no power of two >= 16.
    """
    check_resolution(resolution)
    latent, style, embedding = _inputs(latent_dim)
    moved = latent
    if memory:
        moved = recalled(latent, style, memory, initializer(1.0))
    for number in range(mapping):
        moved = _map(moved, embedding, number + 1)
    code = layers.Concatenate(name="code")([moved, embedding])
    size, channels = 4, _channels(4, width, fine_width)
    x = layers.Dense(size * size * channels, kernel_initializer=initializer(), name="canvas")(code)
    x = layers.Reshape((size, size, channels))(x)
    x = layers.ReLU()(_modulated_batch_norm(x, code))
    image, maps = None, {size: x}
    while size < (resolution // 2 if subpixel else resolution):
        size, channels = 2 * size, _channels(2 * size, width, fine_width)
        if size == resolution and finest_width:
            channels = finest_width
        if 2 * size == resolution and half_width:
            channels = half_width
        # Repeating pixels and then convolving: a transposed convolution that is free to learn weaves a grid of its own
        # into the picture (Odena et al., "Deconvolution and checkerboard artifacts", 2016).
        if transposed:
            x = layers.Conv2DTranspose(channels, 4, 2, "same", use_bias=False, name=f"up_{size}")(x)
        else:
            x = _conv(channels, 3, use_bias=False, name=f"up_{size}")(layers.UpSampling2D()(x))
        if grain and 16 <= size <= 64:
            x = layers.Add()([x, _grain(moved, size, channels)])
        x = layers.ReLU()(_modulated_batch_norm(x, code))
        for number in range(residual):
            if size >= (8 if number else 16):
                x = _refine(x, code, f"{number + 1}_" if number else "")
        if excitation and size in EXCITED_BY:
            x = _excite(x, maps[EXCITED_BY[size]])
        maps[size] = x
        image = _add_to(image, _conv(3, 3, dtype="float32", name=f"to_rgb_{size}")(x))
    if subpixel:
        x = layers.ReLU()(_conv(finest_width or 3 * channels, 3, name=f"detail_{resolution}")(x))
        x = _conv(12, 3, dtype="float32", name=f"to_rgb_{resolution}")(x)
        x = layers.Reshape((size, size, 2, 2, 3), dtype="float32")(x)
        x = layers.Permute((1, 3, 2, 4, 5), dtype="float32")(x)  # (N, size, 2, size, 2, 3)
        x = layers.Reshape((resolution, resolution, 3), dtype="float32")(x)
        image = layers.Add(dtype="float32")([_enlarge(image), _smooth(x)])
    image = layers.Activation("tanh", dtype="float32", name="image")(image)
    return keras.Model([latent, style], image, name="generator")


def build_dcgan_generator(resolution: int = 64, latent_dim: int = 128, width: int = 32) -> keras.Model:
    """The published DCGAN: transposed convolutions (kernel 4, stride 2), plain batch norm. Interface and file as
    `build_generator`'s; the style enters beside the latent.

    Raises:
        ValueError: the resolution is no power of two >= 16.
    """
    check_resolution(resolution)
    latent, style, embedding = _inputs(latent_dim)
    code = layers.Concatenate(name="code")([latent, embedding])
    size, channels = 4, _channels(4, width)
    x = layers.Dense(size * size * channels, kernel_initializer=initializer(), use_bias=False, name="canvas")(code)
    x = layers.Reshape((size, size, channels))(x)
    while size < resolution:
        x = layers.ReLU()(layers.BatchNormalization()(x))
        size *= 2
        channels, bias = (3, True) if size == resolution else (_channels(size, width), False)
        x = layers.Conv2DTranspose(channels, 4, 2, "same", kernel_initializer=initializer(), use_bias=bias)(x)
    image = layers.Activation("tanh", dtype="float32", name="image")(x)
    return keras.Model([latent, style], image, name="generator")


def _inputs(latent_dim: int):
    """The generator's inputs `latent` and `style`, and the style's embedding (N, 32)."""
    latent = keras.Input((latent_dim,), name="latent", dtype="float32")
    style = keras.Input((), name="style", dtype="int32")
    # As large as the latent from the start, so that the media differ before anything else is learned.
    styles = layers.Embedding(len(STYLES), 32, embeddings_initializer=initializer(1.0), name="style_embedding")
    return latent, style, styles(style)


def _map(latent, embedding, number: int):
    """The latent moved by what a small perceptron makes of it and of the style; at first that is nothing."""
    more = layers.Dense(256, kernel_initializer="he_normal", name=f"mapping_{number}")
    more = layers.LeakyReLU(0.2)(more(layers.Concatenate()([latent, embedding])))
    more = layers.Dense(latent.shape[-1], kernel_initializer="zeros", name=f"mapped_{number}")(more)
    return layers.Add()([latent, more])


def _conv(channels: int, kernel: int, **kwargs) -> layers.Layer:
    return layers.Conv2D(channels, kernel, padding="same", kernel_initializer=initializer(), **kwargs)


def _add_to(image, rgb):
    """The picture so far, enlarged to the new part's size, and the new part."""
    if image is None:
        return rgb
    if rgb.shape[1] > 64:
        larger = _enlarge(image)
    else:
        larger = layers.UpSampling2D(interpolation="bilinear", dtype="float32")(image)
    return layers.Add(dtype="float32", name=f"sum_{rgb.shape[1]}")([larger, rgb])


def up_to(generator: keras.Model, size: int) -> keras.Model:
    """A generator without its finer part: its picture of the side `size`, by the very same layers, not copies.

    Args:
        generator: of `build_generator`, not from a file: there the sums have no names.
        size: a power of two from 16 up and less than the generator's own.
    """
    picture = layers.Activation("tanh", dtype="float32", name="image")(generator.get_layer(f"sum_{size}").output)
    return keras.Model(generator.inputs, picture, name="generator")


def _enlarge(image):
    """Twice the side, by Lanczos's kernel: so enlarged, a trained generator's pictures are nearest to real ones of
    twice the size (docs/experiments.md), and the finest size need not mend first what enlarging did.
    """
    return layers.UpSampling2D(interpolation="lanczos3", dtype="float32")(image)


def _smooth(x):
    """Averaged by 1-2-1 both ways, fixed: the four of a place are of different weights, and what differs between them
    everywhere would be a screen of dots over the picture, which no judge that looks at fewer pixels can see (Sugawara
    et al., "Super-resolution using convolutional neural networks without any checkerboard artifacts", 2018).

    Neighbours are added twice along each axis: a depthwise convolution of three channels takes TensorFlow's own kernels
    two milliseconds a picture more.
    """
    x = layers.ZeroPadding2D(1, dtype="float32")(x)
    for last, first in 2 * [(((0, 1), 0), ((1, 0), 0))] + 2 * [((0, (0, 1)), (0, (1, 0)))]:
        x = layers.Add(dtype="float32")([layers.Cropping2D(off, dtype="float32")(x) for off in (last, first)])
    return layers.Rescaling(1 / 16, dtype="float32")(x)


def _grain(latent, size: int, channels: int):
    """Noise that the latent decides, (N, size, size, channels); at first its weight is 0."""
    maps = 1 if size > 32 else 2  # the large ones have most of the weights
    spread = initializer(latent.shape[-1] ** -0.5)  # so that the noise has variance 1
    noise = layers.Dense(size * size * maps, use_bias=False, kernel_initializer=spread, name=f"grain_{size}")(latent)
    noise = layers.Reshape((size, size, maps))(noise)
    return layers.Conv2D(channels, 1, use_bias=False, kernel_initializer="zeros", name=f"grained_{size}")(noise)


def _modulated_batch_norm(x, code, prefix: str = ""):
    """Batch norm whose scale and shift are linear in the code (latent and style)."""
    size, channels = x.shape[1], x.shape[-1]
    x = layers.BatchNormalization(center=False, scale=False, name=f"{prefix}norm_{size}")(x)
    options = {"kernel_initializer": initializer(), "bias_initializer": "ones"}
    scale = layers.Dense(channels, **options, name=f"{prefix}scale_{size}")(code)
    shift = layers.Dense(channels, kernel_initializer=initializer(), name=f"{prefix}shift_{size}")(code)
    x = layers.Multiply()([x, layers.Reshape((1, 1, channels))(scale)])
    return layers.Add()([x, layers.Reshape((1, 1, channels))(shift)])


def _refine(x, code, number: str = ""):
    """Maps with what two more convolutions make of them added; at first that is nothing. `number` tells their names."""
    size, channels = x.shape[1], x.shape[-1]
    fewer = channels // 2 if size >= 64 else channels  # where they cost most
    more = _conv(fewer, 3, use_bias=False, name=f"refine_{number}{size}")(x)
    more = layers.ReLU()(_modulated_batch_norm(more, code, f"refine_{number}"))
    last = layers.Conv2D(channels, 3, padding="same", kernel_initializer="zeros", name=f"refined_{number}{size}")
    return layers.Add()([x, last(more)])


def _excite(x, small):
    """Weights in 0...1 for the channels of `x`, read from all of a small map at once."""
    size, channels = x.shape[1], x.shape[-1]
    pooled = layers.AveragePooling2D(small.shape[1] // 4)(small) if small.shape[1] > 4 else small
    gate = layers.Conv2D(channels, 4, kernel_initializer=initializer(), name=f"excite_{size}")(pooled)  # (N, 1, 1, C)
    gate = layers.Conv2D(channels, 1, activation="sigmoid", name=f"gate_{size}")(layers.LeakyReLU(0.1)(gate))
    return layers.Multiply()([x, gate])


def transpose_kernel(kernel: np.ndarray) -> np.ndarray:
    """The kernel (4, 4, out, in) of a transposed convolution with stride 2 that does what repeating pixels and then
    convolving by `kernel` (3, 3, in, out) do: each pixel made comes of 2x2 old ones, not of 3x3 repeated ones.
    """
    both = np.zeros((4, 4, *kernel.shape[2:]), kernel.dtype)
    for top, left in np.ndindex(2, 2):
        both[top : top + 3, left : left + 3] += kernel[::-1, ::-1]
    return both.swapaxes(2, 3)


def untranspose_kernel(kernel: np.ndarray) -> np.ndarray:
    """What `transpose_kernel` was given."""
    for axis in (0, 1):  # along each axis there is a, a + b, b + c, c
        first, second, _, last = np.split(kernel, 4, axis)
        kernel = np.concatenate([last, second - first, first], axis)
    return kernel.swapaxes(2, 3)


def copy_weights(trained: keras.Model, twin: keras.Model) -> None:
    """Give a generator of `build_generator` the weights of its `transposed` twin, or the other way round."""
    for layer in learned_layers(trained):
        place = twin.get_layer(layer.name)
        turn = transpose_kernel if _doubles(place) else np.asarray
        place.set_weights([turn(weight) for weight in layer_weights(layer)])


def _doubles(layer: layers.Layer) -> bool:
    """Whether it is a transposed convolution in place of repeated pixels and a convolution."""
    return isinstance(layer, layers.Conv2DTranspose) and layer.name.startswith("up_")


def learned_layers(generator: keras.Model) -> list[layers.Layer]:
    """Those with weights, less the `_smooth` of older files, a convolution whose weights never changed."""
    return [layer for layer in generator.layers if layer.weights and not layer.name.startswith("smooth_")]


def layer_weights(layer: layers.Layer) -> list[np.ndarray]:
    """A layer's weights as they are trained."""
    weights = layer.get_weights()
    return [untranspose_kernel(weight) for weight in weights] if _doubles(layer) else weights


MAY_BE_WIDER = ("canvas", "up_", "norm_", "scale_", "shift_", "grained_", "to_rgb_", "refine")
"""Layers whose weights' last two axes are channels."""


def grow(generator: keras.Model, trained: keras.Model) -> keras.Model:
    """Give a new generator what a trained one of its own size or smaller, with no more channels, has learned.

    Layers are matched by name. The sizes that the trained one lacks begin by adding nothing to the picture, so the
    new generator first paints the trained one's pictures, enlarged (the idea of Karras et al., "Progressive
    growing of GANs", 2018, with the fade-in left to the weights). Channels that it lacks are random, and nobody
    listens to them yet (Chen et al., "Net2Net", 2016); grain that it lacks begins with a weight of 0. A memory may hold
    more latents (`remember_more`).

    Raises:
        ValueError: a layer of the trained generator has no place in the new one.
    """
    places = {layer.name: layer for layer in generator.layers}
    if 0 < memory_size(trained) < memory_size(generator):
        remember_more(generator, trained)
        places = {name: layer for name, layer in places.items() if name not in MEMORY}
    for layer in learned_layers(trained):
        if layer.name in MEMORY and layer.name not in places:
            continue
        place = places.pop(layer.name, None)
        weights = _by_channel(layer.name, layer_weights(layer))
        blank = _by_channel(layer.name, place.get_weights()) if place else []
        if not _fits(layer.name, weights, blank):
            raise ValueError(f"layer {layer.name} of the trained generator does not fit: other widths, or another kind")
        learned = [_widened(new, old) for new, old in zip(blank, weights, strict=True)]
        place.set_weights([weight.reshape(to.shape) for weight, to in zip(learned, place.weights, strict=True)])
    for name, layer in places.items():
        if name.startswith(("to_rgb_", "grained_", "refined_", "mapped_")):
            layer.set_weights([weight * 0.0 for weight in layer.get_weights()])
    return generator


def _by_channel(name: str, weights: list[np.ndarray]) -> list[np.ndarray]:
    """Weights whose last axis is channels: the canvas has all those of its 16 places in one row."""
    return [weight.reshape(*weight.shape[:-1], 16, -1) for weight in weights] if name == "canvas" else weights


def _fits(name: str, weights: list[np.ndarray], blank: list[np.ndarray]) -> bool:
    ours, theirs = ([weight.shape for weight in each] for each in (weights, blank))
    if ours == theirs or not name.startswith(MAY_BE_WIDER) or list(map(len, ours)) != list(map(len, theirs)):
        return ours == theirs
    return all(
        small[:-2] == large[:-2] and all(few <= many for few, many in zip(small, large, strict=True))
        for small, large in zip(ours, theirs, strict=True)
    )


def _widened(new: np.ndarray, old: np.ndarray) -> np.ndarray:
    """`old` in the first places of `new`; channels that it lacks keep their start, and what it knows ignores them."""
    if new.ndim > 1:
        new[..., old.shape[-2] :, : old.shape[-1]] = 0.0
    new[tuple(map(slice, old.shape))] = old
    return new


def build_discriminator(resolution: int = 64, width: int = 32, spectral_norm: bool = False) -> keras.Model:
    """A model from `image` (N, resolution, resolution, 3) in [-1, 1] and `style` (N,) int32 to `logits` (N, 1).

    Positive means real. Batch normalization everywhere but in the first layer, as in DCGAN.

    Args:
        resolution: side of the pictures, a power of two >= 16.
        width: feature maps at 32 pixels.
        spectral_norm: bound every convolution's slope instead of normalizing batches (Miyato et al., 2018).

    Raises:
        ValueError: the resolution is no power of two >= 16.
    """
    check_resolution(resolution)
    image = keras.Input((resolution, resolution, 3), name="image")
    style = keras.Input((), name="style", dtype="int32")
    x, size = image, resolution
    while size > 4:
        size //= 2
        down = layers.Conv2D(
            _channels(size, width), 4, 2, "same", kernel_initializer=initializer(), name=f"down_{size}"
        )
        x = layers.SpectralNormalization(down)(x) if spectral_norm else down(x)
        if size < resolution // 2 and not spectral_norm:
            x = layers.BatchNormalization()(x)
        x = layers.LeakyReLU(0.2)(x)
    x = layers.Activation("linear", dtype="float32")(x)  # (N, 4, 4, C)
    # How much the pictures of a batch differ, as one more feature: a collapsed generator shows
    # (minibatch standard deviation, Karras et al., "Progressive growing of GANs", 2018).
    spread = ops.mean(ops.sqrt(ops.var(x, axis=0) + 1e-8))  # the slope of a root is infinite at 0
    spread = ops.zeros_like(x[:, 0, 0, :1]) + spread  # (N, 1)
    # One weight for every feature at every place: what belongs where counts, not only what is there.
    places = layers.Concatenate(dtype="float32")([layers.Flatten(dtype="float32")(x), spread])
    realness = layers.Dense(1, kernel_initializer=initializer(), dtype="float32", name="realness")(places)
    table = {"embeddings_initializer": initializer(), "dtype": "float32", "name": "styles"}
    match = ops.mean(x, axis=(1, 2)) * layers.Embedding(len(STYLES), x.shape[-1], **table)(style)
    return keras.Model([image, style], realness + ops.sum(match, axis=-1, keepdims=True), name="discriminator")


def build_patch_discriminator(resolution: int = 128, width: int = 32) -> keras.Model:
    """As `build_discriminator`, but its (N, (resolution / 8) ** 2) logits judge a patch of 38 pixels' side each.

    It knows texture and nothing of composition (Isola et al., "Image-to-image translation with conditional
    adversarial networks", 2017), so it goes beside a judge that sees the whole.

    Raises:
        ValueError: the resolution is no power of two >= 16.
    """
    check_resolution(resolution)
    image = keras.Input((resolution, resolution, 3), name="image")
    style = keras.Input((), name="style", dtype="int32")
    x = image
    for number in range(3):
        channels = width * 2**number // 2
        x = _conv(channels, 4, strides=2, use_bias=number == 0, name=f"down_{resolution >> (number + 1)}")(x)
        x = layers.LeakyReLU(0.2)(layers.BatchNormalization()(x) if number else x)
    x = layers.BatchNormalization()(_conv(channels, 3, use_bias=False, name="around")(x))
    x = layers.Activation("linear", dtype="float32")(layers.LeakyReLU(0.2)(x))  # (N, h, w, C)
    realness = _conv(1, 1, dtype="float32", name="realness")(x)
    table = {"embeddings_initializer": initializer(), "dtype": "float32", "name": "styles"}
    match = ops.einsum("nhwc,nc->nhw", x, layers.Embedding(len(STYLES), channels, **table)(style))
    logits = layers.Flatten(dtype="float32")(realness + match[..., None] / channels**0.5)
    return keras.Model([image, style], logits, name="patches")


def check_resolution(resolution: int) -> None:
    """`ValueError` unless the networks can be built for pictures of this side."""
    if resolution < 16 or resolution & (resolution - 1):
        raise ValueError(f"resolution is a power of two from 16 up, not {resolution}")
