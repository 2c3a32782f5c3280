"""Recognition cards: the photo with its garments outlined, beside what each of them was recognized as.

A card is laid out in units, which are pixels unless a width is asked for, and painted at any scale.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Sequence
from functools import reduce
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageChops, ImageFilter

from fashion_retrieval.drawing.canvas import (
    BACKDROP,
    GUTTER,
    INK,
    MARGIN,
    MUTED,
    PAGE,
    RULE,
    Block,
    Lettering,
    Mark,
    Size,
    moved,
    rounded,
    to_pixels,
)
from fashion_retrieval.drawing.canvas import FAINT as _FAINT
from fashion_retrieval.drawing.canvas import Bar as _Bar
from fashion_retrieval.drawing.canvas import Painter as _Painter
from fashion_retrieval.drawing.canvas import Text as _Text
from fashion_retrieval.errors import InputError
from fashion_retrieval.results import Attribute, Color, Garment, Recognition

GARMENT_COLORS = (
    *("#2563eb", "#e11d48", "#059669", "#d97706", "#7c3aed", "#0891b2"),
    *("#db2777", "#4d7c0f", "#9a3412", "#4338ca", "#0f766e", "#475569"),
)
"""Outline, tag and chip colors of garments 1, 2, …; they repeat after the last."""

MIN_WIDTH = 320
_COLUMN, _MAX_COLUMNS = 420, 3
_PHOTO_WIDTH, _PHOTO_HEIGHTS, _STAGE = 900, (620, 900), (320, 160)
_WIDE = 2.2
_CHIP, _TAG = 17, 15
_TINT, _WASH = 0.07, 0.3


def draw_recognition(
    recognition: Recognition, *, width: int | None = None, font: str | Path | None = None
) -> Image.Image:
    """The recognition card.

    Args:
        recognition: A result that still has its photo.
        width: Of the card, in pixels; None is the width at which its text is easy to read, 850 to 2,400.
        font: A TrueType or OpenType file for names in other scripts. The built-in font has only basic Latin: without
            `font` accents are dropped and other letters become "?".

    Returns:
        An RGB image; its height follows from what there is to say.

    Raises:
        InputError: The result has no photo, the width is below 320, or the font can't be read.
    """
    if recognition.image is None:
        raise InputError("a card needs the photo and this Recognition has no photo; recognize the photo again")
    if width is not None and width < MIN_WIDTH:
        raise InputError(f"width must be at least {MIN_WIDTH} pixels, got {width}")
    lettering = Lettering(font)
    blocks = [_block(number, garment, lettering) for number, garment in enumerate(recognition.garments, start=1)]
    blocks = blocks or [Block((_Text(0, 17, "No garment found", 24, MUTED, "lm"),), 34)]
    wide = recognition.image.width > _WIDE * recognition.image.height
    columns = _columns(blocks, 0 if wide else _PHOTO_HEIGHTS[1])
    panel = (len(columns) * (_COLUMN + GUTTER) - GUTTER, max(map(_height, columns)))
    photo, stage = _stage(recognition.image.size, (max(panel[0], _PHOTO_WIDTH) if wide else _PHOTO_WIDTH, panel[1]))
    caption = _caption(recognition, stage[0], lettering)
    left = (stage[0], stage[1] + caption.height)
    corner = (0, left[1] + GUTTER) if wide else (left[0] + GUTTER, 0)
    natural = (max(left[0], corner[0] + panel[0]) + 2 * MARGIN, max(left[1], corner[1] + panel[1]) + 2 * MARGIN)
    scale = 1.0 if width is None else max(1.0, width / natural[0])
    card = Image.new("RGB", to_pixels(natural, scale), PAGE)
    painter = _Painter(card, scale, lettering)
    shown = _photo(recognition.image, recognition.garments, photo, stage, painter)
    card.paste(shown, to_pixels((MARGIN, MARGIN), scale), rounded(shown.size, 10 * scale))
    painter.marks(caption.marks, MARGIN, MARGIN + stage[1])
    for index, column in enumerate(columns):
        x = MARGIN + corner[0] + index * (_COLUMN + GUTTER)
        painter.marks(_stack(column, GUTTER).marks, x, MARGIN + corner[1])
    size = (width or card.width, max(1, round(card.height * (width or card.width) / card.width)))
    return card if size == card.size else card.resize(size, Image.Resampling.LANCZOS)


def _block(number: int, garment: Garment, lettering: Lettering) -> Block:
    """A garment: chip, category and probability; its colors; its attributes."""
    title = garment.category.name.replace("_", " ")
    lines = lettering.wrap(title[:1].upper() + title[1:], 25, _COLUMN - 2 * _CHIP - 84)
    head = [
        *(moved(mark, _CHIP, _CHIP) for mark in _chip(number, _CHIP)),
        *(_Text(2 * _CHIP + 14, _CHIP + 32 * row, line, 25, INK, "lm") for row, line in enumerate(lines)),
        _Text(_COLUMN, _CHIP, f"{garment.category.probability:.0%}", 20, INK, "rm"),
    ]
    seen = [a for a in garment.attributes.values() if a.status != "not_applicable"]
    rows = [_attribute(attribute, _garment_color(number), lettering) for attribute in seen]
    return _stack([Block(tuple(head), 12 + 32 * len(lines)), _swatches(garment.colors, lettering), *rows])


def _swatches(colors: Sequence[Color], lettering: Lettering) -> Block:
    marks: list[Mark] = []
    x = y = 0.0
    for color in colors:
        words = f"{lettering.clean(color.name)} {color.share:.0%}"
        width = 28 + lettering.length(words, 16)
        if x + width > _COLUMN:
            x, y = 0, y + 30
        marks += [_Bar(x, y, 20, 20, "#d1d5db", 5), _Bar(x + 1, y + 1, 18, 18, color.hex, 4)]
        marks.append(_Text(x + 28, y + 10, words, 16, INK, "lm"))
        x += width + 18
    return Block(tuple(marks), y + 34 if marks else 0)


def _attribute(attribute: Attribute, color: str, lettering: Lettering) -> Block:
    """A row: group, value, a bar as long as the probability, and the probability."""
    value = attribute.value or attribute.status
    names = lettering.wrap(attribute.group.replace("_", " "), 16, 96)
    values = lettering.wrap(value.replace("_", " "), 16, 160)
    ink = INK if attribute.value else _FAINT
    marks: list[Mark] = [_Text(0, 13 + 21 * row, line, 16, MUTED, "lm") for row, line in enumerate(names)]
    marks += [_Text(104, 13 + 21 * row, line, 16, ink, "lm") for row, line in enumerate(values)]
    if attribute.value:
        marks += [_Bar(276, 10, 92, 6, RULE, 3), _Bar(276, 10, max(6, 92 * attribute.probability), 6, color, 3)]
        marks.append(_Text(_COLUMN, 13, f"{attribute.probability:.0%}", 16, MUTED, "rm"))
    return Block(tuple(marks), 5 + 21 * max(len(names), len(values)))


def _caption(recognition: Recognition, width: float, lettering: Lettering) -> Block:
    facts = (recognition.source, f"{recognition.width} x {recognition.height}", recognition.model_id)
    lines = lettering.wrap(" · ".join(filter(None, facts)), 15, width)
    marks = [_Text(0, 24 + 21 * row, line, 15, MUTED, "lm") for row, line in enumerate(lines)]
    return Block(tuple(marks), 14 + 21 * len(lines))


def _chip(number: int, radius: float) -> tuple[Mark, ...]:
    """A numbered disc in the garment's color, around the origin."""
    disc = _Bar(-radius, -radius, 2 * radius, 2 * radius, _garment_color(number), radius)
    return (disc, _Text(0, 0, str(number), 18 if number < 100 else 14, PAGE, "mm"))


def _stack(blocks: Sequence[Block], gap: float = 0) -> Block:
    """The blocks below each other; a rule in the middle of each gap."""
    marks: list[Mark] = []
    y = 0.0
    for position, block in enumerate(blocks):
        if gap and position:
            marks.append(_Bar(0, y + gap / 2, _COLUMN, 1, RULE, 0))
            y += gap
        marks += [moved(mark, 0, y) for mark in block.marks]
        y += block.height
    return Block(tuple(marks), y)


def _columns(blocks: Sequence[Block], room: float) -> list[list[Block]]:
    """The blocks in order, evenly filled into as few columns as fit into the height, up to three."""
    heights = [block.height + GUTTER for block in blocks]
    limits = sorted({sum(heights[i:j]) for i in range(len(heights)) for j in range(i + 1, len(heights) + 1)})
    limits = limits[limits.index(max(heights)) :]
    for count in range(1, _MAX_COLUMNS + 1):
        lowest = bisect_left(limits, -count, key=lambda limit: -len(_fill(blocks, limit)))
        columns = _fill(blocks, limits[lowest])
        if max(map(_height, columns)) <= room:
            break
    return columns


def _fill(blocks: Sequence[Block], limit: float) -> list[list[Block]]:
    columns: list[list[Block]] = [[]]
    for block in blocks:
        if _height([*columns[-1], block]) > limit - GUTTER:
            columns.append([])
        columns[-1].append(block)
    return columns


def _height(column: Sequence[Block]) -> float:
    return sum(block.height + GUTTER for block in column) - GUTTER


def _stage(size: tuple[int, int], room: Size) -> tuple[Size, Size]:
    """Sizes in units of the photo, as large as the room where that is sensible, and of the place it lies on."""
    width, height = size
    factor = min(room[0] / width, min(max(room[1], _PHOTO_HEIGHTS[0]), _PHOTO_HEIGHTS[1]) / height)
    photo = (width * factor, height * factor)
    return photo, (max(photo[0], _STAGE[0]), max(photo[1], _STAGE[1]))


def _photo(photo: Image.Image, garments: Sequence[Garment], size: Size, stage: Size, painter: _Painter) -> Image.Image:
    """The photo in the middle of its stage, with tints, outlines and numbered tags."""
    pixels, room = to_pixels(size, painter.scale), to_pixels(stage, painter.scale)
    picture = photo.convert("RGB").resize(pixels, Image.Resampling.BICUBIC, reducing_gap=3.0)
    shapes = [_shape(garment.mask, pixels) for garment in garments]
    covered = reduce(ImageChops.lighter, shapes, Image.new("L", pixels))
    if shapes:
        picture.paste(PAGE, (0, 0), covered.point(lambda value: (255 - value) * _WASH))
    for number, shape in enumerate(shapes, start=1):
        picture.paste(_garment_color(number), (0, 0), shape.point(lambda value: value * _TINT))
    for number, shape in enumerate(shapes, start=1):
        _outline(picture, shape, _garment_color(number), painter.scale)
    corner = ((room[0] - pixels[0]) // 2, (room[1] - pixels[1]) // 2)
    staged = Image.new("RGB", room, BACKDROP)
    staged.paste(picture, corner)
    pen = _Painter(staged, painter.scale, painter.lettering)
    reach = (_TAG + 2) * painter.scale
    taken = np.asarray(covered) > 127
    wishes = [_tag_places(shape, item, reach, taken) + corner for shape, item in zip(shapes, garments, strict=True)]
    rim = _Bar(-_TAG - 2, -_TAG - 2, 2 * _TAG + 4, 2 * _TAG + 4, PAGE, _TAG + 2)
    for number, (x, y) in enumerate(_spread(wishes, [garment.area for garment in garments], room, reach), start=1):
        pen.marks((rim, *_chip(number, _TAG)), x / painter.scale, y / painter.scale)
    return staged


def _shape(mask: NDArray[np.bool_], size: tuple[int, int]) -> Image.Image:
    """The mask at another size, its outline smooth instead of stepped."""
    layer = Image.fromarray(mask).convert("L").resize(size, Image.Resampling.BICUBIC, reducing_gap=3.0)
    blur = max(0.7, 0.8 * size[0] / mask.shape[1])
    soft = layer.filter(ImageFilter.GaussianBlur(blur))
    return soft.point(lambda value: min(max((value - 128) * 1.7 * blur + 128, 0), 255))


def _outline(picture: Image.Image, shape: Image.Image, color: str, scale: float) -> None:
    bounds = shape.getbbox()
    if bounds is None:
        return
    line = max(1, round(1.5 * scale))
    pad = 3 * line
    corner = (bounds[0] - pad, bounds[1] - pad)
    near = shape.crop((*corner, bounds[2] + pad, bounds[3] + pad))
    inner, outer = near.filter(ImageFilter.MinFilter(2 * line + 1)), near.filter(ImageFilter.MaxFilter(2 * line - 1))
    halo = ImageChops.subtract(outer.filter(ImageFilter.MaxFilter(3)), inner)
    picture.paste(PAGE, corner, halo.point(lambda value: value * 0.7))
    picture.paste(color, corner, ImageChops.subtract(outer, inner))


def _tag_places(shape: Image.Image, garment: Garment, reach: float, taken: NDArray[np.bool_]) -> NDArray[np.float64]:
    """(N, 2) centers for a tag, best first: on the outline, high and central; beside a garment that it would hide."""
    grown = shape.width / garment.mask.shape[1]
    box = np.array(shape.getbbox() or [value * grown for value in garment.box], dtype=np.float64)
    center, half = (box[:2] + box[2:]) / 2, (box[2:] - box[:2]) / 2
    inside = np.pad(np.asarray(shape) > 127, 1)
    core = inside[:-2, 1:-1] & inside[2:, 1:-1] & inside[1:-1, :-2] & inside[1:-1, 2:]
    points = np.argwhere(inside[1:-1, 1:-1] & ~core)[::3, ::-1].astype(np.float64)
    if half.min() < 2 * reach or not len(points):
        sides = np.array([(0, -1), (1, 0), (-1, 0), (0, 1), (1, -1), (-1, -1), (1, 1), (-1, 1)])
        beside = center + sides * (half + reach)
        starts, ends = (np.clip(beside + step, 0, shape.size).astype(int) for step in (-reach, reach))
        hidden = [taken[y1:y2, x1:x2].sum() for (x1, y1), (x2, y2) in zip(starts, ends, strict=True)]
        return np.asarray(beside[np.argsort(hidden, kind="stable")])
    cost = points[:, 1] - box[1] + 0.5 * np.abs(points[:, 0] - center[0])
    return points[np.argsort(cost, kind="stable")]


def _spread(
    wishes: Sequence[NDArray[np.float64]], areas: Sequence[float], room: tuple[int, int], reach: float
) -> NDArray[np.float64]:
    """(N, 2) centers of tags inside the room and clear of each other; the smallest garments choose first."""
    low, high = np.full(2, reach), np.array(room) - reach
    across, down = (np.arange(start, end, reach / 2) for start, end in zip(low, high, strict=True))
    grid = np.stack(np.meshgrid(across, down), axis=-1).reshape(-1, 2)
    placed = np.full((len(wishes), 2), np.inf)
    for index in np.argsort(areas, kind="stable"):
        wanted = np.clip(wishes[index], low, high)
        nearby = grid[np.argsort(np.linalg.norm(grid - wanted[0], axis=1), kind="stable")]
        places = np.concatenate((wanted, nearby))
        gaps = np.linalg.norm(places[:, None] - placed, axis=-1).min(axis=1)
        free = gaps >= 2 * reach
        placed[index] = places[free.argmax() if free.any() else gaps.argmax()]
    return placed


def _garment_color(number: int) -> str:
    return GARMENT_COLORS[(number - 1) % len(GARMENT_COLORS)]
