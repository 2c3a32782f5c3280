"""Masks as COCO's run lengths and as polygons along the edges of pixels."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
from numpy.typing import NDArray

from fashion_retrieval.results.values import Mask

Polygon = NDArray[np.float64]
"""(N, 2), x y in pixels; the first pixel lies between 0 and 1. Holes and further parts hang on lines of no width."""

_OFF, _AREA = 1.0, 0.02
"""What a polygon may be off: in pixels, and as a fraction of an outline's area."""


def run_lengths(mask: Mask) -> list[int]:
    """Lengths of runs down the columns of an (H, W) mask; the first counts pixels outside it."""
    pixels = mask.ravel(order="F")
    changes = np.flatnonzero(pixels[1:] != pixels[:-1]) + 1
    counts: list[int] = np.diff(np.concatenate(([0], changes, [pixels.size]))).tolist()
    return [0, *counts] if pixels[0] else counts


def compressed(counts: list[int]) -> str:
    """Run lengths as COCO's text: from the fourth on less the one before the last, five bits a letter, lowest first."""
    letters = []
    for index, count in enumerate(counts):
        rest = count - counts[index - 2] if index > 2 else count
        more = True
        while more:
            bits, rest = rest & 31, rest >> 5
            more = rest != (-1 if bits & 16 else 0)  # the fifth bit of the last letter is the sign
            letters.append(chr(48 + bits + 32 * more))
    return "".join(letters)


def polygons(mask: Mask) -> list[Polygon]:
    """A polygon for each part of an (H, W) mask, within a pixel of its outline; parts touch along sides of pixels."""
    from scipy import ndimage  # takes half a second, and only polygons need it

    parts = ndimage.label(mask)[0]
    found = []
    for number, (rows, columns) in enumerate(ndimage.find_objects(parts), start=1):
        rings = [_simplified(ring) for ring in _rings(parts[rows, columns] == number)]
        found.append(joined(rings) + np.array((columns.start, rows.start)))
    return found


def joined(rings: list[Polygon]) -> Polygon:
    """One polygon of several: a line to the next leaves each at the point nearest to it, and comes back there."""
    there, back = [], []
    for ring, following in pairwise(rings):
        at = int(np.square(ring - following[0]).sum(axis=1).argmin())
        there.append(ring[: at + 1])
        back += [ring[:1], ring[at:]]
    return np.concatenate([*there, rings[-1], rings[-1][:1], *back[::-1]])[:-1]


def _rings(part: Mask) -> list[Polygon]:
    """The corners of a part's outline, clockwise, and those of its holes, counterclockwise."""
    turns = np.diff(np.diff(np.pad(part, 1).astype(np.int8), axis=0), axis=1)
    # Where two pixels touch by their corners alone, two outlines meet: the point comes twice.
    times = np.abs(turns[turns != 0])
    turn, points = turns[turns != 0].repeat(times), np.argwhere(turns)[:, ::-1].repeat(times, axis=0)
    # Corners in a row make up pairs, the ends of horizontal sides, and so do those in a column.
    order = np.lexsort((np.arange(len(turn)) * turn, points[:, 1], points[:, 0]))
    below = np.empty_like(order)
    below[order] = order.reshape(-1, 2)[:, ::-1].ravel()
    rings, seen, beside = [], bytearray(len(points)), below.tolist()
    for start in range(len(points)):
        ring, at = [], start
        while not seen[at]:
            ring += [at, at ^ 1]
            seen[at] = seen[at ^ 1] = 1
            at = beside[at ^ 1]
        if ring:
            rings.append(points[ring if start == 0 else ring[::-1]].astype(np.float64))
    return rings


def _simplified(ring: Polygon) -> Polygon:
    """The ring with few of its points (Douglas-Peucker), or as it is where that would change its area."""
    closed = np.concatenate((ring, ring[:1]))
    middle = int(np.square(ring - ring[0]).sum(axis=1).argmax())
    kept, spans = {0, middle}, [(0, middle), (middle, len(ring))]
    while spans:
        first, last = spans.pop()
        line, points = closed[last] - closed[first], closed[first + 1 : last] - closed[first]
        along = np.clip(points @ line / max(line @ line, 1e-9), 0, 1)
        off = np.hypot(*(points - along[:, None] * line).T)
        if off.size and off.max() > _OFF:
            worst = first + 1 + int(off.argmax())
            kept.add(worst)
            spans += [(first, worst), (worst, last)]
    small = ring[sorted(kept)]
    return small if abs(_area(small) - _area(ring)) <= _AREA * abs(_area(ring)) else ring


def _area(ring: Polygon) -> float:
    x, y = ring.T
    return float(x @ np.roll(y, -1) - y @ np.roll(x, -1)) / 2
