"""What the tests of the service share: an application with a tiny studio, in this process or behind a real socket."""

import contextlib
import io
import threading
import time

import httpx
import pytest
import uvicorn
from fastapi.testclient import TestClient

from atelier.service import Settings, create_app
from tests.conftest import draw_shape


def png(size: int = 32) -> bytes:
    """A small picture as a PNG file."""
    buffer = io.BytesIO()
    draw_shape("painting", 3, size).save(buffer, "PNG")
    return buffer.getvalue()


class Gate:
    """A studio that works only while it is open, so that tests can fill the queue behind it."""

    def __init__(self, studio):
        self._studio, self.open, self.batches = studio, threading.Event(), []
        self.open.set()

    def create_beside(self, pictures, seeds, styles, **how):
        self.batches.append(list(seeds))
        assert self.open.wait(30)
        return self._studio.create_beside(pictures, seeds, styles, **how)

    def __getattr__(self, name):
        return getattr(self._studio, name)


@pytest.fixture
def gate(studio):
    return Gate(studio)


@pytest.fixture
def settings(tmp_path, tiny_detector) -> Settings:
    return Settings(data=tmp_path / "data", batch_window=0.002, detector=tiny_detector)


def wait_until(condition, seconds=30):
    until = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < until, "it never came true"
        time.sleep(0.005)


@pytest.fixture
def open_client():
    """Opens an application in this process: `open_client(studio, settings)` is a client of it, ready."""
    open_ones = []

    def start(studio, settings, demo=False) -> TestClient:
        client = TestClient(create_app(studio, settings, demo), raise_server_exceptions=False)
        open_ones.append(client)
        client.__enter__()
        wait_until(lambda: client.get("/readyz").status_code == 200)
        return client

    yield start
    for client in reversed(open_ones):
        client.__exit__(None, None, None)


@pytest.fixture
def client(open_client, studio, settings) -> TestClient:
    return open_client(studio, settings)


@contextlib.contextmanager
def running(app):
    """Runs an application behind a socket, and gives its address when it is ready."""
    server = uvicorn.Server(uvicorn.Config(app, "127.0.0.1", 0, log_level="error", timeout_graceful_shutdown=5))
    thread = threading.Thread(target=server.run, daemon=True)
    thread.start()
    wait_until(lambda: server.started)
    address = f"http://127.0.0.1:{server.servers[0].sockets[0].getsockname()[1]}"
    wait_until(lambda: httpx.get(f"{address}/readyz").status_code == 200)
    try:
        yield address
    finally:
        server.should_exit = True
        thread.join(15)


@pytest.fixture
def serve():
    """`serve(app)` is the address of the running application."""
    with contextlib.ExitStack() as stack:
        yield lambda app: stack.enter_context(running(app))
