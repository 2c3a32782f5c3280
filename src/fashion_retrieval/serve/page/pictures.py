"""Pictures for the page: small JPEG files made in memory, and the addresses that hold them."""

from __future__ import annotations

import os
from base64 import b64encode
from functools import lru_cache
from io import BytesIO

from PIL import Image

from fashion_retrieval.errors import InputError
from fashion_retrieval.images.load import load_image
from fashion_retrieval.results import Match

_SIDE = 360
_KEPT = 1_000
"""Thumbnails in memory, about 20 kB each."""


def jpeg(image: Image.Image, side: int, quality: int = 85) -> bytes:
    """A JPEG file of an RGB image, shrunk to at most `side` pixels a side."""
    small, buffer = image.copy(), BytesIO()
    small.thumbnail((side, side), Image.Resampling.LANCZOS, reducing_gap=3.0)
    small.save(buffer, format="JPEG", quality=quality)
    return buffer.getvalue()


def address(content: bytes) -> str:
    """A `data:` URL that holds a JPEG file."""
    return f"data:image/jpeg;base64,{b64encode(content).decode()}"


def thumbnail(match: Match, max_pixels: int | None = None) -> str | None:
    """The address of a photo of a gallery, small; None where its file can't be read."""
    try:
        changed = os.stat(match.photo or "").st_mtime_ns  # noqa: PTH116  # a photo may be a URI, which no Path keeps
        return _thumbnail(match.photo or "", changed, max_pixels)
    except (InputError, OSError, ValueError):
        return None


@lru_cache(maxsize=_KEPT)
def _thumbnail(photo: str, changed: int, max_pixels: int | None) -> str:
    return address(jpeg(load_image(photo, max_pixels=max_pixels), _SIDE, 80))
