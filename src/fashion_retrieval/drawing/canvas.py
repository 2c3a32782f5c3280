"""What the pictures share: shapes, font metrics and the painter.

A picture is laid out in units, which are pixels unless a width is asked for, and painted at any scale. It is `WIDTH`
units wide, so that its text, 15 units or more, is read with ease where it is shown 800 pixels wide.
"""

from __future__ import annotations

import os
import re
import unicodedata
from bisect import bisect_left
from collections.abc import Iterable, Iterator
from functools import lru_cache
from importlib.resources import files
from itertools import groupby
from math import ceil
from pathlib import Path, PurePath
from typing import NamedTuple, TypeAlias

from PIL import Image, ImageColor, ImageDraw, ImageFont

from fashion_retrieval._utils.checks import check_whole
from fashion_retrieval.errors import InputError

PAGE, BACKDROP, INK, MUTED, FAINT, RULE = "#ffffff", "#f3f4f6", "#16181d", "#4b5563", "#6b7280", "#e5e7eb"
WIDTH, MARGIN, GUTTER, MIN_WIDTH, MAX_WIDTH = 840, 36, 36, 320, 10_000
INSIDE = WIDTH - 2 * MARGIN
_BUNDLED = ("NotoSansMerged-Regular.ttf", "DroidSansFallback.ttf")
_MARKS = ("Mn", "Mc", "Me", "Cf")
"""Unicode categories of what belongs to the letter before it."""
_CENTER = 0.36
"""From the middle of a capital letter to its foot, in sizes."""
_RTL = "\u0590-\u08ff\ufb1d-\ufdff\ufe70-\ufefc"
_RTL_WORDS = re.compile(f"[{_RTL}](?:[{_RTL} ]*[{_RTL}])?")

Size: TypeAlias = tuple[float, float]


class Text(NamedTuple):
    """Words whose left end, middle or right end is at a place: `anchor` "l", "m" or "r"."""

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
    """How wide words are and where lines break; each letter in the first font that has it, a box where none has.

    A given file comes first, then the bundled fonts; `InputError` if it can't be read.
    """

    def __init__(self, path: str | Path | None) -> None:
        if path is not None and not isinstance(path, str | os.PathLike):
            raise InputError(f"font must be a path or None, got {type(path).__name__}; give a .ttf or .otf file")
        bundled = [str(files("fashion_retrieval").joinpath("assets", "fonts", name)) for name in _BUNDLED]
        self.paths = [*([] if path is None else [os.fspath(path)]), *bundled]
        self.fonts = lru_cache(maxsize=None)(self._load)
        self._font_of = lru_cache(maxsize=None)(self._first_with)
        raqm = self.fonts(16)[0].layout_engine == ImageFont.Layout.RAQM
        self.direction = "ltr" if raqm else None  # of lines: names from right to left stand in English ones
        self._missing = [bytes(font.getmask("\uffff")) for font in self.fonts(16)]

    def _load(self, size: float) -> list[ImageFont.FreeTypeFont]:
        try:
            return [ImageFont.truetype(path, size) for path in self.paths]
        except OSError as error:
            path = self.paths[0]
            raise InputError(f"font {path!r} can't be read ({error}); give a .ttf or .otf file") from error

    def _first_with(self, letter: str) -> int:
        tried = zip(self.fonts(16), self._missing, strict=True)
        return next((i for i, (font, missing) in enumerate(tried) if bytes(font.getmask(letter)) != missing), 0)

    def runs(self, words: str) -> list[tuple[int, str]]:
        """Words in pieces of one font, each with the font's position in `fonts(size)`.

        Without Pillow's Raqm, right-to-left letters are put in the order in which they are read, but not joined.
        """
        if self.fonts(16)[0].layout_engine == ImageFont.Layout.BASIC:
            words = _RTL_WORDS.sub(lambda found: _backwards(found[0]), words)
        chosen: list[int] = []
        for letter in words:
            mark = chosen and unicodedata.category(letter) in _MARKS
            chosen.append(chosen[-1] if mark else self._font_of(letter))
        # A space between two fonts stands alone: at the end of words from right to left it would be on their left.
        keys = [
            -1 if letter == " " and len(set(chosen[max(i - 1, 0) : i + 2 : 2])) == 2 else chosen[i]
            for i, letter in enumerate(words)
        ]
        pairs = groupby(zip(keys, words, strict=True), key=lambda pair: pair[0])
        return [(max(font, 0), "".join(letter for _, letter in letters)) for font, letters in pairs]

    def clean(self, words: str) -> str:
        """The words on one line, in letters that can be drawn."""
        return unicodedata.normalize("NFC", " ".join(words.split())).encode(errors="replace").decode()

    def wrap(self, words: str, size: int, width: float, most: int | None = None) -> list[str]:
        """The words in lines no wider than `width` units; a word that is wider is broken, what is too much is cut."""
        lines = [""]
        for piece in self._pieces(self.clean(words), size, width):
            longer = f"{lines[-1]} {piece}".strip()
            if self.length(longer, size) <= width:
                lines[-1] = longer
            else:
                lines.append(piece)
        if most is None or len(lines) <= most:
            return lines
        return [*lines[: most - 1], self._cut(" ".join(lines[most - 1 :]), size, width)]

    def shorten(self, words: str, size: int, width: float) -> str:
        """The words on one line no wider than `width` units; "…" replaces the middle of longer ones."""
        words = self.clean(words)
        if self.length(words, size) <= width:
            return words
        kept = range(1, len(words))
        fits = bisect_left(kept, True, key=lambda count: self.length(_abridged(words, count), size) > width)
        return _abridged(words, max(fits, 2))

    def _cut(self, words: str, size: int, width: float) -> str:
        ends = range(len(words) + 1)
        fits = bisect_left(ends, True, key=lambda end: self.length(f"{words[:end]}…", size) > width)
        return f"{words[: max(fits - 1, 0)].rstrip()}…"

    def _pieces(self, words: str, size: int, width: float) -> Iterator[str]:
        for word in words.split():
            rest = word
            while self.length(rest, size) > width:
                ends = range(2, len(rest))
                fits = bisect_left(ends, True, key=lambda end: self.length(rest[:end], size) > width) + 1
                while fits > 1 and unicodedata.category(rest[fits]) in _MARKS:
                    fits -= 1
                yield rest[:fits]
                rest = rest[fits:]
            yield rest

    def length(self, words: str, size: int) -> float:
        """Width of the words in units, with 2% to spare, which hinting may take at other scales."""
        fonts = self.fonts(4 * size)
        return 1.02 * sum(fonts[font].getlength(run, direction=self.direction) / 4 for font, run in self.runs(words))


class Painter:
    """Paints shapes given in units onto a picture of another scale, with smooth edges."""

    def __init__(self, picture: Image.Image, scale: float, metrics: FontMetrics) -> None:
        self.picture = picture
        self.scale = scale
        self.metrics = metrics

    @classmethod
    def page(cls, height: float, width: int | None, metrics: FontMetrics) -> Painter:
        """A painter of an empty page, `WIDTH` pixels wide or larger if `width` is more."""
        if width is not None:
            check_whole("width", width, MAX_WIDTH, least=MIN_WIDTH)
        scale = 1.0 if width is None else max(1.0, width / WIDTH)
        return cls(Image.new("RGB", to_pixels((WIDTH, height), scale), PAGE), scale, metrics)

    def paint(self, shapes: Iterable[Shape], x: float, y: float) -> None:
        """Paint the shapes, their origin at (x, y) units."""
        for shape in shapes:
            left, top = (x + shape.x) * self.scale, (y + shape.y) * self.scale
            if isinstance(shape, Text):
                self._write(shape, left, top)
            else:
                size = to_pixels((shape.width, shape.height), self.scale)
                self.picture.paste(shape.fill, (round(left), round(top)), _rounded(size, shape.radius * self.scale))

    def _write(self, text: Text, x: float, y: float) -> None:
        size = text.size * self.scale
        em = ceil(size)
        fonts = [(self.metrics.fonts(2 * size)[font], run) for font, run in self.metrics.runs(text.words)]
        direction = self.metrics.direction
        width = sum(font.getlength(run, direction=direction) for font, run in fonts)
        layer = Image.new("L", (ceil(width) + 4 * em, 8 * em))  # twice as large: whole pixels space letters unevenly
        pen, start = ImageDraw.Draw(layer), 2.0 * em
        for font, run in fonts:
            pen.text((start, 4 * em), run, fill=255, font=font, anchor="ls", direction=direction)
            start += font.getlength(run, direction=direction)
        left = x - {"l": 0.0, "m": 0.25, "r": 0.5}[text.anchor] * width
        self.picture.paste(text.fill, (round(left) - em, round(y + _CENTER * size) - 2 * em), layer.reduce(2))

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


def blend(start: str, end: str, share: float) -> str:
    """The color at this share of the way between two."""
    pairs = zip(ImageColor.getrgb(start), ImageColor.getrgb(end), strict=True)
    return "#{:02x}{:02x}{:02x}".format(*(round(a + (b - a) * share) for a, b in pairs))


def runs_left(words: str) -> bool:
    """Whether some of the words run from right to left."""
    return _RTL_WORDS.search(words) is not None


def disc(radius: float, fill: str, words: str = "", size: int = 0) -> tuple[Shape, ...]:
    """A disc around the origin, with words in white on it."""
    circle = Rect(-radius, -radius, 2 * radius, 2 * radius, fill, radius)
    return (circle, Text(0, 0, words, size, PAGE, "m")) if words else (circle,)


def to_pixels(units: Size, scale: float) -> tuple[int, int]:
    """A size in units -> in whole pixels, at least 1."""
    return max(1, round(units[0] * scale)), max(1, round(units[1] * scale))


def is_code(name: str) -> bool:
    """Whether the name of a file or product is a digest, a date or a number, which tell a reader nothing."""
    stem = PurePath(name).stem
    words = [word for word in re.findall(r"[^\W\d_]{3,}", stem) if not set(word.lower()) <= set("abcdef")]
    return len(stem) >= 8 and 2 * sum(map(len, words)) < sum(map(str.isalnum, stem))


def short_name(name: str) -> str:
    """A name; of a code in it, such as a digest, only the beginning and the end."""
    path = PurePath(name)
    if not is_code(name) or len(path.stem) < 16:
        return name
    return str(path.with_name(f"{path.stem[:8]}…{path.stem[-4:]}{path.suffix}"))


def _backwards(words: str) -> str:
    return "".join(letter for letter in reversed(words) if not unicodedata.combining(letter))


def _abridged(words: str, kept: int) -> str:
    """The first and last letters, `kept` in all."""
    return f"{words[: (kept + 1) // 2]}…{words[len(words) - kept // 2 :]}"


def _rounded(size: tuple[int, int], radius: float) -> Image.Image:
    """A rounded rectangle as an L mask with smooth corners."""
    large = Image.new("L", (size[0] * 4, size[1] * 4))
    ImageDraw.Draw(large).rounded_rectangle((0, 0, large.width - 1, large.height - 1), 4 * radius, fill=255)
    return large.reduce(4)
