"""Reads tensors from weights files, without torch: safetensors, and the zip files that `torch.save` writes.

Such a zip file holds a pickle, and a pickle may call any function there is. The reader here knows only the names that
rebuild tensors, and gives them functions of its own; any other name ends the reading.
"""

from __future__ import annotations

import collections
import json
import math
import pickle
import zipfile
import zlib
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import NamedTuple

import ml_dtypes
import numpy as np
from safetensors import SafetensorError, safe_open

from atelier.captioner.errors import CaptionerError

STORAGES = {
    "FloatStorage": np.float32,
    "DoubleStorage": np.float64,
    "HalfStorage": np.float16,
    "BFloat16Storage": ml_dtypes.bfloat16,
    "LongStorage": np.int64,
    "IntStorage": np.int32,
    "ShortStorage": np.int16,
    "CharStorage": np.int8,
    "ByteStorage": np.uint8,
    "BoolStorage": np.bool_,
}

KINDS = {
    "F64": np.float64,
    "F32": np.float32,
    "F16": np.float16,
    "BF16": ml_dtypes.bfloat16,
    "I64": np.int64,
    "I32": np.int32,
    "I16": np.int16,
    "I8": np.int8,
    "U8": np.uint8,
    "BOOL": np.bool_,
}


def read_tensors(path: Path) -> Mapping[str, np.ndarray]:
    """The tensors of a `.safetensors` or a `torch.save` file by name, each read when it is asked for.

    Raises:
        CaptionerError: the file is missing, truncated, corrupt, or holds anything but tensors. (Damage inside a
            tensor's own bytes is found when it is read.)
    """
    try:
        return SafeTensors(path) if path.suffix == ".safetensors" else TorchTensors(path)
    except (OSError, SafetensorError, zipfile.BadZipFile, pickle.UnpicklingError) as error:
        raise CaptionerError(f"{path} is no readable weights file: {error}") from error
    except Exception as error:  # a damaged pickle can raise nearly anything: an unpickler is a small machine
        raise CaptionerError(f"{path} is no readable weights file: {type(error).__name__}: {error}") from error


class SafeTensors(Mapping):
    """A safetensors file. Its tensors are read, not mapped into memory, where pages would stay beside the copies.

    The layout: eight bytes for the header's length, a JSON header that names each tensor's kind, shape and place, and
    the numbers in little-endian order (https://github.com/huggingface/safetensors#format).
    """

    def __init__(self, path: Path):
        with safe_open(path, framework="numpy"):  # checks the whole header
            pass
        self.path = path
        with path.open("rb") as file:
            length = int.from_bytes(file.read(8), "little")
            header = json.loads(file.read(length))
        self.start = 8 + length
        self.tensors = {name: about for name, about in header.items() if name != "__metadata__"}
        if unknown := {about["dtype"] for about in self.tensors.values()} - KINDS.keys():
            raise ValueError(f"numbers of an unknown kind: {', '.join(sorted(unknown))}")

    def __getitem__(self, name: str) -> np.ndarray:
        about = self.tensors[name]
        begin, end = about["data_offsets"]
        dtype = np.dtype(KINDS[about["dtype"]])
        numbers = np.fromfile(self.path, dtype, (end - begin) // dtype.itemsize, offset=self.start + begin)
        return numbers.reshape(about["shape"])

    def __iter__(self) -> Iterator[str]:
        return iter(self.tensors)

    def __len__(self) -> int:
        return len(self.tensors)


class Storage(NamedTuple):
    """A run of numbers in the zip file."""

    name: str
    dtype: type
    count: int


class Stored(NamedTuple):
    """A tensor: a view of a storage."""

    storage: Storage
    offset: int
    shape: tuple[int, ...]
    strides: tuple[int, ...]


class TorchTensors(Mapping):
    """A `torch.save` file of a state dictionary (torch 1.6 or newer)."""

    def __init__(self, path: Path):
        self.path = path
        if not zipfile.is_zipfile(path):
            raise pickle.UnpicklingError("it is no zip file of torch.save (torch 1.6 or newer)")
        self.zip = zipfile.ZipFile(path)
        index = next((name for name in self.zip.namelist() if name.rpartition("/")[2] == "data.pkl"), None)
        if index is None:
            raise pickle.UnpicklingError("there is no data.pkl in it")
        self.folder = index.removesuffix("data.pkl")
        with self.zip.open(index) as file:
            found = TensorUnpickler(file).load()
        if not isinstance(found, dict):
            raise pickle.UnpicklingError(f"it holds a {type(found).__name__}, not a dictionary of tensors")
        self.tensors = {name: value for name, value in found.items() if isinstance(value, Stored)}

    def __getitem__(self, name: str) -> np.ndarray:
        storage, offset, shape, strides = self.tensors[name]
        size = np.dtype(storage.dtype).itemsize
        last = offset + sum((length - 1) * stride for length, stride in zip(shape, strides, strict=True))
        try:
            data = self.zip.read(f"{self.folder}data/{storage.name}")
        except (KeyError, zipfile.BadZipFile, zlib.error, OSError, EOFError) as error:
            raise CaptionerError(f"{self.path} is damaged at {name}: {error}") from error
        inside = min((offset, *shape, *strides)) >= 0 and (0 in shape or last * size + size <= len(data))
        if not inside:
            raise CaptionerError(f"{self.path} is damaged at {name}: it reaches beyond its numbers")
        if 0 in shape:
            return np.zeros(shape, storage.dtype)
        numbers = np.frombuffer(data, storage.dtype, len(data) // size)[offset:]
        return np.lib.stride_tricks.as_strided(numbers, shape, [stride * size for stride in strides], writeable=False)

    def __iter__(self) -> Iterator[str]:
        return iter(self.tensors)

    def __len__(self) -> int:
        return len(self.tensors)


class TensorUnpickler(pickle.Unpickler):
    """Unpickles dictionaries of tensors and nothing else."""

    def find_class(self, module: str, name: str):
        """Only the names that rebuild tensors mean anything here, and they mean functions of this module."""
        known = {
            ("collections", "OrderedDict"): collections.OrderedDict,
            ("torch._utils", "_rebuild_tensor_v2"): _rebuild_tensor,
            ("torch._utils", "_rebuild_parameter"): _rebuild_parameter,
        }
        if (module, name) in known:
            return known[module, name]
        if module in ("torch", "torch.storage") and name in STORAGES:
            return STORAGES[name]
        raise pickle.UnpicklingError(f"its pickle asks for {module}.{name}, which no weights need")

    def persistent_load(self, pid) -> Storage:
        kind, dtype, name, _, count = pid
        if kind != "storage" or dtype not in STORAGES.values() or not isinstance(name, str):
            raise pickle.UnpicklingError(f"its pickle refers to {pid!r}, which is no storage")
        return Storage(name, dtype, int(count))


def _rebuild_tensor(storage: Storage, offset, size, stride, *_) -> Stored:
    shape, strides = tuple(map(int, size)), tuple(map(int, stride))
    if not isinstance(storage, Storage) or math.prod(shape) > storage.count or len(shape) != len(strides):
        raise pickle.UnpicklingError("a tensor does not fit its storage")
    return Stored(storage, int(offset), shape, strides)


def _rebuild_parameter(data, *_):
    return data
