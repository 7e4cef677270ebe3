"""The web demo: Gradio at `/` of the same application, asking the same workshop as the API does."""

from __future__ import annotations

import os
import re
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

from fastapi import FastAPI
from starlette.exceptions import HTTPException
from starlette.routing import Match, Mount

from atelier.config import CAPTION_STYLES
from atelier.seeds import STYLES, check_seed, fresh_seed
from atelier.service import pages
from atelier.service.store import ID_PATTERN
from atelier.service.uploads import NotAPicture, TooManyPixels
from atelier.service.workshop import Workshop

os.environ["GRADIO_ANALYTICS_ENABLED"] = "False"  # before Gradio is imported: it would report to its makers
import gradio as gr

SURPRISE = "surprise me"
KEPT = 24
"""Artworks on a visitor's shelf."""
LONGEST_SEED = 200

INVITATION = "An empty frame. Roll the dice, or type a word of your own and press “Make it”."
CAPTION_INVITATION = "Your picture will hang here, with a sentence about it."
DETECTION_INVITATION = "Your picture will hang here, with a guess whether a machine made it or a hand."
WORKING = "The paint is still wet …"
BUSY = "Many visitors are at work just now. Please try again in a few seconds."
FAILED = "Something went wrong in the workshop. Please try again."

# Static code: no word of a visitor's is ever a part of it.
_SHELF_CLICKS = """
element.addEventListener('click', event => {
  const button = event.target.closest('button[data-id]');
  if (button) trigger('click', {id: button.dataset.id});
});
"""
# The address bar shows the permalink of what is on the wall.
_SHOW_LINK = """() => {
  const piece = document.querySelector('#stage [data-link]');
  if (piece) history.replaceState(null, '', piece.dataset.link);
}"""
_LOOK_UP = "() => document.querySelector('#stage')?.scrollIntoView({behavior: 'smooth', block: 'center'})"


def page_policy(frame_ancestors: str) -> str:
    """The Content-Security-Policy of the page.

    Gradio starts from inline scripts and compiles its HTML components in the browser, hence the two `unsafe-`;
    in exchange nothing at all is loaded from, or sent to, another server.
    """
    return (
        "default-src 'self'; script-src 'self' 'unsafe-inline' 'unsafe-eval'; style-src 'self' 'unsafe-inline'; "
        "img-src 'self' data: blob:; font-src 'self' data:; connect-src 'self'; worker-src 'self' blob:; "
        f"object-src 'none'; base-uri 'self'; form-action 'self'; frame-ancestors {frame_ancestors}"
    )


def seed_from_text(text: str | None) -> int | str:
    """What a visitor typed as a seed: digits are a number, other text is itself, nothing is a fresh one.

    Raises:
        ValueError: it is too long.
    """
    text = (text or "").strip()
    if len(text) > LONGEST_SEED:
        raise ValueError(f"A seed has at most {LONGEST_SEED} characters.")
    if not text:
        return fresh_seed()
    return check_seed(int(text) if text.isascii() and text.isdigit() else text)


def build_demo(workshop: Workshop) -> gr.Blocks:
    """The page, not mounted anywhere yet."""
    store = workshop.store

    def shelf(ids: Any) -> list[dict[str, Any]]:
        """The records of ids that a browser kept; what is no id of ours, or has expired, is left out."""
        ids = ids if isinstance(ids, list) else []
        known = [each for each in ids[:KEPT] if isinstance(each, str) and re.fullmatch(ID_PATTERN, each)]
        return [record for record in map(store.record, known) if record]

    async def make(seed_text: str, medium: str, manner: str, ids: list[str]) -> AsyncIterator[tuple]:
        yield pages.notice_html(WORKING, "working"), gr.skip(), gr.skip(), gr.skip()
        try:
            style = medium if medium in STYLES else None
            (record,) = await workshop.make([seed_from_text(seed_text)], style, manner)
        except ValueError as error:
            yield pages.notice_html(str(error), "trouble"), gr.skip(), gr.skip(), gr.skip()
        except HTTPException:
            yield pages.notice_html(BUSY, "trouble"), gr.skip(), gr.skip(), gr.skip()
        except Exception:
            yield pages.notice_html(FAILED, "trouble"), gr.skip(), gr.skip(), gr.skip()
            raise
        else:
            records = [record, *(each for each in shelf(ids) if each["id"] != record["id"])][:KEPT]
            kept = [each["id"] for each in records]
            yield pages.artwork_html(record), pages.shelf_html(records), kept, str(record["seed"])

    async def roll(medium: str, manner: str, ids: list[str]) -> AsyncIterator[tuple]:
        async for step in make("", medium, manner, ids):
            yield step

    async def arrive(manner: str, ids: list[str], request: gr.Request) -> AsyncIterator[tuple]:
        """A visitor comes: with a permalink its artwork is made, else the last one hangs on the wall again."""
        records = shelf(ids)
        seed, style = request.query_params.get("seed", ""), request.query_params.get("style", "")
        medium = style if style in STYLES else SURPRISE
        if seed.strip():
            async for stage, shelved, kept, told in make(seed, style, manner, ids):
                shelved = pages.shelf_html(records) if isinstance(shelved, dict) else shelved
                yield stage, shelved, kept, seed[:LONGEST_SEED] if isinstance(told, dict) else told, medium
        else:
            stage = pages.artwork_html(records[0]) if records else pages.notice_html(INVITATION)
            yield stage, pages.shelf_html(records), gr.skip(), gr.skip(), medium

    def choose(ids: list[str], event: gr.EventData) -> tuple:
        """A picture of the shelf goes back on the wall."""
        chosen = [record for record in shelf(ids) if record["id"] == getattr(event, "id", None)]
        if not chosen:
            return pages.notice_html("This artwork is no longer kept.", "trouble"), gr.skip()
        return pages.artwork_html(chosen[0]), str(chosen[0]["seed"])

    async def looked_at(data: bytes | None, invitation: str, ask: Callable, show: Callable) -> AsyncIterator[str]:
        """Steps of the page while a visitor's picture is looked at: `ask(data)`, then `show(picture, record)`."""
        if not data:
            yield pages.notice_html(invitation)
            return
        yield pages.notice_html("Looking at it …", "working")
        try:
            picture, told = await ask(data)
        except NotAPicture:
            text = "This file is no picture that can be read. JPEG, PNG, WebP, GIF, BMP, TIFF and AVIF can."
            yield pages.notice_html(text, "trouble")
        except TooManyPixels:
            yield pages.notice_html("This picture is too large. Please make it smaller.", "trouble")
        except HTTPException:
            yield pages.notice_html(BUSY, "trouble")
        except Exception:
            yield pages.notice_html(FAILED, "trouble")
            raise
        else:
            yield show(picture, told)

    async def describe(data: bytes | None) -> AsyncIterator[str]:
        def show(picture, told):
            return pages.captioned_html(picture, told["caption"])

        async for step in looked_at(data, CAPTION_INVITATION, workshop.describe, show):
            yield step

    async def detect(data: bytes | None) -> AsyncIterator[str]:
        async for step in looked_at(data, DETECTION_INVITATION, workshop.detect, pages.detected_html):
            yield step

    # The files that visitors upload for these tabs are the only ones Gradio keeps, for an hour at most.
    with gr.Blocks(title="Atelier", analytics_enabled=False, delete_cache=(300, 3300)) as demo:
        mine = gr.BrowserState([], storage_key="atelier-shelf", secret="not secret: ids only")
        gr.HTML(
            '<div class="masthead"><h1>Atelier</h1><p>One seed in, one artwork out: a picture in a chosen medium, '
            "and the sentence that describes it.</p></div>"
        )
        # Short names: on a phone Gradio hides tabs that do not fit behind a button.
        with gr.Tab("Make art"):
            with gr.Row(equal_height=False, elem_classes="studio"):
                with gr.Column(scale=2, min_width=280, elem_classes="controls"):
                    medium = gr.Radio([SURPRISE, *STYLES], value=SURPRISE, label="Medium", elem_id="medium")
                    manner = gr.Radio(CAPTION_STYLES, value=CAPTION_STYLES[0], label="Caption", elem_id="manner")
                    seed = gr.Textbox(
                        label="Seed",
                        info="Any number or words. The same seed makes the same picture again.",
                        placeholder="sea, 42, your name …",
                        max_length=LONGEST_SEED,
                        max_lines=1,
                        elem_id="seed",
                    )
                    with gr.Row(elem_classes="buttons"):
                        dice = gr.Button("Roll the dice", variant="primary", elem_id="dice")
                        go = gr.Button("Make it", elem_id="go")
                with gr.Column(scale=3, min_width=300):
                    stage = gr.HTML(pages.notice_html(INVITATION), elem_id="stage")
            gallery = gr.HTML("", elem_id="gallery", js_on_load=_SHELF_CLICKS)
        with gr.Tab("Caption"), gr.Row(equal_height=False):
            with gr.Column(scale=2, min_width=280):
                upload = gr.File(label="Your picture", type="binary", file_types=["image"], elem_id="upload")
                gr.HTML('<p class="colophon">It is looked at and described; within the hour it is forgotten.</p>')
            with gr.Column(scale=3, min_width=300):
                described = gr.HTML(pages.notice_html(CAPTION_INVITATION), elem_id="described")
        with gr.Tab("Hand or machine?"), gr.Row(equal_height=False):
            with gr.Column(scale=2, min_width=280):
                suspect = gr.File(label="Your picture", type="binary", file_types=["image"], elem_id="suspect")
                gr.HTML(
                    '<p class="colophon">A guess, not a proof: it errs with about one picture in seven. '
                    "Atelier's own small pictures are like nothing it has learnt, and mostly pass for handmade. "
                    "Within the hour your picture is forgotten.</p>"
                )
            with gr.Column(scale=3, min_width=300):
                detected = gr.HTML(pages.notice_html(DETECTION_INVITATION), elem_id="detected")
        gr.HTML(
            '<p class="colophon">Pictures and words come from two small neural networks. Programs are welcome, too: '
            '<a href="openapi.json">the REST API</a>.</p>'
        )

        # The workshop gathers visitors into batches itself, so Gradio should not line them up; and the page waits
        # with its own words, so Gradio should not cover it.
        common = {"concurrency_limit": 64, "show_progress": "hidden", "api_visibility": "private"}
        outputs = [stage, gallery, mine, seed]
        rolled = dice.click(roll, [medium, manner, mine], outputs, **common)
        made = gr.on([go.click, seed.submit], make, [seed, medium, manner, mine], outputs, **common)
        chosen = gallery.click(choose, mine, [stage, seed], **common)
        arrived = demo.load(arrive, [manner, mine], [*outputs, medium], **common)
        for event in (rolled, made, chosen, arrived):
            event.then(None, js=_SHOW_LINK, api_visibility="private")
        chosen.then(None, js=_LOOK_UP, api_visibility="private")
        upload.change(describe, upload, described, **common)
        suspect.change(detect, suspect, detected, **common)
    demo.queue(max_size=256)
    return demo


class _Pages(Mount):
    """The demo, at every path that is none of the API's: a mount at `/` would else take a POST to /healthz as well."""

    def __init__(self, app, api: list):
        super().__init__("/", app, name="demo")
        self._api = api

    def matches(self, scope):
        path = scope["path"].removeprefix(scope.get("root_path", ""))
        # Gradio would serve files by their path on disk, and other servers' pages as its own; this page needs neither.
        barred = path.startswith(("/v1/", "/gradio_api/file", "/gradio_api/proxy", "/proxy=", "/file"))
        if barred or any(route.matches(scope)[0] != Match.NONE for route in self._api):
            return Match.NONE, {}
        return super().matches(scope)


def mount_demo(app: FastAPI, workshop: Workshop) -> None:
    """Put the demo at `/` of the API's application."""
    api = list(app.router.routes)
    gr.mount_gradio_app(
        app,
        build_demo(workshop),
        path="/",
        footer_links=[],
        run_history=False,
        show_error=False,
        max_file_size=workshop.settings.max_body_bytes,
        ssr_mode=False,
        enable_monitoring=False,
        pwa=False,
        css=(Path(__file__).parent / "demo.css").read_text(encoding="utf-8"),
        theme=gr.themes.Base(
            primary_hue="stone",
            neutral_hue="stone",
            font=["system-ui", "sans-serif"],
            font_mono=["ui-monospace", "monospace"],
        ),
    )
    gradio_app = app.router.routes.pop().app
    app.router.routes.append(_Pages(gradio_app, api))
