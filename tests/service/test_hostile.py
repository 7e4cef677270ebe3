"""Two hundred requests that mean harm: all are refused in words, tell nothing of this machine, and leave no file."""

import io
import os
import socket
import struct
import time
import zlib
from concurrent.futures import ThreadPoolExecutor

import httpx
import pytest
from PIL import Image

from atelier.service import Settings, create_app
from atelier.service.uploads import TooManyPixels, read_upload
from atelier.studio import Studio
from tests.conftest import FakeCaptioner
from tests.service.conftest import png, running


def bomb(width: int, height: int) -> bytes:
    """A PNG file of a few kilobytes that says it is very large, and would be."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    rows = zlib.compress(bytes(min(width * 3 + 1, 2**20)) * 4)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", rows) + chunk(b"IEND", b"")


def encoded(kind: str, size=(64, 64), **options) -> bytes:
    buffer = io.BytesIO()
    Image.new("RGB", size).save(buffer, kind, **options)
    return buffer.getvalue()


EPS = b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n(/etc/passwd) (r) file\n"
SVG = b'<svg xmlns="http://www.w3.org/2000/svg"><image href="file:///etc/passwd"/></svg>'

TRAVERSALS = [
    f"/v1/artworks/{path}{end}"
    for path in (
        "../index.sqlite3",
        "..%2findex.sqlite3",
        "..%2f..%2f..%2f..%2fetc%2fpasswd",
        "%2e%2e%2f%2e%2e%2fetc%2fpasswd",
        "..%5c..%5cwindows%5cwin.ini",
        "%2fetc%2fpasswd",
        "....%2f%2f....%2f%2fetc%2fpasswd",
        "%00",
        "%0d%0aSet-Cookie:%20a=b",
        "..%c0%af..%c0%afetc",
        "~root",
        "*",
        "%25252e%25252e%25252f",
        "' OR '1'='1",
        "1;DROP TABLE artworks",
        "\u202e",
        "a" * 21,
        "a" * 23,
        "a" * 22 + "%0a",
        "a" * 5000,
        "file:%2f%2f%2fetc%2fpasswd",
        "http:%2f%2f127.0.0.1%2f",
    )
    for end in ("", ".png")
] + [
    f"{start}{path}"
    for start in ("/gradio_api/file=", "/file=", "/gradio_api/proxy=", "/static/", "/assets/", "/")
    for path in ("/etc/passwd", "../../../../etc/passwd", "..%2f..%2f..%2fetc%2fpasswd", "http://127.0.0.1:1/")
]

WISHES = [
    b"",
    b"{",
    b"null",
    b"[]",
    b"7",
    b'"sea"',
    b"\xff\xfe",
    b"{}{}",
    b"[" * 50_000,
    b'{"seed":' * 5000,
    b'{"seed": ' + b"9" * 5000 + b"}",
    b'{"seed": 1e999}',
    b'{"seed": NaN}',
    b'{"seed": -1}',
    b'{"seed": 1.5}',
    b'{"seed": true}',
    b'{"seed": []}',
    b'{"seed": {}}',
    b'{"seed": ""}',
    b'{"seed": " \\u2003 "}',
    b'{"seed": "\\ud800"}',
    b'{"seed": "' + b"x" * 1001 + b'"}',
    b'{"seed": 1' + b"0" * 100 + b"}",
    b'{"count": 0}',
    b'{"count": -5}',
    b'{"count": 17}',
    b'{"count": 1000000000}',
    b'{"count": 1' + b"0" * 400 + b"}",
    b'{"count": "3"}',
    b'{"count": 1.5}',
    b'{"count": null}',
    b'{"count": true}',
    b'{"style": "cubism"}',
    b'{"style": 3}',
    b'{"style": ["painting"]}',
    b'{"style": "../painting"}',
    b'{"image": "file"}',
    b'{"image": "/etc/passwd"}',
    b'{"output": "/tmp/x.png"}',
    b'{"folder": "/tmp"}',
    b'{"__proto__": {}}',
    b'{"\\ud800": 1}',
    b'{"seed": 1, "nope": 1}',
    b'{"scale": 16}',
    b" " * 70_000,
    b'{"seed": "' + b"x" * 200_000 + b'"}',
]

UPLOADS = {
    "empty": b"",
    "text": b"hello",
    "html": b"<script>alert(1)</script>",
    "svg": SVG,
    "eps": EPS,
    "pdf": b"%PDF-1.7\n",
    "zip": b"PK\x03\x04" + bytes(100),
    "elf": b"\x7fELF" + bytes(100),
    "half a png": png()[: len(png()) // 2],
    "png header": b"\x89PNG\r\n\x1a\n",
    "png of nothing": png().replace(b"IDAT", b"IDAX"),
    "png, sums wrong": png()[:40] + bytes([png()[40] ^ 255]) + png()[41:],
    "wide bomb": bomb(2**30, 1),
    "square bomb": bomb(50_000, 50_000),
    "largest bomb": bomb(2**31 - 1, 2**31 - 1),
    "small bomb": bomb(8000, 8000),
    "no pixels": bomb(0, 0),
    "cut jpeg": encoded("JPEG")[:200],
    "gif header": b"GIF89a\xff\xff\xff\xff",
    "large gif": b"GIF89a" + struct.pack("<HH", 65535, 65535) + bytes(20),
    "bmp of billions": b"BM"
    + struct.pack("<IHHIIiiHHIIiiII", 100, 0, 0, 54, 40, 2**30, 2**30, 1, 24, 0, 0, 0, 0, 0, 0),
    "ppm": b"P6 100000 100000 255\n",
    "ppm small": b"P6 2 2 255\n" + bytes(12),
    "tga": bytes(18) + bytes(100),
    "psd": b"8BPS\0\1" + bytes(40),
    "ico": b"\0\0\1\0\1\0" + bytes(40),
    "fits": b"SIMPLE  =                    T" + bytes(80),
    "cut webp": encoded("WEBP")[:30],
    "cut tiff": encoded("TIFF")[:60],
    "tiff that points at itself": b"II*\0\x08\0\0\0"
    + b"\1\0"
    + struct.pack("<HHII", 330, 4, 1, 8)
    + struct.pack("<I", 8),
    "wmf": b"\xd7\xcd\xc6\x9a\x00\x00" + bytes(60),
    "python": b"import os; os.system('id')",
}


@pytest.fixture(scope="module")
def hostile_settings(tmp_path_factory):
    return Settings(
        data=tmp_path_factory.mktemp("hostile") / "data", max_body_bytes=2**20, body_seconds=1.0, work_seconds=20
    )


@pytest.fixture(scope="module")
def address(hostile_settings, painter):
    app = create_app(Studio(painter, FakeCaptioner), hostile_settings, demo=True)
    with running(app) as address:
        yield address


def assert_refused(answer: httpx.Response, problem: bool = True) -> None:
    assert 400 <= answer.status_code < 500, answer.text[:300]
    for trace in ("Traceback", 'File "', "site-packages", "/tmp/", "root:x:", "0x7f"):
        assert trace not in answer.text
    if problem:
        assert answer.headers["content-type"] == "application/problem+json"
        assert set(answer.json()) >= {"type", "title", "status", "detail"}
        assert answer.json()["status"] == answer.status_code


@pytest.mark.parametrize("name", [name for name in UPLOADS if name.endswith("bomb")])
def test_a_bomb_is_too_large_and_not_called_unreadable(name):
    """However large: Pillow has a limit of its own, beyond which it says something else."""
    with pytest.raises(TooManyPixels):
        read_upload(UPLOADS[name], 50_000_000)


def test_there_are_two_hundred():
    assert len(TRAVERSALS) + len(WISHES) + 2 * len(UPLOADS) + len(ODD) + SLOW + 1 >= 200


def raw(address: str, request: bytes, pause: float = 0) -> bytes:
    """Send bytes as they are, wait for the answer."""
    host, port = address.removeprefix("http://").split(":")
    with socket.create_connection((host, int(port)), timeout=10) as connection:
        connection.sendall(request)
        time.sleep(pause)
        answer = b""
        try:
            while part := connection.recv(65536):
                answer += part
                if b"\r\n\r\n" in answer and b"Connection: close" not in request:
                    break
        except OSError:
            pass
        return answer


@pytest.mark.parametrize("path", TRAVERSALS, ids=range(len(TRAVERSALS)))
def test_no_path_leads_out(address, path):
    target = path.encode("utf-8").replace(b" ", b"%20").replace(b"\xe2\x80\xae", b"%E2%80%AE")
    answer = raw(
        address, b"GET " + target + b" HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n"
    )  # httpx would tidy it
    status = int(answer.split(b" ")[1])
    assert 400 <= status < 500
    assert b"root:x" not in answer and b"SQLite" not in answer and b"Traceback" not in answer
    assert b"set-cookie: a=b" not in answer.lower()


@pytest.mark.parametrize("content", WISHES, ids=range(len(WISHES)))
def test_no_wish_breaks_it(address, content):
    answer = httpx.post(f"{address}/v1/artworks", content=content, headers={"Content-Type": "application/json"})
    assert_refused(answer)


@pytest.mark.parametrize("name", ["picture.png", "../../../../etc/cron.d/evil"])
@pytest.mark.parametrize("data", UPLOADS.values(), ids=UPLOADS)
@pytest.mark.parametrize("route", ["captions", "detections"])
def test_no_upload_is_believed(address, route, data, name):
    answer = httpx.post(f"{address}/v1/{route}", files={"picture": (name, data, "image/png")}, timeout=20)
    assert_refused(answer)


ODD = {
    "no body": ("POST", "/v1/captions", {}),
    "a text field": ("POST", "/v1/captions", {"data": {"picture": "hello"}}),
    "another field": ("POST", "/v1/captions", {"files": {"other": b"x"}}),
    "json": ("POST", "/v1/captions", {"json": {"picture": "x"}}),
    "broken multipart": (
        "POST",
        "/v1/captions",
        {"content": b"--x\r\nbroken", "headers": {"Content-Type": "multipart/form-data; boundary=y"}},
    ),
    "no boundary": ("POST", "/v1/captions", {"content": b"x", "headers": {"Content-Type": "multipart/form-data"}}),
    "too many files": ("POST", "/v1/captions", {"files": [("picture", b"x")] * 1100}),
    "too large": ("POST", "/v1/captions", {"files": {"picture": bytes(2**20 + 1)}}),
    "form": ("POST", "/v1/artworks", {"data": {"seed": "7"}}),
    "limit": ("GET", "/v1/artworks?limit=0", {}),
    "huge limit": ("GET", "/v1/artworks?limit=100000000000000000000", {}),
    "limit of words": ("GET", "/v1/artworks?limit=all", {}),
    "before": ("GET", "/v1/artworks?before=../../x", {}),
    "unknown before": ("GET", "/v1/artworks?before=" + "a" * 22, {}),
    "delete": ("DELETE", "/v1/artworks", {}),
    "put": ("PUT", "/v1/artworks/" + "a" * 22, {}),
    "trace": ("TRACE", "/v1/styles", {}),
    "post health": ("POST", "/healthz", {}),
    "unknown": ("GET", "/v1/secrets", {}),
    "unknown version": ("POST", "/v1/../v2/artworks", {}),
}


@pytest.mark.parametrize(("method", "path", "content"), ODD.values(), ids=ODD)
def test_no_oddity_breaks_it(address, method, path, content):
    # What is not the API's is answered by the page's server, in its own words.
    ours = path.startswith(("/v1/", "/healthz")) and ".." not in path
    assert_refused(httpx.request(method, address + path, **content), problem=ours)


SLOW = 8


def test_slow_bodies_are_cut_off_while_others_are_served(address):
    head = b"POST /v1/artworks HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\nContent-Length: 1000\r\n\r\n{"
    with ThreadPoolExecutor(SLOW) as threads:
        answers = [threads.submit(raw, address, head) for _ in range(SLOW)]
        assert httpx.post(f"{address}/v1/artworks", json={}, timeout=20).status_code == 201
        for answer in answers:
            assert answer.result(20).startswith(b"HTTP/1.1 408")


def test_a_body_that_says_no_length_is_counted(address):
    def endless():
        for _ in range(64):
            yield bytes(2**16)

    try:
        answer = httpx.post(
            f"{address}/v1/captions", content=endless(), headers={"Content-Type": "multipart/form-data; boundary=x"}
        )
        assert_refused(answer)
    except httpx.TransportError:  # cut off while it was still sending: refused, too
        pass


def test_it_is_well_afterwards_and_nothing_lies_around(address, hostile_settings):
    assert httpx.post(f"{address}/v1/artworks", json={}, timeout=20).status_code == 201
    listed = httpx.get(f"{address}/v1/artworks?limit=100").json()["artworks"]
    found = sorted(os.listdir(hostile_settings.data / "pictures"))
    assert found == sorted(f"{record['id']}.png" for record in listed)
    beside = sorted(name for name in os.listdir(hostile_settings.data) if not name.startswith("index.sqlite3"))
    assert beside == ["lock", "pictures"]
