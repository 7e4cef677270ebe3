"""The medium's judge, copies and repeats, and the choice of real pictures."""

import shutil
from collections import Counter
from pathlib import Path

import keras
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from atelier.dataset.source import Picture
from atelier.evaluation import copies
from atelier.evaluation.copies import close_pairs, hash_images, nearest_hashes, nearest_hashes_mirrored
from atelier.evaluation.medium import MediumClassifier
from atelier.evaluation.quick import KidMeter
from atelier.evaluation.real import RealPictures, media_in_proportion, quotas, real_features, two_samples
from atelier.images import hamming_distance, open_picture
from atelier.seeds import STYLES
from tests.conftest import draw_shape

# --- medium


def clouds(count, seed=0, spread=1.0):
    random = np.random.default_rng(seed)
    media = [STYLES[index % 5] for index in range(count)]
    places = 6 * np.eye(5, 8)[[STYLES.index(style) for style in media]]
    return places + spread * random.standard_normal((count, 8)), media


def test_the_judge_names_media_that_it_can_tell():
    judge = MediumClassifier(*clouds(200))
    figures = judge.accuracy(*clouds(300, seed=1))
    assert figures["overall"] > 0.97 and figures["balanced"] > 0.97 and list(figures["per_medium"]) == list(STYLES)
    noise = judge.accuracy(np.random.default_rng(2).standard_normal((300, 8)), clouds(300)[1])
    assert 0.05 < noise["overall"] < 0.4


def test_the_judge_is_the_bayes_rule_for_gaussians_of_one_covariance():
    random = np.random.default_rng(0)
    root = random.standard_normal((3, 3))
    first, second = random.standard_normal((2, 5000, 3)) @ root.T
    second += [1.0, 0.5, -0.5]
    judge = MediumClassifier(np.concatenate([first, second]), ["drawings"] * 5000 + ["painting"] * 5000, shrinkage=0)
    direction = np.linalg.solve(root @ root.T, [1.0, 0.5, -0.5])
    points = random.standard_normal((500, 3)) @ root.T
    expected = points @ direction > np.array([1.0, 0.5, -0.5]) / 2 @ direction
    assert np.mean((judge(points) == "painting") == expected) > 0.97


def test_the_judge_takes_fewer_pictures_than_features_and_media_that_are_missing():
    judge = MediumClassifier(np.eye(4, 30), ["painting", "painting", "sculpture", "sculpture"])
    assert set(judge(np.eye(4, 30))) == {"painting", "sculpture"}


@pytest.mark.parametrize("media", [["painting"] * 4, ["painting", "sculpture"]])
def test_the_judge_refuses_media_that_do_not_serve(media):
    with pytest.raises(ValueError, match="media"):
        MediumClassifier(np.eye(4), media)


# --- copies and repeats

HASHES = st.lists(st.integers(0, 2**64 - 1), min_size=2, max_size=30)


@given(HASHES, HASHES, st.integers(0, 64))
def test_hash_searches_agree_with_double_loops(first, second, most):
    copies.BLOCK, kept = 7, copies.BLOCK
    try:
        one, two = np.array(first, np.uint64), np.array(second, np.uint64)
        distances, indices = nearest_hashes(one, two)
        smallest, pairs = close_pairs(one, most)
    finally:
        copies.BLOCK = kept
    assert distances.tolist() == [min(hamming_distance(a, b) for b in second) for a in first]
    assert [hamming_distance(a, second[i]) for a, i in zip(first, indices, strict=True)] == distances.tolist()
    every = {(i, j): hamming_distance(first[i], first[j]) for j in range(len(first)) for i in range(j)}
    assert smallest == min(every.values()) and pairs == sorted(pair for pair, bits in every.items() if bits <= most)


def test_a_mirrored_copy_is_found():
    images = np.stack([np.asarray(draw_shape("painting", number)) for number in (0, 5, 9)])
    hashes = hash_images(images)
    mirrored = np.ascontiguousarray(images[:, :, ::-1])
    distances, indices = nearest_hashes_mirrored(mirrored, hashes)
    assert (distances == 0).all() and indices.tolist() == [0, 1, 2]
    assert (nearest_hashes(hash_images(mirrored), hashes)[0] > 0).any()


def test_nothing_to_compare_with_is_said():
    with pytest.raises(ValueError, match="no pictures"):
        nearest_hashes(np.zeros(2, np.uint64), np.zeros(0, np.uint64))
    with pytest.raises(ValueError, match="two pictures"):
        close_pairs(np.zeros(1, np.uint64), 6)


# --- real pictures


@given(st.lists(st.sampled_from(STYLES), min_size=1, max_size=50), st.integers(0, 500))
def test_quotas_keep_proportions_and_the_count(media, count):
    numbers = quotas(media, count)
    assert sum(numbers.values()) == count
    for style in STYLES:
        assert abs(numbers[style] - media.count(style) * count / len(media)) < 1
    assert Counter(media_in_proportion(media, count)) == Counter({s: n for s, n in numbers.items() if n})


def real_pictures(training, held_out):
    def some(count, split):
        return [Picture(Path(f"{i}.png"), STYLES[i % 5], split) for i in range(count)]

    return RealPictures(some(held_out, "validation"), 0, some(training, "training"), np.arange(training, dtype="u8"))


def test_two_samples_are_disjoint_and_in_the_held_out_proportions():
    real = real_pictures(200, 12)
    first, second = two_samples(real, 60, seed=0)
    assert len(first) == len(second) == len(set(first)) == 60 and not set(first) & set(second)
    wanted = quotas([picture.medium for picture in real.held_out], 60)
    for sample in (first, second):
        assert Counter(real.training[index].medium for index in sample) == wanted
    assert (two_samples(real, 60, seed=0)[0] == first).all() and (two_samples(real, 60, seed=1)[0] != first).any()


def test_samples_shrink_to_what_there_is():
    first, second = two_samples(real_pictures(50, 10), 1600, seed=0)
    assert len(first) == len(second) == 25
    with pytest.raises(ValueError, match="too few training pictures"):
        two_samples(real_pictures(2, 10), 100, seed=0)


def test_the_second_sample_avoids_near_duplicates_of_the_first():
    random = np.random.default_rng(0)
    hashes = np.repeat(random.integers(0, 2**63, 100, np.uint64), 2)  # 100 pictures, each twice
    pictures = [Picture(Path(f"{i}.png"), "painting", "training") for i in range(200)]
    first, second = two_samples(RealPictures(pictures[:5], 0, pictures, hashes), 20, seed=0)
    assert not set(hashes[first]) & set(hashes[second])


@pytest.fixture
def art(art_folder, tmp_path):
    """A data set to spoil, whose validation pictures differ from those in training."""
    root = tmp_path / "art"
    shutil.copytree(art_folder, root)
    random = np.random.default_rng(0)
    for path in sorted(root.rglob("*.png")):
        noise = random.integers(0, 256, (9, 8, 3), np.uint8)
        picture(noise).save(path)
    return root


def picture(array):
    from PIL import Image

    return Image.fromarray(array).resize((32, 32), Image.Resampling.NEAREST)


def test_held_out_pictures_have_no_double_in_training(art, tmp_path):
    before = RealPictures.find([art], tmp_path / "cache")
    assert (len(before.held_out), before.dropped, len(before.training)) == (10, 0, 30)
    folder = art / "dataset"
    shutil.copy(folder / "training_set/painting/00003.png", folder / "validation_set/painting/00007.png")
    after = RealPictures.find([art], tmp_path / "cache")
    assert (len(after.held_out), after.dropped, len(after.training)) == (9, 1, 30)


def test_data_without_validation_is_refused(art, tmp_path):
    shutil.rmtree(art / "dataset" / "validation_set")
    with pytest.raises(ValueError, match="no usable pictures of the split validation"):
        RealPictures.find([art], tmp_path / "cache")


def test_features_of_real_pictures_are_computed_once(art, tmp_path, network):
    pictures = RealPictures.find([art], tmp_path).held_out
    first = real_features(network, pictures, 16, tmp_path, "held-out")
    assert first.shape == (10, 12)

    class Blind:
        name, size, dim = network.name, network.size, network.dim

    assert (real_features(Blind(), pictures, 16, tmp_path, "held-out") == first).all()
    assert (real_features(network, pictures, None, tmp_path, "held-out") != first).any()  # another resolution
    for kept in tmp_path.glob("features-*.npy"):
        kept.write_bytes(b"damaged")
    assert (real_features(network, pictures, 16, tmp_path, "held-out") == first).all()


def test_the_meter_of_training_gives_less_for_pictures_of_the_kind_than_for_black_ones(art, tmp_path, network):
    real = RealPictures.find([art], tmp_path)
    held_out = real_features(network, real.held_out, 32, tmp_path, "held-out")
    paths = sorted(art.glob("dataset/training_set/*/*.png"))
    alike = np.stack([np.asarray(open_picture(path)) for path in paths]) / 127.5 - 1.0

    def meter_of(pictures):
        """What the meter says of a generator that paints these pictures, whatever its latents are."""
        latent, style = keras.Input((8,), name="latent"), keras.Input((), dtype="int32", name="style")
        same = keras.ops.convert_to_tensor(pictures.astype("float32"))
        image = keras.layers.Lambda(lambda z: same[: keras.ops.shape(z)[0]], output_shape=(32, 32, 3))(latent)
        return KidMeter(network, held_out, list(STYLES) * 3)(keras.Model([latent, style], image))

    near, far = meter_of(alike), meter_of(np.full_like(alike, -1))
    assert set(near) == {"kid", "kid_std"} and all(np.isfinite([*near.values(), *far.values()]))
    assert near["kid"] < far["kid"]


def test_the_meter_wants_enough_pictures(art, tmp_path):
    with pytest.raises(ValueError, match="at least 100 pictures, not 99"):
        KidMeter.of([art], 32, tmp_path, count=99)


def test_the_meter_says_what_it_lacks(art, tmp_path):
    with pytest.raises(ValueError, match="no feature network at"):
        KidMeter.of([art], 32, tmp_path, features=tmp_path / "none.h5")
