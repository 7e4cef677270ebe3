"""training.ipynb as a small run, by papermill's parameters: from a folder of pictures to a generator.h5 that paints."""

import shutil

import nbformat
import pytest

from tests.conftest import REPOSITORY

NOTEBOOK = REPOSITORY / "training.ipynb"
pytestmark = pytest.mark.skipif(not NOTEBOOK.is_file(), reason="no training.ipynb yet")


@pytest.fixture
def trained(tmp_path, art_folder, python):
    """Runs the notebook in an empty folder; the package comes from this repository."""

    def run(**parameters):
        parameters = {"out": "run", "minutes": 0.05, "resolution": 16, **parameters}
        options = [word for name, value in parameters.items() for word in ("-p", name, value)]
        options += ["-y", f"data: ['{art_folder}']", "-k", "python3"]
        shutil.copy(NOTEBOOK, tmp_path / "training.ipynb")
        python("-m", "papermill", "training.ipynb", "result.ipynb", *options, cwd=tmp_path, PYTHONPATH=str(REPOSITORY))
        return tmp_path

    return run


def test_a_small_run_goes_from_pictures_to_a_generator(trained):
    folder = trained(generator="generator.h5")
    cells = nbformat.read(folder / "result.ipynb", as_version=4).cells
    outputs = [output for cell in cells for output in cell.get("outputs", [])]
    assert not [output for output in outputs if output.output_type == "error"]
    assert sum("image/png" in output.get("data", {}) for output in outputs) >= 4  # data, game, samples, ...

    from atelier.generator.painter import Painter

    assert (folder / "generator.h5").read_bytes() == (folder / "run" / "generator.h5").read_bytes()
    assert Painter.load(folder / "generator.h5").size == 16


def test_the_notebook_says_its_language_and_has_one_parameters_cell():
    notebook = nbformat.read(NOTEBOOK, as_version=4)
    nbformat.validate(notebook)
    assert notebook.metadata.language_info.file_extension == ".py"
    assert len([cell for cell in notebook.cells if "parameters" in cell.metadata.get("tags", [])]) == 1
