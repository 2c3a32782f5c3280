"""The routes: their answers are those of the library."""

from __future__ import annotations

import asyncio
import base64
from io import BytesIO
from pathlib import Path
from threading import Event
from typing import Any

import numpy as np
from fastapi.testclient import TestClient
from PIL import Image

from fashion_retrieval import FashionModel, Gallery, Refinement
from fashion_retrieval.serve.app import create_app
from fashion_retrieval.serve.engine import Engine
from fashion_retrieval.serve.state import Service
from tests.serve.conftest import HERE, alike, photo_file

KEY = "0123456789abcdef"


def encoded(number: int) -> str:
    return base64.b64encode(photo_file(number)).decode()


def test_recognize(client: TestClient, model: FashionModel) -> None:
    expected = model.recognize(photo_file(1), top_k=2)
    assert expected.garments
    sent = {"photos": [encoded(1), f"data:image/png;base64,{encoded(1)}"], "top_k": 2, "masks": True}
    answer = client.post("/v1/recognize", json=sent).json()
    assert answer["model"] == "compact"
    for number, result in enumerate(answer["results"]):
        assert alike(result, {**expected.to_dict(masks=True), "source": f"photos[{number}]"})
    files = [("photos", ("a/shirt.png", photo_file(1))), ("photos", ("bad.png", b"no photo"))]
    good, bad = client.post("/v1/recognize", files=files, data={"top_k": "2"}).json()["results"]
    assert alike(good, {**expected.to_dict(), "source": "shirt.png"})
    assert (bad["source"], bad["error"]["status"]) == ("bad.png", 422)
    assert bad["error"]["detail"].startswith("bad.png is not a photo in a known format")
    boxed = client.post("/v1/recognize", json={"photos": [encoded(1)], "boxes": [[10, 20, 150, 200]]}).json()
    assert boxed["results"][0]["garments"][0]["box"] == [10, 20, 150, 200]
    own = {
        "name": "own",
        "category": {"template": "a photo of a {color} {category}", "values": {"top": ["top"], "hat": ["hat"]}},
        "attributes": {},
    }
    mine = client.post("/v1/recognize", json={"photos": [encoded(1)], "taxonomy": own}).json()["results"][0]
    assert {one["name"] for one in mine["garments"][0]["categories"]} == {"top", "hat"}


def test_embeddings_have_the_shape_of_openais(client: TestClient, model: FashionModel) -> None:
    shirt = f"data:image/png;base64,{encoded(2)}"
    sent = {"input": ["a green shirt", shirt, {"image": encoded(2)}, {"text": "a green shirt"}], "model": "compact"}
    answer = client.post("/v1/embeddings", json=sent).json()
    rows = np.array([row["embedding"] for row in answer["data"]])
    text, photo = model.encode(texts="a green shirt")[0], model.encode(images=photo_file(2))[0]
    np.testing.assert_allclose(rows, [text, photo, photo, text], atol=1e-4)
    assert [row["index"] for row in answer["data"]] == [0, 1, 2, 3]
    assert (answer["object"], answer["model"]) == ("list", "compact")
    assert answer["usage"] == {"prompt_tokens": 10, "total_tokens": 10}  # begin and end with three words each
    packed = client.post(
        "/v1/embeddings", json={"input": "a green shirt", "encoding_format": "base64", "dimensions": 8}
    )
    short = np.frombuffer(base64.b64decode(packed.json()["data"][0]["embedding"]), "<f4")
    np.testing.assert_allclose(short, model.encode(texts="a green shirt", dimensions=8)[0], atol=1e-4)


def test_compose_and_search(client: TestClient, model: FashionModel, gallery: Gallery) -> None:
    query = model.compose(photo_file(0), "in blue", text_weight=0.7)[0]
    sent = {"image": encoded(0), "text": "in blue", "text_weight": 0.7}
    np.testing.assert_allclose(client.post("/v1/compose", json=sent).json()["embedding"], query, atol=1e-4)

    def ids(**asked: Any) -> list[str]:
        answer = client.post("/v1/galleries/shop/search", json=asked)
        assert answer.status_code == 200, answer.text
        return [match["id"] for match in answer.json()["results"]]

    assert ids(**sent) == [match.id for match in gallery.search(query)]
    by_text = [match.id for match in gallery.search(model.encode(texts="a navy shirt")[0])]
    assert ids(text="a navy shirt") == by_text
    assert ids(text="a navy shirt", top_k=2, offset=1) == by_text[1:3]
    assert ids(text="a navy shirt", exclude=by_text[:1]) == by_text[1:]
    words = model.encode(texts="a navy shirt")[0]
    for given in ({"unique": True}, {"group_by": "price"}, {"min_score": gallery.search(words)[1].score, "offset": 1}):
        assert ids(text="a navy shirt", **given) == [match.id for match in gallery.search(words, **given)]
    unwanted = ids(text="a shirt, not blue", offset=1, unique=True)
    assert unwanted == ids(text="a shirt, not blue", unique=True)[1:]
    refused = client.post("/v1/galleries/shop/search", json={"text": "a shirt", "group_by": "brand"})
    assert refused.status_code == 422
    assert "group_by must be a field of this gallery, got 'brand'" in refused.text
    assert ids(image=encoded(3), top_k=1) == ["shirt/3"]
    near = [match.id for match in gallery.search(model.encode(images=photo_file(2))[0])]
    assert ids(id="shirt/2") == [id for id in near if id != "shirt/2"]
    assert sorted(ids(id="shirt/2", text="in gold")) == ["shirt/0", "shirt/1", "shirt/3"]
    assert sorted(ids(text="a shirt", where="price >= 20")) == ["shirt/2", "shirt/3"]
    form = client.post("/v1/galleries/shop/search", files={"image": photo_file(3)}, data={"top_k": "1"}).json()
    (match,) = form["results"]
    assert match["fields"] == {"price": 30}
    picture = client.get(match["image"], params={"size": 64})
    assert picture.headers["content-type"] == "image/jpeg"
    assert max(Image.open(BytesIO(picture.content)).size) == 64


def test_adding_and_deleting(client: TestClient, gallery: Gallery, tmp_path: Path) -> None:
    uploads = tmp_path / "gallery/photos"
    files = [("photos", ("x.png", photo_file(4))), ("photos", ("bad.png", b"no photo"))]
    data = {"ids": ["new/../4", "bad"], "metadata": '[{"price": 7}, {}]'}
    report = client.post("/v1/galleries/shop/photos", files=files, data=data).json()
    assert (report["added"], report["updated"], [one["source"] for one in report["failures"]]) == (1, 0, ["bad"])
    assert gallery.get("new/../4").fields == {"price": 7}
    assert len(list(uploads.iterdir())) == 1
    found = client.post("/v1/galleries/shop/search", json={"image": encoded(4), "top_k": 1}).json()["results"][0]
    assert found["id"] == "new/../4"
    assert client.get(found["image"]).status_code == 200
    replaced = client.post("/v1/galleries/shop/photos", json={"photos": [encoded(5)], "ids": ["new/../4"]}).json()
    assert replaced["updated"] == 1
    assert [path.read_bytes() for path in uploads.iterdir()] == [photo_file(5)]
    assert client.delete("/v1/galleries/shop/photos/new%2F..%2F4").json() == {"deleted": 1}
    assert not list(uploads.iterdir())
    gone = client.request("DELETE", "/v1/galleries/shop/photos", json={"ids": ["shirt/0", "none"]})
    assert gone.json() == {"deleted": 1}
    assert (tmp_path / "0.png").is_file()  # the owner's own file stays
    assert len(gallery) == 3


def test_a_service_for_reading_has_no_way_to_write(engine: Engine, gallery: Gallery) -> None:
    with TestClient(create_app(Service(engine, {"shop": gallery})), base_url=HERE) as client:
        assert client.post("/v1/galleries/shop/photos", json={"photos": [encoded(0)], "ids": ["x"]}).status_code == 404
        assert client.delete("/v1/galleries/shop/photos/shirt%2F0").status_code in (404, 405)
        assert client.get("/v1/galleries/shop").json()["writable"] is False
    assert len(gallery) == 4


def test_what_the_service_tells_of_itself(client: TestClient, model: FashionModel) -> None:
    assert client.get("/healthz").json() == client.get("/readyz").json() == {"status": "ok"}
    (told,) = client.get("/v1/models").json()["data"]
    assert (told["id"], told["embedding_dim"], told["fingerprint"]) == (
        "compact",
        model.embedding_dim,
        model.fingerprint,
    )
    (shop,) = client.get("/v1/galleries").json()
    assert shop == {"name": "shop", "count": 4, "fields": {"price": "int"}, "taxonomy": None, "writable": True}
    client.get("/nothing/here")
    client.post("/v1/embeddings", json={"input": ["a", "b"]})
    counted = client.get("/metrics").text
    assert 'fashion_retrieval_requests_total{method="GET",route="other",status="404"} 1.0' in counted
    assert 'fashion_retrieval_requests_total{method="POST",route="/v1/embeddings",status="200"} 1.0' in counted
    assert "fashion_retrieval_queue 0.0" in counted
    assert 'fashion_retrieval_batch_size_count{kind="text"}' in counted
    page = client.get("/docs").text
    assert "http://" not in page.replace(HERE, "")
    assert "https://" not in page
    for path in ("swagger/swagger-ui-bundle.js", "swagger/swagger-ui.css", "openapi.json"):
        assert path in page
        assert client.get(f"/{path}").status_code == 200


def test_keys_hosts_and_origins(engine: Engine) -> None:
    def status(client: TestClient, path: str = "/v1/models", **headers: Any) -> int:
        return client.get(path, headers=headers).status_code

    with TestClient(create_app(Service(engine), keys=(KEY, KEY[::-1])), base_url="http://shop.example") as client:
        refused = client.get("/v1/models")
        assert (refused.status_code, refused.headers["www-authenticate"].split()[0]) == (401, "Basic")
        assert (
            status(client, authorization=f"Bearer {KEY}") == status(client, authorization=f"bearer {KEY[::-1]}") == 200
        )
        basic = base64.b64encode(f"anyone:{KEY}".encode()).decode()
        assert status(client, authorization=f"Basic {basic}") == 200
        for wrong in (f"Bearer {KEY}x", "Bearer", KEY, "Basic !", b"Bearer \xe9"):
            assert status(client, authorization=wrong) == 401
        assert status(client, "/healthz") == status(client, "/readyz") == 200
        assert status(client, "/docs") == status(client, "/metrics") == 401
    with TestClient(create_app(Service(Engine(engine.model))), base_url=HERE) as client:
        for host in ("localhost", "localhost:8000", "127.0.0.1", "[::1]:80"):
            assert status(client, host=host) == 200
        for host in ("shop.example", "127.0.0.1.evil.example", "[::1", "localhost@evil.example", ""):
            assert status(client, host=host) == 403
        assert status(client, origin=HERE) == 200
        assert status(client, origin="https://evil.example") == status(client, origin="null") == 403
    site = "https://shop.example"
    with TestClient(create_app(Service(Engine(engine.model)), keys=(KEY,), origins=(site,)), base_url=HERE) as client:
        asked = {
            "origin": site,
            "access-control-request-method": "POST",
            "access-control-request-headers": "authorization",
        }
        allowed = client.options("/v1/recognize", headers=asked)
        assert (allowed.status_code, allowed.headers["access-control-allow-origin"]) == (200, site)
        answer = client.get("/v1/models", headers={"origin": site, "authorization": f"Bearer {KEY}"})
        assert answer.headers["access-control-allow-origin"] == site
        assert answer.headers["access-control-expose-headers"] == "Retry-After"
        refused = client.get("/v1/models", headers={"origin": site})  # and the site's script can read why
        assert (refused.status_code, refused.headers["access-control-allow-origin"]) == (401, site)
        refused = client.get("/v1/models", headers={"origin": "https://evil.example"})
        assert (refused.status_code, refused.headers.get("access-control-allow-origin")) == (403, None)


def test_unknown_and_missing_fields_are_told_in_words(engine: Engine) -> None:
    with TestClient(create_app(Service(engine)), base_url=HERE) as client:
        unknown = client.post("/v1/recognize", json={"photo": "", "taxonomy": 5}).json()["detail"]
    assert "photos: this field is needed" in unknown
    assert "photo: there is no such field; /docs lists those there are" in unknown
    assert "literal[" not in unknown


def test_a_full_queue_and_a_late_answer_are_503(model: FashionModel) -> None:
    engine = Engine(model, queue=2)
    go, begun = Event(), Event()
    with TestClient(create_app(Service(engine, timeout=0.5)), base_url=HERE) as client:
        engine.run(lambda: (begun.set(), go.wait(30)))
        assert begun.wait(30)
        late = client.post("/v1/embeddings", json={"input": "a shirt"})
        assert (late.status_code, late.headers["retry-after"]) == (503, "1")
        assert late.json()["detail"] == "there was no answer within 0.5 s; ask again in a moment"
        assert engine.under_way == 1  # what nobody waits for has left the queue
        many = client.post("/v1/embeddings", json={"input": ["a", "b"]})
        assert (many.status_code, engine.under_way) == (503, 1)
        other = engine.run(lambda: None)
        full = client.post("/v1/embeddings", json={"input": "a shirt"})
        assert full.json()["detail"] == "the queue is full; ask again in a moment"
        assert client.get("/readyz").status_code == 503
        assert client.get("/healthz").status_code == 200
        go.set()
        other.result(30)
        assert client.post("/v1/embeddings", json={"input": "a shirt"}).status_code == 200


def test_a_client_that_leaves_takes_its_photos_along(model: FashionModel) -> None:
    engine = Engine(model)
    go, begun = Event(), Event()
    engine.run(lambda: (begun.set(), go.wait(30)))
    assert begun.wait(30)
    app = create_app(Service(engine))

    async def leave() -> None:
        messages = [{"type": "http.request", "body": b'{"input": ["a", "b", "c"]}', "more_body": False}]
        scope = {
            "type": "http",
            "method": "POST",
            "path": "/v1/embeddings",
            "raw_path": b"",
            "query_string": b"",
            "headers": [(b"host", b"localhost"), (b"content-type", b"application/json")],
            "http_version": "1.1",
        }
        gone = asyncio.Event()

        async def receive() -> dict[str, Any]:
            if messages:
                return messages.pop()
            await gone.wait()
            return {"type": "http.disconnect"}

        async def send(_: Any) -> None:
            pass

        asked = asyncio.ensure_future(app(scope, receive, send))
        while engine.under_way < 4:
            await asyncio.sleep(0.001)
        gone.set()
        await asked

    asyncio.run(leave())
    assert engine.under_way == 1
    go.set()
    engine.close()


def test_the_examples_of_the_api_page_work(client: TestClient) -> None:
    worked = []
    for path, methods in client.get("/openapi.json").json()["paths"].items():
        for method, told in methods.items():
            if "requestBody" in told:
                example = told["requestBody"]["content"]["application/json"]["example"]
                asked = {k: v for k, v in example.items() if k != "where"}  # this gallery recognizes nothing
                answer = client.request(method.upper(), path.replace("{name}", "shop"), json=asked)
                assert answer.status_code == 200, answer.text
                worked.append((method, path.rpartition("/")[2]))
    expected = ["compose", "embeddings", "explain", "photos", "recognize", "search"]
    assert sorted(map(" ".join, worked)) == ["delete photos", *(f"post {name}" for name in expected)]


def test_explain_is_the_models(client: TestClient, model: FashionModel) -> None:
    expected = model.explain(photo_file(0), "in blue", text_weight=0.7)
    sent = {"image": encoded(0), "text": "in blue", "text_weight": 0.7}
    answer = client.post("/v1/explain", json=sent).json()
    np.testing.assert_allclose(answer.pop("embedding"), expected.query[0], atol=1e-4)
    assert answer.pop("model") == "compact"
    assert alike(answer, expected.to_dict())
    for wrong in ({"text": " "}, {"text": 7}, {"text": None}, {"image": "eA=="}, {"text_weight": -1}):
        assert client.post("/v1/explain", json=sent | wrong).status_code == 422


def test_a_search_says_what_was_understood(client: TestClient) -> None:
    def understood(text: str) -> str | None:
        return client.post("/v1/galleries/shop/search", json={"text": text}).json()["understood"]

    assert understood("a red shirt") is None
    assert understood("anything but red") == "not red"
    both = "long sleeves and short sleeves"
    assert understood(both) == f"{both}; {both} exclude each other"


def test_a_search_reads_what_is_not_wanted(client: TestClient, model: FashionModel, gallery: Gallery) -> None:
    def ids(**asked: Any) -> list[str]:
        return [match["id"] for match in client.post("/v1/galleries/shop/search", json=asked).json()["results"]]

    assert ids(text="a shirt, not red", top_k=3) == [
        match.id for match in Refinement(model, gallery).ask("a shirt, not red", top_k=3)
    ]
    with_photo = Refinement(model, gallery).ask("not gold", photo_file(3))
    assert ids(text="not gold", image=encoded(3)) == [match.id for match in with_photo]
    assert ids(text="not gold", id="shirt/3") == [match.id for match in with_photo if match.id != "shirt/3"]
    refused = client.post("/v1/galleries/shop/search", json={"text": "red, not red"})
    assert (refused.status_code, refused.json()["detail"][:31]) == (422, "text asks for red and for no re")
