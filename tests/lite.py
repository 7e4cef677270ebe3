"""A small EfficientNet-Lite of random weights, and files as torch wrote them before 1.6, without torch."""

import io
import pickle
import struct
import sys
from collections import OrderedDict
from pathlib import Path
from types import ModuleType
from unittest.mock import patch

import numpy as np

KERNELS = (3, 3, 5, 3, 5, 5, 3)
REPEATS = (1, 2, 2, 3, 3, 4, 1)
CHANNELS = (3, 4, 6, 8, 10, 12, 14)
STEM, TOP = 5, 16


def lite_arrays(seed: int = 0) -> dict[str, np.ndarray]:
    """The state dict of such a network, by its names in the published files."""
    random, arrays = np.random.default_rng(seed), {}

    def convolution(name: str, norm: str, out: int, inputs: int, kernel: int = 1) -> None:
        spread = (2 / (inputs * kernel**2)) ** 0.5  # what goes through keeps its size
        arrays[f"{name}.weight"] = random.normal(0, spread, (out, inputs, kernel, kernel)).astype(np.float32)
        for what, low, high in (
            ("weight", 0.5, 1.5),
            ("bias", -0.5, 1),
            ("running_mean", -1, 1),
            ("running_var", 0.5, 2),
        ):
            arrays[f"{norm}.{what}"] = random.uniform(low, high, out).astype(np.float32)
        arrays[f"{norm}.num_batches_tracked"] = np.array(7)

    convolution("_conv_stem", "_bn0", STEM, 3, 3)
    before, block = STEM, 0
    for stage, (kernel, repeats, channels) in enumerate(zip(KERNELS, REPEATS, CHANNELS, strict=True)):
        for _ in range(repeats):
            name, inner = f"_blocks.{block}", before * (6 if stage else 1)
            if stage:
                convolution(f"{name}._expand_conv", f"{name}._bn0", inner, before)
            convolution(f"{name}._depthwise_conv", f"{name}._bn1", inner, 1, kernel)
            convolution(f"{name}._project_conv", f"{name}._bn2", channels, inner)
            before, block = channels, block + 1
    convolution("_conv_head", "_bn1", TOP, before)
    arrays["_fc.weight"] = random.normal(size=(2, 3)).astype(np.float32)  # of the top, which nobody reads
    return arrays


def write_torch(path: Path, arrays: dict[str, np.ndarray]) -> None:
    """What `torch.save(..., _use_new_zipfile_serialization=False)` makes of a state dict: five pickles, then numbers.

    Kernels lie transposed in their storages, as in the published files, and two tensors share the last storage.
    """
    torch, utils = ModuleType("torch"), ModuleType("torch._utils")
    torch.FloatStorage, torch.LongStorage = (
        type(n, (), {"__module__": "torch"}) for n in ("FloatStorage", "LongStorage")
    )
    exec("def _rebuild_tensor_v2(*arguments): ...", utils.__dict__)  # with the module's own name
    utils._rebuild_tensor_v2.__module__ = "torch._utils"
    storages: dict[str, np.ndarray] = {}

    class Storage:
        def __init__(self, numbers: np.ndarray, name: str):
            self.numbers, self.name = numbers, name

    class Tensor:
        def __init__(self, storage: Storage, offset: int, shape, strides):
            self.parts = (storage, offset, tuple(shape), tuple(strides), False, OrderedDict())

        def __reduce__(self):
            return utils._rebuild_tensor_v2, self.parts

    class Pickler(pickle.Pickler):
        def persistent_id(self, thing):
            if not isinstance(thing, Storage):
                return None
            kind = torch.LongStorage if thing.numbers.dtype == np.int64 else torch.FloatStorage
            return "storage", kind, thing.name, "cpu", thing.numbers.size, None

    def stored(numbers: np.ndarray) -> Storage:
        name = str(1000 + len(storages))
        storages[name] = numbers
        return Storage(numbers, name)

    tensors = OrderedDict()
    for name, array in arrays.items():
        if array.ndim == 4:
            lying = np.ascontiguousarray(array.transpose(2, 3, 1, 0))
            height, width, inputs, out = (step // lying.itemsize for step in lying.strides)
            tensors[name] = Tensor(stored(lying.ravel()), 0, array.shape, (out, inputs, height, width))
        else:
            steps = [step // array.itemsize for step in array.strides]
            tensors[name] = Tensor(stored(array.ravel()), 0, array.shape, steps)
    shared = stored(np.arange(6, dtype=np.float32))
    tensors["first_half"], tensors["second_half"] = Tensor(shared, 0, (3,), (1,)), Tensor(shared, 3, (3,), (1,))
    with patch.dict(sys.modules, {"torch": torch, "torch._utils": utils}), path.open("wb") as file:
        for part in (0x1950A86A20F9469CFC6C, 1001, {"little_endian": True}, tensors, sorted(storages)):
            buffer = io.BytesIO()
            Pickler(buffer, protocol=2).dump(part)
            file.write(buffer.getvalue())
        for name in sorted(storages):
            file.write(struct.pack("<q", storages[name].size) + storages[name].tobytes())
