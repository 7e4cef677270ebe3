"""The search spaces: those that ship fit their recipes, and a bad one is told in one line."""

import pytest

from atelier.tuning.command import RECIPES
from atelier.tuning.spaces import Choice, Range, Space, as_settings


@pytest.mark.parametrize("what", RECIPES)
def test_a_shipped_space_fits_its_recipe(what):
    """Every end of a range and every choice is a recipe, and the recipe itself is the first trial."""
    space, recipe = Space.read(what), RECIPES[what]
    first = space.beginning(recipe.of)
    assert first is not None and recipe.of(as_settings(first)) == recipe()
    for name, part in space.search.items():
        for value in part.values if isinstance(part, Choice) else (part.low, part.high):
            made = recipe.of(as_settings({name: value}))
            if hasattr(made, "check"):
                made.check()


def test_the_file_becomes_ranges_choices_and_floors(tmp_path):
    path = tmp_path / "space.yaml"
    path.write_text(
        "generator:\n  goal: {figure: kid, better: less}\n  floors: {recall: 0.1}\n  search:\n"
        "    width: {low: 8, high: 16}\n    learning_rate: {low: 0.1, high: 1.0, log: true}\n"
        "    augment: [[], [color, cutout]]\n    excitation: [true, false]\n"
    )
    space = Space.read("generator", path)
    assert (space.figure, space.better, space.floors) == ("kid", "less", {"recall": 0.1})
    assert space.search["width"] == Range(8, 16) and space.search["learning_rate"] == Range(0.1, 1.0, log=True)
    assert space.search["augment"] == Choice(("", "color,cutout"))
    assert as_settings({"excitation": True, "augment": "", "width": 8}) == ["excitation=true", "augment=", "width=8"]
    assert list(space.only(["width"]).search) == ["width"] and space.only([]) == space
    assert space.with_floors(["recall=0", "precision=0.2"]).floors == {"recall": 0.0, "precision": 0.2}
    # No first trial where the recipe's own width is outside.
    assert space.only(["width"]).beginning(RECIPES["generator"].of) is None


def test_shortfalls_are_above_zero_below_a_floor():
    space = Space("kid", "less", {"recall": 0.25}, {})
    assert space.shortfalls({"kid": 1, "recall": 0.125}) == {"recall": 0.125}
    assert space.shortfalls({"kid": 1, "recall": 0.5})["recall"] <= 0
    with pytest.raises(ValueError, match="without recall"):
        space.check({"kid": 1})


@pytest.mark.parametrize(
    "text",
    [
        "generator: [",
        "captioner: {}",
        "generator: {goal: {figure: kid, better: lower}, search: {width: {low: 8, high: 16}}}",
        "generator: {goal: {figure: kid, better: less}, search: {width: 8}}",
        "generator: {goal: {figure: kid, better: less}, search: {width: {low: 16, high: 8}}}",
        "generator: {goal: {figure: kid, better: less}, search: {width: {low: 8, high: 16, step: 2}}}",
        "generator: {goal: {figure: kid, better: less}, floors: {recall: high}, search: {width: {low: 8, high: 16}}}",
    ],
)
def test_what_is_no_space_is_told_with_its_file(tmp_path, text):
    path = tmp_path / "space.yaml"
    path.write_text(text)
    with pytest.raises(ValueError, match=r"space\.yaml"):
        Space.read("generator", path)


def test_names_that_are_not_searched_are_refused():
    space = Space.read("generator")
    with pytest.raises(ValueError, match="not colour"):
        space.only(["width", "colour"])
    with pytest.raises(ValueError, match="NAME=NUMBER"):
        space.with_floors(["recall"])
    strange = Space("kid", "less", {}, {"rate": Range(0.1, 1.0)})
    with pytest.raises(ValueError, match="rate"):
        strange.beginning(RECIPES["generator"].of)
