"""What recognition returns: frozen, validated dataclasses that know how to become JSON, a text or a picture."""

from __future__ import annotations

from dataclasses import dataclass, field, fields
from io import BytesIO
from typing import TYPE_CHECKING, Any, Literal, Protocol, get_args, runtime_checkable

import numpy as np
from numpy.typing import NDArray

from fashion_retrieval.errors import FashionRetrievalError, InputError

if TYPE_CHECKING:
    from PIL import Image

Box = tuple[float, float, float, float]
Mask = NDArray[np.bool_]
Scalar = str | float | int | bool
Status = Literal["visible", "not_applicable", "not_visible"]

_ROUNDING = 1e-5
_NAMED_BY_GROUP = frozenset({"fit", "length", "neckline", "sleeve"})


@dataclass(frozen=True, slots=True)
class _Plain:
    def to_dict(self) -> dict[str, Any]:
        """JSON-ready dict; numbers are rounded to six decimals."""
        return {item.name: _jsonable(getattr(self, item.name)) for item in fields(self)}


@dataclass(frozen=True, slots=True)
class Score(_Plain):
    """A name and how probable it is.

    Attributes:
        name: As the taxonomy calls it.
        probability: In [0, 1].
    """

    name: str
    probability: float

    def __post_init__(self) -> None:
        _set(self, "probability", _fraction(self, "probability", self.probability))


@dataclass(frozen=True, slots=True)
class Color(_Plain):
    """One color of a garment.

    Attributes:
        name: A name of the palette ("blue").
        hex: The color as it is in the photo, "#rrggbb".
        share: Its share of the garment's mask, in [0, 1].
    """

    name: str
    hex: str
    share: float

    def __post_init__(self) -> None:
        digits = self.hex[1:].lower()
        if len(digits) != 6 or self.hex[0] != "#" or not set(digits) <= set("0123456789abcdef"):
            raise InputError(f"Color.hex must be '#rrggbb', got {self.hex!r}")
        _set(self, "share", _fraction(self, "share", self.share))


@dataclass(frozen=True, slots=True)
class Attribute(_Plain):
    """The value of one attribute group for one garment.

    Attributes:
        group: The group ("sleeve").
        value: The most probable value ("long_sleeve"); None unless visible.
        probability: Of the value, or of the status where there is no value; in [0, 1].
        status: "visible", "not_applicable" (a bag has no sleeve) or "not_visible" (hidden, or outside the photo).
        alternatives: The most probable values, best first.
    """

    group: str
    value: str | None
    probability: float
    status: Status = "visible"
    alternatives: tuple[Score, ...] = ()

    def __post_init__(self) -> None:
        if self.status not in get_args(Status):
            raise InputError(f"Attribute.status must be one of {', '.join(get_args(Status))}, got {self.status!r}")
        if (self.value is not None) != (self.status == "visible"):
            got = f"{self.value!r} with {self.status!r} for {self.group!r}"
            raise InputError(f"Attribute.value must be a name exactly when the status is 'visible', got {got}")
        _set(self, "probability", _fraction(self, "probability", self.probability))
        _set(self, "alternatives", tuple(self.alternatives))

    @property
    def label(self) -> str:
        """The value in words: "long sleeve", "v neckline", "neckline not visible"."""
        if self.value is None:
            return f"{self.group} {self.status}".replace("_", " ")
        words = self.value.replace("_", " ")
        return f"{words} {self.group}" if self.group in _NAMED_BY_GROUP and self.group not in words else words


@dataclass(frozen=True, slots=True)
class Region:
    """Where a garment is; what a segmenter returns.

    Attributes:
        box: xyxy in pixels, inside the photo, not empty.
        mask: (H, W) bool, the size of the photo.
        score: The segmenter's confidence, in [0, 1].
        kind: The segmenter's class ("dress"), or None when it does not tell.
    """

    box: Box
    mask: Mask = field(repr=False)
    score: float
    kind: str | None = None

    def __post_init__(self) -> None:
        owner, mask = type(self).__name__, self.mask
        if not isinstance(mask, np.ndarray) or mask.dtype != np.bool_ or mask.ndim != 2:
            got = f"{mask.dtype} {mask.shape}" if isinstance(mask, np.ndarray) else type(mask).__name__
            raise InputError(f"{owner}.mask must be an (H, W) bool array, got {got}")
        height, width = mask.shape
        box = tuple(float(value) for value in self.box)
        if len(box) != 4 or not (0 <= box[0] < box[2] <= width and 0 <= box[1] < box[3] <= height):
            raise InputError(f"{owner}.box must be x1 y1 x2 y2 inside the {width}x{height} photo, got {box}")
        _set(self, "box", box)
        _set(self, "score", _fraction(self, "score", self.score))

    def __eq__(self, other: object) -> bool:
        if type(other) is not type(self):
            return NotImplemented
        names = [item.name for item in fields(self) if item.name != "mask"]
        same = all(getattr(self, name) == getattr(other, name) for name in names)
        return same and np.array_equal(self.mask, other.mask)

    @property
    def area(self) -> float:
        """Share of the photo under the mask, in [0, 1]."""
        return float(self.mask.mean())


@runtime_checkable
class Segmenter(Protocol):
    """Anything that finds garments: `GarmentSegmenter`, `SegmentAnythingSegmenter`, or your own."""

    def segment(self, image: Image.Image, boxes: NDArray[np.float32] | None = None) -> list[Region]:
        """RGB photo -> its garments; with (N, 4) boxes, float32 xyxy in pixels, one region a box."""
        ...


@dataclass(frozen=True, slots=True, eq=False, repr=False, kw_only=True)
class Garment(Region):
    """A region and what it was recognized as.

    Attributes:
        category: The most probable category.
        categories: The `top_k` most probable categories, best first; the first is `category`.
        attributes: Attributes by group name, in the taxonomy's order.
        colors: Largest share first.
    """

    category: Score
    categories: tuple[Score, ...]
    attributes: dict[str, Attribute]
    colors: tuple[Color, ...]

    def __post_init__(self) -> None:
        Region.__post_init__(self)
        _set(self, "categories", tuple(self.categories))
        _set(self, "colors", tuple(self.colors))
        if not self.categories or self.categories[0] != self.category:
            raise InputError(f"Garment.categories must start with the category, {self.category.name!r}")
        _check_falls("Garment.categories", [score.probability for score in self.categories])
        _check_falls("Garment.colors", [color.share for color in self.colors])
        for name, attribute in self.attributes.items():
            if attribute.group != name:
                raise InputError(f"Garment.attributes[{name!r}] must be of that group, got {attribute.group!r}")

    def __str__(self) -> str:
        words = [a.label for a in self.attributes.values() if a.status == "visible"]
        box = " ".join(f"{value:.0f}" for value in self.box)
        return f"{self.title} {self.category.probability:.2f}  [{box}]  {' · '.join(words)}".rstrip()

    def __repr__(self) -> str:
        return f"Garment({self})"

    @property
    def color(self) -> str | None:
        """Name of the largest color, or None."""
        return self.colors[0].name if self.colors else None

    @property
    def title(self) -> str:
        """Color and category in words: "blue shirt dress"."""
        return " ".join(filter(None, (self.color, self.category.name.replace("_", " "))))

    def to_dict(self, masks: bool = False) -> dict[str, Any]:
        """JSON-ready dict; numbers are rounded to six decimals.

        Args:
            masks: Add the mask as COCO's uncompressed RLE: `{"size": [h, w], "counts": [...]}`, column by column,
                beginning with the number of pixels outside.
        """
        names = [item.name for item in fields(self) if item.name != "mask"]
        plain = {name: _jsonable(getattr(self, name)) for name in (*names, "color", "area")}
        return plain | ({"mask": _run_lengths(self.mask)} if masks else {})


@dataclass(frozen=True, slots=True)
class Recognition:
    """What is in one photo.

    Attributes:
        width, height: Of the upright photo, in pixels.
        garments: Possibly none.
        model_id: The model that looked at it.
        source: A short name of the photo (its file name), or None.
        image: The upright RGB photo, for drawing, or None.
    """

    width: int
    height: int
    garments: tuple[Garment, ...]
    model_id: str
    source: str | None = None
    image: Image.Image | None = field(default=None, repr=False, compare=False)

    def __post_init__(self) -> None:
        _set(self, "garments", tuple(self.garments))
        for index, garment in enumerate(self.garments):
            if garment.mask.shape != (self.height, self.width):
                wanted = f"the photo's shape {(self.height, self.width)}"
                raise InputError(f"Recognition.garments[{index}].mask must have {wanted}, got {garment.mask.shape}")
        if self.image is not None and self.image.size != (self.width, self.height):
            raise InputError(f"Recognition.image must be {self.width}x{self.height}, got {self.image.size}")

    def __repr__(self) -> str:
        count = f"{len(self.garments) or 'no'} garment{'' if len(self.garments) == 1 else 's'}"
        lines = [f"{self.source or 'photo'} · {self.width}x{self.height} · {self.model_id} · {count}"]
        lines += [f"{number}. {garment}" for number, garment in enumerate(self.garments, start=1)]
        return "\n".join(lines)

    def to_dict(self, masks: bool = False) -> dict[str, Any]:
        """JSON-ready dict, without the photo; `masks` adds the masks (see `Garment.to_dict`)."""
        plain = {name: getattr(self, name) for name in ("source", "width", "height", "model_id")}
        return plain | {"garments": [garment.to_dict(masks) for garment in self.garments]}

    def draw(self) -> Image.Image:
        """The recognition card: the photo with its outlines beside one block per garment.

        Raises:
            InputError: The result was made without its photo.
        """
        from fashion_retrieval.drawing.card import draw_recognition

        return draw_recognition(self)

    def _repr_png_(self) -> bytes | None:
        if self.image is None:
            return None
        buffer = BytesIO()
        self.draw().save(buffer, format="PNG")
        return buffer.getvalue()


@dataclass(frozen=True, slots=True)
class Failure(_Plain):
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
        embedding: (D,) float32, L2-normalized; or why there is none.
        digest: SHA-256 of its file, in hex; of a photo without a file, of its size and pixels. None where the file
            can't be read.
    """

    index: int
    embedding: NDArray[np.float32] | Failure
    digest: str | None


@dataclass(frozen=True, slots=True, eq=False)
class Reference:
    """An encoded reference photo: `FashionModel.compose` takes it in place of the photo, as often as wished.

    Attributes:
        tokens: (1 + k, D) float16 token features, the pooled embedding first.
        fingerprint: Of the encoder they come from; they are of use to no other.
        source: A short name of the photo, or None.
    """

    tokens: NDArray[np.float16] = field(repr=False)
    fingerprint: str
    source: str | None = None

    def __post_init__(self) -> None:
        if self.tokens.ndim != 2 or len(self.tokens) < 1 or self.tokens.dtype != np.float16:
            got = f"{self.tokens.dtype} {self.tokens.shape}"
            raise InputError(f"Reference.tokens must be (1 + k, D) float16, got {got}; make it with model.reference")

    @property
    def embedding(self) -> NDArray[np.float32]:
        """The photo's own embedding, (D,) float32, L2-normalized."""
        pooled = self.tokens[0].astype(np.float32)
        return np.asarray(pooled / np.linalg.norm(pooled), dtype=np.float32)


@dataclass(frozen=True, slots=True, repr=False)
class Match(_Plain):
    """A photo of a gallery, and how near it is to the query.

    Attributes:
        id: Its name in the gallery.
        score: Cosine to the query, in [-1, 1].
        photo: The path or URI it was added from, or None.
        fields: What the gallery knows of it, by field name; None where it is not known.
    """

    id: str
    score: float
    photo: str | None = None
    fields: dict[str, Scalar | None] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if not isinstance(self.id, str) or not self.id:
            raise InputError(f"Match.id must be a text that is not empty, got {self.id!r}")
        score = float(self.score)
        if not -1 - _ROUNDING <= score <= 1 + _ROUNDING:
            raise InputError(f"Match.score must be a cosine in [-1, 1], got {score}")
        for name, value in self.fields.items():
            if value is not None and not isinstance(value, Scalar):
                kinds = "a text, number, bool or None"
                raise InputError(f"Match.fields[{name!r}] must be {kinds}, got {type(value).__name__}")
        _set(self, "score", min(max(score, -1.0), 1.0))

    @property
    def words(self) -> tuple[str, ...]:
        """What is known of it in words, without category and color: "long sleeve", "price 20"."""
        known = {n: v for n, v in self.fields.items() if v is not None and n not in ("category", "color")}
        return tuple(Attribute(n, v, 1.0).label if isinstance(v, str) else f"{n} {v}" for n, v in known.items())

    def __repr__(self) -> str:
        known = (f"{name}: {value}" for name, value in self.fields.items() if value is not None)
        return f"Match({' · '.join([f'{self.id} {self.score:.3f}', *known])})"


def _set(result: object, name: str, value: object) -> None:
    object.__setattr__(result, name, value)


def _fraction(result: object, name: str, value: float) -> float:
    number = float(value)
    if not -_ROUNDING <= number <= 1 + _ROUNDING:
        raise InputError(f"{type(result).__name__}.{name} must be in [0, 1], got {number}")
    return min(max(number, 0.0), 1.0)


def _check_falls(name: str, numbers: list[float]) -> None:
    if numbers != sorted(numbers, reverse=True):
        raise InputError(f"{name} must be in falling order, got {numbers}")


def _jsonable(value: object) -> object:
    if isinstance(value, float):
        return round(value, 6)
    if isinstance(value, tuple):
        return [_jsonable(item) for item in value]
    if isinstance(value, dict):
        return {name: _jsonable(item) for name, item in value.items()}
    if isinstance(value, _Plain):
        return value.to_dict()
    return str(value) if isinstance(value, Exception) else value


def _run_lengths(mask: Mask) -> dict[str, list[int]]:
    pixels = mask.ravel(order="F")
    changes = np.flatnonzero(pixels[1:] != pixels[:-1]) + 1
    counts = np.diff(np.concatenate(([0], changes, [pixels.size]))).tolist()
    return {"size": list(mask.shape), "counts": ([0] if pixels.size and pixels[0] else []) + counts}
