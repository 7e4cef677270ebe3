"""The whole flow: the same seed gives the same bytes, nothing is lost or overwritten, bad input leaves no trace."""

import copy
import json
import os
import pickle
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from PIL import Image

from atelier.captioner import Caption, CaptionerError
from atelier.config import Config
from atelier.generator.painter import PainterError
from atelier.images import open_picture
from atelier.seeds import STYLES
from atelier.studio import Studio
from tests.conftest import REPOSITORY, FakeCaptioner, draw_shape

# --- seeds and pictures


def test_the_same_seed_and_style_give_the_same_bytes(studio, tmp_path):
    one, other = studio.create([7, 7], "engraving", tmp_path)
    assert one.path != other.path and one.path.read_bytes() == other.path.read_bytes()
    (again,) = studio.create([7], "engraving", tmp_path)
    assert again.path.read_bytes() == one.path.read_bytes()
    assert again.record() != one.record()  # the paths differ, and nothing else
    assert {**again.record().values, "output": None} == {**one.record().values, "output": None}


def test_no_seed_gives_another_picture_every_time(studio):
    one, other = studio.create([None, None], "painting")
    assert one.seed != other.seed and not np.array_equal(one.image, other.image)


def test_a_fresh_seed_gives_its_picture_again(studio):
    (fresh,) = studio.create([None])
    (again,) = studio.create([fresh.seed], fresh.style)
    np.testing.assert_array_equal(again.image, fresh.image)


def test_many_at_once_equal_one_by_one_in_the_order_asked_for(studio):
    seeds = [f"number {number}" for number in range(37)]
    together = studio.create(seeds)
    assert [artwork.seed for artwork in together] == seeds
    for seed, artwork in zip(seeds, together, strict=True):
        (alone,) = studio.create([seed])
        assert alone.style == artwork.style
        assert np.abs(alone.image.astype(int) - artwork.image).max() <= 1


def test_a_style_may_be_given_for_each_seed_or_left_to_it(studio):
    styles = [artwork.style for artwork in studio.create([1, 1, 1, 1], [None, "painting", "sculpture", None])]
    assert styles[1:3] == ["painting", "sculpture"] and styles[0] == styles[3] in STYLES


def test_scale_and_truncation_do_what_they_say(painter):
    (small,) = Studio(painter, FakeCaptioner, scale=1).create([3])
    (large,) = Studio(painter, FakeCaptioner, scale=3).create([3])
    assert small.image.shape == (16, 16, 3) and large.image.shape == (48, 48, 3)
    (daring,) = Studio(painter, FakeCaptioner, scale=1, truncation=None).create([7])
    (safe,) = Studio(painter, FakeCaptioner, scale=1, truncation=0.2).create([7])
    assert not np.array_equal(daring.image, safe.image)


def test_no_seeds_are_no_artworks(studio, tmp_path):
    assert studio.create([], folder=tmp_path / "new") == []
    assert not (tmp_path / "new").exists()


# --- files


def test_without_pictures_nobody_asks_for_the_captioner(painter):
    asked = []
    studio = Studio(painter, lambda: asked.append("the captioner"))
    assert studio.create([]) == [] and studio.captions([]) == [] and not asked


def test_a_file_holds_the_picture_and_says_what_made_it(studio, tmp_path):
    (artwork,) = studio.create(["sea"], "painting", tmp_path / "deep" / "folder")
    np.testing.assert_array_equal(np.asarray(open_picture(artwork.path)), artwork.image)
    with Image.open(artwork.path) as picture:
        assert picture.text["Seed"] == "sea" and picture.text["Style"] == "painting"
    assert artwork.path.name.startswith("painting-sea-")


def test_without_a_folder_nothing_is_written(studio, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (artwork,) = studio.create([1])
    assert artwork.path is None and artwork.record()["output"] is None and not os.listdir(tmp_path)


@given(st.text(st.characters(exclude_categories=()), min_size=1).filter(str.strip))
@example("\udc80 half a character")
@example("a\0b")
def test_any_text_makes_a_file_a_record_and_a_line(studio_for_text, tmp_path_factory, seed):
    folder = tmp_path_factory.getbasetemp() / "texts"
    (artwork,) = studio_for_text.create([seed], "painting", folder)
    assert artwork.path.parent == folder and artwork.path.is_file()
    assert json.loads(artwork.record())["seed"] == seed
    assert f"{artwork.record()}\n".encode()  # what print() needs


@pytest.fixture(scope="module")
def studio_for_text(painter):
    return Studio(painter, FakeCaptioner, scale=1)


@pytest.mark.parametrize("seed", ["../../escape", "/etc/passwd", "a/b\\c", ".", "\0", "\u202e", "x" * 5000, 10**2999])
def test_no_seed_leads_out_of_the_folder(studio, tmp_path, seed):
    (artwork,) = studio.create([seed], None, tmp_path / "outputs")
    assert os.listdir(tmp_path) == ["outputs"]
    assert os.listdir(tmp_path / "outputs") == [artwork.path.name]
    assert len(artwork.path.name) < 100


def test_two_hundred_calls_make_two_hundred_files(studio, tmp_path):
    paths = {studio.create([7], "painting", tmp_path)[0].path for _ in range(200)}
    assert len(paths) == 200 == len(os.listdir(tmp_path))


@pytest.mark.slow
def test_a_thousand_calls_leave_the_memory_flat(home, tmp_path):
    psutil = pytest.importorskip("psutil")
    studio = Studio.open(Config(), home)  # with a real, though tiny, captioner

    def make(count):
        for _ in range(count):
            studio.create([None], None, tmp_path)
        return psutil.Process().memory_info().rss

    before = make(100)
    assert make(900) - before < 30 * 2**20
    assert len(os.listdir(tmp_path)) == 1000


def test_threads_share_a_studio(studio, tmp_path):
    """As a server's do: every caller gets its own picture."""
    alone = {seed: studio.create([seed], "painting")[0].image for seed in range(8)}

    def make(seed):
        (artwork,) = studio.create([seed], "painting", tmp_path)
        return np.abs(artwork.image.astype(int) - alone[seed]).max()

    with ThreadPoolExecutor(4) as threads:
        assert max(threads.map(make, list(range(8)) * 4)) <= 1
    assert len(os.listdir(tmp_path)) == 32


def test_two_processes_at_once_do_not_clash(project, tmp_path):
    """Both write the same seeds into the same folder."""
    command = [sys.executable, "-m", "atelier", "create", "--count", "20", "--seed", "1", "--style", "painting"]
    command += ["--out", str(tmp_path / "shared")]
    processes = [subprocess.Popen(command, cwd=project, stdout=subprocess.PIPE, text=True) for _ in range(2)]
    records = [json.loads(line) for process in processes for line in process.communicate()[0].splitlines()]
    assert [process.returncode for process in processes] == [0, 0]
    names = {os.path.basename(record["output"]) for record in records}
    assert len(names) == 40 and names == set(os.listdir(tmp_path / "shared"))
    one, other = (
        [open_picture(record["output"]).tobytes() for record in half] for half in (records[:20], records[20:])
    )
    assert one == other


@pytest.mark.parametrize("below", ["", "deeper"])
def test_a_folder_that_cannot_be_made_is_an_os_error_and_leaves_nothing(studio, tmp_path, below):
    (tmp_path / "outputs").write_bytes(b"a file is in the way")
    with pytest.raises(OSError):
        studio.create([1], "painting", tmp_path / "outputs" / below)
    assert os.listdir(tmp_path) == ["outputs"] and (tmp_path / "outputs").read_bytes() == b"a file is in the way"


# --- captions


def test_captions_stand_with_their_own_pictures(studio):
    artworks = studio.create(list(range(9)))
    for artwork in artworks:
        (alone,) = studio.create([artwork.seed])
        brightness, expected = (float(each.caption.split()[-1]) for each in (artwork, alone))
        assert abs(brightness - expected) < 1 and artwork.confidence == -0.5 and artwork.caption_error is None
    assert len({artwork.caption for artwork in artworks}) > 1


class Recording(FakeCaptioner):
    """Remembers how many pictures it was given at a time."""

    def __init__(self):
        self.batches = []

    def caption(self, images, **search):
        self.batches.append(len(images))
        return super().caption(images, **search)


@pytest.mark.parametrize("manner", ["plain", "poetic"])
@pytest.mark.parametrize(("uploads", "wishes"), [(2, 3), (0, 3), (2, 0), (0, 0)])
def test_pictures_beside_artworks_share_their_batch_and_nobody_can_tell(painter, manner, uploads, wishes):
    captioner = Recording()
    studio = Studio(painter, lambda: captioner, caption_style=manner)
    pictures = [np.asarray(draw_shape("painting", seed, 32)) for seed in range(uploads)]
    seeds, styles, manners = [7, "sea", 8][:wishes], ["painting", None, "engraving"][:wishes], [None, "poetic", "plain"]
    expected = studio.create(seeds, styles, caption_style=manners[:wishes]), studio.captions(pictures)
    captioner.batches.clear()
    artworks, described = studio.create_beside(pictures, seeds, styles, caption_style=manners[:wishes])
    facts = [
        [(each.seed, each.style, each.caption, each.confidence, each.image.tobytes()) for each in some]
        for some in (artworks, expected[0])
    ]
    assert facts[0] == facts[1] and described == expected[1]
    assert len(artworks) == wishes and len(described) == uploads
    assert captioner.batches == ([uploads + wishes] if uploads + wishes else [])


def test_a_captioner_that_fails_tells_artworks_and_pictures_beside_them(painter):
    def refuse():
        raise OSError("gone")

    pictures = [np.zeros((8, 8, 3), np.uint8)] * 2
    artworks, described = Studio(painter, refuse).create_beside(pictures, [1, 2, 3])
    assert [(each.caption, each.caption_error) for each in artworks] == [(None, "OSError: gone")] * 3
    assert described == [(None, None, "OSError: gone")] * 2


class Broken:
    def caption(self, images, **_):
        raise MemoryError("out of words")


def refuse():
    raise CaptionerError("a tensor is missing")


@pytest.mark.parametrize(
    ("captioner", "reason"),
    [(refuse, "a tensor is missing"), (Broken, "out of words"), (lambda: None, "caption")],
    ids=["at load", "at use", "of another kind"],
)
def test_a_captioner_that_fails_never_loses_a_picture(painter, tmp_path, captioner, reason):
    artworks = Studio(painter, captioner).create([1, 2], "painting", tmp_path)
    assert len(os.listdir(tmp_path)) == 2
    for artwork in artworks:
        record = json.loads(artwork.record())
        assert os.path.isfile(record["output"])
        assert record["caption"] is None and record["confidence"] is None and reason in record["caption_error"]


def test_a_captioner_that_says_too_little_never_loses_a_picture(painter, tmp_path):
    class Forgetful(FakeCaptioner):
        def caption(self, images, **_):
            return super().caption(images)[:-1]

    artworks = Studio(painter, Forgetful).create([1, 2], "painting", tmp_path)
    assert len(os.listdir(tmp_path)) == 2 and len(artworks) == 2
    assert all(artwork.caption is None and artwork.caption_error for artwork in artworks)


def test_a_captioner_that_failed_is_asked_again(painter):
    calls = iter([refuse, FakeCaptioner])
    studio = Studio(painter, lambda: next(calls)())
    assert studio.create([1])[0].caption is None
    assert studio.create([1])[0].caption is not None


def test_a_real_captioner_captions(painter, tiny_captioner):
    from atelier.captioner import Captioner

    captioner = Captioner.load(tiny_captioner)
    artworks = Studio(painter, lambda: captioner, num_beams=2).create([1, 2, 3])
    for artwork in artworks:
        assert isinstance(artwork.caption, str) and artwork.confidence <= 0 and artwork.caption_error is None


class Aligned(FakeCaptioner):
    """Says how many candidates it was asked for, and how well each caption fits."""

    def caption(self, images, candidates=1, **_):
        return [Caption(f"an engraving of {candidates} trees", -0.5, alignment=0.25) for _ in images]


def test_alignment_stands_in_the_record(painter, studio):
    assert studio.create([1])[0].record()["alignment"] is None  # its captioner cannot say
    artwork = Studio(painter, Aligned, caption_candidates=4).create([1])[0]
    assert artwork.caption == "an engraving of 4 trees" and artwork.record()["alignment"] == 0.25


def test_captions_come_in_the_configured_style(painter):
    (poetic,) = Studio(painter, Aligned, caption_style="poetic").create([1], "engraving")
    assert poetic.caption.startswith("1 trees / in ") and poetic.caption.endswith(" / an engraving")
    (catalogue,) = Studio(painter, Aligned, caption_style="catalogue").create([1], "drawings")
    assert catalogue.caption.startswith("Drawing. 1 trees. ")

    mixed = Studio(painter, Aligned).create([1, 1], "drawings", caption_style=[None, "catalogue"])
    assert [artwork.caption for artwork in mixed] == ["an engraving of 1 trees", catalogue.caption]
    for wrong in (["loud"], ["plain", "plain"], "plain"):
        with pytest.raises(ValueError, match="plain, poetic, catalogue"):
            Studio(painter, Aligned).create([1], caption_style=wrong)

    class Parrot:
        def styled(self, caption, style):
            return f"{style}: {caption}"

    (spoken,) = Studio(painter, Aligned, caption_style="poetic", language_model=Parrot()).create([1])
    assert spoken.caption == "poetic: an engraving of 1 trees"
    assert Studio(painter, Aligned, language_model=Parrot()).create([1])[0].caption == "an engraving of 1 trees"


@pytest.mark.parametrize("fallback", [True, False])
def test_a_hub_captioner_that_cannot_be_had(project, python, fallback):
    code = "from atelier.config import Config; from atelier.studio import Studio; "
    code += f"config = Config(captioner='owner/nothing', captioner_fallback={fallback}); "
    code += "print(Studio.open(config).create([7])[0].record())"
    done = python("-c", code, cwd=project, HF_HUB_OFFLINE="1", HF_HOME=str(project / "hub"))
    record, lines = json.loads(done.stdout), [line for line in done.stderr.splitlines() if "owner/nothing" in line]
    if fallback:
        assert record["caption"] and len(lines) == 1 and "the shipped captioner is used" in lines[0]
    else:
        assert record["caption"] is None and "hf download owner/nothing" in record["caption_error"]


# --- records


def test_a_record_is_json_and_answers_by_key(studio, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (artwork,) = studio.create([2**70], "painting", "outputs")
    record = artwork.record()
    assert json.loads(record) == record.values
    assert isinstance(record, str) and "\n" not in record
    assert record["output"] == json.loads(record)["output"] == artwork.path.as_posix()
    assert record["output"].startswith("outputs/") and os.path.isfile(record["output"])
    assert (record["seed"], record["style"], record["width"], record["height"]) == (2**70, "painting", 32, 32)
    assert record.get("caption") == artwork.caption and record.get("nothing", 7) == 7 and record[0] == "{"
    assert "caption_error" not in record.values
    with pytest.raises(KeyError):
        record["nothing"]


@pytest.mark.parametrize("again", [copy.copy, copy.deepcopy, lambda record: pickle.loads(pickle.dumps(record))])
def test_a_record_can_be_copied_and_pickled(studio, again):
    (artwork,) = studio.create(["海"])
    record = artwork.record()
    assert again(record) == record and again(record)["seed"] == "海"


# --- bad input


@pytest.mark.parametrize("seed", [-1, 1.5, "", True, b"sea", [1], object()])
def test_a_bad_seed_is_an_error_and_nothing_is_written(studio, tmp_path, seed):
    with pytest.raises(ValueError, match="integer >= 0 or a non-empty string"):
        studio.create([1, seed], "painting", tmp_path / "outputs")
    assert not os.listdir(tmp_path)


@pytest.mark.parametrize("style", ["cubism", "", 3, True, 1.5, b"painting", ["cubism"], [3], object()])
def test_a_bad_style_is_an_error_and_nothing_is_written(studio, tmp_path, style):
    with pytest.raises(ValueError, match="style"):
        studio.create([1], style, tmp_path / "outputs")
    assert not os.listdir(tmp_path)


def test_too_few_styles_are_an_error(studio):
    with pytest.raises(ValueError, match="2 styles for 3 seeds"):
        studio.create([1, 2, 3], ["painting", "sculpture"])


@pytest.mark.parametrize("seeds", ["sea", 7, None])
def test_seeds_are_a_list(studio, seeds):
    """A lone text would otherwise be taken for a list of letters."""
    with pytest.raises(ValueError, match="list of seeds"):
        studio.create(seeds)


# --- opening


def test_a_studio_opens_by_its_configuration_and_loads_its_models_once(project):
    config = Config(scale=1, num_beams=1)
    one, other = Studio.open(config, project), Studio.open(Config(scale=2), project)
    assert one.painter is other.painter and (one.scale, other.scale) == (1, 2)
    (artwork,) = one.create([7], "painting")
    assert artwork.image.shape == (16, 16, 3) and isinstance(artwork.caption, str)


def test_threads_that_ask_at_the_same_time_load_one_captioner(project, monkeypatch):
    loaded = []

    def load(source):
        time.sleep(0.2)  # long enough for the others to ask, too
        loaded.append(source)
        return FakeCaptioner()

    monkeypatch.setattr("atelier.studio.Captioner.load", load)
    studio = Studio.open(Config(), project)
    with ThreadPoolExecutor(3) as threads:
        list(threads.map(lambda seed: studio.create([seed]), range(3)))
    assert loaded == [project / "captioner"]


def test_a_missing_generator_is_an_error_and_a_missing_captioner_a_reason(project):
    (project / "captioner" / "model.safetensors").unlink()
    (artwork,) = Studio.open(Config(), project).create([7])
    assert artwork.caption is None and "model.safetensors" in artwork.caption_error
    with pytest.raises(PainterError, match="no generator at"):
        Studio.open(Config(generator="gone.h5"), project)


def test_a_captioner_that_lacks_a_tensor_is_a_reason_that_names_it(project):
    from safetensors.numpy import load_file, save_file

    path = project / "captioner" / "model.safetensors"
    tensors = load_file(path)
    lost = sorted(tensors)[3]
    del tensors[lost]
    save_file(tensors, path)
    (artwork,) = Studio.open(Config(), project).create([7], folder=project / "outputs")
    assert artwork.path.is_file() and artwork.caption is None and lost in artwork.caption_error


def test_importing_the_studio_is_light(tmp_path, python):
    """Neither a network library, nor a trainer, nor a data engine, nor a server; and not a word."""
    heavy = ["tensorflow", "keras", "jax", "torch", "transformers", "tqdm", "fastapi", "gradio", "daft", "ray"]
    heavy += ["matplotlib", "atelier.training", "atelier.generator.train", "atelier.dataset", "atelier.captioner.train"]
    code = f"import sys, atelier.studio; print([name for name in {heavy} if name in sys.modules])"
    done = python("-c", code, cwd=tmp_path, PYTHONPATH=str(REPOSITORY))
    assert (done.stdout, done.stderr) == ("[]\n", "")
    assert not os.listdir(tmp_path)


def test_painting_and_captioning_load_no_trainer(project, python):
    heavy = ["torch", "transformers", "daft", "ray", "fastapi", "atelier.training", "atelier.captioner.train"]
    code = f"""
import sys
from atelier.studio import Studio
(artwork,) = Studio.open().create([7])
assert artwork.caption, artwork.caption_error
print([name for name in {heavy} if name in sys.modules])
"""
    done = python("-c", code, cwd=project)
    assert done.stdout == "[]\n"
