"""Shards of embeddings: the plan, kept as a manifest, and what is in one."""

from __future__ import annotations

import hashlib
import json
from dataclasses import asdict, dataclass, field, fields
from typing import TYPE_CHECKING, Any, Literal, get_args

from fashion_retrieval.errors import ShardError
from fashion_retrieval.shards.filesystem import Folder

if TYPE_CHECKING:
    from fashion_retrieval.results import Failure

SCHEMA_VERSION = 1
MANIFEST, FAILURES = "manifest.json", "failures.jsonl"
Format = Literal["parquet", "lance"]

_TOLD = {
    "fingerprint": "model {0.model_id!r} ({0.fingerprint:.12})",
    "dtype": "dtype {0.dtype!r}",
    "photos_digest": "a list of {0.photos} photos ({0.photos_digest:.12})",
    "shard_size": "shard_size {0.shard_size}",
    "format": "format {0.format!r}",
}
"""What must be the same to go on, and how it is told."""


@dataclass(frozen=True, slots=True)
class Shard:
    """Photos that are encoded together.

    Attributes:
        index: Its place in the plan, from 0.
        start: The place of its first photo in the list, from 0.
        ids: A name for each photo.
        uris: Where each photo is.
    """

    index: int
    start: int
    ids: tuple[str, ...]
    uris: tuple[str, ...]

    @property
    def digest(self) -> str:
        """SHA-256 of the ids and URIs."""
        return hashlib.sha256("\0".join((*self.ids, *self.uris)).encode()).hexdigest()


@dataclass(frozen=True, slots=True)
class Manifest:
    """The plan: which shards there will be, and of which model.

    Attributes:
        model_id: What the model was loaded as.
        fingerprint, embedding_dim: Of the model.
        dtype: What it was computed in: "float32", "bfloat16" …
        photos: How many the list names.
        photos_digest: SHA-256 of the list.
        shard_size: Photos a shard; the last one has what is left.
        format: "parquet" or "lance".
        schema_version: Of this layout.
    """

    model_id: str = field(compare=False)
    fingerprint: str
    embedding_dim: int
    dtype: str
    photos: int
    photos_digest: str
    shard_size: int
    format: Format
    schema_version: int = SCHEMA_VERSION

    @property
    def shards(self) -> int:
        """How many shards there will be."""
        return -(-self.photos // self.shard_size)

    def name(self, index: int) -> str:
        """The file, or for Lance the folder, of a shard."""
        return f"shard-{index:06}.{self.format}"

    def to_dict(self) -> dict[str, Any]:
        """JSON-ready dict."""
        return asdict(self)

    def claim(self, folder: Folder) -> None:
        """Write the manifest into a new or empty folder, or go on in one with the same.

        Raises:
            ShardError: The folder holds other things, or shards of other settings.
        """
        names = folder.names()
        if MANIFEST in names:
            there = self.read(folder)
            other = [name for name in _TOLD if getattr(there, name) != getattr(self, name)]
            if other:
                held, got = (", ".join(_TOLD[name].format(plan) for name in other) for plan in (there, self))
                raise ShardError(f"{folder.uri} holds shards of {held}, got {got}; pass the same, or another folder")
            return
        foreign = [name for name in names if not name.startswith(".")]
        if foreign:
            raise ShardError(f"{folder.uri} holds no shards but {foreign[0]!r}; give a new or an empty folder")
        content = self.to_dict() | {"shards": self.shards}
        folder.write(MANIFEST, f"{json.dumps(content, indent=2)}\n".encode())

    @classmethod
    def read(cls, folder: Folder) -> Manifest:
        """The manifest of a folder of shards.

        Raises:
            ShardError: There is none, or it is damaged or of a newer version.
        """
        if MANIFEST not in folder.names():
            raise ShardError(f"{folder.uri} holds no {MANIFEST}; give a folder that encode_shards made")
        try:
            data = json.loads(folder.read(MANIFEST))
            version = data["schema_version"]
            manifest = cls(**{item.name: data[item.name] for item in fields(cls)})
        except (ValueError, KeyError, TypeError) as error:
            raise ShardError(f"{folder.uri}/{MANIFEST} is damaged; encode into a new folder") from error
        if version != SCHEMA_VERSION or manifest.format not in get_args(Format):
            raise ShardError(f"{folder.uri} is of a newer version ({version}); upgrade fashion-retrieval")
        return manifest


@dataclass(frozen=True, slots=True)
class Summary:
    """What became of a shard.

    Attributes:
        index: Its place in the plan.
        encoded: How many photos it holds.
        failures: The photos it lacks.
    """

    index: int
    encoded: int
    failures: tuple[Failure, ...]

    def __len__(self) -> int:
        """How many photos were given to it."""
        return self.encoded + len(self.failures)
