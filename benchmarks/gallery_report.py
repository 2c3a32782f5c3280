"""The part of the benchmarks' page that is about galleries."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any


def gallery_tables(found: dict[str, Any], measured: Callable[[dict[str, Any]], str]) -> Iterator[str]:
    """Its sections as Markdown, of the results by name; `measured` tells where results were measured."""
    if "duplicates" in found:
        yield "## Near-duplicates"
        yield from _duplicates(found["duplicates"])
        yield measured(found["duplicates"])
    galleries = {name: data for name, data in found.items() if name.startswith("gallery_")}
    if galleries:
        yield "## Search among 100,000 photos"
        yield from _galleries(galleries)
    if "vectors" in found:
        yield "## Smaller numbers"
        yield from _vectors(found["vectors"])
    if "index" in found:
        yield "## Indexing street photos"
        yield _index(found["index"])
        yield measured(found["index"])
    if "views" in found:
        yield "## Several photos of one item"
        yield from _views(found["views"])
        yield measured(found["views"])
    if "writes" in found:
        yield "## A photo at a time"
        yield from _writes(found["writes"])
    kills = {name: data for name, data in found.items() if name.startswith("kills_")}
    if kills:
        yield "## Killed at any moment"
        yield from _kills(kills)


def _index(data: dict[str, Any]) -> str:
    times = data["times_as_fast"]
    return (
        f"`Gallery.add` with recognition of {data['photos']:,} of {data['of']:,} street photos, {data['part']} at a "
        f"time in turn with the same by commit {data['before']}: {times['median']:.2f} times as fast (median; "
        f"quartiles {times['q1']:.2f} to {times['q3']:.2f}), {data['photos_per_second']['now']:.1f} photos a second "
        "(`python -m benchmarks.index --before CHECKOUT`)."
    )


def _views(data: dict[str, Any]) -> Iterator[str]:
    lines = ["| photos of an item in its entry | recall@1 | recall@10 |", "| --- | --- | --- |"]
    for number, row in data["recall_by_views"].items():
        lines.append(f"| {number} | {row['recall_at_1']:.3f} | {row['recall_at_10']:.3f} |")
    yield "\n".join(lines)
    yield (
        f"{data['items']} products of the data pack; views are crops, mirrored, darker or lighter photos of them, "
        "drawn at random, and so is the photo that asks for the item (`python -m benchmarks.views`)."
    )


def _writes(data: dict[str, Any]) -> Iterator[str]:
    lines = [
        "| release | adds | the last adds, ms | first search, ms | next searches, ms | files | MB |",
        "| --- | --- | --- | --- | --- | --- | --- |",
    ]
    for name, part in (("before", data["before"]), ("now", data["after"])):
        for step in part["steps"]:
            cells = [f"{step['adds']:,}", *(f"{step[key]:.0f}" for key in ("add_ms", "first_search_ms"))]
            cells += [f"{step['search_ms']:.2f}", f"{step['files']:,}", f"{step['mb']:.1f}"]
            lines.append("| " + " | ".join([name, *cells]) + " |")
    yield "\n".join(lines)
    yield (
        "Rows of 512 numbers, each added by a gallery that is opened for it alone, without a model and without "
        "`optimize` (`python -m benchmarks.writes`)."
    )


def _kills(kills: dict[str, dict[str, Any]]) -> Iterator[str]:
    lines = [
        "| engine | kills | in the middle of a write | lost, doubled or unreadable |",
        "| --- | --- | --- | --- |",
    ]
    for data in kills.values():
        numbers = [data[key] for key in ("kills", "in the middle of a write", "lost, doubled or unreadable")]
        lines.append("| " + " | ".join([data["engine"], *map(str, numbers)]) + " |")
    yield "\n".join(lines)
    yield (
        "A process adds, deletes, optimizes and migrates, and is killed (SIGKILL) at a random moment; then the gallery "
        "is compared with what was acknowledged, and goes on (`python -m benchmarks.kills`)."
    )


def _duplicates(data: dict[str, Any]) -> Iterator[str]:
    heads = ["photos", "rule", "encoded anew", "and lit anew", "and cropped", "two of these", "different photos hidden"]
    lines = ["| " + " | ".join(heads) + " |", "|" + " --- |" * len(heads)]
    keys = ("encoded", "lit", "cropped", "two of them", "different_hidden")
    for split in ("train", "val"):
        rules = {
            f"embedding and hash: bits + {data['slope']:g} (1 - cosine) ≤ {data['limit']:g}": data[split]["by_both"]
        }
        rules |= {f"embedding alone: cosine ≥ {least}": row for least, row in data[split]["by_embedding"].items()}
        for rule, row in rules.items():
            lines.append(f"| {split} | {rule} | " + " | ".join(f"{row[key]:.1%}" for key in keys) + " |")
    yield "\n".join(lines)
    top, encoded, many = data["top_10"], data["top_10_encoded"], data["many"]
    yield (
        f"{data['train']['photos']} photos of the data pack's train split, on which the rule was chosen, and "
        f"{data['val']['photos']} of val; {data['bases'] // 2} and {data['bases']} of them were made anew in six ways: "
        "JPEG of quality 30 to 95 at half the size or more; darker or lighter by up to 10 % besides; cropped by up to "
        f"5 % besides. Photos without a hash are told by a cosine of at least {data['alone']:g}. In a gallery of "
        f"{top['items']} photos with these six copies, the ten results nearest to a photo show {top['plain']:.1f} "
        f"different ones, with `unique=True` {top['unique']:.1f}; where all six are encoded anew alone, "
        f"{encoded['plain']:.1f} and {encoded['unique']:.1f}. A hash takes {data['hash_ms']:.2f} ms. "
        f"`duplicates()` of {many['rows']:,} drawn rows of 512 numbers takes {many['seconds']:.0f} s and "
        f"{many['mb']:,} MiB."
    )


def _galleries(galleries: dict[str, dict[str, Any]]) -> Iterator[str]:
    lines = [
        "| engine | queries | recall@10 | p50, ms | p95, ms | NumPy's exact scan, p50 | quotient |",
        "| --- | --- | --- | --- | --- | --- | --- |",
    ]
    for data in galleries.values():
        for kind in ("near", "far", *(key for key in data if key.startswith("filtered"))):
            row = data[kind]
            times = [f"{row[key]:.2f}" for key in ("p50_ms", "p95_ms", "numpy_p50_ms", "ratio")]
            lines.append("| " + " | ".join([data["engine"], kind, f"{row['recall_at_10']:.3f}", *times]) + " |")
    yield "\n".join(lines)
    yield (
        "Random vectors about random centers; near queries lie by a center, far ones by none. Each query goes to the "
        "gallery and to NumPy's scan in turn; times are of the whole `Gallery.search`, 10 results, two threads."
    )


def _vectors(data: dict[str, Any]) -> Iterator[str]:
    ways = list(next(iter(data["kinds"].values())))[1:]
    heads = ["rows", "number", *(f"{way}, recall@10" for way in ways), "float16, error", "int8, error"]
    lines = ["| " + " | ".join(heads) + " |", "|" + " --- |" * len(heads)]
    for name, row in data["kinds"].items():
        cells = [f"{row[way]['recall_at_10']:.3f}" for way in ways]
        cells += [f"{row[way]['largest_error']:.5f}" for way in ("float16", "int8")]
        lines.append("| " + " | ".join([name, f"{row['rows']:,}", *cells]) + " |")
    yield "\n".join(lines)
    yield (
        f"Of {data['queries']} queries, half of them rows themselves, by the rows as they are stored; the ten nearest "
        "in float32 are right. An error is the largest difference of a score from that in float32. Near-duplicates are "
        "forty of each, nearer to each other than signs can tell."
    )
