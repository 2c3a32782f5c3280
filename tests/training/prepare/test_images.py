"""Photos from a list of URLs, fetched from a server on this machine that answers well and badly."""

import csv
import io
import json
import time
from collections import Counter
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Thread
from types import SimpleNamespace

import numpy as np
import pytest
from PIL import Image
from typer.testing import CliRunner
from urllib3.util import retry

from fashion_retrieval.errors import ConfigError
from tests.support.tiny import drawn_photo
from training.prepare import images
from training.prepare.__main__ import app
from training.prepare.images import Client, RetryPolicy, fetch_images, read_urls


def encoded(kind, size=(48, 64)):
    buffer = io.BytesIO()
    drawn_photo(size).save(buffer, kind)
    return buffer.getvalue()


JPEG, PNG, WEBP, DOT = encoded("JPEG"), encoded("PNG"), encoded("WEBP"), encoded("GIF", (1, 1))
QUICK = RetryPolicy(rate=1000.0, retries=3, timeout=2.0, backoff=0.5)


class Shop(BaseHTTPRequestHandler):
    """Answers by the last part of the path; `asked` counts the requests."""

    protocol_version = "HTTP/1.1"

    def do_GET(self):
        name = self.path.rpartition("/")[2]
        self.server.asked[name] += 1
        first = self.server.asked[name] == 1
        match name:
            case "late.jpg" if first:
                self.answer(503, b"busy", {"Retry-After": "7"})
            case "broken.jpg":
                self.answer(500, b"broken")
            case "cut.jpg" if first:
                self.answer(200, JPEG[:-200], {"Content-Length": str(len(JPEG))})
                self.close_connection = True
            case "torn.jpg":
                self.answer(200, JPEG[:400], {"Content-Length": str(len(JPEG))})
                self.close_connection = True
            case "half.jpg":
                self.answer(200, JPEG[:-200])
            case "page.jpg":
                self.answer(200, b"<html>sold out</html>")
            case "empty.jpg":
                self.answer(200, b"")
            case "dot.jpg":
                self.answer(200, DOT)
            case "moved.jpg":
                self.answer(302, b"", {"Location": "/good.jpg"})
            case "gone.jpg":
                self.answer(404, b"")
            case "png.jpg":
                self.answer(200, PNG)
            case "webp.jpg":
                self.answer(200, WEBP)
            case _:
                self.answer(200, JPEG)

    def answer(self, status, body, headers=None):
        self.send_response(status)
        for key, value in ({"Content-Length": str(len(body))} | (headers or {})).items():
            self.send_header(key, value)
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_):
        pass


@pytest.fixture
def shop(monkeypatch):
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    server = ThreadingHTTPServer(("127.0.0.1", 0), Shop)
    server.asked = Counter()
    server.address = f"http://127.0.0.1:{server.server_port}"
    thread = Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    yield server
    server.shutdown()
    thread.join()
    server.server_close()


@pytest.fixture
def waits(monkeypatch):
    """Seconds of each wait of half a second or more, none of which is waited."""
    seconds = []
    monkeypatch.setattr(time, "sleep", lambda wait: seconds.append(wait) if wait >= 0.5 else None)
    return seconds


def fetch(shop, names, out, *, policy=QUICK, report="dead.json"):
    urls = {name.partition(".")[0].upper(): f"{shop.address}/images/{name}" for name in names}
    return fetch_images(urls, out, policy, out / report)


def test_good_answers_become_files(shop, tmp_path, waits):
    done = fetch(shop, ["good.jpg", "png.jpg", "webp.jpg", "moved.jpg"], tmp_path)
    assert (done.written, done.kept, done.failed, waits) == (4, 0, (), [])
    assert (tmp_path / "GOOD.jpg").read_bytes() == (tmp_path / "MOVED.jpg").read_bytes() == JPEG
    assert (tmp_path / "PNG.png").read_bytes() == PNG
    with Image.open(tmp_path / "WEBP.png") as ours, Image.open(io.BytesIO(WEBP)) as theirs:
        np.testing.assert_array_equal(np.asarray(ours), np.asarray(theirs.convert("RGB")))
    assert json.loads((tmp_path / "dead.json").read_text()) == []


def test_passing_failures_are_retried(shop, tmp_path, waits):
    done = fetch(shop, ["late.jpg", "cut.jpg", "broken.jpg"], tmp_path)
    assert done.written == 2
    assert waits == [7.0, 0.5, 0.5, 1.0, 2.0]
    assert shop.asked == {"late.jpg": 2, "cut.jpg": 2, "broken.jpg": 4}
    assert (tmp_path / "LATE.jpg").read_bytes() == (tmp_path / "CUT.jpg").read_bytes() == JPEG
    assert [(d.id, d.reason, d.requests) for d in done.failed] == [("BROKEN", "status 500", 4)]


@pytest.mark.parametrize(
    ("name", "requests", "reason"),
    [
        ("gone.jpg", 1, "status 404"),
        ("page.jpg", 1, "no photo in a known format"),
        ("half.jpg", 1, "a damaged photo ("),
        ("empty.jpg", 1, "no bytes"),
        ("dot.jpg", 1, "a placeholder of 1x1 pixels"),
        ("torn.jpg", 4, "no answer (Connection broken: IncompleteRead(400 bytes read, "),
    ],
)
def test_dead_links_are_reported_with_their_reason(shop, tmp_path, waits, name, requests, reason):
    done = fetch(shop, [name, "good.jpg"], tmp_path, report="dead.csv")
    assert done.written == 1
    (link,) = done.failed
    assert (link.requests, shop.asked[name]) == (requests, requests)
    assert link.reason.startswith(reason)
    (row,) = csv.DictReader((tmp_path / "dead.csv").read_text().splitlines())
    assert row["id"] == name.partition(".")[0].upper()
    assert (row["url"], row["reason"], row["requests"]) == (link.url, link.reason, str(requests))
    assert {path.name for path in tmp_path.iterdir()} == {"GOOD.jpg", "dead.csv"}


def test_fetch_without_a_server_fails_after_all_retries(tmp_path, monkeypatch, waits):
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    with ThreadingHTTPServer(("127.0.0.1", 0), Shop) as server:
        port = server.server_port
    done = fetch_images({"A": f"http://127.0.0.1:{port}/a.jpg"}, tmp_path, QUICK, tmp_path / "r.json")
    assert done.failed[0].reason.startswith("no answer (")
    assert done.failed[0].requests == 4
    assert waits == [0.5, 1.0, 2.0]


def test_existing_photos_are_not_requested(shop, tmp_path, waits):
    (tmp_path / "dress").mkdir()
    (tmp_path / "dress" / "GOOD.png").write_bytes(PNG)
    (tmp_path / "TORN.jpg").write_bytes(b"")
    done = fetch(shop, ["good.jpg", "torn.jpg", "other.jpg"], tmp_path)
    assert (done.written, done.kept, len(done.failed)) == (1, 1, 1)
    assert "good.jpg" not in shop.asked
    again = fetch(shop, ["good.jpg", "other.jpg"], tmp_path)
    assert (again.written, again.kept) == (0, 2)
    assert shop.asked["other.jpg"] == 1


def test_an_interruption_keeps_photos_and_report(shop, tmp_path, monkeypatch):
    photo = Client.photo

    def stopping(client, url):
        if url.endswith("third.jpg"):
            raise KeyboardInterrupt
        return photo(client, url)

    with monkeypatch.context() as patch:
        patch.setattr(Client, "photo", stopping)
        with pytest.raises(KeyboardInterrupt):
            fetch(shop, ["first.jpg", "gone.jpg", "third.jpg", "fourth.jpg"], tmp_path)
    assert [row["id"] for row in json.loads((tmp_path / "dead.json").read_text())] == ["GONE"]
    done = fetch(shop, ["first.jpg", "gone.jpg", "third.jpg", "fourth.jpg"], tmp_path)
    assert (done.written, done.kept, len(done.failed)) == (2, 1, 1)
    assert shop.asked["first.jpg"] == 1


def test_requests_keep_the_rate_and_retry_after(shop, monkeypatch):
    clock = [100.0]
    monkeypatch.setattr(images, "time", SimpleNamespace(monotonic=lambda: clock[0], sleep=wait_on(clock)))
    monkeypatch.setattr(retry, "time", SimpleNamespace(time=time.time, sleep=wait_on(clock)))
    with Client(RetryPolicy(rate=4.0, backoff=0.0)) as client:
        for name in ("a.jpg", "late.jpg", "b.jpg"):  # the server asks for 7 seconds after the second request
            client.photo(f"{shop.address}/{name}")
    assert sum(shop.asked.values()) == 4
    assert clock[0] == pytest.approx(100 + 0.25 + 7 + 0.25)


def wait_on(clock):
    def sleep(seconds):
        clock[0] += seconds

    return sleep


def test_lists_are_read_and_all_their_faults_named(tmp_path):
    good, bad = tmp_path / "asin2url.dress.txt", tmp_path / "asin2url.shirt.txt"
    good.write_text("B000A \t http://x.org/a.jpg\n\nB000B\thttps://x.org/b.jpg\nB000A\thttp://x.org/a.jpg\n")
    assert read_urls([good]) == {"B000A": "http://x.org/a.jpg", "B000B": "https://x.org/b.jpg"}
    assert read_urls([good, good]) == read_urls([good])
    bad.write_text("B000A\thttp://x.org/z.jpg\n../B000C\thttp://x.org/c.jpg\nB000D\tfile:///etc/passwd\nB000E\n")
    with pytest.raises(ConfigError) as caught:
        read_urls([good, bad, tmp_path / "nowhere.txt"])
    text = str(caught.value)
    assert "no ASIN and http URL in asin2url.shirt.txt line 2, 3, 4;" in text
    assert "nowhere.txt" in text


def test_the_command(shop, tmp_path):
    lists = tmp_path / "asin2url.toptee.txt"
    lists.write_text(f"B001 \t {shop.address}/good.jpg\nB002 \t {shop.address}/gone.jpg\n")
    out, report = tmp_path / "images", tmp_path / "dead.csv"
    arguments = ["fashioniq-images", str(lists), "--out", str(out), "--rate", "1000", "--report", str(report)]
    done = CliRunner().invoke(app, arguments)
    assert done.exit_code == 0, done.output
    assert f"1 photos fetched, 0 were there, 1 dead links in {report}" in done.stdout
    assert (out / "B001.jpg").read_bytes() == JPEG
    assert report.read_text().startswith("id,url,reason,requests\nB002,")
