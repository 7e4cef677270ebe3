"""Trains a small captioner on the project's captions: first on a frozen stem's features, then all of it; and then, by
choice, by what its own captions are worth (see `reward`).

Two losses teach it (Li et al., "BLIP", 2022): the language loss, to write a picture's caption, and the image-text
contrastive loss (ITC; Radford et al., "CLIP", 2021), to find a picture's caption among those of the whole batch.

A Vision Transformer from scratch knows too little after a few thousand pictures, so its patches are cut from the
feature map of an ImageNet MobileNetV2 (the "hybrid" of Dosovitskiy et al., 2021). Its features are computed once, for
several augmented views of each picture, and everything behind it is trained on them; then the stem is tuned, too.
"""

from __future__ import annotations

import contextlib
import dataclasses
import hashlib
import io
import json
import math
import sys
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from time import perf_counter

import keras
import numpy as np
from keras import ops
from tokenizers import Tokenizer

from atelier.captioner.augment import random_view
from atelier.captioner.blip import Blip
from atelier.captioner.compiling import compiled, constant
from atelier.captioner.config import BlipConfig, RetrievalConfig, TextConfig, VisionConfig
from atelier.captioner.evaluate import Judge
from atelier.captioner.examples import find_examples, open_rgb, view_features
from atelier.captioner.losses import caption_loss, contrastive_loss
from atelier.captioner.preprocessing import Preprocessor
from atelier.captioner.reward import Critic, Reward
from atelier.captioner.text import encoder_rows
from atelier.captioner.tokenizer import SPECIAL_TOKENS, CaptionTokenizer, train_tokenizer
from atelier.captioner.weights import from_pretrained, load_weights, save_pretrained, to_tensors
from atelier.images import write_atomically
from atelier.progress import progress_bar
from atelier.recipes import Settings


@dataclass(frozen=True)
class Recipe(Settings):
    """The numbers of a training run."""

    image_size: int = 192  # a 6 x 6 feature map; the data's pictures have 192 to 224 pixels
    hidden_size: int = 256
    num_attention_heads: int = 4
    vision_layers: int = 2  # the stem does most of the seeing
    text_layers: int = 4
    encoder_layers: int = 2  # of the text encoder: to compare takes less than to write
    embedding_size: int = 128  # of pictures and texts alike
    vocab_size: int = 3000
    opening: int = 3  # tokens that name the medium, found greedily
    max_tokens: int = 28  # 99 % of the captions are no longer, [DEC] and [SEP] included

    views: int = 8
    batch: int = 64  # the contrastive loss lives on many captions to choose from
    contrast: float = 0.5  # the weight of the contrastive loss beside the language loss
    temperature: float = 0.07  # of the contrastive loss at first, as in CLIP
    dropout: float = 0.15  # few captions: much of it
    label_smoothing: float = 0.1  # as in BLIP
    weight_decay: float = 0.05  # as in BLIP
    rate: float = 5e-4
    tuning_rate: float = 1.5e-4  # of the whole, stem included
    warmup: int = 200  # steps of each phase
    frozen_share: float = 0.55  # of the minutes
    reward_share: float = 0.0  # of the minutes, the last of them
    reward_rate: float = 1.5e-4
    drawn: int = 5  # captions of each picture that are drawn and rewarded
    drawn_temperature: float = 0.5  # nearly what a search finds, and different enough to learn from
    truth: float = 0.1  # the weight of the language loss beside the reward
    anchor: float = 0.5  # and that of naming the medium as before
    held_out: float = 0.08  # of the pictures

    seed: int = 0
    checkpoint_minutes: float = 4.0
    judge_minutes: float = 8.0

    def config(self, vocab_size: int) -> BlipConfig:
        """The model that is trained, with the vocabulary that was found."""
        ids = {token: number for number, token in enumerate(SPECIAL_TOKENS)}
        shared = {
            "hidden_size": self.hidden_size,
            "intermediate_size": 4 * self.hidden_size,
            "num_attention_heads": self.num_attention_heads,
        }
        vision = VisionConfig(
            **shared,
            num_hidden_layers=self.vision_layers,
            image_size=self.image_size,
            patch_size=1,
            dropout=self.dropout,
            stem="mobilenet_v2",
        )
        text = TextConfig(
            **shared,
            num_hidden_layers=self.text_layers,
            vocab_size=vocab_size,
            max_position_embeddings=64,
            hidden_dropout_prob=self.dropout,
            attention_probs_dropout_prob=self.dropout,
            bos_token_id=ids["[DEC]"],
            pad_token_id=ids["[PAD]"],
            sep_token_id=ids["[SEP]"],
            opening=self.opening,
        )
        return BlipConfig(vision, text, self.retrieval(text))

    def retrieval(self, text: TextConfig) -> RetrievalConfig:
        """The parts that compare texts with pictures, for a decoder of this shape."""
        encoder = dataclasses.replace(text, num_hidden_layers=self.encoder_layers, opening=0)
        return RetrievalConfig(encoder, self.embedding_size, matching=False)


# In this order. "frozen": all behind the stem, on features; "whole": all of it, on pictures; "reward": the decoder, on
# the picture encoder's vectors.
PHASES = ("frozen", "whole", "reward")


class Teacher(keras.Model):
    """A BLIP and what it is shown: feature maps while its stem is `frozen`, pixels afterwards.

    Args:
        cls: the id of [CLS], with which the text encoder's rows begin where the decoder's begin with [DEC].
    """

    def __init__(self, blip: Blip, cls: int, frozen: bool, recipe: Recipe):
        super().__init__(name="teacher")
        self.blip, self.cls, self.frozen, self.recipe = blip, cls, frozen, recipe
        blip.vision_model.stem.trainable = not frozen
        self.log_scale = self.add_weight(
            shape=(), initializer=keras.initializers.Constant(-math.log(recipe.temperature)), name="log_scale"
        )
        self.built = True
        optimizer = keras.optimizers.AdamW(recipe.rate, weight_decay=recipe.weight_decay, global_clipnorm=1.0)
        optimizer.exclude_from_weight_decay(var_names=["bias", "gamma", "beta", "embedding", "log_scale"])
        optimizer.build(self.trainable_variables)
        # XLA takes longer to compile these steps than it saves on a processor.
        self.compile(optimizer, jit_compile=False)

    def call(self, inputs, training=False):
        """(pictures, (B, T) `caption_rows`) -> logits of all words but the first, both embeddings, their scale."""
        picture, ids = inputs
        vision = self.blip.vision_model
        image = vision.encode(picture, training=training) if self.frozen else vision(picture, training=training)
        logits = self.blip.text_decoder(ids[:, :-1], image, training=training)
        texts = self.blip.embed_text(
            *encoder_rows(ids, self.cls, self.blip.config.text.pad_token_id), training=training
        )
        return logits, self.blip.embed_image(image), texts, ops.exp(ops.minimum(self.log_scale, math.log(100.0)))

    def compute_loss(self, x=None, y=None, y_pred=None, sample_weight=None, training=True):
        """The language loss and the contrastive loss of rows `y`."""
        logits, images, texts, scale = y_pred
        recipe = self.recipe
        written = caption_loss(y[:, 1:], logits, self.blip.config.text.pad_token_id, recipe.label_smoothing)
        same = ops.all(y[:, None] == y[None], axis=-1)
        return written + recipe.contrast * contrastive_loss(images, texts, scale, same)


def learning_rate(peak: float, progress: float, step: int, warmup: int) -> float:
    """A linear warm-up of some steps, and half a cosine down to a fiftieth over the phase's time."""
    cosine = 0.5 + 0.5 * math.cos(math.pi * min(progress, 1.0))
    return peak * min(1.0, (step + 1) / max(warmup, 1)) * max(cosine, 0.02)


def chances(media: Sequence[str | None]) -> np.ndarray:
    """How likely each picture is drawn: by one over the root of how many share its medium.

    Rare media are seen more often than their number, and still less often than the common ones.
    """
    counts = Counter(media)
    weights = np.array([counts[medium] ** -0.5 for medium in media])
    return weights / weights.sum()


def train(
    data: Sequence[str | Path],
    out: str | Path,
    *,
    minutes: float,
    stem_weights: str | Path = "imagenet",
    start: str | Path | None = None,
    resume: bool = True,
    recipe: Recipe | None = None,
) -> dict[str, float]:
    """Train a captioner and leave the best one in `out`, in Hugging Face's layout.

    `out` also gets `log.jsonl`, a line for each judgement on the held-out pictures, and `run/`: the features and what a
    later call needs to go on. It may be deleted afterwards.

    Args:
        data: folders with captioned pictures, as `atelier.dataset.source.find_pictures` understands them.
        out: the run's folder.
        minutes: of training in all, those of earlier calls included; the features are computed before that.
        stem_weights: a Keras weights file of MobileNetV2 without its top, or "imagenet", which downloads one.
        start: a trained captioner to begin with, stem and vocabulary included; its shape counts, not the recipe's.
            Where it has no text encoder, one is made of its decoder's first layers.
        resume: go on with the run in `out`, where there is one; otherwise begin anew.
        recipe: the numbers; those of the run that is resumed.

    Returns:
        the figures of the captioner in `out`, as `evaluate.Judge` names them.

    Raises:
        FileNotFoundError: no captioned pictures (or too few to hold some back), or no stem weights.
        ValueError: `minutes` is not positive, or the run in `out` has another recipe.
        CaptionerError: `start` cannot be loaded.
    """
    if minutes <= 0:
        raise ValueError(f"minutes is a number above 0, not {minutes}")
    if recipe and recipe.reward_share and recipe.drawn < 2:
        raise ValueError(f"drawn is at least 2, since captions are compared, not {recipe.drawn}")
    if start is None and stem_weights != "imagenet" and not Path(stem_weights).is_file():
        raise FileNotFoundError(f"no stem weights at {stem_weights}")
    run = Run(data, Path(out), recipe or Recipe(), stem_weights, start, resume)
    run.go_on(minutes * 60)
    return run.best


class Run:
    """One training run: its pictures, its model, and how far it has come."""

    def __init__(self, data, out: Path, recipe: Recipe, stem_weights, start, resume: bool):
        self.recipe, self.out, self.folder = recipe, out, out / "run"
        self.step, self.seconds, self.phase, self.best = 0, 0.0, self._phase_at(0.0), {}
        state = self._read_state() if resume else None
        keras.utils.set_random_seed(recipe.seed)
        self.pictures, held_out = find_examples(data, recipe.held_out)
        captions = [picture.caption for picture in self.pictures]
        if start is None:
            self._begin(captions, resumed=state is not None)
            self._load_stem(stem_weights)
        else:
            self._begin_with(Path(start))
        self.ids = self.tokenizer.caption_rows(captions, recipe.max_tokens)
        self.chances = chances([picture.medium for picture in self.pictures])
        self.preprocessor = Preprocessor(self.model.config.vision.image_size)
        self.judge = Judge(self.model, self.tokenizer, self.preprocessor, held_out, recipe.max_tokens)
        self.teacher, self.features = self._teacher(), None
        if state:
            for variable, value in zip(self._variables(), state, strict=True):
                variable.assign(value)

    def _begin(self, captions: list[str], resumed: bool) -> None:
        """A new model, and a vocabulary that is learnt from the captions."""
        path = self.folder / "tokenizer.json"
        words = Tokenizer.from_file(str(path)) if resumed else train_tokenizer(captions, self.recipe.vocab_size)
        write_atomically(path, words.to_str().encode())
        config = self.recipe.config(words.get_vocab_size())
        self.model, self.tokenizer = Blip(config), CaptionTokenizer(words, config.text)

    def _begin_with(self, start: Path) -> None:
        """A trained model, with a text encoder from its decoder if it has none."""
        model, self.tokenizer, _ = from_pretrained(start)
        if model.config.retrieval is None:
            config = dataclasses.replace(model.config, retrieval=self.recipe.retrieval(model.config.text))
            self.model = Blip(config)
            load_weights(self.model, with_encoder(to_tensors(model), to_tensors(self.model)))
        else:
            self.model = model

    def _teacher(self) -> Teacher | Critic:
        if self.phase == "reward":
            reward = Reward([picture.caption for picture in self.pictures])
            return Critic(self.model, self.tokenizer, reward, self.recipe)
        return Teacher(self.model, self.tokenizer.cls_id, self.phase == "frozen", self.recipe)

    def _phase_at(self, share: float) -> str:
        """The phase after a share of the time."""
        if share >= 1.0 - self.recipe.reward_share:
            return "reward"
        return "frozen" if share < self.recipe.frozen_share else "whole"

    def _schedule(self) -> tuple[float, float, float]:
        """The shares of the time at which this phase begins and ends, and its highest learning rate."""
        recipe, reward = self.recipe, 1.0 - self.recipe.reward_share
        return {
            "frozen": (0.0, min(recipe.frozen_share, reward), recipe.rate),
            "whole": (recipe.frozen_share, reward, recipe.tuning_rate),
            "reward": (reward, 1.0, recipe.reward_rate),
        }[self.phase]

    def go_on(self, until: float) -> None:
        """Train until so many seconds have been trained in all; then judge and save."""
        recipe = self.recipe
        if self.seconds < until:
            self._enter(until)  # what it has to compute has a bar of its own
        saved = judged = self.seconds
        shape = "{desc} {percentage:3.0f}%|{bar}| {n_fmt}/{total_fmt} s{postfix}"
        bar = progress_bar(total=round(until), initial=round(self.seconds), desc="captioner", bar_format=shape)
        while self.seconds < until:
            self._enter(until)
            started = perf_counter()
            begin, end, peak = self._schedule()
            progress = (self.seconds / until - begin) / max(end - begin, 1e-9)
            self.teacher.optimizer.learning_rate = learning_rate(peak, progress, self.step, recipe.warmup)
            loss = self._learn()
            self.step += 1
            took = perf_counter() - started
            self.seconds += took
            said = "reward" if self.phase == "reward" else "loss"
            bar.set_postfix_str(f"{said} {loss:.3f}, {recipe.batch / took:.0f} pictures/s", refresh=False)
            bar.update(min(round(self.seconds), bar.total) - bar.n)
            if self.seconds - judged > recipe.judge_minutes * 60:
                judged = self.seconds
                self._judge(loss)
            if self.seconds - saved > recipe.checkpoint_minutes * 60:
                saved = self.seconds
                self._save_state()
        bar.close()
        self._judge(loss=None)
        self._save_state()

    def _enter(self, until: float) -> None:
        """Go over to the phase that is due, and have what it shows: features are computed before its time begins."""
        phase = self._phase_at(self.seconds / until)
        if PHASES.index(phase) > PHASES.index(self.phase):
            self.phase, self.step = phase, 0
            self.teacher, self.features = self._teacher(), None
        if self.features is None and self.phase != "whole":
            self.features = self._features()

    def _learn(self) -> float:
        """One step: the loss (or mean reward) of its batch. What it sees and draws follows from its number alone."""
        recipe, batch = self.recipe, self.recipe.batch
        rng = np.random.default_rng([recipe.seed, PHASES.index(self.phase), self.step])
        chosen = rng.choice(len(self.pictures), batch, replace=len(self.pictures) < batch, p=self.chances)
        if self.phase != "whole":
            views = rng.integers(recipe.views, size=batch)
            shown = np.stack([self.features[view][index] for view, index in zip(views, chosen, strict=True)])
            shown = shown.astype(np.float32)
        else:
            pictures = [self.pictures[index] for index in chosen]
            shown = self.preprocessor([random_view(open_rgb(one.path), one.caption, rng) for one in pictures])
        ids = self.ids[chosen]
        if self.phase == "reward":
            return self.teacher.learn(shown, ids, chosen, rng)
        return float(self.teacher.train_on_batch((shown, ids), ids))

    def _judge(self, loss: float | None) -> None:
        """Judge the model, log the figures, and keep it in `out` if it is the best so far."""
        figures = self.judge()
        record = {"minutes": round(self.seconds / 60, 2), "step": self.step, "phase": self.phase, "training": loss}
        with (self.out / "log.jsonl").open("a", encoding="utf-8") as log:
            log.write(json.dumps(record | figures) + "\n")
        if not self.best or goodness(figures) > goodness(self.best):
            self.best = figures
            save_pretrained(self.out, self.model, self.tokenizer, self.preprocessor, "float16")

    def _load_stem(self, weights) -> None:
        """The ImageNet weights that a new model's stem starts from."""
        size = self.model.config.vision.image_size
        try:
            with contextlib.redirect_stdout(sys.stderr):  # Keras prints its downloads
                known = keras.applications.MobileNetV2(include_top=False, weights=weights, input_shape=(size, size, 3))
            self.model.vision_model.stem.set_weights(known.get_weights())
        except Exception as error:  # what Keras raises depends on what is wrong, from no network to another network
            raise FileNotFoundError(f"no MobileNetV2 weights from {weights}: {error}") from error

    def _features(self) -> list[np.ndarray]:
        """Every view of each picture as this phase is shown it: the stem's feature map, or the encoder's vectors."""
        recipe, vision = self.recipe, self.model.vision_model
        whole = self.phase == "reward"
        show, variables = (vision, vision.variables) if whole else (vision.feature_map, vision.stem.variables)
        shown = compiled(constant(show, variables), variables)

        def embed(images):
            pixels = self.preprocessor(images + images[:1] * (recipe.batch - len(images)))  # one shape, compiled once
            return ops.convert_to_numpy(shown(pixels))[: len(images)]

        # Features of other pictures, of another size, or by other weights are other features.
        about = [vision.config.image_size, *((one.path.name, one.caption) for one in self.pictures)]
        key = hashlib.sha256(json.dumps(about).encode())
        for variable in variables:
            key.update(ops.convert_to_numpy(variable).tobytes())
        folder = self.folder / f"features-{key.hexdigest()[:12]}"
        return view_features(folder, self.pictures, recipe.views, embed, recipe.batch)

    def _variables(self) -> list[keras.Variable]:
        """All that training changes: weights, the optimizer's moments, the dropout's random state."""
        return [*self.teacher.variables, *self.teacher.optimizer.variables]

    def _save_state(self) -> None:
        about = {"step": self.step, "seconds": self.seconds, "phase": self.phase, "best": self.best}
        about["recipe"] = dataclasses.asdict(self.recipe)
        buffer = io.BytesIO()
        values = {f"{number:04d}": variable.numpy() for number, variable in enumerate(self._variables())}
        np.savez(buffer, about=json.dumps(about), **values)
        write_atomically(self.folder / "state.npz", buffer.getvalue())

    def _read_state(self) -> list[np.ndarray] | None:
        path = self.folder / "state.npz"
        if not path.is_file():
            return None
        with np.load(path) as state:
            about = json.loads(str(state["about"]))
            if about.pop("recipe") != dataclasses.asdict(self.recipe):
                raise ValueError(f"the run in {self.out} has another recipe: resume it with that, or begin anew")
            self.step, self.seconds, self.phase = about["step"], about["seconds"], about["phase"]
            self.best = about["best"]
            return [state[name] for name in sorted(set(state.files) - {"about"})]


def with_encoder(tensors: dict[str, np.ndarray], wanted: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    """A captioner's tensors, and for a text encoder (as `wanted` has one) the decoder's where it has the like."""
    decoder = {name.replace("text_decoder.bert.", "text_encoder."): value for name, value in tensors.items()}
    return wanted | decoder | tensors


def goodness(figures: dict[str, float]) -> float:
    """What decides which captioner is best: captions of sharp and enlarged pictures, and finding the right one."""
    return figures["cider"] + figures["cider_64px"] + figures["recall_5"]
