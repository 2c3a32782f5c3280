"""Photos a second through the service against the same calls in one process, and what one request costs on top."""

from __future__ import annotations

import asyncio
import base64
import random
import time
from collections.abc import Callable, Sequence
from itertools import repeat
from pathlib import Path
from typing import Any

from benchmarks import material
from benchmarks.rounds import interleave, paired, quartiles
from benchmarks.serve.bad import EMBEDDINGS, RECOGNIZE
from benchmarks.serve.client import Answer, Connection, LostError, drive, form_request, json_request
from benchmarks.serve.service import Meter, Service
from fashion_retrieval import FashionModel

CLIENTS = 16


def ask_all(port: int, requests: Sequence[bytes], clients: int = CLIENTS) -> None:
    """Ask all, a photo a request; a RuntimeError where an answer is not 200."""

    def take(_: bytes, answer: Answer | LostError) -> None:
        if isinstance(answer, LostError) or answer.status != 200:
            raise RuntimeError(f"expected 200, got {answer}")

    asyncio.run(drive(port, requests, clients, bytes, take))


def measure(cache: Path, *, count: int, rounds: int) -> dict[str, Any]:
    """Interleaved rounds over the same photos; `ratio` is the service's rate over that of the calls in one process."""
    files, source = material.photos(count, cache)
    photos = [file.read_bytes() for file in files]
    model = FashionModel.from_pretrained("compact")
    requests = {
        "recognize": [form_request(RECOGNIZE, [("photos", "photo.jpg", photo)]) for photo in photos],
        "embeddings": [json_request(EMBEDDINGS, content_of(photo)) for photo in photos],
    }
    calls: dict[str, Callable[[], object]] = {
        "recognize": lambda: list(model.recognize_many(photos)),
        "embeddings": lambda: model.encode(images=photos),
    }
    report: dict[str, Any] = {"photos": len(photos), "source": source, "rounds": rounds, "clients": CLIENTS}
    with Service("--no-page") as service:
        for name, asked in requests.items():
            meter = Meter(service)

            def through(asked: Sequence[bytes] = asked, meter: Meter = meter) -> None:
                with meter:
                    ask_all(service.port, asked)

            seconds = interleave({"calls": calls[name], "service": through}, rounds, label=name)
            report[name] = {
                "calls_per_second": quartiles([count / second for second in seconds["calls"]]),
                "service_per_second": quartiles([count / second for second in seconds["service"]]),
                "ratio": paired(seconds, "service", "calls").ratio(),
                **meter.cores(),
            }
        report["one client"] = one_client(service.port, model, photos, rounds)
    return report


def content_of(photo: bytes) -> dict[str, str]:
    """What a client of OpenAI's endpoint sends for a photo."""
    url = f"data:image/jpeg;base64,{base64.b64encode(photo).decode()}"
    return {"input": url, "encoding_format": "base64"}


def one_client(port: int, model: FashionModel, photos: Sequence[bytes], rounds: int) -> dict[str, Any]:
    """Milliseconds of a request with one photo beside those of `model.recognize`, photo by photo in turn."""
    asked = [form_request(RECOGNIZE, [("photos", "photo.jpg", photo)]) for photo in photos]
    plain: list[float] = []
    through: list[float] = []
    rng = random.Random(0)

    async def ask() -> None:
        connection = Connection(port)

        async def request(number: int) -> None:
            answer = await connection.ask(asked[number])
            if answer.status != 200:
                raise RuntimeError(f"expected 200, got {answer}")
            through.append(1e3 * answer.seconds)

        async def call(number: int) -> None:
            start = time.perf_counter()
            model.recognize(photos[number])
            plain.append(1e3 * (time.perf_counter() - start))

        for one in (call, request):  # warm
            await one(0)
        plain.clear()
        through.clear()
        for numbers in repeat(range(len(photos)), rounds):
            for number in numbers:
                for one in rng.sample((call, request), 2):
                    await one(number)
        connection.close()

    asyncio.run(ask())
    more = [request - call for request, call in zip(through, plain, strict=True)]
    return {"call_ms": quartiles(plain), "request_ms": quartiles(through), "more_ms": quartiles(more)}
