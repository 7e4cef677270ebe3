"""The page without a browser: what it is made of, and what it must never let through."""

import html
import re

import pytest

from atelier.service import pages
from atelier.service.demo import page_policy, seed_from_text

RECORD = {"id": "a" * 22, "seed": 7, "style": "engraving", "caption": "an engraving of a ball", "confidence": -1.0}
EVIL = "\"><script>alert(1)</script>'${alert(2)}`{{3}}"


@pytest.mark.parametrize(
    "piece",
    [
        pages.artwork_html(RECORD | {"seed": EVIL, "caption": EVIL, "style": EVIL, "id": EVIL}),
        pages.shelf_html([RECORD | {"seed": EVIL, "caption": EVIL, "style": EVIL, "id": EVIL}]),
        pages.notice_html(EVIL),
    ],
)
def test_what_strangers_wrote_is_only_text(piece):
    assert "<script" not in piece
    bare = re.sub(r'"[^"]*"', '""', piece)  # no attribute was ended by it
    assert "alert" not in re.sub(r">[^<]*<", "><", bare)


def test_an_artwork_says_what_it_is_and_how_to_have_it():
    piece = pages.artwork_html(RECORD)
    assert "an engraving of a ball" in piece and "engraving · seed 7" in piece and "meter" not in piece
    assert f'href="v1/artworks/{"a" * 22}.png" download' in piece and f'href="v1/artworks/{"a" * 22}" download' in piece
    assert '<meter value="0.812">' in pages.artwork_html(RECORD | {"alignment": 0.812})
    assert "lost for words" in pages.artwork_html(RECORD | {"caption": None})
    assert "meter" not in pages.artwork_html(RECORD | {"alignment": None})  # no captioner that can say


@pytest.mark.parametrize("seed", [7, 2**70, "sea", "a&style=x#y?", "ü 海", "\ud800"])
def test_a_permalink_leads_back_to_its_seed(seed):
    from urllib.parse import parse_qs

    query = parse_qs(pages.permalink(RECORD | {"seed": seed})[1:])
    assert query["style"] == ["engraving"]
    assert seed == "\ud800" or seed_from_text(query["seed"][0]) == seed


def test_what_visitors_type_is_a_number_or_a_text():
    assert seed_from_text(" 42 ") == 42 and seed_from_text("sea") == "sea" and seed_from_text("-1") == "-1"
    assert seed_from_text("４２") == "４２" and seed_from_text("") != seed_from_text(None)
    with pytest.raises(ValueError, match="at most 200"):
        seed_from_text("x" * 201)


def test_the_page_and_the_api_share_an_address(open_client, studio, settings):
    client = open_client(studio, settings, demo=True)
    page = client.get("/")
    assert page.status_code == 200 and "gradio" in page.text
    assert page.headers["content-security-policy"] == page_policy("'self'")
    assert client.post("/healthz").status_code == 405 and client.delete("/v1/artworks").status_code == 405
    assert client.get("/v1/unknown").headers["content-type"] == "application/problem+json"
    assert client.post("/v1/artworks", json={}).status_code == 201


def test_nothing_of_the_page_comes_from_elsewhere(open_client, studio, settings):
    client = open_client(studio, settings, demo=True)
    page = html.unescape(client.get("/").text)
    loaded = re.findall(r'<(?:script|link|img|iframe)[^>]+(?:src|href)="(https?:[^"]+)"', page)
    assert not loaded
    assert "googleapis" not in client.get("/theme.css").text


@pytest.mark.parametrize("path", ["/gradio_api/file=/etc/passwd", "/file=README.md", "/gradio_api/proxy=http://x/"])
def test_the_page_serves_no_files_by_their_path(open_client, studio, settings, path):
    assert open_client(studio, settings, demo=True).get(path).status_code == 404
