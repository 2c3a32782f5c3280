"""What all routes share: the engine, the galleries and the limits."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Future
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

from starlette.requests import ClientDisconnect, Request

from fashion_retrieval.serve.engine import BusyError, Engine
from fashion_retrieval.serve.limits import CLOSE
from fashion_retrieval.serve.problems import RequestError

if TYPE_CHECKING:
    from fashion_retrieval.gallery.gallery import Gallery

Result = TypeVar("Result")

_AT_ONCE = 16
"""Bodies of the largest size that may be arriving."""


@dataclass
class Service:
    """An engine, galleries by name, and how they may be used.

    Attributes:
        engine: What computes.
        galleries: What can be searched.
        timeout: Seconds that a body may take to arrive, and an answer to be computed.
        max_body: Bytes of a request's body.
        uploads: The folder that keeps added photos, by gallery; None is read-only.
    """

    engine: Engine
    galleries: Mapping[str, Gallery] = field(default_factory=dict)
    timeout: float = 30.0
    max_body: int = 20 << 20
    uploads: Mapping[str, Path] | None = None

    _arriving: int = field(default=0, init=False)

    @property
    def model_name(self) -> str:
        """What clients call the model: of a folder its last part, for no path is told."""
        given = self.engine.model.model_id
        return Path(given).absolute().name if Path(given).is_dir() else given

    def gallery(self, name: str) -> Gallery:
        """The gallery of this name; a 404 where there is none."""
        if name not in self.galleries:
            raise RequestError(404, f"there is no gallery {name!r:.80}; /v1/galleries names those there are")
        return self.galleries[name]

    def check_free(self) -> None:
        """Refuse while the queue is full, before anything is read."""
        if self.engine.under_way >= self.engine.queue:
            raise RequestError(503, "the queue is full; ask again in a moment", CLOSE)

    async def read_body(self, request: Request, parse: Callable[[bytes], Result]) -> Result:
        """What `parse`, in a thread, makes of a request's body; a `RequestError` where it is too large or too slow.

        At most `_AT_ONCE` bodies' bytes are held while they arrive and are parsed, however many clients send.
        """
        body = bytearray()
        try:
            async with asyncio.timeout(self.timeout):
                async for part in request.stream():
                    body += part
                    self._arriving += len(part)
                    if len(body) > self.max_body:
                        raise RequestError(413, f"a body must be at most {self.max_body} bytes, got more", CLOSE)
                    if self._arriving > _AT_ONCE * self.max_body:
                        raise RequestError(503, "too many bodies arrive at once; ask again in a moment", CLOSE)
            return await asyncio.to_thread(parse, bytes(body))
        except TimeoutError as error:
            told = f"the body must be here within {self.timeout:g} s, got {len(body)} bytes; send it faster"
            raise RequestError(408, told, CLOSE) from error
        except ClientDisconnect as error:
            raise RequestError(400, "the body ended too early; send it again", CLOSE) from error
        finally:
            self._arriving -= len(body)

    def asked(self, *calls: Callable[[], Future[Result]]) -> list[Future[Result]]:
        """The futures of calls of the engine: all, or none where the queue has no place for all."""
        if len(calls) > self.engine.queue:
            told = f"a request may have {self.engine.queue} photos and texts, got {len(calls)}; split it"
            raise RequestError(422, told)
        futures: list[Future[Result]] = []
        try:
            for call in calls:
                futures.append(call())  # what was asked before an error is canceled
        except BaseException:  # none of them may stay in the queue
            for future in futures:
                future.cancel()
            raise
        return futures

    async def results(self, request: Request, futures: Sequence[Future[Result]]) -> list[Result | BaseException]:
        """What futures give, or their errors; they are canceled when the client is gone or the time is over."""
        waiting = [asyncio.wrap_future(future) for future in futures]
        gone = asyncio.ensure_future(_disconnected(request))
        done = asyncio.gather(*waiting, return_exceptions=True)
        try:
            await asyncio.wait((done, gone), timeout=self.timeout, return_when=asyncio.FIRST_COMPLETED)
            if done.done():
                return done.result()
            if gone.done():
                raise RequestError(400, "the client is gone")
            raise BusyError(f"there was no answer within {self.timeout:g} s; ask again in a moment")
        finally:
            gone.cancel()
            for one in waiting:
                one.cancel()

    async def result(self, request: Request, future: Future[Result]) -> Result:
        """What one future gives; its error is raised."""
        (found,) = await self.results(request, [future])
        if isinstance(found, BaseException):
            raise found
        return found


async def _disconnected(request: Request) -> None:
    while (await request.receive())["type"] != "http.disconnect":
        pass
