"""What the OpenAPI document promises, the service does: schemathesis makes up requests, good and bad, and checks."""

import subprocess
import sys
from pathlib import Path

import pytest

from atelier.service import Settings, create_app
from atelier.studio import Studio
from tests.conftest import FakeCaptioner
from tests.service.conftest import running


@pytest.mark.parametrize(
    ("examples", "key"),
    [(3, None), pytest.param(300, None, marks=pytest.mark.slow), pytest.param(100, "a-key", marks=pytest.mark.slow)],
)
def test_the_document_is_kept(painter, tiny_detector, tmp_path, examples, key):
    data = tmp_path / "data"
    settings = Settings(data=data, detector=tiny_detector, batch_window=0.001, max_artworks=50, api_key=key)
    app = create_app(Studio(painter, FakeCaptioner, scale=1), settings, demo=False)
    # Its command line, since its pytest plugin knows no pytest 9.
    command = [sys.executable, "-c", "from schemathesis.cli import schemathesis; schemathesis()"]
    command += ["--config-file", str(Path(__file__).with_name("schemathesis.toml")), "run"]
    command += ["--max-examples", str(examples), "--workers", "1", "--seed", "1", "--no-color"]
    command += ["--header", f"X-API-Key: {key}"] if key else []
    with running(app) as address:
        done = subprocess.run([*command, f"{address}/openapi.json"], cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout[-6000:] + done.stderr[-2000:]
    assert "10 tested" in done.stdout or "10 selected" in done.stdout, done.stdout
