"""Who may ask and how much: keys, hosts, origins and the size of bodies, before a request reaches its route."""

from __future__ import annotations

import asyncio
import hmac
from base64 import b64decode
from binascii import Error as Base64Error
from collections.abc import Collection, Sequence
from contextlib import suppress
from urllib.parse import urlsplit

from starlette.datastructures import Headers
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from fashion_retrieval.serve.opening import is_loopback
from fashion_retrieval.serve.problems import RequestError, answer

OPEN = frozenset({"/healthz", "/readyz"})
"""Addresses that ask for no key."""
CLOSE = {"Connection": "close"}  # the rest of a refused body is not read
_LINGER = 2.0


class Gate:
    """ASGI middleware: refuses what must not reach a route.

    With keys, requests must carry one. Without, the service is for this computer: the Host header must name it, and a
    browser's Origin too, so that no page of another site can ask in its user's name. No body may be larger than
    `max_body` bytes; where its length is not told, `Service.read_body` counts.
    """

    def __init__(self, app: ASGIApp, *, keys: Sequence[str], origins: Collection[str], max_body: int) -> None:
        self.app = app
        self._keys = [key.encode() for key in keys]
        self._origins = frozenset(origins)
        self._max_body = max_body

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Let a request pass, or answer it."""
        if scope["type"] == "http":
            receive, send = _lingering(receive, send, 2 * self._max_body)
            headers = Headers(scope=scope)
            try:
                self._check(scope["method"], scope["path"], headers)
            except RequestError as error:
                if (origin := headers.get("origin")) in self._origins:  # else the page's script can't read the error
                    error.headers |= {"Access-Control-Allow-Origin": str(origin), "Vary": "Origin"}
                await answer(error)(scope, receive, send)
                return
        await self.app(scope, receive, send)

    def _check(self, method: str, path: str, headers: Headers) -> None:
        length = headers.get("content-length", "0")
        if not length.isdecimal() or int(length) > self._max_body:
            raise RequestError(413, f"a body must be at most {self._max_body} bytes, got {length:.20}", CLOSE)
        if path in OPEN:
            return
        host, origin = headers.get("host", ""), headers.get("origin")
        if origin and origin not in self._origins and origin.partition("://")[2] != host:
            raise RequestError(403, "pages of other sites are refused; name theirs with --allow-origin", CLOSE)
        if method == "OPTIONS" and origin:
            return  # a browser asks what it may, without a key
        if self._keys:
            self._check_key(headers.get("authorization", ""))
        elif not is_loopback(_name(host)):
            remedy = "ask for it as 127.0.0.1 or localhost, or start the service with --api-key-file"
            raise RequestError(403, f"without a key this service is for its own computer; {remedy}", CLOSE)

    def _check_key(self, authorization: str) -> None:
        kind, _, given = authorization.partition(" ")
        key = given.strip().encode()
        if kind.lower() == "basic":  # what a browser asks its user for; any name
            try:
                key = b64decode(key, validate=True).partition(b":")[2]
            except Base64Error:
                key = b""
        equal = [hmac.compare_digest(key, known) for known in self._keys]  # all of them, each in constant time
        if not any(equal):
            asked = {"WWW-Authenticate": 'Basic realm="fashion-retrieval", charset="UTF-8"', **CLOSE}
            raise RequestError(401, "a key is needed: send the header 'Authorization: Bearer KEY'", asked)


def _name(host: str) -> str:
    try:
        return urlsplit(f"//{host}").hostname or ""
    except ValueError:
        return ""


def _lingering(receive: Receive, send: Send, most: int) -> tuple[Receive, Send]:
    """Where an answer closes the connection, read on for a moment: `most` bytes, or `_LINGER` seconds.

    A client that is still sending would see a connection that is reset in place of the answer.
    """
    ended = closing = False

    async def received() -> Message:
        nonlocal ended
        message = await receive()
        ended = not message.get("more_body", False)
        return message

    async def sent(message: Message) -> None:
        nonlocal closing
        if message["type"] == "http.response.start":
            closing = (b"connection", b"close") in message["headers"]
        elif closing and not ended and not message.get("more_body", False):
            await send({**message, "more_body": True})
            read = 0
            with suppress(TimeoutError):
                async with asyncio.timeout(_LINGER):
                    while not ended and read < most:
                        read += len((await received()).get("body", b""))
            message = {"type": "http.response.body"}
        await send(message)

    return received, sent
