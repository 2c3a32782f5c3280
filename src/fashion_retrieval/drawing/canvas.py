"""What the pictures share: shapes, font metrics and the painter.

A picture is laid out in units, which are pixels unless a width is asked for, and painted at any scale.
"""

from __future__ import annotations

import os
import unicodedata
from bisect import bisect_left
from collections.abc import Iterable, Iterator
from functools import lru_cache
from pathlib import Path
from typing import NamedTuple, TypeAlias

from PIL import Image, ImageDraw, ImageFont

from fashion_retrieval.errors import InputError

PAGE, BACKDROP, INK, MUTED, FAINT, RULE = "#ffffff", "#f3f4f6", "#16181d", "#6b7280", "#9ca3af", "#e5e7eb"
MARGIN, GUTTER, MIN_WIDTH = 36, 44, 320
_PLAIN = {"ß": "ss", "\u2018": "'", "\u2019": "'", "\u201c": '"', "\u201d": '"', "\u2013": "-", "\u2014": "-"}
_TO_PLAIN = str.maketrans(_PLAIN | {"\u2026": "..."})

Size: TypeAlias = tuple[float, float]


class Text(NamedTuple):
    """Words at a place, anchored as Pillow anchors them."""

    x: float
    y: float
    words: str
    size: int
    fill: str
    anchor: str


class Rect(NamedTuple):
    """A filled rectangle, rounded by `radius`."""

    x: float
    y: float
    width: float
    height: float
    fill: str
    radius: float


Shape: TypeAlias = Text | Rect


class Box(NamedTuple):
    """Shapes from the top, and the height they take."""

    shapes: tuple[Shape, ...]
    height: float


class FontMetrics:
    """Which letters a font file has, how wide words are, where lines break; `InputError` if it can't be read.

    Without a file it is Pillow's built-in font, of which only basic Latin is used.
    """

    def __init__(self, path: str | Path | None) -> None:
        self.path = path
        self.font = lru_cache(maxsize=None)(self._load)
        self.font(16)

    def _load(self, size: float) -> ImageFont.FreeTypeFont | ImageFont.ImageFont:
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
        letters = unicodedata.normalize("NFKD", words.translate(_TO_PLAIN))
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

    def shorten(self, words: str, size: int, width: float) -> str:
        """The words on one line no wider than `width` units; "..." replaces the middle of longer ones."""
        words = self.clean(words)
        if self.length(words, size) <= width:
            return words
        kept = range(1, len(words))
        fits = bisect_left(kept, True, key=lambda count: self.length(_abridged(words, count), size) > width)
        return _abridged(words, max(fits, 2))

    def cut(self, words: str, size: int, width: float) -> str:
        """The beginning of the words and "...", on one line no wider than `width` units."""
        words = self.clean(words)
        ends = range(len(words) + 1)
        fits = bisect_left(ends, True, key=lambda end: self.length(f"{words[:end]}...", size) > width)
        return f"{words[: max(fits - 1, 0)].rstrip()}..."

    def _pieces(self, words: str, size: int, width: float) -> Iterator[str]:
        for word in words.split():
            rest = word
            while self.length(rest, size) > width:
                fits = sum(self.length(rest[:end], size) <= width for end in range(2, len(rest) + 1)) + 1
                yield rest[:fits]
                rest = rest[fits:]
            yield rest

    def length(self, words: str, size: int) -> float:
        """Width of the words in units, with 2% to spare, which hinting may take at larger scales."""
        return 1.02 * self.font(size).getlength(words)


class Painter:
    """Paints shapes given in units onto a picture of another scale, with smooth edges."""

    def __init__(self, picture: Image.Image, scale: float, metrics: FontMetrics) -> None:
        self.picture = picture
        self.scale = scale
        self.metrics = metrics
        self.pen = ImageDraw.Draw(picture)

    @classmethod
    def page(cls, size: Size, width: int | None, metrics: FontMetrics) -> Painter:
        """A painter of an empty page: at the page's natural scale, or at a larger one if `width` is wider."""
        if width is not None and width < MIN_WIDTH:
            raise InputError(f"width must be at least {MIN_WIDTH} pixels, got {width}")
        scale = 1.0 if width is None else max(1.0, width / size[0])
        return cls(Image.new("RGB", to_pixels(size, scale), PAGE), scale, metrics)

    def paint(self, shapes: Iterable[Shape], x: float, y: float) -> None:
        """Paint the shapes, their origin at (x, y) units."""
        for shape in shapes:
            left, top = (x + shape.x) * self.scale, (y + shape.y) * self.scale
            if isinstance(shape, Text):
                font = self.metrics.font(shape.size * self.scale)
                self.pen.text((left, top), shape.words, fill=shape.fill, font=font, anchor=shape.anchor)
            else:
                size = to_pixels((shape.width, shape.height), self.scale)
                self.picture.paste(shape.fill, (round(left), round(top)), _rounded(size, shape.radius * self.scale))

    def place(self, picture: Image.Image, x: float, y: float) -> None:
        """Paste a picture in this painter's scale at (x, y) units, with rounded corners."""
        self.picture.paste(picture, to_pixels((x, y), self.scale), _rounded(picture.size, 10 * self.scale))

    def finished(self, width: int | None) -> Image.Image:
        """The page, `width` pixels wide."""
        page = self.picture
        size = (width or page.width, max(1, round(page.height * (width or page.width) / page.width)))
        return page if size == page.size else page.resize(size, Image.Resampling.LANCZOS)


def framed(picture: Image.Image, frame: tuple[int, int], fill: str) -> Image.Image:
    """The picture in the middle of a frame of `frame` pixels."""
    page = Image.new("RGB", frame, fill)
    page.paste(picture, ((frame[0] - picture.width) // 2, (frame[1] - picture.height) // 2))
    return page


def moved(shapes: Iterable[Shape], x: float, y: float) -> tuple[Shape, ...]:
    """The shapes, further right and down."""
    return tuple(shape._replace(x=shape.x + x, y=shape.y + y) for shape in shapes)


def disc(radius: float, fill: str, words: str = "", size: int = 0) -> tuple[Shape, ...]:
    """A disc around the origin, with words in white on it."""
    circle = Rect(-radius, -radius, 2 * radius, 2 * radius, fill, radius)
    return (circle, Text(0, 0, words, size, PAGE, "mm")) if words else (circle,)


def to_pixels(units: Size, scale: float) -> tuple[int, int]:
    """A size in units -> in whole pixels, at least 1."""
    return max(1, round(units[0] * scale)), max(1, round(units[1] * scale))


def _abridged(words: str, kept: int) -> str:
    """The first and last letters, `kept` in all."""
    return f"{words[: (kept + 1) // 2]}...{words[len(words) - kept // 2 :]}"


def _rounded(size: tuple[int, int], radius: float) -> Image.Image:
    """A rounded rectangle as an L mask with smooth corners."""
    large = Image.new("L", (size[0] * 4, size[1] * 4))
    ImageDraw.Draw(large).rounded_rectangle((0, 0, large.width - 1, large.height - 1), 4 * radius, fill=255)
    return large.reduce(4)
