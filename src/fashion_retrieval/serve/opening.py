"""What the service and the tools for agents check before they start: galleries, keys, the host, sizes."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from contextlib import ExitStack
from ipaddress import ip_address
from pathlib import Path
from typing import TYPE_CHECKING

from fashion_retrieval.errors import InputError
from fashion_retrieval.gallery import Gallery

if TYPE_CHECKING:
    from fashion_retrieval.model import FashionModel

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}")
_SIZE = re.compile(r"([0-9]{1,12})\s*([kmg]?)(i?)b?", re.IGNORECASE)
_SHORTEST_KEY = 16


def open_galleries(texts: Iterable[str], model: FashionModel) -> dict[str, Gallery]:
    """Galleries by name, from "NAME=PATH" or "PATH", whose last part is then the name. All are opened, or none stays.

    Raises:
        InputError: A name is not simple, or there are two of it.
        GalleryError: There is no such gallery, or it is of another model.
    """
    galleries: dict[str, Gallery] = {}
    with ExitStack() as opened:
        for text in texts:
            name, uri = _named(text)
            if name in galleries:
                raise InputError(f"each gallery must have a name of its own, got two named {name!r}; write NAME=PATH")
            galleries[name] = opened.enter_context(Gallery.open(uri, model))
        opened.pop_all()
    return galleries


def read_keys(path: str | Path) -> tuple[str, ...]:
    """The API keys in a file: one a line; empty lines, and lines that begin with #, are left out.

    Raises:
        InputError: The file can't be read, holds no key, or one that is shorter than 16 characters or has others than
            visible ones of ASCII. The message names the line, never the key.
    """
    try:
        lines = Path(path).read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "it is no text in UTF-8"
        raise InputError(f"the file of API keys {path} can't be read ({reason}); give a text file of keys") from error
    numbered = [(number, line.strip()) for number, line in enumerate(lines, start=1)]
    keys = [(number, key) for number, key in numbered if key and not key.startswith("#")]
    remedy = "make one with: openssl rand -hex 32"
    for number, key in keys:
        if len(key) < _SHORTEST_KEY or not re.fullmatch("[!-~]+", key):
            expected = f"at least {_SHORTEST_KEY} visible characters of ASCII"
            raise InputError(f"{path}: line {number} must be an API key of {expected}, got {len(key)}; {remedy}")
    if not keys:
        raise InputError(f"{path} must hold at least one API key, one a line, got none; {remedy}")
    return tuple(dict.fromkeys(key for _, key in keys))


def check_host(host: str, keys: Sequence[str]) -> None:
    """Refuse, with an `InputError`, to listen where other machines reach it and no key is asked for."""
    if not keys and not is_loopback(host):
        remedy = "give --api-key-file FILE, or --host 127.0.0.1"
        raise InputError(f"a service without API keys must listen on a loopback address, got host {host!r}; {remedy}")


def check_origins(origins: Iterable[str]) -> None:
    """Refuse, with an `InputError`, what no browser sends as the origin of a page."""
    for origin in origins:
        if not re.fullmatch(r"https?://[^\s/*@]+", origin):
            raise InputError(f"an origin must be a site, as https://your.shop, without a path, got {origin!r:.80}")


def is_loopback(host: str) -> bool:
    """Whether only this machine reaches a host: "localhost", 127.0.0.0/8 or ::1."""
    try:
        return host == "localhost" or ip_address(host.strip("[]")).is_loopback
    except ValueError:
        return False


def parse_size(text: str) -> int:
    """Bytes of "20MB", "512 KiB", "64k" or "1000"; an `InputError` for anything else, and for none."""
    found = _SIZE.fullmatch(text.strip())
    if not found or not int(found[1]):
        raise InputError(f"a size must be a whole number with B, KB, MB, GB, KiB, MiB or GiB, got {text!r:.60}")
    power = ("", "k", "m", "g").index(found[2].lower())
    return int(found[1]) * int((1024 if found[3] else 1000) ** power)


def _named(text: str) -> tuple[str, str]:
    name, equals, uri = text.partition("=")
    if not equals or re.search(r"[/\\]", name):  # a path or an address, with a "=" of its own
        uri = text
        last = uri.rstrip("/").rpartition("/")[2].rpartition("@")[2]  # no password in the message
        name = last if "://" in uri else Path(uri).absolute().name
    if not _NAME.fullmatch(name) or not uri:
        expected = "1 to 64 letters, digits, '-', '_' and '.', the first a letter or digit"
        raise InputError(f"a gallery's name must have {expected}, got {name!r:.80}; write NAME=PATH")
    return name, uri
