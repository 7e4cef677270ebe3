"""A seed becomes a latent vector and a style: NumPy only, the same numbers on every machine.

NumPy promises a stable stream for a bit generator (PCG64 here) but not for the distributions of
`numpy.random.Generator` (NEP 19), so the normal numbers are made from raw 64-bit words by Box and Muller's
method (Annals of Mathematical Statistics 29, 1958).
"""

from __future__ import annotations

import hashlib
import operator
import secrets

import numpy as np

STYLES = ("drawings", "engraving", "iconography", "painting", "sculpture")
"""The five media, in the order of the generator's `style` input."""

# How the captions name each medium (they begin with it: "an oil painting of ...").
# The first word found decides, so "an ink drawing of a statue" is a drawing.
MEDIUM_WORDS = {
    "drawings": ("drawing", "sketch", "pastel", "watercolor", "watercolour", "charcoal", "illustration", "study"),
    "engraving": ("engraving", "etching", "woodcut", "lithograph", "print", "linocut", "aquatint", "mezzotint"),
    "iconography": ("icon", "fresco", "mosaic"),
    "painting": ("painting", "oil", "portrait"),
    "sculpture": ("sculpture", "statue", "statuette", "bust", "relief", "figurine", "carving"),
}


def fresh_seed() -> int:
    """A new seed from the operating system's entropy: an int in [0, 2**32)."""
    return secrets.randbits(32)


def check_seed(seed: int | str) -> int | str:
    """Return the seed as a plain `int` or `str`; raise `ValueError` that says what is allowed.

    Allowed: any integer >= 0 (also NumPy's, also far beyond 64 bits) and any string with a visible character.
    """
    allowed = "a seed is an integer >= 0 or a non-empty string"
    if isinstance(seed, str):
        if not seed.strip():
            raise ValueError(f"{allowed}, not an empty string")
        return str.__str__(seed)  # NumPy's str, too, is the text that it holds
    if isinstance(seed, (bool, np.bool_)):
        raise ValueError(f"{allowed}, not {seed}")
    try:
        number = operator.index(seed)
    except TypeError:
        raise ValueError(f"{allowed}, not {seed!r}") from None
    if number < 0:
        raise ValueError(f"{allowed}, not a negative number")
    if number.bit_length() > 10_000:  # Python and JSON refuse to print numbers much longer than that
        raise ValueError("a seed has at most 3,000 digits")
    return number


def check_style(style: str) -> str:
    """Return the style if it is one of `STYLES`; raise `ValueError` that lists them otherwise."""
    if not isinstance(style, str) or style not in STYLES:
        raise ValueError(f"a style is one of {', '.join(STYLES)}, not {style!r}")
    return style


def seeds_from(first: int | str | None, count: int) -> list[int | str]:
    """`count` seeds: fresh ones, the integers from `first`, or a text with a number behind it ("sea", "sea 2", ...)."""
    if first is None:
        return [fresh_seed() for _ in range(count)]
    first = check_seed(first)
    if isinstance(first, str):
        return [first, *(f"{first} {number}" for number in range(2, count + 1))]
    return [first + step for step in range(count)]


def _words(seed: int | str, purpose: str, count: int) -> np.ndarray:
    """`count` raw uint64 words of the stream that belongs to this seed and purpose."""
    # The kind is part of the text, so that seed 7 and seed "7" are different artworks.
    text = f"atelier/{purpose}/{type(seed).__name__}/{seed}"
    digest = hashlib.sha256(text.encode("utf-8", "surrogatepass")).digest()
    return np.random.PCG64(int.from_bytes(digest, "big")).random_raw(count)


def latent_from_seed(seed: int | str, dim: int, truncation: float | None = None) -> np.ndarray:
    """The seed's latent vector.

    Args:
        seed: as `check_seed` allows.
        dim: length of the latent.
        truncation: numbers beyond +-truncation are drawn again (Brock et al., BigGAN, 2019): smaller is
            safer and less varied. `None` keeps the whole normal distribution.

    Returns:
        (dim,) float32, standard normal (or truncated normal) numbers.
    """
    seed = check_seed(seed)
    # Enough words that, truncated as far as `check_truncation` allows, dim numbers always remain.
    pairs = dim * 16
    words = _words(seed, "latent", 2 * pairs) >> np.uint64(11)  # 53 random bits
    uniform = (words.astype(np.float64) + 0.5) / 2.0**53  # in (0, 1)
    radius = np.sqrt(-2.0 * np.log(uniform[:pairs]))
    angle = 2.0 * np.pi * uniform[pairs:]
    normal = np.stack([radius * np.cos(angle), radius * np.sin(angle)], axis=1).ravel()
    if truncation is not None:
        normal = normal[np.abs(normal) <= check_truncation(truncation)]
    return normal[:dim].astype(np.float32)


def check_truncation(truncation: float) -> float:
    """Return the truncation as a float; `ValueError` unless it is a number from 0.2 to 10."""
    allowed = "truncation is a number from 0.2 (safe) to 10 (everything), or none"
    if isinstance(truncation, bool) or not isinstance(truncation, (int, float)) or not 0.2 <= truncation <= 10:
        raise ValueError(f"{allowed}, not {truncation!r}")
    return float(truncation)


def style_from_seed(seed: int | str) -> str:
    """The style that a seed chooses when nobody else does: each of `STYLES` is equally likely."""
    return STYLES[int(_words(check_seed(seed), "style", 1)[0] % np.uint64(len(STYLES)))]


def medium_in_words(caption: str) -> str | None:
    """The medium (one of `STYLES`) that a caption names first, or `None`."""
    for word in caption.lower().replace(",", " ").replace(".", " ").split():
        for style, names in MEDIUM_WORDS.items():
            if word in names or word.removesuffix("s") in names:
                return style
    return None
