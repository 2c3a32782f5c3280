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
from typing import Any

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
    """Two pieces change places."""
    one, two, three, four = sorted(rng.sample(range(len(content)), 4))
    return content[:one] + content[three:four] + content[two:three] + content[one:two] + content[four:]


DAMAGES: dict[str, Callable[[bytes, random.Random], bytes]] = {
    "1 to 5 bits flipped": _few_flips,
    "6 to 100 bits flipped": _many_flips,
    "bits of the head flipped": _head_flips,
    "cut": _cut,
    "cut, an end mark behind": _cut_and_ended,
    "pieces swapped": _swapped,
    "wrong ending": lambda content, _: content,
}
