"""SIGTERM under load: is every request answered that had arrived, and how long does the process take to end?"""

from __future__ import annotations

import asyncio
import signal
import subprocess
import time
from collections import Counter
from collections.abc import Sequence
from itertools import count
from pathlib import Path
from typing import Any

from benchmarks import material
from benchmarks.rounds import quartiles
from benchmarks.serve.bad import RECOGNIZE
from benchmarks.serve.client import Connection, LostError, form_request, request
from benchmarks.serve.service import Service

CLIENTS = 16


def measure(cache: Path, *, rounds: int, seconds: float = 2.0) -> dict[str, Any]:
    """End a service `rounds` times, `seconds` after clients began to ask it."""
    files, source = material.photos(24, cache)
    asked = [form_request(RECOGNIZE, [("photos", "photo.jpg", file.read_bytes())]) for file in files]
    found = []
    for _ in range(rounds):
        with Service("--no-page") as service:
            found.append(end(service, asked, seconds=seconds))
    sums: Counter[str] = Counter()
    for one in found:
        sums.update(one["accepted"])
    return {
        "photos": source,
        "rounds": rounds,
        "clients": CLIENTS,
        "accepted": dict(sums),
        "lost": [fault for one in found for fault in one["lost"]],
        "exit_statuses": sorted({one["exit_status"] for one in found}, key=str),
        "seconds_to_exit": quartiles([one["seconds_to_exit"] for one in found]),
    }


def end(service: Service, asked: Sequence[bytes], *, seconds: float, clients: int = CLIENTS) -> dict[str, Any]:
    """What became of the requests under way at the signal: those that had left whole, on an accepted connection.

    Clients go on after the signal; what they send then may be refused.
    """
    accepted: Counter[str] = Counter()
    lost: list[str] = []
    signaled: float | None = None
    turns = count()

    async def client() -> None:
        connection = Connection(service.port)
        await connection.ask(request("GET", "/healthz"))  # now it is accepted
        while True:
            try:
                outcome = str((await connection.ask(asked[next(turns) % len(asked)])).status)
            except LostError as error:
                outcome = f"lost: {error}"
            if signaled is None:
                if outcome != "200":
                    lost.append(f"before the signal: {outcome}")
                continue
            if connection.sent_at is not None and connection.sent_at <= signaled:
                accepted[outcome] += 1
                if outcome.startswith("lost"):
                    lost.append(outcome)
            elif outcome.startswith("lost"):
                return
            if service.process.poll() is not None:
                return

    async def run() -> tuple[int | None, float]:
        nonlocal signaled
        working = [asyncio.create_task(client()) for _ in range(clients)]
        await asyncio.sleep(seconds)
        signaled = time.perf_counter()
        service.process.send_signal(signal.SIGTERM)
        try:
            status = await asyncio.to_thread(service.process.wait, 60)
        except subprocess.TimeoutExpired:
            status = None
        took = time.perf_counter() - signaled
        await asyncio.gather(*working)
        return status, took

    status, took = asyncio.run(run())
    return {"accepted": dict(accepted), "lost": lost, "exit_status": status, "seconds_to_exit": round(took, 3)}
