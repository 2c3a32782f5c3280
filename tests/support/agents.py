"""Tools for agents, asked by the SDK's own client in this process; what they answer, checked and opened."""

from __future__ import annotations

import asyncio
import json
import tempfile
from base64 import b64decode
from collections.abc import Iterator
from contextlib import contextmanager
from io import BytesIO
from threading import Event
from typing import Any

from mcp import Client
from PIL import Image

from fashion_retrieval.serve.engine import Engine
from tests.support.paths import ROOT


def ask(server: Any, tool: str, mode: str = "auto", **arguments: Any) -> Any:
    """What the client gets; it checks structured content against the tool's output schema itself."""

    async def call() -> Any:
        async with Client(server, mode=mode) as client:
            return await client.call_tool(tool, arguments)

    return asyncio.run(call())


def refused(server: Any, tool: str, **arguments: Any) -> str:
    """The one line of an error."""
    result = ask(server, tool, **arguments)
    (content,) = result.content
    assert (result.is_error, result.structured_content, content.type) == (True, None, "text")
    assert "\n" not in content.text
    assert "Traceback" not in content.text
    assert not [place for place in (str(ROOT), tempfile.gettempdir()) if place in content.text]
    return content.text


def told(result: Any) -> Any:
    """Structured content, which the text says too."""
    assert not result.is_error, result.content
    assert json.loads(result.content[0].text) == result.structured_content
    return result.structured_content


def pictures(result: Any) -> list[tuple[str, tuple[int, int]]]:
    """Label and size of each picture."""
    labels, images = result.content[1::2], result.content[2::2]
    assert {content.type for content in images} <= {"image"}
    assert {content.mime_type for content in images} <= {"image/jpeg"}
    opened = [Image.open(BytesIO(b64decode(content.data))) for content in images]
    assert {image.format for image in opened} <= {"JPEG"}
    return [(label.text, image.size) for label, image in zip(labels, opened, strict=True)]


def listed(server: Any, mode: str = "auto") -> dict[str, Any]:
    """The tools by name."""

    async def call() -> dict[str, Any]:
        async with Client(server, mode=mode) as client:
            return {tool.name: tool for tool in (await client.list_tools()).tools}

    return asyncio.run(call())


@contextmanager
def occupied(engine: Engine) -> Iterator[None]:
    """The model's thread is busy."""
    started, go = Event(), Event()
    future = engine.run(lambda: (started.set(), go.wait()))
    started.wait()
    try:
        yield
    finally:
        go.set()
        future.result()


async def cancel_a_search(connecting: Client, engine: Engine) -> None:
    """Ask for a search while the engine is occupied, cancel it, and wait until it has left the queue."""
    async with asyncio.timeout(10), connecting as client:
        task = asyncio.create_task(client.call_tool("search", {"text": "a"}))
        while engine.under_way < 2:
            await asyncio.sleep(0.01)
        task.cancel()
        while engine.under_way > 1:
            await asyncio.sleep(0.01)
        await asyncio.wait({task})
        assert task.cancelled()
