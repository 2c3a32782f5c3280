"""What a gallery asks of the vector store that keeps its rows, and what all stores share."""

from __future__ import annotations

import json
import re
from collections.abc import Collection, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from typing import Any, Literal, Protocol, Self, TypeVar

import numpy as np
from numpy.typing import NDArray
from pydantic import with_config

from fashion_retrieval._utils.deprecation import with_color_placeholder
from fashion_retrieval._utils.validation import STRICT, validate
from fashion_retrieval.errors import FashionRetrievalError, GalleryError
from fashion_retrieval.gallery.filters import Filter, Scalar

T = TypeVar("T")
SCHEMA_VERSION = 2
"""Since version 2 rows keep `hash` and `views`."""
MAX_ROWS = 16_384
"""The most rows a search may ask for; a limit of Milvus."""
BATCH = 1_000
"""Rows that are looked up, removed or walked through at a time."""
PRECISIONS = ("float32", "float16", "int8")
TYPES: dict[str, type] = {"str": str, "int": int, "float": float, "bool": bool}
_LONGEST_REASON = 600
_LOCATION = re.compile(r", location: Location \{[^}]*\}, backtrace: \w+")
"""Where in LanceDB's source an error arose."""
RENAMED_FIELDS = {"colour": "color"}
"""Old names of fields that recognition gives, each with its current name."""


@dataclass(frozen=True, slots=True)
class Row:
    """An image as the vector store keeps it: with an L2-normalized (D,) float32 and the SHA-256 of its content.

    `photo` is the path or URI it was added from, or None; every field of the gallery has a value of its type or None.
    `hash` is the perceptual hash of its pixels, 64 bits as a signed number, None where no pixels were seen. `views` are
    the paths of further photos of the same item, whose embeddings are part of the vector. Galleries of schema version 1
    keep neither.
    """

    id: str
    vector: NDArray[np.float32]
    digest: str
    photo: str | None
    fields: dict[str, Scalar | None]
    hash: int | None = None
    views: tuple[str, ...] = ()


@with_config(STRICT)
@dataclass(frozen=True, slots=True)
class Settings:
    """What a gallery remembers of itself, kept inside the vector store.

    `model_id` is the model to load for it, a folder by its absolute path, and `fingerprint` the SHA-256 of its encoder.
    `fields` has the name of the type by field, in order. `taxonomy` is None where images are not recognized. `dtype`,
    as `precision` tells it, and `revision` are None in galleries that did not keep them. `probes` has the digest of the
    model's probe by group of the taxonomy, None for none. `precision` is that of the numbers of a stored vector.
    `basis` has the digest of the model's basis where the gallery has fewer dimensions than the model, else None.
    `composer` is the SHA-256 of the weights of the model's composer, None where it has none or the gallery did not keep
    it.
    """

    model_id: str
    fingerprint: str
    embedding_dim: int
    taxonomy: dict[str, Any] | None
    fields: dict[str, str]
    dtype: str | None = None
    revision: str | None = None
    probes: dict[str, str] | None = None
    precision: Literal["float32", "float16", "int8"] = "float32"
    basis: str | None = None
    schema_version: int = SCHEMA_VERSION
    composer: str | None = None

    @property
    def types(self) -> dict[str, type]:
        """The type by field."""
        return {name: TYPES[kind] for name, kind in self.fields.items()}

    @property
    def columns(self) -> dict[str, str]:
        """The store's column by field: numbered, so that a field may have any name."""
        return {name: f"f{number}" for number, name in enumerate(self.fields)}

    @property
    def keeps_views(self) -> bool:
        """Whether rows keep `hash` and `views`."""
        return self.schema_version >= 2

    @property
    def renamed(self) -> dict[str, str]:
        """The renamed fields of this gallery: the current name by old name."""
        return RENAMED_FIELDS if self.taxonomy and not RENAMED_FIELDS.keys() & self.fields.keys() else {}

    def to_json(self) -> str:
        """One line of JSON."""
        plain = {"probes": None, "precision": "float32", "basis": None, "composer": None}  # unknown to earlier releases
        kept = {name: value for name, value in asdict(self).items() if value != plain.get(name, ...)}
        return json.dumps({"fashion_retrieval_gallery": kept}, ensure_ascii=False)

    @classmethod
    def from_json(cls, text: str | bytes, uri: str) -> Settings:
        """Read what `to_json` wrote, in this release or an earlier one; a `GalleryError` says what else it is."""
        try:
            data = json.loads(text)["fashion_retrieval_gallery"]
            version = data["schema_version"]
        except (ValueError, KeyError, TypeError) as error:
            raise GalleryError(f"{uri} holds data that is no gallery; choose another folder or collection") from error
        if version not in range(1, SCHEMA_VERSION + 1):
            remedy = "upgrade fashion-retrieval, or build the gallery anew"
            raise GalleryError(f"gallery {uri} must have schema version 1 to {SCHEMA_VERSION}, got {version}; {remedy}")
        types = data.get("fields", {})
        if data.get("taxonomy") and "colour" in types and "color" not in types:  # from before release 0.2
            data["fields"] = {RENAMED_FIELDS.get(name, name): kind for name, kind in types.items()}
            data["taxonomy"] = with_color_placeholder(data["taxonomy"])
        return validate(cls, data, f"gallery {uri} in its settings", GalleryError)


class VectorStore(Protocol):
    """Rows by id, and the nearest of them to a vector. Every call sees all that was written through this object."""

    name: str
    uri: str
    settings: Settings

    def write(self, rows: Sequence[Row]) -> None:
        """Insert the rows, or replace those of the same id; all or none."""

    def read(self, ids: Collection[str]) -> dict[str, Row]:
        """The rows of these ids, as far as they exist."""

    def scan(self) -> Iterator[list[Row]]:
        """All rows, in batches of at most `BATCH`, in no order; rows written meanwhile may or may not be among them."""

    def nearest(self, query: NDArray[np.float32], limit: int, where: Filter | None) -> list[Row]:
        """The `limit` rows, at most `MAX_ROWS`, nearest by cosine to an L2-normalized (D,) float32, in no order.

        It is exact with a filter or without an index.
        """

    def remove(self, ids: Collection[str]) -> int:
        """Remove these rows; returns how many existed."""

    def count(self) -> int:
        """How many rows there are."""

    def wait_until_indexed(self) -> None:
        """Wait, after much writing, until the index covers all written rows."""

    def optimize(self) -> None:
        """Compact the data, and build or refresh the indices that the size asks for."""

    def indexed(self) -> bool:
        """Whether searches without a filter use an approximate index."""

    def staged(self, settings: Settings) -> Self:
        """What is to replace this store: empty, or as an interruption left it. Until then this one goes on."""

    def version(self) -> int:
        """What rises with every write, also of others; always 0 where a store can't tell."""

    def adopt(self, staged: Self, version: int) -> bool:
        """Be what was staged, at once: its rows and settings. Other objects of this store then raise `migrated`.

        False, with nothing changed, where there were writes since this version.

        An interruption leaves the old rows or the new.
        """

    def unstage(self) -> None:
        """Remove what was staged."""

    def close(self) -> None:
        """Close the connection."""


@contextmanager
def translate_errors(uri: str, done: str) -> Iterator[None]:
    """Turn any error of a store's library into a `GalleryError` of one line; `done` is what could not be done."""
    try:
        yield
    except FashionRetrievalError:
        raise
    except Exception as error:  # the libraries raise nearly anything
        reason = _LOCATION.sub("", " ".join(str(getattr(error, "message", error)).split())) or type(error).__name__
        if len(reason) > _LONGEST_REASON:  # what went wrong stands first or last
            reason = f"{reason[: _LONGEST_REASON // 3]} … {reason[-2 * _LONGEST_REASON // 3 :]}"
        raise GalleryError(f"gallery {uri} could not be {done}: {reason}; check that it is reachable") from error


def not_found(uri: str) -> GalleryError:
    """The error for a gallery that does not exist."""
    remedy = "check the path, or make one with Gallery.create or `fashion-retrieval index`"
    return GalleryError(f"there is no gallery at {uri}; {remedy}")


def already_exists(uri: str) -> GalleryError:
    """The error for a gallery that exists already."""
    return GalleryError(f"there is already a gallery at {uri}; open it with Gallery.open, or pass exist_ok=True")


def migrated(uri: str, kept: str | bytes) -> GalleryError:
    """The error for a gallery that has other settings than when it was opened."""
    return GalleryError(
        f"gallery {uri} was migrated; open it again with model {Settings.from_json(kept, uri).model_id!r}"
    )


def batched(items: Iterable[T], size: int = BATCH) -> Iterator[list[T]]:
    """The items in lists of `size`; where they end in an error, those that came before are given first."""
    batch: list[T] = []
    try:
        for item in items:
            batch.append(item)
            if len(batch) == size:
                yield batch
                batch = []
    except Exception:  # whatever the user's iterable raises
        if batch:
            yield batch
        raise
    if batch:
        yield batch
