"""Retrieval boards: the query above its results, each with its score and what changed against the reference."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import accumulate
from pathlib import Path
from statistics import median
from typing import Any, TypeAlias

import numpy as np
from PIL import Image

from fashion_retrieval.drawing import canvas
from fashion_retrieval.drawing.canvas import GUTTER, INSIDE, MARGIN, Box, FontMetrics, Painter, Rect, Shape, Size, Text
from fashion_retrieval.errors import InputError
from fashion_retrieval.gallery.items import garment_fields
from fashion_retrieval.gallery.vocabulary import COLOR, vocabulary_of
from fashion_retrieval.gallery.wish import read_wish
from fashion_retrieval.images.inputs import ImageInput, describe
from fashion_retrieval.images.load import load_image
from fashion_retrieval.results import Attribute, Match, Recognition
from fashion_retrieval.taxonomy import Taxonomy

CATEGORY = "category"
MOST = 200
"""Most results on a board."""

_ACCENT = "#2563eb"
_QUERY, _GAP = 240, 24
_LOW, _HIGH = 0.75, 1.5
"""Heights of a frame, in its widths."""
_TEXT_SIZES = ((28, 3), (22, 5), (17, 10))
_LINE, _CHIP, _DOT, _INDENT, _MAX_ROWS = 21, 14, 8, 16, 5
_DETAIL = 3
_STUDIO = 240
"""Brightness of all corners from which a photo's frame is white."""

_Reference: TypeAlias = Match | Recognition | ImageInput


def draw_board(
    matches: Sequence[Match],
    *,
    reference: _Reference | None = None,
    text: str | None = None,
    taxonomy: Taxonomy | Mapping[str, Any] | str | Path = "default",
    caption: str | None = None,
    width: int | None = None,
    font: str | Path | None = None,
    max_pixels: int | None = None,
) -> Image.Image:
    """Draw a query above its results, as an RGB image whose height follows from their number.

    Below each result are the values that differ from the reference, first those the text asked for; without recognition
    of both, its color and category. Of a Recognition, its largest garment is compared. A photo of a result that can't
    be read is an empty frame. `caption` is a line under the query; `width` and `font` are as in `Recognition.draw`.
    Photos with more than `max_pixels` can't be read.
    """
    if len(matches) > MOST:
        raise InputError(f"a board shows at most {MOST} results, got {len(matches)}; draw the first {MOST}")
    metrics = FontMetrics(font)
    comparison = Comparison(Taxonomy.load(taxonomy), reference, text)
    changes = [comparison.changes(match) for match in matches]
    columns = _columns(len(matches))
    across = (INSIDE + _GAP) / columns - _GAP
    tiles = [_tile(match, found, comparison, metrics, across) for match, found in zip(matches, changes, strict=True)]
    photos = [_small(match, max_pixels) for match in matches]
    frame = (across, _frame_height(photos, across))
    heights = [max(tile.height for tile in tiles[i : i + columns]) for i in range(0, len(tiles), columns)]
    tops = list(accumulate(heights, lambda top, height: top + (frame[1] + _GAP) + height, initial=0.0))
    name, asking = _named(reference, max_pixels)
    asking_frame = (0.0, 0.0) if reference is None else (_QUERY, _frame_height([asking], _QUERY))
    left = MARGIN + (_QUERY + GUTTER if reference is not None else 0)
    writer = _Writer(metrics, MARGIN + INSIDE - left)
    panel = _panel(writer, name, comparison.title, text, changes, caption)
    line = max(panel.height, asking_frame[1]) + 0.7 * GUTTER
    top = MARGIN + line + 0.7 * GUTTER
    painter = Painter.page(top + max(tops[-1] - _GAP, GUTTER) + MARGIN, width, metrics)
    painter.paint([Rect(MARGIN, MARGIN + line, INSIDE, 1, canvas.RULE, 0)], 0, 0)
    painter.paint(panel.shapes, left, MARGIN)
    if reference is not None:
        _show(painter, asking, (MARGIN, MARGIN), asking_frame)
    if not tiles:
        painter.paint([Text(0, 17, "Nothing found", 22, canvas.MUTED, "l")], MARGIN, top)
    for index, (tile, photo) in enumerate(zip(tiles, photos, strict=True)):
        corner = (MARGIN + index % columns * (across + _GAP), top + tops[index // columns])
        _show(painter, photo, corner, frame)
        painter.paint(tile.shapes, corner[0], corner[1] + frame[1])
        chip = (
            *canvas.disc(_CHIP + 2, canvas.PAGE),
            *canvas.disc(_CHIP, canvas.INK, str(index + 1), 16 if index < 99 else 13),
        )
        painter.paint(canvas.moved(chip, 8 + _CHIP, 8 + _CHIP), *corner)
    return painter.finished(width)


class _Writer:
    """Writes paragraphs below each other."""

    def __init__(self, metrics: FontMetrics, width: float, y: float = 0) -> None:
        self.metrics = metrics
        self.width = width
        self.y = y
        self.shapes: list[Shape] = []

    def write(self, words: str, size: int, fill: str, *, most: int = 1, indent: float = 0) -> None:
        """A paragraph of at most `most` lines; what is longer ends in dots."""
        for line in self.metrics.wrap(words, size, self.width - indent, most):
            self.y += 1.4 * size
            self.shapes.append(Text(indent, self.y - 0.7 * size, line, size, fill, "l"))

    def dotted(self, change: Change) -> None:
        """A change after its dot, then in brackets what it was, on the same line if there is room."""
        ink, dot = (canvas.INK, _ACCENT) if change.asked else (canvas.MUTED, canvas.FAINT)
        self.shapes.append(Rect(0, self.y + (_LINE - _DOT) / 2, _DOT, _DOT, dot, _DOT / 2))
        self.write(change.label, 15, ink, most=2, indent=_INDENT)
        if change.was:
            was, last = f"(was {change.was})", self.shapes[-1]
            end = last.x + self.metrics.length(last.words, 15) + 5 if isinstance(last, Text) else self.width
            if end + self.metrics.length(self.metrics.clean(was), 15) <= self.width:
                self.shapes.append(Text(end, self.y - 0.7 * 15, self.metrics.clean(was), 15, canvas.FAINT, "l"))
            else:
                self.write(was, 15, canvas.FAINT, most=2, indent=_INDENT)


def _tile(
    match: Match, changes: Sequence[Change] | None, comparison: Comparison, metrics: FontMetrics, width: float
) -> Box:
    """The text below a result's photo: id and score, and what changed or what it is."""
    writer = _Writer(metrics, width, 10)
    score = f"{match.score:.2f}"
    room = width - metrics.length(score, 16) - 12
    writer.shapes.append(Text(width, 10 + _LINE / 2, score, 16, canvas.INK, "r"))
    name = metrics.shorten(canvas.short_name(match.id), 15, room)
    writer.shapes.append(Text(0, 10 + _LINE / 2, name, 15, canvas.MUTED, "l"))
    writer.y += _LINE + 4
    if changes is None:
        title = comparison.title_of(match)
        if title:
            writer.write(title, 15, canvas.INK, most=2)
    elif not changes:
        writer.write("as the reference", 15, canvas.FAINT)
    for change in (changes or ())[:_MAX_ROWS]:
        writer.dotted(change)
    if changes and len(changes) > _MAX_ROWS:
        writer.write(f"+ {len(changes) - _MAX_ROWS} more", 15, canvas.FAINT, indent=_INDENT)
    return Box(tuple(writer.shapes), writer.y)


def _panel(
    writer: _Writer,
    name: str | None,
    title: str,
    text: str | None,
    changes: Sequence[Sequence[Change] | None],
    caption: str | None,
) -> Box:
    """The text beside the photo of the query: the modification text, what it is, what the dots mean, the caption."""
    metrics, heading = writer.metrics, text or title[:1].upper() + title[1:]
    if heading:
        fitting = (item for item in _TEXT_SIZES if len(metrics.wrap(heading, item[0], writer.width)) <= item[1])
        size, most = next(fitting, _TEXT_SIZES[-1])
        writer.write(heading, size, canvas.INK, most=most)
        writer.y += 8
    if text and title:
        writer.write(title, 17, canvas.MUTED, most=2)
    if name:
        writer.write(metrics.shorten(canvas.short_name(name), 15, writer.width), 15, canvas.FAINT)
    asked = {change.asked for found in changes for change in found or ()}
    writer.y += 18 if asked and writer.y else 0
    if True in asked:
        writer.dotted(Change("as asked for", None, True))
    if False in asked:
        writer.dotted(Change("changed besides" if True in asked else "changed", None, False))
    if caption:
        writer.y += 18 if writer.y else 0
        writer.write(caption, 15, canvas.FAINT, most=6)
    return Box(tuple(writer.shapes), writer.y)


def _named(reference: _Reference | None, max_pixels: int | None) -> tuple[str | None, Image.Image | None]:
    """The name and the photo of a reference."""
    if isinstance(reference, Match):
        return reference.id, _small(reference, max_pixels)
    if isinstance(reference, Recognition):
        return reference.source, reference.image
    if reference is None:
        return None, None
    return describe(reference), load_image(reference, max_pixels=max_pixels)


def _small(match: Match, max_pixels: int | None) -> Image.Image | None:
    """The photo, small enough to hold many; None if it can't be read."""
    if match.photo is None:
        return None
    try:
        photo = load_image(match.photo, max_pixels=max_pixels)
    except InputError:
        return None
    photo.thumbnail((_DETAIL * _QUERY, _DETAIL * _HIGH * _QUERY), Image.Resampling.LANCZOS, reducing_gap=3.0)
    return photo


def _frame_height(photos: Sequence[Image.Image | None], width: float) -> float:
    """Height of the frame in units: the photos' median shape, within limits."""
    shapes = [photo.height / photo.width for photo in photos if photo]
    return width * min(max(median(shapes or [4 / 3]), _LOW), _HIGH)


def _columns(count: int) -> int:
    """Three or four, with the last row as full as possible."""
    return 3 if count <= 12 and -count % 3 < -count % 4 else 4


def _show(painter: Painter, photo: Image.Image | None, corner: Size, frame: Size) -> None:
    """The photo in the middle of its frame, whole and in its proportions; without one, an empty frame."""
    border = Rect(-1, -1, frame[0] + 2, frame[1] + 2, canvas.RULE, 11)
    painter.paint([border, Rect(0, 0, *frame, canvas.BACKDROP, 10)], *corner)
    if photo is None:
        painter.paint([Text(frame[0] / 2, frame[1] / 2, "photo not found", 15, canvas.FAINT, "m")], *corner)
        return
    room = canvas.to_pixels(frame, painter.scale)
    factor = min(room[0] / photo.width, room[1] / photo.height)
    size = canvas.to_pixels((photo.width, photo.height), factor)
    shown = photo.convert("RGB").resize(size, Image.Resampling.LANCZOS, reducing_gap=3.0)
    corners = np.asarray(shown)[[0, 0, -1, -1], [0, -1, 0, -1]]
    painter.place(canvas.framed(shown, room, canvas.PAGE if corners.min() >= _STUDIO else canvas.BACKDROP), *corner)


@dataclass(frozen=True, slots=True)
class Change:
    """A value that the text asked for or that differs from the reference: what it is now, and what it was.

    `was` is None where it is the same.
    """

    label: str
    was: str | None
    asked: bool


class Comparison:
    """Compares results with a reference and with a modification text."""

    def __init__(self, taxonomy: Taxonomy, reference: object, text: str | None) -> None:
        self._groups = (CATEGORY, COLOR, *(group.name for group in taxonomy.attributes))
        groups = {group.name: group for group in (taxonomy.category, *taxonomy.attributes)}
        self._phrases = {(name, v.name): v.phrases[0] for name, group in groups.items() for v in group.values}
        said = read_wish(text, vocabulary_of(taxonomy)).parts if text else ()
        self._asked = {(part.group, part.name) for part in said if part.wanted}
        self._before = self._facts(reference)
        self.title = self.title_of(reference)

    def changes(self, match: Match) -> tuple[Change, ...] | None:
        """Values that were asked for, then others that differ; None unless both were recognized."""
        now = self._facts(match)
        if not self._before or not now:
            return None
        found = []
        for group, value in now.items():
            asked, before = (group, value) in self._asked, self._before.get(group)
            if asked or before not in (None, value):
                label = self._label(group, value)
                was = None if before in (None, value) else _shortened(self._label(group, before), label)
                found.append(Change(label, was, asked))
        return tuple(sorted(found, key=lambda change: not change.asked))

    def title_of(self, source: object) -> str:
        """Color and category in words: "blue shirt dress"; empty if it was not recognized."""
        facts = self._facts(source)
        return " ".join(self._label(group, facts[group]) for group in (COLOR, CATEGORY) if group in facts)

    def _facts(self, source: object) -> dict[str, str]:
        """Value by group, of a Match or of the largest garment of a Recognition."""
        values: Mapping[str, object] = source.fields if isinstance(source, Match) else {}
        if isinstance(source, Recognition):
            values = garment_fields(source)
        return {group: value for group in self._groups if isinstance(value := values.get(group), str)}

    def _label(self, group: str, value: str) -> str:
        """The value as the taxonomy's prompts say it, or its name in words."""
        words = value.replace("_", " ") if group in (CATEGORY, COLOR) else Attribute(group, value, 1.0).label
        return self._phrases.get((group, value), words)


def _shortened(words: str, beside: str) -> str:
    """The words without a last one that both share: "short sleeve" beside "long sleeve" is "short"."""
    *first, last = words.split()
    return " ".join(first) if first and last == beside.split()[-1] else words
