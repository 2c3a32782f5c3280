"""One model at work on shards: photos are read ahead, encoded and written, shard by shard."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from contextlib import closing
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from fashion_retrieval.errors import ShardError
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


@dataclass(frozen=True, slots=True)
class Identity:
    """The model of a worker.

    Attributes:
        model_id: What it was loaded as.
        fingerprint: SHA-256 of its encoder.
        embedding_dim: Width of its embeddings.
        dtype: What it computes in, as `precision` tells.
    """

    model_id: str
    fingerprint: str
    embedding_dim: int
    dtype: str


class ShardWorker:
    """Encodes shards in this process. Its model is loaded when it is first needed, so that it can be sent elsewhere.

    Args:
        model: What `FashionModel.from_pretrained` takes.
        loading: Its further arguments.
        out: The folder for the shards.
        base: The folder that relative paths of photos start from.
        batch_size: Photos that go through the model at a time.
        skip: List photos that can't be read; otherwise the first one is raised.
    """

    def __init__(
        self, model: str, loading: Mapping[str, Any], *, out: str, base: str, batch_size: int, skip: bool
    ) -> None:
        self.model = model
        self.loading = dict(loading)
        self.out = out
        self.base = base
        self.batch_size = batch_size
        self.skip = skip
        self._loaded: FashionModel | None = None

    def identity(self) -> Identity:
        """Which model this is."""
        model = self._model()
        return Identity(model.model_id, model.fingerprint, model.embedding_dim, precision(model))

    def encode(self, shard: Shard, manifest: Manifest) -> Summary:
        """Encode the photos of a shard and write it.

        Raises:
            ImageError: Without `skip`, of the first photo that can't be read.
            ShardError: This worker has another model or dtype, or the shard can't be written.
        """
        import numpy as np

        from fashion_retrieval.images.inputs import DeferredFile
        from fashion_retrieval.images.prefetch import fetch_ahead

        _check(self.identity(), manifest)
        model = self._model()
        photos: list[tuple[str, str, str]] = []
        rows = [np.empty((0, model.embedding_dim), np.float32)]
        failures: list[Failure] = []
        files = (DeferredFile(uri, partial(read_photo, self._address(uri))) for uri in shard.uris)
        with (
            fetch_ahead(files, threads=_READERS, ahead=_AHEAD * self.batch_size) as fetched,
            closing(model.encode_iter(fetched, batch_size=self.batch_size, on_error="skip")) as stream,
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

    def _model(self) -> FashionModel:
        if self._loaded is None:
            from fashion_retrieval.model import FashionModel

            self._loaded = FashionModel.from_pretrained(self.model, **self.loading)
        return self._loaded

    def _address(self, uri: str) -> str:
        return uri if "://" in uri else str(Path(self.base, uri))


def _check(identity: Identity, manifest: Manifest) -> None:
    if identity.fingerprint != manifest.fingerprint:
        remedy = "keep the same files on every machine, or pass a revision"
        raise ShardError(f"a worker has another model than {manifest.model_id!r}, which it should have; {remedy}")
    if identity.dtype != manifest.dtype:
        told = f"a worker computes in {identity.dtype}, and the shards are of {manifest.dtype}"
        raise ShardError(f"{told}; pass a dtype that every machine has")
