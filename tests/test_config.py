"""config.yaml: it mirrors the defaults and the notebook, and what it does not know, it names."""

import ast
import json
from dataclasses import fields

import pytest
import yaml
from hypothesis import example, given
from hypothesis import strategies as st

from atelier.config import Config, ConfigError
from tests.conftest import REPOSITORY

CONFIG_YAML = yaml.safe_load((REPOSITORY / "config.yaml").read_text(encoding="utf-8"))


def parameters_cell() -> dict:
    cells = json.loads((REPOSITORY / "main.ipynb").read_text(encoding="utf-8"))["cells"]
    (cell,) = [cell for cell in cells if "parameters" in cell["metadata"].get("tags", [])]
    return {line.targets[0].id: ast.literal_eval(line.value) for line in ast.parse("".join(cell["source"])).body}


def test_the_file_the_defaults_and_the_notebook_say_the_same():
    defaults = Config()
    mirrored = [field.name for field in fields(Config)]
    assert CONFIG_YAML == {name: getattr(defaults, name) for name in mirrored} == parameters_cell()
    assert Config.from_yaml(REPOSITORY / "config.yaml") == defaults


def test_what_is_left_out_has_its_default():
    assert Config.from_mapping({"scale": 3}) == Config(scale=3)


def test_a_config_is_frozen():
    with pytest.raises(AttributeError):
        Config().scale = 2


@pytest.mark.parametrize(
    ("key", "hint"),
    [("sytle", "style"), ("seeds", "seed"), ("outputdir", "output_dir"), ("zzz", "known are"), (3, "known")],
)
def test_an_unknown_key_is_named_with_the_nearest_known_one(key, hint):
    with pytest.raises(ConfigError, match=f"unknown key {key!r}.*{hint}"):
        Config.from_mapping({key: 1})


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("seed", -1),
        ("seed", 1.5),
        ("seed", ""),
        ("seed", True),
        ("seed", [7]),
        ("style", "cubism"),
        ("style", 3),
        ("truncation", "high"),
        ("truncation", 0),
        ("truncation", True),
        ("scale", 0),
        ("scale", 17),
        ("scale", 2.0),
        ("scale", True),
        ("scale", None),
        ("num_beams", 0),
        ("num_beams", "three"),
        ("output_dir", 3),
        ("output_dir", " "),
        ("output_dir", None),
        ("generator", ["generator.h5"]),
        ("captioner", None),
        ("requirement", {}),
        ("main", 1),
        ("version", 2),
        ("version", True),
        ("version", "1"),
        ("output", "image"),
        ("output", {"type": "video"}),
        ("caption_style", "baroque"),
        ("caption_candidates", 0),
        ("caption_candidates", True),
        ("captioner_fallback", "yes"),
        ("captioner_fallback", 1),
        ("caption_llm", "localhost"),
        ("caption_llm", 3),
        ("caption_llm_model", None),
        ("caption_llm_timeout", 0),
        ("caption_llm_timeout", "long"),
        ("caption_llm_timeout", True),
    ],
)
def test_a_wrong_value_is_an_error_that_names_its_key_and_shows_it(key, value):
    with pytest.raises(ConfigError, match=rf"^{key}: ") as error:
        Config.from_mapping({key: value})
    assert repr(value) in str(error.value) or "not a negative" in str(error.value) or "not an empty" in str(error.value)


@pytest.mark.parametrize("seed", [0, 2**70, "sea", None])
def test_every_seed_is_allowed(seed):
    assert Config(seed=seed).seed == seed


def test_a_config_error_is_a_value_error():
    assert issubclass(ConfigError, ValueError)


def test_no_file_is_an_error_that_names_it(tmp_path):
    with pytest.raises(ConfigError, match=r"no-such\.yaml"):
        Config.from_yaml(tmp_path / "no-such.yaml")
    with pytest.raises(ConfigError, match=tmp_path.name):
        Config.from_yaml(tmp_path)  # a folder


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"- seed",
        b"seed",
        b"seed: [1",
        b"\xff\xfe\x00seed",
        b"seed: 7\x00",
        b"seed: 7\nseed",
        b"? [1]\n: 2",
        b"!!python/object/apply:os.getcwd []",
        b"seed: 2026-13-45",  # YAML takes it for a date
        b"seed: !!int x",
        b"seed: !!timestamp x",
        b"seed: " + b"9" * 6000,
        b"seed: " + b"[" * 20_000,
        b"sytle: painting",
        b"scale: two",
        b"output: &a {type: *a}",
    ],
    ids=lambda content: content[:25],
)
def test_a_file_that_is_no_config_is_an_error_that_names_it(tmp_path, content):
    path = tmp_path / "config.yaml"
    path.write_bytes(content)
    with pytest.raises(ConfigError, match=r"config\.yaml") as error:
        Config.from_yaml(path)
    assert len(str(error.value).splitlines()) == 1


SCALARS = st.none() | st.booleans() | st.integers() | st.floats() | st.text() | st.dates() | st.binary(max_size=9)
VALUES = st.recursive(SCALARS, lambda some: st.lists(some, max_size=3) | st.dictionaries(st.text(), some, max_size=3))


@given(st.dictionaries(st.sampled_from([field.name for field in fields(Config)]) | st.text(), VALUES, max_size=4))
@example({"seed": 7, "style": "painting"})
def test_any_mapping_is_a_config_or_a_config_error(settings):
    try:
        config = Config.from_mapping(settings)
    except ConfigError:
        return
    assert {name: getattr(config, name) for name in settings} == settings


@given(st.text())
def test_any_text_is_a_config_or_a_config_error(tmp_path_factory, text):
    path = tmp_path_factory.getbasetemp() / "any.yaml"
    path.write_bytes(text.encode("utf-8", "surrogatepass"))
    with pytest.raises(ConfigError, match=r"any\.yaml"):
        Config.from_yaml(path)
        raise ConfigError("a lucky config, at any.yaml")
