"""Which files of a folder are photos."""

from __future__ import annotations

from pathlib import Path

SUFFIXES = frozenset({".avif", ".bmp", ".gif", ".jpeg", ".jpg", ".png", ".tif", ".tiff", ".webp"})
"""What counts as a photo inside a folder; a photo named by itself may have any name."""


def photos_below(folder: Path) -> list[Path]:
    """The photos in a folder and its folders, sorted."""
    return sorted(path for path in folder.rglob("*") if path.suffix.lower() in SUFFIXES and path.is_file())


def why_empty(folder: str) -> str:
    """The message for a folder without a photo."""
    return f"folder {folder} holds no photo; expected files ending in {' '.join(sorted(SUFFIXES))}"
