"""The REST API: records as main() returns them, problems in words, and a service that bends under load."""

import asyncio
import base64
import io
import json
import threading
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace

import httpx
import numpy as np
import pytest
from fastapi import FastAPI
from fastapi.testclient import TestClient
from PIL import Image

from atelier.config import CAPTION_STYLES
from atelier.seeds import STYLES
from atelier.service import Settings, create_app
from tests.service.conftest import png, wait_until

# --- artworks


def test_a_wish_becomes_an_artwork_that_can_be_fetched(client, studio):
    answer = client.post("/v1/artworks", json={"seed": 7, "style": "engraving"})
    (record,) = answer.json()["artworks"]
    (expected,) = studio.create([7], "engraving")
    told = {key: value for key, value in expected.record().values.items() if key != "output"}
    assert answer.status_code == 201
    assert {**record, **told} == record  # all that main() says, and an id, a time and an address
    assert set(record) - set(told) == {"id", "created", "image_url"}
    picture = client.get(record["image_url"])
    assert picture.headers["content-type"] == "image/png" and picture.content == expected.png()
    assert client.get(f"/v1/artworks/{record['id']}").json() == record


@pytest.mark.parametrize(
    ("wish", "seeds"),
    [
        ({"seed": "sea", "count": 3}, ["sea", "sea 2", "sea 3"]),
        ({"seed": 2**70, "count": 2}, [2**70, 2**70 + 1]),
        ({"seed": 10**100 - 1}, [10**100 - 1]),
        ({"seed": " a\0b\u202e "}, [" a\0b\u202e "]),
    ],
)
def test_seeds_are_numbers_of_any_size_or_texts(client, wish, seeds):
    records = client.post("/v1/artworks", json=wish).json()["artworks"]
    assert [record["seed"] for record in records] == seeds
    assert [client.get(f"/v1/artworks/{record['id']}").json()["seed"] for record in records] == seeds


def test_no_wish_at_all_is_a_surprise(client):
    one, other = (client.post("/v1/artworks", json={}).json()["artworks"][0] for _ in range(2))
    assert one["seed"] != other["seed"] and one["style"] in STYLES and one["id"] != other["id"]


@pytest.mark.parametrize("manner", CAPTION_STYLES)
def test_a_caption_comes_in_the_style_that_was_asked_for(client, studio, manner):
    (record,) = client.post("/v1/artworks", json={"seed": 7, "caption_style": manner}).json()["artworks"]
    (expected,) = studio.create([7], caption_style=[manner])
    (plain,) = studio.create([7])
    assert record["caption"] == expected.caption
    assert (record["caption"] == plain.caption) == (manner == "plain")
    assert client.post("/v1/artworks", json={"caption_style": "loud"}).status_code == 422


def test_a_batch_keeps_each_requests_caption_style(open_client, gate, settings):
    client = open_client(gate, replace(settings, batch_window=60.0, max_batch=3, model_threads=1))

    def ask(manner):
        return client.post("/v1/artworks", json={"seed": 7, "caption_style": manner}).json()["artworks"][0]["caption"]

    with ThreadPoolExecutor() as threads:
        captions = list(threads.map(ask, CAPTION_STYLES))
    assert gate.batches[-1] == [7, 7, 7]  # they were one batch
    assert captions == [each.caption for each in gate.create([7] * 3, [None] * 3, caption_style=CAPTION_STYLES)]


def test_a_picture_can_come_with_the_record(client):
    wish = {"seed": 1, "image": "base64"}
    (record,) = client.post("/v1/artworks", json=wish).json()["artworks"]
    data = base64.b64decode(record["image_base64"])
    assert data == client.get(record["image_url"]).content
    with Image.open(io.BytesIO(data)) as image:
        assert image.size == (record["width"], record["height"])


def test_all_artworks_are_listed_page_by_page(client):
    ids = [client.post("/v1/artworks", json={}).json()["artworks"][0]["id"] for _ in range(5)]
    seen, before = [], None
    while True:
        page = client.get("/v1/artworks", params={"limit": 2} | ({"before": before} if before else {})).json()
        assert len(page["artworks"]) <= 2
        seen += [record["id"] for record in page["artworks"]]
        if (before := page["next"]) is None:
            break
    assert seen == ids[::-1]


def test_the_list_can_be_kept_to_oneself(open_client, studio, tmp_path):
    client = open_client(studio, Settings(data=tmp_path / "quiet", listing=False))
    (record,) = client.post("/v1/artworks", json={}).json()["artworks"]
    assert client.get("/v1/artworks").status_code == 405
    assert client.get(record["image_url"]).status_code == 200


def test_a_captioner_that_fails_costs_no_picture_and_tells_nothing_of_this_machine(open_client, painter, settings):
    from atelier.studio import Studio

    def refuse():
        raise OSError("/home/somebody/captioner is gone")

    client = open_client(Studio(painter, refuse), settings)
    answer = client.post("/v1/artworks", json={"seed": 1})
    (record,) = answer.json()["artworks"]
    assert record["caption"] is None and record["caption_error"] == "the captioner failed"
    assert client.get(record["image_url"]).status_code == 200 and "somebody" not in answer.text
    answer = client.post("/v1/captions", files={"picture": png()})
    assert answer.status_code == 503 and "somebody" not in answer.text


def test_what_a_newer_studio_says_is_passed_on(open_client, studio, settings, monkeypatch):
    from atelier.studio import Artwork, Record

    original = Artwork.record
    monkeypatch.setattr(Artwork, "record", lambda self: Record(original(self).values | {"alignment": 0.75}))
    client = open_client(studio, settings)
    assert client.post("/v1/artworks", json={}).json()["artworks"][0]["alignment"] == 0.75


# --- captions


@pytest.mark.parametrize("kind", ["PNG", "JPEG", "WEBP", "GIF", "BMP", "TIFF", "AVIF"])
def test_a_picture_is_described_whatever_its_name(client, kind):
    buffer = io.BytesIO()
    Image.new("RGB", (40, 30), (200, 200, 200)).save(buffer, kind)
    answer = client.post("/v1/captions", files={"picture": ("../../evil.exe", buffer.getvalue(), "text/plain")})
    assert answer.status_code == 200 and answer.json()["confidence"] == -0.5
    assert abs(float(answer.json()["caption"].split()[-1]) - 200) < 3


def test_a_large_picture_is_made_small_before_it_waits(client):
    buffer = io.BytesIO()
    Image.fromarray(np.zeros((1500, 3000, 3), np.uint8)).save(buffer, "PNG")
    assert client.post("/v1/captions", files={"picture": buffer.getvalue()}).status_code == 200


# --- detections


@pytest.mark.parametrize(("grey", "verdict"), [(0, "ai"), (255, "human"), (128, "uncertain")])
def test_a_picture_is_judged(client, grey, verdict):
    buffer = io.BytesIO()
    Image.new("L", (400, 30), grey).save(buffer, "PNG")
    answer = client.post("/v1/detections", files={"picture": ("../../evil.exe", buffer.getvalue(), "text/plain")})
    assert answer.status_code == 200 and answer.json()["verdict"] == verdict
    assert answer.json()["ai_probability"] == pytest.approx(1 / (1 + np.exp(8 * grey / 255 - 4)), abs=0.01)


def test_what_is_no_picture_is_not_judged(client):
    assert client.post("/v1/detections", files={"picture": b"words"}).status_code == 415


def test_without_a_detector_all_else_goes_on(open_client, studio, tmp_path):
    client = open_client(studio, Settings(data=tmp_path / "data", detector=tmp_path / "secret.h5"))
    answer = client.post("/v1/detections", files={"picture": png()})
    assert answer.status_code == 503 and "secret" not in answer.text
    assert client.post("/v1/captions", files={"picture": png()}).status_code == 200


# --- styles and what operators look at


def test_the_media_are_told(client):
    assert client.get("/v1/styles").json() == {"styles": list(STYLES)}


def test_it_is_alive_at_once_and_ready_when_the_models_are(studio, settings):
    let_in = threading.Event()

    def open_studio():
        assert let_in.wait(10)
        return studio

    with TestClient(create_app(open_studio, settings, demo=False)) as client:
        assert client.get("/healthz").status_code == 200
        waiting = client.get("/readyz")
        assert waiting.status_code == 503 and waiting.headers["retry-after"] == "1"
        let_in.set()
        wait_until(lambda: client.get("/readyz").status_code == 200)


def test_models_that_cannot_be_loaded_are_told_as_a_problem(settings, caplog):
    def fail():
        raise OSError("/secret/place has no weights")

    with TestClient(create_app(fail, settings, demo=False)) as client:
        wait_until(lambda: client.app.state.workshop.batcher.failure)
        for answer in (client.get("/readyz"), client.post("/v1/artworks", json={})):
            assert answer.status_code == 503 and "secret" not in answer.text
    assert "no weights" in caplog.text


def test_prometheus_finds_figures_by_route(client):
    client.post("/v1/artworks", json={"count": 3})
    client.post("/v1/artworks", json={"count": 0})
    client.get("/v1/artworks/" + "a" * 22)
    client.get("/somewhere/" + "b" * 50)
    text = client.get("/metrics").text
    assert 'atelier_requests_total{method="POST",route="/v1/artworks",status="201"} 1.0' in text
    assert 'atelier_requests_total{method="POST",route="/v1/artworks",status="422"} 1.0' in text
    assert 'atelier_requests_total{method="GET",route="/v1/artworks/{id}",status="404"} 1.0' in text
    assert 'atelier_pictures_total{kind="artworks"} 3.0' in text
    assert "atelier_artworks 3.0" in text and "atelier_ready 1.0" in text and "bbbb" not in text


def test_every_answer_makes_browsers_careful(client):
    for path in ("/healthz", "/v1/styles", "/nowhere", "/openapi.json"):
        headers = client.get(path).headers
        assert headers["x-content-type-options"] == "nosniff"
        assert headers["content-security-policy"] == "default-src 'none'; frame-ancestors 'none'"


def test_no_other_site_may_read_answers(client):
    asked = {"Origin": "https://elsewhere.example", "Access-Control-Request-Method": "POST"}
    for answer in (client.get("/v1/styles", headers=asked), client.options("/v1/artworks", headers=asked)):
        assert not [name for name in answer.headers if name.startswith("access-control")]


# --- an API key


def test_a_key_opens_what_it_guards(open_client, studio, tmp_path, tiny_detector):
    client = open_client(studio, Settings(data=tmp_path / "data", api_key="open sesame", detector=tiny_detector))
    guarded = [("POST", "/v1/artworks"), ("GET", "/v1/artworks"), ("POST", "/v1/captions"), ("GET", "/v1/styles")]
    guarded += [("POST", "/v1/detections")]
    for method, path in [*guarded, ("GET", "/metrics")]:
        content = {"json": {}} if path == "/v1/artworks" and method == "POST" else {}
        content |= {"files": {"picture": png()}} if path in ("/v1/captions", "/v1/detections") else {}
        for wrong in (None, "", "open sesam", "OPEN SESAME", "open sesame!"):
            answer = client.request(method, path, headers={} if wrong is None else {"X-API-Key": wrong}, **content)
            assert answer.status_code == 401, path
            assert answer.headers["content-type"] == "application/problem+json"
        answer = client.request(method, path, headers={"X-API-Key": "open sesame"}, **content)
        assert answer.status_code in (200, 201), path
    (record,) = client.get("/v1/artworks", headers={"X-API-Key": "open sesame"}).json()["artworks"]
    assert client.get(record["image_url"]).status_code == 200  # who has the id was given it
    assert client.get("/readyz").status_code == 200


# --- load


def test_requests_that_come_together_are_painted_together(open_client, gate, settings):
    client = open_client(gate, settings)
    gate.batches.clear()
    gate.open.clear()
    threads = [
        threading.Thread(target=client.post, args=("/v1/artworks",), kwargs={"json": {"seed": n}}) for n in range(9)
    ]
    for thread in threads:
        thread.start()
    wait_until(lambda: sum(map(len, gate.batches)) + client.app.state.workshop.batcher.waiting == 9)
    gate.open.set()
    for thread in threads:
        thread.join(10)
    assert len(gate.batches) <= 3 and sorted(seed for batch in gate.batches for seed in batch) == list(range(9))


def test_uploads_and_artworks_share_a_batch(open_client, studio, settings):
    # A batch of fewer than two would wait longer for others than requests wait for an answer.
    client = open_client(studio, replace(settings, batch_window=60.0, max_batch=2, model_threads=1, work_seconds=20))
    with ThreadPoolExecutor() as threads:
        made = threads.submit(client.post, "/v1/artworks", json={"seed": 7, "style": "engraving"})
        said = threads.submit(client.post, "/v1/captions", files={"picture": ("a.png", png())})
    (expected,) = studio.create([7], "engraving")
    (record,) = made.result().json()["artworks"]
    assert record["caption"] == expected.caption != said.result().json()["caption"]
    assert said.result().json()["caption"].startswith("a picture of brightness")
    text = client.get("/metrics").text
    for line in ('pictures_total{kind="artworks"} 1.0', 'pictures_total{kind="captions"} 1.0'):
        assert f"atelier_{line}" in text
    assert 'atelier_batch_pictures_count{kind="captioned"} 1.0' in text


def test_a_full_queue_is_503_and_when_to_come_again(open_client, gate, tmp_path):
    client = open_client(gate, Settings(data=tmp_path / "data", max_waiting=4, work_seconds=20, model_threads=1))
    gate.open.clear()
    workshop = client.app.state.workshop
    answers = []
    threads = [
        threading.Thread(target=lambda: answers.append(client.post("/v1/artworks", json={"count": 2})))
        for _ in range(3)
    ]
    threads[0].start()
    gate.batches.clear()
    wait_until(lambda: gate.batches)
    for thread in threads[1:]:
        thread.start()
    wait_until(lambda: workshop.batcher.waiting == 4)
    refused = client.post("/v1/artworks", json={})
    assert refused.status_code == 503 and int(refused.headers["retry-after"]) >= 1
    assert refused.headers["content-type"] == "application/problem+json"
    gate.open.set()
    for thread in threads:
        thread.join(10)
    assert [answer.status_code for answer in answers] == [201] * 3


def test_models_that_are_too_slow_are_503_and_the_job_is_dropped(open_client, gate, tmp_path):
    client = open_client(gate, Settings(data=tmp_path / "data", work_seconds=0.2, model_threads=1))
    gate.batches.clear()
    gate.open.clear()
    assert client.post("/v1/artworks", json={"seed": 1}).status_code == 503
    assert client.post("/v1/artworks", json={"seed": 2}).status_code == 503
    gate.open.set()
    wait_until(lambda: client.post("/v1/artworks", json={"seed": 3}).status_code == 201)
    assert [2] not in gate.batches  # 1 had begun, 2 had not


def test_a_client_that_leaves_takes_its_job_along(serve, gate, settings):
    app = create_app(gate, replace(settings, model_threads=1), demo=False)
    address = serve(app)
    workshop = app.state.workshop
    gate.batches.clear()
    gate.open.clear()

    async def impatient():
        async with httpx.AsyncClient(base_url=address) as client:
            first = asyncio.ensure_future(client.post("/v1/artworks", json={"seed": "stays"}))
            while not gate.batches:
                await asyncio.sleep(0.01)
            with pytest.raises(httpx.ReadTimeout):
                await client.post("/v1/artworks", json={"seed": "leaves"}, timeout=0.3)
            while workshop.batcher.waiting:
                await asyncio.sleep(0.01)
                workshop.batcher._forget_cancelled()
            gate.open.set()
            return await first

    answer = asyncio.run(asyncio.wait_for(impatient(), 20))
    assert answer.status_code == 201 and gate.batches == [["stays"]]
    assert 'status="499"' in httpx.get(f"{address}/metrics").text


# --- in other people's applications


def test_it_runs_mounted_in_another_application(studio, settings):
    outer = FastAPI()
    inner = create_app(studio, settings, demo=False)
    outer.mount("/art", inner)
    with TestClient(outer) as client:  # which tells a mounted application nothing of starting
        (record,) = client.post("/art/v1/artworks", json={"seed": 7}).json()["artworks"]
        assert record["image_url"].startswith("/art/v1/artworks/")
        assert client.get(record["image_url"]).status_code == 200
        assert client.get("/art/readyz").status_code == 200
        assert client.post("/art/v1/artworks", content=b" " * 70_000).status_code == 413
    inner.state.workshop.close()


def test_two_applications_in_one_process_do_not_mix(open_client, studio, tmp_path):
    one, other = (open_client(studio, Settings(data=tmp_path / name)) for name in ("one", "other"))
    (record,) = one.post("/v1/artworks", json={}).json()["artworks"]
    assert other.get(record["image_url"]).status_code == 404
    assert "atelier_artworks 1.0" in one.get("/metrics").text and "atelier_artworks 0.0" in other.get("/metrics").text


def test_the_document_has_examples_that_the_service_takes(client):
    document = client.get("/openapi.json").json()
    for wish in document["components"]["schemas"]["Wish"]["examples"]:
        assert client.post("/v1/artworks", json=wish).status_code == 201
    assert "Problem" in document["components"]["schemas"]
    assert "HTTPValidationError" not in json.dumps(document)


def test_a_whole_number_written_as_7_0_is_one(client):
    """As JSON Schema has it; a client in a language without integers writes it so."""
    answer = client.post("/v1/artworks", json={"seed": 7.0, "count": 2.0})
    assert answer.status_code == 201
    assert [record["seed"] for record in answer.json()["artworks"]] == [7, 8]
    assert client.post("/v1/artworks", json={"seed": 7.5}).status_code == 422
