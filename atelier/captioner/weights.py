"""Weights between Hugging Face's files and Keras's variables.

A layer of ours is named after its module there, so a variable's path is its tensor's name up to the last word:
`vision_model/encoder.layers.0/mlp.fc1/kernel` is `vision_model.encoder.layers.0.mlp.fc1.weight`.
What is left is the order of the axes.
"""

from __future__ import annotations

import functools
from collections.abc import Mapping
from pathlib import Path

import keras
import numpy as np
from safetensors.numpy import save

from atelier.backend import hand_back
from atelier.captioner.blip import Blip
from atelier.captioner.checkpoints import read_tensors
from atelier.captioner.config import BlipConfig
from atelier.captioner.errors import CaptionerError
from atelier.captioner.hub import CONFIG, PREPROCESSOR, TOKENIZER, WEIGHTS, locate, weights_file
from atelier.captioner.preprocessing import Preprocessor
from atelier.captioner.text import is_small
from atelier.captioner.tokenizer import CaptionTokenizer
from atelier.images import write_atomically

WORDS = {
    "kernel": "weight",
    "gamma": "weight",
    "embeddings": "weight",
    "beta": "bias",
    "moving_mean": "running_mean",
    "moving_variance": "running_var",
}


def tensor_name(path: str) -> str:
    """A Keras variable's path -> its tensor's name in a Hugging Face file."""
    *modules, word = path.split("/")
    return ".".join([*modules, WORDS.get(word, word)])


def axes(path: str, rank: int) -> tuple[int, ...] | None:
    """The transposition that makes Hugging Face's tensor of Keras's; `None` where both are alike."""
    if not path.endswith("/kernel"):
        return None
    if rank == 2:
        return (1, 0)  # linear: (in, out) -> (out, in)
    if "depthwise" in path:
        return (2, 3, 0, 1)  # (H, W, channels, 1) -> (channels, 1, H, W)
    return (3, 2, 0, 1)  # convolution: (H, W, in, out) -> (out, in, H, W)


def to_tensors(model: Blip, dtype: str = "float32") -> dict[str, np.ndarray]:
    """The model's weights as Hugging Face names and lays them out."""
    tensors = {}
    for variable in model.weights:
        value, order = np.asarray(variable.numpy(), dtype), axes(variable.path, len(variable.shape))
        tensors[tensor_name(variable.path)] = np.ascontiguousarray(value.transpose(order) if order else value)
    return tensors


def load_weights(model: Blip, tensors: Mapping[str, np.ndarray], source: str = "the weights") -> None:
    """Fill every weight of the model, as float32; tensors that the model does not have are left aside.

    Raises:
        CaptionerError: tensors are missing (all are named) or have another shape.
    """
    _check_names(model, tensors, source)
    for variable in model.weights:
        variable.assign(_value(variable, tensors, source))


def build(config: BlipConfig, tensors: Mapping[str, np.ndarray], source: str = "the weights") -> Blip:
    """A model with these weights: as by `load_weights`, but no random ones are made first.

    That halves the time, and the memory is never held twice.

    Raises:
        CaptionerError: as of `load_weights`.
    """
    read, errors = set(), []
    # So that the most that is ever taken is not the weights and what TensorFlow's import left behind.
    hand_back(libraries=not is_small(config.text or config.retrieval.text))

    def initializer(variable, shape, dtype):
        try:
            read.add(variable.path)
            return _value(variable, tensors, source)
        except Exception as error:  # raised in here, it would leave Keras with variables that it never forgets
            errors.append(error)
            return np.zeros(shape, dtype)

    with keras.StatelessScope():  # variables get their values where it ends
        model = Blip(config)
        _check_names(model, tensors, source)
        for variable in model.weights:
            variable._initializer = functools.partial(initializer, variable)
    if errors:
        raise errors[0]
    if len(read) < len(model.weights):  # a Keras that keeps its initializers elsewhere
        load_weights(model, tensors, source)
    return model


def _check_names(model: Blip, tensors: Mapping[str, np.ndarray], source: str) -> None:
    missing = [name for name in map(tensor_name, (v.path for v in model.weights)) if name not in tensors]
    if missing:
        raise CaptionerError(f"{source}: {len(missing)} missing tensors: {', '.join(missing)}")


def _value(variable: keras.Variable, tensors: Mapping[str, np.ndarray], source: str) -> np.ndarray:
    """What the file holds for a variable, as float32."""
    name, order = tensor_name(variable.path), axes(variable.path, len(variable.shape))
    value = np.asarray(tensors[name], np.float32)
    found = value.shape
    if order and value.ndim == len(order):
        value = value.transpose(np.argsort(order))
    if value.shape != tuple(variable.shape):
        raise CaptionerError(f"{source}: {name} has shape {found}, which config.json does not describe")
    return value


def from_pretrained(source: str | Path) -> tuple[Blip, CaptionTokenizer, Preprocessor]:
    """Build a BLIP from a folder in Hugging Face's layout, or from the hub.

    Raises:
        CaptionerError: a file is missing or broken, or the files do not fit each other.
    """
    folder = locate(source)
    config = BlipConfig.from_file(folder / CONFIG)
    preprocessor = Preprocessor.from_file(folder / PREPROCESSOR)
    if preprocessor.size != config.vision.image_size:
        raise CaptionerError(
            f"{folder}: pictures of {preprocessor.size} pixels for a model of {config.vision.image_size} pixels"
        )
    tokenizer = CaptionTokenizer.from_file(folder / TOKENIZER, config.text or config.retrieval.text)
    weights = weights_file(folder)
    tensors = read_tensors(weights)
    return build(config, tensors, str(weights)), tokenizer, preprocessor


def save_pretrained(
    folder: Path, model: Blip, tokenizer: CaptionTokenizer, preprocessor: Preprocessor, dtype: str = "float32"
) -> None:
    """Write a folder in Hugging Face's layout, each file whole or not at all.

    Args:
        dtype: "float32", or "float16" for half the size and three digits.
    """
    files = {
        CONFIG: model.config.to_json().encode(),
        TOKENIZER: tokenizer.tokenizer.to_str(pretty=True).encode(),
        PREPROCESSOR: preprocessor.to_json().encode(),
        WEIGHTS[0]: save(to_tensors(model, dtype), metadata={"format": "pt"}),
    }
    for name, data in files.items():
        write_atomically(folder / name, data)
