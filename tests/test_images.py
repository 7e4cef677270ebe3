"""Pictures: round trips, whole files or none, and any file on earth opened as RGB or refused by name."""

import io
import os
import struct
import zlib

import numpy as np
import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from PIL import Image

from atelier import images
from atelier.images import open_picture, to_rgb
from tests.conftest import draw_shape


def bytes_of(image: Image.Image, kind: str, **options) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, kind, **options)
    return buffer.getvalue()


@pytest.fixture
def opened(tmp_path):
    """Writes a picture to a file and opens it: an array (H, W, 3)."""

    def save_and_open(image: Image.Image, name: str = "picture.png", **options) -> np.ndarray:
        image.save(tmp_path / name, **options)
        picture = open_picture(tmp_path / name)
        assert picture.mode == "RGB"
        return np.asarray(picture)

    return save_and_open


# --- arrays


def test_every_level_survives_the_way_to_floats_and_back():
    levels = np.arange(256, dtype=np.uint8).reshape(16, 16, 1)
    floats = images.from_uint8(levels)
    assert floats.min() == -1 and floats.max() == 1
    np.testing.assert_array_equal(images.to_uint8(floats), levels)


def test_what_is_beyond_the_range_is_clipped():
    np.testing.assert_array_equal(images.to_uint8(np.array([-9.0, -1.0, 0.0, 1.0, 9.0])), [0, 0, 128, 255, 255])


@pytest.mark.parametrize("scale", [1, 2, 5])
def test_an_enlarged_picture_shrinks_back_to_itself(scale):
    image = np.asarray(draw_shape("painting", 3))
    large = images.enlarge(image, scale)
    assert large.shape == (32 * scale, 32 * scale, 3) and large.dtype == np.uint8
    small = np.asarray(Image.fromarray(large).resize((32, 32), Image.Resampling.BOX), np.int16)
    assert np.abs(small - image).mean() < 4


@given(st.integers(1, 11), st.integers(1, 5), st.integers(0, 6))
def test_a_contact_sheet_has_every_picture_in_its_place(count, columns, gap):
    pictures = [np.full((4, 6, 3), 10 + number, np.uint8) for number in range(count)]
    sheet = images.contact_sheet(pictures, columns, gap)
    rows = -(-count // columns)
    assert sheet.shape == (rows * (4 + gap) + gap, columns * (6 + gap) + gap, 3)
    for number in range(count):
        row, column = divmod(number, columns)
        top, left = gap + row * (4 + gap), gap + column * (6 + gap)
        assert (sheet[top : top + 4, left : left + 6] == 10 + number).all()
    assert np.count_nonzero(sheet != 255) == count * 4 * 6 * 3  # all else is white


# --- files


def test_a_png_holds_the_same_pixels_and_says_what_made_it():
    image = np.random.default_rng(0).integers(0, 256, (7, 5, 3), np.uint8)
    data = images.png_bytes(image, {"Seed": "海 7", "Style": "engraving"})
    with Image.open(io.BytesIO(data)) as picture:
        np.testing.assert_array_equal(np.asarray(picture), image)
        assert picture.text["Seed"] == "海 7" and picture.text["Style"] == "engraving"


def test_the_same_picture_is_the_same_file():
    image = np.zeros((4, 4, 3), np.uint8)
    assert images.png_bytes(image, {"Seed": "7"}) == images.png_bytes(image, {"Seed": "7"})


def test_a_file_is_written_into_folders_that_are_made_and_over_an_older_one(tmp_path):
    path = tmp_path / "a" / "b" / "file.bin"
    images.write_atomically(path, b"old")
    images.write_atomically(path, b"new")
    assert path.read_bytes() == b"new"
    assert os.listdir(path.parent) == ["file.bin"]


def test_a_write_that_fails_leaves_the_old_file_and_nothing_else(tmp_path, monkeypatch):
    path = tmp_path / "file.bin"
    path.write_bytes(b"old")

    def full(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "replace", full)
    with pytest.raises(OSError, match="No space"):
        images.write_atomically(path, b"new")
    assert path.read_bytes() == b"old"
    assert os.listdir(tmp_path) == ["file.bin"]


def test_a_folder_that_cannot_be_made_is_an_os_error(tmp_path):
    (tmp_path / "outputs").write_bytes(b"a file is in the way")
    with pytest.raises(OSError):
        images.write_atomically(tmp_path / "outputs" / "x.png", b"new")
    with pytest.raises(OSError):
        images.write_atomically(tmp_path / "outputs" / "below" / "x.png", b"new")
    assert os.listdir(tmp_path) == ["outputs"]


# --- opening what people have


@pytest.mark.parametrize("size", [(1, 1), (20_000, 20), (3, 5000)])
def test_pictures_of_odd_sizes_open(opened, size):
    assert opened(Image.new("RGB", size, "red")).shape == (size[1], size[0], 3)


@pytest.mark.parametrize("mode", ["1", "L", "P", "LA", "RGB", "RGBA", "I;16"])
def test_white_is_white_in_every_kind_of_png(opened, mode):
    white = Image.new("L", (4, 4), 255)
    image = Image.fromarray(np.full((4, 4), 65535, np.uint16)) if mode == "I;16" else white.convert(mode)
    assert (opened(image) == 255).all()


@pytest.mark.parametrize("mode", ["L", "RGB", "CMYK", "YCbCr"])
def test_red_and_grey_survive_every_kind_of_jpeg(opened, mode):
    colour = (200, 200, 200) if mode == "L" else (220, 20, 30)
    pixels = opened(Image.new("RGB", (16, 16), colour).convert(mode), "picture.jpg", quality=95)
    np.testing.assert_allclose(pixels, np.broadcast_to(colour, pixels.shape), atol=6)


@pytest.mark.parametrize("kind", ["webp", "bmp", "gif", "tif"])
def test_other_kinds_open(opened, kind):
    pixels = opened(Image.new("RGB", (16, 16), (200, 100, 50)), f"picture.{kind}")
    np.testing.assert_allclose(pixels, np.broadcast_to((200, 100, 50), pixels.shape), atol=8)


def test_transparent_parts_become_white(opened):
    clear = Image.new("RGBA", (4, 4), (255, 0, 0, 0))
    clear.putpixel((0, 0), (255, 0, 0, 255))
    pixels = opened(clear)
    assert tuple(pixels[0, 0]) == (255, 0, 0) and (pixels[1:] == 255).all()

    palette = Image.new("P", (4, 4), 1)
    palette.putpalette([255, 0, 0, 0, 255, 0])
    palette.putpixel((0, 0), 0)
    pixels = opened(palette, transparency=1)
    assert tuple(pixels[0, 0]) == (255, 0, 0) and (pixels[1:] == 255).all()


def test_of_an_animation_the_first_frame_counts(opened):
    frames = [Image.new("RGB", (8, 8), colour) for colour in ("red", "green", "blue")]
    pixels = opened(frames[0], "moving.gif", save_all=True, append_images=frames[1:])
    assert (pixels == (255, 0, 0)).all()


def test_sixteen_bit_greys_keep_their_tones(opened):
    tones = np.linspace(0, 65535, 64).astype(np.uint16).reshape(8, 8)
    np.testing.assert_allclose(opened(Image.fromarray(tones))[..., 0], tones / 257, atol=1)


def test_a_dark_sixteen_bit_picture_stays_dark(opened):
    assert opened(Image.fromarray(np.full((4, 4), 200, np.uint16))).max() <= 1


@pytest.mark.parametrize("mode", ["RGB", "RGBA", "RGBa", "LA", "PA", "P", "1", "CMYK", "I", "F"])
def test_a_picture_of_any_mode_becomes_rgb(mode):
    picture = to_rgb(Image.new(mode, (3, 2)))
    assert picture.mode == "RGB" and picture.size == (3, 2)
    clear = mode in ("RGBA", "RGBa", "LA", "PA", "CMYK")  # of the last, no ink
    assert picture.getpixel((0, 0)) == ((255,) * 3 if clear else (0, 0, 0))


def test_floating_point_pictures_open_whatever_numbers_they_hold(opened):
    numbers = np.array([[0.0, 0.5], [np.nan, np.inf]], np.float32)
    assert opened(Image.fromarray(numbers), "numbers.tif").shape == (2, 2, 3)


def test_a_picture_taken_sideways_is_turned_upright(opened):
    lying = Image.new("RGB", (20, 10))
    exif = lying.getexif()
    exif[0x0112] = 6  # turn by 90 degrees
    assert opened(lying, "lying.jpg", exif=exif).shape == (20, 10, 3)


def png_that_claims(width: int, height: int) -> bytes:
    """A few bytes that promise a huge picture."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    body = chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(b"\0" * 99)) + chunk(b"IEND", b"")
    return b"\x89PNG\r\n\x1a\n" + body


JPEG = bytes_of(draw_shape("painting", 1), "jpeg")
PNG = bytes_of(draw_shape("painting", 1), "png")
NOT_PICTURES = {
    "zero bytes": b"",
    "text named .png": b"I am a text.\n",
    "truncated jpeg": JPEG[: len(JPEG) // 2],
    "header of a jpeg": JPEG[:30],
    "truncated png": PNG[: len(PNG) // 2],
    "bomb": png_that_claims(60_000, 60_000),
    "suspiciously large": png_that_claims(10_000, 10_000),
    "zip": b"PK\x03\x04" + b"\0" * 40,
    "damaged avif": bytes_of(draw_shape("painting", 1), "avif")[:-20].replace(b"ispe", b"ispx"),
}


@pytest.mark.parametrize("content", NOT_PICTURES.values(), ids=NOT_PICTURES)
def test_what_is_no_picture_is_a_value_error_that_names_the_file(tmp_path, content):
    path = tmp_path / "picture.png"
    path.write_bytes(content)
    with pytest.raises(ValueError, match=r"picture\.png is not a readable picture: .+"):
        open_picture(path)


def test_a_missing_file_and_a_folder_are_value_errors(tmp_path):
    with pytest.raises(ValueError, match=r"gone\.png is not a readable picture: no such file"):
        open_picture(tmp_path / "gone.png")
    with pytest.raises(ValueError, match="is not a readable picture"):
        open_picture(tmp_path)


WHOLE = [bytes_of(draw_shape("painting", 1), kind) for kind in ("png", "jpeg", "gif", "bmp", "tiff", "webp", "avif")]


@pytest.mark.filterwarnings("ignore:Corrupt EXIF", "ignore:Tag data", "ignore:Truncated File")
@given(st.sampled_from(WHOLE), st.lists(st.tuples(st.integers(0, 400), st.integers(0, 255)), max_size=8))
@example(WHOLE[0], [])
def test_a_damaged_file_opens_or_is_a_value_error(tmp_path_factory, whole, changes):
    data = bytearray(whole)
    for place, value in changes:
        data[place % len(data)] = value
    path = tmp_path_factory.getbasetemp() / "damaged"
    path.write_bytes(data)
    try:
        assert open_picture(path).mode == "RGB"
    except ValueError as error:
        assert changes and "damaged is not a readable picture" in str(error)


# --- perceptual hashes


@pytest.fixture(scope="module")
def art() -> list[Image.Image]:
    """Eight smooth pictures with nothing in common: low-frequency noise."""
    random = np.random.default_rng(0)
    noise = random.integers(0, 256, (8, 6, 6, 3), np.uint8)
    return [Image.fromarray(each).resize((160, 160), Image.Resampling.BICUBIC) for each in noise]


@pytest.mark.parametrize(
    "change",
    [
        lambda image: image.resize((64, 64)),
        lambda image: image.resize((90, 160)),
        lambda image: image.resize((400, 400)),
        lambda image: Image.open(io.BytesIO(bytes_of(image, "jpeg", quality=30))),
        lambda image: image.convert("L"),
    ],
    ids=["small", "squashed", "large", "jpeg", "grey"],
)
def test_a_copy_keeps_its_hash_up_to_a_few_bits(art, change):
    distances = [images.hamming_distance(images.perceptual_hash(a), images.perceptual_hash(change(a))) for a in art]
    assert max(distances) <= 6


def test_different_pictures_have_far_hashes(art):
    hashes = [images.perceptual_hash(image) for image in art]
    assert all(0 <= value < 2**64 for value in hashes)
    assert min(images.hamming_distance(a, b) for i, a in enumerate(hashes) for b in hashes[:i]) > 12
