"""One visitor of the page: a photo, the garment picked from it, and the turns of a search."""

from __future__ import annotations

from collections.abc import Mapping
from concurrent.futures import Future
from dataclasses import dataclass, field
from typing import TypeVar

from PIL import Image

from fashion_retrieval.errors import ImageError, InputError
from fashion_retrieval.gallery.gallery import Gallery
from fashion_retrieval.gallery.refinement import Refinement, Turn
from fashion_retrieval.images.load import decode
from fashion_retrieval.images.regions import crop_region
from fashion_retrieval.results import Match, Recognition
from fashion_retrieval.serve.engine import BusyError, Engine
from fashion_retrieval.serve.page.pictures import jpeg

Result = TypeVar("Result")

TOP_K = 12
_PICTURE, _CROP = 900, 640
"""The longest side of the photo as it is shown, and of a garment as it becomes a query, in pixels."""
_PATIENCE = 60.0


@dataclass(frozen=True, slots=True)
class Photo:
    """A recognized photo: as it is shown, and each garment's crop, JPEG files."""

    recognition: Recognition
    picture: bytes
    crops: tuple[bytes, ...]


@dataclass(eq=False, slots=True)
class Visit:
    """What one visitor does; each method is one action and raises the library's errors.

    Attributes:
        engine: Computes.
        galleries: By name.
        gallery: The name of the one that is searched.
        where: Its filter, or None.
        text_weight: From 0, the reference alone, to 1, the wishes alone; as in `FashionModel.compose`.
        photo: The visitor's photo, or None.
        picked: Which of its garments is the first turn's reference, or None.
        search: The turns, or None before the first.
    """

    engine: Engine
    galleries: Mapping[str, Gallery]
    gallery: str = ""
    where: str | None = None
    text_weight: float = 0.5
    photo: Photo | None = None
    picked: int | None = None
    search: Refinement | None = field(default=None, repr=False)

    @property
    def turns(self) -> tuple[Turn, ...]:
        """The turns so far, oldest first."""
        return self.search.history if self.search else ()

    def look(self, content: bytes, name: str) -> None:
        """Recognize a photo's file, and forget the search."""
        recognition = self._wait(self.engine.recognize(content, name))
        pixels = decode(content, name, max_pixels=self.engine.max_pixels).srgb()
        crops = [Image.fromarray(crop_region(pixels, garment.box)) for garment in recognition.garments]
        picture = jpeg(Image.fromarray(pixels), _PICTURE)
        self.photo = Photo(recognition, picture, tuple(jpeg(crop, _CROP, 95) for crop in crops))
        self.picked = self.search = None

    def pick(self, index: int) -> None:
        """Search with a garment of the photo."""
        if self.photo is None or not 0 <= index < len(self.photo.crops):
            raise InputError("this photo is no longer here; choose it again")
        self._start(self.photo.crops[index])
        self.picked = index

    def wish(self, text: str) -> None:
        """Search with words; after other turns, they change what came before."""
        if not text.strip():
            raise InputError("a wish must not be empty; write what you look for, such as: a red dress")
        if self.search is None:
            self._start(text=text)
        else:
            self._ask(self.search, text)

    def press(self, name: str) -> None:
        """Go on with a photo of the gallery or, before the first turn, with a suggested wish."""
        if self.search is None:
            self.wish(name)
        else:
            self.like(name)

    def like(self, name: str) -> None:
        """Go on with a photo of the gallery."""
        shown = {match.id: match for turn in self.turns for match in turn.matches}
        if self.search is None or name not in shown:
            raise InputError("this result is no longer here; search again")
        self._ask(self.search, reference=shown[name])

    def back(self, turns: int) -> None:
        """Go back until only so many turns are left."""
        search = self.search
        if search is None or not 0 <= turns <= len(search.history):
            raise InputError("this turn is no longer here; search again")
        if not turns:
            self.picked = self.search = None
            return
        search.history = search.history[:turns]
        if search.history[-1].where != self.where:
            self.again()

    def again(self) -> None:
        """Ask the last turn again, with the filter and the weight as they are now."""
        search = self.search
        if search is None:
            return
        history = search.history
        earlier = history[-2].wishes if len(history) > 1 else ()
        wishes = history[-1].wishes
        text = wishes[-1] if wishes and wishes != earlier else None
        search.history = history[:-1]
        try:
            self._ask(search, text, history[-1].reference)  # type: ignore[arg-type]
        except BaseException:  # the turn that was there stays, whatever happened
            search.history = history
            raise

    def choose(self, gallery: str) -> None:
        """Search another gallery, with the garment that was picked and the wishes that hold.

        What was wished of a photo of this gallery says little in another, and is left out.
        """
        turn = self.turns[-1] if self.turns else None
        picked, self.gallery, self.picked, self.search = self.picked, gallery, None, None
        if picked is not None:
            self.pick(picked)
        for wish in turn.wishes if turn and not isinstance(turn.reference, Match) else ():
            self.wish(wish)

    def _start(self, reference: bytes | None = None, text: str | None = None) -> None:
        gallery = self.galleries.get(self.gallery)
        if gallery is None:
            raise InputError(f"there is no gallery {self.gallery!r:.80}; choose one of: {', '.join(self.galleries)}")
        search = Refinement(self.engine.model, gallery, max_pixels=self.engine.max_pixels)
        self._ask(search, text, reference)
        self.picked, self.search = None, search

    def _ask(self, search: Refinement, text: str | None = None, reference: Match | bytes | None = None) -> None:
        where, weight = self.where, self.text_weight

        def ask() -> None:
            search.ask(text, reference, top_k=TOP_K, where=where, text_weight=weight)

        try:
            self._wait(self.engine.run(ask))
        except ImageError as error:  # its message names a file of the server
            given = reference or (search.history[-1].reference if search.history else None)
            if not isinstance(given, Match):
                raise
            raise ImageError(f"the photo of {given.id!r:.80} can't be read any more; choose another") from error

    def _wait(self, future: Future[Result]) -> Result:
        try:
            return future.result(_PATIENCE)
        except TimeoutError as error:
            future.cancel()
            raise BusyError("busy, try again in a moment") from error
