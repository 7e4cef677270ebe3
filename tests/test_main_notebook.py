"""main.ipynb under every runner that people use, and what `main()` promises."""

import ast
import importlib
import json
import os
import sys

import nbformat
import numpy as np
import pytest

from atelier.images import open_picture
from atelier.seeds import STYLES
from tests.conftest import REPOSITORY

NOTEBOOK = nbformat.read(REPOSITORY / "main.ipynb", as_version=4)
CODE = [cell for cell in NOTEBOOK.cells if cell.cell_type == "code"]


def pictures_in(folder) -> list[str]:
    """The saved artworks, each of which must open."""
    names = sorted(os.listdir(folder / "outputs")) if (folder / "outputs").is_dir() else []
    for name in names:
        assert open_picture(folder / "outputs" / name).size == (32, 32)
    return names


def check_result(path):
    """An executed notebook shows a picture and the JSON that `main()` returned."""
    outputs = [output for cell in nbformat.read(path, as_version=4).cells for output in cell.get("outputs", [])]
    assert not [output for output in outputs if output.output_type == "error"]
    assert any("image/png" in output.get("data", {}) for output in outputs)
    printed = "".join(output.text for output in outputs if output.output_type == "stream" and output.name == "stdout")
    record, _ = json.JSONDecoder().raw_decode(printed[printed.index("{") :])
    assert record["style"] in STYLES and isinstance(record["caption"], str) and record["output"].startswith("outputs/")
    assert not [output for output in outputs if output.output_type == "stream" and output.name == "stderr"]
    return record


# --- the runners


def test_papermill_with_the_configuration_file(project, python):
    arguments = ["-m", "papermill", "main.ipynb", "result.ipynb", "-f", "config.yaml", "-k", "python3"]
    done = python(*arguments, cwd=project)
    assert "unknown parameter" not in (done.stdout + done.stderr).lower()
    record = check_result(project / "result.ipynb")
    assert pictures_in(project) == [os.path.basename(record["output"])]


def test_papermill_from_elsewhere_with_cwd(project, tmp_path, python):
    """Started anywhere, told the notebook's folder by --cwd; parameters on the command line win."""
    arguments = ["-m", "papermill", project / "main.ipynb", tmp_path / "result.ipynb", "--cwd", project]
    python(*arguments, "-k", "python3", "-p", "seed", "7", "-p", "style", "engraving", cwd=tmp_path)
    record = check_result(tmp_path / "result.ipynb")
    assert (record["seed"], record["style"]) == (7, "engraving")
    assert len(pictures_in(project)) == 1


def test_papermill_with_a_bad_parameter_stops_with_the_reason(project, python):
    arguments = ["-m", "papermill", "main.ipynb", "result.ipynb", "-k", "python3", "-p", "style", "cubism"]
    done = python(*arguments, cwd=project, check=False)
    assert done.returncode and "a style is one of drawings, engraving" in done.stderr
    assert not pictures_in(project)


def test_nbconvert_execute(project, python):
    python("-m", "nbconvert", "--execute", "--to", "notebook", "--output", "result", "main.ipynb", cwd=project)
    check_result(project / "result.ipynb")
    assert len(pictures_in(project)) == 1


def test_nbconvert_to_a_script_and_python(project, python):
    python("-m", "nbconvert", "--to", "script", "main.ipynb", cwd=project)
    done = python("main.py", cwd=project)  # a .py, not a .txt
    assert len(pictures_in(project)) == 1 and '"caption"' in done.stdout


def test_run_in_ipython_from_another_folder(project, tmp_path, python):
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    done = python("-m", "IPython", "--quick", "-c", f"%run {project / 'main.ipynb'}", cwd=elsewhere)
    assert '"caption"' in done.stdout and "Error" not in done.stdout
    assert len(pictures_in(elsewhere)) == 1 and not pictures_in(project)


def load_by_importnb():
    from importnb import Notebook

    with Notebook():
        return importlib.import_module("main").main


def load_by_import_ipynb():
    import import_ipynb  # noqa: F401  (importing it is all there is to it)

    return importlib.import_module("main").main


def load_by_exec():
    names = {}
    for cell in CODE:
        exec(cell.source, names)
    return names["main"]


@pytest.fixture(params=[load_by_importnb, load_by_import_ipynb, load_by_exec])
def main(request, home, tmp_path, monkeypatch):
    """`main` as another program gets it, by three ways, from this repository's notebook."""
    monkeypatch.setattr("atelier.studio.PROJECT", home)  # tiny weights
    monkeypatch.setattr(sys, "meta_path", list(sys.meta_path))
    for name in ("main", "import_ipynb"):
        monkeypatch.delitem(sys.modules, name, raising=False)
    monkeypatch.syspath_prepend(REPOSITORY)
    monkeypatch.chdir(REPOSITORY)  # import_ipynb looks nowhere else
    made = request.param()
    sys.modules.pop("main", None)
    monkeypatch.chdir(tmp_path)
    return made


def test_imported_main_makes_an_artwork_in_the_working_directory(main, tmp_path):
    result = main(seed=7, style="engraving")
    record = json.loads(result)
    assert record["output"] == result["output"] and record["caption"] == result["caption"]
    assert (record["seed"], record["style"]) == (7, "engraving") and isinstance(record["caption"], str)
    assert pictures_in(tmp_path) == [os.path.basename(record["output"])]


LOADERS = {
    "importnb": "from importnb import Notebook\nwith Notebook():\n    import main",
    "import_ipynb": "import import_ipynb, main",
    "exec": "import json\nnames = {}\nfor cell in json.load(open('main.ipynb'))['cells']:\n"
    "    if cell['cell_type'] == 'code':\n        exec(''.join(cell['source']), names)",
}


@pytest.mark.parametrize("loader", LOADERS.values(), ids=LOADERS)
def test_importing_says_nothing_writes_nothing_and_loads_nothing_heavy(project, python, loader):
    before = sorted(os.listdir(project))
    code = f"{loader}\nimport sys\nassert not {{'tensorflow', 'keras', 'torch', 'matplotlib'}} & set(sys.modules)"
    done = python("-B", "-c", code, cwd=project)
    assert (done.stdout, done.stderr) == ("", "")
    assert sorted(os.listdir(project)) == before


# --- main()


@pytest.fixture
def make(home, tmp_path, monkeypatch):
    """`main`, loaded the quickest way, with `tmp_path` as the working directory."""
    monkeypatch.setattr("atelier.studio.PROJECT", home)
    monkeypatch.chdir(tmp_path)
    return load_by_exec()


def test_the_same_seed_and_style_give_the_same_bytes_in_two_files(make):
    one, other = (make(seed=7, style="engraving")["output"] for _ in range(2))
    assert one != other
    with open(one, "rb") as first, open(other, "rb") as second:
        assert first.read() == second.read()


def test_without_a_seed_every_picture_is_another(make):
    one, other = make(), make()
    assert one["seed"] != other["seed"]
    assert not np.array_equal(open_picture(one["output"]), open_picture(other["output"]))


@pytest.mark.parametrize("seed", [0, 2**70, np.int64(7), "sea", "海", "\0"])
def test_every_kind_of_seed_is_taken_and_told(make, seed):
    assert json.loads(make(seed=seed))["seed"] == seed


def test_any_other_setting_can_be_changed_for_one_call(make):
    record = make(seed=1, scale=1, output_dir="elsewhere/deep", truncation=None, num_beams=1)
    assert record["output"].startswith("elsewhere/deep/") and record["width"] == 16 and record["truncation"] is None
    assert make(seed=1)["width"] == 32


@pytest.mark.parametrize(
    "arguments",
    [
        {"seed": -1},
        {"seed": 1.5},
        {"seed": ""},
        {"seed": True},
        {"seed": [1]},
        {"style": "cubism"},
        {"style": 3},
        {"style": ""},
        {"style": True},
        {"truncation": 0},
        {"scale": "large"},
        {"scale": 0},
        {"sytle": "painting"},
        {"output_dir": ""},
        {"output_dir": "a\0b"},
        {"num_beams": 0},
    ],
    ids=str,
)
def test_bad_input_is_a_value_error_and_leaves_nothing(make, tmp_path, arguments):
    before = sorted(os.listdir(tmp_path))
    with pytest.raises(ValueError):
        make(**{"seed": 1, **arguments})
    assert sorted(os.listdir(tmp_path)) == before


def test_a_folder_that_cannot_be_written_is_an_os_error(make, tmp_path):
    (tmp_path / "outputs").write_bytes(b"in the way")
    with pytest.raises(OSError, match="outputs"):
        make(seed=1)
    assert (tmp_path / "outputs").read_bytes() == b"in the way"


def test_a_broken_captioner_leaves_the_picture(make, project):
    (project / "captioner" / "model.safetensors").write_bytes(b"broken")
    record = json.loads(make(seed=1, captioner=str(project / "captioner")))
    assert os.path.isfile(record["output"]) and record["caption"] is None
    assert "model.safetensors" in record["caption_error"]


def test_the_cells_may_be_run_again(home, tmp_path, monkeypatch):
    """As people do in Jupyter: the imports once more, after `main` is no longer the parameter of that name."""
    monkeypatch.setattr("atelier.studio.PROJECT", home)
    names = {"__name__": "again"}
    for cell in [*CODE, *CODE[1:]]:
        exec(cell.source, names)
    monkeypatch.chdir(tmp_path)
    assert os.path.isfile(names["main"](seed=1)["output"])


# --- the notebook as a file


def test_the_notebook_says_its_language():
    """Without it, nbconvert writes a .txt where a .py is wanted."""
    assert NOTEBOOK.metadata.language_info.name == "python"
    assert NOTEBOOK.metadata.language_info.file_extension == ".py"
    assert NOTEBOOK.metadata.kernelspec.name == "python3"
    nbformat.validate(NOTEBOOK)


def test_the_first_code_cell_holds_the_parameters_and_literals_only():
    assert [cell for cell in NOTEBOOK.cells if "parameters" in cell.metadata.get("tags", [])] == CODE[:1]
    for statement in ast.parse(CODE[0].source).body:
        assert isinstance(statement, ast.Assign)
        ast.literal_eval(statement.value)


def test_every_code_cell_is_plain_python():
    """Magics break importnb and the script. Only the demo is guarded, so that importing runs nothing heavy."""
    for cell in CODE:
        ast.parse(cell.source)
        assert not any(line.lstrip().startswith(("%", "!", "?")) for line in cell.source.splitlines())


def test_the_notebook_is_committed_executed_without_an_error():
    outputs = [output for cell in CODE for output in cell.outputs]
    if not outputs:
        pytest.skip("not executed yet")
    assert [cell.execution_count for cell in CODE] == list(range(1, len(CODE) + 1))
    assert not [output for output in outputs if output.output_type == "error"]
    assert any("image/png" in output.get("data", {}) for output in outputs)
