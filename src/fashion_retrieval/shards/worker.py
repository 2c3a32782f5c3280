"""One model at work on shards: photos are read ahead, encoded and written, shard by shard."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from contextlib import closing
from dataclasses import dataclass
from functools import cached_property, partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from fashion_retrieval.errors import ShardError
from fashion_retrieval.images.inputs import DeferredFile
from fashion_retrieval.results import Failure
from fashion_retrieval.shards.files import write_shard
from fashion_retrieval.shards.filesystem import Folder, read_photo
from fashion_retrieval.shards.manifest import Manifest, Shard, Summary, precision

if TYPE_CHECKING:
    from fashion_retrieval.model import FashionModel

_READERS = 16
"""Files read at a time; in an object store each waits for an answer."""
_AHEAD = 3
"""Batches whose files are read ahead of the model."""


Identity = tuple[str, str, int, str]
"""The first fields of a `Manifest`: what a model was loaded as, its fingerprint, embedding_dim and `precision`."""


@dataclass
class ShardWorker:
    """Encodes shards in this process. Its model is loaded when it is first needed, so that it can be sent elsewhere.

    `name` and `loading` are what `FashionModel.from_pretrained` takes, `out` is the folder for the shards, `base` the
    one that relative paths of photos start from. With `skip`, photos that can't be read are listed, not raised.
    """

    name: str
    loading: Mapping[str, Any]
    out: str
    base: str
    batch_size: int
    skip: bool
    max_pixels: int | None = None

    @cached_property
    def model(self) -> FashionModel:
        """The model, loaded once."""
        from fashion_retrieval.model import FashionModel

        return FashionModel.from_pretrained(self.name, **self.loading)

    def identity(self) -> Identity:
        """Which model this is."""
        return self.model.model_id, self.model.fingerprint, self.model.embedding_dim, precision(self.model)

    def encode(self, shard: Shard, manifest: Manifest) -> Summary:
        """Encode the photos of a shard and write it; without `skip`, raise the first one's error that can't be read."""
        from fashion_retrieval.images.prefetch import fetch_ahead  # brings torch, heavy to import

        if self.model.fingerprint != manifest.fingerprint:
            remedy = "keep the same files on every machine, or pass a revision"
            raise ShardError(f"a worker has another model than {manifest.model_id!r}, which it should have; {remedy}")
        if (dtype := precision(self.model)) != manifest.dtype:
            told = f"a worker computes in {dtype}, and the shards are of {manifest.dtype}"
            raise ShardError(f"{told}; pass a dtype that every machine has")
        photos: list[tuple[str, str, str]] = []
        rows = [np.empty((0, self.model.embedding_dim), np.float32)]
        failures: list[Failure] = []
        places = (uri if "://" in uri else str(Path(self.base, uri)) for uri in shard.uris)
        files = (DeferredFile(uri, partial(read_photo, place)) for uri, place in zip(shard.uris, places, strict=True))
        reading: dict[str, Any] = {"batch_size": self.batch_size, "max_pixels": self.max_pixels}
        with (
            fetch_ahead(files, threads=_READERS, ahead=_AHEAD * self.batch_size) as fetched,
            closing(self.model.encode_iter(fetched, on_error="skip", **reading)) as stream,
        ):
            for one, id, uri in zip(stream, shard.ids, shard.uris, strict=True):
                if not isinstance(one.embedding, Failure):
                    photos.append((id, uri, one.digest or ""))
                    rows.append(one.embedding[None])
                elif self.skip:
                    failures.append(Failure(shard.start + one.index, uri, one.embedding.error))
                else:
                    raise one.embedding.error
        summary = Summary(shard.index, len(photos), tuple(failures))
        write_shard(Folder(self.out), manifest, summary, photos, np.concatenate(rows))
        return summary

    def encode_all(self, shards: Iterable[Shard], manifest: Manifest) -> Iterator[Summary]:
        """Encode one shard after the other."""
        for shard in shards:
            yield self.encode(shard, manifest)
