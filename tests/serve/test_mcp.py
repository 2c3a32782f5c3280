"""Tools for agents, asked by the SDK's own client: in memory, over stdio and over streamable HTTP."""

import asyncio
import json
import os
import shutil
import socket
import sys
from base64 import b64decode, b64encode
from contextlib import contextmanager
from io import BytesIO
from threading import Event, Thread

import httpx
import httpx2
import pytest
import uvicorn
from jsonschema import Draft202012Validator
from mcp import Client, StdioServerParameters
from mcp.client.stdio import stdio_client
from mcp.client.streamable_http import streamable_http_client
from PIL import Image

from fashion_retrieval import Gallery
from fashion_retrieval._utils import optional
from fashion_retrieval.cli import app
from fashion_retrieval.errors import InputError
from fashion_retrieval.serve import tools
from fashion_retrieval.serve.engine import Engine
from fashion_retrieval.serve.mcp import build_mcp, http_app
from tests.support.galleries import tiny_model
from tests.support.paths import ROOT
from tests.support.tiny import drawn_photo, tiny_folder

WARDROBE = ROOT / "examples" / "wardrobe"
IDS = ["red-tee", "blue-tee", "striped-tee", "blue-dress", "dark-jeans"]
KEY = "0123456789abcdef"


@pytest.fixture(scope="module")
def engine(model):
    engine = Engine(model)
    yield engine
    engine.close()


@pytest.fixture(scope="module")
def gallery(model, tmp_path_factory):
    """Five recognized photos; the file of the last is gone."""
    folder = tmp_path_factory.mktemp("shop")
    files = [shutil.copy(WARDROBE / f"{id}.jpg", folder / f"{id}.jpg") for id in IDS]
    with Gallery.create(folder / "gallery", model, recognize=True, fields={"price": float}) as gallery:
        gallery.add(files, IDS, [{"price": 10.0 * place} for place in range(len(IDS))])
        (folder / f"{IDS[-1]}.jpg").unlink()
        yield gallery


@pytest.fixture(scope="module")
def server(engine, gallery):
    return build_mcp(engine, {"shop": gallery}, photos=WARDROBE)


def ask(server, tool, mode="auto", **arguments):
    """What the client gets; it checks structured content against the tool's output schema itself."""

    async def call():
        async with Client(server, mode=mode) as client:
            return await client.call_tool(tool, arguments)

    return asyncio.run(call())


def refused(server, tool, **arguments):
    """The one line of an error."""
    result = ask(server, tool, **arguments)
    (content,) = result.content
    assert (result.is_error, result.structured_content, content.type) == (True, None, "text")
    assert "\n" not in content.text
    assert "Traceback" not in content.text
    assert str(ROOT) not in content.text
    return content.text


def told(result):
    assert not result.is_error, result.content
    assert json.loads(result.content[0].text) == result.structured_content
    return result.structured_content


def pictures(result):
    """Label and size of each picture."""
    labels, images = result.content[1::2], result.content[2::2]
    assert {content.type for content in images} <= {"image"}
    assert {content.mime_type for content in images} <= {"image/jpeg"}
    opened = [Image.open(BytesIO(b64decode(content.data))) for content in images]
    assert {image.format for image in opened} <= {"JPEG"}
    return [(label.text, image.size) for label, image in zip(labels, opened, strict=True)]


def listed(server, mode="auto"):
    async def call():
        async with Client(server, mode=mode) as client:
            return {tool.name: tool for tool in (await client.list_tools()).tools}

    return asyncio.run(call())


@pytest.mark.parametrize("mode", ["auto", "legacy"])
def test_tools_tell_an_agent_when_to_use_them(server, mode):
    found = listed(server, mode)
    assert list(found) == ["recognize", "search", "compose", "list_galleries"]
    for tool in found.values():
        hints = tool.annotations
        assert (hints.read_only_hint, hints.idempotent_hint, hints.open_world_hint) == (True, True, False)
        assert "Use it " in tool.description
        assert 100 < len(tool.description) < 800
        for schema in (tool.input_schema, tool.output_schema):
            Draft202012Validator.check_schema(schema)
            assert schema["type"] == "object"
        assert tool.input_schema["additionalProperties"] is False
        assert all(field["description"] for field in tool.input_schema["properties"].values())
    required = {name: tool.input_schema.get("required", []) for name, tool in found.items()}
    assert required == {"recognize": ["photo"], "search": [], "compose": ["wishes"], "list_galleries": []}


def test_paths_are_offered_only_with_a_folder_of_photos(server, engine):
    described = [
        listed(each)["recognize"].input_schema["properties"]["photo"]["description"]
        for each in (server, build_mcp(engine, {}))
    ]
    assert ["path" in text for text in described] == [True, False]


def test_recognize_tells_what_the_library_tells(server, model):
    expected = model.recognize(WARDROBE / "red-tee.jpg").to_dict()["garments"]
    content = (WARDROBE / "red-tee.jpg").read_bytes()
    base64 = b64encode(content).decode()
    for photo in ("red-tee.jpg", "../wardrobe/red-tee.jpg", base64, f"data:image/jpeg;base64,{base64}"):
        result = ask(server, "recognize", photo=photo)
        assert told(result)["garments"] == expected
        ((label, size),) = pictures(result)
        assert (label, size[0]) == ("The photo with its garments, numbered in order.", 640)
    assert expected[0]["color"] == "red"


def test_recognize_looks_into_given_boxes(server):
    found = told(ask(server, "recognize", photo="red-tee.jpg", boxes="[[10, 10, 90, 120]]", top_k=1))["garments"]
    assert [garment["box"] for garment in found] == [[10, 10, 90, 120]]
    assert len(found[0]["categories"]) == 1


@pytest.mark.parametrize("mode", ["auto", "legacy"])
def test_search_by_text_ranks_as_the_library_does(server, gallery, model, mode):
    result = ask(server, "search", mode, text="a striped shirt", top_k=5)
    expected = gallery.search(model.encode(texts="a striped shirt"), 5)
    found = told(result)["results"]
    assert [one["id"] for one in found] == [match.id for match in expected]
    assert [one["score"] for one in found] == pytest.approx([match.score for match in expected], abs=1e-4)
    assert found[0]["fields"] == expected[0].fields
    assert found[0]["id"] == "striped-tee"
    shown = pictures(result)
    assert [label for label, _ in shown] == [
        f"{rank}. {match.id}" for rank, match in enumerate(expected, start=1) if match.id != "dark-jeans"
    ]
    assert {max(size) for _, size in shown} == {256}


def test_search_by_photo_id_filter_and_wish(server, gallery, model):
    photo = b64encode((WARDROBE / "red-tee.jpg").read_bytes()).decode()
    first = told(ask(server, "search", gallery="shop", photo=photo, top_k=1))["results"][0]
    assert (first["id"], first["score"]) == ("red-tee", pytest.approx(1, abs=1e-3))
    like = told(ask(server, "search", id="red-tee", thumbnails=False))["results"]
    assert len(like) == len(IDS) - 1
    assert "red-tee" not in [one["id"] for one in like]
    result = ask(server, "search", text="a dress", where="color = 'blue' AND price < 20", thumbnails=False)
    assert [one["id"] for one in told(result)["results"]] == ["blue-tee"]
    assert len(result.content) == 1
    wish = told(ask(server, "search", id="red-tee", text="in blue", top_k=1))["results"]
    expected = gallery.search(model.compose(gallery.get("red-tee"), "in blue"), 1, exclude={"red-tee"})
    assert [one["id"] for one in wish] == [match.id for match in expected] == ["blue-tee"]


def test_compose_keeps_the_wishes_that_hold(server, gallery, model):
    result = ask(server, "compose", photo="red-tee.jpg", wishes=["in green", "striped", "in blue"], top_k=3)
    query = model.compose(WARDROBE / "red-tee.jpg", "striped and in blue")
    found = told(result)
    assert found["wishes"] == ["striped", "in blue"]
    assert [one["id"] for one in found["results"]] == [match.id for match in gallery.search(query, 3)]
    assert len(pictures(result)) == 3
    again = told(ask(server, "compose", id="red-tee", wishes='["in blue"]', exclude=["blue-tee"], text_weight=0.9))
    assert not {"red-tee", "blue-tee"} & {one["id"] for one in again["results"]}


def test_list_galleries_tells_fields_and_values(server):
    (shop,) = told(ask(server, "list_galleries"))["galleries"]
    fields = {field["name"]: field for field in shop["fields"]}
    assert (shop["name"], shop["count"]) == ("shop", 5)
    assert list(fields)[:2] == ["category", "color"]
    assert fields["price"] == {"name": "price", "type": "float", "values": None}
    assert "dress" in fields["category"]["values"]
    assert "navy" in fields["color"]["values"] or "blue" in fields["color"]["values"]
    assert "long_sleeve" in fields["sleeve"]["values"]


@pytest.mark.parametrize(
    ("tool", "arguments", "words"),
    [
        ("search", {}, "a query needs a text, a photo or an id"),
        ("search", {"text": ""}, "text: String should have at least 1 character"),
        ("search", {"photo": "red-tee.jpg", "id": "red-tee"}, "a query has a photo or an id, got both"),
        ("search", {"text": "a", "top_k": 51}, "top_k: Input should be less than or equal to 50"),
        ("search", {"text": "a", "limit": 3}, "limit: Extra inputs are not permitted"),
        ("search", {"text": "a", "gallery": "attic"}, "gallery must be the name of one, got 'attic'; there are: shop"),
        ("search", {"text": "a", "where": "size = 3"}, "where names an unknown field 'size'"),
        ("search", {"id": "nothing"}, "gallery 'shop' has no photo with id 'nothing'"),
        ("compose", {"wishes": ["red"]}, "compose needs a photo or an id, got neither"),
        ("compose", {"id": "red-tee", "wishes": []}, "wishes: List should have at least 1 item"),
        ("compose", {"id": "red-tee", "wishes": ["red"], "text_weight": 2}, "text_weight: Input should be less"),
        ("compose", {"id": "dark-jeans", "wishes": ["red"]}, "does not exist"),
        ("recognize", {}, "photo: Field required"),
        ("recognize", {"photo": "!!!"}, "a photo must be base64 of its file, which this is not"),
        ("recognize", {"photo": "data:image/png,abc"}, "a data URL must be"),
        ("recognize", {"photo": "http://127.0.0.1/a.jpg"}, "addresses are not fetched"),
        ("recognize", {"photo": "file:///etc/passwd"}, "addresses are not fetched"),
        ("recognize", {"photo": b64encode(b"hello").decode()}, "is not a photo in a known format"),
        ("recognize", {"photo": "red-tee.jpg", "boxes": [[5, 5, 1, 1]]}, "box"),
        ("delete", {}, "there is no tool 'delete'; the tools are recognize, search, compose, list_galleries"),
    ],
)
def test_errors_are_one_line(server, tool, arguments, words):
    assert words in refused(server, tool, **arguments)


@pytest.fixture(scope="module")
def trap(tmp_path_factory):
    """A folder of photos with ways out of it."""
    folder = tmp_path_factory.mktemp("outside")
    drawn_photo().save(folder / "secret.png")
    inside = folder / "photos"
    (inside / "deep").mkdir(parents=True)
    drawn_photo().save(inside / "deep" / "a.png")
    (inside / "link.png").symlink_to(inside / "deep" / "a.png")
    (inside / "out.png").symlink_to(folder / "secret.png")
    (inside / "up.d").symlink_to(folder)
    (inside / "round.png").symlink_to(inside / "round.png")
    os.mkfifo(inside / "pipe.png")
    return inside


@pytest.mark.parametrize("photo", ["deep/a.png", "link.png", "./deep/../deep/a.png"])
def test_paths_in_the_folder_are_read(engine, trap, photo):
    assert told(ask(build_mcp(engine, {}, photos=trap), "recognize", photo=photo))["width"] == 48


@pytest.mark.parametrize(
    "photo",
    [
        *("../secret.png", "deep/../../secret.png", "out.png", "up.d/secret.png", "round.png", "pipe.png", "deep/."),
        *("/etc/hostname.", "/proc/self/fd/0.", "~/.ssh/id", "missing.png", ".", "..", "a\0.png", "x" * 300 + ".png"),
        *("C:\\photos\\a.png", "../photos2.png"),
    ],
)
def test_paths_that_lead_outside_or_are_no_photo_are_refused(engine, trap, photo):
    line = refused(build_mcp(engine, {}, photos=trap), "recognize", photo=photo)
    assert line.startswith("there is no photo ")
    assert line.endswith(" of at most 64 MiB in the server's photo folder; check its path in it")
    assert str(trap) not in line


def test_large_files_are_refused_unread(engine, trap):
    with (trap / "large.png").open("wb") as file:
        file.truncate((64 << 20) + 1)
    assert "at most 64 MiB" in refused(build_mcp(engine, {}, photos=trap), "recognize", photo="large.png")


def test_no_path_is_read_without_a_folder(engine):
    line = refused(build_mcp(engine, {}), "recognize", photo=str(WARDROBE.relative_to(ROOT) / "red-tee.jpg"))
    assert "reads no paths; send the file as base64, or start the server with --photos DIR" in line


def test_a_folder_of_photos_must_exist(engine, tmp_path):
    with pytest.raises(InputError, match=r"the folder of photos must exist, got '.*'; give a folder"):
        build_mcp(engine, {}, photos=tmp_path / "nothing")


def test_without_galleries_searches_say_so(engine):
    assert "there are: none; the server is started with them" in refused(build_mcp(engine, {}), "search", text="a")


def test_a_gallery_that_fails_tells_no_path(engine, model, tmp_path, caplog):
    gallery = Gallery.create(tmp_path / "gallery", model)
    gallery.close()
    line = refused(build_mcp(engine, {"shop": gallery}), "search", text="a")
    assert line == "the gallery can't be used now; the server's log says why"
    assert "this gallery is closed" in caplog.text


def test_an_error_that_nobody_expected_tells_nothing(engine, monkeypatch, caplog):
    monkeypatch.setattr(engine, "encode_text", lambda text: {}["a secret"])
    line = refused(build_mcp(engine, {"shop": object()}), "search", text="a")
    assert line == "an error that nobody expected; the server's log says more"
    assert "a secret" in caplog.text


@contextmanager
def occupied(engine):
    """The model's thread is busy."""
    started, go = Event(), Event()
    future = engine.run(lambda: (started.set(), go.wait()))
    started.wait()
    try:
        yield
    finally:
        go.set()
        future.result()


def test_a_full_queue_is_an_error_that_says_try_again(model, gallery):
    engine = Engine(model, queue=1)
    server = build_mcp(engine, {"shop": gallery})
    with occupied(engine):
        assert refused(server, "search", text="a") == "the queue is full, 1 are under way; ask again in a moment"
    assert len(told(ask(server, "search", text="a"))["results"]) == 5
    engine.close()


@pytest.mark.parametrize("mode", ["auto", "legacy"])
def test_a_canceled_call_leaves_the_queue(engine, server, mode):
    async def call():
        async with Client(server, mode=mode) as client:
            task = asyncio.create_task(client.call_tool("search", {"text": "a"}))
            while engine.under_way < 2:
                await asyncio.sleep(0.01)
            task.cancel()
            while engine.under_way > 1:
                await asyncio.sleep(0.01)
            await asyncio.wait({task})
            return task.cancelled()

    with occupied(engine):
        assert asyncio.run(asyncio.wait_for(call(), 10))


@pytest.fixture(scope="module")
def shelf(tmp_path_factory):
    """A tiny model, a gallery of two photos, and those photos in a folder."""
    folder = tmp_path_factory.mktemp("shelf")
    tiny_folder(folder / "model")
    (folder / "photos").mkdir()
    files = [folder / "photos" / f"{name}.png" for name in "ab"]
    for seed, file in enumerate(files):
        drawn_photo(seed=seed).save(file)
    with Gallery.create(folder / "shop", tiny_model()) as gallery:
        gallery.add(files, ["a", "b"])
    return folder


def command(shelf, *arguments):
    call = ["-m", "fashion_retrieval.cli", "mcp", f"tiny={shelf / 'shop'}", "--model", str(shelf / "model")]
    environment = {**os.environ, "HF_HUB_OFFLINE": "1", "PYTHONWARNINGS": "error"}
    return [*call, "--device", "cpu", *map(str, arguments)], environment


def test_over_stdio(shelf, tmp_path):
    """Whatever else came to stdout would be an error that the client is handed; stderr stays empty until the end."""
    arguments, environment = command(shelf, "--photos", shelf / "photos")
    server = StdioServerParameters(command=sys.executable, args=arguments, env=environment)
    strays = []

    async def note(message):
        strays.append(message)

    async def calls():
        with (tmp_path / "stderr").open("w") as errors:
            async with Client(stdio_client(server, errlog=errors), mode="legacy", message_handler=note) as client:
                names = [tool.name for tool in (await client.list_tools()).tools]
                found = await client.call_tool("search", {"photo": "b.png", "top_k": 1})
                missing = await client.call_tool("search", {"photo": "c.png"})
                return names, client.server_info.name, found, missing

    names, name, found, missing = asyncio.run(calls())
    assert (names, name) == (["recognize", "search", "compose", "list_galleries"], "fashion-retrieval")
    assert told(found) == {"gallery": "tiny", "results": [{"id": "b", "score": 1.0, "fields": {}}]}
    assert pictures(found) == [("1. b", (48, 64))]
    assert missing.is_error
    assert (strays, (tmp_path / "stderr").read_text()) == ([], "")


@contextmanager
def listening(server, **options):
    """The address of the HTTP server."""
    with socket.create_server(("127.0.0.1", 0)) as bound:
        config = uvicorn.Config(http_app(server, **options), log_level="error")
        running = uvicorn.Server(config)
        thread = Thread(target=running.run, args=([bound],))
        thread.start()
        while not running.started:
            thread.join(0.01)
        try:
            yield f"http://127.0.0.1:{bound.getsockname()[1]}/mcp"
        finally:
            running.should_exit = True
            thread.join()


@pytest.fixture(scope="module")
def tiny_server(shelf):
    engine = Engine(tiny_model())
    with Gallery.open(shelf / "shop", tiny_model()) as gallery:
        yield build_mcp(engine, {"tiny": gallery})
    engine.close()


@pytest.mark.parametrize("mode", ["auto", "legacy"])
@pytest.mark.parametrize("keys", [(), (KEY,)])
def test_over_http(tiny_server, mode, keys):
    async def call(address):
        headers = {"Authorization": f"Bearer {KEY}"} if keys else {}
        async with (
            httpx2.AsyncClient(headers=headers) as http,
            Client(streamable_http_client(address, http_client=http), mode=mode) as client,
        ):
            return await client.call_tool("search", {"id": "a", "thumbnails": False})

    with listening(tiny_server, keys=keys) as address:
        found = told(asyncio.run(call(address)))
    assert [one["id"] for one in found["results"]] == ["b"]


def test_http_refuses_strangers(tiny_server):
    message = {"jsonrpc": "2.0", "id": 1, "method": "ping"}
    accepted = {"Accept": "application/json, text/event-stream"}

    def status(address, **headers):
        return httpx.post(address, json=message, headers={**accepted, **headers}).status_code

    with listening(tiny_server) as address:
        assert status(address) == 200
        assert status(address, Host="evil.example") == 403
        assert status(address, Origin="http://evil.example") == 403
        assert httpx.post(address, content=b" " * (64 << 20) + b"1").status_code == 413
    with listening(tiny_server, keys=(KEY,)) as address:
        assert status(address) == status(address, Authorization="Bearer 0123456789abcdee") == 401
        assert status(address, Authorization=f"Bearer {KEY}", Host="shop.example") == 200
        assert status(address, Authorization=f"Bearer {KEY}", Origin="http://evil.example") == 403


def run(*arguments):
    from typer.testing import CliRunner

    return CliRunner().invoke(app, ["mcp", *map(str, arguments)])


def test_command_refuses_in_one_line(shelf, tmp_path, monkeypatch):
    model = ("--model", shelf / "model")
    (tmp_path / "keys").write_text("short\n")
    for arguments, words in (
        (["--transport", "http", "--host", "0.0.0.0"], "give --api-key-file FILE, or --host 127.0.0.1"),
        (["--transport", "http", "--api-key-file", tmp_path / "keys"], "line 1 must be an API key"),
        ([tmp_path / "nothing", *model], "there is no gallery at"),
        ([*model, "--photos", tmp_path / "nothing"], "the folder of photos must exist"),
        ([shelf / "shop"], "holds embeddings of model"),
    ):
        done = run(*arguments)
        assert (done.exit_code, done.stdout) == (1, "")
        assert done.stderr.startswith("error: ")
        assert words in done.stderr
        assert done.stderr.count("\n") == 1
    monkeypatch.setenv("FASHION_RETRIEVAL_TRANSPORT", "http")
    monkeypatch.setenv("FASHION_RETRIEVAL_HOST", "0.0.0.0")
    assert "got host '0.0.0.0'" in run().stderr


def test_a_missing_package_names_the_extra(monkeypatch):
    monkeypatch.setattr(optional, "find_spec", lambda name: None)
    done = run()
    assert done.exit_code == 1
    assert done.stderr.endswith("run: pip install 'fashion-retrieval[mcp]'\n")


def test_arguments_have_the_defaults_that_they_tell():
    assert tools.Search(text="a").model_dump(exclude_none=True) == {"text": "a", "top_k": 6, "thumbnails": True}
