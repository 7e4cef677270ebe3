"""The demo in a real browser, Chromium without a window: what a visitor does, and what the visitor then sees."""

import json
import os
import shutil

import pytest
from PIL import Image

from atelier.service import create_app
from tests.conftest import draw_shape
from tests.service.conftest import running

CHROMIUM = os.environ.get("CHROMIUM") or shutil.which("chromium") or shutil.which("google-chrome")
FLAGS = ["--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-background-networking"]
FLAGS += ["--disable-component-update", "--disable-sync"]

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(CHROMIUM is None, reason="no Chromium here (apt-get install chromium)"),
]


@pytest.fixture(scope="module")
def browser():
    playwright = pytest.importorskip("playwright.sync_api", reason="pip install playwright")
    with playwright.sync_playwright() as tools:
        yield tools.chromium.launch(executable_path=CHROMIUM, args=FLAGS)


@pytest.fixture
def address(studio, settings):
    with running(create_app(studio, settings, demo=True)) as address:
        yield address


@pytest.fixture(params=[(1280, 900), (390, 844)], ids=["desktop", "phone"])
def page(request, browser, address):
    width, height = request.param
    context = browser.new_context(viewport={"width": width, "height": height}, accept_downloads=True)
    page = context.new_page()
    page.set_default_timeout(30_000)
    page.troubles = []
    page.on("pageerror", lambda error: page.troubles.append(str(error)))
    page.on("console", lambda message: page.troubles.append(message.text) if message.type == "error" else None)
    page.on("request", lambda sent: None if _near(sent.url, address) else page.troubles.append(sent.url))
    yield page
    assert not page.troubles  # no error, nothing that the security policy forbids, no request to anywhere else
    context.close()


def _near(url: str, address: str) -> bool:
    return url.startswith((address, "data:", "blob:"))


def arrive(page, address: str, query: str = "") -> None:
    page.goto(address + query)
    page.wait_for_selector("#stage .piece")
    page.wait_for_selector("#dice")


def next_artwork(page, act) -> str:
    """Do something that makes an artwork; returns its permalink when its picture is on the wall."""
    piece = page.query_selector("#stage [data-link]")
    old = piece.get_attribute("data-link") if piece else ""
    act()
    page.wait_for_function(
        """old => { const piece = document.querySelector('#stage [data-link]'), image = piece?.querySelector('img');
                    return piece && piece.dataset.link !== old && image.complete && image.naturalWidth > 0; }""",
        arg=old,
    )
    return page.get_attribute("#stage [data-link]", "data-link")


def test_a_visitor_plays(page, address):
    arrive(page, address)
    assert "empty frame" in page.inner_text("#stage").lower()

    first = next_artwork(page, lambda: page.click("#dice"))
    assert page.inner_text("#stage .says").startswith("a picture of brightness")
    page.wait_for_function("link => location.search === link", arg=first)

    page.click("#medium label:has-text('sculpture')")
    second = next_artwork(page, lambda: page.click("#dice"))
    assert "style=sculpture" in second and "sculpture" in page.inner_text("#stage .facts")

    page.fill("#seed input, #seed textarea", "sea")
    third = next_artwork(page, lambda: page.click("#go"))
    assert third == "?seed=sea&style=sculpture"
    assert page.evaluate("document.documentElement.scrollWidth <= innerWidth")  # nothing sticks out

    assert " / " not in page.inner_text("#stage .says")
    page.click("#manner label:has-text('poetic')")
    page.click("#medium label:has-text('engraving')")
    next_artwork(page, lambda: page.click("#go"))
    assert " / in " in page.inner_text("#stage .says")

    page.wait_for_function("document.querySelectorAll('#gallery button').length === 4")
    page.click("#gallery li:nth-child(4) button")  # the oldest goes back on the wall
    page.wait_for_function("link => document.querySelector('#stage [data-link]').dataset.link === link", arg=first)

    page.reload()  # the shelf is still there
    page.wait_for_function("document.querySelectorAll('#gallery button').length >= 4")


def test_a_permalink_makes_its_artwork_again(page, address, studio):
    link = next_artwork(page, lambda: page.goto(f"{address}/?seed=lighthouse&style=engraving"))
    assert link == "?seed=lighthouse&style=engraving"
    (expected,) = studio.create(["lighthouse"], "engraving")
    assert page.inner_text("#stage .says") == expected.caption
    assert page.input_value("#seed input, #seed textarea") == "lighthouse"
    assert page.is_checked("#medium input[value='engraving']")


def test_picture_and_record_can_be_downloaded(page, address):
    arrive(page, address)
    next_artwork(page, lambda: page.click("#dice"))
    for label, begins in (("Picture", b"\x89PNG"), ("JSON", b"{")):
        with page.expect_download() as download:
            page.click(f"#stage .doings a:has-text('{label}')")
        data = download.value.path().read_bytes()
        assert data.startswith(begins)
    assert json.loads(data)["caption"] == page.inner_text("#stage .says")


def test_a_visitor_has_a_picture_described(page, address, tmp_path):
    draw_shape("painting", 3, 64).save(tmp_path / "mine.png")
    (tmp_path / "no picture.png").write_text("hello")
    arrive(page, address)
    page.click("button[role=tab]:has-text('Caption')")
    page.set_input_files("#upload input[type=file]", tmp_path / "mine.png")
    page.wait_for_selector("#described .says")
    assert page.inner_text("#described .says").startswith("a picture of brightness")
    page.click("#upload button[aria-label='Clear']")
    page.set_input_files("#upload input[type=file]", tmp_path / "no picture.png")
    page.wait_for_selector("#described .trouble")
    assert "no picture that can be read" in page.inner_text("#described")


def test_a_visitor_has_a_picture_judged(page, address, tmp_path):
    Image.new("RGB", (64, 64)).save(tmp_path / "dark.png")
    arrive(page, address)
    page.click("button[role=tab]:has-text('Hand or machine?')")
    page.set_input_files("#suspect input[type=file]", tmp_path / "dark.png")
    page.wait_for_selector("#detected .says")
    assert "A machine made this" in page.inner_text("#detected .says")
    assert "98%" in page.inner_text("#detected .facts")


def test_words_of_strangers_stay_words(page, address):
    evil = "%24%7Bdocument.title='owned'%7D%60<img src=x onerror=document.title='owned'>"
    next_artwork(page, lambda: page.goto(f"{address}/?seed={evil}&style=painting"))
    assert page.title() == "Atelier" and page.query_selector("#stage img[src='x']") is None
