"""Reference photos and texts -> token features -> composer -> queries."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from fashion_retrieval.errors import InputError, UnsupportedError
from fashion_retrieval.images.inputs import ImageInput, describe
from fashion_retrieval.images.prefetch import read_photos
from fashion_retrieval.results import Explanation, Match, Reference

if TYPE_CHECKING:
    from fashion_retrieval.models.towers import Composes, Levels, Towers

ReferenceInput = ImageInput | Reference | Match
Pair = tuple[ReferenceInput | None, str | None]
"""A reference photo and a text; one of them may be None."""
_ROUNDING = 1e-6
"""1 - cosine, or sine, of embeddings that differ by the rounding of float32 alone."""


def as_pairs(
    references: ReferenceInput | Sequence[ReferenceInput | None] | None, texts: str | Sequence[str | None] | None
) -> list[Pair]:
    """What `FashionModel.compose` is given, checked, as pairs."""
    lists = [value for value in (references, texts) if isinstance(value, list | tuple)]
    if lists and any(value is not None and not isinstance(value, list | tuple) for value in (references, texts)):
        raise InputError("compose expects one photo and one text, or two lists of equal length; got a list beside one")
    count = len(lists[0]) if lists else 1
    given: tuple[Any, Any] = references, texts
    left, right = (list(value) if isinstance(value, list | tuple) else [value] * count for value in given)
    if len(left) != len(right):
        raise InputError(f"compose expects as many photos as texts, got {len(left)} and {len(right)}")
    for index, (reference, text) in enumerate(zip(left, right, strict=True)):
        if text is not None and (not isinstance(text, str) or not text.strip()):
            raise InputError(f"modification_text[{index}] must be a text that is not empty or None, got {text!r}")
        if reference is None and text is None:
            raise InputError(f"compose needs a photo or a text, pair {index} has neither")
    return list(zip(left, right, strict=True))


def check_text_weight(weight: float | None) -> float:
    """A weight in [0, 1]; None is one half, the query as composed."""
    if weight is None:
        return 0.5
    if isinstance(weight, bool) or not isinstance(weight, int | float) or not 0 <= weight <= 1:
        raise InputError(f"text_weight must be a number from 0 (the photo) to 1 (the text) or None, got {weight!r}")
    return float(weight)


@dataclass(frozen=True, slots=True)
class Composition:
    """What makes references and queries: towers and, for queries of a photo and a text, a composer."""

    towers: Towers
    composer: Composes | None

    def references(self, images: Sequence[ReferenceInput], batch_size: int, max_pixels: int | None) -> list[Reference]:
        """One `Reference` an image; a photo that comes more than once is read once."""
        found: dict[object, Reference] = {}
        waiting: dict[object, tuple[ImageInput, int]] = {}  # with its first place
        keys = [_key(image) for image in images]
        for index, (key, image) in enumerate(zip(keys, images, strict=True)):
            if isinstance(image, Reference):
                _check(image, self.towers, f"reference_image[{index}]")
                found[key] = image
            elif not isinstance(image, Match):
                waiting.setdefault(key, (image, index))
            elif image.photo is not None:
                waiting.setdefault(key, (image.photo, index))
            else:
                raise InputError(f"reference_image[{index}], {image.id!r}, has no photo; give the photo itself")
        places = list(waiting.values())
        for batch in read_photos(
            (image for image, _ in places),
            self.towers.preprocessing.resize,
            batch_size=batch_size,
            ahead=self.towers.ahead,
            skip=False,
            label=lambda place: f"reference_image[{places[place][1]}]",
            max_pixels=max_pixels,
        ):
            levels = [(photo.content, describe(photo.image)) for photo in batch if photo.content is not None]
            for photo, made in zip(batch, references_of(self.towers, levels), strict=True):
                found[keys[places[photo.index][1]]] = made
        return [found[key] for key in keys]

    def queries(
        self,
        pairs: Sequence[Pair],
        encode_texts: Callable[[list[str]], NDArray[np.float32]],
        *,
        text_weight: float,
        batch_size: int,
        max_pixels: int | None,
    ) -> NDArray[np.float32]:
        """(N, D) float32, L2-normalized; a photo or a text alone is its own embedding.

        A `text_weight` of 0, 0.5 and 1 is the photo's embedding, the query as composed and the text's embedding;
        between two of them it goes the shortest way over the sphere.
        """
        rows = np.empty((len(pairs), self.towers.embedding_dim), dtype=np.float32)
        shown = {i: photo for i, (photo, _) in enumerate(pairs) if photo is not None}
        encoded = self.references(list(shown.values()), batch_size, max_pixels)
        references = dict(zip(shown, encoded, strict=True))
        for i, reference in references.items():
            rows[i] = reference.embedding
        told = {i: text for i, (photo, text) in enumerate(pairs) if photo is None and text is not None}
        if told:
            rows[list(told)] = encode_texts(list(told.values()))
        both = [(i, text) for i, (_, text) in enumerate(pairs) if text is not None and i in references]
        counts = {i: len(references[i].tokens) for i, _ in both}
        most = max(counts.values(), default=2)
        for i, count in counts.items():
            if count < max(2, most):
                expected = "its local tokens, to be composed with a text"
                raise InputError(f"reference_image[{i}] must have {expected}, got {count} rows; see model.reference")
        both.sort(key=lambda pair: len(pair[1]))
        for start in range(0, len(both), batch_size):
            chosen, texts = zip(*both[start : start + batch_size], strict=True)
            (composed,) = self._compose([references[i] for i in chosen], texts)
            if text_weight < 0.5:
                composed = _between(rows[list(chosen)], composed, 2 * text_weight)
            elif text_weight > 0.5:
                composed = _between(composed, encode_texts(list(texts)), 2 * text_weight - 1)
            rows[list(chosen)] = composed
        return rows

    def explain(
        self,
        photo: ReferenceInput | None,
        text: str | None,
        encode_texts: Callable[[list[str]], NDArray[np.float32]],
        *,
        text_weight: float,
        max_pixels: int | None,
    ) -> Explanation:
        """See `FashionModel.explain`."""
        reference = None if photo is None else self.references([photo], 1, max_pixels)[0]
        words = (text or "").split()
        read = range(min(len(words), self.towers.context_length))
        others = [" ".join((*words[:place], *words[place + 1 :])) or None for place in read]
        pairs: list[Pair] = [(reference, text), *((reference, other) for other in others if reference or other)]
        how: dict[str, Any] = {"text_weight": text_weight, "batch_size": len(pairs), "max_pixels": max_pixels}
        rows = self.queries(pairs, encode_texts, **how)
        moved = np.zeros(len(words))
        moved[: len(others)] = 1 - rows[1:] @ rows[0] if len(rows) > 1 else 1  # nothing is left without its only word
        moved[moved < _ROUNDING] = 0
        shares = tuple(zip(words, (moved / (moved.sum() or 1)).tolist(), strict=True))
        if reference is None or text is None:
            return Explanation(rows[:1], float(text is None), float(reference is None), None, shares)
        kept, changed, (gates,) = self._compose([reference], [text], parts=True)
        length = np.linalg.norm(kept + changed)
        own, composed = _arc(reference.embedding[None], (kept + changed) / length, min(2 * text_weight, 1))
        if text_weight > 0.5:
            own, composed = np.zeros(1), _arc((kept + changed) / length, encode_texts([text]), 2 * text_weight - 1)[0]
        of_photo = ((own * reference.embedding + composed * kept / length) @ rows[0]).item()
        share = min(max(of_photo, 0.0), 1.0)
        return Explanation(rows[:1], share, 1 - share, (float(gates[0]), float(gates[1])), shares)

    def _compose(
        self, references: Sequence[Reference], texts: Sequence[str], *, parts: bool = False
    ) -> Sequence[NDArray[np.float32]]:
        """The queries, (N, D) float32, or the parts that they are the sums of."""
        if self.composer is None:
            raise UnsupportedError(
                "this model has no composer, so it can't join a photo and a text into one query; "
                "use 'compact', or encode(images=…) and encode(texts=…) for the two separately"
            )
        image = np.stack([reference.tokens for reference in references]).astype(np.float32)
        tokens = (image, *self.towers.text_tokens(texts))
        return self.composer.parts(*tokens) if parts else [self.composer(*tokens)]


def references_of(towers: Towers, photos: Sequence[tuple[Levels, str | None]]) -> list[Reference]:
    """References of photos as `Preprocessing.resize` leaves them, (h, w, 3) uint8 each, with their names."""
    rows = towers.image_tokens([levels for levels, _ in photos]).astype(np.float16)
    return [Reference(row, towers.fingerprint, name) for row, (_, name) in zip(rows, photos, strict=True)]


def _between(start: NDArray[np.float32], end: NDArray[np.float32], share: float) -> NDArray[np.float32]:
    """The points at this share of the shortest way from rows to rows over the sphere, all (N, D), L2-normalized."""
    of_start, of_end = _arc(start, end, share)
    return np.asarray(of_start * start + of_end * end, dtype=np.float32)


def _arc(
    start: NDArray[np.float32], end: NDArray[np.float32], share: float
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """How much of start and end is in those points, (N, 1) each."""
    angle = np.arccos(np.clip((start.astype(float) * end).sum(axis=1, keepdims=True), -1, 1))
    sine = np.sin(angle)
    bent = sine > _ROUNDING  # else they are the same point, and there is no way between them
    sine[~bent] = 1
    of_start, of_end = (np.where(bent, np.sin(part * angle) / sine, part) for part in (1 - share, share))
    return of_start, of_end


def _key(image: ReferenceInput) -> object:
    if isinstance(image, Match):
        return image.photo
    return str(image) if isinstance(image, str) or hasattr(image, "__fspath__") else id(image)


def _check(reference: Reference, towers: Towers, name: str) -> None:
    if reference.fingerprint != towers.fingerprint:
        expected, got = towers.fingerprint[:12], reference.fingerprint[:12]
        raise InputError(f"{name} must be encoded by this model ({expected}…), it is by {got}…; encode it again")
    if (width := reference.tokens.shape[1]) != towers.embedding_dim:
        expected = f"tokens of width {towers.embedding_dim}"
        raise InputError(f"{name} must have {expected}, got {width}; make it with model.reference")
