"""Tools for agents over stdio, over streamable HTTP, and the command that opens both."""

import asyncio
import os
import socket
import sys
from base64 import b64encode
from contextlib import contextmanager
from threading import Thread

import httpx
import httpx2
import pytest
import uvicorn
from mcp import Client, StdioServerParameters
from mcp.client.stdio import stdio_client
from mcp.client.streamable_http import streamable_http_client

from fashion_retrieval import FashionModel, Gallery
from fashion_retrieval._utils import optional
from fashion_retrieval.cli import app
from fashion_retrieval.serve.engine import Engine
from fashion_retrieval.serve.mcp import build_mcp, http_app
from tests.support.agents import ask, cancel_a_search, occupied, pictures, told
from tests.support.galleries import tiny_model
from tests.support.tiny import drawn_photo, tiny_folder

KEY = "0123456789abcdef"


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


def test_a_call_canceled_over_http_leaves_the_queue(shelf):
    """By the protocol of 2026-07-28; an older client's notice comes as a request of its own, which can't be matched."""
    engine = Engine(tiny_model())
    with (
        Gallery.open(shelf / "shop", tiny_model()) as gallery,
        listening(build_mcp(engine, {"tiny": gallery})) as address,
        occupied(engine),
    ):
        asyncio.run(cancel_a_search(Client(address), engine))
    engine.close()


def test_http_refuses_strangers(tiny_server):
    message = {"jsonrpc": "2.0", "id": 1, "method": "ping"}
    accepted = {"Accept": "application/json, text/event-stream"}

    def status(address, **headers):
        return httpx.post(address, json=message, headers={**accepted, **headers}).status_code

    with listening(tiny_server) as address:
        assert status(address) == 200
        assert status(address, Host="evil.example") == 403
        assert status(address, Origin="http://evil.example") == 403
        parts = (bytes(1 << 20) for _ in range(65))  # its length is not told
        for content in (bytes((64 << 20) + 1), parts):
            assert httpx.post(address, content=content).status_code == 413
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


def test_a_models_folder_is_told_by_its_name(shelf):
    model = FashionModel.from_pretrained(shelf / "model", device="cpu", dtype="float32")
    engine = Engine(model)
    photo = b64encode((shelf / "photos" / "a.png").read_bytes()).decode()
    assert told(ask(build_mcp(engine, {}), "recognize", photo=photo))["model_id"] == "model"
    engine.close()
