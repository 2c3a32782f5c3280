"""FashionIQ's photos from the published lists of ASIN and URL, one request at a time."""

from __future__ import annotations

import csv
import io
import json
import re
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import requests
from PIL import Image, UnidentifiedImageError
from requests.adapters import HTTPAdapter
from urllib3.exceptions import HTTPError
from urllib3.response import BaseHTTPResponse
from urllib3.util.retry import Retry

from fashion_retrieval._utils.files import write_atomically
from fashion_retrieval._utils.progress import tracked
from fashion_retrieval.errors import ConfigError
from training.data.deepfashion_files import Faults

MAX_BYTES = 32 * 2**20
MIN_SIDE = 16
"""Pixels; shops answer with a dot where they have no photo."""
_SUFFIXES = {".jpg", ".jpeg", ".png"}
_STATUS_TO_RETRY = (408, 425, 429, 500, 502, 503, 504)
_MAX_WAIT = 60.0


@dataclass(frozen=True, slots=True, kw_only=True)
class RetryPolicy:
    """How often a server is asked."""

    rate: float = 5.0  # requests a second at most
    retries: int = 4  # repeats after a failure that may pass
    timeout: float = 20.0  # seconds to wait for the server
    backoff: float = 1.0  # seconds before the first repeat, doubled for each further one; a Retry-After goes before it


@dataclass(frozen=True, slots=True)
class FailedDownload:
    """A photo that could not be fetched, why, and after how many requests."""

    id: str
    url: str
    reason: str
    requests: int


@dataclass(frozen=True, slots=True)
class DownloadReport:
    """Result of a run: photos written, photos that existed before, and failures."""

    written: int
    kept: int
    failed: tuple[FailedDownload, ...]


class FetchError(Exception):
    """Why there is no photo, and after how many requests."""

    def __init__(self, reason: str, requests: int = 1) -> None:
        super().__init__(reason)
        self.requests = requests


def read_urls(lists: Sequence[Path]) -> dict[str, str]:
    """URL by ASIN from files with `ASIN <tab> URL` lines; of an ASIN that comes again the first counts."""
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


def fetch_images(urls: Mapping[str, str], out: Path, policy: RetryPolicy, report: Path) -> DownloadReport:
    """Fetch the missing photos, flat under `out`; the failures go to `report`, after an interruption too.

    Photos in folders inside `out` count as fetched. The report is CSV or JSON, by its suffix.
    """
    out.mkdir(parents=True, exist_ok=True)
    found = {p.stem for p in out.rglob("*") if p.suffix.lower() in _SUFFIXES and p.stat().st_size} & set(urls)
    missing = [name for name in urls if name not in found]
    failed: list[FailedDownload] = []
    try:
        with Client(policy) as client:
            for name in tracked(missing, "photos", len(missing), shown=True):
                try:
                    data, suffix = client.photo(urls[name])
                except FetchError as error:
                    failed.append(FailedDownload(name, urls[name], str(error), error.requests))
                else:
                    with write_atomically(out / f"{name}{suffix}") as partial:
                        partial.write_bytes(data)
    finally:
        write_report(report, failed)
    return DownloadReport(len(missing) - len(failed), len(found), tuple(failed))


class _Backoff(Retry):
    """Waits before the first repeat too, and never longer than `_MAX_WAIT`."""

    def get_backoff_time(self) -> float:
        return max(self.backoff_factor, super().get_backoff_time())

    def get_retry_after(self, response: BaseHTTPResponse) -> float | None:
        wait = super().get_retry_after(response)
        return None if wait is None else min(wait, _MAX_WAIT)


class Client(requests.Session):
    """Fetches one photo after the other, no faster than the policy says."""

    def __init__(self, policy: RetryPolicy) -> None:
        super().__init__()
        self.policy, self._next = policy, 0.0
        self.retry = _Backoff(
            total=None,
            connect=policy.retries,
            read=policy.retries,
            status=policy.retries,
            other=policy.retries,
            status_forcelist=_STATUS_TO_RETRY,
            backoff_factor=max(policy.backoff, 1 / policy.rate),
            backoff_max=_MAX_WAIT,
            raise_on_status=False,
        )
        self.headers["User-Agent"] = "fashion-retrieval (research; data set photos)"
        for scheme in ("http://", "https://"):
            self.mount(scheme, HTTPAdapter(max_retries=self.retry))

    def photo(self, url: str) -> tuple[bytes, str]:
        """The photo's bytes and suffix."""
        retry = self.retry
        for request in range(1, self.policy.retries + 2):
            try:
                return check_photo(self._ask(url))
            except HTTPError as error:  # the body broke off, which is beyond the adapter's own repeats
                if request > self.policy.retries:
                    raise FetchError(f"no answer ({error.args[0]})", request) from None
                retry = retry.increment("GET", url, error=error)
                retry.sleep()
        raise AssertionError("unreachable")

    def _ask(self, url: str) -> bytes:
        time.sleep(max(0.0, self._next - time.monotonic()))
        self._next = time.monotonic() + 1 / self.policy.rate
        try:
            with self.get(url, timeout=self.policy.timeout, stream=True) as response:
                if repeats := len(response.raw.retries.history):
                    self._next = time.monotonic() + 1 / self.policy.rate
                if not response.ok:
                    raise FetchError(f"status {response.status_code}", 1 + repeats)
                data: bytes = response.raw.read(MAX_BYTES + 1, decode_content=True)
        except requests.ConnectionError as error:
            reason = getattr(error.args[0], "reason", error)
            raise FetchError(f"no answer ({reason})", 1 + self.policy.retries) from None
        except requests.RequestException as error:
            raise FetchError(f"no answer ({error})") from None
        if len(data) > MAX_BYTES:
            raise FetchError(f"more than {MAX_BYTES // 2**20} MB")
        return data


def check_photo(data: bytes) -> tuple[bytes, str]:
    """The bytes of a JPEG or PNG unchanged, or of another format converted to PNG; and the suffix."""
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


def write_report(path: Path, failed: Sequence[FailedDownload]) -> None:
    """Write the failures as CSV or, for every other suffix, JSON."""
    rows = [asdict(failure) for failure in failed]
    path.parent.mkdir(parents=True, exist_ok=True)
    with write_atomically(path) as partial, partial.open("w", encoding="utf-8", newline="") as file:
        if path.suffix.lower() == ".csv":
            writer = csv.DictWriter(file, FailedDownload.__slots__, lineterminator="\n")
            writer.writeheader()
            writer.writerows(rows)
        else:
            file.write(json.dumps(rows, indent=2) + "\n")
