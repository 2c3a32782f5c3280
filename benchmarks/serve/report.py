"""The tables of docs/benchmarks.md about the service: what was asked of it, and what came."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from benchmarks.serve.mixed import TOLERANCE

RATIO, MORE_MS, GROWTH_MB, HEALTH_MS, TIMES = 0.85, 15, 50, 1_000, 1.2
"""The bars: share of the calls' rate, milliseconds of one request, memory, health under overload, cold start."""


def tables(data: dict[str, Any]) -> Iterator[str]:
    """Markdown of the parts that were measured."""
    parts = {"throughput": _throughput, "cold": _cold, "soak": _soak, "overload": _overload, "ending": _ending}
    for name, part in parts.items():
        if name in data:
            yield from part(data[name])


def _table(heads: tuple[str, ...], rows: list[list[str]]) -> str:
    lines = [heads, ("---",) * len(heads), *rows]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)


def _throughput(data: dict[str, Any]) -> Iterator[str]:
    rows = []
    for name, call in (("recognize", "recognize_many"), ("embeddings", "encode")):
        row = data[name]
        rates = [f"{row[key]['median']:.1f}" for key in ("calls_per_second", "service_per_second")]
        cores = f"{row['client_cores']:.2f}"
        rows.append([f"`/v1/{name}` against `{call}`", *rates, f"{row['ratio']['median']:.2f}x", f"{RATIO}x", cores])
    yield "### Throughput"
    yield _table(("", "calls, photos/s", "service, photos/s", "ratio", "at least", "cores the client takes"), rows)
    one = data["one client"]
    yield (
        f"{data['photos']} photos ({data['source']}), {data['clients']} clients with one photo a request, "
        f"{data['rounds']} rounds; service and client share the cores. For one client and one photo a request takes "
        f"{one['request_ms']['median']:.0f} ms and `recognize` {one['call_ms']['median']:.0f} ms, "
        f"{one['more_ms']['median']:.1f} ms more at the median of pairs (at most {MORE_MS})."
    )


def _cold(data: dict[str, Any]) -> Iterator[str]:
    rows = [
        [name, f"{row['seconds']['median']:.2f}", f"{row['times']['median']:.2f}x", f"{TIMES}x" if number else ""]
        for number, (name, row) in enumerate(data["rows"].items())
    ]
    yield "### Cold start"
    yield _table(("a new process until", "seconds", "times", "at most"), rows)


def _soak(data: dict[str, Any]) -> Iterator[str]:
    rows = [[kind, f"{row['requests']:,}", f"{row['median_ms']:.1f}"] for kind, row in data["answered"].items()]
    yield "### Many requests of every kind"
    yield _table(("question", "requests", "median, ms"), rows)
    yield (
        f"{data['requests']:,} requests of {data['clients']} clients in {data['seconds']:.0f} s, {data['bad']:,} of "
        f"them bad; a gallery of {data['in gallery']} photos. Answers are held against the library's own; "
        f"numbers may differ by {TOLERANCE}, for a batch of others rounds differently in bfloat16, and in searches by "
        "photo and text, ids whose scores are nearer than that, and the last, are not compared. Lost: "
        f"{data['lost']}; wrong: {data['wrong']}. From requests 1,000 to 3,000 to the "
        f"last 2,000, by medians, memory grew by {data['growth_mb']:.0f} MiB (bar: {GROWTH_MB}); the highest was "
        f"{data['peak_growth_mb']:.0f} MiB above the first after 1,000."
    )


def _overload(data: dict[str, Any]) -> Iterator[str]:
    counts = ", ".join(f"{number:,} times {status}" for status, number in data["statuses"].items())
    yield "### Overload"
    yield (
        f"{data['clients']} clients asked {data['asked_per_second']:.0f} times a second for {data['seconds']:.0f} s "
        f"what can be done {data['can_do_per_second']:.0f} times, of a queue of {data['queue']}: {counts}; "
        f"{data['faults']} other answers, lost ones or refusals without Retry-After. {data['done_per_second']:.0f} a "
        f"second were done. `/healthz` answered within {data['health_ms']['most']:.0f} ms each time, "
        f"{data['health_ms']['median']:.0f} ms at the median (at most {HEALTH_MS:,})."
    )


def _ending(data: dict[str, Any]) -> Iterator[str]:
    counts = ", ".join(f"{number} times {status}" for status, number in sorted(data["accepted"].items()))
    yield "### SIGTERM under load"
    yield (
        f"{data['rounds']} times, with {data['clients']} clients: what had been sent whole before the signal was "
        f"answered {counts}; {len(data['lost'])} lost. The process ended with status "
        f"{', '.join(map(str, data['exit_statuses']))}, after {data['seconds_to_exit']['median']:.1f} s at the median."
    )
