"""Finds a captioner's files: in a folder, in the Hugging Face hub's cache, or on the hub."""

from __future__ import annotations

import re
from pathlib import Path

from atelier.backend import first_line
from atelier.captioner.errors import CaptionerError

CONFIG, TOKENIZER, PREPROCESSOR = "config.json", "tokenizer.json", "preprocessor_config.json"
# Safetensors first: it is smaller to read and can hold nothing but tensors.
WEIGHTS = ("model.safetensors", "pytorch_model.bin")
HUB_ID = re.compile(r"[A-Za-z0-9][\w.-]*/[A-Za-z0-9][\w.-]*")


def is_hub_id(name: str | Path) -> bool:
    """Whether a name may be a model's on the hub, `owner/name`, and is no folder here."""
    return isinstance(name, str) and bool(HUB_ID.fullmatch(name)) and not Path(name).is_dir()


def locate(source: str | Path) -> Path:
    """The folder with a captioner's files, downloaded from the hub if `source` is an id and they are not in its cache.

    The hub's own settings hold: `HF_HOME`, `HF_HUB_OFFLINE`, `HF_ENDPOINT`, `HF_TOKEN`; a bar shows the progress.

    Raises:
        CaptionerError: there is no such folder, or the files can neither be found nor downloaded; one line says what
            to do.
    """
    if Path(source).is_dir():
        return Path(source)
    if not is_hub_id(source):
        raise CaptionerError(f"no captioner at {source}: there is no such folder")
    return _download(source)


def _download(name: str) -> Path:
    from huggingface_hub import hf_hub_download
    from huggingface_hub.errors import EntryNotFoundError, HfHubHTTPError

    try:
        for file in (CONFIG, TOKENIZER, PREPROCESSOR):
            folder = Path(hf_hub_download(name, file)).parent
        try:
            hf_hub_download(name, WEIGHTS[0])
        except EntryNotFoundError:
            hf_hub_download(name, WEIGHTS[1])
    except (EntryNotFoundError, HfHubHTTPError, OSError, ValueError) as error:
        reason = first_line(error)
        raise CaptionerError(
            f"no captioner {name}: it is neither a folder nor in the hub's cache, and cannot be downloaded ({reason}). "
            f"Fetch it once with a connection: hf download {name}; or let config.yaml say captioner: captioner"
        ) from error
    return folder


def weights_file(folder: Path) -> Path:
    """The folder's weights; `CaptionerError` where there are none."""
    for name in WEIGHTS:
        if (folder / name).is_file():
            return folder / name
    raise CaptionerError(f"{folder} holds no weights: neither {' nor '.join(WEIGHTS)}")
