"""One model at work on shards: photos are read ahead, encoded and written, shard by shard."""

from __future__ import annotations

import hashlib
from collections import deque
from collections.abc import Iterable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path
from typing import TYPE_CHECKING, Any

from fashion_retrieval.errors import ImageError, ShardError
from fashion_retrieval.results import Failure
from fashion_retrieval.shards.files import write_shard
from fashion_retrieval.shards.filesystem import Folder, read_photo
from fashion_retrieval.shards.manifest import Manifest, Shard, Summary

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from fashion_retrieval.model import FashionModel

Content = bytes | ImageError
"""The bytes of a photo's file, or why there are none."""

_READERS = 16
"""Files read at a time; in an object store each waits for an answer."""
_AHEAD = 3
"""Batches read ahead of the model."""


@dataclass(frozen=True, slots=True)
class Identity:
    """Which model a worker has.

    Attributes:
        model_id: What it was loaded as.
        fingerprint: Of its encoder.
        embedding_dim: Width of its embeddings.
        dtype: What it computes in: "float32", "bfloat16", "float32 by openvino int8" …
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
        dtype = str(model.dtype).removeprefix("torch.")
        dtype += "" if model.backend == "torch" else f" by {model.backend}"
        return Identity(model.model_id, model.fingerprint, model.embedding_dim, dtype)

    def encode(self, shard: Shard, manifest: Manifest) -> Summary:
        """Encode the photos of a shard and write it.

        Raises:
            ImageError: Without `skip`, of the first photo that can't be read.
            ShardError: This worker has another model or dtype, or the shard can't be written.
        """
        import numpy as np

        _check(self.identity(), manifest)
        photos: list[tuple[str, str, str]] = []
        embeddings: list[NDArray[np.float32]] = []
        failures: list[Failure] = []
        named = enumerate(zip(shard.ids, shard.uris, strict=True), start=shard.start)
        for outcomes, rows in self._batches(shard.uris):
            embeddings.append(rows)
            for outcome, (place, (id, uri)) in zip(outcomes, named, strict=False):
                if isinstance(outcome, str):
                    photos.append((id, uri, outcome))
                elif self.skip:
                    failures.append(Failure(place, uri, outcome))
                else:
                    raise outcome
        summary = Summary(shard.index, len(photos), tuple(failures))
        write_shard(Folder(self.out), manifest, summary, photos, np.concatenate(embeddings))
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

    def _batches(self, uris: Sequence[str]) -> Iterator[tuple[list[str | ImageError], NDArray[np.float32]]]:
        """What `_encode` makes of each batch, in order; files are read, and on a GPU photos decoded, ahead of it."""
        models = 1 if self._model().device.type == "cpu" else 2  # one decodes while the other computes
        coming: deque[Future[tuple[list[str | ImageError], NDArray[np.float32]]]] = deque()
        with ThreadPoolExecutor(_READERS) as readers, ThreadPoolExecutor(models) as encoders:
            for start in range(0, len(uris), self.batch_size):
                some = uris[start : start + self.batch_size]
                coming.append(encoders.submit(self._encode, [readers.submit(self._read, uri) for uri in some], some))
                if len(coming) > _AHEAD:
                    yield coming.popleft().result()
            while coming:
                yield coming.popleft().result()

    def _read(self, uri: str) -> Content:
        try:
            return read_photo(uri if "://" in uri else str(Path(self.base, uri)))
        except ImageError as error:
            return error

    def _encode(
        self, coming: Sequence[Future[Content]], uris: Sequence[str]
    ) -> tuple[list[str | ImageError], NDArray[np.float32]]:
        """For each photo the SHA-256 of its file or what is wrong with it, and the embeddings of the good ones."""
        contents = [content.result() for content in coming]
        try:
            rows = self._embed(contents)
        except ImageError:
            contents = [_checked(content, uri) for content, uri in zip(contents, uris, strict=True)]
            rows = self._embed(contents)
        return [hashlib.sha256(one).hexdigest() if isinstance(one, bytes) else one for one in contents], rows

    def _embed(self, contents: Sequence[Content]) -> NDArray[np.float32]:
        import numpy as np

        model, photos = self._model(), [content for content in contents if isinstance(content, bytes)]
        if not photos:
            return np.empty((0, model.embedding_dim), np.float32)
        return model.encode(images=photos, batch_size=self.batch_size)


def _check(identity: Identity, manifest: Manifest) -> None:
    if identity.fingerprint != manifest.fingerprint:
        remedy = "keep the same files on every machine, or pass a revision"
        raise ShardError(f"a worker has another model than {manifest.model_id!r}, which it should have; {remedy}")
    if identity.dtype != manifest.dtype:
        told = f"a worker computes in {identity.dtype}, and the shards are of {manifest.dtype}"
        raise ShardError(f"{told}; pass a dtype that every machine has")


def _checked(content: Content, uri: str) -> Content:
    """The content, or what is wrong with the photo in it."""
    from fashion_retrieval.images.load import load_image

    if isinstance(content, ImageError):
        return content
    stream = BytesIO(content)
    stream.name = uri  # by which the error calls the photo
    try:
        load_image(stream)
    except ImageError as error:
        return error
    return content
