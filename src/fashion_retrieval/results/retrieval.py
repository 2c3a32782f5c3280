"""What encoding and searching return."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fashion_retrieval.errors import FashionRetrievalError, InputError
from fashion_retrieval.results.values import ROUNDING, Attribute, Plain, Scalar, assign, checked_fraction, jsonable


@dataclass(frozen=True, slots=True)
class Failure(Plain):
    """A photo that could not be read.

    Attributes:
        index: Its position among the photos given, from 0.
        source: A short name of the photo.
        error: Why.
    """

    index: int
    source: str
    error: FashionRetrievalError


@dataclass(frozen=True, slots=True, eq=False)
class Encoded:
    """One photo of `FashionModel.encode_iter`.

    Attributes:
        index: Its position among the photos given, from 0.
        embedding: (D,) float32, L2-normalized, or the numbers of another precision that was asked for; or why there is
            none.
        digest: SHA-256 of its file, in hex; of a photo without a file, of its size and pixels. None where the file
            can't be read.
    """

    index: int
    embedding: NDArray[Any] | Failure
    digest: str | None


@dataclass(frozen=True, slots=True, eq=False)
class Reference:
    """An encoded reference photo: `FashionModel.compose` takes it in place of the photo, any number of times.

    Attributes:
        tokens: (1 + k, D) float16 token features, the pooled embedding first.
        fingerprint: Of the encoder that made them; no other can use them.
        source: A short name of the photo, or None.
    """

    tokens: NDArray[np.float16] = field(repr=False)
    fingerprint: str
    source: str | None = None

    def __post_init__(self) -> None:
        try:
            tokens = np.asarray(self.tokens)
        except (ValueError, TypeError):  # rows of different lengths; a tensor of an accelerator
            tokens = np.empty(0, dtype=object)
        remedy = "make it with model.reference"
        if tokens.ndim != 2 or len(tokens) < 1 or tokens.dtype != np.float16:
            got = type(self.tokens).__name__ if tokens.dtype == object else f"{tokens.dtype} {tokens.shape}"
            raise InputError(f"Reference.tokens must be (1 + k, D) float16, got {got}; {remedy}")
        if not np.isfinite(tokens).all() or not tokens[0].any():
            raise InputError(f"Reference.tokens must be finite with a first row that is not 0, got others; {remedy}")
        if not isinstance(self.fingerprint, str) or not self.fingerprint:
            raise InputError(
                f"Reference.fingerprint must be an encoder's fingerprint, got {self.fingerprint!r}; {remedy}"
            )
        assign(self, "tokens", tokens)

    @property
    def embedding(self) -> NDArray[np.float32]:
        """The photo's own embedding, (D,) float32, L2-normalized."""
        pooled = self.tokens[0].astype(np.float32)
        return np.asarray(pooled / np.linalg.norm(pooled), dtype=np.float32)


@dataclass(frozen=True, slots=True, eq=False)
class Explanation(Plain):
    """Where a query of `FashionModel.compose` comes from; as a text it is one line.

    Attributes:
        query: (1, D) float32, L2-normalized: the query itself.
        photo: How much of the photo is in it, in [0, 1]: the share of the query's length that comes from what is kept
            of the photo.
        text: How much of the text is in it; both sum to 1.
        gates: The weights of the image's and of the text's branch, in (0, 1); 1 where the composer has no gates, 0
            where it lacks the branch. None for a photo or a text alone.
        words: The text's words as they stand, each with its share of what they moved the query by. The shares sum to
            1, or are all 0 where no word moves it.
    """

    query: NDArray[np.float32] = field(repr=False)
    photo: float
    text: float
    gates: tuple[float, float] | None
    words: tuple[tuple[str, float], ...]

    def __post_init__(self) -> None:
        for name in ("photo", "text"):
            assign(self, name, checked_fraction(self, name, getattr(self, name)))

    @property
    def mix(self) -> tuple[str, str]:
        """Both shares in words: "photo 38 %" and "text 62 %"."""
        percent = round(100 * self.photo)
        return f"photo {percent} %", f"text {100 - percent} %"

    def to_dict(self) -> dict[str, Any]:
        """JSON-ready dict without the query; numbers are rounded to six decimals."""
        told = {name: jsonable(getattr(self, name)) for name in ("photo", "text", "gates")}
        return told | {"words": [{"word": word, "share": round(share, 6)} for word, share in self.words]}

    def __str__(self) -> str:
        words = (f"{word} {100 * share:.0f} %" for word, share in self.words)
        return " · ".join((" / ".join(self.mix), *words))


@dataclass(frozen=True, slots=True, repr=False)
class Match(Plain):
    """A photo of a gallery and its similarity to the query.

    Attributes:
        id: Its name in the gallery.
        score: Cosine to the query, in [-1, 1].
        photo: The path or URI it was added from, or None.
        fields: Values by field name; None where the gallery has none.
        views: Paths of further photos of the same item, where several were added as one.
    """

    id: str
    score: float
    photo: str | None = None
    fields: dict[str, Scalar | None] = field(default_factory=dict)
    views: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        if not isinstance(self.id, str) or not self.id:
            raise InputError(f"Match.id must be a text that is not empty, got {self.id!r}")
        score = float(self.score)
        if not -1 - ROUNDING <= score <= 1 + ROUNDING:
            raise InputError(f"Match.score must be a cosine in [-1, 1], got {score}")
        for name, value in self.fields.items():
            if value is not None and not isinstance(value, Scalar):
                kinds = "a text, number, bool or None"
                raise InputError(f"Match.fields[{name!r}] must be {kinds}, got {type(value).__name__}")
        assign(self, "score", min(max(score, -1.0), 1.0))
        assign(self, "views", tuple(self.views))

    def to_dict(self) -> dict[str, Any]:
        """JSON-ready dict; numbers are exact, and `views` is left out where there is none."""
        plain = {"id": self.id, "score": self.score, "photo": self.photo, "fields": dict(self.fields)}
        return plain | ({"views": list(self.views)} if self.views else {})

    @property
    def words(self) -> tuple[str, ...]:
        """Its fields in words, without category and color: "long sleeve", "price 20"."""
        known = {n: v for n, v in self.fields.items() if v is not None and n not in ("category", "color")}
        return tuple(Attribute(n, v, 1.0).label if isinstance(v, str) else f"{n} {v}" for n, v in known.items())

    def __repr__(self) -> str:
        known = (f"{name}: {value}" for name, value in self.fields.items() if value is not None)
        return f"Match({' · '.join([f'{self.id} {self.score:.3f}', *known])})"
