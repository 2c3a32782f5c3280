"""The tables of docs/benchmarks.md about photos of every kind: before, now, and what is asked for."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

HEX_DE2000 = {"CMYK": 2.0, "": 1.0}
TIMES_DECODED = {"recognize": 2.5, "encode": 1.5, "recognize_many, keep_image=False": 1.0}
TIMES_UNTAGGED = 1.5
"""The bars: dE2000 at the median, memory in decoded photos, time in that of the untagged file."""

FAULTS = ("tracebacks", "crashes", "hangs", "over 1 GB", "warnings")


def tables(now: dict[str, Any], before: dict[str, Any] | None) -> Iterator[str]:
    """Markdown of the parts that were measured; `before` are the same figures of an older commit."""
    old = before or {}
    if before:
        yield f'"Before" is commit {before["commit"]}, measured in the same way.'
    parts = {"colors": _colors, "memory": _memory, "loading": _loading, "mutations": _mutations}
    for name, part in parts.items():
        if name in now:
            yield from part(now[name], old.get(name))


def _table(heads: tuple[str, ...], rows: list[list[str]]) -> str:
    lines = [heads, ("---",) * len(heads), *rows]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)


def _colors(now: dict[str, Any], before: dict[str, Any] | None) -> Iterator[str]:
    rows = []
    for name, row in now["rows"].items():
        old, best = before["rows"].get(name) if before else None, row.get("at_best")
        bar = f"{HEX_DE2000['CMYK' if 'CMYK' in name else '']:.0f}" if best else ""
        names = [f"{one['names_differ']:.1%}" if one else "" for one in (old, row, best)]
        codes = [f"{one['hex_de2000']:.2f}" if one else "" for one in (old, row, best)]
        rows.append([name, *names, *codes, bar])
    heads = ("copy", "names differ, before", "now", "at best", "hex, dE2000, before", "now", "at best", "at most")
    yield "### Colors: one scene in several color spaces"
    yield _table(heads, rows)
    yield (
        f"{now['garments']} labeled garments ({now['source']}), recognized in their labeled boxes. Every copy is held "
        "against the same photo as a PNG in sRGB: the share of garments whose dominant color has another name, and "
        "the median CIEDE2000 between the two `hex`. The first rows are the control: no more names should differ than "
        'there. "At best" is the copy turned back to sRGB whole, by littleCMS: what the copy itself lost, out of its '
        "gamut or by rounding. Copies are made relative colorimetric with black point compensation; JPEGs have quality "
        "95, ProPhoto is a TIFF."
    )
    if now["left_out"]:
        yield "Left out: " + "; ".join(now["left_out"]) + "."


def _memory(now: dict[str, Any], before: dict[str, Any] | None) -> Iterator[str]:
    rows, keys, olds = [], ("call", "orientation", "photos"), before["rows"] if before else []
    for row in now["rows"]:
        old = next((f"{one['times_decoded']:.2f}" for one in olds if all(one[key] == row[key] for key in keys)), "")
        bar = TIMES_DECODED.get(row["call"])
        found = [f"{row['above_loaded_mb']:,.0f}", old, f"{row['times_decoded']:.2f}", f"{bar}" if bar else ""]
        rows.append([f"`{row['call']}`", str(row["photos"]), str(row["orientation"]), *found])
    heads = ("call", "photos", "EXIF orientation", "peak, MiB", "times decoded, before", "now", "at most")
    yield "### Memory: large photos"
    yield _table(heads, rows)
    width, height = now["size"]
    yield (
        f"Peak over the loaded model for a drawn JPEG of {width} x {height} pixels ({now['file_mb']} MiB, decoded "
        f"{now['decoded_mb']} MiB), as multiples of the decoded photo, each photo of several. All results are kept in "
        "a list; those with `keep_image` hold their photos and masks."
    )


def _loading(now: dict[str, Any], before: dict[str, Any] | None) -> Iterator[str]:
    rows = []
    for name, row in now["rows"].items():
        call, _, profile = name.partition(", ")
        old = f"{before['rows'][name]['times']['median']:.2f}" if before and name in before["rows"] else ""
        bar = f"{TIMES_UNTAGGED}" if profile != "untagged" else ""
        rows.append([f"`{call}`", profile, f"{row['ms']['median']:.1f}", old, f"{row['times']['median']:.2f}", bar])
    yield "### Time to load a photo with a color profile"
    yield _table(("call", "profile", "ms", "times untagged, before", "now", "at most"), rows)
    yield f"A drawn JPEG of {now['size'][0]} x {now['size'][1]} pixels, {now['rounds']} rounds."


def _mutations(now: dict[str, Any], before: dict[str, Any] | None) -> Iterator[str]:
    kinds = now["by_kind"]
    heads = ("photos", "read", "refused", *FAULTS)
    rows = [[kind, *(str(row.get(head, 0)) for head in heads)] for kind, row in kinds.items()]
    for name, data in (("all", now), ("all, before", before)):
        if data:
            rows.append([name, *(str(sum(row.get(head, 0) for row in data["by_kind"].values())) for head in heads)])
    yield "### Damaged photos"
    yield _table(("damage", *heads), rows)
    yield (
        f"{now['photos']} photos of every format, damaged at random and read by `load_pixels`: each should be read or "
        f"refused by an error of this package, within 5 s and 1 GB, without a warning. The slowest took "
        f"{now['seconds']:.2f} s, the largest {now['memory_mb']:.0f} MiB."
    )
