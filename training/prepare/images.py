"""FashionIQ's photos from the published lists of ASIN and URL: one request at a time, in no hurry."""

from __future__ import annotations

import csv
import io
import json
import re
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from http.client import HTTPException
from pathlib import Path

from PIL import Image, UnidentifiedImageError

from fashion_retrieval.errors import ConfigError
from training.data.deepfashion_files import Faults
from training.engine.files import write_whole
from training.engine.progress import watched

MAX_BYTES = 32 * 2**20
MIN_SIDE = 16
"""Pixels; shops answer with a dot where they have no photo."""
_SUFFIXES = {".jpg", ".jpeg", ".png"}
_AGAIN = {408, 425, 429, 500, 502, 503, 504}
_LONGEST_WAIT = 60.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Manners:
    """How a server is asked.

    Attributes:
        rate: Requests a second at most, repeats included.
        retries: Repeats after a failure that may pass.
        timeout: Seconds to wait for the server.
        backoff: Seconds before the first repeat, doubled for each one after it.
    """

    rate: float = 5.0
    retries: int = 4
    timeout: float = 20.0
    backoff: float = 1.0


@dataclass(frozen=True, slots=True)
class Dead:
    """A photo that could not be had, why, and after how many requests."""

    id: str
    url: str
    reason: str
    requests: int


@dataclass(frozen=True, slots=True)
class Fetched:
    """What a run did: photos written, photos that were there, and dead links."""

    written: int
    kept: int
    dead: tuple[Dead, ...]


class FetchError(Exception):
    """Why a request gave no photo; `wait` is None where a repeat is useless, else the seconds the server asked for."""

    def __init__(self, reason: str, wait: float | None = None) -> None:
        super().__init__(reason)
        self.wait = wait


def read_urls(lists: Sequence[Path]) -> dict[str, str]:
    """URL by ASIN from files with `ASIN <tab> URL` lines; of an ASIN that comes again the first counts.

    Raises:
        ConfigError: A file can't be read, or a line is something else; the message names all.
    """
    faults, urls = Faults(), dict[str, str]()
    for path in lists:
        try:
            lines = path.read_text(encoding="utf-8-sig").splitlines()
        except (OSError, UnicodeDecodeError) as error:
            faults.add(f"can't be read ({error}):", path.name)
            continue
        for number, line in enumerate(lines, start=1):
            words = line.split()
            if not words:
                continue
            if len(words) != 2 or not re.fullmatch(r"[\w-]+", words[0]) or not re.match(r"https?://", words[1]):
                faults.add(f"no ASIN and http URL in {path.name} line", number)
            else:
                urls.setdefault(*words)
    if faults.lines():
        raise ConfigError(f"lists of URLs: {'; '.join(faults.lines())}; correct or remove these lines")
    return urls


def fetch_images(
    urls: Mapping[str, str],
    out: Path,
    manners: Manners,
    report: Path,
    *,
    sleep: Callable[[float], None] = time.sleep,
) -> Fetched:
    """Fetch the photos that are not there yet, flat under `out`; dead links go to `report`, also after a stop.

    Args:
        urls: URL by ASIN.
        out: Gets `<ASIN>.jpg`, or `.png` for what is no JPEG. Photos in folders inside it count as there.
        manners: See `Manners`.
        report: A `.json` or `.csv` file.
        sleep: Called with seconds.
    """
    there = {p.stem for p in out.rglob("*") if p.suffix.lower() in _SUFFIXES and p.stat().st_size} & set(urls)
    todo = [name for name in urls if name not in there]
    dead: list[Dead] = []
    client = Client(manners, sleep)
    try:
        for name in watched(todo, len(todo), "photos"):
            before = client.requests
            try:
                data, suffix = client.photo(urls[name])
            except FetchError as error:
                dead.append(Dead(name, urls[name], str(error), client.requests - before))
            else:
                write_whole(out / f"{name}{suffix}", data)
    finally:
        write_report(report, dead)
    return Fetched(len(todo) - len(dead), len(there), tuple(dead))


class Client:
    """Asks for one photo after the other, no faster than the manners say."""

    def __init__(self, manners: Manners, sleep: Callable[[float], None]) -> None:
        self.manners, self.requests = manners, 0
        self._sleep, self._next = sleep, 0.0

    def photo(self, url: str) -> tuple[bytes, str]:
        """The photo's bytes and suffix.

        Raises:
            FetchError: There is none, or the repeats are used up.
        """
        repeat = 0
        while True:
            try:
                return check_photo(self._ask(url))
            except FetchError as error:
                if error.wait is None or repeat == self.manners.retries:
                    raise
                self._sleep(min(_LONGEST_WAIT, max(error.wait, self.manners.backoff * 2**repeat)))
            repeat += 1

    def _ask(self, url: str) -> bytes:
        now = time.monotonic()
        if now < self._next:
            self._sleep(self._next - now)
        self._next = max(now, self._next) + 1 / self.manners.rate
        self.requests += 1
        request = urllib.request.Request(url, headers={"User-Agent": "fashion-retrieval (research; data set photos)"})
        try:
            with urllib.request.urlopen(request, timeout=self.manners.timeout) as response:
                expected = response.headers.get("Content-Length")
                data: bytes = response.read(MAX_BYTES + 1)
        except urllib.error.HTTPError as error:
            with error:
                asked = error.headers.get("Retry-After", "")
            wait = float(asked) if asked.isdigit() else 0.0
            raise FetchError(f"status {error.code}", wait if error.code in _AGAIN else None) from None
        except (OSError, HTTPException, ValueError) as error:
            reason = getattr(error, "reason", None) or str(error) or type(error).__name__
            raise FetchError(f"no answer ({reason})", None if isinstance(error, ValueError) else 0.0) from None
        if len(data) > MAX_BYTES:
            raise FetchError(f"more than {MAX_BYTES // 2**20} MB")
        if expected is not None and expected.isdigit() and int(expected) != len(data):
            raise FetchError(f"{len(data)} of {expected} bytes", 0.0)
        return data


def check_photo(data: bytes) -> tuple[bytes, str]:
    """The bytes as they are for a JPEG or PNG, else as PNG; and the suffix.

    Raises:
        FetchError: They are no photo, or one of a few pixels.
    """
    try:
        with Image.open(io.BytesIO(data)) as image:
            image.load()
            kind = image.format
            pixels = image.convert("RGB")
    except UnidentifiedImageError:
        raise FetchError("no photo in a known format" if data else "no bytes") from None
    except Exception as error:  # damaged data makes Pillow's readers raise nearly anything
        raise FetchError(f"a damaged photo ({error})") from None
    if min(pixels.size) < MIN_SIDE:
        raise FetchError(f"a placeholder of {pixels.width}x{pixels.height} pixels")
    if kind in ("JPEG", "PNG"):
        return data, ".jpg" if kind == "JPEG" else ".png"
    buffer = io.BytesIO()
    pixels.save(buffer, "PNG")
    return buffer.getvalue(), ".png"


def write_report(path: Path, dead: Sequence[Dead]) -> None:
    """Dead links as CSV or, for every other suffix, JSON."""
    rows = [asdict(link) for link in dead]
    if path.suffix.lower() != ".csv":
        write_whole(path, (json.dumps(rows, indent=2) + "\n").encode())
        return
    text = io.StringIO()
    writer = csv.DictWriter(text, Dead.__slots__, lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    write_whole(path, text.getvalue().encode())
