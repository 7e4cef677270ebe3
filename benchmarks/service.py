"""How the service bears load, as a table: `python benchmarks/service.py`, with the requirements of extras/service.txt.

Starts `python -m atelier serve` on the shipped weights and talks to it over the loopback: first one client at a time,
then many; then it makes artworks until the memory has told its mind; then it kills the service (-9) under load, starts
it again, and asks for every artwork that was acknowledged.
"""

from __future__ import annotations

import argparse
import base64
import contextlib
import http.client
import io
import json
import random
import re
import signal
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import httpx
import psutil
from PIL import Image

ROOT = Path(__file__).resolve().parent.parent
MIX = {"make": 6, "caption": 2, "picture": 4, "list": 2, "record": 2}
"""How often each kind of request is made, among `sum(MIX.values())`."""


@contextlib.contextmanager
def service(data: Path, demo: bool = False) -> Iterator[tuple[subprocess.Popen, str]]:
    """The service as a process, ready, and its address."""
    page = "--demo" if demo else "--no-demo"
    command = [sys.executable, "-m", "atelier", "serve", page, "--port", "0", "--data", str(data)]
    process = subprocess.Popen(command, cwd=ROOT, stderr=subprocess.PIPE, text=True)
    try:
        said = next(line for line in process.stderr if "listens on" in line)
        threading.Thread(target=process.stderr.read, daemon=True).start()
        address = re.search(r"http://\S+", said)[0]
        while httpx.get(f"{address}/readyz").status_code != 200:
            time.sleep(0.2)
        yield process, address
    finally:
        process.kill()
        process.wait()


class Client:
    """One client that makes one request after another, of mixed kinds.

    It shares the processor with the service, so it is the standard library's: httpx takes three times as long.
    """

    def __init__(self, address: str, seed: int):
        self.http = http.client.HTTPConnection(address.removeprefix("http://"), timeout=60)
        self.random = random.Random(seed)
        self.ids: list[str] = []
        self.seconds: list[tuple[str, float]] = []
        self.failures: list[str] = []
        buffer = io.BytesIO()
        Image.effect_noise((256, 256), 60).save(buffer, "JPEG")
        request = httpx.Request("POST", address, files={"picture": buffer.getvalue()})
        self.upload, self.upload_type = request.read(), request.headers["Content-Type"]

    def ask(self, method: str, path: str, body: bytes | None = None, kind: str = "") -> tuple[int, bytes]:
        """An answer's status and body, all of it read."""
        self.http.request(method, path, body, {"Content-Type": kind} if kind else {})
        answer = self.http.getresponse()
        return answer.status, answer.read()

    def step(self) -> None:
        kind = self.random.choices(list(MIX), MIX.values())[0] if self.ids else "make"
        began = time.perf_counter()
        if kind == "make":
            status, body = self.ask("POST", "/v1/artworks", b"{}", "application/json")
        elif kind == "caption":
            status, body = self.ask("POST", "/v1/captions", self.upload, self.upload_type)
        elif kind == "list":
            status, body = self.ask("GET", "/v1/artworks")
        else:
            identity = self.random.choice(self.ids[-50:])
            status, body = self.ask("GET", f"/v1/artworks/{identity}" + (".png" if kind == "picture" else ""))
        self.seconds.append((kind, time.perf_counter() - began))
        if status not in (200, 201):
            self.failures.append(f"{kind}: {status} {body[:100]!r}")
        elif kind == "make":
            record = json.loads(body)["artworks"][0]
            self.ids.append(record["id"])
            if record["caption"] is None:
                self.failures.append("no caption")


def load(address: str, clients: int, seconds: float) -> tuple[list[Client], float]:
    """Let so many clients at the service for so long; the clients, and how long it really took."""
    crowd = [Client(address, number) for number in range(clients)]
    began = time.monotonic()

    def work(client: Client) -> None:
        while time.monotonic() - began < seconds:
            client.step()

    with ThreadPoolExecutor(clients) as threads:
        list(threads.map(work, crowd))
    return crowd, time.monotonic() - began


def by_kind(crowd: list[Client]) -> dict[str, list[float]]:
    kinds: dict[str, list[float]] = {kind: [] for kind in MIX}
    for client in crowd:
        for kind, seconds in client.seconds:
            kinds[kind].append(seconds)
    return kinds


def percentile(values: list[float], share: float) -> float:
    return sorted(values)[min(len(values) - 1, int(share * len(values)))]


def under_load(address: str, clients: int, seconds: float) -> list[tuple[str, str, str]]:
    load(address, clients, min(5.0, seconds))  # what compiles for a batch size does so now
    # One client before the crowd and one after it, since a machine that others share is now faster, now slower.
    before, before_seconds = load(address, 1, seconds / 2)
    crowd, crowd_seconds = load(address, clients, seconds)
    after, after_seconds = load(address, 1, seconds / 2)
    alone, alone_seconds = before + after, before_seconds + after_seconds
    one, many = by_kind(alone), by_kind(crowd)
    made = {
        name: len(kinds["make"]) / taken
        for name, kinds, taken in (("one", one, alone_seconds), ("many", many, crowd_seconds))
    }
    every = {
        name: sum(map(len, kinds.values())) / taken
        for name, kinds, taken in (("one", one, alone_seconds), ("many", many, crowd_seconds))
    }
    failures = [failure for client in crowd + alone for failure in client.failures]
    for failure in failures[:5]:
        print(failure, file=sys.stderr)
    single = statistics.median(one["make"])
    rows = [
        (f"errors, {clients} clients for {seconds:.0f} s, mixed requests", str(len(failures)), "0"),
        ("one artwork, alone, median", f"{single * 1000:.0f} ms", ""),
    ]
    for kind in ("make", "caption"):
        slow = percentile(many[kind], 0.95) / statistics.median(one[kind])
        figure = f"{percentile(many[kind], 0.95) * 1000:.0f} ms ({slow:.1f} x alone)"
        rows.append((f"p95 of {kind}, {clients} clients", figure, "<= 10 x alone"))
    reads = many["picture"] + many["list"] + many["record"]
    rows += [
        (f"p95 of reading, {clients} clients", f"{percentile(reads, 0.95) * 1000:.0f} ms", ""),
        ("artworks, one at a time / together", f"{made['one']:.1f} / {made['many']:.1f} per second", ""),
        ("requests, one at a time / together", f"{every['one']:.1f} / {every['many']:.1f} per second", ""),
        ("throughput gained", f"{every['many'] / every['one']:.1f} x", ">= 2.5 x"),
    ]
    return rows


def memory(process: subprocess.Popen, address: str, artworks: int) -> list[tuple[str, str, str]]:
    """Resident memory after a tenth, half and all of the artworks; after every tenth on standard error."""
    process = psutil.Process(process.pid)
    mib, requests = [], -(-artworks // 16)
    with httpx.Client(base_url=address, timeout=120) as client:
        for number in range(1, requests + 1):
            client.post("/v1/artworks", json={"count": 16}).raise_for_status()
            while number * 10 // requests > len(mib):  # a few artworks pass several tenths at once
                mib.append(process.memory_info().rss / 2**20)
                print(f"{number * 16} artworks: {mib[-1]:.0f} MiB", file=sys.stderr, flush=True)
    marks = " / ".join(f"{artworks * tenth // 10}" for tenth in (1, 5, 10))
    return [(f"memory after {marks} artworks", " / ".join(f"{mib[at]:.0f}" for at in (0, 4, 9)) + " MiB", "flat")]


def killed(data: Path, clients: int, seconds: float) -> list[tuple[str, str, str]]:
    """kill -9 under load, start again: how many of the acknowledged artworks are served byte for byte."""
    acknowledged: dict[str, bytes] = {}
    with service(data) as (process, address):

        def work(_: int) -> None:
            with httpx.Client(base_url=address, timeout=60) as client:
                while True:
                    try:
                        answer = client.post("/v1/artworks", json={"image": "base64"})
                    except httpx.TransportError:
                        return
                    for record in answer.json()["artworks"]:
                        acknowledged[record["id"]] = base64.b64decode(record["image_base64"])

        with ThreadPoolExecutor(clients) as threads:
            working = threads.map(work, range(clients))
            time.sleep(seconds)
            process.send_signal(signal.SIGKILL)
            list(working)
    with service(data) as (_, address), httpx.Client(base_url=address) as client:
        served = sum(
            client.get(f"/v1/artworks/{identity}.png").content == data
            and client.get(f"/v1/artworks/{identity}").status_code == 200
            for identity, data in acknowledged.items()
        )
    return [("served again after kill -9, byte for byte", f"{served} of {len(acknowledged)}", "all")]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--clients", type=int, default=32)
    parser.add_argument("--seconds", type=float, default=60.0, help="of load, each time (default 60)")
    parser.add_argument("--artworks", type=int, default=10_000, help="made for the memory; 0: leave it out")
    parser.add_argument("--kill-seconds", type=float, default=10.0, help="of load before the kill; 0: leave it out")
    options = parser.parse_args()
    print(f"| {'':50} | {'measured':>28} | {'wanted':>14} |\n|{'-' * 52}|{'-' * 30}|{'-' * 16}|")

    def show(rows: list[tuple[str, str, str]]) -> None:
        for name, measured, wanted in rows:
            print(f"| {name:50} | {measured:>28} | {wanted:>14} |", flush=True)

    with tempfile.TemporaryDirectory() as folder:
        with service(Path(folder) / "load") as (process, address):
            show(under_load(address, options.clients, options.seconds))
            if options.artworks:
                show(memory(process, address, options.artworks))
        if options.kill_seconds:
            show(killed(Path(folder) / "kill", options.clients, options.kill_seconds))


if __name__ == "__main__":
    main()
