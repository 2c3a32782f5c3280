"""Cards: what was found as a title, the photo with numbered outlines, and what was recognized under each of them."""

from __future__ import annotations

from collections.abc import Sequence
from functools import reduce
from itertools import accumulate, chain
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageChops, ImageFilter

from fashion_retrieval.drawing import canvas
from fashion_retrieval.drawing.canvas import GUTTER, INSIDE, MARGIN, Box, FontMetrics, Painter, Rect, Shape, Size, Text

if TYPE_CHECKING:
    from fashion_retrieval.results.recognition import Garment
    from fashion_retrieval.results.values import Attribute, Color

GARMENT_COLORS = (
    *("#2563eb", "#e11d48", "#047857", "#b45309", "#7c3aed", "#0e7490"),
    *("#db2777", "#4d7c0f", "#9a3412", "#4338ca", "#0f766e", "#475569"),
)
"""Outline, tag and chip colors of garments 1, 2, …; they repeat after the last. White is legible on each."""

_COLUMN = (INSIDE - GUTTER) / 2
_GROUP, _PERCENT = 134, 50
_TALLEST, _LOWEST, _SQUARE, _WIDE = 620, 120, 1.25, 2.2
_CHIP, _TAG = 15, 13
_TINT, _WASH = 0.07, 0.3
_NAMED = 3


def draw_card(
    photo: Image.Image, facts: Sequence[str], garments: Sequence[Garment], *, width: int | None, font: str | Path | None
) -> Image.Image:
    """An RGB card of a photo, small facts at its foot; `Recognition.draw` tells of the arguments and errors.

    The photo takes the first of two columns, or both if it is wide, and each garment the column that is shorter so far.
    """
    metrics = FontMetrics(font)
    title = metrics.wrap(_title(garments), 28, INSIDE, most=3)
    foot = metrics.wrap(" · ".join(facts), 15, INSIDE, most=3)
    shape = photo.width / photo.height
    beside = bool(garments) and shape <= (_WIDE if len(garments) == 1 else _SQUARE)
    room = _COLUMN if beside else INSIDE
    factor = min(room / photo.width, _TALLEST / photo.height)
    shown = (photo.width * factor, photo.height * factor)
    frame = (room, max(shown[1], _LOWEST))
    head = 38 * len(title) + 18
    shapes = _lines(title, 0, 18, 28, canvas.INK, spacing=38)
    bottoms = [head + frame[1], head - GUTTER if beside else head + frame[1]]
    used = [False, False]
    for number, garment in enumerate(garments, start=1):
        block, side = _block(number, garment, metrics), bottoms.index(min(bottoms))
        x, y = side * (_COLUMN + GUTTER), bottoms[side] + GUTTER
        rule = [Rect(x, y - GUTTER / 2, _COLUMN, 1, canvas.RULE, 0)] if used[side] else []
        shapes += [*rule, *canvas.moved(block.shapes, x, y)]
        bottoms[side], used[side] = y + block.height, True
    end = max(bottoms) + GUTTER
    shapes += _lines(foot, 0, end, 15, canvas.FAINT)
    painter = Painter.page(end + 21 * len(foot) + 2 * MARGIN - 12, width, metrics)
    painter.place(_photo(photo, garments, shown, frame, painter), MARGIN, MARGIN + head)
    painter.paint(shapes, MARGIN, MARGIN)
    return painter.finished(width)


def _title(garments: Sequence[Garment]) -> str:
    """What was found: "Navy blazer, white shirt and gray trousers"."""
    titles = list(dict.fromkeys(garment.title for garment in garments))
    if len(titles) > _NAMED:
        titles = [*titles[:_NAMED], f"{len(titles) - _NAMED} more"]
    return _capital(" and ".join(filter(None, (", ".join(titles[:-1]), *titles[-1:])))) or "No garment found"


def _capital(words: str) -> str:
    return words[:1].upper() + words[1:]


def _block(number: int, garment: Garment, metrics: FontMetrics) -> Box:
    """Chip, category and probability; colors; a row for each attribute that is visible; the groups that are not."""
    start = 2 * _CHIP + 12
    lines = metrics.wrap(_capital(garment.category.name.replace("_", " ")), 22, _COLUMN - start - _PERCENT - 8)
    head = (
        *canvas.moved(_chip(number, _CHIP), _CHIP, _CHIP),
        *_lines(lines, start, _CHIP, 22, canvas.INK, spacing=29),
        Text(_COLUMN, _CHIP, f"{garment.category.probability:.0%}", 18, canvas.INK, "r"),
    )
    attributes = garment.attributes.values()
    rows = [_row(attribute, metrics) for attribute in attributes if attribute.value]
    hidden = [attribute.group.replace("_", " ") for attribute in attributes if attribute.status == "not_visible"]
    if hidden:
        words = metrics.wrap(f"not visible: {', '.join(hidden)}", 17, _COLUMN)
        rows.append(Box(tuple(_lines(words, 0, 13, 17, canvas.FAINT)), 4 + 23 * len(words)))
    boxes = [Box(head, 13 + 29 * len(lines)), _swatches(garment.colors, metrics), *rows]
    tops = accumulate((box.height for box in boxes), initial=0.0)
    shapes = (canvas.moved(box.shapes, 0, top) for box, top in zip(boxes, tops, strict=False))
    return Box(tuple(chain.from_iterable(shapes)), sum(box.height for box in boxes))


def _swatches(colors: Sequence[Color], metrics: FontMetrics) -> Box:
    shapes: list[Shape] = []
    x = y = 0.0
    for color in colors:
        *lines, last = metrics.wrap(f"{color.name} {color.share:.0%}", 17, _COLUMN - 28)
        width = 28 + max(metrics.length(line, 17) for line in (*lines, last))
        if x + width > _COLUMN:
            x, y = 0, y + 28
        shapes += [Rect(x, y + 1, 20, 20, "#d1d5db", 5), Rect(x + 1, y + 2, 18, 18, color.hex, 4)]
        shapes += _lines([*lines, last], x + 28, y + 11, 17, canvas.INK)
        x, y = (x + width + 18, y + 23 * len(lines))
    return Box(tuple(shapes), y + 34 if shapes else 0)


def _row(attribute: Attribute, metrics: FontMetrics) -> Box:
    """Group, value and probability."""
    groups = metrics.wrap(attribute.group.replace("_", " "), 17, _GROUP - 12)
    values = metrics.wrap(str(attribute.value).replace("_", " "), 17, _COLUMN - _GROUP - _PERCENT - 8)
    shapes = [*_lines(groups, 0, 13, 17, canvas.MUTED), *_lines(values, _GROUP, 13, 17, canvas.INK)]
    shapes.append(Text(_COLUMN, 13, f"{attribute.probability:.0%}", 17, canvas.MUTED, "r"))
    return Box(tuple(shapes), 4 + 23 * max(len(groups), len(values)))


def _lines(lines: Sequence[str], x: float, y: float, size: int, fill: str, *, spacing: float = 23) -> list[Shape]:
    return [Text(x, y + spacing * row, line, size, fill, "l") for row, line in enumerate(lines)]


def _chip(number: int, radius: float) -> tuple[Shape, ...]:
    """A numbered disc in the garment's color, around the origin."""
    return canvas.disc(radius, _color(number), str(number), 16 if number < 100 else 13)


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
