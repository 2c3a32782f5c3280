"""What a retrieval board tells of a query and its results; a picture or a page shows it."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from difflib import SequenceMatcher
from statistics import median

from PIL import Image

from fashion_retrieval.errors import InputError
from fashion_retrieval.images.inputs import ImageInput
from fashion_retrieval.images.load import load_image
from fashion_retrieval.results.retrieval import Explanation, Match
from fashion_retrieval.results.values import Box

MOST = 200
"""Most results on a board."""
NOT_FOUND, NOTHING = "photo not found", "Nothing found"

DETAIL = (720.0, 1080.0)
"""Pixels of a photo on a picture's board, at most."""

_MOST_CHANGES = 5
_LOW, _HIGH = 0.75, 1.5
"""Heights of a frame, in its widths."""


@dataclass(frozen=True, slots=True)
class Change:
    """A value that the text asked for or that differs from the reference: what it is now, and what it was.

    `was` is None where it is the same.
    """

    label: str
    was: str | None
    asked: bool


@dataclass(frozen=True, slots=True)
class Tile:
    """One result: its color and category in words, or how it differs from the reference, None where that is unknown.

    `photo` and the `box` in it, xyxy in pixels, are shown in place of the match's own photo.
    """

    match: Match
    title: str
    changes: tuple[Change, ...] | None = None
    photo: ImageInput | None = None
    box: Box | None = None

    @property
    def shown(self) -> tuple[tuple[Change, ...], str]:
        """The changes that there is room for, and what is said in place of the others."""
        if not self.changes:
            return (), "" if self.changes is None else "as the reference"
        more = len(self.changes) - _MOST_CHANGES
        return self.changes[:_MOST_CHANGES], f"+ {more} more" if more > 0 else ""


@dataclass(frozen=True, slots=True)
class Board:
    """A query and its results, best first.

    `photo` is that of the reference, None where there is no reference or it can't be read; `name` is what it is called
    and `title` what it is in words. `text` is the modification text, `caption` a line under the query, `explanation`
    tells where the query comes from. Photos of results with more than `max_pixels` can't be read.
    """

    tiles: tuple[Tile, ...]
    has_reference: bool = False
    photo: Image.Image | None = None
    name: str | None = None
    title: str = ""
    text: str | None = None
    caption: str | None = None
    max_pixels: int | None = None
    explanation: Explanation | None = None

    def __post_init__(self) -> None:
        if len(self.tiles) > MOST:
            raise InputError(f"a board shows at most {MOST} results, got {len(self.tiles)}; draw the first {MOST}")

    @classmethod
    def of(cls, matches: Sequence[Match], caption: str | None = None) -> Board:
        """Results of a query that is not known."""
        return cls(tuple(Tile(match, _title(match)) for match in matches), caption=caption)

    @property
    def heading(self) -> str:
        """The text or, without one, what the reference is; may be empty."""
        return self.text or self.title[:1].upper() + self.title[1:]

    @property
    def shades(self) -> list[tuple[str, float | None]]:
        """The words of the text, each with how much it moved the query: the most is 1, None is not in the query.

        Empty where there is nothing to compare.
        """
        said, words = (self.text or "").split(), self.explanation.words if self.explanation else ()
        most = max((share for _, share in words), default=0)
        if len(words) < 2 or not most:
            return []
        shades: list[float | None] = [None] * len(said)
        ours, theirs = ([_bare(word) for word in several] for several in (said, [word for word, _ in words]))
        for place, start, size in SequenceMatcher(None, ours, theirs, autojunk=False).get_matching_blocks():
            shades[place : place + size] = [share / most for _, share in words[start : start + size]]
        return [] if shades.count(None) == len(said) else list(zip(said, shades, strict=True))

    @property
    def subtitle(self) -> str:
        """What the reference is, where a text is the heading; may be empty."""
        return self.title if self.text else ""

    @property
    def legend(self) -> list[Change]:
        """What the marks of changes mean, as far as there are any."""
        asked = {change.asked for tile in self.tiles for change in tile.changes or ()}
        besides = Change("changed besides" if True in asked else "changed", None, False)
        return [Change("as asked for", None, True)] * (True in asked) + [besides] * (False in asked)

    def picture(self, tile: Tile, size: tuple[float, float]) -> Image.Image | None:
        """What a tile shows, no larger than `size`, so that many can be held; None if it can't be read."""
        return self.small(tile.match.photo if tile.photo is None else tile.photo, size, tile.box)

    def small(self, given: ImageInput | None, size: tuple[float, float], box: Box | None = None) -> Image.Image | None:
        """A photo, or the box in it, no larger than `size`; None if it can't be read."""
        try:
            photo = None if given is None else load_image(given, max_pixels=self.max_pixels)
        except InputError:
            return None
        if photo is not None:
            photo = photo.crop(box) if box else photo
            photo.thumbnail(size, Image.Resampling.LANCZOS, reducing_gap=3.0)
        return photo


def frame_height(photos: Iterable[Image.Image | None], width: float) -> float:
    """Height of the frame that photos have in common: their median shape, within limits."""
    shapes = [photo.height / photo.width for photo in photos if photo]
    return width * min(max(median(shapes or [4 / 3]), _LOW), _HIGH)


def _bare(word: str) -> str:
    return word.strip(",;.:!?()").casefold()


def _title(match: Match) -> str:
    words = (match.fields.get(name) for name in ("color", "category"))
    return " ".join(word.replace("_", " ") for word in words if isinstance(word, str))
