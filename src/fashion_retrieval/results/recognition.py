"""What is in a photo: regions, garments, recognitions."""

from __future__ import annotations

import os
import zlib
from dataclasses import dataclass, field, fields
from io import BytesIO
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol, Self, runtime_checkable

import numpy as np
from numpy.typing import NDArray

from fashion_retrieval._utils.deprecation import accept_old_keywords, renamed_attribute
from fashion_retrieval.errors import InputError
from fashion_retrieval.images.inputs import called
from fashion_retrieval.images.load import MAX_PIXELS, load_image
from fashion_retrieval.images.pixels import Pixels
from fashion_retrieval.results.masks import run_lengths
from fashion_retrieval.results.values import Attribute, Box, Color, Mask, Score, assign, checked_fraction, jsonable

if TYPE_CHECKING:
    from PIL import Image


@dataclass(frozen=True, slots=True)
class Region:
    """Where a garment is: what a segmenter returns.

    Attributes:
        box: xyxy in pixels, inside the photo, not empty.
        mask: (H, W) bool, the size of the photo.
        score: The segmenter's confidence, in [0, 1].
        kind: The segmenter's class label ("dress"), or None.
    """

    box: Box
    mask: Mask = field(repr=False)
    score: float
    kind: str | None = None
    _packed: tuple[int, int, bytes] | None = field(default=None, init=False, repr=False)

    def __post_init__(self) -> None:
        owner, mask = type(self).__name__, self.mask
        if not isinstance(mask, np.ndarray) or mask.dtype != np.bool_ or mask.ndim != 2:
            got = f"{mask.dtype} {mask.shape}" if isinstance(mask, np.ndarray) else type(mask).__name__
            raise InputError(f"{owner}.mask must be an (H, W) bool array, got {got}")
        height, width = mask.shape
        box = tuple(float(value) for value in self.box)
        if len(box) != 4 or not (0 <= box[0] < box[2] <= width and 0 <= box[1] < box[3] <= height):
            raise InputError(f"{owner}.box must be x1 y1 x2 y2 inside the {width}x{height} photo, got {box}")
        assign(self, "box", box)
        assign(self, "score", checked_fraction(self, "score", self.score))

    def __eq__(self, other: object) -> bool:
        if type(other) is not type(self):
            return NotImplemented
        names = [item.name for item in fields(self) if item.name not in ("mask", "_packed")]
        same = all(getattr(self, name) == getattr(other, name) for name in names)
        return same and np.array_equal(self.mask, other.mask)

    if not TYPE_CHECKING:

        def __getattr__(self, name: str) -> Mask:
            # Called only where an attribute has no value: for the mask of a region that was compressed.
            if name != "mask" or self._packed is None:
                raise AttributeError(f"{type(self).__name__!r} object has no attribute {name!r}")
            height, width, bits = self._packed
            flat = np.unpackbits(np.frombuffer(zlib.decompress(bits), np.uint8), count=height * width)
            return flat.view(np.bool_).reshape(height, width)

    def __getstate__(self) -> dict[str, Any]:
        names = [item.name for item in fields(self) if item.name != "mask" or not self._packed]
        return {name: getattr(self, name) for name in names}

    def __setstate__(self, state: dict[str, Any]) -> None:
        for name, value in state.items():
            assign(self, name, value)

    @property
    def area(self) -> float:
        """Fraction of the photo under the mask, in [0, 1]."""
        return float(self.mask.mean())

    @property
    def _shape(self) -> tuple[int, ...]:
        return self._packed[:2] if self._packed else self.mask.shape

    def _compressed(self) -> Self:
        """An equal region whose mask takes some kilobytes, and is decompressed each time it is asked for."""
        if self._packed:
            return self
        small = object.__new__(type(self))
        for item in fields(self):
            if item.name not in ("mask", "_packed"):
                assign(small, item.name, getattr(self, item.name))
        assign(small, "_packed", (*self.mask.shape, zlib.compress(np.packbits(self.mask).tobytes(), 1)))
        return small


@runtime_checkable
class Segmenter(Protocol):
    """A segmenter: `GarmentSegmenter`, `SegmentAnythingSegmenter`, or your own."""

    def segment(self, image: Image.Image, boxes: NDArray[np.float32] | None = None) -> list[Region]:
        """Find the garments of an RGB photo.

        Args:
            image: RGB.
            boxes: (N, 4) float32, xyxy in pixels: one region is returned for each.
        """
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

    # Said again, because each dataclass with slots makes its own where it has none.
    __getstate__, __setstate__ = Region.__getstate__, Region.__setstate__
    colour = renamed_attribute("colour", "color")
    colours = renamed_attribute("colours", "colors")

    def __post_init__(self) -> None:
        Region.__post_init__(self)
        assign(self, "categories", tuple(self.categories))
        assign(self, "colors", tuple(self.colors))
        if not self.categories or self.categories[0] != self.category:
            raise InputError(f"Garment.categories must start with the category, {self.category.name!r}")
        _check_descending("Garment.categories", [score.probability for score in self.categories])
        _check_descending("Garment.colors", [color.share for color in self.colors])
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
            masks: Add the mask as COCO's uncompressed RLE: `{"size": [h, w], "counts": [...]}`; runs go down the
                columns, the first counts pixels outside the mask.
        """
        names = [item.name for item in fields(self) if item.name not in ("mask", "_packed")]
        plain: dict[str, Any] = {name: jsonable(getattr(self, name)) for name in (*names, "color", "area")}
        if masks:
            mask = self.mask
            plain["mask"] = {"size": list(mask.shape), "counts": run_lengths(mask)}
        return plain


Garment.__init__ = accept_old_keywords(colours="colors")(Garment.__init__)  # type: ignore[method-assign]


@dataclass(frozen=True, slots=True)
class Recognition:
    """What is in one photo.

    Attributes:
        width, height: Of the upright photo, in pixels.
        garments: In the order of their regions; may be empty.
        model_id: The model that recognized it.
        source: A short name of the photo (its file name), or None.
        image: The upright sRGB photo, or None; made anew each time it is asked for. It takes 3 bytes a pixel of memory,
            and each garment's mask 1 byte a pixel: to collect many results, recognize with `keep_image=False`.
    """

    width: int
    height: int
    garments: tuple[Garment, ...]
    model_id: str
    source: str | None = None
    image: Image.Image | None = field(default=None, repr=False, compare=False)
    _pixels: Pixels | None = field(default=None, init=False, repr=False, compare=False)
    _path: str | None = field(default=None, repr=False, compare=False)

    if not TYPE_CHECKING:

        def __getattr__(self, name: str) -> Image.Image:
            # Called only where an attribute has no value: for the image of a result that has decoded pixels.
            if name != "image" or self._pixels is None:
                raise AttributeError(f"{type(self).__name__!r} object has no attribute {name!r}")
            return self._pixels.image()

    def __post_init__(self) -> None:
        assign(self, "garments", tuple(self.garments))
        for index, garment in enumerate(self.garments):
            if garment._shape != (self.height, self.width):
                wanted = f"the photo's shape {(self.height, self.width)}"
                raise InputError(f"Recognition.garments[{index}].mask must have {wanted}, got {garment._shape}")
        if self.image is not None and self.image.size != (self.width, self.height):
            raise InputError(f"Recognition.image must be {self.width}x{self.height}, got {self.image.size}")

    def __getstate__(self) -> dict[str, Any]:
        names = [item.name for item in fields(self) if item.name != "image" or not self._pixels]
        return {name: getattr(self, name) for name in names}

    def __setstate__(self, state: dict[str, Any]) -> None:
        for name, value in state.items():
            assign(self, name, value)

    def __repr__(self) -> str:
        count = f"{len(self.garments) or 'no'} garment{'' if len(self.garments) == 1 else 's'}"
        lines = [f"{self.source or 'photo'} · {self.width}x{self.height} · {self.model_id} · {count}"]
        lines += [f"{number}. {garment}" for number, garment in enumerate(self.garments, start=1)]
        return "\n".join(lines)

    def to_dict(self, masks: bool = False) -> dict[str, Any]:
        """JSON-ready dict, without the photo; `masks` adds the masks (see `Garment.to_dict`)."""
        plain = {name: getattr(self, name) for name in ("source", "width", "height", "model_id")}
        return plain | {"garments": [garment.to_dict(masks) for garment in self.garments]}

    def compact(self) -> Recognition:
        """This result without its photo and with compressed masks, which take some kilobytes."""
        garments = tuple(garment._compressed() for garment in self.garments)
        return Recognition(self.width, self.height, garments, self.model_id, self.source, _path=self._path)

    def _of(self, pixels: Pixels, given: object) -> Self:
        """This result with the photo that it is of, upright; it becomes an image when one asks for it."""
        object.__delattr__(self, "image")
        assign(self, "_pixels", pixels)
        path = str(Path(os.fsdecode(given)).absolute()) if isinstance(given, str | os.PathLike) else None
        assign(self, "_path", path)
        return self

    def _photo(self) -> Image.Image:
        """The photo, read again where it was not kept."""
        image = self.image
        if image is None:
            if self._path is None:
                remedy = "recognize it with keep_image=True"
                raise InputError(f"a card needs the photo and this Recognition has no photo; {remedy}")
            image = load_image(self._path, max_pixels=max(self.width * self.height, MAX_PIXELS))
            if image.size != (self.width, self.height):
                raise InputError(f"{called(self._path)} has changed since it was recognized; recognize it again")
        return image

    def draw(self, *, width: int | None = None, font: str | Path | None = None) -> Image.Image:
        """The recognition card: what was found as a title, the photo with its outlines, one block per garment.

        A photo that was not kept is read again from its file.

        Args:
            width: Of the card, in pixels; None is 840. The layout is the same at any width; text is easy to read where
                the card is shown 800 pixels wide or wider.
            font: A TrueType or OpenType file to use first; letters that it lacks come from the bundled fonts, which
                have most living scripts. A letter in none of them is a box. Arabic is joined, and Indic letters are
                put together, where Pillow finds Raqm (`PIL.features.check("raqm")`).

        Returns:
            An RGB image; its height follows from what there is to say.

        Raises:
            InputError: The photo was not kept and has no file, the width is not 320 to 10,000, or the font can't be
                read.
        """
        from fashion_retrieval.drawing.canvas import is_code
        from fashion_retrieval.results.card import draw_card

        named = [] if self.source is None or is_code(self.source) else [self.source]
        facts = (*named, f"{self.width} x {self.height}", self.model_id)
        return draw_card(self._photo(), facts, self.garments, width=width, font=font)

    def _repr_png_(self) -> bytes | None:
        if self._path is None and self._pixels is None and self.image is None:
            return None
        buffer = BytesIO()
        self.draw().save(buffer, format="PNG")
        return buffer.getvalue()


def _check_descending(name: str, numbers: list[float]) -> None:
    if numbers != sorted(numbers, reverse=True):
        raise InputError(f"{name} must be in falling order, got {numbers}")
