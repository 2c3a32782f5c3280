"""What a photo's numbers mean: its color profile, and the way from there to sRGB, in which colors are named."""

from __future__ import annotations

import struct
from functools import lru_cache
from io import BytesIO
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageCms

from fashion_retrieval.errors import ImageError

_SHEET = 1 << 20
"""Pixels converted at a time: what Pillow needs beside them stays small."""

_WHITE_NITS = 203.0
"""Of diffuse white in HDR photos (ITU-R BT.2408): what is brighter becomes white."""

_D65, _C, _DCI = (0.3127, 0.329), (0.31, 0.316), (0.314, 0.351)
_PRIMARIES = {
    1: ((0.64, 0.33), (0.3, 0.6), (0.15, 0.06), _D65),
    4: ((0.67, 0.33), (0.21, 0.71), (0.14, 0.08), _C),
    5: ((0.64, 0.33), (0.29, 0.6), (0.15, 0.06), _D65),
    6: ((0.63, 0.34), (0.31, 0.595), (0.155, 0.07), _D65),
    7: ((0.63, 0.34), (0.31, 0.595), (0.155, 0.07), _D65),
    9: ((0.708, 0.292), (0.17, 0.797), (0.131, 0.046), _D65),
    11: ((0.68, 0.32), (0.265, 0.69), (0.15, 0.06), _DCI),
    12: ((0.68, 0.32), (0.265, 0.69), (0.15, 0.06), _D65),
}
"""Red, green, blue and white as xy, by ITU-T H.273's numbers."""

_BRADFORD = np.array([[0.8951, 0.2664, -0.1614], [-0.7502, 1.7135, 0.0367], [0.0389, -0.0685, 1.0296]])
_D50 = np.array([0.9642, 1.0, 0.8249])
_UNSPECIFIED, _BT709, _SRGB, _PQ, _HLG = 2, 1, 13, 16, 18

Chromaticities = tuple[tuple[float, float], ...]


class ToSRGB:
    """From the color space of an ICC profile to 8-bit sRGB: relative colorimetric, with black point compensation."""

    def __init__(self, transform: Any, profile: bytes, mode: str) -> None:  # noqa: ANN401  # ImageCms gives no type
        self._transform = transform
        self._made_from = profile, mode

    def __reduce__(self) -> tuple[Any, ...]:
        return to_srgb, self._made_from

    def __call__(self, pixels: NDArray[np.uint8]) -> NDArray[np.uint8]:
        """RGB pixels, (..., 3) uint8 -> the same in sRGB, in an array of their own."""
        converted = np.array(pixels)
        rows = converted.reshape(-1, 3)
        for start in range(0, len(rows), _SHEET):
            sheet = rows[start : start + _SHEET]
            sheet[:] = np.asarray(self.image(Image.fromarray(sheet[None])))[0]
        return converted

    def image(self, image: Image.Image) -> Image.Image:
        """An image in the profile's mode -> RGB."""
        return ImageCms.applyTransform(image, self._transform)  # type: ignore[return-value]  # None only in place


@lru_cache(maxsize=16)
def to_srgb(profile: bytes, mode: str) -> ToSRGB | None:
    """The way to sRGB from an ICC profile for images of a Pillow mode: RGB, L or CMYK.

    None where there is nothing to do or to go by: the profile is sRGB's to a level of 255, can't be read, or is for
    other pixels than these, which then count as untagged.
    """
    flags = ImageCms.Flags.BLACKPOINTCOMPENSATION
    intent = ImageCms.Intent.RELATIVE_COLORIMETRIC
    try:
        source, target = ImageCms.ImageCmsProfile(BytesIO(profile)), ImageCms.createProfile("sRGB")
        way = ImageCms.buildTransform(source, target, mode, "RGB", renderingIntent=intent, flags=flags)
    except (ImageCms.PyCMSError, OSError, ValueError, TypeError):
        return None
    made = ToSRGB(way, profile, mode)
    if mode == "RGB":
        levels = np.linspace(0, 255, 18).round().astype(np.uint8)
        grid = np.stack(np.meshgrid(levels, levels, levels), axis=-1)
        if np.abs(made(grid).astype(np.int16) - grid).max() <= 1:
            return None
    return made


def coded_profile(primaries: int, transfer: int, name: str) -> bytes | None:
    """The ICC profile that code points of ITU-T H.273 stand for (PNG's cICP, nclx of AVIF and HEIC); None is sRGB.

    SDR video curves count as sRGB's, as viewers show them. In PQ and HLG what is brighter than diffuse white is white;
    HLG is shown as on a display of 1,000 nits, each channel by itself. An `ImageError` for other curves and primaries.
    """
    known = _PRIMARIES.get(_BT709 if primaries == _UNSPECIFIED else primaries)
    if known is None:
        raise ImageError(f"{name} has color primaries number {primaries}, which is not known; convert it to sRGB")
    signal = np.linspace(0, 1, 4096)
    if transfer in (_BT709, _UNSPECIFIED, 6, _SRGB, 14, 15):
        if known == _PRIMARIES[_BT709]:
            return None
        linear = _srgb_curve(signal)
    elif transfer in (4, 5, 8):
        linear = signal ** {4: 2.2, 5: 2.8, 8: 1.0}[transfer]
    elif transfer == _PQ:
        root = signal ** (32 / 2523)
        nits = 10_000 * (np.maximum(root - 107 / 128, 0) / (2413 / 128 - 2392 / 128 * root)) ** (8192 / 1305)
        linear = nits / _WHITE_NITS
    elif transfer == _HLG:
        scene = np.where(signal <= 0.5, signal**2 / 3, (np.exp((signal - 0.55991073) / 0.17883277) + 0.28466892) / 12)
        linear = 1_000 * scene**1.2 / _WHITE_NITS
    else:
        raise ImageError(f"{name} has a tone curve (transfer {transfer}) which is not known; convert it to sRGB")
    return _profile(known, linear)


def gamma_profile(gamma: float, chromaticities: Chromaticities | None) -> bytes | None:
    """The ICC profile of a PNG file's gAMA, 0.45455 for sRGB's, and cHRM (red, green, blue, white as xy)."""
    if not 0.05 < gamma < 20:
        return None
    signal = np.linspace(0, 1, 4096)
    linear = _srgb_curve(signal) if abs(gamma - 0.45455) < 0.005 else signal ** (1 / gamma)
    try:
        return _profile(chromaticities or _PRIMARIES[_BT709], linear)
    except (np.linalg.LinAlgError, struct.error, ValueError, ZeroDivisionError):  # colors that can't be
        return None


def _srgb_curve(signal: NDArray[np.float64]) -> NDArray[np.float64]:
    return np.where(signal <= 0.04045, signal / 12.92, ((signal + 0.055) / 1.055) ** 2.4)


def _profile(chromaticities: Chromaticities, curve: NDArray[np.float64]) -> bytes:
    """A display profile of three primaries, a white and one tone curve, in [0, 1]: ICC.1:2001-04 (version 2.4)."""
    red, green, blue, white = (np.array([x / y, 1, (1 - x - y) / y]) for x, y in chromaticities)
    primaries = np.stack([red, green, blue], axis=1)
    adapted = np.linalg.inv(_BRADFORD) @ np.diag(_BRADFORD @ _D50 / (_BRADFORD @ white)) @ _BRADFORD
    columns = adapted @ primaries * np.linalg.solve(primaries, white)
    levels = np.clip(curve * 65_535, 0, 65_535).round().astype(">u2")
    tags = {name: _xyz(column) for name, column in zip((b"rXYZ", b"gXYZ", b"bXYZ"), columns.T, strict=True)}
    tags |= {b"wtpt": _xyz(_D50), b"rTRC": b"curv" + struct.pack(">4xL", len(levels)) + levels.tobytes()}
    start, table, body = 128 + 4 + 12 * (len(tags) + 2), b"", b""
    for name, content in tags.items():
        names = (b"rTRC", b"gTRC", b"bTRC") if name == b"rTRC" else (name,)
        table += b"".join(struct.pack(">4sLL", each, start + len(body), len(content)) for each in names)
        body += content + bytes(-len(content) % 4)
    head = struct.pack(">L4xL4s4s4s12x4s28x", start + len(body), 0x02400000, b"mntr", b"RGB ", b"XYZ ", b"acsp")
    head += struct.pack(">3l", *(round(65_536 * value) for value in _D50))
    return head.ljust(128, b"\0") + struct.pack(">L", len(tags) + 2) + table + body


def _xyz(values: NDArray[np.float64]) -> bytes:
    return b"XYZ " + struct.pack(">4x3l", *(round(65_536 * float(value)) for value in values))
