"""From photos, or the embeddings in shards, to rows of a gallery: what is new or changed is written in batches."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from contextlib import closing
from dataclasses import replace
from itertools import chain
from typing import TYPE_CHECKING, NamedTuple

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
    from torch import Tensor

    from fashion_retrieval.model import FashionModel

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

    levels: Tensor
    hash: int | None
    pixels: Pixels | None

    @property
    def nbytes(self) -> int:
        """Of the whole photo."""
        return self.pixels.nbytes if self.pixels else 0


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
        self._known: dict[int, tuple[Item, Row | None]] = {}  # by index: photos that the reader has, with their rows
        self._waiting: list[ReadPhoto[_Content]] = []
        self._new: list[Row] = []
        self._changed: list[Row] = []
        self._written = time.monotonic()

    def add(self, items: Iterable[Item], advance: Advance) -> None:
        """Add photos; what is there with the same content is not decoded, and what came before an error is kept."""
        reader = read_photos(
            self._look_up(items),
            self._finish,
            batch_size=min(self._group, _DECODED),
            device=self.model.device,
            skip=self.skip,
            label=lambda index: f"images[{index}]",
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
                self._known[item.index] = item, rows.get(item.id)
                yield item.image

    def _is_wanted(self, index: int, digest: str) -> bool:
        row = self._known[index][1]
        return row is None or row.digest != digest

    def _finish(self, photo: Pixels) -> _Content:
        pixels = photo.upright() if self.taxonomy else None
        levels = self.model.encoder.preprocessing.resize(pixels or photo)
        return _Content(levels, perceptual_hash(levels.numpy()), pixels)

    def _take(self, photo: ReadPhoto[_Content], advance: Advance) -> None:
        item, row = self._known[photo.index]
        if photo.error:
            self.failures.append(Failure(photo.index, describe(photo.image) or item.id, photo.error))
        if photo.content or (photo.error and photo.digest):
            self._waiting.append(photo)
        else:
            advance(failed=bool(photo.error))
            del self._known[photo.index]
            if row and not photo.error:  # of the same content; its path and fields may be others
                same = replace(row, photo=item.photo, fields=row.fields | (item.fields or {}))
                if same.photo == row.photo and same.fields == row.fields:
                    self.unchanged += 1
                else:
                    self._changed.append(same)
        full = len(self._waiting) == _DECODED or sum(one.nbytes for one in self._waiting) >= MOST_BYTES
        if full or (photo.index + 1) % self._group == 0:
            self._encode(advance)

    def _encode(self, advance: Advance) -> None:
        """Make rows of the photos that wait, and write when a batch is full."""
        waiting, self._waiting = self._waiting, []
        contents = [photo.content for photo in waiting if photo.content]
        whole = encode_levels(self.model.encoder, self.model.device, [content.levels for content in contents])
        vectors = iter(self.model.shorten(whole, self.store.settings.embedding_dim))
        fields = iter(self._recognize([content.pixels for content in contents if content.pixels is not None]))
        for photo in waiting:
            item, row = self._known.pop(photo.index)
            if photo.content:
                before = row.fields if row else dict.fromkeys(self.store.settings.fields)
                found = before | next(fields, {}) | (item.fields or {})
                rows = self._changed if row else self._new
                rows.append(Row(item.id, next(vectors), photo.digest or "", item.photo, found, photo.content.hash))
            advance(failed=bool(photo.error))
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
