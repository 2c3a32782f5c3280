"""A load client that costs little: non-blocking sockets in one event loop, and requests made before the clock starts.

Client and service share the cores of a machine. A general HTTP library spends on a request about as much of a core as
the service does; this one writes bytes that are ready and looks for the end of the answer, no more. The share of the
processor that it takes is measured beside each figure.
"""

from __future__ import annotations

import asyncio
import json
import socket
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Any, TypeVar

Item = TypeVar("Item")
_SECONDS = 120.0
"""Longer than any answer takes; an answer that does not come by then is lost."""


class LostError(Exception):
    """No whole answer came."""


@dataclass(frozen=True, slots=True)
class Answer:
    """An HTTP answer; names of headers are in lower case. `seconds` are from the request's first byte to the last."""

    status: int
    headers: Mapping[str, str]
    body: bytes
    seconds: float = 0.0

    def json(self) -> Any:  # noqa: ANN401  # as json.loads
        """What the body says as JSON."""
        return json.loads(self.body)


def request(method: str, path: str, body: bytes = b"", kind: str | None = None, **headers: str) -> bytes:
    """An HTTP/1.1 request as bytes; `kind` is the body's content type, and underscores of headers are hyphens."""
    lines = {"Host": "127.0.0.1", "Content-Length": str(len(body))} | ({"Content-Type": kind} if kind else {})
    lines |= {name.replace("_", "-"): value for name, value in headers.items()}
    head = "".join(f"{name}: {value}\r\n" for name, value in lines.items())
    return f"{method} {path} HTTP/1.1\r\n{head}\r\n".encode() + body


def json_request(path: str, content: object, **headers: str) -> bytes:
    """A POST of JSON."""
    return request("POST", path, json.dumps(content).encode(), "application/json", **headers)


def form_request(path: str, files: Sequence[tuple[str, str, bytes]], **fields: str) -> bytes:
    """A POST of a form; each file is its field, its name and its content."""
    mark = b"a-line-that-is-in-no-photo"
    parts = [(f'name="{name}"', value.encode()) for name, value in fields.items()]
    parts += [(f'name="{field}"; filename="{name}"', content) for field, name, content in files]
    body = b"".join(
        b"--%b\r\nContent-Disposition: form-data; %b\r\n\r\n%b\r\n" % (mark, head.encode(), content)
        for head, content in parts
    )
    return request("POST", path, b"%b--%b--\r\n" % (body, mark), f"multipart/form-data; boundary={mark.decode()}")


class Connection:
    """A connection that is kept alive, and opened anew once the service has closed it."""

    def __init__(self, port: int) -> None:
        self.port = port
        self.sent_at: float | None = None
        """When the last request had left whole, by `time.perf_counter`; None until then."""
        self._socket: socket.socket | None = None
        self._seen = bytearray()

    async def ask(self, content: bytes) -> Answer:
        """Send a request and wait for its answer; a `LostError` if none comes."""
        self.sent_at, start = None, time.perf_counter()
        try:
            async with asyncio.timeout(_SECONDS):
                await self._open()
                with suppress(BrokenPipeError, ConnectionResetError):  # the answer may have come before the body's end
                    await asyncio.get_running_loop().sock_sendall(self._live, content)
                    self.sent_at = time.perf_counter()
                status, headers, body = await self._read()
        except (OSError, TimeoutError, ValueError, LostError) as error:
            self.close()
            raise LostError(f"{type(error).__name__}: {error}") from error
        if headers.get("connection") == "close":
            self.close()
        return Answer(status, headers, body, time.perf_counter() - start)

    def close(self) -> None:
        """Close the connection; the next request opens another one."""
        if self._socket:
            self._socket.close()
        self._socket = None
        self._seen.clear()

    @property
    def _live(self) -> socket.socket:
        if self._socket is None:
            raise LostError("the connection is closed")
        return self._socket

    async def _open(self) -> None:
        if self._socket:
            try:
                if not self._socket.recv(1, socket.MSG_PEEK):
                    self.close()
            except BlockingIOError:
                return
            except OSError:
                self.close()
        if self._socket is None:
            self._socket = socket.socket()
            self._socket.setblocking(False)
            self._socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            await asyncio.get_running_loop().sock_connect(self._socket, ("127.0.0.1", self.port))

    async def _read(self) -> tuple[int, dict[str, str], bytes]:
        head = (await self._until(b"\r\n\r\n")).decode("latin-1").split("\r\n")
        headers = {name.lower(): value.strip() for name, _, value in (line.partition(":") for line in head[1:-2])}
        if headers.get("transfer-encoding") != "chunked":
            return int(head[0].split()[1]), headers, await self._take(int(headers.get("content-length", 0)))
        body = bytearray()
        while size := int(await self._until(b"\r\n"), 16):
            body += (await self._take(size + 2))[:-2]
        await self._take(2)
        return int(head[0].split()[1]), headers, bytes(body)

    async def _until(self, mark: bytes) -> bytes:
        while (end := self._seen.find(mark)) < 0:
            await self._more()
        return await self._take(end + len(mark))

    async def _take(self, number: int) -> bytes:
        while len(self._seen) < number:
            await self._more()
        taken = bytes(self._seen[:number])
        del self._seen[:number]
        return taken

    async def _more(self) -> None:
        if not (received := await asyncio.get_running_loop().sock_recv(self._live, 1 << 18)):
            raise LostError(f"the service closed the connection after {len(self._seen)} bytes of an answer")
        self._seen += received


async def drive(
    port: int,
    items: Iterable[Item],
    clients: int,
    request_of: Callable[[Item], bytes],
    take: Callable[[Item, Answer | LostError], object],
) -> None:
    """Let clients ask the items in turn, each the next one as soon as it has its answer, and hand the answers over."""
    waiting = iter(items)

    async def client() -> None:
        connection = Connection(port)
        for item in waiting:
            try:
                take(item, await connection.ask(request_of(item)))
            except LostError as lost:
                take(item, lost)
        connection.close()

    await asyncio.gather(*(client() for _ in range(clients)))


def ask(port: int, content: bytes) -> Answer:
    """The answer to one request, on a connection of its own."""
    connection = Connection(port)
    try:
        return asyncio.run(connection.ask(content))
    finally:
        connection.close()
