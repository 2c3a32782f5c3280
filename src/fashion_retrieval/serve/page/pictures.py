"""Pictures for the page: small JPEG files made in memory, and the addresses that hold them."""

from __future__ import annotations

from base64 import b64encode
from io import BytesIO

from PIL import Image

from fashion_retrieval.errors import InputError
from fashion_retrieval.results import Match
from fashion_retrieval.serve.uploads import thumbnail

_SIDE = 360


def jpeg(image: Image.Image, side: int, quality: int = 85) -> bytes:
    """A JPEG file of an RGB image, shrunk to at most `side` pixels a side."""
    small, buffer = image.copy(), BytesIO()
    small.thumbnail((side, side), Image.Resampling.LANCZOS, reducing_gap=3.0)
    small.save(buffer, format="JPEG", quality=quality)
    return buffer.getvalue()


def address(content: bytes) -> str:
    """A `data:` URL that holds a JPEG file."""
    return f"data:image/jpeg;base64,{b64encode(content).decode()}"


def address_of(match: Match, max_pixels: int | None = None) -> str | None:
    """The address of a photo of a gallery, small; None where its file can't be read."""
    try:
        return address(thumbnail(match.photo, _SIDE, max_pixels)) if match.photo else None
    except InputError:
        return None
