"""Cards: a photo with numbered outlines, beside what was recognized under each of them."""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import reduce
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageChops, ImageFilter

from fashion_retrieval.drawing.canvas import (
    BACKDROP,
    FAINT,
    GUTTER,
    INK,
    MARGIN,
    MUTED,
    PAGE,
    RULE,
    Box,
    FontMetrics,
    Painter,
    Rect,
    Shape,
    Size,
    Text,
    disc,
    framed,
    moved,
    to_pixels,
)

GARMENT_COLORS = (
    *("#2563eb", "#e11d48", "#059669", "#d97706", "#7c3aed", "#0891b2"),
    *("#db2777", "#4d7c0f", "#9a3412", "#4338ca", "#0f766e", "#475569"),
)
"""Outline, tag and chip colors of garments 1, 2, …; they repeat after the last."""

_COLUMN, _MAX_COLUMNS = 420, 3
_PHOTO_WIDTH, _PHOTO_HEIGHTS, _FRAME = 900, (620, 900), (320, 160)
_WIDE = 2.2
_CHIP, _TAG = 17, 15
_TINT, _WASH = 0.07, 0.3


@dataclass(frozen=True, slots=True)
class Entry:
    """What a card tells of one part of the photo.

    Attributes:
        title: In words.
        probability: Of the title, in [0, 1].
        swatches: Words and "#rrggbb" of each color.
        bars: From the top: name, value, and the value's probability in [0, 1]; without one the value is gray.
        mask: (H, W) bool, the size of the photo.
        box: xyxy in pixels; where the mask is empty, the tag stands beside it.
    """

    title: str
    probability: float
    swatches: Sequence[tuple[str, str]]
    bars: Sequence[tuple[str, str, float | None]]
    mask: NDArray[np.bool_] = field(repr=False)
    box: tuple[float, float, float, float]


def draw_card(
    photo: Image.Image,
    caption: str,
    entries: Sequence[Entry],
    *,
    width: int | None = None,
    font: str | Path | None = None,
) -> Image.Image:
    """Draw a card; `Recognition.draw` tells what the arguments mean.

    Args:
        photo: RGB, the size of the masks.
        caption: A line under the photo.
        entries: From the top, numbered from 1.
        width: Of the card, in pixels; None is the width at which its text is easy to read, 850 to 2,400.
        font: A TrueType or OpenType file; None is Pillow's built-in font.

    Returns:
        An RGB image; its height follows from what there is to say.

    Raises:
        InputError: The width is below 320, or the font can't be read.
    """
    metrics = FontMetrics(font)
    boxes = [_entry(number, entry, metrics) for number, entry in enumerate(entries, start=1)]
    boxes = boxes or [Box((Text(0, 17, "No garment found", 24, MUTED, "lm"),), 34)]
    wide = photo.width > _WIDE * photo.height
    columns = _columns(boxes, 0 if wide else _PHOTO_HEIGHTS[1])
    panel = (len(columns) * (_COLUMN + GUTTER) - GUTTER, max(map(_height, columns)))
    shown, frame = _frame(photo.size, (max(panel[0], _PHOTO_WIDTH) if wide else _PHOTO_WIDTH, panel[1]))
    lines = metrics.wrap(caption, 15, frame[0])
    left = (frame[0], frame[1] + 14 + 21 * len(lines))
    corner = (0, left[1] + GUTTER) if wide else (left[0] + GUTTER, 0)
    natural = (max(left[0], corner[0] + panel[0]) + 2 * MARGIN, max(left[1], corner[1] + panel[1]) + 2 * MARGIN)
    painter = Painter.page(natural, width, metrics)
    painter.place(_photo(photo, entries, shown, frame, painter), MARGIN, MARGIN)
    painter.paint(_lines(lines, 0, 24, 15, MUTED), MARGIN, MARGIN + frame[1])
    for index, column in enumerate(columns):
        x = MARGIN + corner[0] + index * (_COLUMN + GUTTER)
        painter.paint(_stack(column, GUTTER).shapes, x, MARGIN + corner[1])
    return painter.finished(width)


def _entry(number: int, entry: Entry, metrics: FontMetrics) -> Box:
    """Chip, title and probability; colors; rows."""
    lines = metrics.wrap(entry.title[:1].upper() + entry.title[1:], 25, _COLUMN - 2 * _CHIP - 84)
    head = (
        *moved(_chip(number, _CHIP), _CHIP, _CHIP),
        *_lines(lines, 2 * _CHIP + 14, _CHIP, 25, INK, spacing=32),
        Text(_COLUMN, _CHIP, f"{entry.probability:.0%}", 20, INK, "rm"),
    )
    rows = [_bar(*bar, _entry_color(number), metrics) for bar in entry.bars]
    return _stack([Box(head, 12 + 32 * len(lines)), _swatches(entry.swatches, metrics), *rows])


def _swatches(swatches: Sequence[tuple[str, str]], metrics: FontMetrics) -> Box:
    shapes: list[Shape] = []
    x = y = 0.0
    for words, color in swatches:
        width = 28 + metrics.length(metrics.clean(words), 16)
        if x + width > _COLUMN:
            x, y = 0, y + 30
        shapes += [Rect(x, y, 20, 20, "#d1d5db", 5), Rect(x + 1, y + 1, 18, 18, color, 4)]
        shapes.append(Text(x + 28, y + 10, metrics.clean(words), 16, INK, "lm"))
        x += width + 18
    return Box(tuple(shapes), y + 34 if shapes else 0)


def _bar(name: str, value: str, probability: float | None, color: str, metrics: FontMetrics) -> Box:
    """Name, value, a bar as long as the probability, and the probability."""
    names, values = metrics.wrap(name, 16, 96), metrics.wrap(value, 16, 160)
    shapes = [*_lines(names, 0, 13, 16, MUTED), *_lines(values, 104, 13, 16, FAINT if probability is None else INK)]
    if probability is not None:
        shapes += [Rect(276, 10, 92, 6, RULE, 3), Rect(276, 10, max(6, 92 * probability), 6, color, 3)]
        shapes.append(Text(_COLUMN, 13, f"{probability:.0%}", 16, MUTED, "rm"))
    return Box(tuple(shapes), 5 + 21 * max(len(names), len(values)))


def _lines(lines: Sequence[str], x: float, y: float, size: int, fill: str, *, spacing: float = 21) -> list[Shape]:
    return [Text(x, y + spacing * row, line, size, fill, "lm") for row, line in enumerate(lines)]


def _chip(number: int, radius: float) -> tuple[Shape, ...]:
    """A numbered disc in the entry's color, around the origin."""
    return disc(radius, _entry_color(number), str(number), 18 if number < 100 else 14)


def _stack(boxes: Sequence[Box], gap: float = 0) -> Box:
    """The boxes below each other; a rule in the middle of each gap."""
    shapes: list[Shape] = []
    y = 0.0
    for position, box in enumerate(boxes):
        if gap and position:
            shapes.append(Rect(0, y + gap / 2, _COLUMN, 1, RULE, 0))
            y += gap
        shapes += moved(box.shapes, 0, y)
        y += box.height
    return Box(tuple(shapes), y)


def _columns(boxes: Sequence[Box], room: float) -> list[list[Box]]:
    """The boxes in order, evenly filled into as few columns as fit into the height, up to three."""
    heights = [box.height + GUTTER for box in boxes]
    limits = sorted({sum(heights[i:j]) for i in range(len(heights)) for j in range(i + 1, len(heights) + 1)})
    limits = limits[limits.index(max(heights)) :]
    for count in range(1, _MAX_COLUMNS + 1):
        lowest = bisect_left(limits, -count, key=lambda limit: -len(_fill(boxes, limit)))
        columns = _fill(boxes, limits[lowest])
        if max(map(_height, columns)) <= room:
            break
    return columns


def _fill(boxes: Sequence[Box], limit: float) -> list[list[Box]]:
    columns: list[list[Box]] = [[]]
    for box in boxes:
        if _height([*columns[-1], box]) > limit - GUTTER:
            columns.append([])
        columns[-1].append(box)
    return columns


def _height(column: Sequence[Box]) -> float:
    return sum(box.height + GUTTER for box in column) - GUTTER


def _frame(size: tuple[int, int], room: Size) -> tuple[Size, Size]:
    """Sizes in units of the photo, as large as the room where that is sensible, and of the frame around it."""
    width, height = size
    factor = min(room[0] / width, min(max(room[1], _PHOTO_HEIGHTS[0]), _PHOTO_HEIGHTS[1]) / height)
    photo = (width * factor, height * factor)
    return photo, (max(photo[0], _FRAME[0]), max(photo[1], _FRAME[1]))


def _photo(photo: Image.Image, entries: Sequence[Entry], size: Size, frame: Size, painter: Painter) -> Image.Image:
    """The photo in the middle of its frame, with tints, outlines and numbered tags."""
    pixels = to_pixels(size, painter.scale)
    picture = photo.convert("RGB").resize(pixels, Image.Resampling.BICUBIC, reducing_gap=3.0)
    covers = [_cover(entry.mask, pixels) for entry in entries]
    covered = reduce(ImageChops.lighter, covers, Image.new("L", pixels))
    if covers:
        picture.paste(PAGE, (0, 0), covered.point(lambda value: (255 - value) * _WASH))
    for number, cover in enumerate(covers, start=1):
        picture.paste(_entry_color(number), (0, 0), cover.point(lambda value: value * _TINT))
    for number, cover in enumerate(covers, start=1):
        _outline(picture, cover, _entry_color(number), painter.scale)
    whole = framed(picture, to_pixels(frame, painter.scale), BACKDROP)
    corner = ((whole.width - pixels[0]) // 2, (whole.height - pixels[1]) // 2)
    reach = (_TAG + 2) * painter.scale
    taken = np.asarray(covered) > 127
    wanted = [_tag_places(cover, entry, reach, taken) + corner for cover, entry in zip(covers, entries, strict=True)]
    pen = Painter(whole, painter.scale, painter.metrics)
    places = _spread(wanted, [entry.mask.mean() for entry in entries], whole.size, reach)
    for number, (x, y) in enumerate(places, start=1):
        pen.paint((*disc(_TAG + 2, PAGE), *_chip(number, _TAG)), x / painter.scale, y / painter.scale)
    return whole


def _cover(mask: NDArray[np.bool_], size: tuple[int, int]) -> Image.Image:
    """The mask at another size, its outline smooth instead of stepped."""
    layer = Image.fromarray(mask).convert("L").resize(size, Image.Resampling.BICUBIC, reducing_gap=3.0)
    blur = max(0.7, 0.8 * size[0] / mask.shape[1])
    soft = layer.filter(ImageFilter.GaussianBlur(blur))
    return soft.point(lambda value: min(max((value - 128) * 1.7 * blur + 128, 0), 255))


def _outline(picture: Image.Image, cover: Image.Image, color: str, scale: float) -> None:
    bounds = cover.getbbox()
    if bounds is None:
        return
    line = max(1, round(1.5 * scale))
    pad = 3 * line
    corner = (bounds[0] - pad, bounds[1] - pad)
    near = cover.crop((*corner, bounds[2] + pad, bounds[3] + pad))
    inner, outer = near.filter(ImageFilter.MinFilter(2 * line + 1)), near.filter(ImageFilter.MaxFilter(2 * line - 1))
    halo = ImageChops.subtract(outer.filter(ImageFilter.MaxFilter(3)), inner)
    picture.paste(PAGE, corner, halo.point(lambda value: value * 0.7))
    picture.paste(color, corner, ImageChops.subtract(outer, inner))


def _tag_places(cover: Image.Image, entry: Entry, reach: float, taken: NDArray[np.bool_]) -> NDArray[np.float64]:
    """(N, 2) centers for a tag, best first: on the outline, high and central; beside an area that it would hide."""
    grown = cover.width / entry.mask.shape[1]
    box = np.array(cover.getbbox() or [value * grown for value in entry.box], dtype=np.float64)
    center, half = (box[:2] + box[2:]) / 2, (box[2:] - box[:2]) / 2
    inside = np.pad(np.asarray(cover) > 127, 1)
    core = inside[:-2, 1:-1] & inside[2:, 1:-1] & inside[1:-1, :-2] & inside[1:-1, 2:]
    points = np.argwhere(inside[1:-1, 1:-1] & ~core)[::3, ::-1].astype(np.float64)
    if half.min() < 2 * reach or not len(points):
        sides = np.array([(0, -1), (1, 0), (-1, 0), (0, 1), (1, -1), (-1, -1), (1, 1), (-1, 1)])
        beside = center + sides * (half + reach)
        starts, ends = (np.clip(beside + step, 0, cover.size).astype(int) for step in (-reach, reach))
        hidden = [taken[y1:y2, x1:x2].sum() for (x1, y1), (x2, y2) in zip(starts, ends, strict=True)]
        return np.asarray(beside[np.argsort(hidden, kind="stable")])
    cost = points[:, 1] - box[1] + 0.5 * np.abs(points[:, 0] - center[0])
    return points[np.argsort(cost, kind="stable")]


def _spread(
    wanted_places: Sequence[NDArray[np.float64]], areas: Sequence[float], room: tuple[int, int], reach: float
) -> NDArray[np.float64]:
    """(N, 2) centers of tags inside the room and clear of each other; the smallest areas choose first."""
    low, high = np.full(2, reach), np.array(room) - reach
    across, down = (np.arange(start, end, reach / 2) for start, end in zip(low, high, strict=True))
    grid = np.stack(np.meshgrid(across, down), axis=-1).reshape(-1, 2)
    placed = np.full((len(wanted_places), 2), np.inf)
    for index in np.argsort(areas, kind="stable"):
        wanted = np.clip(wanted_places[index], low, high)
        nearby = grid[np.argsort(np.linalg.norm(grid - wanted[0], axis=1), kind="stable")]
        places = np.concatenate((wanted, nearby))
        gaps = np.linalg.norm(places[:, None] - placed, axis=-1).min(axis=1)
        free = gaps >= 2 * reach
        placed[index] = places[free.argmax() if free.any() else gaps.argmax()]
    return placed


def _entry_color(number: int) -> str:
    return GARMENT_COLORS[(number - 1) % len(GARMENT_COLORS)]
