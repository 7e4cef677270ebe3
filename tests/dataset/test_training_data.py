"""The data set: which pictures are found, what is known of them, and the batches that training sees."""

import itertools
import json
import os

import numpy as np
import pytest
from PIL import Image

from atelier.dataset.loader import batches, load_images, remembered_pictures, style_weights
from atelier.dataset.source import find_pictures
from atelier.seeds import STYLES
from tests.conftest import draw_shape


def add(root, file, style="painting", number=0):
    path = root / file
    path.parent.mkdir(parents=True, exist_ok=True)
    draw_shape(style, number).save(path)
    return path


def describe(root, *records):
    (root / "captions.jsonl").write_text("\n".join(map(json.dumps, records)) + "\n\n")


# --- find_pictures


def test_the_kaggle_layout_is_found_with_splits_and_captions(art_folder):
    pictures = find_pictures(art_folder)
    assert len(pictures) == 8 * len(STYLES)
    assert [picture.path for picture in pictures] == sorted(picture.path for picture in pictures)
    assert sum(picture.split == "validation" for picture in pictures) == 2 * len(STYLES)
    assert all(picture.label == picture.medium == picture.path.parent.name for picture in pictures)
    assert all(picture.flag == "ok" and "yellow ball" in picture.caption for picture in pictures)


def test_class_folders_alone_are_enough(tmp_path):
    add(tmp_path, "engraving/a.PNG")
    add(tmp_path, "sculpture/deep.folder/painting/b.jpg")
    add(tmp_path, "photographs/c.png")  # no medium of ours
    (tmp_path / "engraving" / "notes.txt").write_text("no picture")
    first, second = find_pictures(tmp_path)
    assert (first.label, first.split, first.caption, first.flag) == ("engraving", "training", None, None)
    assert second.label == "painting"


def test_captions_alone_are_enough(tmp_path):
    add(tmp_path, "a.png")
    add(tmp_path, "b.png")
    add(tmp_path, "unnamed.png")
    describe(tmp_path, {"file": "a.png", "label": "painting", "caption": "an oil painting of a cat"}, {"file": "b.png"})
    (picture,) = find_pictures(tmp_path)
    assert (picture.path.name, picture.label, picture.caption) == ("a.png", "painting", "an oil painting of a cat")


def test_flags_decide_the_medium(tmp_path):
    for name in ("fine", "bad", "wrong", "unclear"):
        add(tmp_path, f"painting/{name}.png")
    describe(
        tmp_path,
        {"file": "painting/fine.png", "label": "painting", "caption": "a bust of a man", "flag": "ok"},
        {"file": "painting/bad.png", "label": "painting", "caption": "a web page", "flag": "bad"},
        {"file": "painting/wrong.png", "label": "painting", "caption": "an ink drawing of a statue", "flag": "med"},
        {"file": "painting/unclear.png", "label": "painting", "caption": "a cat", "flag": "med"},
    )
    mediums = {picture.path.stem: picture.medium for picture in find_pictures(tmp_path)}
    assert mediums == {"fine": "painting", "bad": None, "wrong": "drawings", "unclear": None}


def test_what_is_held_back_is_not_trained_on(tmp_path):
    for file in (
        "test/painting/a.png",
        "val/painting/b.png",
        "train/painting/c.png",
        "painting/d.png",
        "painting/e.png",
    ):
        add(tmp_path, file)
    add(tmp_path, "valid_set/painting/g.png")
    describe(
        tmp_path,
        {"file": "painting/e.png", "label": "painting", "split": "validation"},
        {"file": "valid_set/painting/g.png", "label": "painting", "split": "training"},  # which is asked first
    )
    held_back = {picture.path.stem for picture in find_pictures(tmp_path) if picture.split == "validation"}
    assert held_back == {"a", "b", "e"}
    assert {picture.split for picture in find_pictures(tmp_path)} == {"training", "validation"}


def test_roots_are_joined(tmp_path):
    add(tmp_path, "one/painting/a.png")
    add(tmp_path, "two/drawings/b.png")
    pictures = find_pictures(tmp_path / "one", str(tmp_path / "two"))
    assert [picture.label for picture in pictures] == ["painting", "drawings"]


def test_no_folder_and_no_pictures_are_errors_that_name_the_place(tmp_path):
    with pytest.raises(FileNotFoundError, match="nowhere"):
        find_pictures(tmp_path / "nowhere")
    add(tmp_path, "photographs/c.png")
    with pytest.raises(FileNotFoundError, match="drawings, engraving, iconography, painting, sculpture"):
        find_pictures(tmp_path)


def test_a_folder_that_is_named_like_a_picture_is_none(tmp_path):
    add(tmp_path, "painting/a.png")
    (tmp_path / "painting" / "more.png").mkdir()
    assert [picture.path.name for picture in find_pictures(tmp_path)] == ["a.png"]


@pytest.mark.parametrize("line", ["{broken", '{"label": "painting"}', "[1, 2]", '"text"', "7"])
def test_a_bad_line_of_captions_is_named(tmp_path, line):
    add(tmp_path, "painting/a.png")
    (tmp_path / "captions.jsonl").write_text('{"file": "painting/a.png"}\n' + line + "\n")
    with pytest.raises(ValueError, match=r"captions\.jsonl.*line 2"):
        find_pictures(tmp_path)


# --- load_images


def test_pictures_are_loaded_in_order_and_squashed_to_a_square(tmp_path):
    Image.new("RGB", (40, 10), (200, 10, 10)).save(add(tmp_path, "painting/a.png"))
    Image.new("L", (8, 8), 90).save(add(tmp_path, "painting/b.png"))
    images = load_images(find_pictures(tmp_path), 16)
    assert images.shape == (2, 16, 16, 3) and images.dtype == np.uint8
    assert (images[0] == (200, 10, 10)).all() and (images[1] == 90).all()


def test_a_cache_gives_the_same_pictures_without_reading_them(tmp_path, art_folder, monkeypatch):
    pictures = find_pictures(art_folder)
    first = load_images(pictures, 16, cache=tmp_path / "cache")
    assert isinstance(first, np.memmap)  # the first time, too
    monkeypatch.setattr("atelier.dataset.loader.open_picture", None)  # not called any more
    np.testing.assert_array_equal(load_images(pictures, 16, cache=tmp_path / "cache"), first)
    with pytest.raises(TypeError):
        load_images(pictures, 8, cache=tmp_path / "cache")  # another size is no hit
    with pytest.raises(TypeError):
        load_images(pictures[1:], 16, cache=tmp_path / "cache")  # nor are other pictures


def test_a_picture_that_has_changed_is_read_anew(tmp_path):
    path = add(tmp_path, "painting/a.bmp")  # a BMP's length tells nothing about its content
    load_images(find_pictures(tmp_path), 16, cache=tmp_path / "cache")
    Image.new("RGB", (32, 32), "black").save(path)
    os.utime(path, ns=(1, 1))
    assert load_images(find_pictures(tmp_path), 16, cache=tmp_path / "cache").max() == 0


def test_a_broken_picture_is_named(tmp_path):
    add(tmp_path, "painting/a.png")
    (tmp_path / "painting" / "broken.jpg").write_bytes(b"\xff\xd8\xff")
    with pytest.raises(ValueError, match=r"broken\.jpg"):
        load_images(find_pictures(tmp_path), 16, cache=tmp_path / "cache")


# --- batches


@pytest.fixture(scope="module")
def small_set():
    """Twelve pictures that can be told by their left column, nine of style 0 and three of style 3."""
    images = np.zeros((12, 4, 4, 3), np.uint8)
    images[:, :, 0] = np.arange(12, dtype=np.uint8)[:, None, None] + 1
    return images, np.array([0] * 9 + [3] * 3)


def take(count, *arguments, **options):
    return [batch for (batch,) in itertools.islice(batches(*arguments, **options), count)]


def test_a_batch_has_the_shapes_and_kinds_that_the_gan_expects(small_set):
    (batch,) = take(1, *small_set, 5, 8)
    shapes = {name: (value.shape, value.dtype) for name, value in batch.items()}
    assert shapes == {"image": ((5, 4, 4, 3), np.uint8), "style": ((5,), np.int32), "latent": ((5, 8), np.float32)}


def test_a_larger_memory_begins_with_the_pictures_of_a_smaller_one(monkeypatch):
    """Also where a style has fewer pictures than places; and no picture stands there twice."""
    monkeypatch.setattr("atelier.dataset.loader.ROUND", 4)
    styles = np.repeat(np.arange(5), (5, 9, 20, 20, 20))
    remembered = {memory: dict(zip(*remembered_pictures(styles, memory), strict=True)) for memory in (4, 8, 12)}
    assert [len(remembered[memory]) for memory in (4, 8, 12)] == [20, 5 + 4 * 8, 5 + 9 + 3 * 12]
    for few, many in ((4, 8), (8, 12)):
        for place, picture in remembered[few].items():
            assert remembered[many][place // few * many + place % few] == picture
    for memory, pictures in remembered.items():
        assert len(set(pictures.values())) == len(pictures)
        assert all(styles[picture] == place // memory for place, picture in pictures.items())


def test_three_quarters_of_a_batch_are_pairs_where_pictures_are_remembered(small_set):
    images, styles = small_set
    places, pictures = remembered_pictures(styles, 4)
    np.testing.assert_array_equal(places, [0, 1, 2, 3, 12, 13, 14])  # style 3 has but three
    assert len(set(pictures)) == 7 and all(styles[pictures] == places // 4)
    np.testing.assert_array_equal(pictures, remembered_pictures(styles, 4)[1])
    own = np.arange(7, dtype=np.float32)[:, None] * np.ones(6, np.float32)
    several = take(30, images, styles, 8, 6, pairs=(pictures, own))
    for batch in several:
        np.testing.assert_array_equal(batch["paired"], [1] * 6 + [0] * 2)
        for image, style, latent in list(zip(batch["image"], batch["style"], batch["latent"], strict=True))[:6]:
            assert image[0, 0].max() == pictures[int(latent[0])] + 1 and styles[pictures[int(latent[0])]] == style
    assert {int(latent[0]) for batch in several for latent in batch["latent"][:6]} == set(range(7))
    assert "paired" not in take(1, images, styles, 8, 6)[0]


def test_a_batch_follows_from_seed_and_number_alone(small_set):
    whole = take(6, *small_set, 5, 8, seed=1)
    for old, new in zip(whole[4:], take(2, *small_set, 5, 8, seed=1, start=4), strict=True):
        for name in old:
            np.testing.assert_array_equal(old[name], new[name])
    assert not np.array_equal(whole[0]["latent"], take(1, *small_set, 5, 8, seed=2)[0]["latent"])
    assert not np.array_equal(whole[0]["latent"], whole[1]["latent"])


def test_pictures_keep_their_style_and_about_half_are_mirrored(small_set):
    images, styles = small_set
    original = images.copy()
    mirrored = 0
    for batch in take(40, images, styles, 8, 4):
        for picture, style in zip(batch["image"], batch["style"], strict=True):
            number = picture.max()
            assert styles[number - 1] == style
            mirrored += (picture[:, -1] == number).all()
    assert 100 < mirrored < 220  # of 320
    np.testing.assert_array_equal(images, original)  # mirroring works on a copy


def test_a_style_is_drawn_by_the_root_of_its_count(small_set):
    weights = style_weights(small_set[1])
    np.testing.assert_allclose(weights.sum(), 1)
    np.testing.assert_allclose(weights[:9].sum() / weights[9:].sum(), np.sqrt(9 / 3))
    drawn = np.concatenate([batch["style"] for batch in take(200, *small_set, 20, 4)])
    assert abs(np.mean(drawn == 3) - 1 / (1 + np.sqrt(3))) < 0.03
