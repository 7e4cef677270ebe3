"""`python -m atelier serve` as a process: it keeps its promises when it is asked to stop, and when it is not asked."""

import base64
import os
import re
import signal
import subprocess
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor

import httpx
import pytest

from atelier.service import Settings
from tests.conftest import REPOSITORY
from tests.service.conftest import wait_until


@pytest.fixture
def start(project, tmp_path):
    """Starts the service with tiny weights: (process, its address), ready."""
    processes = []

    def run(*arguments, **environment):
        command = [sys.executable, "-m", "atelier", "serve", "--port", "0", "--data", str(tmp_path / "art")]
        process = subprocess.Popen(
            [*command, *arguments], cwd=project, env=os.environ | environment, stderr=subprocess.PIPE, text=True
        )
        processes.append(process)
        for line in process.stderr:
            if found := re.search(r"listens on (http://\S+)", line):
                break
        else:
            pytest.fail(f"it ended with {process.wait()}")
        process.said = []  # read on, or the pipe fills up and the service stands still
        threading.Thread(target=lambda: process.said.extend(process.stderr), daemon=True).start()
        wait_until(lambda: httpx.get(f"{found[1]}/readyz").status_code == 200, 60)
        return process, found[1]

    yield run
    for process in processes:
        process.kill()
        process.wait()


WATCHED = """
import os, sys
from pathlib import Path
from atelier.service import server
def watch(*_):
    print(os.environ["TF_NUM_INTRAOP_THREADS"], "tensorflow" in sys.modules)
    raise SystemExit
server.Studio.open = watch
server.serve(Path("config.yaml"))
"""


@pytest.mark.parametrize(("asked", "expected"), [(None, "1"), ("3", "3")])
def test_every_thread_of_the_models_computes_by_itself_unless_it_is_told_otherwise(project, asked, expected):
    environment = {name: value for name, value in os.environ.items() if name != "TF_NUM_INTRAOP_THREADS"}
    environment |= {"PYTHONPATH": str(REPOSITORY), **({"TF_NUM_INTRAOP_THREADS": asked} if asked else {})}
    done = subprocess.run(
        [sys.executable, "-c", WATCHED], cwd=project, env=environment, capture_output=True, text=True, check=True
    )
    assert done.stdout.split() == [expected, "False"]  # TensorFlow reads it when it is imported, which is later


def test_after_kill_9_every_artwork_that_was_acknowledged_is_served_byte_for_byte(start, tmp_path):
    process, address = start("--no-demo")
    acknowledged = {}

    def ask(_):
        with httpx.Client(base_url=address, timeout=20) as client:
            while True:
                try:
                    answer = client.post("/v1/artworks", json={"image": "base64"})
                except httpx.TransportError:
                    return
                for record in answer.json()["artworks"]:
                    acknowledged[record["id"]] = base64.b64decode(record["image_base64"])

    with ThreadPoolExecutor(8) as threads:
        asking = threads.map(ask, range(8))
        wait_until(lambda: len(acknowledged) >= 40)
        process.kill()
        list(asking)
    (tmp_path / "art" / "pictures" / ("z" * 22 + ".png")).write_bytes(b"begun, and never told of")
    _, address = start("--no-demo")
    with httpx.Client(base_url=address) as client:
        for identity, data in acknowledged.items():
            assert client.get(f"/v1/artworks/{identity}.png").content == data
            assert client.get(f"/v1/artworks/{identity}").status_code == 200
    assert not (tmp_path / "art" / "pictures" / ("z" * 22 + ".png")).exists()


def test_asked_to_stop_it_finishes_what_it_accepted(start):
    process, address = start("--no-demo")
    with ThreadPoolExecutor(12) as threads:
        answers = [
            threads.submit(httpx.post, f"{address}/v1/artworks", json={"count": 16}, timeout=30) for _ in range(12)
        ]
        with httpx.Client(base_url=address) as client:  # all twelve are in, and not yet answered
            wait_until(lambda: _accepted(client) >= 3)
        process.send_signal(signal.SIGTERM)
        results = []
        for answer in answers:
            try:
                results.append(answer.result(30).status_code)
            except httpx.ConnectError:  # it came after the door was closed
                results.append("closed")
    assert process.wait(30) in (0, -signal.SIGTERM)
    assert results.count(201) >= 3 and set(results) <= {201, "closed"}
    assert "Traceback" not in "".join(process.said)


def _accepted(client) -> float:
    found = re.search(r"^atelier_waiting_pictures (\S+)", client.get("/metrics").text, re.M)
    return float(found[1]) / 16 + 1 if float(found[1]) else 0


def test_an_open_page_does_not_hold_it_up(start):
    process, address = start()
    assert "gradio" in httpx.get(address).text
    with httpx.stream("GET", f"{address}/gradio_api/heartbeat/abc", timeout=20) as stream:
        assert stream.status_code == 200
        began = time.monotonic()
        process.send_signal(signal.SIGTERM)
        process.wait(20)
    assert time.monotonic() - began < 15


def test_with_a_key_there_is_no_page_unless_it_is_asked_for(start):
    _, address = start(ATELIER_API_KEY="secret")
    assert httpx.get(address).status_code == 404
    assert httpx.post(f"{address}/v1/artworks", json={}).status_code == 401


@pytest.mark.parametrize(
    ("arguments", "environment", "said"),
    [
        (["--port", "70000"], {}, "--port is a number"),
        (["--config", "gone.yaml"], {}, "cannot read gone.yaml"),
        (["--host", "203.0.113.1"], {}, "cannot listen on 203.0.113.1"),
        (["--data", "config.yaml"], {}, "config.yaml"),
        ([], {"ATELIER_MAX_BATCH": "many"}, "ATELIER_MAX_BATCH"),
    ],
)
def test_a_start_that_fails_is_one_clear_line(project, arguments, environment, said):
    command = [sys.executable, "-m", "atelier", "serve", "--no-demo", "--port", "0", *arguments]
    done = subprocess.run(
        command, cwd=project, env=os.environ | environment, capture_output=True, text=True, timeout=120
    )
    errors = [line for line in done.stderr.splitlines() if line.startswith("atelier: error: ")]
    assert done.returncode == 2 and len(errors) == 1 and said in errors[0] and "Traceback" not in done.stderr


@pytest.mark.slow
def test_ten_thousand_artworks_leave_the_memory_flat(open_client, studio, tmp_path):
    psutil = pytest.importorskip("psutil")
    client = open_client(studio, Settings(data=tmp_path / "data", max_artworks=500))

    def make(count):
        for _ in range(count // 16):
            assert client.post("/v1/artworks", json={"count": 16}).status_code == 201
        return psutil.Process().memory_info().rss

    before = make(2_000)
    assert make(8_000) - before < 40 * 2**20
    assert len(os.listdir(tmp_path / "data" / "pictures")) == 500
