"""A small tree laid out exactly like FashionIQ, and a model whose every answer is known by hand.

Photo `D07` points 14 degrees to the right of `D00`. A wish that names "left" first points one degree to the left of all
photos, so that it finds 00, 01, 02 …; one that names "right" first finds them from the other end.
"""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

VAL = {
    "dress": [
        ("D03", "D10", "is left.", " shorter, to the right?"),
        ("D20", "D50", "is left", "is right"),
        ("D59", "D08", "Far left ", "right"),
        ("D05", "D04", "more to the right,", "left"),
    ],
    "shirt": [("S00", "S11", "is left", "has sleeves"), ("S02", "S01", "left", "is blue")],
    "toptee": [
        ("T00", "T54", "is left", "is red"),
        ("T54", "T44", "is right", "is red"),
        ("T10", "T11", " ", "is left"),
    ],
}
"""Candidate, target and both captions."""
SIZES = {"dress": 60, "shirt": 12, "toptee": 55}
TRAIN = {"dress": ["D90", "D91"], "shirt": ["S90", "S91", "T44", "T05"], "toptee": ["T90", "T91", "S01"]}
"""The train splits hold three photos of val: S01, T05 and T44."""


def write_tree(root: Path, *, folder: str = "images", suffix: str = ".jpg") -> Path:
    """Captions, splits and photos of all three splits. `folder` may say {group}; S00 is listed twice."""
    for group, rows in VAL.items():
        letter = group[0].upper()
        val = [f"{letter}{number:02}" for number in range(SIZES[group])]
        val += ["S00"] if group == "shirt" else []
        train = [{"target": f"{letter}91", "candidate": f"{letter}90", "captions": ["is left", "is longer"]}]
        test = [{"candidate": f"{letter}80", "captions": ["is right", "is longer"]}]
        asked = [{"target": t, "candidate": c, "captions": [first, second]} for c, t, first, second in rows]
        splits = {"train": (train, TRAIN[group]), "val": (asked, val), "test": (test, [f"{letter}80"])}
        for split, (captions, ids) in splits.items():
            write_json(root / f"captions/cap.{group}.{split}.json", captions)
            write_json(root / f"image_splits/split.{group}.{split}.json", ids)
            for name in ids:
                draw(root / folder.format(group=group) / f"{name}{suffix}")
    return root


def write_json(path: Path, value: object) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(value, indent=4), encoding="utf-8")


def draw(path: Path) -> None:
    """A photo of one color, 8 pixels wide and 12 high."""
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", (8, 12), (int(path.stem[-2:]) * 2, 90, 160)).save(path)


class Compass:
    """Knows a photo by the number in its name, and a text by the direction it names first."""

    def __init__(self) -> None:
        self.encoded: list[Path] = []
        self.texts: list[str] = []

    def encode(self, *, images: list[Path] | None = None, texts: list[str] = (), **_: Any) -> np.ndarray:  # type: ignore[assignment]
        self.encoded += images or []
        return directions([2.0 * int(path.stem[-2:]) for path in images]) if images else pointed(texts)

    def compose(self, reference_image: list[Path], modification_text: list[str], **_: Any) -> np.ndarray:
        assert all(path.is_file() for path in reference_image)
        self.texts += modification_text
        return pointed(modification_text)


def pointed(texts: list[str]) -> np.ndarray:
    """(N, 2) float32: where texts point."""
    ways = [re.search("left|right", text, re.IGNORECASE) for text in texts]
    return directions([-1.0 if way and way[0].lower() == "left" else 119.0 for way in ways])


def directions(degrees: list[float]) -> np.ndarray:
    """(N, 2) float32, L2-normalized."""
    angles = np.deg2rad(degrees)
    return np.stack([np.cos(angles), np.sin(angles)], axis=1).astype(np.float32)
