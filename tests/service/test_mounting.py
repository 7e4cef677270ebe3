"""What the documentation says of other people's applications, run as it stands there."""

import functools
import re

import pytest
from fastapi.testclient import TestClient

import atelier.service
from tests.conftest import REPOSITORY
from tests.service.conftest import wait_until


def snippet(file: str, word: str) -> str:
    """The one block of Python in a text that has this word in it."""
    blocks = re.findall(r"```python\n(.*?)```", (REPOSITORY / file).read_text(encoding="utf-8"), re.S)
    (found,) = (block for block in blocks if word in block)
    return found


@pytest.fixture
def run(monkeypatch, studio, settings):
    """Runs a snippet with the tests' small models behind `create_app`; its names."""
    made, create = [], atelier.service.create_app

    @functools.wraps(create)
    def create_app(demo):
        made.append(create(studio, settings, demo))
        return made[-1]

    monkeypatch.setattr("atelier.service.create_app", create_app)

    def run(code: str) -> dict:
        names = {"__name__": "other"}
        exec(code, names)
        return names

    yield run
    for app in made:
        app.state.workshop.close()


def check(client) -> None:
    """The service answers below /art, addresses of pictures included; `client` is an HTTP client of either kind."""
    wait_until(lambda: client.get("/art/readyz").status_code == 200)
    answer = client.post("/art/v1/artworks", json={"seed": 7})
    (record,) = (answer.json() if callable(answer.json) else answer.json)["artworks"]
    assert record["image_url"].startswith("/art/v1/artworks/")
    assert client.get(record["image_url"]).status_code == 200
    assert client.post("/art/v1/artworks", json={"seed": -7}).status_code == 422


@pytest.mark.parametrize("file", ["README.md", "docs/service.md"])
def test_in_fastapi(run, file):
    names = run(snippet(file, "FastAPI("))
    with TestClient(names["app"]) as client:
        wait_until(lambda: names["art"].state.workshop.batcher.ready)  # nobody asked for it yet
        check(client)
    assert not names["art"].state.workshop.batcher.ready  # closed with the application around it


def test_in_django(run):
    pytest.importorskip("django", reason="pip install django")
    from django.conf import settings
    from django.http import HttpResponse
    from django.urls import path

    hello = path("hello/", lambda request: HttpResponse("hello"))
    settings.configure(ROOT_URLCONF=(hello,), ALLOWED_HOSTS=["*"])
    with TestClient(run(snippet("docs/service.md", "django"))["application"]) as client:
        check(client)
        assert client.get("/hello/").text == "hello"


def test_in_flask(run):
    pytest.importorskip("flask", reason="pip install flask")
    pytest.importorskip("a2wsgi", reason="pip install a2wsgi")
    app = run(snippet("docs/service.md", "flask"))["app"]
    app.add_url_rule("/hello", view_func=lambda: "hello")
    check(app.test_client())
    assert app.test_client().get("/hello").text == "hello"
