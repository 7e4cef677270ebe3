"""A language model behind a socket: what it does to captions, and that it costs none of them, however it fails."""

import json
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

from atelier.dataset.rewriting import AT_ONCE, PATIENCE, SOURCE, Rewriter
from atelier.dataset.shards import iterate_rows, shard_paths
from tests.dataset.hostile import encoded, paint, write

ANSWERS = {
    "good": "in verse,\n {}",
    "apology": "As a language model I cannot see pictures.",
    "inventive": "a marble statue, no longer {}",
    "empty": "",
    "long": "{}" + " and so on" * 500,
    "broken-text": "{} \ud800",
    "same": "{}",
}


class Model(BaseHTTPRequestHandler):
    """Answers as the first part of its path says; by a caption with "late" in it, not before the test is over."""

    def do_POST(self):
        with self.server.guard:
            self.server.open += 1
            self.server.most = max(self.server.most, self.server.open)
            self.server.asked.append(self.headers["Authorization"])
        question = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        caption, manner = question["messages"][1]["content"], self.path.split("/")[1]
        if "late" in caption:
            self.server.over.wait(60)
        self.server.over.wait(0.01)  # so that questions meet, if they may
        body = json.dumps({"choices": [{"message": {"content": ANSWERS.get(manner, "").format(caption)}}]}).encode()
        body = {"garbage": b"<html>", "deep": b"[" * 100_000, "other": b'{"choices": []}'}.get(manner, body)
        with self.server.guard:
            self.server.open -= 1
        if manner == "no-http":
            self.wfile.write(b"hello\r\n\r\n")
            return
        self.send_response(500 if manner == "failing" or "failing" in caption else 200)
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_):
        pass


@pytest.fixture
def server():
    server = ThreadingHTTPServer(("127.0.0.1", 0), Model)
    server.guard, server.over, server.open, server.most, server.asked = threading.Lock(), threading.Event(), 0, 0, []
    server.address = f"http://127.0.0.1:{server.server_port}"
    server.handle_error = lambda *_: None  # who waited no longer
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield server
    server.over.set()
    server.shutdown()
    server.server_close()


def test_captions_are_rewritten_each_by_itself(server):
    captions = [f"an icon of saint {number}" for number in range(50)]
    captions[3] = "an icon of a failing saint"
    expected = [None if number == 3 else f"in verse, {caption}" for number, caption in enumerate(captions)]
    assert Rewriter(f"{server.address}/good", timeout=30).rewrite(captions) == expected
    assert len(server.asked) == len(captions) and 1 < server.most <= AT_ONCE


@pytest.mark.parametrize(
    "manner", [*sorted(ANSWERS.keys() - {"good"}), "garbage", "deep", "other", "no-http", "failing"]
)
def test_whatever_it_answers_that_is_no_use_leaves_the_caption(server, manner):
    assert Rewriter(f"{server.address}/{manner}", timeout=30).rewrite(["an icon of a saint"]) == [None]
    assert len(server.asked) == 1


def test_one_that_is_late_or_gone_leaves_the_caption(server):
    captions = ["a late icon", "an icon"]
    assert Rewriter(f"{server.address}/good", timeout=0.5).rewrite(captions)[0] is None
    assert Rewriter("http://127.0.0.1:9", timeout=0.5).rewrite(captions) == [None, None]


def test_one_of_no_use_is_not_asked_for_ever(server):
    assert Rewriter(f"{server.address}/failing", timeout=30).rewrite(["an icon"] * 500) == [None] * 500
    assert len(server.asked) == PATIENCE


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"url": "file:///etc/hosts"}, "http address"),
        ({"url": "http://me:secret@here"}, "ATELIER_LLM_KEY"),
        ({"url": "http://here?key=secret"}, "ATELIER_LLM_KEY"),
        ({"timeout": 0}, "seconds"),
        ({"style": "loud"}, "plain, poetic, catalogue"),
    ],
)
def test_a_bad_setting_is_refused_and_no_secret_repeated(wrong, message):
    with pytest.raises(ValueError, match=message) as refused:
        Rewriter(**{"url": "http://here"} | wrong)
    assert "secret" not in str(refused.value)


def test_a_preparation_says_which_captions_a_model_rewrote_and_warns_once_of_the_others(
    tmp_path, atelier, server, monkeypatch
):
    pytest.importorskip("daft")
    monkeypatch.setenv("ATELIER_LLM_KEY", "sesame")
    captions = ["a painting of a barn", "a failing painting", "a late painting", None]
    lines = []
    for number, caption in enumerate(captions):
        write(tmp_path / "source" / "painting", f"{number}.png", encoded(paint(number), "PNG"))
        lines.append(json.dumps({"file": f"painting/{number}.png", "caption": caption}))
    (tmp_path / "source" / "captions.jsonl").write_text("\n".join(lines))
    out = tmp_path / "out"
    model = ("--llm", f"{server.address}/good", "--llm-timeout", "1", "--llm-style", "poetic")
    done = atelier(tmp_path / "source", out, "--features", "none", "--workers", "2", *model)
    assert done.returncode == 0, done.stderr
    rows = [(row["caption"], row["caption_source"]) for row in iterate_rows(shard_paths(out))]
    assert sorted(rows, key=str) == sorted(
        [
            ("in verse, a painting of a barn", f"given{SOURCE}"),
            ("a failing painting", "given"),
            ("a late painting", "given"),
            (None, None),
        ],
        key=str,
    )
    warning = f"2 of 3 captions stayed as they were: the language model at {server.address}/good"
    assert done.stderr.count(warning) == 1
    note = json.loads(done.stdout)["notes"][-1]
    assert note.startswith(warning) and note in (out / "report.html").read_text()
    assert json.loads((out / "report.json").read_text())["caption_sources"] == {
        "given": 2,
        f"given{SOURCE}": 1,
        "none": 1,
    }
    assert set(server.asked) == {"Bearer sesame"}
    told = [
        done.stdout,
        done.stderr,
        *(path.read_bytes().decode("latin-1") for path in out.rglob("*") if path.is_file()),
    ]
    assert not any("sesame" in each for each in told)
