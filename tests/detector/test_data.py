"""The two classes on disk, near-duplicates, and folds that share none."""

import shutil

import numpy as np
import pytest
from PIL import Image, ImageOps

from atelier.dataset.duplicates import groups_of
from atelier.detector.data import find_labelled, grouped_folds, labels_of, near_duplicates, open_labelled
from atelier.detector.leaks import TRAITS, file_traits, leak_baseline, told_by_traits
from atelier.detector.metrics import accuracy
from tests.detector.conftest import DATA, draw, needs_data


def test_pictures_are_found_with_their_class(two_classes):
    pictures = find_labelled(two_classes)
    assert len(pictures) == 24 and labels_of(pictures).sum() == 12
    assert all(picture.ai == (picture.path.parent.name == "AiArtData") for picture in pictures)
    assert [image.mode for image in open_labelled(pictures)] == ["RGB"] * 24


def test_what_is_missing_is_told(two_classes, tmp_path):
    with pytest.raises(FileNotFoundError, match="no data folder"):
        find_labelled(tmp_path / "nothing")
    shutil.copytree(two_classes / "RealArt", tmp_path / "half" / "RealArt")
    with pytest.raises(ValueError, match="both classes"):
        find_labelled(tmp_path / "half")


def test_near_duplicates_are_found_mirrored_and_resized_too():
    rng = np.random.default_rng(0)
    images = [Image.fromarray(rng.integers(0, 256, (9, 12, 3), np.uint8)).resize((96, 72)) for _ in range(6)]
    images += [ImageOps.mirror(images[1]), images[4].resize((60, 45))]
    pairs = near_duplicates(images)
    assert pairs.tolist() == [[1, 6], [4, 7]]
    assert groups_of(8, pairs).tolist() == [0, 1, 2, 3, 4, 5, 1, 4]


def test_folds_share_no_group_and_have_both_classes():
    labels = np.repeat([1.0, 0.0], [60, 40])
    groups = np.arange(100) // 3 * 3
    folds = grouped_folds(labels, groups, 5, seed=0)
    assert all(len(np.unique(folds[groups == group])) == 1 for group in groups)
    for fold in range(5):
        assert 15 <= np.sum(folds == fold) <= 25 and 0.4 < labels[folds == fold].mean() < 0.8
    assert np.array_equal(folds, grouped_folds(labels, groups, 5, seed=0))
    with pytest.raises(ValueError, match="folds"):
        grouped_folds(labels, groups, 50, seed=0)


def test_a_planted_leak_is_found_and_none_is_made_up(two_classes, tmp_path):
    for ai in (True, False):
        folder = tmp_path / ("ai" if ai else "human")
        folder.mkdir()
        for number in range(12):
            draw(ai, number).save(folder / f"{number}.jpg", quality=95 if ai else 50)
    leaking, fair = find_labelled(tmp_path), find_labelled(two_classes)
    labels = labels_of(leaking)
    folds = grouped_folds(labels, np.arange(24), 4, seed=0)
    assert file_traits(leaking).shape == (24, len(TRAITS))
    assert accuracy(labels, told_by_traits(file_traits(leaking), labels, folds, neighbours=5)) == 1
    sizes = file_traits(fair)[:, [0, 1, 2, 3, 6, 7, 8]]  # bytes do tell here: a machine's coarse blocks need fewer
    assert accuracy(labels_of(fair), told_by_traits(sizes, labels_of(fair), folds, neighbours=5)) < 0.8


@needs_data
def test_file_traits_alone_tell_little_of_the_kaggle_set():
    pictures = find_labelled(DATA)
    labels = labels_of(pictures)
    figures = leak_baseline(pictures, labels, grouped_folds(labels, np.arange(len(labels)), 5, seed=0))
    print(f"file traits alone: {figures}")
    assert 0.5 < figures["accuracy"] < 0.68 and figures["auroc"] < 0.7
