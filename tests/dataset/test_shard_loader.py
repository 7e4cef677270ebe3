"""Training from shards: every picture once a pass, the same batches for the same seed, NumPy and tf.data alike."""

import itertools

import numpy as np
import pytest

pytest.importorskip("pyarrow")

from atelier.dataset.loader import batches, load_shards, stream_shards, tf_dataset, training_pictures
from atelier.dataset.shards import PICTURES, shard_name, shard_paths, write_rows
from atelier.seeds import STYLES
from tests.dataset.hostile import encoded, paint


@pytest.fixture(scope="module")
def shards(tmp_path_factory):
    """Fifty training pictures in three shards, which their captions number, among others that do not count."""
    out = tmp_path_factory.mktemp("out")
    empty = dict.fromkeys(PICTURES.names)
    rows = [
        empty | {"image": encoded(paint(n)), "label": STYLES[n % 5], "split": "training", "caption": str(n)}
        for n in range(50)
    ]
    rows.insert(7, rows[0] | {"split": "validation"})
    rows.insert(30, rows[0] | {"label": "cubism"})
    rows[3] |= {"caption": None}
    for number in range(3):
        write_rows(out / "shards" / shard_name(number), rows[number::3], PICTURES)
    return out


def numbers(items, count=None):
    return [caption for batch in itertools.islice(items, count) for caption in batch["caption"]]


def test_a_pass_has_every_training_picture_once_in_a_mixed_order(shards):
    seen = numbers(stream_shards(shards, 16, 8, repeat=False))
    assert sorted(seen) == sorted(["", *(str(n) for n in range(50) if n != 3)])
    assert seen != numbers(stream_shards(shards, 16, 8, repeat=False, seed=1))
    assert seen == numbers(stream_shards(shards, 16, 8, repeat=False, threads=1, prefetch=1))


def test_passes_follow_one_another_and_differ(shards):
    seen = numbers(stream_shards(shards, 16, 10), 10)
    assert sorted(seen[:50]) == sorted(seen[50:]) and seen[:50] != seen[50:]


@pytest.mark.parametrize("stream", [stream_shards, tf_dataset])
def test_batches_hold_the_pictures_with_their_styles(shards, stream):
    for batch in stream(shards, 16, 8, repeat=False):
        batch = {name: np.asarray(value) for name, value in batch.items()}
        assert batch["image"].dtype == np.uint8 and batch["image"].shape[1:] == (16, 16, 3)
        assert batch["style"].dtype == np.int32
        for image, style, caption in zip(batch["image"], batch["style"], batch["caption"], strict=True):
            caption = caption.decode() if isinstance(caption, bytes) else caption
            if caption:
                assert STYLES[int(caption) % 5] == STYLES[style]
                expected = np.asarray(paint(int(caption)).resize((16, 16)), int)
                assert np.abs(image - expected).mean() < 12


@pytest.mark.parametrize("cache", [False, True])
def test_tf_data_has_every_picture_once_a_pass(shards, cache):
    for passed in (1, 2):
        captions = [
            c.decode() for b in tf_dataset(shards, 16, 8, repeat=False, cache=cache) for c in b["caption"].numpy()
        ]
        assert len(captions) == 50 and len(set(captions)) == 50, passed


def test_arrays_are_those_of_the_shards_and_are_kept(shards, tmp_path, monkeypatch):
    images, styles = load_shards(shards, 16, cache=tmp_path)
    assert images.shape == (50, 16, 16, 3) and styles.shape == (50,)
    np.testing.assert_array_equal(images, load_shards(shards, 16)[0])
    monkeypatch.setattr("atelier.dataset.loader.decode", None)  # not called any more
    np.testing.assert_array_equal(images, load_shards(shards, 16, cache=tmp_path)[0])
    (batch,) = next(batches(images, styles, 4, 8))
    assert batch["image"].shape == (4, 16, 16, 3)


def test_nothing_to_load_is_an_error_that_names_the_place(shards, tmp_path):
    for load in (load_shards, stream_shards, tf_dataset):
        with pytest.raises(FileNotFoundError, match="no shards"):
            load(tmp_path, 16, *([8] if load is not load_shards else []))
    with pytest.raises(FileNotFoundError, match="no test pictures"):
        load_shards(shards, 16, split="test")
    with pytest.raises(FileNotFoundError, match="no test pictures"):
        next(stream_shards(shards, 16, 8, split="test"))


def test_shards_are_found_in_order(tmp_path):
    for number in (0, 2, 100_000, 99_999):
        (tmp_path / shard_name(number)).touch()
    assert [path.name for path in shard_paths(tmp_path)] == [shard_name(n) for n in (0, 2, 99_999, 100_000)]


def test_training_takes_shards_and_folders_of_files_together(shards, art_folder, tmp_path):
    """Shards are recognized by themselves, be it the folder that `prepare` made or the `shards` in it."""
    prepared, styles = load_shards(shards, 16)
    for folder in (shards, shards / "shards"):
        images, found = training_pictures([folder], 16, cache=tmp_path)
        assert np.array_equal(images, prepared) and np.array_equal(found, styles)
    files, of_files = training_pictures([art_folder], 16)
    both, of_both = training_pictures([art_folder, shards], 16)
    assert len(files) and sorted(of_both) == sorted([*styles, *of_files])
    assert {image.tobytes() for image in both} == {image.tobytes() for image in [*prepared, *files]}
