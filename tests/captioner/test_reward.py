import dataclasses

import numpy as np
import pytest

from atelier.captioner.blip import Blip
from atelier.captioner.decoding import Decoder, Search, generate
from atelier.captioner.losses import caption_loss
from atelier.captioner.reward import Critic, Reward, advantages
from atelier.captioner.scores import cider
from atelier.captioner.train import Recipe
from tests.captioner.conftest import CAPTIONS, randomize

RECIPE = Recipe(max_tokens=14, drawn=4, drawn_temperature=0.5, reward_rate=1e-2, batch=5)


@pytest.fixture(scope="module")
def writer(captioner):
    """A captioner of random weights that may change, with vectors of five pictures."""
    config = captioner.model.config
    blip = Blip(dataclasses.replace(config, text=dataclasses.replace(config.text, opening=2)))
    randomize(blip)
    pixels = np.random.default_rng(0).standard_normal((5, 32, 32, 3)).astype("float32")
    return blip, pixels, np.asarray(blip.vision_model(pixels))


@pytest.fixture(scope="module")
def critic(writer, captioner):
    return Critic(writer[0], captioner.tokenizer, Reward(CAPTIONS), RECIPE)


def test_a_caption_is_worth_its_cider_and_more_where_it_ends_like_the_true_one():
    reward = Reward(CAPTIONS)
    whole = [f"{caption} [end]" for caption in CAPTIONS]
    found = reward([2, 0], [[CAPTIONS[2], CAPTIONS[1]], [CAPTIONS[0], "an oil painting of a red barn beside a"]])
    assert found[0, 0] == found[1, 0] == pytest.approx(10, abs=1e-4)
    assert found[0, 1] == pytest.approx(cider([*whole[:2], whole[1], *whole[3:]], whole)[2], abs=1e-5)
    assert found.dtype == np.float32 and found[1, 1] < 9


def test_what_is_worth_more_than_the_others_has_an_advantage():
    found = advantages(np.array([[1.0, 2.0, 6.0], [3.0, 3.0, 3.0]], np.float32))
    np.testing.assert_allclose(found, [[1 - 4, 2 - 3.5, 6 - 1.5], [0, 0, 0]])


def test_cold_chance_draws_what_greedy_search_finds(writer, captioner):
    blip, pixels, vectors = writer
    cold = Critic(
        blip, captioner.tokenizer, Reward(CAPTIONS), dataclasses.replace(RECIPE, drawn=2, drawn_temperature=1e-4)
    )
    rows, texts = cold.draw(vectors, np.random.default_rng(0))
    found = generate(Decoder(blip), pixels, [5], Search(1, 14, 0, no_repeat_ngram=0))
    for row, one in zip(rows.reshape(5, 2, 14), found, strict=True):
        wanted = [*one.tokens, *[3] * (len(one.tokens) < 14)]
        assert row.tolist() == [wanted + [0] * (14 - len(wanted))] * 2
    assert texts == [[captioner.tokenizer.text(one.tokens)] * 2 for one in found]


def test_words_are_drawn_as_often_as_the_model_says(writer, captioner):
    blip, _, vectors = writer
    many = dataclasses.replace(RECIPE, drawn=64, drawn_temperature=0.7)
    critic, drawn = Critic(blip, captioner.tokenizer, Reward(CAPTIONS), many), []
    for seed in range(20):
        rows, _ = critic.draw(vectors, np.random.default_rng(seed))
        drawn.append(rows.reshape(5, 64, -1)[:, :, 1])
    logits = np.asarray(blip.text_decoder(np.full((5, 1), 5), vectors))[:, 0] / 0.7
    chances = np.exp(logits) / np.exp(logits).sum(-1, keepdims=True)
    for said, chance in zip(np.concatenate(drawn, axis=1), chances, strict=True):
        shares = np.bincount(said, minlength=len(chance)) / len(said)
        assert np.abs(shares - chance).max() < 4 * np.sqrt(0.25 / len(said))
        assert np.abs(shares - chance).sum() < 0.5


def test_the_loss_is_what_it_is_said_to_be(writer, critic):
    blip, _, vectors = writer
    rng = np.random.default_rng(3)
    drawn, true = rng.integers(6, 20, (20, 14)), rng.integers(6, 20, (5, 14))
    drawn[3, 9:] = true[1, 8:] = 0
    worth = rng.standard_normal(20).astype("float32")
    found = float(critic.compute_loss(y=(drawn, true, worth), y_pred=critic((vectors, drawn, true), training=True)))

    def log_probs(ids, image, temperature=1.0):
        logits = np.asarray(blip.text_decoder(ids[:, :-1], image, training=False)) / temperature
        return logits - np.log(np.exp(logits).sum(-1, keepdims=True))

    there = drawn[:, 1:] != 0
    hit = np.take_along_axis(log_probs(drawn, np.repeat(vectors, 4, axis=0), 0.5), drawn[:, 1:, None], -1)[..., 0]
    wanted = -(hit * there * worth[:, None]).sum() / there.sum()
    wanted += RECIPE.truth * float(caption_loss(true[:, 1:], log_probs(true, vectors), 0, RECIPE.label_smoothing))
    opening = log_probs(true, vectors)[:, :2]  # nothing has been learnt yet: the anchor is an entropy
    wanted -= RECIPE.anchor * (np.exp(opening) * opening).sum(-1).mean()
    assert found == pytest.approx(wanted, abs=1e-4)


def test_what_is_rewarded_is_said_more_often_and_only_the_decoder_learns(writer, captioner):
    blip, _, vectors = writer
    rows, before = captioner.tokenizer.caption_rows(CAPTIONS, 14), [v.numpy() for v in blip.vision_model.variables]

    def reds(places, texts):
        return np.array([[min(text.split().count("red"), 3) for text in some] for some in texts], np.float32)

    alone = dataclasses.replace(RECIPE, truth=0.0, anchor=0.0, drawn=8, drawn_temperature=1.0)
    critic = Critic(blip, captioner.tokenizer, reds, alone)
    rewards = [critic.learn(vectors, rows, np.arange(5), np.random.default_rng(step)) for step in range(30)]
    assert np.mean(rewards[:3]) < 1 and np.mean(rewards[-3:]) > np.mean(rewards[:3]) + 1
    for variable, value in zip(blip.vision_model.variables, before, strict=True):
        np.testing.assert_array_equal(variable.numpy(), value)
