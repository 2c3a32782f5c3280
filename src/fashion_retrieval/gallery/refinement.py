"""A search in several turns: each takes a picked result and a new modification text, and earlier texts stay."""

from __future__ import annotations

import os
from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from fashion_retrieval._utils.checks import check_ids, check_reading
from fashion_retrieval.errors import InputError
from fashion_retrieval.gallery.vocabulary import Part, vocabulary_of
from fashion_retrieval.gallery.wish import Wish, read_wish, remaining
from fashion_retrieval.results import Explanation, Match, Matches, Recognition
from fashion_retrieval.taxonomy import Taxonomy

if TYPE_CHECKING:
    from fashion_retrieval.gallery.gallery import Gallery
    from fashion_retrieval.images.inputs import ImageInput
    from fashion_retrieval.model import FashionModel, TaxonomyInput

ANYTHING = "a photo of clothing"
"""The query of a wish that only says what is not wanted."""
JOINED = " and "
"""Joins the texts of a turn, as FashionIQ's evaluation joins its two captions."""


@dataclass(frozen=True, slots=True)
class Turn:
    """One turn of a refinement.

    Attributes:
        reference: The reference image: a match of the gallery, an image from elsewhere, or None.
        wishes: The modification texts that hold, oldest first; those that the newest contradicts are gone.
        matches: The results, best first.
        where: The filter, or None.
        understood: What was searched for, in one line: "long sleeves, not blue".
        text_weight: From 0, the reference alone, to 1, the wishes alone; as in `FashionModel.compose`.
    """

    reference: Match | ImageInput | None
    wishes: tuple[str, ...]
    matches: Matches = field(repr=False, hash=False)
    where: str | None = None
    understood: str = field(default="", compare=False)
    text_weight: float | None = field(default=None, compare=False)

    @property
    def text(self) -> str | None:
        """The wishes as one text, "red and long sleeves"; None for a query by the reference alone."""
        return JOINED.join(self.wishes) or None


class Refinement:
    """A conversation with a gallery.

    Attributes:
        model: The model that turns images and texts into queries.
        gallery: The gallery that is searched.
        history: The turns so far, oldest first.
        max_pixels: References with more pixels are refused; as in `FashionModel.encode`.

    Args:
        model: The model the gallery was built with.
        gallery: The gallery to search.
        taxonomy: The vocabulary of modification texts and boards; None is the gallery's own or, where it recognizes
            nothing, the model's.
        max_pixels: Refuse references with more pixels; as in `FashionModel.encode`.
    """

    def __init__(
        self,
        model: FashionModel,
        gallery: Gallery,
        *,
        taxonomy: TaxonomyInput = None,
        max_pixels: int | None = None,
    ) -> None:
        check_reading(max_pixels)
        self.model = model
        self.gallery = gallery
        self.max_pixels = max_pixels
        self.history: tuple[Turn, ...] = ()
        self._taxonomy = Taxonomy.load(taxonomy or gallery.taxonomy or model.config.taxonomy)
        self._vocabulary = vocabulary_of(self._taxonomy)

    @classmethod
    def open(
        cls,
        uri: str | Path,
        model_id: str | Path | None = None,
        *,
        revision: str | None = None,
        device: str = "auto",
        dtype: str = "auto",
        backend: str = "auto",
        max_pixels: int | None = None,
    ) -> Refinement:
        """Open a gallery with the model it was built with, at the revision it was built with.

        Args:
            uri: As in `Gallery.open`.
            model_id: What to load instead, the same weights from another place; as in `FashionModel.from_pretrained`.
            revision: What to load instead of the gallery's revision; as in `FashionModel.from_pretrained`.
            device: As in `FashionModel.from_pretrained`.
            dtype: As in `FashionModel.from_pretrained`.
            backend: As in `FashionModel.from_pretrained`.
            max_pixels: Refuse references with more pixels; as in `FashionModel.encode`.

        Raises:
            GalleryError: There is no such gallery, or it is of another model.
            ModelNotFoundError: Its model is not where it was.
        """
        from fashion_retrieval.gallery.gallery import Gallery
        from fashion_retrieval.model import FashionModel

        if model_id is None:
            info = Gallery.peek(uri)
            model_id, revision = info.model_id, revision or info.revision
        model = FashionModel.from_pretrained(model_id, revision=revision, device=device, dtype=dtype, backend=backend)
        return cls(model, Gallery.open(uri, model), max_pixels=max_pixels)

    def __repr__(self) -> str:
        return f"Refinement({len(self.history)} turns, wishes: {JOINED.join(self.wishes) or 'none'})"

    @property
    def wishes(self) -> tuple[str, ...]:
        """The modification texts that hold now."""
        return self.history[-1].wishes if self.history else ()

    @property
    def picked(self) -> tuple[str, ...]:
        """Ids of the gallery that were references so far; they don't come back as results."""
        return tuple(dict.fromkeys(t.reference.id for t in self.history if isinstance(t.reference, Match)))

    def ask(
        self,
        text: str | Sequence[str] | None = None,
        reference: Match | ImageInput | None = None,
        *,
        top_k: int = 10,
        where: str | None = None,
        exclude: Collection[str] = (),
        text_weight: float | None = None,
        offset: int = 0,
        min_score: float | None = None,
        group_by: str | None = None,
        unique: bool = False,
    ) -> Matches:
        """One turn.

        Args:
            text: A new modification text. It is added to the earlier ones, without those that name another color, or
                another value of the same attribute group. What it says is not wanted ("not blue", "without stripes")
                does not go into the query: results that show it come last. Two values at once of which a garment has
                one are searched for as they stand, and `Turn.understood` says so. None keeps the earlier texts; a list
                is several at once, oldest first.
            reference: A result or an id of the gallery, or any image; None keeps that of the turn before.
            top_k: How many results.
            where: A filter, as in `Gallery.search`.
            exclude: Ids to leave out, besides those picked.
            text_weight: As in `FashionModel.compose`.
            offset: As in `Gallery.search`, and so the following.
            min_score: Leave out results of lower scores.
            group_by: Give the best result of each value of a field.
            unique: Leave out near-duplicates.

        Returns:
            The results, best first. A turn that fails leaves the refinement as it was.

        Raises:
            InputError: An empty text, one that wants and refuses the same, an unknown id, an image that can't be read,
                or a first turn with neither.
            UnsupportedError: An image and a text together, and the model has no composer.
        """
        excluded = check_ids("exclude", exclude)
        wishes = self._texts(text)
        start = self._resolved(reference)
        if start is None and not wishes:
            raise InputError("the first turn needs a text or a reference photo, got neither")
        read = [self.read(wish) for wish in wishes]
        wanted = _wanted(read)
        unwanted = [part for wish in read for part in wish.negative]
        query = self._query(start, wanted, text_weight)
        picked = {*self.picked, start.id} if isinstance(start, Match) else self.picked
        asked: dict[str, Any] = {"top_k": top_k, "where": where, "exclude": {*picked, *excluded}, "offset": offset}
        asked |= {"min_score": min_score, "group_by": group_by, "unique": unique}
        found = self._search(query, unwanted, asked)
        notes = (f"{wish.rivals} exclude each other" for wish in read if wish.rivals)
        understood = "; ".join((", ".join(filter(None, (wanted, *map(str, unwanted)))), *notes))
        self.history += (Turn(start, wishes, Matches(found), where, understood, text_weight),)
        return found

    def explain(self) -> Explanation:
        """Why the last turn's query is what it is: `FashionModel.explain` of its reference and of what it wanted.

        Raises:
            InputError: There was no turn yet, or its photo can't be read any more.
        """
        turn = self._last
        text = _wanted(map(self.read, turn.wishes)) or (ANYTHING if turn.reference is None else None)
        how: dict[str, Any] = {"text_weight": turn.text_weight, "max_pixels": self.max_pixels}
        return self.model.explain(turn.reference, text, **how)

    def read(self, text: str) -> Wish:
        """What a text says, by the words of the vocabulary: what is wanted, what is not, and what is left over."""
        return read_wish(text, self._vocabulary)

    def undo(self) -> Turn:
        """Remove the last turn and return it.

        Raises:
            InputError: There is no turn.
        """
        if not self.history:
            raise InputError("there is no turn to take back; ask first")
        *earlier, last = self.history
        self.history = tuple(earlier)
        return last

    def draw(self, *, width: int | None = None, font: str | Path | None = None) -> Image.Image:
        """The retrieval board of the last turn, with at most 200 results.

        Args:
            width: As in `Recognition.draw`.
            font: As in `Recognition.draw`.

        Raises:
            InputError: There was no turn yet, or the width or the font can't be used.
        """
        from fashion_retrieval.gallery.board import draw_board

        return draw_board(width=width, font=font, **self._told())

    def to_html(self) -> str:
        """The retrieval board of the last turn as a page of its own; as `Matches.to_html`.

        Raises:
            InputError: There was no turn yet.
        """
        from fashion_retrieval.gallery.comparison import tell_board
        from fashion_retrieval.results.page import page_of

        return page_of(tell_board(**self._told()))

    def _repr_html_(self) -> str | None:
        from fashion_retrieval.gallery.comparison import tell_board
        from fashion_retrieval.results.page import part_of

        return part_of(tell_board(**self._told())) if self.history else None

    def _told(self) -> dict[str, Any]:
        """What the board of the last turn is of, as `tell_board` takes it."""
        from fashion_retrieval.results.board import MOST

        turn, info = self._last, self.gallery.info
        reference: Match | Recognition | ImageInput | None = turn.reference
        if turn.reference is not None and not isinstance(turn.reference, Match) and "category" in info.fields:
            reference = self.model.recognize(turn.reference, taxonomy=self._taxonomy, max_pixels=self.max_pixels)
        shown = turn.matches[:MOST]
        understood = f"understood: {turn.understood}" if turn.understood != (turn.text or "") else None
        facts = (understood, f"{len(shown)} of {info.count} photos", self.model.model_id, turn.where)
        return {
            "matches": shown,
            "reference": reference,
            "text": turn.text,
            "taxonomy": self._taxonomy,
            "caption": " · ".join(filter(None, facts)),
            "max_pixels": self.max_pixels,
            "explanation": self._explained(),
        }

    @property
    def _last(self) -> Turn:
        if not self.history:
            raise InputError("there is no turn yet; ask first")
        return self.history[-1]

    def _explained(self) -> Explanation | None:
        """The explanation for a board; None without wishes, or where the reference's photo is gone."""
        if not self._last.wishes:
            return None
        try:
            return self.explain()
        except InputError:
            return None

    def _texts(self, text: str | Sequence[str] | None) -> tuple[str, ...]:
        """The earlier texts that still hold, and the new ones."""
        held = self.wishes
        several = text if isinstance(text, list | tuple) else [] if text is None else [text]
        for new in several:
            if not isinstance(new, str) or not new.strip():
                remedy = "leave it out to ask without a new one"
                raise InputError(f"text must be a wish that is not empty, got {new!r}; {remedy}")
            wish = " ".join(new.split())
            if twice := self.read(wish).contradiction:
                raise InputError(f"text asks for {twice} and for no {twice}, got {wish!r:.120}; keep one of the two")
            earlier = (old for old in held if old.casefold() != wish.casefold())
            held = (*filter(None, (remaining(old, wish, self._vocabulary) for old in earlier)), wish)
        return held

    def _resolved(self, reference: Match | ImageInput | None) -> Match | ImageInput | None:
        """The reference of a turn: an id becomes its match, None is the reference of the turn before."""
        if reference is None:
            return self.history[-1].reference if self.history else None
        if isinstance(reference, Match) and reference.id not in self.gallery:
            raise InputError(f"reference {reference.id!r} is not in the gallery; pick one of its results")
        if not isinstance(reference, str):
            return reference
        if reference in self.gallery:
            return self.gallery.get(reference)
        if os.path.isfile(reference):  # noqa: PTH113 (Path.is_file raises for texts that are too long)
            return reference
        raise InputError(
            f"reference {reference!r} is neither an id of the gallery nor a photo file; check its spelling"
        )

    def _search(self, query: NDArray[np.float32], unwanted: Sequence[Part], asked: dict[str, Any]) -> Matches:
        """The results; those that are recognized as something unwanted come after all others."""
        if unwanted:
            negative = self.model.encode(texts=list(dict.fromkeys(part.words for part in unwanted)))
            preferred = " and ".join(filter(None, (self._condition(part) for part in unwanted))) or None
            asked = asked | {"negative": negative, "preferred": preferred}
        return self.gallery._answer(query, asked)

    def _condition(self, part: Part) -> str | None:
        """The filter for photos that are not recognized as this; None where the gallery doesn't know."""
        values = sorted(self._vocabulary.values(part.group, part.value))
        if self.gallery.taxonomy is None or not values or part.group not in self.gallery.info.fields:
            return None
        name = part.group.replace('"', '""')
        listed = ", ".join("'" + value.replace("'", "''") + "'" for value in values)
        return f'("{name}" is null or "{name}" not in ({listed}))'

    def _query(self, start: Match | ImageInput | None, text: str, text_weight: float | None) -> NDArray[np.float32]:
        """(1, D) float32: composed of image and text, or the embedding of either alone."""
        if start is None:
            return self.model.encode(texts=[text or ANYTHING])
        if text:
            return self.model.compose(start, text, text_weight=text_weight, max_pixels=self.max_pixels)
        if not isinstance(start, Match):
            return self.model.encode(images=[start], max_pixels=self.max_pixels)
        if start.photo is None:
            raise InputError(f"reference {start.id!r} was added without a path; give its photo instead")
        return self.model.encode(images=[start.photo], max_pixels=self.max_pixels)


def _wanted(wishes: Iterable[Wish]) -> str:
    """What goes into the query."""
    return JOINED.join(wish.positive for wish in wishes if wish.positive)
