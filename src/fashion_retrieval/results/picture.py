"""A retrieval board as a picture: the query above its results, each with its score and what changed."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import accumulate
from pathlib import Path

import numpy as np
from PIL import Image

from fashion_retrieval.drawing import canvas
from fashion_retrieval.drawing.canvas import GUTTER, INSIDE, MARGIN, Box, FontMetrics, Painter, Rect, Shape, Size, Text
from fashion_retrieval.results.board import DETAIL, NOT_FOUND, NOTHING, Board, Change, Tile, frame_height
from fashion_retrieval.results.retrieval import Explanation

_ACCENT = "#2563eb"
_QUERY, _GAP = 240, 24
_TEXT_SIZES = ((28, 3), (22, 5), (17, 10))
_LINE, _CHIP, _DOT, _INDENT = 21, 14, 8, 16
_STUDIO = 240
"""Brightness of all corners from which a photo's frame is white."""


def picture_of(board: Board, *, width: int | None = None, font: str | Path | None = None) -> Image.Image:
    """An RGB image whose height follows from the number of results; `width` and `font` as in `Recognition.draw`.

    A photo that can't be read is an empty frame.
    """
    metrics = FontMetrics(font)
    columns = _columns(len(board.tiles))
    across = (INSIDE + _GAP) / columns - _GAP
    tiles = [_tile(tile, metrics, across) for tile in board.tiles]
    photos = [board.picture(tile, DETAIL) for tile in board.tiles]
    frame = (across, frame_height(photos, across))
    heights = [max(tile.height for tile in tiles[i : i + columns]) for i in range(0, len(tiles), columns)]
    tops = list(accumulate(heights, lambda top, height: top + (frame[1] + _GAP) + height, initial=0.0))
    asking_frame = (_QUERY, frame_height([board.photo], _QUERY)) if board.has_reference else (0.0, 0.0)
    left = MARGIN + (_QUERY + GUTTER if board.has_reference else 0)
    panel = _panel(_Writer(metrics, MARGIN + INSIDE - left), board)
    line = max(panel.height, asking_frame[1]) + 0.7 * GUTTER
    top = MARGIN + line + 0.7 * GUTTER
    painter = Painter.page(top + max(tops[-1] - _GAP, GUTTER) + MARGIN, width, metrics)
    painter.paint([Rect(MARGIN, MARGIN + line, INSIDE, 1, canvas.RULE, 0)], 0, 0)
    painter.paint(panel.shapes, left, MARGIN)
    if board.has_reference:
        _show(painter, board.photo, (MARGIN, MARGIN), asking_frame)
    if not tiles:
        painter.paint([Text(0, 17, NOTHING, 22, canvas.MUTED, "l")], MARGIN, top)
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

    def shade(self, shades: Sequence[tuple[str, float | None]], size: int, most: int) -> None:
        """The words as `write` has them, on more of the accent's color the more a word moved the query."""
        of_letters = [shade for word, shade in shades for _ in self.metrics.clean(word)]  # words may be broken or cut
        for line in self.metrics.wrap(" ".join(word for word, _ in shades), size, self.width, most):
            self.y += 1.4 * size
            x = 0.0
            for words in line.split():
                shade, width = (of_letters or [0.0])[0], self.metrics.length(words, size)
                del of_letters[: len(words)]
                if shade:
                    fill = canvas.blend(canvas.PAGE, _ACCENT, 0.45 * shade)
                    self.shapes.append(Rect(x - 3, self.y - 1.3 * size, width + 6, 1.2 * size, fill, 4))
                ink = canvas.FAINT if shade is None else canvas.INK
                self.shapes.append(Text(x, self.y - 0.7 * size, words, size, ink, "l"))
                x += width + self.metrics.length(" ", size)

    def mixed(self, explanation: Explanation) -> None:
        """A bar from what is of the photo to what is of the text."""
        photo, text = explanation.mix
        left, right = (self.metrics.length(words, 15) + 12 for words in (photo, text))
        long = min(self.width - left - right, 240.0)
        self.y += 14 + _LINE
        middle = self.y - _LINE / 2
        self.shapes += [
            Text(0, middle, photo, 15, canvas.MUTED, "l"),
            Rect(left, middle - 4, long, 8, _ACCENT, 4),
            Rect(left, middle - 4, max(long * explanation.photo, 1), 8, canvas.FAINT, 4),
            Text(left + long + 12, middle, text, 15, canvas.MUTED, "l"),
        ]

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


def _tile(tile: Tile, metrics: FontMetrics, width: float) -> Box:
    """The text below a result's photo: id and score, and what changed or what it is."""
    writer = _Writer(metrics, width, 10)
    score = f"{tile.match.score:.2f}"
    room = width - metrics.length(score, 16) - 12
    writer.shapes.append(Text(width, 10 + _LINE / 2, score, 16, canvas.INK, "r"))
    name = metrics.shorten(canvas.short_name(tile.match.id), 15, room)
    writer.shapes.append(Text(0, 10 + _LINE / 2, name, 15, canvas.MUTED, "l"))
    writer.y += _LINE + 4
    changes, note = tile.shown
    if tile.changes is None and tile.title:
        writer.write(tile.title, 15, canvas.INK, most=2)
    for change in changes:
        writer.dotted(change)
    if note:
        writer.write(note, 15, canvas.FAINT, indent=_INDENT if changes else 0)
    return Box(tuple(writer.shapes), writer.y)


def _panel(writer: _Writer, board: Board) -> Box:
    """The text beside the photo of the query: the modification text, what it is, what the dots mean, the caption."""
    metrics, heading = writer.metrics, board.heading
    if heading:
        fitting = (item for item in _TEXT_SIZES if len(metrics.wrap(heading, item[0], writer.width)) <= item[1])
        size, most = next(fitting, _TEXT_SIZES[-1])
        if (shades := board.shades) and not canvas.runs_left(heading):  # whose words stand in another order
            writer.shade(shades, size, most)
        else:
            writer.write(heading, size, canvas.INK, most=most)
        writer.y += 8
    if board.subtitle:
        writer.write(board.subtitle, 17, canvas.MUTED, most=2)
    if board.name:
        writer.write(metrics.shorten(canvas.short_name(board.name), 15, writer.width), 15, canvas.FAINT)
    if board.explanation and board.explanation.gates:
        writer.mixed(board.explanation)
    legend = board.legend
    writer.y += 18 if legend and writer.y else 0
    for change in legend:
        writer.dotted(change)
    if board.caption:
        writer.y += 18 if writer.y else 0
        writer.write(board.caption, 15, canvas.FAINT, most=6)
    return Box(tuple(writer.shapes), writer.y)


def _columns(count: int) -> int:
    """Three or four, with the last row as full as possible."""
    return 3 if count <= 12 and -count % 3 < -count % 4 else 4


def _show(painter: Painter, photo: Image.Image | None, corner: Size, frame: Size) -> None:
    """The photo in the middle of its frame, whole and in its proportions; without one, an empty frame."""
    border = Rect(-1, -1, frame[0] + 2, frame[1] + 2, canvas.RULE, 11)
    painter.paint([border, Rect(0, 0, *frame, canvas.BACKDROP, 10)], *corner)
    if photo is None:
        painter.paint([Text(frame[0] / 2, frame[1] / 2, NOT_FOUND, 15, canvas.FAINT, "m")], *corner)
        return
    room = canvas.to_pixels(frame, painter.scale)
    factor = min(room[0] / photo.width, room[1] / photo.height)
    size = canvas.to_pixels((photo.width, photo.height), factor)
    shown = photo.convert("RGB").resize(size, Image.Resampling.LANCZOS, reducing_gap=3.0)
    corners = np.asarray(shown)[[0, 0, -1, -1], [0, -1, 0, -1]]
    painter.place(canvas.framed(shown, room, canvas.PAGE if corners.min() >= _STUDIO else canvas.BACKDROP), *corner)
