"""Recognition cards: the photo with its garments outlined, beside what each of them was recognised as.

A card is laid out in units, which are pixels unless a width is asked for, and painted at any scale.
"""

from __future__ import annotations

import os
import unicodedata
from bisect import bisect_left
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache, reduce
from pathlib import Path
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageChops, ImageDraw, ImageFilter, ImageFont

from fashion_retrieval.errors import InputError
from fashion_retrieval.results import Attribute, Colour, Garment, Recognition

GARMENT_COLOURS = (
    *("#2563eb", "#e11d48", "#059669", "#d97706", "#7c3aed", "#0891b2"),
    *("#db2777", "#4d7c0f", "#9a3412", "#4338ca", "#0f766e", "#475569"),
)
"""Outline, tag and chip colours of garments 1, 2, …; they repeat after the last."""

MIN_WIDTH = 320
_PAGE, _BACKDROP, _INK, _MUTED, _FAINT, _RULE = "#ffffff", "#f3f4f6", "#16181d", "#6b7280", "#9ca3af", "#e5e7eb"
_MARGIN, _GUTTER, _COLUMN, _MAX_COLUMNS = 36, 44, 420, 3
_PHOTO_WIDTH, _PHOTO_HEIGHTS, _STAGE = 900, (620, 900), (320, 160)
_WIDE = 2.2
_CHIP, _TAG = 17, 15
_TINT, _WASH = 0.07, 0.3

_Size: TypeAlias = tuple[float, float]
_Font: TypeAlias = ImageFont.FreeTypeFont | ImageFont.ImageFont


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
        raise InputError("a card needs the photo and this Recognition has no photo; recognise the photo again")
    if width is not None and width < MIN_WIDTH:
        raise InputError(f"width must be at least {MIN_WIDTH} pixels, got {width}")
    lettering = _Lettering(font)
    blocks = [_block(number, garment, lettering) for number, garment in enumerate(recognition.garments, start=1)]
    blocks = blocks or [_Block((_Text(0, 17, "No garment found", 24, _MUTED, "lm"),), 34)]
    wide = recognition.image.width > _WIDE * recognition.image.height
    columns = _columns(blocks, 0 if wide else _PHOTO_HEIGHTS[1])
    panel = (len(columns) * (_COLUMN + _GUTTER) - _GUTTER, max(map(_height, columns)))
    photo, stage = _stage(recognition.image.size, (max(panel[0], _PHOTO_WIDTH) if wide else _PHOTO_WIDTH, panel[1]))
    caption = _caption(recognition, stage[0], lettering)
    left = (stage[0], stage[1] + caption.height)
    corner = (0, left[1] + _GUTTER) if wide else (left[0] + _GUTTER, 0)
    natural = (max(left[0], corner[0] + panel[0]) + 2 * _MARGIN, max(left[1], corner[1] + panel[1]) + 2 * _MARGIN)
    scale = 1.0 if width is None else max(1.0, width / natural[0])
    card = Image.new("RGB", _pixels(natural, scale), _PAGE)
    painter = _Painter(card, scale, lettering)
    shown = _photo(recognition.image, recognition.garments, photo, stage, painter)
    card.paste(shown, _pixels((_MARGIN, _MARGIN), scale), _rounded(shown.size, 10 * scale))
    painter.marks(caption.marks, _MARGIN, _MARGIN + stage[1])
    for index, column in enumerate(columns):
        x = _MARGIN + corner[0] + index * (_COLUMN + _GUTTER)
        painter.marks(_stack(column, _GUTTER).marks, x, _MARGIN + corner[1])
    size = (width or card.width, max(1, round(card.height * (width or card.width) / card.width)))
    return card if size == card.size else card.resize(size, Image.Resampling.LANCZOS)


@dataclass(frozen=True, slots=True)
class _Text:
    x: float
    y: float
    words: str
    size: int
    fill: str
    anchor: str


@dataclass(frozen=True, slots=True)
class _Bar:
    x: float
    y: float
    width: float
    height: float
    fill: str
    radius: float


_Mark: TypeAlias = _Text | _Bar


@dataclass(frozen=True, slots=True)
class _Block:
    marks: tuple[_Mark, ...]
    height: float


class _Lettering:
    """The font: what it can show, how wide words are, where lines break."""

    def __init__(self, path: str | Path | None) -> None:
        self.path = path
        self.font = lru_cache(maxsize=None)(self._load)
        self.font(16)

    def _load(self, size: float) -> _Font:
        if self.path is None:
            return ImageFont.load_default(size)
        try:
            return ImageFont.truetype(os.fspath(self.path), size)
        except OSError as error:
            raise InputError(f"font {str(self.path)!r} can't be read ({error}); give a .ttf or .otf file") from error

    def clean(self, words: str) -> str:
        """The words on one line, in letters the font has."""
        words = " ".join(words.split())
        if self.path is not None:
            return words
        letters = unicodedata.normalize("NFKD", words.replace("ß", "ss"))
        plain = (letter for letter in letters if not unicodedata.combining(letter))
        return "".join(letter if " " <= letter <= "~" or letter == "·" else "?" for letter in plain)

    def wrap(self, words: str, size: int, width: float) -> list[str]:
        """The words in lines no wider than `width` units; a word that is wider is broken."""
        lines = [""]
        for piece in self._pieces(self.clean(words), size, width):
            longer = f"{lines[-1]} {piece}".strip()
            if self.length(longer, size) <= width:
                lines[-1] = longer
            else:
                lines.append(piece)
        return lines

    def _pieces(self, words: str, size: int, width: float) -> Iterator[str]:
        for word in words.split():
            rest = word
            while self.length(rest, size) > width:
                fits = sum(self.length(rest[:end], size) <= width for end in range(2, len(rest) + 1)) + 1
                yield rest[:fits]
                rest = rest[fits:]
            yield rest

    def length(self, words: str, size: int) -> float:
        """Width of the words in units, with the 2% of air that hinting may take at larger scales."""
        return 1.02 * self.font(size).getlength(words)


class _Painter:
    """Paints marks given in units onto a picture of another scale, with smooth edges."""

    def __init__(self, picture: Image.Image, scale: float, lettering: _Lettering) -> None:
        self.picture = picture
        self.scale = scale
        self.lettering = lettering
        self.pen = ImageDraw.Draw(picture)

    def marks(self, marks: Iterable[_Mark], x: float, y: float) -> None:
        for mark in marks:
            left, top = (x + mark.x) * self.scale, (y + mark.y) * self.scale
            if isinstance(mark, _Text):
                font = self.lettering.font(mark.size * self.scale)
                self.pen.text((left, top), mark.words, fill=mark.fill, font=font, anchor=mark.anchor)
            else:
                shape = _rounded(_pixels((mark.width, mark.height), self.scale), mark.radius * self.scale)
                self.picture.paste(mark.fill, (round(left), round(top)), shape)


def _block(number: int, garment: Garment, lettering: _Lettering) -> _Block:
    """A garment: chip, category and probability; its colours; its attributes."""
    title = garment.category.name.replace("_", " ")
    lines = lettering.wrap(title[:1].upper() + title[1:], 25, _COLUMN - 2 * _CHIP - 84)
    head = [
        *(_moved(mark, _CHIP, _CHIP) for mark in _chip(number, _CHIP)),
        *(_Text(2 * _CHIP + 14, _CHIP + 32 * row, line, 25, _INK, "lm") for row, line in enumerate(lines)),
        _Text(_COLUMN, _CHIP, f"{garment.category.probability:.0%}", 20, _INK, "rm"),
    ]
    seen = [a for a in garment.attributes.values() if a.status != "not_applicable"]
    rows = [_attribute(attribute, _garment_colour(number), lettering) for attribute in seen]
    return _stack([_Block(tuple(head), 12 + 32 * len(lines)), _swatches(garment.colours, lettering), *rows])


def _swatches(colours: Sequence[Colour], lettering: _Lettering) -> _Block:
    marks: list[_Mark] = []
    x = y = 0.0
    for colour in colours:
        words = f"{lettering.clean(colour.name)} {colour.share:.0%}"
        width = 28 + lettering.length(words, 16)
        if x + width > _COLUMN:
            x, y = 0, y + 30
        marks += [_Bar(x, y, 20, 20, "#d1d5db", 5), _Bar(x + 1, y + 1, 18, 18, colour.hex, 4)]
        marks.append(_Text(x + 28, y + 10, words, 16, _INK, "lm"))
        x += width + 18
    return _Block(tuple(marks), y + 34 if marks else 0)


def _attribute(attribute: Attribute, colour: str, lettering: _Lettering) -> _Block:
    """A row: group, value, a bar as long as the probability, and the probability."""
    value = attribute.value or attribute.status
    names = lettering.wrap(attribute.group.replace("_", " "), 16, 96)
    values = lettering.wrap(value.replace("_", " "), 16, 160)
    ink = _INK if attribute.value else _FAINT
    marks: list[_Mark] = [_Text(0, 13 + 21 * row, line, 16, _MUTED, "lm") for row, line in enumerate(names)]
    marks += [_Text(104, 13 + 21 * row, line, 16, ink, "lm") for row, line in enumerate(values)]
    if attribute.value:
        marks += [_Bar(276, 10, 92, 6, _RULE, 3), _Bar(276, 10, max(6, 92 * attribute.probability), 6, colour, 3)]
        marks.append(_Text(_COLUMN, 13, f"{attribute.probability:.0%}", 16, _MUTED, "rm"))
    return _Block(tuple(marks), 5 + 21 * max(len(names), len(values)))


def _caption(recognition: Recognition, width: float, lettering: _Lettering) -> _Block:
    facts = (recognition.source, f"{recognition.width} x {recognition.height}", recognition.model_id)
    lines = lettering.wrap(" · ".join(filter(None, facts)), 15, width)
    marks = [_Text(0, 24 + 21 * row, line, 15, _MUTED, "lm") for row, line in enumerate(lines)]
    return _Block(tuple(marks), 14 + 21 * len(lines))


def _chip(number: int, radius: float) -> tuple[_Mark, ...]:
    """A numbered disc in the garment's colour, around the origin."""
    disc = _Bar(-radius, -radius, 2 * radius, 2 * radius, _garment_colour(number), radius)
    return (disc, _Text(0, 0, str(number), 18 if number < 100 else 14, _PAGE, "mm"))


def _stack(blocks: Sequence[_Block], gap: float = 0) -> _Block:
    """The blocks below each other; a rule in the middle of each gap."""
    marks: list[_Mark] = []
    y = 0.0
    for position, block in enumerate(blocks):
        if gap and position:
            marks.append(_Bar(0, y + gap / 2, _COLUMN, 1, _RULE, 0))
            y += gap
        marks += [_moved(mark, 0, y) for mark in block.marks]
        y += block.height
    return _Block(tuple(marks), y)


def _columns(blocks: Sequence[_Block], room: float) -> list[list[_Block]]:
    """The blocks in order, evenly filled into as few columns as fit into the height, up to three."""
    heights = [block.height + _GUTTER for block in blocks]
    limits = sorted({sum(heights[i:j]) for i in range(len(heights)) for j in range(i + 1, len(heights) + 1)})
    limits = limits[limits.index(max(heights)) :]
    for count in range(1, _MAX_COLUMNS + 1):
        lowest = bisect_left(limits, -count, key=lambda limit: -len(_fill(blocks, limit)))
        columns = _fill(blocks, limits[lowest])
        if max(map(_height, columns)) <= room:
            break
    return columns


def _fill(blocks: Sequence[_Block], limit: float) -> list[list[_Block]]:
    columns: list[list[_Block]] = [[]]
    for block in blocks:
        if _height([*columns[-1], block]) > limit - _GUTTER:
            columns.append([])
        columns[-1].append(block)
    return columns


def _height(column: Sequence[_Block]) -> float:
    return sum(block.height + _GUTTER for block in column) - _GUTTER


def _stage(size: tuple[int, int], room: _Size) -> tuple[_Size, _Size]:
    """Sizes in units of the photo, as large as the room where that is sensible, and of the place it lies on."""
    width, height = size
    factor = min(room[0] / width, min(max(room[1], _PHOTO_HEIGHTS[0]), _PHOTO_HEIGHTS[1]) / height)
    photo = (width * factor, height * factor)
    return photo, (max(photo[0], _STAGE[0]), max(photo[1], _STAGE[1]))


def _photo(
    photo: Image.Image, garments: Sequence[Garment], size: _Size, stage: _Size, painter: _Painter
) -> Image.Image:
    """The photo in the middle of its stage, with tints, outlines and numbered tags."""
    pixels, room = _pixels(size, painter.scale), _pixels(stage, painter.scale)
    picture = photo.convert("RGB").resize(pixels, Image.Resampling.BICUBIC, reducing_gap=3.0)
    shapes = [_shape(garment.mask, pixels) for garment in garments]
    covered = reduce(ImageChops.lighter, shapes, Image.new("L", pixels))
    if shapes:
        picture.paste(_PAGE, (0, 0), covered.point(lambda value: (255 - value) * _WASH))
    for number, shape in enumerate(shapes, start=1):
        picture.paste(_garment_colour(number), (0, 0), shape.point(lambda value: value * _TINT))
    for number, shape in enumerate(shapes, start=1):
        _outline(picture, shape, _garment_colour(number), painter.scale)
    corner = ((room[0] - pixels[0]) // 2, (room[1] - pixels[1]) // 2)
    staged = Image.new("RGB", room, _BACKDROP)
    staged.paste(picture, corner)
    pen = _Painter(staged, painter.scale, painter.lettering)
    reach = (_TAG + 2) * painter.scale
    taken = np.asarray(covered) > 127
    wishes = [_tag_places(shape, item, reach, taken) + corner for shape, item in zip(shapes, garments, strict=True)]
    rim = _Bar(-_TAG - 2, -_TAG - 2, 2 * _TAG + 4, 2 * _TAG + 4, _PAGE, _TAG + 2)
    for number, (x, y) in enumerate(_spread(wishes, [garment.area for garment in garments], room, reach), start=1):
        pen.marks((rim, *_chip(number, _TAG)), x / painter.scale, y / painter.scale)
    return staged


def _shape(mask: NDArray[np.bool_], size: tuple[int, int]) -> Image.Image:
    """The mask at another size, its outline smooth instead of stepped."""
    layer = Image.fromarray(mask).convert("L").resize(size, Image.Resampling.BICUBIC, reducing_gap=3.0)
    blur = max(0.7, 0.8 * size[0] / mask.shape[1])
    soft = layer.filter(ImageFilter.GaussianBlur(blur))
    return soft.point(lambda value: min(max((value - 128) * 1.7 * blur + 128, 0), 255))


def _outline(picture: Image.Image, shape: Image.Image, colour: str, scale: float) -> None:
    bounds = shape.getbbox()
    if bounds is None:
        return
    line = max(1, round(1.5 * scale))
    pad = 3 * line
    corner = (bounds[0] - pad, bounds[1] - pad)
    near = shape.crop((*corner, bounds[2] + pad, bounds[3] + pad))
    inner, outer = near.filter(ImageFilter.MinFilter(2 * line + 1)), near.filter(ImageFilter.MaxFilter(2 * line - 1))
    halo = ImageChops.subtract(outer.filter(ImageFilter.MaxFilter(3)), inner)
    picture.paste(_PAGE, corner, halo.point(lambda value: value * 0.7))
    picture.paste(colour, corner, ImageChops.subtract(outer, inner))


def _tag_places(shape: Image.Image, garment: Garment, reach: float, taken: NDArray[np.bool_]) -> NDArray[np.float64]:
    """(N, 2) centres for a tag, best first: on the outline, high and central; beside a garment that it would hide."""
    grown = shape.width / garment.mask.shape[1]
    box = np.array(shape.getbbox() or [value * grown for value in garment.box], dtype=np.float64)
    centre, half = (box[:2] + box[2:]) / 2, (box[2:] - box[:2]) / 2
    inside = np.pad(np.asarray(shape) > 127, 1)
    core = inside[:-2, 1:-1] & inside[2:, 1:-1] & inside[1:-1, :-2] & inside[1:-1, 2:]
    points = np.argwhere(inside[1:-1, 1:-1] & ~core)[::3, ::-1].astype(np.float64)
    if half.min() < 2 * reach or not len(points):
        sides = np.array([(0, -1), (1, 0), (-1, 0), (0, 1), (1, -1), (-1, -1), (1, 1), (-1, 1)])
        beside = centre + sides * (half + reach)
        starts, ends = (np.clip(beside + step, 0, shape.size).astype(int) for step in (-reach, reach))
        hidden = [taken[y1:y2, x1:x2].sum() for (x1, y1), (x2, y2) in zip(starts, ends, strict=True)]
        return np.asarray(beside[np.argsort(hidden, kind="stable")])
    cost = points[:, 1] - box[1] + 0.5 * np.abs(points[:, 0] - centre[0])
    return points[np.argsort(cost, kind="stable")]


def _spread(
    wishes: Sequence[NDArray[np.float64]], areas: Sequence[float], room: tuple[int, int], reach: float
) -> NDArray[np.float64]:
    """(N, 2) centres of tags inside the room and clear of each other; the smallest garments choose first."""
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


def _moved(mark: _Mark, x: float, y: float) -> _Mark:
    return replace(mark, x=mark.x + x, y=mark.y + y)


def _garment_colour(number: int) -> str:
    return GARMENT_COLOURS[(number - 1) % len(GARMENT_COLOURS)]


def _pixels(units: _Size, scale: float) -> tuple[int, int]:
    return max(1, round(units[0] * scale)), max(1, round(units[1] * scale))


def _rounded(size: tuple[int, int], radius: float) -> Image.Image:
    """A rounded rectangle as an L mask with smooth corners."""
    large = Image.new("L", (size[0] * 4, size[1] * 4))
    ImageDraw.Draw(large).rounded_rectangle((0, 0, large.width - 1, large.height - 1), 4 * radius, fill=255)
    return large.reduce(4)
