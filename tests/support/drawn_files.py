"""Photos whose files have the same bytes on every machine: bitmaps, which nothing compresses."""

from __future__ import annotations

from pathlib import Path

from tests.support.tiny import drawn_photo


def drawn_bitmaps(folder: Path, count: int) -> list[Path]:
    """Write photos "0.bmp", "1.bmp" … of different sizes."""
    folder.mkdir(parents=True, exist_ok=True)
    paths = [folder / f"{number}.bmp" for number in range(count)]
    for number, path in enumerate(paths):
        drawn_photo((40 + 3 * number, 60 + number), seed=number).save(path)
    return paths
