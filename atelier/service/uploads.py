"""A picture from a stranger: judged by its content, never by its name or what it says it is."""

from __future__ import annotations

import io
import warnings

from PIL import Image

from atelier.images import open_picture

FORMATS = ("JPEG", "PNG", "WEBP", "GIF", "BMP", "TIFF", "AVIF")
"""Pillow's readers that uploads may reach. Others start programs (EPS), or few people ever tested them."""

SIDE = 1024
"""Captioners look at a few hundred pixels; what waits for them is made no larger than this."""


class NotAPicture(ValueError):
    """The bytes are no picture that can be read."""


class TooManyPixels(ValueError):
    """The picture would take too much memory."""


def read_upload(data: bytes, max_pixels: int) -> Image.Image:
    """Decode an uploaded picture.

    Args:
        data: the whole file.
        max_pixels: width times height that is allowed; looked at before anything is decoded.

    Returns:
        an RGB picture, the right way up, at most `SIDE` pixels wide and high.

    Raises:
        NotAPicture: no picture of one of `FORMATS`, or a damaged one.
        TooManyPixels: larger than `max_pixels`.
    """
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", Image.DecompressionBombWarning)  # our own limit is smaller
            with Image.open(io.BytesIO(data), formats=FORMATS) as image:
                width, height = image.size
                if width * height > max_pixels:
                    raise TooManyPixels(f"the picture has {width} x {height} pixels, more than {max_pixels} together")
                image.verify()
        picture = open_picture(io.BytesIO(data))
    except TooManyPixels:
        raise
    except Image.DecompressionBombError as error:
        raise TooManyPixels(f"the picture has more than {max_pixels} pixels") from error
    except Exception as error:  # Pillow's readers raise nearly every kind on a damaged file
        raise NotAPicture(f"the file is no picture that can be read ({', '.join(FORMATS)})") from error
    picture.thumbnail((SIDE, SIDE))
    return picture
