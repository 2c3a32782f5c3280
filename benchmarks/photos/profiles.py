"""Color profiles: Display P3 is made here, the others are files of Debian packages and looked up."""

from __future__ import annotations

import struct
from io import BytesIO
from pathlib import Path

import numpy as np
from PIL import Image, ImageCms

FOLDER = Path("/usr/share/color/icc")
FILES = {
    "AdobeRGB": ("AdobeRGB1998.icc", "colord-data"),
    "ProPhoto": ("ProPhotoRGB.icc", "colord-data"),
    "SWOP CMYK": ("default_cmyk.icc", "libgs-common"),
    "FOGRA39 CMYK": (
        "FOGRA39L.icc",
        "argyll: `colprof -ql -bm FOGRA39L` makes it from icc-profiles-free's FOGRA39L.ti3",
    ),
}
"""A profile's file, and the Debian package that has it."""

DISPLAY_P3 = ((0.680, 0.320), (0.265, 0.690), (0.150, 0.060))
BT709 = ((0.640, 0.330), (0.300, 0.600), (0.150, 0.060))
D65 = (0.3127, 0.3290)
"""CIE xy of the primaries and the white, as published in SMPTE EG 432-1 and ITU-R BT.709."""

_D50 = np.array([0.9642, 1.0, 0.8249])
_BRADFORD = np.array([[0.8951, 0.2664, -0.1614], [-0.7502, 1.7135, 0.0367], [0.0389, -0.0685, 1.0296]])
_SRGB_CURVE = (2.4, 1 / 1.055, 0.055 / 1.055, 1 / 12.92, 0.04045)


def find(folder: Path = FOLDER) -> tuple[dict[str, bytes], list[str]]:
    """Profiles by name, and a line for each one that is absent from the folder and those below it."""
    found, absent = {"Display P3": matrix_profile("Display P3", DISPLAY_P3)}, []
    for name, (file, package) in FILES.items():
        if path := next(iter(sorted(folder.rglob(file))), None):
            found[name] = path.read_bytes()
        else:
            absent.append(f"{name}: no {file} in {folder}; it is in Debian's {package}")
    return found, absent


def matrix_profile(name: str, primaries: tuple[tuple[float, float], ...]) -> bytes:
    """An ICC 4 display profile: these primaries (CIE xy), white D65, sRGB's curve."""
    columns = np.array([[x / y, 1, (1 - x - y) / y] for x, y in (*primaries, D65)]).T
    white = columns[:, 3]
    gains = _BRADFORD @ _D50 / (_BRADFORD @ white)
    adapt = np.linalg.inv(_BRADFORD) @ np.diag(gains) @ _BRADFORD
    colorants = adapt @ (columns[:, :3] * np.linalg.solve(columns[:, :3], white))
    curve = b"para" + struct.pack(">IHH", 0, 3, 0) + _fixed(*_SRGB_CURVE)
    tags = {
        b"desc": _text(name),
        b"cprt": _text("No copyright, use freely"),
        b"wtpt": _xyz(_D50),
        b"chad": b"sf32" + bytes(4) + _fixed(*adapt.ravel()),
        **{channel + b"XYZ": _xyz(column) for channel, column in zip((b"r", b"g", b"b"), colorants.T, strict=True)},
        **{channel + b"TRC": curve for channel in (b"r", b"g", b"b")},
    }
    table, body, start = struct.pack(">I", len(tags)), b"", 128 + 4 + 12 * len(tags)
    for tag, data in tags.items():
        table += tag + struct.pack(">II", start + len(body), len(data))
        body += data + bytes(-len(data) % 4)
    head = struct.pack(">I4sI4s4s4s6H4s", start + len(body), bytes(4), 0x04200000, b"mntr", b"RGB ", b"XYZ ",
                       2026, 1, 1, 0, 0, 0, b"acsp")  # fmt: skip
    return (head + bytes(28) + _fixed(*_D50)).ljust(128, b"\0") + table + body


def _fixed(*numbers: float) -> bytes:
    return struct.pack(f">{len(numbers)}i", *(round(number * 65536) for number in numbers))


def _xyz(values: np.ndarray) -> bytes:
    return b"XYZ " + bytes(4) + _fixed(*values)


def _text(text: str) -> bytes:
    data = text.encode("utf-16-be")
    return b"mluc" + struct.pack(">IIIHHII", 0, 1, 12, 0x656E, 0x5553, len(data), 28) + data


def converted(image: Image.Image, profile: bytes, *, back: bool = False) -> Image.Image:
    """sRGB in the colors of a profile or, `back`, the reverse: relative colorimetric, black point compensated."""
    own = ImageCms.ImageCmsProfile(BytesIO(profile))
    mode = "CMYK" if own.profile.xcolor_space.strip() == "CMYK" else "RGB"
    srgb = ImageCms.createProfile("sRGB")
    source, target, mode = (own, srgb, "RGB") if back else (srgb, own, mode)
    intent, flags = ImageCms.Intent.RELATIVE_COLORIMETRIC, ImageCms.Flags.BLACKPOINTCOMPENSATION
    made = ImageCms.profileToProfile(image, source, target, renderingIntent=intent, outputMode=mode, flags=flags)
    if made is None:
        raise ValueError("littleCMS returned no image")
    return made
