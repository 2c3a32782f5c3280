"""What files say beside their pixels and what no reader of Pillow's tells: brands and code points of colors."""

from __future__ import annotations

import struct
import zlib
from collections.abc import Iterator

_HEIC = {b"heic", b"heix", b"heim", b"heis", b"hevc", b"hevx", b"mif1", b"msf1"}
_AVIF = {b"avif", b"avis"}
_PNG = b"\x89PNG\r\n\x1a\n"


def is_heic(content: bytes) -> bool:
    """Whether a file is HEIC or HEIF, which AVIF is not though it may call itself so, too."""
    brands = _brands(content)
    return bool(brands & _HEIC) and not brands & _AVIF


def is_isobmff(content: bytes) -> bool:
    """Whether a file is AVIF, HEIC or another of ISO's base media file format, whose turning is not EXIF's."""
    return content[4:8] == b"ftyp"


def code_points(content: bytes) -> tuple[int, int] | None:
    """Primaries and transfer, as ITU-T H.273 numbers them, of a PNG's cICP, or of the nclx of AVIF or HEIC."""
    if content.startswith(_PNG):
        for name, start, end in _chunks(content):
            if name == b"cICP" and end - start >= 2:
                return content[start], content[start + 1]
            if name == b"IDAT":
                break
    elif is_isobmff(content):
        for name, start, end in _boxes(content):
            place = content.find(b"colrnclx", start, end) if name == b"meta" else -1
            if 0 <= place <= end - 12:
                primaries, transfer = struct.unpack_from(">HH", content, place + 8)
                return primaries, transfer
    return None


def damaged_chunk(content: bytes) -> str | None:
    """The first chunk of a PNG without which there is no photo and whose checksum is wrong; Pillow does not look."""
    if content.startswith(_PNG):
        for name, start, end in _chunks(content):
            if name == b"IEND":  # what comes after it is not the photo's
                break
            if name[:1].isupper() and content[end : end + 4] != zlib.crc32(content[start - 4 : end]).to_bytes(4, "big"):
                return name.decode("ascii", "replace")
    return None


def _brands(content: bytes) -> set[bytes]:
    """The major and compatible brands of a file of ISO's base media file format."""
    if not is_isobmff(content):
        return set()
    end = min(int.from_bytes(content[:4], "big"), len(content), 256)
    return {content[place : place + 4] for place in (8, *range(16, end, 4))}


def _chunks(content: bytes) -> Iterator[tuple[bytes, int, int]]:
    """Name, start and end of each chunk of a PNG file."""
    place = len(_PNG)
    while place + 8 <= len(content):
        length, name = struct.unpack_from(">L4s", content, place)
        yield name, place + 8, min(place + 8 + length, len(content))
        place += 12 + length


def _boxes(content: bytes) -> Iterator[tuple[bytes, int, int]]:
    """Name, start and end of each box at the top of a file of ISO's base media file format."""
    place = 0
    while place + 8 <= len(content):
        length, name = struct.unpack_from(">L4s", content, place)
        head = 8
        if length == 1 and place + 16 <= len(content):
            length, head = int.from_bytes(content[place + 8 : place + 16], "big"), 16
        if length < head:  # 0: to the end of the file
            length = len(content) - place
        yield name, place + head, min(place + length, len(content))
        place += length
