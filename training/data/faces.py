"""Faces, and the bare skin connected to them, in photos without pixel labels."""

from __future__ import annotations

from functools import cache
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray
from PIL import Image

from fashion_retrieval.inference.colors import to_lab
from training.data.regions import Mask, spread

_SCALE = 1.5  # so that faces of 20 pixels in the photo are found
_NEIGHBOURS = 4
_SKIN = np.array([22.0, 8.0, 9.0], dtype=np.float32)  # L, a, b around the face's median


def head_masks(rgb: NDArray[np.uint8]) -> tuple[Mask, Mask]:
    """Frontal faces (Viola and Jones, 2001), and what is around and above them: two (H, W) bool.

    Faces come with connected skin of their color (neck, ears, shoulders); around them is all down to the chin (hair, a
    hat, background). `rgb` is HWC uint8, upright, at most about 500 pixels on the long side.
    """
    height, width = rgb.shape[:2]
    skin, around = np.zeros((2, height, width), dtype=np.bool_)
    faces = find_faces(rgb)
    if not faces:
        return skin, around
    lab = to_lab(rgb)
    y, x = np.mgrid[:height, :width].astype(np.float32)
    for left, top, right, bottom in faces:
        across, down = (right - left) / 2, (bottom - top) / 2
        off = ((x - (left + right) / 2) / (0.72 * across)) ** 2 + ((y - (top + bottom) / 2) / (0.92 * down)) ** 2
        core = lab[off < 0.35]
        if not len(core):
            continue
        alike = (np.abs(lab - np.median(core, axis=0)) < _SKIN).all(axis=-1)
        skin |= (off < 1) | spread((off < 0.35) & alike, alike)
        around |= (y < bottom - 0.1 * down) & (np.abs(x - (left + right) / 2) < 1.6 * across)
    return skin, around & ~skin


def find_faces(rgb: NDArray[np.uint8]) -> list[tuple[float, float, float, float]]:
    """Boxes xyxy in pixels of frontal faces."""
    image = Image.fromarray(rgb).convert("L")
    large = np.asarray(image.resize((round(image.width * _SCALE), round(image.height * _SCALE))))
    found = _detector().detectMultiScale(large, scaleFactor=1.1, minNeighbors=_NEIGHBOURS, minSize=(30, 30))
    return [(x / _SCALE, y / _SCALE, (x + w) / _SCALE, (y + h) / _SCALE) for x, y, w, h in found]


@cache
def _detector() -> cv2.CascadeClassifier:
    folder = Path(cv2.__file__).parent / "data"
    return cv2.CascadeClassifier(str(folder / "haarcascade_frontalface_default.xml"))
