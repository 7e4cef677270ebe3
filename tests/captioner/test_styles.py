import json
import threading
from http.server import BaseHTTPRequestHandler, HTTPServer

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from atelier.captioner.styles import LanguageModel, colour_name, palette, split_caption, styled, tone
from atelier.config import CAPTION_STYLES

BROWN = np.full((8, 8, 3), (90, 60, 30), np.uint8)


def test_what_the_styles_say():
    caption = "an engraving of a ruined tower beside a river"
    assert styled(caption, "plain", BROWN) == caption
    assert styled(caption, "poetic", BROWN) == "a ruined tower beside a river / in brown, in deep shade / an engraving"
    assert styled(caption, "catalogue", BROWN) == "Engraving. A ruined tower beside a river. Brown; dark in tone."
    assert styled(caption, "catalogue", BROWN, "painting").startswith("Painting. A ruined")
    assert styled("a tower of stone", "poetic", BROWN) == "a tower of stone / in brown, in deep shade"


@pytest.mark.parametrize(
    ("caption", "parts"),
    [
        ("an oil painting of a bunch of flowers", ("an oil painting", "a bunch of flowers")),
        ("a group of men", ("", "a group of men")),
        ("a marble bust", ("", "a marble bust")),
    ],
)
def test_the_medium_is_split_off(caption, parts):
    assert split_caption(caption) == parts


@pytest.mark.parametrize(
    ("colour", "name"),
    [
        ((0, 0, 0), "black"),
        ((255, 255, 255), "white"),
        ((128, 128, 128), "grey"),
        ((220, 20, 20), "red"),
        ((240, 140, 20), "orange"),
        ((230, 220, 30), "yellow"),
        ((30, 140, 50), "green"),
        ((20, 150, 150), "teal"),
        ((40, 60, 200), "blue"),
        ((120, 40, 180), "violet"),
        ((240, 225, 190), "cream"),
        ((110, 70, 40), "brown"),
        ((250, 170, 190), "pink"),
    ],
)
def test_colours_have_their_plain_names(colour, name):
    assert colour_name(*colour) == name


def test_the_palette_is_what_covers_most():
    image = np.zeros((20, 20, 3), np.uint8)
    image[:7] = (30, 140, 50)
    image[19, :2] = (220, 20, 20)
    assert palette(image) == ["black", "green"]
    assert [tone(np.full((4, 4, 3), level, np.uint8)) for level in (20, 120, 230)] == ["dark", "even", "light"]


@given(st.binary(min_size=48, max_size=48), st.sampled_from(CAPTION_STYLES))
def test_nothing_is_invented(pixels, style):
    image = np.frombuffer(pixels, np.uint8).reshape(4, 4, 3)
    said = styled("an icon of a saint", style, image)
    known = {"an", "icon", "of", "a", "saint", "in", "and", "deep", "shade", "even", "light", "pale", "dark", "tone"}
    known |= set(palette(image))
    assert set(said.lower().replace(".", "").replace(";", "").replace(",", "").replace("/", "").split()) <= known


class Model(BaseHTTPRequestHandler):
    """Answers as a chat model does, or as the path says it fails."""

    def do_POST(self):
        question = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        words = f"so\nspoke {question['model']}: {question['messages'][1]['content']}"
        if self.path.startswith("/long"):
            words = "x" * 5000
        body = json.dumps({"choices": [{"message": {"content": words}}]}).encode()
        if self.path.startswith("/no-http"):
            self.wfile.write(b"HTTP/9 what?\r\n\r\n")
            return
        self.send_response({"/broken": 500, "/moved": 302}.get(self.path.removesuffix("/chat/completions"), 200))
        self.send_header("Location", "/elsewhere")
        self.end_headers()
        bad = {"/garbage": b"{", "/endless": b"[" * 100_000}
        self.wfile.write(bad.get(self.path.removesuffix("/chat/completions"), body))

    def do_GET(self):  # where "/moved" points
        self.send_response(200)
        self.end_headers()
        self.wfile.write(json.dumps({"choices": [{"message": {"content": "from elsewhere"}}]}).encode())

    def log_message(self, *_):
        pass


@pytest.fixture(scope="module")
def address():
    server = HTTPServer(("127.0.0.1", 0), Model)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_port}"
    server.shutdown()


def test_a_language_model_styles(address):
    assert LanguageModel(f"{address}/v1/", "bard").styled("a barn", "poetic") == "so spoke bard: a barn"


@pytest.mark.parametrize("path", ["/broken", "/garbage", "/long", "/endless", "/no-http", "/moved"])
def test_a_language_model_that_fails_leaves_the_caption(address, path):
    assert LanguageModel(address + path).styled("a barn", "poetic") == "a barn"
    assert LanguageModel("http://127.0.0.1:9", timeout=0.5).styled("a barn", "poetic") == "a barn"
