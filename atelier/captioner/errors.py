"""The one error of this package."""


class CaptionerError(Exception):
    """A captioner cannot be loaded or written; the message is one clear line."""
