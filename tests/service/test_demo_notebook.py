"""notebooks/demo.ipynb, run in Jupyter and as Colab would, and the badge that opens it there."""

import json
import os
import re
import shutil
import subprocess
import sys

import nbformat
import pytest
from nbclient import NotebookClient

from tests.conftest import REPOSITORY

NOTEBOOK = REPOSITORY / "notebooks/demo.ipynb"


def code_cells() -> list[str]:
    return [cell.source for cell in nbformat.read(NOTEBOOK, 4).cells if cell.cell_type == "code"]


def test_it_opens_the_demo_in_a_frame(tmp_path, monkeypatch):
    monkeypatch.setenv("ATELIER_DATA", str(tmp_path / "data"))
    notebook = nbformat.read(NOTEBOOK, 4)
    asked = """import json
    page = urllib.request.urlopen(address)
    wish = urllib.request.Request(f"{address}/v1/artworks", b'{"seed": 7}', {"content-type": "application/json"})
    (artwork,) = json.load(urllib.request.urlopen(wish))["artworks"]
    print(json.dumps([page.headers["content-security-policy"], page.read().decode(), artwork]))
    service.terminate()
    assert service.wait(30) is not None"""
    notebook.cells.append(nbformat.v4.new_code_cell(re.sub("^    ", "", asked, flags=re.M)))
    NotebookClient(notebook, timeout=240, resources={"metadata": {"path": str(NOTEBOOK.parent)}}).execute()
    *_, opened, _, answer = (cell for cell in notebook.cells if cell.cell_type == "code")
    assert any("<iframe" in str(each.get("data")) for each in opened.outputs)
    policy, page, artwork = json.loads(answer.outputs[0]["text"])
    assert "https://*.googleusercontent.com" in policy and "Atelier" in page
    assert artwork["seed"] == 7 and artwork["caption"]


IN_COLAB = """
import sys, types
sys.modules["google.colab"] = types.ModuleType("google.colab")
"""


@pytest.fixture
def on_the_hub(tmp_path, monkeypatch):
    """A small repository that git finds when it is asked for `somebody/atelier` on GitHub."""
    there = tmp_path / "hub/somebody/atelier"
    (there / "atelier").mkdir(parents=True)
    (there / "atelier/__main__.py").write_text("")
    (there / "requirements.txt").write_text("pip\n")  # which is there
    who = ["-c", "user.name=somebody", "-c", "user.email=some@body"]
    for command in (["init", "--quiet"], ["add", "."], [*who, "commit", "--quiet", "-m", "All"]):
        subprocess.run(["git", *command], cwd=there, check=True)
    for name, value in {
        "COUNT": "1",
        "KEY_0": f"url.{tmp_path / 'hub'}/.insteadOf",
        "VALUE_0": "https://github.com/",
    }.items():
        monkeypatch.setenv(f"GIT_CONFIG_{name}", value)


def run_as_in_colab(setup: str, folder) -> subprocess.CompletedProcess:
    script = f"{IN_COLAB}\n{setup}\nprint(os.getcwd())"
    return subprocess.run([sys.executable, "-c", script], cwd=folder, capture_output=True, text=True, env=os.environ)


def test_in_colab_the_repository_comes_first(tmp_path, on_the_hub):
    setup = code_cells()[0].replace('REPOSITORY = ""', 'REPOSITORY = "somebody/atelier"')
    (tmp_path / "content").mkdir()
    for _ in range(2):  # a cell may be run again
        done = run_as_in_colab(setup, tmp_path / "content")
        assert done.returncode == 0, done.stderr
        assert done.stdout.strip() == str(tmp_path / "content/repository")


def test_in_colab_without_its_place_on_github_it_says_what_lacks(tmp_path):
    done = run_as_in_colab(code_cells()[0], tmp_path)
    assert done.returncode == 1 and done.stderr.strip() == (
        "say in REPOSITORY where on GitHub this project is, as owner/name"
    )


def test_outside_of_the_repository_it_says_so(tmp_path):
    done = subprocess.run([sys.executable, "-c", code_cells()[0]], cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == 1 and done.stderr.strip() == "run this notebook in the repository"


@pytest.mark.skipif(not shutil.which("perl"), reason="make colab needs perl")
def test_make_colab_writes_the_badge_and_the_place(tmp_path):
    (tmp_path / "notebooks").mkdir()
    for name in ("Makefile", "README.md", "notebooks/demo.ipynb"):
        shutil.copy(REPOSITORY / name, tmp_path / name)
    before = (tmp_path / "README.md").read_text()
    for place in ("some-body/atelier", "other/place.art"):
        subprocess.run(["make", "colab", f"REPOSITORY={place}"], cwd=tmp_path, check=True, capture_output=True)
        (line,) = re.findall("^<!-- colab -->.*", (tmp_path / "README.md").read_text(), re.M)
        assert line.count("![Open in Colab]") == 1
        assert f"(https://colab.research.google.com/github/{place}/blob/main/notebooks/demo.ipynb)" in line
        notebook = nbformat.read(tmp_path / "notebooks/demo.ipynb", 4)
        assert f'\nREPOSITORY = "{place}"' in notebook.cells[1].source
    after = (tmp_path / "README.md").read_text()
    assert re.sub(r"\[!\[Open in Colab.*?\n", "", after) == re.sub(r"(?<=<!-- colab -->).*\n", "", before)
    refused = subprocess.run(["make", "colab"], cwd=tmp_path, capture_output=True, text=True)
    assert refused.returncode != 0 and "REPOSITORY=owner/name" in refused.stdout
