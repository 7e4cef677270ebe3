import dataclasses
import itertools
import json
from types import SimpleNamespace

import keras
import numpy as np
import pytest
from PIL import Image
from safetensors.numpy import load_file

from atelier.captioner import Captioner
from atelier.captioner.augment import degrade, random_view
from atelier.captioner.blip import Blip
from atelier.captioner.evaluate import small_and_large_again
from atelier.captioner.examples import find_examples, view_features
from atelier.captioner.losses import caption_loss, contrastive_loss
from atelier.captioner.preprocessing import Preprocessor
from atelier.captioner.tokenizer import train_tokenizer
from atelier.captioner.train import Recipe, Run, chances, learning_rate, train
from atelier.captioner.weights import load_weights, to_tensors
from atelier.dataset.source import find_pictures
from tests.captioner.conftest import CAPTIONS

TINY = Recipe(
    image_size=32,
    hidden_size=16,
    num_attention_heads=2,
    vision_layers=1,
    text_layers=1,
    vocab_size=120,
    views=2,
    batch=8,
    rate=5e-3,
    warmup=5,
    frozen_share=1.0,
    held_out=0.3,
)
STEP = 0.1249 / 60  # minutes, by the tests' clock; a little less, so that rounding adds no step
LABELS = ("painting", "engraving", "iconography", "sculpture", "drawings")


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    """Forty pictures of noise, one twice, one bad, in the Kaggle set's layout."""
    root, lines = tmp_path_factory.mktemp("data"), []
    rng = np.random.default_rng(0)
    for number in range(40):
        kind = number % 5
        file = f"training_set/{LABELS[kind]}/{number:05d}.png"
        path = root / "dataset" / file
        path.parent.mkdir(parents=True, exist_ok=True)
        noise = rng.integers(0, 256, (48, 48, 3), dtype=np.uint8)
        if number == 39:
            noise = np.asarray(Image.open(root / "dataset/training_set/painting/00000.png"))
        Image.fromarray(noise).save(path)
        flag = "bad" if number == 7 else "ok"
        lines.append(json.dumps({"file": file, "label": LABELS[kind], "caption": CAPTIONS[kind], "flag": flag}))
    (root / "captions.jsonl").write_text("\n".join(lines))
    return root


@pytest.fixture(scope="module")
def stem_weights(tmp_path_factory):
    path = tmp_path_factory.mktemp("stem") / "stem.weights.h5"
    keras.applications.MobileNetV2(weights=None, include_top=False, input_shape=(32, 32, 3)).save_weights(path)
    return path


def test_twins_never_straddle_the_split(data):
    splits = [{picture.path.stem for picture in part} for part in find_examples([data], 0.3)]
    assert len(splits[0] | splits[1]) == 39  # all but the bad one
    assert not splits[0] & splits[1]
    assert min(map(len, splits)) > 3
    assert any({"00000", "00039"} <= split for split in splits)
    assert splits == [{picture.path.stem for picture in part} for part in find_examples([data], 0.3)]


def test_data_without_captions_is_refused(tmp_path):
    (tmp_path / "icons" / "iconography").mkdir(parents=True)
    Image.new("RGB", (8, 8)).save(tmp_path / "icons" / "iconography" / "1.png")
    with pytest.raises(FileNotFoundError, match="captioned"):
        find_examples([tmp_path])


def test_features_are_computed_once_and_go_on_where_they_stopped(data, tmp_path):
    pictures, seen = find_pictures(data)[:10], []

    def embed(images):
        seen.append(len(images))
        return np.stack([np.asarray(image.resize((2, 2)), np.float16) for image in images])

    first = view_features(tmp_path, pictures, 2, embed, batch=4)
    assert seen == [4, 4, 2] * 2
    assert [view.shape for view in first] == [(10, 2, 2, 3)] * 2
    assert not np.array_equal(*first)
    (tmp_path / "view_001.npy").unlink()
    (tmp_path / "view_001.part").write_bytes(b"half a file")
    again = view_features(tmp_path, pictures, 2, embed, batch=4)
    assert seen == [4, 4, 2] * 3
    np.testing.assert_array_equal(first, again)


def test_views_keep_left_and_right_where_the_caption_knows_them():
    # Dark on the left, bright on the right.
    image = Image.fromarray(np.repeat(np.linspace(0, 255, 64, dtype=np.uint8)[None, :, None], 64, 0).repeat(3, 2))

    def flipped(caption):
        views = [random_view(image, caption, np.random.default_rng(seed)) for seed in range(30)]
        return sum(np.asarray(view)[:, :20].mean() > np.asarray(view)[:, -20:].mean() for view in views)

    assert flipped("a horse looking to the left") == 0
    assert 5 < flipped("a horse") < 25


def test_degraded_views_lose_detail_and_keep_their_size():
    noise = Image.fromarray(np.random.default_rng(0).integers(0, 256, (200, 180, 3), dtype=np.uint8))
    for small in (degrade(noise, np.random.default_rng(1)), small_and_large_again(noise)):
        assert small.size == noise.size
        assert np.asarray(small, float).std() < 0.7 * np.asarray(noise, float).std()


def test_the_loss_is_the_mean_over_words_that_are_there():
    rng = np.random.default_rng(0)
    logits = rng.standard_normal((2, 4, 7)).astype("float32")
    ids = np.array([[3, 1, 0, 0], [2, 2, 6, 0]])
    log_probs = logits - np.log(np.exp(logits).sum(-1, keepdims=True))
    places = [(0, 0), (0, 1), (1, 0), (1, 1), (1, 2)]
    sharp = -np.mean([log_probs[row, column, ids[row, column]] for row, column in places])
    assert float(caption_loss(ids, logits, pad=0)) == pytest.approx(sharp, abs=1e-5)
    even = -np.mean([log_probs[place].mean() for place in places])
    assert float(caption_loss(ids, logits, 0, 0.1)) == pytest.approx(0.9 * sharp + 0.1 * even, abs=1e-5)


def test_the_contrastive_loss_is_how_hard_pairs_are_to_find():
    rng = np.random.default_rng(0)
    images, texts = (x / np.linalg.norm(x, axis=1, keepdims=True) for x in rng.standard_normal((2, 3, 8)))
    cosines = 5.0 * images @ texts.T
    chosen = [-np.log(np.exp(rows) / np.exp(rows).sum(1, keepdims=True)) for rows in (cosines, cosines.T)]
    wanted = np.mean([np.diag(loss).mean() for loss in chosen])
    found = contrastive_loss(*(x.astype("float32") for x in (images, texts)), 5.0, np.eye(3, dtype=bool))
    assert float(found) == pytest.approx(wanted, abs=1e-5)
    perfect = np.eye(4, dtype="float32")
    assert float(contrastive_loss(perfect, perfect, 100.0, np.eye(4, dtype=bool))) == pytest.approx(0, abs=1e-5)
    # Two pictures with one text: either of it is right, so that nothing is to be learnt there.
    alike = np.ones((2, 4), "float32") / 2
    assert float(contrastive_loss(alike, alike, 1.0, np.ones((2, 2), bool))) == pytest.approx(np.log(2), abs=1e-5)


@pytest.mark.slow
def test_a_run_begins_with_a_trained_captioner(data, stem_weights, tmp_path, clock):
    first, second = tmp_path / "first", tmp_path / "second"
    train([data], first, minutes=4 * STEP, stem_weights=stem_weights, recipe=TINY)
    model = Captioner.load(first).model
    start = Blip(dataclasses.replace(model.config, retrieval=None))
    load_weights(start, to_tensors(model))
    Captioner(start, Captioner.load(first).tokenizer, Preprocessor(32)).save(tmp_path / "start")
    before = Captioner.load(tmp_path / "start")
    assert before.caption([Image.new("RGB", (50, 50))])[0].alignment is None
    train([data], second, minutes=STEP, start=tmp_path / "start", recipe=dataclasses.replace(TINY, rate=1e-9))
    after = Captioner.load(second)
    assert -1 <= after.caption([Image.new("RGB", (50, 50))])[0].alignment <= 1
    own = "text_encoder.encoder.layer.0.attention.self.key.weight"
    decoders = to_tensors(start)["text_decoder.bert.encoder.layer.0.attention.self.key.weight"]
    np.testing.assert_allclose(to_tensors(after.model)[own], decoders, atol=1e-3)


def test_a_recipe_is_set_by_text():
    assert Recipe.of(["views=2", "rate=1e-3"]) == Recipe(views=2, rate=1e-3)
    for wrong in (["vews=2"], ["views=two"], ["views"]):
        with pytest.raises(ValueError, match=r"vi?ews"):
            Recipe.of(wrong)


def test_the_rate_rises_and_falls():
    rates = [learning_rate(2.0, step / 1000, step, 100) for step in range(1200)]
    assert rates[0] == pytest.approx(0.02)
    assert max(rates) == pytest.approx(2.0, rel=0.03)
    assert np.argmax(rates) == 99
    assert np.all(np.diff(rates[100:]) <= 0)
    assert rates[-1] == pytest.approx(0.04)
    assert learning_rate(2.0, 0.0, 0, 0) == 2.0  # no warm-up at all


def test_rare_media_are_drawn_more_often_than_their_number():
    found = chances(["painting"] * 16 + ["engraving"] * 4 + [None])
    assert found.sum() == pytest.approx(1)
    assert found[16] == pytest.approx(2 * found[0])
    assert found[16] * 4 < found[0] * 16
    assert found[20] == pytest.approx(4 * found[0])


@pytest.fixture
def clock(monkeypatch):
    """Every training step takes an eighth of a second; `clock(n)` pulls the plug in the middle of step n."""

    def start(steps=None):
        ticks = itertools.count()

        def tick():
            number = next(ticks)
            if number == (None if steps is None else 2 * steps + 1):
                raise KeyboardInterrupt
            return number / 8

        monkeypatch.setattr("atelier.captioner.train.perf_counter", tick)

    start()
    return start


def last_figures(out):
    return json.loads((out / "log.jsonl").read_text().splitlines()[-1])


def test_training_learns_and_an_interrupted_run_ends_alike(data, stem_weights, tmp_path, clock, monkeypatch):
    words = train_tokenizer(CAPTIONS * 2, 120)  # one for both runs: the library breaks ties by chance
    monkeypatch.setattr("atelier.captioner.train.train_tokenizer", lambda *_: words)
    whole, parts = tmp_path / "whole", tmp_path / "parts"
    recipe = dataclasses.replace(TINY, checkpoint_minutes=5 * STEP, judge_minutes=1.0)
    run = {"minutes": 24 * STEP, "stem_weights": stem_weights, "recipe": recipe}
    best = train([data], whole, **run)
    assert last_figures(whole)["step"] == 24
    assert best["loss"] < np.log(120) - 0.5
    assert best == {key: last_figures(whole)[key] for key in best}
    assert best.keys() == {each + look for each in ("loss", "cider", "medium", "recall_5") for look in ("", "_64px")}
    caption = Captioner.load(whole).caption([Image.new("RGB", (50, 50))], min_length=0)
    assert caption[0].confidence < 0

    clock(15)
    with pytest.raises(KeyboardInterrupt):
        train([data], parts, **run)
    assert not (parts / "log.jsonl").exists()
    with pytest.raises(ValueError, match="another recipe"):
        train([data], parts, minutes=1, stem_weights=stem_weights, recipe=Recipe())
    clock()
    train([data], parts, **run)
    assert last_figures(parts) == pytest.approx(last_figures(whole), abs=1e-3)
    weights = [load_file(folder / "model.safetensors") for folder in (whole, parts)]
    for name, value in weights[0].items():
        np.testing.assert_allclose(weights[1][name], value, atol=2e-3, err_msg=name)


def test_a_run_may_tune_the_stem_from_the_first_step_and_without_warm_up(clock):
    run = Run.__new__(Run)  # the clockwork alone: no model
    run.recipe = dataclasses.replace(TINY, frozen_share=0.0, warmup=0)
    run.seconds, run.step, run.phase, run.features = 0.0, 0, "frozen", None
    run._teacher = lambda: SimpleNamespace(optimizer=SimpleNamespace())
    run._learn = lambda: 0.0
    run._judge = lambda loss: None
    run._save_state = lambda: None
    run.go_on(60 * STEP)
    assert run.phase == "whole" and run.step == 1
    assert run.teacher.optimizer.learning_rate == run.recipe.tuning_rate


def test_what_keras_prints_is_not_among_the_results(monkeypatch, capsys):
    def download(**_):
        print("Downloading data")
        raise Exception("URL fetch failure")

    monkeypatch.setattr(keras.applications, "MobileNetV2", download)
    model = SimpleNamespace(config=SimpleNamespace(vision=SimpleNamespace(image_size=32)))
    with pytest.raises(FileNotFoundError, match="URL fetch failure"):
        Run._load_stem(SimpleNamespace(model=model), "imagenet")
    written = capsys.readouterr()
    assert not written.out and "Downloading" in written.err


@pytest.mark.slow
def test_the_stem_is_tuned_in_the_second_phase(data, stem_weights, tmp_path, clock):
    recipe = dataclasses.replace(TINY, frozen_share=0.5, tuning_rate=5e-3)
    train([data], tmp_path, minutes=10 * STEP, stem_weights=stem_weights, recipe=recipe)
    assert last_figures(tmp_path)["phase"] == "whole"
    stem = keras.applications.MobileNetV2(weights=str(stem_weights), include_top=False, input_shape=(32, 32, 3))
    before = np.asarray(stem.get_layer("Conv_1").kernel)
    after = load_file(tmp_path / "model.safetensors")["vision_model.embeddings.stem.Conv_1.weight"]
    assert np.abs(after.transpose(2, 3, 1, 0) - before).max() > 1e-3


@pytest.mark.slow
def test_the_last_phase_rewards_the_decoder_and_goes_on_where_it_was(data, stem_weights, tmp_path, clock):
    start, whole, parts = tmp_path / "start", tmp_path / "whole", tmp_path / "parts"
    train([data], start, minutes=16 * STEP, stem_weights=stem_weights, recipe=TINY)
    rates = {"frozen_share": 0.0, "reward_share": 1.0, "reward_rate": 5e-3, "drawn": 3}
    run = {"minutes": 8 * STEP, "start": start}
    run["recipe"] = dataclasses.replace(TINY, checkpoint_minutes=3 * STEP, judge_minutes=1.0, **rates)
    train([data], whole, **run)
    assert (last_figures(whole)["phase"], last_figures(whole)["step"]) == ("reward", 8)
    clock(5)
    with pytest.raises(KeyboardInterrupt):
        train([data], parts, **run)
    clock()
    train([data], parts, **run)
    first, once, twice = (load_file(folder / "model.safetensors") for folder in (start, whole, parts))
    changed = {name for name, value in first.items() if not np.array_equal(once[name], value)}
    assert changed and all(name.startswith("text_decoder.") for name in changed)
    for name, value in once.items():
        np.testing.assert_allclose(twice[name], value, atol=2e-3, err_msg=name)


def test_phases_follow_each_other_by_their_shares():
    run = Run.__new__(Run)
    rates = {"rate": 1.0, "tuning_rate": 2.0, "reward_rate": 3.0}
    run.recipe = dataclasses.replace(TINY, frozen_share=0.5, reward_share=0.25, **rates)
    found = []
    for share in (0.0, 0.49, 0.5, 0.74, 0.75, 1.0):
        run.phase = run._phase_at(share)
        found.append((run.phase, *run._schedule()))
    assert found == [("frozen", 0.0, 0.5, 1.0)] * 2 + [("whole", 0.5, 0.75, 2.0)] * 2 + [("reward", 0.75, 1.0, 3.0)] * 2


def test_what_cannot_be_trained_is_said_before_anything_is_done(data, stem_weights, tmp_path):
    with pytest.raises(ValueError, match="minutes"):
        train([data], tmp_path, minutes=0, stem_weights=stem_weights)
    with pytest.raises(ValueError, match="drawn is at least 2"):
        train([data], tmp_path, minutes=1, recipe=dataclasses.replace(TINY, reward_share=0.5, drawn=1))
    with pytest.raises(FileNotFoundError, match="stem weights"):
        train([data], tmp_path, minutes=1, stem_weights=tmp_path / "none.h5")
    with pytest.raises(FileNotFoundError, match="no data folder"):
        train([tmp_path / "nowhere"], tmp_path, minutes=1, stem_weights=stem_weights)
