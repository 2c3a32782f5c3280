"""Damaged photos of every format: each is read or refused, in time, in little memory, without a word on stderr.

All are made here from one small drawn photo by a seeded generator. A worker process reads them one after the other;
where it does not answer within the time limit, or dies, a new one takes its place.
"""

from __future__ import annotations

import json
import random
import select
import subprocess
import sys
import zlib
from collections import Counter
from collections.abc import Callable, Iterator
from importlib.util import find_spec
from io import BytesIO
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, Literal

from PIL import ExifTags, Image

from benchmarks.photos import profiles, scene

SECONDS, GIGABYTE = 5.0, 1024
"""The limits: seconds of a photo, MiB over what the process held before it."""

_PROGRAM = """
import json, os, pathlib, re, resource, sys, tempfile, time, warnings
from fashion_retrieval.errors import FashionRetrievalError
from fashion_retrieval.images.load import load_pixels
said = tempfile.TemporaryFile()
answers = os.fdopen(os.dup(1), "w")
os.dup2(said.fileno(), 1), os.dup2(said.fileno(), 2)
resource.setrlimit(resource.RLIMIT_AS, (16 << 30, 16 << 30))
resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
warnings.simplefilter("always")

def memory(name):
    status = pathlib.Path("/proc/self/status").read_text()
    return int(re.search(rf"{name}:\\s*(\\d+) kB", status)[1]) / 1024

for line in sys.stdin:
    said.truncate(0)
    pathlib.Path("/proc/self/clear_refs").write_text("5")
    before, start, reason = memory("VmRSS"), time.perf_counter(), ""
    try:
        outcome = "read" if load_pixels(line.rstrip()).size else "traceback"
    except FashionRetrievalError as error:
        outcome, reason = "refused", str(error)
    except BaseException as error:
        outcome, reason = "traceback", repr(error)
    sys.stderr.flush()
    rest = {"seconds": time.perf_counter() - start, "memory_mb": memory("VmHWM") - before, "said": os.fstat(2).st_size}
    print(json.dumps({"outcome": outcome, "reason": reason, **rest}), file=answers, flush=True)
"""


def measure(*, count: int, seed: int = 0) -> dict[str, Any]:
    """What becomes of `count` damaged photos, by kind of damage, and a line for each that fails."""
    totals: dict[str, Counter[str]] = {}
    failures, worst = [], {"seconds": 0.0, "memory_mb": 0.0}
    with TemporaryDirectory() as folder, Worker() as worker:
        for number, (name, kind, ending, content) in enumerate(cases(count, seed)):
            path = Path(folder) / f"{number}{ending}"
            path.write_bytes(content)
            found = worker.read(path)
            path.unlink()
            faults = faults_of(found)
            totals.setdefault(kind, Counter()).update([found["outcome"], *faults, "photos"])
            worst = {key: max(value, round(found[key], 3)) for key, value in worst.items()}
            reason = found["reason"].replace(str(path), path.name)
            failures += [f"{number}: {name}, {kind}: {', '.join(faults)} {reason}".rstrip() for _ in faults[:1]]
    return {"photos": count, "seed": seed, "by_kind": totals, "failures": failures, **worst}


def faults_of(found: dict[str, Any]) -> list[str]:
    """Which of the limits an answer of the worker breaks."""
    memory = found["memory_mb"] > GIGABYTE or "MemoryError" in found["reason"]
    broken = {
        "tracebacks": found["outcome"] == "traceback",
        "crashes": found["outcome"] == "crash",
        "hangs": found["outcome"] == "hang" or found["seconds"] > SECONDS,
        "over 1 GB": memory,
        "warnings": found["said"] > 0,
    }
    return [name for name, is_broken in broken.items() if is_broken]


class Worker:
    """A process that reads photos; started again where it hangs or dies."""

    def __init__(self, program: str = _PROGRAM) -> None:
        self.program = program
        self.process = self._start()

    def __enter__(self) -> Worker:
        return self

    def __exit__(self, *_: object) -> None:
        self._stop()

    def _start(self) -> subprocess.Popen[str]:
        pipe = subprocess.PIPE
        command = [sys.executable, "-c", self.program]
        return subprocess.Popen(command, stdin=pipe, stdout=pipe, stderr=subprocess.DEVNULL, text=True, bufsize=1)

    def _stop(self) -> int:
        self.process.kill()
        self.process.communicate()
        return self.process.returncode

    def read(self, path: Path) -> dict[str, Any]:
        """The worker's answer; its outcome is "read", "refused", "traceback", "hang" or "crash"."""
        process = self.process
        if process.stdin is None or process.stdout is None:
            raise RuntimeError("the worker has no pipes")
        process.stdin.write(f"{path}\n")
        process.stdin.flush()
        ready, _, _ = select.select([process.stdout], [], [], 2 * SECONDS)  # a new one has to import first
        if ready and (line := process.stdout.readline()):
            answer: dict[str, Any] = json.loads(line)
            return answer
        outcome, code = ("crash" if ready else "hang"), self._stop()
        self.process = self._start()
        reason = f"exit code {code}" if ready else ""
        return {"outcome": outcome, "reason": reason, "seconds": 0.0, "memory_mb": 0.0, "said": 0}


def cases(count: int, seed: int) -> Iterator[tuple[str, str, str, bytes]]:
    """Damaged photos: format, damage, file ending and content; formats and kinds of damage in turn."""
    rng, made, kinds = random.Random(seed), originals(), list(DAMAGES)
    names = list(made)
    for number in range(count):
        name, kind = names[number % len(names)], kinds[number // len(names) % len(kinds)]
        ending = f".{name.split()[0].lower()}"
        if kind == "wrong ending":
            ending = rng.choice([other for other in (".jpg", ".png", ".tif", ".heic", ".gif") if other != ending])
        yield name, kind, ending, DAMAGES[kind](made[name], rng)


def originals() -> dict[str, bytes]:
    """A small drawn photo in each format, some with a color profile and EXIF data."""
    image = Image.fromarray(scene.figure(96, 128))
    exif = Image.Exif()
    exif[ExifTags.Base.Orientation] = 6
    exif[ExifTags.Base.DateTime] = "2026:01:01 12:00:00"
    tags = {"icc_profile": profiles.matrix_profile("Display P3", profiles.DISPLAY_P3), "exif": exif.tobytes()}
    made = {
        "JPG": _saved(image, "JPEG"),
        "JPG tagged": _saved(image, "JPEG", **tags),
        "JPG progressive": _saved(image, "JPEG", progressive=True, **tags),
        "JPG CMYK": _saved(image.convert("CMYK"), "JPEG", **tags),  # the profile does not fit
        "JPG gray": _saved(image.convert("L"), "JPEG", exif=tags["exif"]),
        "MPO": _saved(image, "MPO", save_all=True, append_images=[image], exif=tags["exif"]),
        "PNG": _saved(image, "PNG", **tags),
        "PNG palette": _saved(image.quantize(32), "PNG", transparency=3),
        "PNG 16-bit": _saved(image.convert("L").convert("I;16"), "PNG"),
        "WEBP lossy": _saved(image, "WEBP", **tags),
        "WEBP lossless": _saved(image.convert("RGBA"), "WEBP", lossless=True, **tags),
        "GIF": _saved(image, "GIF"),
        "BMP": _saved(image, "BMP"),
        "TIF": _saved(image, "TIFF", **tags),
        "TIF LZW": _saved(image, "TIFF", compression="tiff_lzw"),
        "TIF deflate": _saved(image, "TIFF", compression="tiff_adobe_deflate"),
        "TIF JPEG": _saved(image, "TIFF", compression="jpeg"),
        "JP2": _saved(image, "JPEG2000"),
        "AVIF": _saved(image, "AVIF", **tags),
    }
    if find_spec("pillow_heif"):
        import pillow_heif

        stream = BytesIO()
        pillow_heif.from_pillow(image).save(stream, **tags)
        made["HEIC"] = stream.getvalue()
    return made


def _saved(image: Image.Image, format_name: str, **options: object) -> bytes:
    stream = BytesIO()
    image.save(stream, format_name, **options)
    return stream.getvalue()


def _few_flips(content: bytes, rng: random.Random) -> bytes:
    return _flipped(content, rng.randint(1, 5), rng)


def _many_flips(content: bytes, rng: random.Random) -> bytes:
    return _flipped(content, rng.randint(6, 100), rng)


def _head_flips(content: bytes, rng: random.Random) -> bytes:
    """Where sizes and tables are."""
    return _flipped(content[:256], rng.randint(1, 8), rng) + content[256:]


def _flipped(content: bytes, count: int, rng: random.Random) -> bytes:
    changed = bytearray(content)
    for _ in range(count):
        changed[rng.randrange(len(changed))] ^= 1 << rng.randrange(8)
    return bytes(changed)


def _cut(content: bytes, rng: random.Random) -> bytes:
    return content[: rng.randrange(1, len(content))]


def _cut_and_ended(content: bytes, rng: random.Random) -> bytes:
    """With the format's end mark or, where it has none, zeros to the full length."""
    left = _cut(content, rng)
    marks = {
        b"\xff\xd8": b"\xff\xd9",
        b"GI": b"\x00;",
        b"\x89P": bytes(4) + b"IEND" + zlib.crc32(b"IEND").to_bytes(4, "big"),
    }
    return left + marks.get(content[:2], bytes(len(content) - len(left)))


def _swapped(content: bytes, rng: random.Random) -> bytes:
    """Two pieces of any length change places."""
    return _exchange(content, *sorted(rng.sample(range(len(content)), 4)))


def _chunks_swapped(content: bytes, rng: random.Random) -> bytes:
    """Two whole chunks, segments or boxes change places; sixteenths of the file where its format has none."""
    starts = _starts(content)
    if len(starts) < 3:
        starts = [len(content) * part // 16 for part in range(17)]
    one, other = sorted(rng.sample(range(len(starts) - 1), 2))
    return _exchange(content, starts[one], starts[one + 1], starts[other], starts[other + 1])


def _exchange(content: bytes, one: int, two: int, three: int, four: int) -> bytes:
    return content[:one] + content[three:four] + content[two:three] + content[one:two] + content[four:]


def _starts(content: bytes) -> list[int]:
    """Where a PNG's or WebP's chunks, a JPEG's segments, an AVIF's or HEIC's boxes begin; then the last one's end."""
    head, size_at, width, order, added = _LAYOUTS.get(content[:2], (0, 0, 4, "big", 0))
    starts = [head]
    while head or content[4:8] == b"ftyp":
        at = starts[-1] + size_at
        length = int.from_bytes(content[at : at + width], order) + added
        end = starts[-1] + length + (length % 2 if order == "little" else 0)
        if at + width > len(content) or not starts[-1] < end <= len(content):
            break
        starts.append(end)
        if content[at - 2 : at] == b"\xff\xda":  # a JPEG's scan: what follows is no segment
            break
    return starts


_LAYOUTS: dict[bytes, tuple[int, int, int, Literal["big", "little"], int]] = {
    b"\x89P": (8, 0, 4, "big", 12),
    b"RI": (12, 4, 4, "little", 8),
    b"\xff\xd8": (2, 2, 2, "big", 2),
}
"""By a file's first two bytes: where chunks begin; a chunk's length, its place, bytes and order; what it leaves out."""

DAMAGES: dict[str, Callable[[bytes, random.Random], bytes]] = {
    "1 to 5 bits flipped": _few_flips,
    "6 to 100 bits flipped": _many_flips,
    "bits of the head flipped": _head_flips,
    "cut": _cut,
    "cut, an end mark behind": _cut_and_ended,
    "pieces swapped": _swapped,
    "chunks swapped": _chunks_swapped,
    "wrong ending": lambda content, _: content,
}
