"""What a gallery asks of the engine that keeps its rows, and what every engine shares."""

from __future__ import annotations

import json
from collections.abc import Collection, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, fields
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from fashion_retrieval.errors import FashionRetrievalError, GalleryError
from fashion_retrieval.gallery.filters import Condition, Scalar

SCHEMA_VERSION = 1
MOST_ROWS = 16_384
"""The most rows a search may ask for; Milvus's limit."""
TYPES: dict[str, type] = {"str": str, "int": int, "float": float, "bool": bool}


@dataclass(frozen=True, slots=True)
class Row:
    """A photo as the engine keeps it.

    Attributes:
        id: Unique in the gallery.
        vector: L2-normalized (D,) float32.
        digest: SHA-256 of the photo's content, in hexadecimal.
        photo: The path or URI it was added from, or None.
        fields: A value of the field's type, or None, for each field of the gallery.
    """

    id: str
    vector: NDArray[np.float32]
    digest: str
    photo: str | None
    fields: dict[str, Scalar | None]


@dataclass(frozen=True, slots=True)
class Settings:
    """What a gallery remembers of itself, kept inside the engine.

    Attributes:
        model_id, fingerprint, embedding_dim: Of the model whose embeddings it holds.
        taxonomy: The vocabulary its photos are recognized with; None where they are not.
        fields: The name of the type ("str", "int", "float", "bool") by field, in order.
        schema_version: Of this layout.
    """

    model_id: str
    fingerprint: str
    embedding_dim: int
    taxonomy: dict[str, Any] | None
    fields: dict[str, str]
    schema_version: int = SCHEMA_VERSION

    @property
    def types(self) -> dict[str, type]:
        """The type by field."""
        return {name: TYPES[kind] for name, kind in self.fields.items()}

    @property
    def columns(self) -> dict[str, str]:
        """The engine's column by field: numbered, so that a field may have any name."""
        return {name: f"f{number}" for number, name in enumerate(self.fields)}

    def to_json(self) -> str:
        """One line of JSON."""
        return json.dumps({"fashion_retrieval_gallery": asdict(self)}, ensure_ascii=False)

    @classmethod
    def from_json(cls, text: str | bytes, uri: str) -> Settings:
        """What `to_json` wrote.

        Raises:
            GalleryError: It is none of ours, or of a newer version.
        """
        try:
            data = json.loads(text)["fashion_retrieval_gallery"]
            version = data["schema_version"]
        except (ValueError, KeyError, TypeError) as error:
            raise GalleryError(f"{uri} holds data that is no gallery; choose another folder or collection") from error
        if version != SCHEMA_VERSION:
            remedy = "upgrade fashion-retrieval, or build the gallery anew"
            raise GalleryError(f"gallery {uri} must have schema version {SCHEMA_VERSION}, got {version}; {remedy}")
        try:
            return cls(**{item.name: data[item.name] for item in fields(cls)})
        except KeyError as error:
            raise GalleryError(f"gallery {uri} lacks {error} in its settings; build it anew") from error


class Engine(Protocol):
    """Rows by id, and the nearest of them to a vector. Every call sees all that was written through this object."""

    name: str
    uri: str
    settings: Settings

    def write(self, rows: Sequence[Row]) -> None:
        """Insert the rows, or replace those of the same id; all or none."""
        ...

    def read(self, ids: Collection[str]) -> dict[str, Row]:
        """The rows of these ids that are there."""
        ...

    def nearest(self, query: NDArray[np.float32], limit: int, where: Condition | None) -> list[Row]:
        """The rows nearest by cosine, in no order: exact with a filter or without an index.

        Args:
            query: L2-normalized (D,) float32.
            limit: From 1 to `MOST_ROWS`.
            where: Which rows count.
        """
        ...

    def remove(self, ids: Collection[str]) -> int:
        """Remove these rows; returns how many were there."""
        ...

    def count(self) -> int:
        """How many rows there are."""
        ...

    def settle(self) -> None:
        """Wait, after much writing, until searches are as exact as they will be."""
        ...

    def optimize(self) -> None:
        """Tidy up, and build or refresh the indices that the size asks for."""
        ...

    def indexed(self) -> bool:
        """Whether searches without a filter use an approximate index."""
        ...

    def close(self) -> None:
        """Give the connection back."""
        ...


@contextmanager
def telling(uri: str, doing: str) -> Iterator[None]:
    """Any error of an engine's library becomes a `GalleryError` of one line."""
    try:
        yield
    except (FashionRetrievalError, KeyboardInterrupt):
        raise
    except Exception as error:  # the libraries behind raise nearly anything
        reason = " ".join(str(getattr(error, "message", error)).split())[:200] or type(error).__name__
        raise GalleryError(f"gallery {uri} could not be {doing}: {reason}; check that it is reachable") from error


def missing(uri: str) -> GalleryError:
    """The error for a gallery that is not there."""
    return GalleryError(f"there is no gallery at {uri}; make one with Gallery.create, or check the path")


def in_the_way(uri: str) -> GalleryError:
    """The error for a gallery that is there already."""
    return GalleryError(f"there is already a gallery at {uri}; open it with Gallery.open, or pass exist_ok=True")


def batches(ids: Collection[str], size: int = 1_000) -> Iterator[list[str]]:
    """The ids, distinct, in lists of at most `size`."""
    distinct = list(dict.fromkeys(ids))
    for start in range(0, len(distinct), size):
        yield distinct[start : start + size]
