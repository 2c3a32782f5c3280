"""Hostile input over HTTP: no path of the server, no error of our own, no work without a bound."""

from __future__ import annotations

import asyncio
import base64
import errno
import http.client
import json
import threading
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from benchmarks.serve.bad import EMBEDDINGS, RECOGNIZE
from benchmarks.serve.client import ask, form_request, json_request, request
from fashion_retrieval.serve import uploads
from fashion_retrieval.serve.engine import Engine
from fashion_retrieval.serve.state import Service
from tests.serve.conftest import photo_file
from tests.support.serving import check_problem, running, tiny_shop

PHOTO = photo_file(1, kind="JPEG")
FILE = [("photos", "a.jpg", PHOTO)]
PHOTOS, SEARCH = "/v1/galleries/shop/photos", "/v1/galleries/shop/search"


@pytest.fixture(scope="module")
def service(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    with tiny_shop(tmp_path_factory.mktemp("serve"), PHOTO, max_pixels=50_000) as made:
        yield made


@pytest.fixture(scope="module")
def port(service: Service) -> Iterator[int]:
    with running(service) as number:
        yield number


def kept(service: Service) -> list[Path]:
    """The files of added photos."""
    folder = (service.uploads or {})["shop"]
    return sorted(folder.iterdir()) if folder.is_dir() else []


@pytest.mark.parametrize(
    ("content", "told"),
    [
        (b"no photo", "a.jpg is not a photo in a known format; convert it to JPEG or PNG"),
        (PHOTO[: len(PHOTO) // 2], "a.jpg can't be decoded (parts of it are lost"),
        (photo_file(30), "a.jpg has 460x220 pixels, over max_pixels=50000"),
    ],
    ids=["no photo", "cut", "too large"],
)
def test_added_photo_that_fails_is_called_as_the_client_did(
    service: Service, port: int, content: bytes, told: str
) -> None:
    answer = ask(port, form_request(PHOTOS, [("photos", "a.jpg", content)], ids="b"))
    (failure,) = answer.json()["failures"]
    assert (answer.status, answer.json()["added"], failure["source"]) == (200, 0, "b")
    assert failure["error"]["detail"].startswith(told)
    assert not kept(service)


def test_full_disk_is_503_and_leaves_nothing(service: Service, port: int, monkeypatch: pytest.MonkeyPatch) -> None:
    written = uploads.write_atomically

    def full(path: Path) -> Any:
        if len(kept(service)) == 1:
            raise OSError(errno.ENOSPC, "No space left on device")
        return written(path)

    monkeypatch.setattr(uploads, "write_atomically", full)
    files = [*FILE, ("photos", "b.jpg", photo_file(2))]
    detail = check_problem(ask(port, form_request(PHOTOS, files, ids='["b", "c"]')), 503)
    assert detail == "the gallery can't be used now; the server's log says why"
    assert (kept(service), len(service.gallery("shop"))) == ([], 1)


def own(**category: object) -> dict[str, object]:
    """A taxonomy of one's own."""
    return {"category": {"values": ["shirt", "dress"]} | category}


def deep(levels: int) -> str:
    return '{"category": ' + "[" * levels + "]" * levels + "}"


@pytest.mark.parametrize(
    ("taxonomy", "told"),
    [
        (own(template="{category:>20000000}"), "must use only {category} and {color}"),
        (own(template="{category!r}"), "must use only {category} and {color}"),
        (own(template="{category:{color}}"), "must use only {category} and {color}"),
        (own(values=["x" * 200_000, "dress"]), "texts of a taxonomy may have 256 letters, got 200000"),
        (own(values=[f"v{n}" for n in range(6_000)]), "may have 5000 entries, got more"),
        ({"category": {}, "attributes": {f"k{n}": {} for n in range(6_000)}}, "may have 5000 entries, got more"),
        (
            own(template=[f"{{category}} {n}" for n in range(300)], values=[f"v{n}" for n in range(300)]),
            "may make 30000 prompts, got up to 2430000",
        ),
        (deep(150), "'category' must be"),
        (deep(900), "must be JSON, which this is not (recursion limit exceeded"),
        ('{"name": "\\ud800", "category": {"values": ["a", "b"]}}', "must be JSON, which this is not"),
    ],
    ids=["width", "conversion", "nested", "long", "many", "empty", "product", "deep", "deeper", "surrogate"],
)
def test_own_taxonomy_is_bounded(port: int, taxonomy: object, told: str) -> None:
    given = taxonomy if isinstance(taxonomy, str) else json.dumps(taxonomy)
    answer = ask(port, form_request(RECOGNIZE, FILE, taxonomy=given))
    assert told in check_problem(answer, 422)
    assert answer.seconds < 5


def test_braces_in_values_are_words(port: int) -> None:
    values = ["{a}", "{0.__class__}", "%s"]
    found = ask(port, form_request(RECOGNIZE, FILE, taxonomy=json.dumps(own(values=values)))).json()["results"][0]
    assert {one["name"] for one in found["garments"][0]["categories"]} == set(values)


@pytest.mark.parametrize("field", ["ids", "taxonomy", "text", "metadata"])
def test_file_in_place_of_a_text_is_422(port: int, field: str) -> None:
    path, photo = {"ids": (PHOTOS, "photos"), "metadata": (PHOTOS, "photos"), "text": ("/v1/compose", "image")}.get(
        field, (RECOGNIZE, "photos")
    )
    fields = {"ids": "x"} if field == "metadata" else {}
    sent = form_request(path, [(photo, "a.jpg", PHOTO), (field, "file", b"[]")], **fields)
    assert check_problem(ask(port, sent), 422).startswith(field)


def test_photo_as_base64_in_a_form_is_a_photo(port: int) -> None:
    sent = form_request(RECOGNIZE, [], photos=base64.b64encode(PHOTO).decode())
    assert ask(port, sent).json()["results"][0]["width"] == 170


def test_text_of_another_charset_is_not_guessed(port: int) -> None:
    sent = form_request(SEARCH, [], text="robe d'ete").replace(b"ete", b"\xe9t\xe9")
    assert check_problem(ask(port, sent), 400) == "the form's fields must be texts in UTF-8; encode them so"


def test_compressed_body_is_415(port: int) -> None:
    sent = json_request(EMBEDDINGS, {"input": "red"}, Content_Encoding="gzip")
    assert check_problem(ask(port, sent), 415) == "a body must not be compressed; leave Content-Encoding out"


@pytest.mark.parametrize("name", ["a\nb", "a\u2028b", "\x1b[31m", "\u202e"])
def test_detail_is_one_line_whatever_a_client_names(port: int, name: str) -> None:
    detail = check_problem(ask(port, json_request(RECOGNIZE, {"photos": [], name: 1})), 422)
    assert detail.isprintable()


def test_many_faults_are_counted_not_listed(port: int) -> None:
    answer = ask(port, json_request(RECOGNIZE, {f"key {n}": n for n in range(100_000)}))
    assert check_problem(answer, 422) == "the request has 100001 faults; /docs has an example"
    form = ask(port, form_request(PHOTOS, [("photos", "", b"")] * 1_500))
    assert check_problem(form, 422) == "the form may have 1000 photos, got more; send several requests"
    assert answer.seconds + form.seconds < 5


@pytest.mark.parametrize(
    ("status", "headers"),
    [
        (403, {"Origin": "http://["}),
        (403, {"Origin": "http://127.0.0.1.evil.example"}),
        (403, {"Origin": "null", "Host": ""}),
        (403, {"Host": "localhost.evil.example"}),
        (403, {"Host": "localhost@evil.example:80"}),
        (403, {"Host": "0x7f000001"}),
        (200, {"Host": "LOCALHOST:8000"}),
        (200, {"Host": "127.0.0.2:8000"}),
        (200, {"Host": "[::1]:8000", "Origin": "http://[::1]:8000"}),
    ],
)
def test_hosts_and_origins(port: int, status: int, headers: dict[str, str]) -> None:
    answer = ask(port, request("GET", "/v1/models", **headers))
    assert answer.status == status
    assert status == 200 or check_problem(answer, status)


@pytest.mark.parametrize(("status", "options"), [(413, {}), (401, {"keys": ["0123456789abcdef"]})])
def test_client_that_sends_all_of_its_body_sees_why_it_is_refused(
    service: Service, status: int, options: dict[str, Any]
) -> None:
    # Before the service read on, Python's own client saw a connection that was reset, each time.
    with running(Service(service.engine, max_body=6_000_000 if status == 413 else 20_000_000), **options) as port:
        for _ in range(5):
            connection = http.client.HTTPConnection("127.0.0.1", port, timeout=20)
            connection.request("POST", RECOGNIZE, bytes(8_000_000), {"Content-Type": "application/json"})
            with closing(connection), connection.getresponse() as answer:
                assert (answer.status, json.loads(answer.read())["status"]) == (status, status)


def test_bodies_count_until_they_are_parsed(service: Service, monkeypatch: pytest.MonkeyPatch) -> None:
    go, held = threading.Event(), Service(service.engine, max_body=1_000)

    def parse(body: bytes) -> int:
        assert go.wait(30)
        return len(body)

    class Sent:
        async def stream(self) -> Any:
            yield bytes(900)

    async def both() -> list[Any]:
        requests: Any = [Sent() for _ in range(20)]
        asked = [asyncio.create_task(held.read_body(one, parse)) for one in requests]
        while held._arriving < 15_000:
            await asyncio.sleep(0.001)
        await asyncio.sleep(0.01)
        go.set()
        return await asyncio.gather(*asked, return_exceptions=True)

    found = asyncio.run(both())
    assert (found.count(900), held._arriving) == (17, 0)
    assert {str(one) for one in found if one != 900} == {"too many bodies arrive at once; ask again in a moment"}


def test_request_that_no_queue_would_hold_is_422(service: Service) -> None:
    engine = Engine(service.engine.model, queue=4)
    with running(Service(engine)) as port:
        detail = check_problem(ask(port, json_request(EMBEDDINGS, {"input": ["red"] * 5})), 422)
        assert detail == "a request may have 4 photos and texts, got 5; split it"
        assert ask(port, json_request(EMBEDDINGS, {"input": ["red"] * 4})).status == 200
    engine.close()


@pytest.mark.parametrize("kind", ["missing", "folder"])
def test_wish_about_a_photo_that_is_gone_names_no_path(service: Service, port: int, tmp_path: Path, kind: str) -> None:
    path = tmp_path / "gone.jpg"
    path.write_bytes(PHOTO)
    service.gallery("shop").add([path], ["gone"])
    path.unlink()
    if kind == "folder":
        path.mkdir()
    detail = check_problem(ask(port, json_request(SEARCH, {"id": "gone", "text": "in red"})), 422)
    assert detail == "the file of photo 'gone' can't be read; send the photo itself"
    service.gallery("shop").delete(["gone"])


def test_id_that_is_deleted_while_it_is_looked_up_is_404(
    service: Service, port: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    gallery = service.gallery("shop")
    embeddings = gallery.embeddings
    for error in (lambda: embeddings(["nobody"]), lambda: {}["a"]):
        monkeypatch.setattr(gallery, "embeddings", lambda _, error=error: error())
        assert check_problem(ask(port, json_request(SEARCH, {"id": "a"})), 404) == "this gallery has no photo 'a'"


def test_wish_about_an_unknown_id_is_404(port: int) -> None:
    assert check_problem(ask(port, json_request(SEARCH, {"id": "nobody", "text": "in red"})), 404)
