"""What the pictures share: marks given in units, the letters they are written in, and the painter.

A picture is laid out in units, which are pixels unless a width is asked for, and painted at any scale.
"""

from __future__ import annotations

import os
import unicodedata
from bisect import bisect_left
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from functools import lru_cache
from pathlib import Path
from typing import TypeAlias

from PIL import Image, ImageDraw, ImageFont

from fashion_retrieval.errors import InputError

PAGE, BACKDROP, INK, MUTED, FAINT, RULE = "#ffffff", "#f3f4f6", "#16181d", "#6b7280", "#9ca3af", "#e5e7eb"
MARGIN, GUTTER = 36, 44
_PLAIN = {"ß": "ss", "\u2018": "'", "\u2019": "'", "\u201c": '"', "\u201d": '"', "\u2013": "-", "\u2014": "-"}
_TO_PLAIN = str.maketrans(_PLAIN | {"\u2026": "..."})

Size: TypeAlias = tuple[float, float]
Font: TypeAlias = ImageFont.FreeTypeFont | ImageFont.ImageFont


@dataclass(frozen=True, slots=True)
class Text:
    """Words at a place, anchored as Pillow anchors them."""

    x: float
    y: float
    words: str
    size: int
    fill: str
    anchor: str


@dataclass(frozen=True, slots=True)
class Bar:
    """A filled rectangle, rounded by `radius`."""

    x: float
    y: float
    width: float
    height: float
    fill: str
    radius: float


Mark: TypeAlias = Text | Bar


@dataclass(frozen=True, slots=True)
class Block:
    """Marks from the top, and how much height they take."""

    marks: tuple[Mark, ...]
    height: float


class Lettering:
    """The font: what it can show, how wide words are, where lines break."""

    def __init__(self, path: str | Path | None) -> None:
        self.path = path
        self.font = lru_cache(maxsize=None)(self._load)
        self.font(16)

    def _load(self, size: float) -> Font:
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
        """The words on one line no wider than `width` units: the middle is left out where they are longer."""
        words = self.clean(words)
        if self.length(words, size) <= width:
            return words
        kept = range(1, len(words))
        fits = bisect_left(kept, True, key=lambda count: self.length(_abridged(words, count), size) > width)
        return _abridged(words, max(fits, 2))

    def cut(self, words: str, size: int, width: float) -> str:
        """The words' beginning and "...", on one line no wider than `width` units."""
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
        """Width of the words in units, with the 2% of air that hinting may take at larger scales."""
        return 1.02 * self.font(size).getlength(words)


class Painter:
    """Paints marks given in units onto a picture of another scale, with smooth edges."""

    def __init__(self, picture: Image.Image, scale: float, lettering: Lettering) -> None:
        self.picture = picture
        self.scale = scale
        self.lettering = lettering
        self.pen = ImageDraw.Draw(picture)

    def marks(self, marks: Iterable[Mark], x: float, y: float) -> None:
        """Paint the marks, their origin at (x, y) units."""
        for mark in marks:
            left, top = (x + mark.x) * self.scale, (y + mark.y) * self.scale
            if isinstance(mark, Text):
                font = self.lettering.font(mark.size * self.scale)
                self.pen.text((left, top), mark.words, fill=mark.fill, font=font, anchor=mark.anchor)
            else:
                shape = rounded(to_pixels((mark.width, mark.height), self.scale), mark.radius * self.scale)
                self.picture.paste(mark.fill, (round(left), round(top)), shape)


def _abridged(words: str, kept: int) -> str:
    """The first and last letters, `kept` in all."""
    return f"{words[: (kept + 1) // 2]}...{words[len(words) - kept // 2 :]}"


def moved(mark: Mark, x: float, y: float) -> Mark:
    """The mark, further right and down."""
    return replace(mark, x=mark.x + x, y=mark.y + y)


def to_pixels(units: Size, scale: float) -> tuple[int, int]:
    """A size in units -> in whole pixels, at least 1."""
    return max(1, round(units[0] * scale)), max(1, round(units[1] * scale))


def rounded(size: tuple[int, int], radius: float) -> Image.Image:
    """A rounded rectangle as an L mask with smooth corners."""
    large = Image.new("L", (size[0] * 4, size[1] * 4))
    ImageDraw.Draw(large).rounded_rectangle((0, 0, large.width - 1, large.height - 1), 4 * radius, fill=255)
    return large.reduce(4)
