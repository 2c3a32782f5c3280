"""From photos to rows of a gallery: what is new or changed is decoded and encoded in groups, and written in batches."""

from __future__ import annotations

import hashlib
import os
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO, TypeVar, cast

from PIL import Image

from fashion_retrieval._utils.files import sha256
from fashion_retrieval.errors import FashionRetrievalError, InputError
from fashion_retrieval.gallery.engines.base import Row, VectorStore
from fashion_retrieval.gallery.fields import garment_fields, recognized_fields
from fashion_retrieval.gallery.filters import Scalar
from fashion_retrieval.gallery.items import Item
from fashion_retrieval.images.inputs import ImageInput, describe
from fashion_retrieval.images.load import load_image
from fashion_retrieval.results import Failure, Recognition
from fashion_retrieval.taxonomy import Taxonomy

if TYPE_CHECKING:
    from fashion_retrieval.model import FashionModel

T = TypeVar("T")

GROUP = 64
"""Photos looked up at a time."""
_DECODED = 16
"""Photos held decoded at a time."""
_PATIENCE = 10.0
"""Seconds after which a batch is written though it is not full, so that an interruption costs no more."""


class Adder:
    """Adds groups of photos, and counts what became of them.

    Args:
        engine: Where the rows go.
        model: Encodes the photos and, with a taxonomy, recognizes them.
        taxonomy: What to recognize, or None for nothing.
        skip: List photos that can't be read in `failures`; otherwise the first one is raised.
        batch_size: Rows written at a time.
    """

    def __init__(
        self, engine: VectorStore, model: FashionModel, taxonomy: Taxonomy | None, *, skip: bool, batch_size: int
    ) -> None:
        self.engine = engine
        self.model = model
        self.taxonomy = taxonomy
        self.skip = skip
        self.batch_size = batch_size
        self.added = self.updated = self.unchanged = 0
        self.failures: list[Failure] = []
        self._fatal: Failure | None = None
        self._empty = engine.count() == 0
        self._new: list[Row] = []
        self._changed: list[Row] = []
        self._written = time.monotonic()

    def add(self, group: Sequence[Item], done: Callable[[int], None]) -> None:
        """Encode a group, and write when a batch is full; `done` is told how many photos are through.

        Raises:
            FashionRetrievalError: Without `skip`, of the first photo that can't be read; those before it are kept.
        """
        known = {} if self._empty else self.engine.read([item.id for item in group])
        rows: list[Row] = []
        unchanged = 0
        wanting: list[tuple[Item, ImageInput, str]] = []
        for item in group:
            read = self._attempt(item, _content, item.image)
            if self._fatal:
                break
            if read is None:
                continue
            content, digest = read
            row = known.get(item.id)
            if row is None or row.digest != digest:
                wanting.append((item, content, digest))
            elif (row.photo, row.fields) != (item.photo, row.fields | (item.fields or {})):
                rows.append(replace(row, photo=item.photo, fields=row.fields | (item.fields or {})))
            else:
                unchanged += 1
        done(len(group) - len(wanting))
        for start in range(0, len(wanting), _DECODED):
            some = wanting[start : start + _DECODED]
            rows += self._rows(some, known)
            done(len(some))
            if self._fatal and self._fatal.index <= some[-1][0].index:
                break
        for row in rows:
            (self._changed if row.id in known else self._new).append(row)
        self.unchanged += unchanged
        waiting = len(self._new) + len(self._changed)
        if waiting >= self.batch_size or (waiting and time.monotonic() - self._written > _PATIENCE):
            self.write()
        if self._fatal:
            error = self._fatal.error
            raise type(error)(f"images[{self._fatal.index}]: {error}") from error

    def write(self) -> None:
        """Write what was added and not written yet, in one piece."""
        new, changed = self._new, self._changed
        self._new, self._changed = [], []
        if new or changed:
            self.engine.write([*new, *changed])
        self.added += len(new)
        self.updated += len(changed)
        self._written = time.monotonic()

    def _rows(self, some: Sequence[tuple[Item, ImageInput, str]], known: Mapping[str, Row]) -> list[Row]:
        photos: list[Image.Image] = []
        read: list[tuple[Item, str]] = []
        for item, content, digest in some:
            photo = self._attempt(item, load_image, content)
            if photo is not None:
                photos.append(photo)
                read.append((item, digest))
            elif self._fatal:
                break
        if not photos:
            return []
        vectors = self.model.encode(images=photos, batch_size=len(photos))
        seen = self._recognize(photos)
        empty: dict[str, Scalar | None] = dict.fromkeys(self.engine.settings.fields)
        rows = []
        for (item, digest), vector, found in zip(read, vectors, seen, strict=True):
            before = known[item.id].fields if item.id in known else empty
            rows.append(Row(item.id, vector, digest, item.photo, before | found | (item.fields or {})))
        return rows

    def _recognize(self, photos: list[Image.Image]) -> list[dict[str, Scalar | None]]:
        if self.taxonomy is None:
            return [{} for _ in photos]
        names = recognized_fields(self.taxonomy)
        found = self.model.recognize_many(photos, taxonomy=self.taxonomy, batch_size=len(photos))
        return [dict.fromkeys(names) | garment_fields(result) for result in found if isinstance(result, Recognition)]

    def _attempt(self, item: Item, read: Callable[[ImageInput], T], image: ImageInput) -> T | None:
        try:
            return read(image)
        except FashionRetrievalError as error:
            failure = Failure(item.index, describe(item.image) or item.id, error)
        if self.skip:
            self.failures.append(failure)
        elif self._fatal is None or failure.index < self._fatal.index:
            self._fatal = failure
        return None


def _content(image: ImageInput) -> tuple[ImageInput, str]:
    """The photo, to be decoded later, and the SHA-256 of its file's bytes or, where it has no file, of its pixels."""
    if isinstance(image, str | os.PathLike):
        try:
            return image, sha256(Path(image))
        except (OSError, ValueError):
            return _pixels(image)  # which tells what is wrong with the file
    if isinstance(image, bytes | bytearray | memoryview):
        return image, hashlib.sha256(image).hexdigest()
    if isinstance(image, Image.Image) or not hasattr(image, "read"):
        return _pixels(image)
    stream = cast(BinaryIO, image)
    try:
        if stream.seekable():
            stream.seek(0)
        content = stream.read()
    except (OSError, ValueError) as error:
        raise InputError(f"{describe(image) or 'a file object'} can't be read ({error}); open it again") from error
    return _content(content) if isinstance(content, bytes) else _pixels(image)


def _pixels(image: ImageInput) -> tuple[ImageInput, str]:
    upright = load_image(image)
    return upright, hashlib.sha256(f"{upright.size}".encode() + upright.tobytes()).hexdigest()
