"""A photo's perceptual hash: 64 bits that stay mostly the same when it is encoded, resized, cropped or lit anew."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from PIL import Image

BITS = 64
_CONTRAST = 24
"""Levels by which what is shown differs from the background, at least in one channel."""
_REST = 0.01
"""Share of what is shown that may lie outside the box, at each side."""
_SIDE = 32
_NOISE = 0.01
"""A frequency that is not there has the sign of rounding errors; below this it counts as 0."""
_LOWEST = 16
_FREQUENCIES = np.cos(np.pi / _SIDE * np.outer(np.arange(_LOWEST), np.arange(_SIDE) + 0.5)) * np.sqrt(2 / _SIDE)
_FREQUENCIES[0] *= np.sqrt(0.5)
"""The lowest of a discrete cosine transform, orthonormal: (16, 32)."""
_ROWS, _COLUMNS = np.indices((_LOWEST, _LOWEST)).reshape(2, -1)
_ORDER = np.argsort(_ROWS + _COLUMNS, kind="stable")
"""The frequencies of a square, lowest first; the first is the mean."""
_LUMINANCE, _CHROMA = _ORDER[1:45], _ORDER[:10]


def perceptual_hash(levels: NDArray[np.uint8]) -> int | None:
    """Hash (H, W, 3) uint8: 64 bits as a signed number, None for a photo of one color.

    What differs from the color of the border is cut out, which leaves a product on a plain background in the same place
    after a light crop, and shrunk to 32 x 32. A bit is the sign of a low frequency of its discrete cosine transform: 44
    of the luminance, and 10 of either difference of colors. Photos are compared by how many of the bits differ.
    """
    photo = Image.fromarray(levels)
    box = _shown(np.asarray(photo.reduce(2) if min(photo.size) > 2 * _SIDE else photo, np.int16))
    if box is None:
        return None
    (left, top, right, bottom), (width, height) = box, photo.size
    cut = (left * width, top * height, right * width, bottom * height)
    small = photo.resize((_SIDE, _SIDE), Image.Resampling.BILINEAR, box=cut).convert("YCbCr")
    channels = np.asarray(small, np.float32) - (0, 128, 128)
    spectrum = np.einsum("ir,js,rsc->ijc", _FREQUENCIES, _FREQUENCIES, channels, optimize=True).reshape(-1, 3)
    lowest = np.concatenate([spectrum[_LUMINANCE, 0], spectrum[_CHROMA, 1], spectrum[_CHROMA, 2]])
    bits = np.packbits(lowest > _NOISE)
    return int(bits.view(np.int64)[0]) or None


def _shown(levels: NDArray[np.int16]) -> tuple[float, float, float, float] | None:
    """The box of nearly all that differs from the border's median color, x1, y1, x2, y2 as shares of the sides."""
    border = np.concatenate([levels[0], levels[-1], levels[:, 0], levels[:, -1]])
    far = np.abs(levels - np.median(border, axis=0).astype(np.int16)) > _CONTRAST
    differs = far[..., 0] | far[..., 1] | far[..., 2]
    if not differs.any():
        return None
    left, right = _middle(differs.sum(axis=0))
    top, bottom = _middle(differs.sum(axis=1))
    return left, top, right, bottom


def _middle(counts: NDArray[np.intp]) -> tuple[float, float]:
    """Where the first and the last hundredth of the counts end, as shares of their number; specks move it little."""
    shares = np.concatenate([[0.0], np.cumsum(counts) / counts.sum()])
    low, high = np.interp([_REST, 1 - _REST], shares, np.linspace(0, 1, len(shares)))
    return float(low), float(high)
