"""The recipes in configs/: each is one that its training knows."""

import pytest

from atelier.config import ConfigError, settings_in
from tests.conftest import REPOSITORY

CONFIGS = REPOSITORY / "configs"


@pytest.mark.parametrize("path", sorted(CONFIGS.glob("*.yaml")), ids=lambda path: path.stem)
def test_a_recipe_is_known_to_its_training(path):
    if path.stem == "generator":
        from atelier.generator.recipe import Recipe
    elif path.stem == "captioner":
        from atelier.captioner.train import Recipe
    else:
        from atelier.detector.recipe import Recipe
    recipe = Recipe.of(settings_in(path))
    if hasattr(recipe, "check"):
        recipe.check()


def test_values_become_the_texts_that_set_takes(tmp_path):
    path = tmp_path / "recipe.yaml"
    path.write_text("width: 32\njudges: [pixels, features]\nsubpixel: true\nlearning_rate: 2e-4\nloss: hinge\n")
    expected = ["width=32", "judges=pixels,features", "subpixel=true", "learning_rate=2e-4", "loss=hinge"]
    assert settings_in(path) == expected


@pytest.mark.parametrize("text", ["- a\n- b\n", "", "width: [1", "\x00"])
def test_what_is_no_recipe_is_refused(tmp_path, text):
    path = tmp_path / "recipe.yaml"
    path.write_text(text)
    with pytest.raises(ConfigError, match=r"recipe\.yaml"):
        settings_in(path)
    with pytest.raises(ConfigError, match="cannot read"):
        settings_in(tmp_path / "missing.yaml")
