"""Takes the pictures of the web page in docs/service: `python benchmarks/screenshots.py`, with Chromium on the machine.

The shipped models, chosen seeds and a picture of outputs/samples, so that whoever runs it gets the same pages.
"""

from __future__ import annotations

import argparse
import io
import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from PIL import Image
from playwright.sync_api import Browser, Page, sync_playwright
from service import ROOT, service

SHELF = ("?seed=4&style=sculpture", "?seed=11&style=drawings", "?seed=2&style=iconography", "?seed=5&style=painting")
WALL = "?seed=7&style=engraving"
UPLOAD = ROOT / "outputs" / "samples" / "painting-0.png"


@contextmanager
def page_of(browser: Browser, width: int, height: int, **options) -> Iterator[Page]:
    context = browser.new_context(viewport={"width": width, "height": height}, **options)
    page = context.new_page()
    page.set_default_timeout(120_000)
    yield page
    context.close()


def hang(page: Page, address: str, link: str) -> None:
    """Open a permalink and wait until its artwork is on the wall."""
    page.goto(address + "/" + link)
    page.wait_for_selector(f'#stage [data-link="{link}"] img')
    page.wait_for_function("[...document.images].every(image => image.complete && image.naturalWidth)")


def judge(page: Page, tab: str, field: str, answer: str) -> None:
    """Upload a picture in one of the other tabs and wait for what is said of it."""
    page.click(f"button[role=tab]:has-text('{tab}')")
    page.set_input_files(f"#{field} input[type=file]", UPLOAD)
    page.wait_for_selector(f"#{answer} .says")
    page.mouse.move(0, 0)


def shoot(page: Page, path: Path, **options) -> None:
    picture = Image.open(io.BytesIO(page.screenshot(**options))).convert("RGB")
    picture.quantize(256, Image.Quantize.MEDIANCUT).save(path, optimize=True)  # a third of the bytes


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, default=ROOT / "docs" / "service", help="default docs/service")
    out = parser.parse_args().out
    chromium = os.environ.get("CHROMIUM") or shutil.which("chromium") or shutil.which("google-chrome")
    flags = ["--no-sandbox", "--disable-gpu"]
    with (
        tempfile.TemporaryDirectory() as folder,
        service(Path(folder), demo=True) as (_, address),
        sync_playwright() as tools,
    ):
        browser = tools.chromium.launch(executable_path=chromium, args=flags)
        with page_of(browser, 1100, 900) as page:
            for link in (*SHELF, WALL):
                hang(page, address, link)
            shoot(page, out / "desktop.png", full_page=True)
            judge(page, "Caption", "upload", "described")
            shoot(page, out / "caption.png")
            judge(page, "Hand or machine?", "suspect", "detected")
            shoot(page, out / "detector.png")
        with page_of(browser, 390, 844, device_scale_factor=1.5, has_touch=True) as page:
            hang(page, address, SHELF[-1])
            shoot(page, out / "phone.png")
            judge(page, "Hand or machine?", "suspect", "detected")
            shoot(page, out / "phone-detector.png", full_page=True)
        with page_of(browser, 1100, 900, color_scheme="dark") as page:
            hang(page, address, SHELF[2])
            shoot(page, out / "dark.png")
        browser.close()


if __name__ == "__main__":
    main()
