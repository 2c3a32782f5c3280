"""One scene in several color spaces: do its garments keep their color names and `hex`?

The scene in sRGB, a PNG, is what all others are held against. Beside them stand copies that differ by one level, and
the sRGB scene as a JPEG: no reader can be steadier than that. What a copy itself lost, out of its gamut or by rounding,
shows in "at best": the copy turned back by littleCMS at full size, and given as an array.
"""

from __future__ import annotations

import json
import random
from collections.abc import Callable, Iterator
from functools import cache
from io import BytesIO
from itertools import pairwise
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from benchmarks import material
from benchmarks.photos import profiles, scene
from fashion_retrieval import FashionModel
from fashion_retrieval.inference.colors import PALETTE, to_lab

Pixels = NDArray[np.uint8]
Scene = tuple[Pixels, list[list[int]]]
"""An sRGB photo and the boxes of its garments, xyxy."""

SRGB = "sRGB"


def measure(folder: Path = profiles.FOLDER, *, count: int) -> dict[str, Any]:
    """How many garments of `count` change their dominant color's name in each copy, and the dE2000 of its `hex`."""
    found, absent = profiles.find(folder)
    model = FashionModel.from_pretrained("compact")
    scenes, source = _scenes(count)
    seen: dict[str, list[tuple[str, str] | None]] = {}
    for pixels, boxes in scenes:
        for name, photo in _copies(pixels, found):
            garments = model.recognize(photo, boxes=boxes).garments
            first = [one.colors[0] if one.colors else None for one in garments]
            seen.setdefault(name, []).extend((color.name, color.hex) if color else None for color in first)
    rows: dict[str, dict[str, Any]] = {}
    for name in seen:
        if name != SRGB and not name.endswith("at best"):
            best = seen.get(f"{name}, at best")
            rows[name] = dict(compare(seen[name], seen[SRGB]))
            if best:
                rows[name] |= {"at_best": compare(best, seen[SRGB]), "to_best": compare(seen[name], best)}
    return {"garments": len(seen[SRGB]), "source": source, "rows": rows, "left_out": absent}


def compare(found: list[tuple[str, str] | None], wanted: list[tuple[str, str] | None]) -> dict[str, float]:
    """The share of (name, hex) whose name differs, and the median dE2000 between the hex; None is a missing color."""
    differ = sum((one and one[0]) != (other and other[0]) for one, other in zip(found, wanted, strict=True))
    pairs = [(one[1], other[1]) for one, other in zip(found, wanted, strict=True) if one and other]
    return {
        "names_differ": round(differ / len(wanted), 4),
        "hex_de2000": round(median(delta_e_2000(_lab(one), _lab(other)) for one, other in pairs), 3),
    }


def _lab(code: str) -> NDArray[np.float32]:
    return to_lab(np.frombuffer(bytes.fromhex(code[1:]), np.uint8))


def _copies(pixels: Pixels, found: dict[str, bytes]) -> Iterator[tuple[str, bytes | Pixels]]:
    """The sRGB photo by name, its controls, and for each profile the copy and what is the best to be made of it."""
    image = Image.fromarray(pixels)
    yield SRGB, _file(image, "PNG")
    for name, step in (("lighter", (1, 1, 1)), ("redder", (1, 0, 0)), ("bluer", (0, 0, 1))):
        near = np.minimum(pixels, 254) + np.array(step, np.uint8)
        yield f"sRGB, one level {name}", _file(Image.fromarray(near), "PNG")
    yield "sRGB, JPEG", _file(image, "JPEG")
    for name, profile in found.items():
        # Eight bits of ProPhoto are coarse: nobody would make a JPEG of them.
        file = _file(profiles.converted(image, profile), "TIFF" if name == "ProPhoto" else "JPEG", profile)
        yield name, file
        with Image.open(BytesIO(file)) as copied:
            yield f"{name}, at best", np.asarray(profiles.converted(copied, profile, back=True))


def _file(image: Image.Image, format_name: str, profile: bytes | None = None) -> bytes:
    stream = BytesIO()
    options: dict[str, Any] = {"quality": 95, "subsampling": 0} if format_name == "JPEG" else {}
    image.save(stream, format_name, icc_profile=profile, **options)
    return stream.getvalue()


def _scenes(count: int) -> tuple[list[Scene], str]:
    """Photos with `count` garments of the data pack, whose color and mask are labeled, or drawn ones without it."""
    if not (material.PACK / "attributes.jsonl").is_file():
        colors = [*PALETTE.values()]
        drawn = [scene.figure(300, 400, sweater=one, trousers=two) for one, two in pairwise(colors)]
        boxes = [[60, 80, 240, 220], [100, 205, 200, 375]]
        return [(pixels, boxes) for pixels in drawn][: count // 2], "drawn"
    garments = [*_labeled("clothing", _clothing_box), *_labeled("street", _street_box)]
    by_photo: dict[Path, list[list[int]]] = {}
    for path, box in random.Random(0).sample(sorted(garments), count):
        by_photo.setdefault(path, []).append(box)
    scenes = []
    for path, chosen in by_photo.items():
        with Image.open(path) as image:
            scenes.append((np.asarray(image.convert("RGB")), chosen))
    return scenes, "data pack, val: clothing and street"


def _labeled(source: str, box: Callable[[dict[str, Any]], list[int] | None]) -> Iterator[tuple[Path, list[int]]]:
    for row in _rows("attributes.jsonl"):
        if row["source"] == source and row["split"] == "val" and "colour" in row and (found := box(row)):
            yield material.PACK / source / "val" / f"{row['id']}.jpg", found


def _clothing_box(row: dict[str, Any]) -> list[int] | None:
    path = material.PACK / "clothing/val" / f"{row['id']}.mask.png"
    if not path.is_file():
        return None
    with Image.open(path) as mask:
        return list(mask.getbbox() or ()) or None


def _street_box(row: dict[str, Any]) -> list[int] | None:
    regions = next(one.get("regions") for one in _rows("street.jsonl") if one["id"] == row["id"])
    return regions[row["region"]]["box"] if regions and "region" in row else None


@cache
def _rows(name: str) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (material.PACK / name).read_text(encoding="utf-8").splitlines()]


def delta_e_2000(one: NDArray[np.float32], other: NDArray[np.float32]) -> float:
    """CIEDE2000 between two colors, (3,) CIELAB each; Sharma, Wu and Dalal, 2005."""
    (light_1, a_1, b_1), (light_2, a_2, b_2) = one.tolist(), other.tolist()
    mean_chroma = (np.hypot(a_1, b_1) + np.hypot(a_2, b_2)) / 2
    stretch = 1.5 - 0.5 * np.sqrt(mean_chroma**7 / (mean_chroma**7 + 25.0**7))
    chroma_1, chroma_2 = np.hypot(a_1 * stretch, b_1), np.hypot(a_2 * stretch, b_2)
    hue_1, hue_2 = (np.degrees(np.arctan2(b, a * stretch)) % 360 for a, b in ((a_1, b_1), (a_2, b_2)))
    gray = chroma_1 * chroma_2 == 0
    turn = 0.0 if gray else (hue_2 - hue_1 + 180) % 360 - 180
    hue = hue_1 + hue_2 if gray else (hue_1 + turn / 2) % 360
    light, chroma = (light_1 + light_2) / 2, (chroma_1 + chroma_2) / 2
    weight = 1 - 0.17 * _cos(hue - 30) + 0.24 * _cos(2 * hue) + 0.32 * _cos(3 * hue + 6) - 0.2 * _cos(4 * hue - 63)
    by_light = (light_2 - light_1) / (1 + 0.015 * (light - 50) ** 2 / np.sqrt(20 + (light - 50) ** 2))
    by_chroma = (chroma_2 - chroma_1) / (1 + 0.045 * chroma)
    by_hue = 2 * np.sqrt(chroma_1 * chroma_2) * np.sin(np.radians(turn / 2)) / (1 + 0.015 * chroma * weight)
    rotation = -2 * np.sqrt(chroma**7 / (chroma**7 + 25.0**7))
    rotation *= np.sin(np.radians(60 * np.exp(-(((hue - 275) / 25) ** 2))))
    return float(np.sqrt(by_light**2 + by_chroma**2 + by_hue**2 + rotation * by_chroma * by_hue))


def _cos(degrees: float) -> float:
    return float(np.cos(np.radians(degrees)))
