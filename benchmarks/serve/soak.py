"""Many requests of every kind: is each answered, and rightly, and does the service's memory stay?"""

from __future__ import annotations

import asyncio
import sys
import time
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks import material
from benchmarks.serve.client import Answer, LostError, drive
from benchmarks.serve.mixed import GALLERY, Question, bad_questions, good_questions, mix, shrunk
from benchmarks.serve.service import Meter, Service
from fashion_retrieval import FashionModel, Gallery

CLIENTS = 16
SETTLED = 1_000
"""Requests after which memory is the yardstick."""


def measure(cache: Path, *, count: int) -> dict[str, Any]:
    """Ask `count` questions of a service with the embedded model and a gallery."""
    files, source = material.photos(min(300, max(count // 50, 20)), cache)
    model = FashionModel.from_pretrained("compact")
    folder = cache / "serve_gallery"
    with Gallery.create(folder, model, recognize=True, exist_ok=True) as gallery:
        gallery.add([str(file.resolve()) for file in files], ids=[file.name for file in files])
        with Service(f"{GALLERY}={folder}", "--no-page") as service:
            photos = [shrunk(file) for file in files[:20]]
            good = good_questions(service.port, model, gallery, photos)
            found = soak(service, list(mix(good, bad_questions(photos[0]), count)))
    return {"photos": source, "in gallery": len(files)} | found


def soak(service: Service, questions: Sequence[Question], clients: int = CLIENTS) -> dict[str, Any]:
    """What came of the questions; `memory_mb` are pairs of answers so far and resident memory."""
    lost: list[str] = []
    wrong: list[str] = []
    kinds: dict[str, list[float]] = {}
    statuses: Counter[int] = Counter()
    memory: list[tuple[int, float]] = [(0, round(service.memory_mb(), 1))]
    done, step = 0, max(1, min(len(questions) // 10, 250))

    def take(question: Question, answer: Answer | LostError) -> None:
        nonlocal done
        done += 1
        if isinstance(answer, LostError):
            lost.append(f"{question.kind}: {answer}")
        else:
            statuses[answer.status] += 1
            kinds.setdefault(question.kind.partition(":")[0], []).append(1e3 * answer.seconds)
            if fault := question.fault(answer):
                wrong.append(fault)
                print(f"soak: {fault:.300}", file=sys.stderr)
        if done % step == 0:
            memory.append((done, round(service.memory_mb(), 1)))
            if done % (4 * step) == 0:
                said = f"{done} of {len(questions)}, {len(lost)} lost, {len(wrong)} wrong, {memory[-1][1]:.0f} MiB"
                print(f"soak: {said}, {time.perf_counter() - start:.0f} s", file=sys.stderr)

    start = time.perf_counter()
    with Meter(service) as meter:
        asyncio.run(drive(service.port, questions, clients, lambda question: question.content, take))
    seconds = time.perf_counter() - start
    after = [mb for number, mb in memory if number >= min(SETTLED, len(questions) // 2)]
    return {
        "requests": len(questions),
        "clients": clients,
        "bad": sum(question.kind.startswith("bad") for question in questions),
        "seconds": round(seconds, 1),
        **meter.cores(),
        "lost": len(lost),
        "wrong": len(wrong),
        "faults": [*lost[:20], *wrong[:20]],
        "statuses": {str(status): number for status, number in sorted(statuses.items())},
        "answered": {
            kind: {"requests": len(times), "median_ms": round(float(np.median(times)), 1)}
            for kind, times in sorted(kinds.items())
        },
        # Of medians: memory rises and falls with the batch that is computed.
        "growth_mb": round(float(np.median(after[-8:]) - np.median(after[:8])), 1),
        "peak_growth_mb": round(max(after) - after[0], 1),
        "memory_mb": memory,
    }
