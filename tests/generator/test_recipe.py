"""Recipes: read from `NAME=VALUE`, and checked before anything is spent on them."""

from dataclasses import asdict, fields

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from atelier.generator.train import Recipe

DEFAULTS = asdict(Recipe())
OF_KIND = {
    bool: st.booleans(),
    int: st.integers(-(10**6), 10**6),
    float: st.floats(allow_nan=False),
    str: st.text(),
    tuple: st.lists(st.sampled_from(["pixels", "features", "color", "cutout"])).map(tuple),
}


def as_text(value) -> str:
    return ",".join(value) if isinstance(value, tuple) else str(value)


def test_no_settings_are_the_defaults():
    assert Recipe.of([]) == Recipe()
    Recipe().check()


@given(st.fixed_dictionaries({}, optional={name: OF_KIND[type(value)] for name, value in DEFAULTS.items()}))
def test_settings_of_their_kind_are_read_and_the_others_stay(changed):
    settings = [f"{name}={as_text(value)}" for name, value in changed.items()]
    assert asdict(Recipe.of(settings)) == DEFAULTS | changed


def test_the_last_setting_of_a_name_counts_and_words_may_be_large_and_spaced():
    recipe = Recipe.of(["loss=hinge", "loss=relativistic", "subpixel=TRUE", "judges=pixels , features,", "augment="])
    assert (recipe.loss, recipe.subpixel, recipe.judges) == ("relativistic", True, ("pixels", "features"))
    assert recipe.augment == ()


@given(st.text())
@example("resolution")
@example("=64")
@example("check=1")
def test_what_is_no_setting_is_refused_by_its_name(setting):
    if setting.partition("=")[0] in DEFAULTS and "=" in setting:
        return
    with pytest.raises(ValueError, match="a setting is NAME=VALUE with a name out of resolution, latent_dim"):
        Recipe.of([setting])


@given(st.sampled_from([name for name, value in DEFAULTS.items() if type(value) in (bool, int, float)]), st.text())
@example("resolution", "64.5")
@example("subpixel", "1")
@example("learning_rate", "fast")
def test_a_value_of_another_kind_is_refused_with_its_name(name, value):
    kind = type(DEFAULTS[name])
    try:
        assert kind is not bool or value.lower() in ("true", "false")
        kind(value)
    except (ValueError, AssertionError):
        with pytest.raises(ValueError, match=f"{name} is a {kind.__name__}, not "):
            Recipe.of([f"{name}={value}"])


@given(st.dictionaries(st.sampled_from([field.name for field in fields(Recipe)]), st.text() | st.integers().map(str)))
def test_any_settings_make_a_recipe_or_a_value_error(settings):
    """And nothing else: the command line turns that one kind into a line."""
    try:
        Recipe.of([f"{name}={value}" for name, value in settings.items()]).check()
    except ValueError as error:
        assert str(error)


GOOD = ["generator=dcgan", "loss=hinge", "judges=features", "judges=features,pixels", "resolution=128", "augment="]


@pytest.mark.parametrize("setting", GOOD)
def test_what_there_is_passes_the_check(setting):
    Recipe.of([setting]).check()


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        (["resolution=100"], "resolution is a power of two"),
        (["generator=vae"], "generator is one of skip, dcgan, not 'vae'"),
        (["loss=wasserstein"], "loss is one of non-saturating, hinge, relativistic, not 'wasserstein'"),
        (["judges=critic"], "judges are any of pixels, features, lite, patches, not critic"),
        (["judges="], "not none"),
        (["crowd=1"], "crowd.s distance is measured in features"),
        (["memory=2", "latent_dim=1"], "a memory is for the generator skip, and a latent_dim from 2 up"),
        (["memory=2", "generator=dcgan"], "a memory is for the generator skip"),
        (["memory=2", "pairs=1"], "pairs need a memory, and features to compare in"),
        (["pairs=1", "judges=lite"], "pairs need a memory"),
        (["judges=features", "feature_every=4"], "feature_every is for the judge features with others beside it"),
        (["judges=pixels,lite", "feature_every=4"], "feature_every is for the judge features"),
        (["feature_every=0"], "feature_every is a positive number, not 0"),
        (["learning_size=64"], "learning_size is for the generator skip, and less than the resolution 64, not 64"),
        (["generator=dcgan", "learning_size=32"], "learning_size is for the generator skip"),
        (["learning_size=-32"], "resolution is a power of two from 16 up, not -32"),
        (["learning_size=32", "pixels_size=64"], "pixels_size is at most the judges' 32 px, not 64"),
        (["judges=lite", "feature_size=48"], "feature_size is a multiple of 32, not 48"),
        (["fade=-1"], "fade is from 0 up and less than inf, not -1"),
        (["judges=features", "gradient_penalty=1"], "penalty is for the discriminator of pixels"),
        (["latent_dim=0"], "latent_dim is a positive number, not 0"),
        (["width=-4"], "width is a positive number"),
        (["discriminator_width=0"], "discriminator_width is a positive number"),
        (["batch_size=0"], "batch_size is a positive number"),
        (["learning_rate=0"], "learning_rate is a positive number"),
        (["learning_rate=nan"], "learning_rate is a positive number, not nan"),
        (["learning_rate=inf"], "learning_rate is a positive number, not inf"),
        (["pixels_size=128"], "pixels_size is at most the judges' 64 px, not 128"),
        (["pixels_size=48"], "power of two"),
    ],
)
def test_what_there_is_not_fails_the_check_with_a_reason(settings, message):
    with pytest.raises(ValueError, match=message):
        Recipe.of(settings).check()


@pytest.mark.parametrize(
    "setting",
    [
        "gradient_penalty=-1",
        "gradient_penalty=nan",
        "ema_decay=1.5",
        "ema_decay=nan",
        "beta_1=1",
        "seed=-1",
        "augment=rotation",
        "augment_strength=2",
        "warm_up=-1",
        "feature_size=48",
    ],
)
def test_what_would_spoil_a_run_later_fails_the_check_too(setting):
    """A decay beyond 1 or an augmentation that is none would show only when the pictures are read, or never."""
    name = setting.partition("=")[0]
    with pytest.raises(ValueError, match=name):
        recipe = Recipe.of(["judges=pixels,features", setting])
        recipe.check()
