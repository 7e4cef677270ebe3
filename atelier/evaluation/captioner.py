"""All figures of a captioner: against references, for finding the right text or picture, and on generated pictures."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from atelier.captioner import Caption, Captioner, CaptionerError
from atelier.captioner.examples import find_examples, open_rgb
from atelier.captioner.scores import bleu, cider, recall, repeats, rouge_l
from atelier.dataset.source import Picture
from atelier.seeds import STYLES, medium_in_words


def evaluate_captioner(
    captioner: str | Path,
    data: Sequence[str | Path],
    *,
    generator: str | Path | None = None,
    count: int = 500,
    held_out: float = 0.08,
    num_beams: int = 1,
    candidates: int = 1,
) -> dict[str, float | int | dict]:
    """Measure a captioner.

    Args:
        captioner: its folder or hub id.
        data: folders of captioned pictures; only those that training holds back are used, the same ones each time.
        generator: a generator.h5, for the figures on its pictures; `None` leaves them out.
        count: pictures of the generator, from the seeds 0, 1, 2, ...; the media take turns.
        held_out: the share that training held back.
        num_beams, candidates: of the search.

    Returns:
        the figures by name, ready for JSON; docs/captioner.md says what each means.

    Raises:
        FileNotFoundError: no captioned pictures below `data`.
        CaptionerError, PainterError: a model cannot be loaded.
    """
    model = Captioner.load(captioner)
    pictures = find_examples(data, held_out)[1]
    images = [open_rgb(picture.path) for picture in pictures]
    search = {"num_beams": num_beams, "candidates": candidates}
    figures = {"captioner": str(captioner), "pictures": len(pictures), **search}
    figures |= caption_figures(model.caption(images, **search), pictures)
    figures |= retrieval_figures(model, images, [picture.caption for picture in pictures])
    if generator is not None:
        figures["generated"] = generated_figures(model, Path(generator), count, search)
    return figures


def caption_figures(captions: Sequence[Caption], pictures: Sequence[Picture]) -> dict[str, float | dict]:
    """How near captions are to their pictures' own, and what they are like among themselves."""
    texts, references = [caption.text for caption in captions], [picture.caption for picture in pictures]
    named = np.array([medium_in_words(text) == picture.medium for text, picture in zip(texts, pictures, strict=True)])
    media = np.array([picture.medium for picture in pictures])
    return {
        "bleu_4": _round(bleu(texts, references)),
        "cider_d": _round(np.mean(cider(texts, references))),
        "rouge_l": _round(np.mean([rouge_l(*pair) for pair in zip(texts, references, strict=True)])),
        "medium": _round(named.mean()),
        "medium_of": {style: _round(named[media == style].mean()) for style in STYLES if (media == style).any()},
        **variety(captions),
    }


def variety(captions: Sequence[Caption]) -> dict[str, float]:
    """How many captions differ, how many say a run of three or four words twice, and how sure and fitting they are."""
    texts = [caption.text for caption in captions]
    figures = {
        "distinct": _round(len(set(texts)) / len(texts)),
        "repeated_trigrams": _round(np.mean([repeats(text, 3) > 0 for text in texts])),
        "repeated_4_grams": _round(np.mean([repeats(text, 4) > 0 for text in texts])),
        "confidence": _round(np.mean([caption.confidence for caption in captions])),
    }
    if captions[0].alignment is not None:
        figures["alignment"] = _round(np.mean([caption.alignment for caption in captions]))
    return figures


def retrieval_figures(captioner: Captioner, images: Sequence, texts: Sequence[str]) -> dict[str, float]:
    """Recall at 1, 5 and 10 of each picture's own text among all, and of each text's own picture."""
    try:
        cosines = captioner.embed_images(images) @ captioner.embed_texts(texts).T
    except CaptionerError:  # it has no text encoder
        return {}
    ways = {"image_to_text": cosines, "text_to_image": cosines.T}
    return {f"{way}_r{at}": _round(recall(values, at)) for way, values in ways.items() for at in (1, 5, 10)}


def generated_figures(captioner: Captioner, generator: Path, count: int, search: dict) -> dict[str, float | int]:
    """The share of generated pictures whose caption names the medium that was asked for, and the captions' variety."""
    from atelier.generator.painter import Painter
    from atelier.seeds import latent_from_seed

    painter = Painter.load(generator)
    styles = [STYLES[seed % len(STYLES)] for seed in range(count)]
    captions = []
    for start in range(0, count, 100):
        some = styles[start : start + 100]
        latents = [latent_from_seed(start + number, painter.latent_dim, 1.5) for number in range(len(some))]
        captions += captioner.caption(list(painter.paint(np.stack(latents), some)), **search)
    named = [medium_in_words(caption.text) == style for caption, style in zip(captions, styles, strict=True)]
    return {"pictures": count, "medium": _round(np.mean(named)), **variety(captions)}


def _round(value: float) -> float:
    return round(float(value), 4)
