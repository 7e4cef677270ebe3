"""A data set of two classes that a network can tell apart by their pictures, and nobody by their files."""

import numpy as np
import pytest
from PIL import Image

from tests.conftest import REPOSITORY

DATA = REPOSITORY / "data" / "ai-art-vs-human-art"
needs_data = pytest.mark.skipif(not DATA.is_dir(), reason="no data/ai-art-vs-human-art here")


def draw(ai: bool, number: int, size: tuple[int, int] = (80, 60)) -> Image.Image:
    """A machine paints coarse blocks in warm colours, a hand fine ones in cold colours."""
    rng = np.random.default_rng([ai, number])
    blocks = rng.uniform(0, 120, (6, 8, 3) if ai else (12, 16, 3)) + (np.array([120, 40, 0]) if ai else [0, 40, 120])
    return Image.fromarray(blocks.astype(np.uint8)).resize(size, Image.Resampling.NEAREST)


@pytest.fixture(scope="session")
def two_classes(tmp_path_factory):
    """Twelve pictures of each class, of all shapes."""
    root = tmp_path_factory.mktemp("two-classes")
    for folder, ai in (("AiArtData", True), ("RealArt", False)):
        (root / folder).mkdir()
        for number in range(12):
            size = [(80, 60), (60, 80), (64, 64)][number % 3]
            draw(ai, number, size).save(root / folder / f"{number:02d}.jpg", quality=90)
    return root
