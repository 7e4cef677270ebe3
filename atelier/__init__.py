"""Atelier: one seed in, one artwork out: a picture in a chosen medium and the sentence that describes it."""

__version__ = "0.1.0"
