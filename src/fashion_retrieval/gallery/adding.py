"""From photos, or the embeddings in shards, to rows of a gallery: what is new or changed is written in batches."""

from __future__ import annotations

import hashlib
import time
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass, field, replace
from itertools import chain
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
from numpy.typing import NDArray

from fashion_retrieval._utils.progress import Advance, progress_bar
from fashion_retrieval.errors import GalleryError, ShardError
from fashion_retrieval.gallery.engines.base import Row, VectorStore, batched
from fashion_retrieval.gallery.filters import Scalar
from fashion_retrieval.gallery.info import AddReport
from fashion_retrieval.gallery.items import Item, garment_fields, recognized_fields
from fashion_retrieval.images.hash import perceptual_hash
from fashion_retrieval.images.inputs import ImageInput, describe
from fashion_retrieval.images.pixels import Pixels
from fashion_retrieval.images.prefetch import MOST_BYTES, ReadPhoto, read_photos
from fashion_retrieval.inference.pipeline import encode_levels
from fashion_retrieval.inference.recognition import Photo, find_photo
from fashion_retrieval.results import Failure
from fashion_retrieval.shards.files import read_shard, read_summary
from fashion_retrieval.shards.filesystem import Folder
from fashion_retrieval.shards.manifest import Manifest, Summary, same_precision
from fashion_retrieval.taxonomy import Taxonomy

if TYPE_CHECKING:
    import pyarrow as pa

    from fashion_retrieval.model import FashionModel
    from fashion_retrieval.models.towers import Levels

_GROUP = 64
"""Photos looked up at a time."""
_DECODED = 16
"""Photos encoded at a time, and read at a time."""
_ROWS = 4_096
"""Rows of a shard written at a time."""
_PATIENCE = 10.0
"""Seconds after which a batch is written though it is not full, so that an interruption costs no more."""


class _Content(NamedTuple):
    """A decoded photo: as the image tower takes it, (h, w, 3) uint8, its hash, and upright, to be recognized."""

    levels: Levels
    hash: int | None
    pixels: Pixels | None

    @property
    def nbytes(self) -> int:
        """Of the whole photo."""
        return self.pixels.nbytes if self.pixels else 0


@dataclass(slots=True)
class _Entry:
    """An item with the row of its id, and its photos as far as the reader is through with them."""

    item: Item
    row: Row | None
    photos: list[ReadPhoto[_Content]] = field(default_factory=list)

    @property
    def failed(self) -> ReadPhoto[_Content] | None:
        """The first photo that can't be read: without it there is no entry."""
        return next((photo for photo in self.photos if photo.error), None)

    @property
    def digest(self) -> str:
        """That of its photo; of several, of their digests in order."""
        digests = [photo.digest or "" for photo in self.photos]
        return digests[0] if len(digests) == 1 else hashlib.sha256("\n".join(digests).encode()).hexdigest()

    @property
    def contents(self) -> list[_Content]:
        """Its photos, decoded; none where one failed."""
        return [] if self.failed else [photo.content for photo in self.photos if photo.content]


class Indexer:
    """Adds photos to a gallery, and counts what became of them.

    With a taxonomy, photos are recognized too. `skip` lists those that can't be read in `failures`; otherwise the first
    one is raised. `batch_size` rows are written at a time. Photos with more than `max_pixels` can't be read.
    """

    def __init__(
        self,
        store: VectorStore,
        model: FashionModel,
        taxonomy: Taxonomy | None,
        *,
        skip: bool,
        batch_size: int,
        max_pixels: int | None,
    ) -> None:
        self.store, self.model, self.taxonomy = store, model, taxonomy
        self.skip, self.batch_size, self.max_pixels = skip, batch_size, max_pixels
        self.added = self.updated = self.unchanged = 0
        self.failures: list[Failure] = []
        self._group = min(batch_size, _GROUP)
        self._known: dict[int, tuple[_Entry, int]] = {}  # by index: photos that the reader has, with their place in it
        self._given = 0
        self._waiting: list[_Entry] = []
        self._new: list[Row] = []
        self._changed: list[Row] = []
        self._written = time.monotonic()

    def add(self, items: Iterable[Item], advance: Advance) -> None:
        """Add photos; what is there with the same content is not decoded, and what came before an error is kept."""
        reader = read_photos(
            self._look_up(items),
            self._finish,
            batch_size=min(self._group, _DECODED),
            ahead=self.model.towers.ahead,
            skip=self.skip,
            label=self._label,
            wanted=self._is_wanted,
            max_pixels=self.max_pixels,
        )
        try:
            with closing(reader):
                for photo in chain.from_iterable(reader):
                    self._take(photo, advance)
        finally:
            try:
                self._encode(advance)
            finally:
                self._write()

    def _look_up(self, items: Iterable[Item]) -> Iterator[ImageInput]:
        empty = self.store.count() == 0
        for group in batched(items, self._group):
            rows = {} if empty else self.store.read([item.id for item in group])
            for item in group:
                entry = _Entry(item, rows.get(item.id))
                for place, image in enumerate(item.images):
                    self._known[self._given] = entry, place
                    self._given += 1
                    yield image

    def _is_wanted(self, index: int, digest: str) -> bool:
        """Whether a photo is decoded; of several all are, as no one of them tells whether the others changed."""
        entry, _ = self._known[index]
        return entry.row is None or len(entry.item.images) > 1 or entry.row.digest != digest

    def _label(self, index: int) -> str:
        entry, place = self._known[index]
        return f"images[{entry.item.index}]" + (f"[{place}]" if len(entry.item.images) > 1 else "")

    def _finish(self, photo: Pixels) -> _Content:
        pixels = photo.upright() if self.taxonomy else None
        levels = self.model.towers.preprocessing.resize(pixels or photo)
        return _Content(levels, perceptual_hash(levels), pixels)

    def _take(self, photo: ReadPhoto[_Content], advance: Advance) -> None:
        entry, place = self._known.pop(photo.index)
        if place and photo.content:  # the first photo alone is recognized
            photo = replace(photo, content=photo.content._replace(pixels=None))
        entry.photos.append(photo)
        if place == len(entry.item.images) - 1:
            self._complete(entry, advance)
        contents = [photo.content for entry in self._waiting for photo in entry.photos]
        full = len(contents) >= _DECODED or sum(one.nbytes for one in contents if one) >= MOST_BYTES
        if full or (photo.index + 1) % self._group == 0:
            self._encode(advance)

    def _complete(self, entry: _Entry, advance: Advance) -> None:
        """An entry whose photos are all read: it waits to be encoded, unless it failed or is there already."""
        item, row, failed = entry.item, entry.row, entry.failed
        if failed and failed.error:
            self.failures.append(Failure(item.index, describe(failed.image) or item.id, failed.error))
        if row and not failed and row.digest == entry.digest:  # its paths and fields may be others
            same = replace(row, photo=item.photo, views=item.views, fields=row.fields | (item.fields or {}))
            if (same.photo, same.views, same.fields) == (row.photo, row.views, row.fields):
                self.unchanged += 1
            else:
                self._changed.append(same)
            advance()
        elif failed and not failed.digest:
            advance(failed=True)
        else:
            self._waiting.append(entry)

    def _encode(self, advance: Advance) -> None:
        """Make rows of the entries that wait, and write when a batch is full."""
        waiting, self._waiting = self._waiting, []
        contents = [entry.contents for entry in waiting]
        levels = [content.levels for several in contents for content in several]
        encoded = iter(encode_levels(self.model.towers, levels))
        means = [_mean([next(encoded) for _ in several]) for several in contents if several]
        whole = np.array(means, np.float32).reshape(-1, self.model.embedding_dim)
        vectors = iter(self.model.shorten(whole, self.store.settings.embedding_dim))
        first = [several[0].pixels for several in contents if several]
        fields = iter(self._recognize([pixels for pixels in first if pixels is not None]))
        for entry, several in zip(waiting, contents, strict=True):
            item, row = entry.item, entry.row
            if several:
                before = row.fields if row else dict.fromkeys(self.store.settings.fields)
                found = before | next(fields, {}) | (item.fields or {})
                rows = self._changed if row else self._new
                rows.append(Row(item.id, next(vectors), entry.digest, item.photo, found, several[0].hash, item.views))
            advance(failed=not several)
        count = len(self._new) + len(self._changed)
        if count >= self.batch_size or (count and time.monotonic() - self._written > _PATIENCE):
            self._write()

    def _recognize(self, photos: Sequence[Pixels]) -> list[dict[str, Scalar | None]]:
        if self.taxonomy is None or not photos:
            return []
        names = recognized_fields(self.taxonomy)
        found = [_main_garment(find_photo(pixels, None, self.model.segmenter)) for pixels in photos]
        recognitions = self.model.recognizer(self.taxonomy).recognize(found, batch_size=len(photos))
        return [dict.fromkeys(names) | garment_fields(recognition) for recognition in recognitions]

    def _write(self) -> None:
        """Write what was added and not written yet, in one piece."""
        new, changed = self._new, self._changed
        self._new, self._changed = [], []
        if new or changed:
            self.store.write([*new, *changed])
        self.added += len(new)
        self.updated += len(changed)
        self._written = time.monotonic()


def _mean(vectors: Sequence[NDArray[np.float32]]) -> NDArray[np.float32]:
    """One embedding of L2-normalized (D,) float32 ones: their mean, L2-normalized."""
    if len(vectors) == 1:
        return vectors[0]
    mean = np.mean(vectors, axis=0, dtype=np.float64)
    return np.asarray(mean / np.linalg.norm(mean), np.float32)


def _main_garment(photo: Photo) -> Photo:
    """The photo with its largest region alone, the only one whose garment gives fields."""
    largest = max(photo.regions, key=lambda region: region.area, default=None)
    return photo if largest is None else replace(photo, regions=[largest])


def add_shards(store: VectorStore, folder: Folder, model: FashionModel, *, progress: bool) -> AddReport:
    """Write all rows of the shards; `Gallery.add_shards` says what is refused."""
    manifest = Manifest.read(folder)
    _check(store, folder, manifest)
    counts: Counter[str] = Counter()
    failures: list[Failure] = []
    with progress_bar("adding", manifest.photos, shown=progress) as advance:
        for index, summary in enumerate(_summaries(folder, manifest)):
            failures += summary.failures
            for batch in read_shard(folder, manifest, index).to_batches(_ROWS):
                counts += _write(store, batch, model)
                advance(len(batch))
            advance(len(summary.failures), failed=len(summary.failures))
    store.wait_until_indexed()
    return AddReport(counts["added"], counts["updated"], counts["unchanged"], tuple(failures))


def _check(store: VectorStore, folder: Folder, manifest: Manifest) -> None:
    kept = store.settings
    if kept.fingerprint != manifest.fingerprint:
        raise GalleryError(
            f"gallery {store.uri} holds embeddings of model {kept.model_id!r} ({kept.fingerprint[:12]}), shards "
            f"{folder.uri} of {manifest.model_id!r} ({manifest.fingerprint[:12]}); encode them with the gallery's model"
        )
    if kept.dtype is not None and not same_precision(kept.dtype, manifest.dtype):
        raise GalleryError(
            f"gallery {store.uri} holds embeddings computed in {kept.dtype}, shards {folder.uri} in {manifest.dtype}; "
            "encode them with the gallery's dtype and backend"
        )
    if kept.taxonomy:
        remedy = "make it with recognize=False, or add the photos themselves"
        raise GalleryError(f"gallery {store.uri} recognizes its photos, and shards hold embeddings alone; {remedy}")


def _summaries(folder: Folder, manifest: Manifest) -> list[Summary]:
    """The summaries of all shards, read before the first is added, so that a gallery never gets a part of them."""
    summaries: list[Summary] = []
    for index in range(manifest.shards):
        summary = read_summary(folder, manifest, index)
        if summary is None:
            remedy = "run the same encode_shards again"
            raise ShardError(f"{folder.uri} lacks {manifest.name(index)}, of {manifest.shards} shards; {remedy}")
        summaries.append(summary)
    return summaries


def _write(store: VectorStore, batch: pa.RecordBatch, model: FashionModel) -> Counter[str]:
    """Write what is new or changed of a batch, and count."""
    whole = batch["embedding"].flatten().to_numpy().reshape(-1, model.embedding_dim)
    vectors = model.shorten(whole, store.settings.embedding_dim)
    ids, *others = (batch[name].to_pylist() for name in ("id", "uri", "digest"))
    known, unset = store.read(ids), dict.fromkeys(store.settings.fields)
    counts: Counter[str] = Counter()
    changed: list[Row] = []
    for id, uri, digest, vector in zip(ids, *others, vectors, strict=True):
        before = known.get(id)
        same = before is not None and (before.digest, before.photo) == (digest, uri)
        counts["unchanged" if same else "updated" if before else "added"] += 1
        if not same:
            changed.append(Row(id, vector, digest, uri, dict(before.fields if before else unset)))
    if changed:
        store.write(changed)
    return counts
