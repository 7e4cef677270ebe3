"""The command line: pure JSON lines out, progress to standard error, one clear line and exit code 2 for bad input."""

import json
import os
import subprocess
import sys

import pytest

from atelier.__main__ import main
from atelier.images import open_picture
from atelier.seeds import seeds_from
from tests.conftest import draw_shape


@pytest.fixture
def atelier(home, tmp_path, monkeypatch, capsys):
    """Runs a command in an empty folder with tiny weights: (exit code, lines out, text to standard error)."""
    for module in ("atelier.__main__", "atelier.studio"):
        monkeypatch.setattr(f"{module}.PROJECT", home)
    here = tmp_path / "here"
    here.mkdir()
    monkeypatch.chdir(here)

    def run(*arguments):
        try:
            code = main([str(argument) for argument in arguments])
        except SystemExit as end:
            code = end.code
        written = capsys.readouterr()
        return code, written.out.splitlines(), written.err

    return run


# --- create


def test_create_makes_artworks_and_prints_a_record_for_each(atelier):
    code, lines, _ = atelier("create", "--count", 35, "--style", "painting")
    records = [json.loads(line) for line in lines]
    assert code == 0 and len(records) == 35
    assert {record["style"] for record in records} == {"painting"}
    assert len({record["seed"] for record in records}) == 35
    assert sorted(record["output"] for record in records) == sorted(f"outputs/{name}" for name in os.listdir("outputs"))
    assert all(open_picture(record["output"]).size == (32, 32) and record["caption"] for record in records)


def test_create_counts_on_from_a_seed_and_makes_the_same_again(atelier):
    for folder in ("one", "other"):
        code, lines, _ = atelier("create", "--seed", 7, "--count", 3, "--out", folder)
        assert code == 0 and [json.loads(line)["seed"] for line in lines] == [7, 8, 9]
    one, other = ([open_picture(path).tobytes() for path in sorted_files(folder)] for folder in ("one", "other"))
    assert one == other


def sorted_files(folder):
    return sorted((os.path.join(folder, name) for name in os.listdir(folder)), key=lambda path: path.split("-")[1])


@pytest.mark.parametrize(
    ("first", "seeds"), [(7, [7, 8, 9]), (2**70, [2**70, 2**70 + 1, 2**70 + 2]), ("sea", ["sea", "sea 2", "sea 3"])]
)
def test_seeds_follow_each_other(first, seeds):
    assert seeds_from(first, 3) == seeds


def test_without_a_seed_all_are_fresh():
    assert len(set(seeds_from(None, 5))) == 5


@pytest.mark.parametrize(("text", "seed"), [("7", 7), ("sea", "sea"), (str(2**70), 2**70), ("a\udcffb", "a\udcffb")])
def test_a_seed_of_digits_is_a_number_and_all_else_a_text(atelier, text, seed):
    code, lines, _ = atelier("create", "--seed", text)
    assert code == 0 and json.loads(lines[0])["seed"] == seed


def test_a_configuration_decides_what_the_options_leave_open(atelier, project):
    path = project / "other.yaml"  # beside the weights
    path.write_text('seed: "7"\nstyle: sculpture\nscale: 1\noutput_dir: mine\nnum_beams: 1\n')
    code, (line,), _ = atelier("create", "--config", path)
    record = json.loads(line)
    assert code == 0 and (record["style"], record["width"]) == ("sculpture", 16)
    assert record["seed"] == "7"  # a text, as it is quoted
    assert record["output"].startswith("mine/")
    code, (line,), _ = atelier("create", "--config", path, "--style", "painting", "--seed", "1")
    assert (json.loads(line)["seed"], json.loads(line)["style"]) == (1, "painting")


def test_a_missing_captioner_still_gives_the_picture(atelier, project):
    (project / "captioner" / "config.json").unlink()
    code, (line,), _ = atelier("create", "--config", project / "config.yaml")
    record = json.loads(line)
    assert code == 0 and os.path.isfile(record["output"]) and record["caption"] is None and record["caption_error"]


# --- caption


@pytest.fixture
def pictures(tmp_path):
    """A folder with three pictures and three files that only look like some."""
    folder = tmp_path / "pictures"
    (folder / "deep").mkdir(parents=True)
    for number, name in enumerate(("a.png", "deep/b.JPG", "ü c.webp")):
        draw_shape("painting", number).save(folder / name)
    (folder / "empty.png").write_bytes(b"")
    (folder / "text.jpg").write_text("hello")
    (folder / "cut.png").write_bytes((folder / "a.png").read_bytes()[:60])
    (folder / "notes.txt").write_text("no picture")
    (folder / "folder.png").mkdir()
    return folder


@pytest.mark.parametrize("batch", [1, 2, 32])
def test_caption_prints_a_record_for_each_picture_good_or_bad(atelier, pictures, batch):
    code, lines, errors = atelier("caption", pictures, "--batch", batch)
    records = {os.path.relpath(json.loads(line)["image"], pictures): json.loads(line) for line in lines}
    assert code == 0 and list(records) == sorted(records) and len(lines) == 6
    for name in ("a.png", "deep/b.JPG", "ü c.webp"):
        assert records[name]["caption"] and records[name]["confidence"] <= 0 and "error" not in records[name]
    for name in ("empty.png", "text.jpg", "cut.png"):
        assert records[name]["caption"] is None and "not a readable picture" in records[name]["error"]
    assert "captions" in errors and "6/6" in errors  # the progress bar


@pytest.mark.parametrize("names", [["text.jpg"], ["cut.png", "cut.png", "empty.png"]])
def test_where_no_file_is_a_picture_caption_fails_after_its_records(atelier, pictures, names):
    code, lines, errors = atelier("caption", *(pictures / name for name in names), "--batch", 2)
    assert code == 2 and len(lines) == len(names) and all(json.loads(line)["error"] for line in lines)
    last = errors.splitlines()[-1]
    assert last.startswith("atelier: error: ") and ("text.jpg" if len(names) == 1 else "none of 3 files") in last


def test_caption_takes_files_and_folders_and_a_captioner_from_elsewhere(
    atelier, pictures, tiny_captioner, monkeypatch, tmp_path
):
    monkeypatch.setattr("atelier.__main__.PROJECT", tmp_path)  # which has no captioner
    code, lines, _ = atelier("caption", pictures / "a.png", pictures / "deep", "--captioner", tiny_captioner)
    assert code == 0 and [os.path.basename(json.loads(line)["image"]) for line in lines] == ["a.png", "b.JPG"]


def test_a_picture_named_twice_is_captioned_twice_alike(atelier, pictures):
    code, lines, _ = atelier("caption", pictures / "a.png", pictures / "a.png")
    assert code == 0 and len(lines) == 2 and lines[0] == lines[1]


# --- train


@pytest.fixture
def trainer(monkeypatch):
    """Stands in for the generator's trainer: what it was called with, and what it does instead."""
    calls = []

    def train(data, out, **options):
        calls.append((data, out, options))
        if error := train.error:
            raise error
        return out / "generator.h5"

    train.calls, train.error = calls, None
    monkeypatch.setattr("atelier.generator.train.train", train)
    return train


@pytest.fixture
def meter(monkeypatch):
    """Stands in for KID: what it was asked for, and what it says instead of measuring."""
    calls = []

    def of(*arguments):
        calls.append(arguments)
        if error := of.error:
            raise error
        return of

    of.calls, of.error = calls, None
    monkeypatch.setattr("atelier.evaluation.quick.KidMeter.of", of)
    return of


def test_train_passes_on_what_was_asked(atelier, trainer, meter):
    arguments = ["--data", "one", "two", "--minutes", "1.5", "--resolution", "32", "--no-resume", "--mixed-precision"]
    arguments += ["--start", "begin.h5", "--judges", "judges.npz", "--checkpoint-minutes", "0.5"]
    arguments += ["--devices", "2", "--kid", "0"]
    code, (line,), errors = atelier("train", "generator", "--out", "there", *arguments)
    assert code == 0 and json.loads(line) == {"trained": "generator", "output": "there/generator.h5"} and not errors
    ((data, out, options),) = trainer.calls
    assert [str(each) for each in data] == ["one", "two"] and str(out) == "there"
    recipe = options.pop("recipe")
    assert (recipe.resolution, recipe.mixed_precision) == (32, True)
    assert (str(options.pop("start")), str(options.pop("judges"))) == ("begin.h5", "judges.npz")
    assert options == {"minutes": 1.5, "resume": False, "checkpoint_minutes": 0.5, "devices": 2, "measure": None}
    assert not meter.calls


def test_train_by_default_goes_on_with_the_recipe_of_the_package_and_measures_kid(atelier, trainer, meter):
    from atelier.generator.train import Recipe

    code, _, errors = atelier("train", "generator", "--data", "one")
    ((data, out, options),) = trainer.calls
    assert code == 0 and not errors
    assert out.as_posix() == "runs/generator" and options["resume"] is True and options["recipe"] == Recipe()
    assert options["measure"] is meter and options["devices"] == 1
    assert options["start"] is None and options["judges"] is None
    assert meter.calls == [(data, Recipe().resolution, out / "cache", 500, None)]


def test_train_takes_a_recipe_setting_by_setting(atelier, trainer, meter):
    from atelier.generator.train import Recipe

    settings = ["loss=hinge", "judges=pixels,features", "learning_rate=1e-4", "subpixel=true", "resolution=16"]
    arguments = [argument for setting in settings for argument in ("--set", setting)]
    code, _, _ = atelier("train", "generator", "--data", "one", *arguments, "--resolution", "32", "--kid", "100")
    ((_, _, options),) = trainer.calls
    expected = Recipe(32, loss="hinge", judges=("pixels", "features"), learning_rate=1e-4, subpixel=True)
    assert code == 0 and options["recipe"] == expected
    assert meter.calls[0][1] == 32 and meter.calls[0][3] == 100


def test_train_goes_on_without_a_kid_that_cannot_be_had_and_says_so(atelier, trainer, meter):
    """Unless the network was named: then whoever named it wants to know."""
    meter.error = ValueError("no network")
    code, _, errors = atelier("train", "generator", "--data", "one")
    assert code == 0 and trainer.calls[0][2]["measure"] is None
    assert errors == "training goes on without KID, and keeps the latest generator: no network\n"
    assert atelier("train", "generator", "--data", "one", "--features", "gone.h5") == (
        2,
        [],
        "atelier: error: no network\n",
    )
    assert len(trainer.calls) == 1


def test_train_on_a_prepared_data_set_goes_on_without_kid(atelier, trainer, meter, tmp_path):
    (tmp_path / "shards").mkdir()
    (tmp_path / "shards" / "part-0.parquet").touch()
    code, _, errors = atelier("train", "generator", "--data", tmp_path)
    assert code == 0 and not meter.calls and trainer.calls[0][2]["measure"] is None
    assert "held-out pictures are read from folders of picture files" in errors
    atelier("train", "generator", "--data", tmp_path, "pictures")
    assert [each.name for each in meter.calls[0][0]] == ["pictures"]


def test_train_detail_passes_its_recipe_and_the_generator_on(atelier, monkeypatch):
    from atelier.generator import detail

    calls = []
    monkeypatch.setattr(detail, "train_detail", lambda *args, **options: calls.append((args, options)) or args[1] / "x")
    arguments = ("--data", "one", "two", "--start", "g.h5", "--set", "width=8", "--set", "adversarial=0.5")
    code, lines, _ = atelier("train", "detail", *arguments, "--minutes", "3", "--no-resume")
    (((data, out), options),) = calls
    assert code == 0 and len(lines) == 1 and [each.name for each in data] == ["one", "two"]
    assert out.as_posix() == "runs/detail" and options["generator"].name == "g.h5" and options["minutes"] == 3
    assert options["recipe"] == detail.DetailRecipe(width=8, adversarial=0.5) and options["resume"] is False
    assert atelier("train", "detail", "--data", "one", "--set", "widht=8")[0] == 2


def test_a_training_that_fails_is_one_line_and_an_interrupted_one_says_so(atelier, trainer, meter):
    from atelier.training import TrainingError

    trainer.error = TrainingError("the loss is\nno number")
    assert atelier("train", "generator", "--data", "one") == (2, [], "atelier: error: the loss is no number\n")
    trainer.error = KeyboardInterrupt()
    assert atelier("train", "generator", "--data", "one") == (130, [], "atelier: stopped\n")
    trainer.error = RuntimeError("a bug of ours")  # which must not look like the user's fault
    with pytest.raises(RuntimeError):
        atelier("train", "generator", "--data", "one")


# --- bad input

REFUSED = {
    "no command": [],
    "unknown command": ["paint"],
    "unknown option": ["create", "--colour", "red"],
    "negative seed": ["create", "--seed", "-1"],
    "fraction": ["create", "--seed", "1.5"],
    "empty seed": ["create", "--seed", ""],
    "style": ["create", "--style", "cubism"],
    "empty style": ["create", "--style", ""],
    "no count": ["create", "--count", "0"],
    "count of words": ["create", "--count", "many"],
    "no config": ["create", "--config", "gone.yaml"],
    "unknown key": ["create", "--config", "sytle.yaml"],
    "wrong type": ["create", "--config", "scale.yaml"],
    "no generator": ["create", "--config", "gone-generator.yaml"],
    "foreign generator": ["create", "--config", "foreign-generator.yaml"],
    "file for a folder": ["create", "--out", "a file"],
    "below a file": ["create", "--out", "a file/deeper"],
    "no picture": ["caption", "gone.png"],
    "no pictures in folder": ["caption", "."],
    "no captioner": ["caption", "picture.png", "--captioner", "gone"],
    "no batch": ["caption", "picture.png", "--batch", "0"],
    "no data": ["train", "generator", "--data", "gone"],
    "no time": ["train", "generator", "--data", ".", "--minutes", "0"],
    "no time without kid": ["train", "generator", "--data", ".", "--minutes", "0", "--kid", "0"],
    "odd size": ["train", "generator", "--data", ".", "--resolution", "100"],
    "unknown setting": ["train", "generator", "--data", ".", "--set", "los=hinge"],
    "setting without a value": ["train", "generator", "--data", ".", "--set", "loss"],
    "setting of another kind": ["train", "generator", "--data", ".", "--set", "width=wide"],
    "setting that is none": ["train", "generator", "--data", ".", "--set", "loss=wasserstein"],
    "few pictures for kid": ["train", "generator", "--data", "gone", "--kid", "50"],
    "negative kid": ["train", "generator", "--data", "gone", "--kid", "-1"],
    "kid of words": ["train", "generator", "--data", ".", "--kid", "none"],
    "devices of words": ["train", "generator", "--data", ".", "--devices", "all"],
    "no trainer": ["train", "critic", "--data", "."],
}


@pytest.mark.parametrize("arguments", REFUSED.values(), ids=REFUSED)
def test_bad_input_is_one_clear_line_and_exit_code_two(atelier, arguments, monkeypatch):
    files = {
        "sytle.yaml": "sytle: painting",
        "scale.yaml": "scale: two",
        "gone-generator.yaml": "generator: gone.h5",
        "foreign-generator.yaml": "generator: scale.yaml",
        "a file": "",
    }
    # A download would be what takes longest, so nobody waits for one before the rest has been looked at.
    monkeypatch.setattr(
        "atelier.evaluation.features.FeatureNetwork.load", lambda *_: pytest.fail("looked for it first")
    )
    for name, content in files.items():
        with open(name, "w") as file:
            file.write(content)
    if "picture.png" in arguments:
        draw_shape("painting", 0).save("picture.png")
    before = sorted(os.listdir())
    code, lines, errors = atelier(*arguments)
    assert (code, lines) == (2, [])
    assert errors.startswith("atelier: error: ") and len(errors.splitlines()) == 1 and "Traceback" not in errors
    assert [name for name in sorted(os.listdir()) if name != "runs"] == before  # nothing written


def test_help_is_no_error(atelier):
    code, lines, errors = atelier("create", "--help")
    assert code == 0 and "--seed" in "\n".join(lines) and not errors


# --- as a process of its own


def test_a_fresh_process_prints_nothing_but_json_lines(project, python):
    done = python("-m", "atelier", "create", "--seed", "sea", "--count", "2", cwd=project)
    assert [json.loads(line)["seed"] for line in done.stdout.splitlines()] == ["sea", "sea 2"]
    assert done.stderr == ""
    done = python("-m", "atelier", "create", "--seed", "-1", cwd=project, check=False)
    assert (done.returncode, done.stdout, len(done.stderr.splitlines())) == (2, "", 1)


def test_a_reader_that_goes_away_is_no_crash(project):
    """`python -m atelier create --count 64 | head -1`."""
    command = [sys.executable, "-m", "atelier", "create", "--count", "64"]
    with subprocess.Popen(command, cwd=project, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
        process.stdout.readline()
        process.stdout.close()
        assert b"Traceback" not in process.stderr.read()
