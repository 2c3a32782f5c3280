"""Near-duplicates: what `unique=True` hides of photos that were made anew, and what of different photos.

Photos of the data pack's split `train` choose the rule in `gallery/duplicates.py`; `val` tells how good it is. Some are
made anew in six ways, two of each kind of `KINDS`. Pairs of one photo, itself among them, should be found; pairs of
different photos should not, among them products of one kind in the same pose.
"""

from __future__ import annotations

import io
import random
import resource
import tempfile
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageEnhance

from benchmarks.material import FOLDERS, PACK
from fashion_retrieval import FashionModel, Gallery
from fashion_retrieval.errors import InputError
from fashion_retrieval.gallery import duplicates
from fashion_retrieval.gallery.duplicates import ALONE, LIMIT, SLOPE
from fashion_retrieval.gallery.engines.base import Row
from fashion_retrieval.images.hash import perceptual_hash

KINDS = ("encoded", "lit", "cropped")
"""JPEG of quality 30 to 95 at half the size or more; the same, darker or lighter by 10 %; and cropped by up to 5 %."""
SLOPES, COSINES = (25.0, 50.0, 100.0, 200.0), (0.98, 0.985, 0.99, 0.995)
_FALSE = 0.005
"""Share of different photos that may be hidden wrongly, when the rule is chosen."""
_MANY, _WIDTH = 100_000, 512


def measure(cache: Path, *, count: int, bases: int) -> dict[str, Any]:
    """`count` photos of each folder and split, of which `bases` of `val` are made anew; the time of 100,000 rows."""
    if not all((PACK / folder).is_dir() for folder in FOLDERS):
        raise InputError(f"near-duplicates are measured on the data pack, and {PACK} is no folder of it; get it first")
    model = FashionModel.from_pretrained(device="cpu", dtype="float32")
    found: dict[str, Any] = {"slope": SLOPE, "limit": LIMIT, "alone": ALONE, "count": count, "bases": bases}
    for split in ("train", "val"):
        with (
            tempfile.TemporaryDirectory(dir=cache) as folder,
            Gallery.create(Path(folder, "gallery"), model) as gallery,
        ):
            files = _files(split, count)
            made = bases if split == "val" else bases // 2
            chosen = random.Random(0).sample(range(len(files)), min(made, len(files)))
            _add(gallery, files, chosen)
            rows = {row.id: row for some in gallery._store.scan() for row in some}
            found[split] = _told(rows, len(files), chosen)
            if split == "val":
                found["top_10"] = _top_10(gallery, rows, chosen)
    photo = Image.open(files[0]).convert("RGB").resize((224, 224))
    return found | {"hash_ms": _hash_ms(np.asarray(photo)), "many": _many(min(_MANY, 100 * count))}


def anew(file: Path, kind: str, rng: random.Random) -> bytes:
    """A photo made anew, as a JPEG."""
    photo = Image.open(file).convert("RGB")
    if kind == "cropped":
        width, height = (side * rng.uniform(0.95, 1) for side in photo.size)
        left, top = rng.uniform(0, photo.width - width), rng.uniform(0, photo.height - height)
        photo = photo.crop((round(left), round(top), round(left + width), round(top + height)))
    scale = rng.uniform(0.5, 1)
    photo = photo.resize((round(photo.width * scale), round(photo.height * scale)), Image.Resampling.BICUBIC)
    if kind != "encoded":
        photo = ImageEnhance.Brightness(photo).enhance(rng.uniform(0.9, 1.1))
    content = io.BytesIO()
    photo.save(content, "JPEG", quality=rng.randint(30, 95))
    return content.getvalue()


def _files(split: str, count: int) -> list[Path]:
    each = [sorted((PACK / folder / split).glob("*.jpg")) for folder in FOLDERS]
    return [file for files in each for file in random.Random(1).sample(files, min(count, len(files)))]


def _add(gallery: Gallery, files: list[Path], chosen: list[int]) -> None:
    """Photos under "NUMBER", those made anew under "NUMBER KIND PLACE"."""
    rng = random.Random(2)
    gallery.add(files, [f"{number:05}" for number in range(len(files))])

    def again() -> Iterator[bytes]:
        for number in chosen:
            yield from (anew(files[number], kind, rng) for kind in KINDS for _ in range(2))

    gallery.add(again(), [f"{number:05} {kind} {place}" for number in chosen for kind in KINDS for place in (1, 2)])


def _told(rows: dict[str, Row], number: int, chosen: list[int]) -> dict[str, Any]:
    """What the rule finds, and what others would: shares of pairs of one photo by kind, and of different photos."""
    anew = {kind: [rows[f"{n:05} {kind} {place}"] for n in chosen for place in (1, 2)] for kind in KINDS}
    first = [rows[f"{n:05}"] for n in chosen for _ in (1, 2)]
    pairs = {kind: _distances(some, first) for kind, some in anew.items()}
    pairs["two of them"] = _distances(
        [row for kind in KINDS for row in anew[kind][::2]], [r for k in KINDS for r in anew[k][1::2]]
    )
    different = _different([rows[f"{n:05}"] for n in range(number)])
    told: dict[str, Any] = {"photos": number, "by_both": _shares(pairs, different, SLOPE, LIMIT, number)}
    told["by_embedding"] = {str(c): _shares(pairs, different, np.inf, 1 - c, number) for c in COSINES}
    told["chosen"] = {}
    for slope in SLOPES:  # the largest limit that hides few enough different photos
        limits = np.arange(1.0, 24.0, 0.5)
        within = [limit for limit in limits if _wrong(different, slope, limit) <= _FALSE * number]
        told["chosen"][str(slope)] = {"limit": float(max(within, default=0.0))} | _shares(
            pairs, different, slope, max(within, default=0.0), number
        )
    return told


def _distances(some: list[Row], others: list[Row]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """1 - cosine, and how many bits differ, of rows in pairs."""
    cosines = np.sum(
        np.stack([r.vector for r in some]).astype(np.float64) * np.stack([r.vector for r in others]), axis=1
    )
    hashes = (np.array([r.hash or 0 for r in rows], np.int64) for rows in (some, others))
    first, second = (np.unpackbits(one.view(np.uint8)).reshape(-1, 64) for one in hashes)
    return 1 - cosines, np.sum(first != second, axis=1).astype(np.float64)


def _different(rows: list[Row]) -> tuple[NDArray[np.float64], NDArray[np.float64], NDArray[np.intp]]:
    """Distances of the pairs of different photos that are not far from each other, and the later photo of each pair."""
    vectors = np.stack([row.vector for row in rows])
    first, later = np.nonzero(np.triu(vectors @ vectors.T >= 0.75, 1))
    return *_distances([rows[n] for n in first], [rows[n] for n in later]), later


def _near(pairs: tuple[NDArray[Any], ...], slope: float, limit: float) -> NDArray[np.bool_]:
    apart, bits = pairs[:2]
    near: NDArray[np.bool_] = apart <= limit if np.isinf(slope) else slope * apart + bits <= limit
    return near


def _wrong(different: tuple[NDArray[Any], ...], slope: float, limit: float) -> int:
    return len(np.unique(different[2][_near(different, slope, limit)]))


def _shares(
    pairs: Mapping[str, tuple[NDArray[Any], ...]],
    different: tuple[NDArray[Any], ...],
    slope: float,
    limit: float,
    number: int,
) -> dict[str, float]:
    found = {kind: round(float(_near(some, slope, limit).mean()), 4) for kind, some in pairs.items()}
    return found | {"different_hidden": round(_wrong(different, slope, limit) / number, 4)}


def _top_10(gallery: Gallery, rows: dict[str, Row], chosen: list[int]) -> dict[str, float]:
    """How many different photos among the ten nearest to one, in a gallery of photos made anew and their copies."""
    others = [id for id in rows if int(id[:5]) not in set(chosen)]
    gallery.delete(others)
    shown: dict[str, list[int]] = {"plain": [], "unique": []}
    for number in chosen:
        query = rows[f"{number:05}"].vector
        for name, unique in (("plain", False), ("unique", True)):
            shown[name].append(len({match.id[:5] for match in gallery.search(query, 10, unique=unique)}))
    return {name: round(float(np.mean(counts)), 2) for name, counts in shown.items()} | {"items": len(chosen)}


def _hash_ms(levels: NDArray[np.uint8]) -> float:
    seconds = []
    for _ in range(200):
        start = time.perf_counter()
        perceptual_hash(levels)
        seconds.append(time.perf_counter() - start)
    return round(float(np.median(seconds)) * 1e3, 3)


class _Rows:
    """A store of so many drawn rows, of which every tenth has a copy."""

    def __init__(self, number: int) -> None:
        self.number = number

    def scan(self) -> Iterator[list[Row]]:
        rng = np.random.default_rng(0)
        for start in range(0, self.number, 1_000):
            vectors = rng.normal(size=(1_000, _WIDTH)).astype(np.float32)
            vectors[::10] = vectors[1::10]
            vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
            hashes = rng.integers(1, 2**62, 1_000)
            hashes[::10] = hashes[1::10]
            yield [Row(f"{start + n:07}", vectors[n], "", None, {}, int(hashes[n])) for n in range(1_000)]


def _many(number: int) -> dict[str, float]:
    """Seconds and the growth of the peak of memory of finding the near-duplicates among many rows."""
    before, start = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss, time.perf_counter()
    groups = duplicates.find_duplicates(_Rows(number), progress=False)  # type: ignore[arg-type]  # it only scans
    seconds, after = time.perf_counter() - start, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return {"rows": number, "groups": len(groups), "seconds": round(seconds, 1), "mb": round((after - before) / 1024)}
