"""What whoever runs the service may decide."""

from pathlib import Path

import pytest

from atelier.config import ConfigError
from atelier.service import Settings


def test_the_environment_decides_and_arguments_decide_over_it():
    environment = {
        "ATELIER_DATA": "/art",
        "ATELIER_API_KEY": "secret",
        "ATELIER_LISTING": "no",
        "ATELIER_MAX_ARTWORKS": "7",
        "ATELIER_WORK_SECONDS": "2.5",
        "ATELIER_MAX_COUNT": "",  # as compose files leave it
        "HOME": "/root",
    }
    settings = Settings.from_environment(environment, max_artworks=8)
    assert (settings.data, settings.api_key, settings.listing) == (Path("/art"), "secret", False)
    assert (settings.max_artworks, settings.work_seconds, settings.max_count) == (8, 2.5, 16)
    assert "secret" not in repr(settings)


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("ATELIER_MAX_ARTWORKS", "many"),
        ("ATELIER_LISTING", "perhaps"),
        ("ATELIER_MAX_BATCH", "0"),
        ("ATELIER_BATCH_WINDOW", "nan"),
        ("ATELIER_API_KEY", " spaced "),
        ("ATELIER_API_KEY", "schlüssel"),
        ("ATELIER_FRAME_ANCESTORS", "'self'; script-src *"),
    ],
)
def test_a_bad_setting_is_an_error_that_names_it(name, text):
    with pytest.raises(ConfigError, match=f"(?i){name.removeprefix('ATELIER_')}"):
        Settings.from_environment({name: text})
