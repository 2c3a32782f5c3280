"""More than the service can do: what clients get, and whether its health still answers."""

from __future__ import annotations

import asyncio
import time
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from benchmarks import material
from benchmarks.rounds import quartiles
from benchmarks.serve.bad import RECOGNIZE, problem_of
from benchmarks.serve.client import Connection, LostError, form_request, request
from benchmarks.serve.service import Meter, Service
from benchmarks.serve.throughput import ask_all

CLIENTS, TIMES, QUEUE = 32, 4.0, 8
"""A queue that is shorter than the clients are many, or each would wait its turn and none be refused."""


def measure(cache: Path, *, seconds: float, count: int) -> dict[str, Any]:
    """`seconds` of overload of a service with the embedded model; `count` photos find out what it can do."""
    files, source = material.photos(count, cache)
    asked = [form_request(RECOGNIZE, [("photos", "photo.jpg", file.read_bytes())]) for file in files]
    with Service("--no-page", "--queue", str(QUEUE)) as service:
        ask_all(service.port, asked, QUEUE)
        start = time.perf_counter()
        ask_all(service.port, asked, QUEUE)
        rate = len(asked) / (time.perf_counter() - start)
        found = overload(service, asked, seconds=seconds, rate=TIMES * rate)
    return {"photos": source, "queue": QUEUE, "can_do_per_second": round(rate, 1), "times": TIMES} | found


def overload(
    service: Service, asked: Sequence[bytes], *, seconds: float, rate: float, clients: int = CLIENTS
) -> dict[str, Any]:
    """Let clients ask at `rate` requests a second together, whatever comes back, and look at /healthz all the while."""
    statuses: Counter[str] = Counter()
    faults: list[str] = []
    health: list[float] = []
    start = time.perf_counter()
    end = start + seconds

    async def client(number: int) -> None:
        connection, due, turn = Connection(service.port), start + number / rate, number
        while (now := time.perf_counter()) < end:
            await asyncio.sleep(max(0.0, due - now))
            due, turn = due + clients / rate, turn + clients
            try:
                answer = await connection.ask(asked[turn % len(asked)])
            except LostError as error:
                statuses["lost"] += 1
                faults.append(str(error))
                continue
            statuses[str(answer.status)] += 1
            if answer.status == 503:
                wrong = problem_of(503, dict(answer.headers), answer.body)
                wrong = wrong or ("" if answer.headers.get("retry-after", "").isdigit() else "no Retry-After")
                faults.extend([wrong] if wrong else [])
            elif answer.status != 200:
                faults.append(f"{answer.status}: {answer.body[:200]!r}")
        connection.close()

    async def look() -> None:
        connection, asked = Connection(service.port), request("GET", "/healthz")
        while time.perf_counter() < end:
            begun = time.perf_counter()
            try:
                answer = await connection.ask(asked)
                faults.extend([] if answer.status == 200 else [f"/healthz: {answer.status}"])
            except LostError as lost:
                faults.append(f"/healthz: {lost}")
            health.append(1e3 * (time.perf_counter() - begun))
            await asyncio.sleep(0.1)
        connection.close()

    async def run() -> None:
        await asyncio.gather(look(), *(client(number) for number in range(clients)))

    with Meter(service) as meter:
        asyncio.run(run())
    spent = time.perf_counter() - start
    return {
        "clients": clients,
        "seconds": round(spent, 1),
        "asked_per_second": round(sum(statuses.values()) / spent, 1),
        "done_per_second": round(statuses["200"] / spent, 1),
        "statuses": dict(sorted(statuses.items())),
        "faults": len(faults),
        "first_faults": faults[:20],
        "health_ms": quartiles(health) | {"most": round(max(health), 1), "asked": len(health)},
    } | meter.cores()
