import pytest

from atelier.captioner import Captioner, CaptionerError
from atelier.captioner.hub import is_hub_id, locate


def cached(cache, name, captioner, weights="model.safetensors"):
    """A captioner in the hub's cache, as a download leaves it."""
    home = cache / f"models--{name.replace('/', '--')}"
    captioner.save(home / "snapshots" / "abc")
    (home / "snapshots" / "abc" / "model.safetensors").rename(home / "snapshots" / "abc" / weights)
    (home / "refs").mkdir()
    (home / "refs" / "main").write_text("abc")
    return home / "snapshots" / "abc"


@pytest.fixture
def offline(monkeypatch, tmp_path):
    from huggingface_hub import constants

    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "hub"))
    return tmp_path / "hub"


def test_what_is_a_hub_id(tmp_path, monkeypatch):
    assert is_hub_id("Salesforce/blip-image-captioning-base")
    assert not any(map(is_hub_id, ["captioner", "/a/b", "../a", "a/b/c", "a/", "a b/c", tmp_path]))
    (tmp_path / "owner" / "name").mkdir(parents=True)
    monkeypatch.chdir(tmp_path)
    assert not is_hub_id("owner/name")  # a folder that is here


def test_the_hubs_cache_is_used(offline, captioner, pictures):
    folder = cached(offline, "owner/tiny-blip", captioner)
    assert locate("owner/tiny-blip") == folder
    loaded = Captioner.load("owner/tiny-blip")
    assert [each.text for each in loaded.caption(pictures[:2])] == [
        each.text for each in captioner.caption(pictures[:2])
    ]


def test_older_models_have_a_bin_only(offline, captioner):
    folder = cached(offline, "owner/old-blip", captioner, weights="pytorch_model.bin")
    assert locate("owner/old-blip") == folder


def test_offline_with_an_empty_cache_is_one_clear_line(offline):
    with pytest.raises(CaptionerError, match="hf download owner/nothing") as error:
        Captioner.load("owner/nothing")
    assert "\n" not in str(error.value)


def test_a_folder_that_is_not_there_is_no_hub_id(tmp_path):
    with pytest.raises(CaptionerError, match="no such folder"):
        locate(tmp_path / "nowhere")


def test_an_error_without_a_text_is_told_by_its_kind(monkeypatch):
    def failing(*_):
        raise TimeoutError

    monkeypatch.setattr("huggingface_hub.hf_hub_download", failing)
    with pytest.raises(CaptionerError, match=r"cannot be downloaded \(TimeoutError\)"):
        locate("owner/name")
