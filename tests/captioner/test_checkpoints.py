"""Files of torch.save, read without torch. They are written here by hand, so that the tests need no torch either."""

import collections
import io
import os
import pickle
import zipfile
from typing import ClassVar

import numpy as np
import pytest

from atelier.captioner.checkpoints import read_tensors
from atelier.captioner.errors import CaptionerError


class Global:
    """Pickles as a name in a module, whether there is such a module or not."""

    def __init__(self, module, name):
        self.module, self.name = module, name


class Call:
    """Pickles as the call of a `Global`."""

    def __init__(self, function, *arguments):
        self.function, self.arguments = function, arguments


class StoragePid(tuple):
    """Pickles as a persistent id."""


class TorchPickler(pickle._Pickler):
    def persistent_id(self, value):
        return tuple(value) if isinstance(value, StoragePid) else None

    def save_global_name(self, value):
        self.write(b"c" + f"{value.module}\n{value.name}\n".encode())

    def save_call(self, value):
        self.save(value.function)
        self.save(value.arguments)
        self.write(pickle.REDUCE)

    dispatch: ClassVar = {**pickle._Pickler.dispatch, Global: save_global_name, Call: save_call}


def tensor(key, shape, strides, offset=0, kind="FloatStorage", count=12):
    pid = StoragePid(("storage", Global("torch", kind), key, "cpu", count))
    arguments = (pid, offset, shape, strides, False, Call(Global("collections", "OrderedDict")))
    return Call(Global("torch._utils", "_rebuild_tensor_v2"), *arguments)


def write(path, record, data=None):
    buffer = io.BytesIO()
    TorchPickler(buffer, 2).dump(record)
    with zipfile.ZipFile(path, "w") as file:
        file.writestr("archive/data.pkl", buffer.getvalue())
        for key, numbers in (data or {"0": np.arange(12, dtype=np.float32)}).items():
            file.writestr(f"archive/data/{key}", numbers.tobytes())
    return path


def test_views_of_one_storage(tmp_path):
    record = {
        "rows": tensor("0", (3, 4), (4, 1)),
        "turned": tensor("0", (4, 2), (1, 4), 4),
        "one": tensor("0", (), (), 5),
    }
    found = read_tensors(write(tmp_path / "pytorch_model.bin", record))
    numbers = np.arange(12, dtype=np.float32).reshape(3, 4)
    np.testing.assert_array_equal(found["rows"], numbers)
    np.testing.assert_array_equal(found["turned"], numbers[1:].T)
    assert found["one"] == 5
    assert sorted(found) == ["one", "rows", "turned"] and len(found) == 3


def test_other_kinds_of_numbers_and_parameters(tmp_path):
    half = np.array([1.5, -2.0], np.float16)
    parameter = Call(
        Global("torch._utils", "_rebuild_parameter"), tensor("h", (2,), (1,), 0, "HalfStorage", 2), True, None
    )
    record = {"weight": parameter, "step": 7, "ids": tensor("i", (2,), (1,), 0, "LongStorage", 2)}
    data = {"h": half, "i": np.array([3, 4], np.int64)}
    found = read_tensors(write(tmp_path / "pytorch_model.bin", record, data))
    np.testing.assert_array_equal(found["weight"], half)
    assert found["ids"].dtype == np.int64 and set(found) == {"weight", "ids"}


@pytest.mark.parametrize(
    ("module", "name"),
    [("os", "system"), ("builtins", "eval"), ("torch", "load"), ("torch._utils", "_rebuild_qtensor")],
)
def test_no_other_name_is_called(tmp_path, module, name):
    record = {"weight": Call(Global(module, name), f"touch {tmp_path}/harm")}
    with pytest.raises(CaptionerError, match=f"{module}.{name}"):
        read_tensors(write(tmp_path / "pytorch_model.bin", record))
    assert os.listdir(tmp_path) == ["pytorch_model.bin"]


def test_a_pickle_made_by_python_itself_is_refused(tmp_path):
    class Harm:
        def __reduce__(self):
            return os.system, (f"touch {tmp_path}/harm",)

    with zipfile.ZipFile(tmp_path / "pytorch_model.bin", "w") as file:
        file.writestr("archive/data.pkl", pickle.dumps({"weight": Harm()}))
    with pytest.raises(CaptionerError, match="system"):
        read_tensors(tmp_path / "pytorch_model.bin")
    assert os.listdir(tmp_path) == ["pytorch_model.bin"]


@pytest.mark.parametrize(
    "bad",
    [
        tensor("0", (3, 4), (4, 1), offset=2),  # beyond the end
        tensor("0", (3,), (-1,), offset=2),
        tensor("gone", (3,), (1,)),
        tensor("0", (3,), (9**9,)),
    ],
)
def test_a_tensor_that_reaches_beyond_its_numbers_is_damage(tmp_path, bad):
    found = read_tensors(write(tmp_path / "pytorch_model.bin", {"weight": bad}))
    with pytest.raises(CaptionerError, match="damaged at weight"):
        found["weight"]


@pytest.mark.parametrize(
    "record", [[1, 2], {"weight": tensor("0", (100, 100), (100, 1))}, {"weight": tensor("0", (3,), (1, 1))}]
)
def test_what_is_no_dictionary_of_tensors_is_refused(tmp_path, record):
    with pytest.raises(CaptionerError, match="no readable weights file"):
        read_tensors(write(tmp_path / "pytorch_model.bin", record))


def test_any_damage_is_one_kind_of_error(tmp_path):
    record = collections.OrderedDict(weight=tensor("0", (3, 4), (4, 1)))
    whole = write(tmp_path / "pytorch_model.bin", record).read_bytes()
    rng = np.random.default_rng(0)
    for trial in range(300):
        data = bytearray(whole[: rng.integers(len(whole))] if trial % 3 == 0 else whole)
        for place in rng.integers(0, max(1, len(data)), 3):
            if data:
                data[place] = rng.integers(256)
        (tmp_path / "pytorch_model.bin").write_bytes(data)
        try:
            dict(read_tensors(tmp_path / "pytorch_model.bin"))
        except CaptionerError as error:
            assert "pytorch_model.bin" in str(error)
