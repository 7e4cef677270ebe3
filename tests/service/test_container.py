"""The container's parts, as far as they can be held without an engine; and the same install in a clean environment."""

import os
import re
import subprocess
import sys

import pytest
import yaml

from tests.conftest import REPOSITORY


def pins(name: str) -> dict[str, str]:
    lines = (REPOSITORY / name).read_text().splitlines()
    return dict(line.split("#")[0].strip().split("==") for line in lines if "==" in line.split("#")[0])


def test_the_services_list_has_the_versions_of_the_other_lists():
    service, known = pins("requirements.txt"), pins("requirement.txt") | pins("extras/service.txt")
    assert {name: known.get(name) for name in service} == service
    assert set(pins("extras/service.txt")) <= set(service)


def test_the_image_takes_only_what_is_there_and_not_root():
    text = (REPOSITORY / "Dockerfile").read_text()
    copied = [name for line in re.findall(r"^COPY (?!--from)(.*) \S+$", text, re.M) for name in line.split()]
    allowed = [line[1:] for line in (REPOSITORY / ".dockerignore").read_text().splitlines() if line.startswith("!")]
    assert sorted(set(copied)) == sorted(allowed) and all((REPOSITORY / name).exists() for name in copied)
    assert text.index("USER atelier") < text.index("CMD [") and "HEALTHCHECK" in text
    (service,) = yaml.safe_load((REPOSITORY / "compose.yaml").read_text())["services"].values()
    assert service["read_only"] and service["cap_drop"] == ["ALL"]


def test_the_training_image_takes_only_what_is_there_and_not_root():
    text = (REPOSITORY / "Dockerfile.training").read_text()
    copied = [name for line in re.findall(r"^COPY (?!--from)(.*) \S+$", text, re.M) for name in line.split()]
    lines = (REPOSITORY / "Dockerfile.training.dockerignore").read_text().splitlines()
    assert sorted(set(copied)) == sorted(line[1:] for line in lines if line.startswith("!"))
    assert all((REPOSITORY / name).exists() for name in copied)
    assert text.index("USER atelier") < text.index("ENTRYPOINT")


@pytest.mark.slow
@pytest.mark.skipif("ATELIER_TEST_INSTALL" not in os.environ, reason="minutes and 3 GB: ATELIER_TEST_INSTALL=1")
def test_a_clean_environment_with_the_services_list_alone_serves(tmp_path):
    """The steps of the Dockerfile, without Docker: its list, its files, its folder, nothing else."""
    python = tmp_path / "venv" / "bin" / "python"
    subprocess.run([sys.executable, "-m", "venv", tmp_path / "venv"], check=True)
    subprocess.run([python, "-m", "pip", "install", "-q", "-r", REPOSITORY / "requirements.txt"], check=True)
    app = tmp_path / "app"
    app.mkdir()
    for name in ("config.yaml", "generator.h5", "detector.h5", "app.py", "captioner", "atelier"):
        (app / name).symlink_to(REPOSITORY / name)
    code = """
import time
from fastapi.testclient import TestClient
from atelier.service import Settings, create_app
with TestClient(create_app(settings=Settings(data="art"))) as client:
    while client.get("/readyz").status_code != 200:
        time.sleep(0.2)
    (record,) = client.post("/v1/artworks", json={"seed": 7}).json()["artworks"]
    assert record["caption"] and client.get(record["image_url"]).content.startswith(b"\\x89PNG")
    assert client.get("/").status_code == 200
"""
    environment = {"PATH": os.environ["PATH"], "HOME": str(tmp_path), "HF_HUB_OFFLINE": "1"}
    subprocess.run([python, "-c", code], cwd=app, env=environment, check=True)
