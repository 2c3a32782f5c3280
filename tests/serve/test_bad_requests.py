"""Bad input over HTTP: one problem document each, the right status, and the service goes on."""

from __future__ import annotations

import asyncio
import json
import socket
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any
from urllib.parse import quote

import pytest

from benchmarks.serve.bad import HOSTILE, RECOGNIZE, bad_requests
from benchmarks.serve.client import Answer, LostError, ask, ask_once, form_request, json_request, request
from fashion_retrieval.serve.app import create_app
from fashion_retrieval.serve.state import Service
from tests.serve.conftest import photo_file
from tests.support.serving import check_problem, running, tiny_shop

PHOTO = photo_file(1, kind="JPEG")
BAD = bad_requests(PHOTO, "shop")
KEY = "0123456789abcdef"
MOST = 1_000_000
"""Bytes of a body, where that is what is tested."""


@pytest.fixture(scope="module")
def service(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    with tiny_shop(tmp_path_factory.mktemp("serve"), PHOTO, max_pixels=50_000_000) as made:
        yield made


@pytest.fixture(scope="module")
def port(service: Service) -> Iterator[int]:
    with running(service) as number:
        yield number


def check_alive(port: int) -> None:
    answer = ask(port, form_request(RECOGNIZE, [("photos", "a.jpg", PHOTO)]))
    assert answer.status == 200
    assert answer.json()["results"][0]["source"] == "a.jpg"


@pytest.mark.parametrize("name", BAD)
def test_bad_request_gets_a_problem_document(port: int, name: str) -> None:
    status, content = BAD[name]
    check_problem(ask(port, content), status)


def test_service_recognizes_after_all_of_them_and_none_was_its_own_fault(port: int) -> None:
    check_alive(port)
    counted = ask(port, request("GET", "/metrics")).body.decode()
    assert 'status="200"' in counted
    assert 'status="5' not in counted


@pytest.mark.parametrize("kind", ["application/json", "multipart/form-data; boundary=x"])
def test_body_of_100_mb_is_refused_while_it_arrives(service: Service, kind: str) -> None:
    read, sent = 0, []

    async def receive() -> dict[str, Any]:
        nonlocal read
        read += 100_000
        return {"type": "http.request", "body": bytes(100_000), "more_body": read < 100 * MOST}

    async def send(message: dict[str, Any]) -> None:
        sent.append(message)

    app = create_app(Service(service.engine, max_body=MOST))
    headers = [(b"host", b"127.0.0.1"), (b"content-type", kind.encode()), (b"transfer-encoding", b"chunked")]
    scope = {
        "type": "http",
        "method": "POST",
        "path": RECOGNIZE,
        "headers": headers,
        "query_string": b"",
        "root_path": "",
    }
    asyncio.run(app(scope, receive, send))
    assert MOST + 100_000 < read <= 3 * MOST + 200_000  # twice as much is read on, for clients that still send
    assert (sent[0]["status"], dict(sent[0]["headers"])[b"connection"]) == (413, b"close")
    assert json.loads(sent[1]["body"])["detail"] == f"a body must be at most {MOST} bytes, got more"


def test_body_of_100_mb_over_a_connection_is_cut_off(service: Service) -> None:
    head = request("POST", RECOGNIZE, kind="application/json", Content_Length=str(100 * MOST))
    chunked = head.replace(b"Content-Length: 100000000", b"Transfer-Encoding: chunked")
    with running(Service(service.engine, max_body=MOST)) as port, socket.create_connection(("127.0.0.1", port)) as sent:
        sent.settimeout(10)
        sent.sendall(chunked)
        count = 0
        with suppress(OSError):  # reset or broken pipe, as the system likes
            while count < 1_000:
                sent.sendall(b"186a0\r\n" + bytes(100_000) + b"\r\n")
                count += 1
        assert count < 200  # what the service had read, and what waits in the system's buffers
        answer = ask(port, head)
        assert answer.seconds < 5
        detail = check_problem(answer, 413)
        assert detail == f"a body must be at most {MOST} bytes, got {100 * MOST}"
        check_alive(port)


def test_slow_body_is_408_and_stops_nobody(service: Service) -> None:
    with running(Service(service.engine, timeout=0.5)) as port:
        slow = form_request(RECOGNIZE, [("photos", "a.jpg", PHOTO)])[:-200]

        async def both() -> tuple[list[Answer], Answer]:
            waiting = [asyncio.create_task(ask_once(port, slow)) for _ in range(20)]
            await asyncio.sleep(0.1)
            quick = await ask_once(port, json_request("/v1/embeddings", {"input": "red"}))
            return await asyncio.gather(*waiting), quick

        late, quick = asyncio.run(both())
        assert quick.status == 200
        for answer in late:
            assert check_problem(answer, 408).startswith("the body must be here within 0.5 s, got ")
            assert answer.headers["connection"] == "close"
        check_alive(port)


def test_connection_that_ends_in_the_middle_leaves_the_service_alive(port: int) -> None:
    whole = form_request(RECOGNIZE, [("photos", "a.jpg", PHOTO)])
    for length in (5, len(whole) - len(PHOTO), len(whole) - 10, len(whole)):
        with socket.create_connection(("127.0.0.1", port)) as sent:
            sent.sendall(whole[:length])
    check_alive(port)


def test_missing_and_wrong_keys_are_401(service: Service) -> None:
    basic = {"right": "YW55OjAxMjM0NTY3ODlhYmNkZWY=", "wrong": "YW55Om5vdGhpbmc="}
    wrong = ["", "Bearer", "Bearer wrong", f"Token {KEY}x", f"Bearer {KEY}x", f"Bearer {KEY[:-1]}", "Basic ***", "\xff"]
    with running(service, keys=[KEY]) as port:
        for authorization in [*wrong, f"Basic {basic['wrong']}"]:
            given = {"Authorization": authorization} if authorization else {}
            for asked in (
                request("GET", "/v1/models", **given),
                json_request("/v1/embeddings", {"input": "a"}, **given),
            ):
                answer = ask(port, asked)
                assert KEY not in check_problem(answer, 401)
                assert answer.headers["www-authenticate"].startswith("Basic")
        for authorization in (f"Bearer {KEY}", f"bearer  {KEY}", f"Basic {basic['right']}"):
            assert ask(port, request("GET", "/v1/models", Authorization=authorization)).status == 200
        assert ask(port, request("GET", "/healthz")).status == 200


@pytest.mark.parametrize("name", [*HOSTILE, ".", "..", "a/image", "image", "?", "#", " "])
def test_hostile_id_names_a_photo_and_nothing_else(service: Service, port: int, name: str) -> None:
    before = sorted(path for path in Path(service.gallery("shop").info.uri).parent.iterdir())
    address = f"/v1/galleries/shop/photos/{quote(name, safe='')}"
    check_problem(ask(port, request("DELETE", address)), 404)
    added = ask(port, form_request("/v1/galleries/shop/photos", [("photos", "a.jpg", PHOTO)], ids=json.dumps([name])))
    assert (added.status, added.json()["added"]) == (200, 1)
    picture = ask(port, request("GET", f"{address}/image"))
    assert (picture.status, picture.headers["content-type"], picture.body[:3]) == (200, "image/jpeg", b"\xff\xd8\xff")
    found = ask(port, json_request("/v1/galleries/shop/search", {"text": "red", "exclude": ["a"]})).json()["results"]
    assert [(one["id"], one["image"]) for one in found] == [(name, f"{address}/image")]
    assert ask(port, request("DELETE", address)).json() == {"deleted": 1}
    check_problem(ask(port, request("GET", f"{address}/image")), 404)
    assert sorted(path for path in Path(service.gallery("shop").info.uri).parent.iterdir()) == before
    assert not list((service.uploads or {})["shop"].iterdir())


@pytest.mark.parametrize(
    "ids",
    [
        ["a", "a"],
        ["a"],
        ["a", "b", "c"],
        ["a", ""],
        ["a", "a\0b"],
        ["a", "x" * 4_097],
        ["a", "é" * 4_000],
        "nothing",
        {},
    ],
    ids=["twice", "too few", "too many", "empty", "NUL", "too long", "too long in UTF-8", "no list", "an object"],
)
def test_bad_ids_are_422_and_change_nothing(service: Service, port: int, ids: object) -> None:
    files = [("photos", "a.jpg", PHOTO), ("photos", "b.jpg", PHOTO)]
    check_problem(ask(port, form_request("/v1/galleries/shop/photos", files, ids=json.dumps(ids))), 422)
    assert len(service.gallery("shop")) == 1
    folder = (service.uploads or {})["shop"]
    assert not folder.is_dir() or not list(folder.iterdir())


@pytest.mark.parametrize("ids", [[], "a", [1], ["a\0"], ["x" * 4_097], ["a"] * 20_000, None])
def test_bad_deletions_are_422_and_delete_nothing(service: Service, port: int, ids: object) -> None:
    body = json.dumps({"ids": ids}).encode()
    check_problem(ask(port, request("DELETE", "/v1/galleries/shop/photos", body, "application/json")), 422)
    assert len(service.gallery("shop")) == 1


def test_long_words_take_no_longer_than_words(port: int) -> None:
    # Tokenizers take the square of a word's length: before they were split these took minutes.
    start = time.perf_counter()
    for letter in ("x", "!", "é"):
        answer = ask(port, json_request("/v1/embeddings", {"input": [letter * 4_096] * 16}))
        assert (answer.status, len(answer.json()["data"])) == (200, 16)
    assert time.perf_counter() - start < 20


def test_request_that_is_no_http_is_refused(port: int) -> None:
    with suppress(LostError):  # or the connection is closed at once
        assert ask(port, b"BREW /v1/recognize HTCPCP/1.0\r\n\r\n").status == 400
    check_alive(port)
