"""Cards: a photo with numbered outlines, beside what was recognized under each of them."""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Sequence
from functools import reduce
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageChops, ImageFilter

from fashion_retrieval.drawing import canvas
from fashion_retrieval.drawing.canvas import GUTTER, MARGIN, Box, FontMetrics, Painter, Rect, Shape, Size, Text

if TYPE_CHECKING:
    from fashion_retrieval.results.recognition import Garment
    from fashion_retrieval.results.values import Attribute, Color

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


def draw_card(
    photo: Image.Image, caption: str, garments: Sequence[Garment], *, width: int | None, font: str | Path | None
) -> Image.Image:
    """An RGB card of a photo with a line under it; `Recognition.draw` tells of the arguments and errors."""
    metrics = FontMetrics(font)
    boxes = [_block(number, garment, metrics) for number, garment in enumerate(garments, start=1)]
    boxes = boxes or [Box((Text(0, 17, "No garment found", 24, canvas.MUTED, "lm"),), 34)]
    wide = photo.width > _WIDE * photo.height
    columns = _columns(boxes, 0 if wide else _PHOTO_HEIGHTS[1])
    panel = (len(columns) * (_COLUMN + GUTTER) - GUTTER, max(map(_height, columns)))
    room = max(panel[0], _PHOTO_WIDTH) if wide else _PHOTO_WIDTH
    factor = min(room / photo.width, min(max(panel[1], _PHOTO_HEIGHTS[0]), _PHOTO_HEIGHTS[1]) / photo.height)
    shown = (photo.width * factor, photo.height * factor)
    frame = (max(shown[0], _FRAME[0]), max(shown[1], _FRAME[1]))
    lines = metrics.wrap(caption, 15, frame[0])
    left = (frame[0], frame[1] + 14 + 21 * len(lines))
    corner = (0, left[1] + GUTTER) if wide else (left[0] + GUTTER, 0)
    natural = (max(left[0], corner[0] + panel[0]) + 2 * MARGIN, max(left[1], corner[1] + panel[1]) + 2 * MARGIN)
    painter = Painter.page(natural, width, metrics)
    painter.place(_photo(photo, garments, shown, frame, painter), MARGIN, MARGIN)
    painter.paint(_lines(lines, 0, 24, 15, canvas.MUTED), MARGIN, MARGIN + frame[1])
    for index, column in enumerate(columns):
        x = MARGIN + corner[0] + index * (_COLUMN + GUTTER)
        painter.paint(_stack(column, GUTTER).shapes, x, MARGIN + corner[1])
    return painter.finished(width)


def _block(number: int, garment: Garment, metrics: FontMetrics) -> Box:
    """Chip, title and probability; colors; a row for each attribute, whose value is gray if it is not visible."""
    title = garment.category.name.replace("_", " ")
    lines = metrics.wrap(title[:1].upper() + title[1:], 25, _COLUMN - 2 * _CHIP - 84)
    head = (
        *canvas.moved(_chip(number, _CHIP), _CHIP, _CHIP),
        *_lines(lines, 2 * _CHIP + 14, _CHIP, 25, canvas.INK, spacing=32),
        Text(_COLUMN, _CHIP, f"{garment.category.probability:.0%}", 20, canvas.INK, "rm"),
    )
    shown = [attribute for attribute in garment.attributes.values() if attribute.status != "not_applicable"]
    rows = [_row(attribute, _color(number), metrics) for attribute in shown]
    return _stack([Box(head, 12 + 32 * len(lines)), _swatches(garment.colors, metrics), *rows])


def _swatches(colors: Sequence[Color], metrics: FontMetrics) -> Box:
    shapes: list[Shape] = []
    x = y = 0.0
    for color in colors:
        words = metrics.clean(f"{color.name} {color.share:.0%}")
        width = 28 + metrics.length(words, 16)
        if x + width > _COLUMN:
            x, y = 0, y + 30
        shapes += [Rect(x, y, 20, 20, "#d1d5db", 5), Rect(x + 1, y + 1, 18, 18, color.hex, 4)]
        shapes.append(Text(x + 28, y + 10, words, 16, canvas.INK, "lm"))
        x += width + 18
    return Box(tuple(shapes), y + 34 if shapes else 0)


def _row(attribute: Attribute, color: str, metrics: FontMetrics) -> Box:
    """Group, value, a bar as long as the probability, and the probability."""
    groups = metrics.wrap(attribute.group.replace("_", " "), 16, 96)
    values = metrics.wrap((attribute.value or attribute.status).replace("_", " "), 16, 160)
    ink = canvas.INK if attribute.value else canvas.FAINT
    shapes = [*_lines(groups, 0, 13, 16, canvas.MUTED), *_lines(values, 104, 13, 16, ink)]
    if attribute.value:
        length = max(6, 92 * attribute.probability)
        shapes += [Rect(276, 10, 92, 6, canvas.RULE, 3), Rect(276, 10, length, 6, color, 3)]
        shapes.append(Text(_COLUMN, 13, f"{attribute.probability:.0%}", 16, canvas.MUTED, "rm"))
    return Box(tuple(shapes), 5 + 21 * max(len(groups), len(values)))


def _lines(lines: Sequence[str], x: float, y: float, size: int, fill: str, *, spacing: float = 21) -> list[Shape]:
    return [Text(x, y + spacing * row, line, size, fill, "lm") for row, line in enumerate(lines)]


def _chip(number: int, radius: float) -> tuple[Shape, ...]:
    """A numbered disc in the garment's color, around the origin."""
    return canvas.disc(radius, _color(number), str(number), 18 if number < 100 else 14)


def _stack(boxes: Sequence[Box], gap: float = 0) -> Box:
    """The boxes below each other; a rule in the middle of each gap."""
    shapes: list[Shape] = []
    y = 0.0
    for position, box in enumerate(boxes):
        if gap and position:
            shapes.append(Rect(0, y + gap / 2, _COLUMN, 1, canvas.RULE, 0))
            y += gap
        shapes += canvas.moved(box.shapes, 0, y)
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


def _photo(photo: Image.Image, garments: Sequence[Garment], size: Size, frame: Size, painter: Painter) -> Image.Image:
    """The photo in the middle of its frame, with tints, outlines and numbered tags."""
    pixels = canvas.to_pixels(size, painter.scale)
    picture = photo.convert("RGB").resize(pixels, Image.Resampling.BICUBIC, reducing_gap=3.0)
    covers = [_cover(garment.mask, pixels) for garment in garments]
    covered = reduce(ImageChops.lighter, covers, Image.new("L", pixels))
    if covers:
        picture.paste(canvas.PAGE, (0, 0), covered.point(lambda value: (255 - value) * _WASH))
    for number, cover in enumerate(covers, start=1):
        picture.paste(_color(number), (0, 0), cover.point(lambda value: value * _TINT))
    for number, cover in enumerate(covers, start=1):
        _outline(picture, cover, _color(number), painter.scale)
    whole = canvas.framed(picture, canvas.to_pixels(frame, painter.scale), canvas.BACKDROP)
    corner = ((whole.width - pixels[0]) // 2, (whole.height - pixels[1]) // 2)
    reach = (_TAG + 2) * painter.scale
    taken = np.asarray(covered) > 127
    pairs = zip(covers, garments, strict=True)
    wanted = [_tag_places(cover, garment, reach, taken) + corner for cover, garment in pairs]
    pen = Painter(whole, painter.scale, painter.metrics)
    places = _spread(wanted, [garment.area for garment in garments], whole.size, reach)
    for number, (x, y) in enumerate(places, start=1):
        pen.paint((*canvas.disc(_TAG + 2, canvas.PAGE), *_chip(number, _TAG)), x / painter.scale, y / painter.scale)
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
    picture.paste(canvas.PAGE, corner, halo.point(lambda value: value * 0.7))
    picture.paste(color, corner, ImageChops.subtract(outer, inner))


def _tag_places(cover: Image.Image, garment: Garment, reach: float, taken: NDArray[np.bool_]) -> NDArray[np.float64]:
    """(N, 2) centers for a tag, best first: on the outline, high and central; beside an area that it would hide."""
    grown = cover.width / garment.mask.shape[1]
    box = np.array(cover.getbbox() or [value * grown for value in garment.box], dtype=np.float64)
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


def _color(number: int) -> str:
    return GARMENT_COLORS[(number - 1) % len(GARMENT_COLORS)]
