"""Shards of embeddings: the plan, kept as a manifest, and what is in one."""

from __future__ import annotations

import hashlib
import json
import re
from dataclasses import asdict, dataclass, field
from typing import TYPE_CHECKING, Literal

from pydantic import with_config

from fashion_retrieval._utils.validation import STRICT, validate
from fashion_retrieval.errors import ShardError
from fashion_retrieval.shards.filesystem import Folder

if TYPE_CHECKING:
    from fashion_retrieval.model import FashionModel
    from fashion_retrieval.results import Failure

SCHEMA_VERSION = 1
MANIFEST, FAILURES = "manifest.json", "failures.jsonl"
Format = Literal["parquet", "lance"]

_SETTINGS = {
    "fingerprint": "model {0.model_id!r} ({0.fingerprint:.12})",
    "dtype": "dtype {0.dtype!r}",
    "photos_digest": "a list of {0.photos} photos ({0.photos_digest:.12})",
    "shard_size": "shard_size {0.shard_size}",
    "format": "format {0.format!r}",
}
"""What must be the same to resume, and how an error names it."""
_FLOAT32 = re.compile(r"float32( by \w+ fp32)?")


@dataclass(frozen=True, slots=True)
class Shard:
    """Images that are encoded together: its place in the plan, and the place of its first image in the list, from 0."""

    index: int
    start: int
    ids: tuple[str, ...]
    uris: tuple[str, ...]

    @property
    def digest(self) -> str:
        """SHA-256 of the ids and URIs."""
        return hashlib.sha256("\0".join((*self.ids, *self.uris)).encode()).hexdigest()


@with_config(STRICT)
@dataclass(frozen=True, slots=True)
class Manifest:
    """The plan: which shards there will be, and of which model.

    `fingerprint` is the SHA-256 of the model's encoder, `dtype` its `precision`, `photos` how many images the list
    names, `photos_digest` the SHA-256 of the list, `schema_version` the version of this layout.
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

    def init_or_resume(self, folder: Folder) -> None:
        """Write the manifest into a new or empty folder, or check that the folder holds the same."""
        names = folder.names()
        if MANIFEST in names:
            found = self.read(folder)
            other = [name for name in _SETTINGS if getattr(found, name) != getattr(self, name)]
            if other:
                held, got = (", ".join(_SETTINGS[name].format(plan) for name in other) for plan in (found, self))
                raise ShardError(f"{folder.uri} holds shards of {held}, got {got}; pass the same, or another folder")
            return
        foreign = [name for name in names if not name.startswith(".")]
        if foreign:
            raise ShardError(f"{folder.uri} holds no shards but {foreign[0]!r}; give a new or an empty folder")
        content = asdict(self) | {"shards": self.shards}
        folder.write(MANIFEST, f"{json.dumps(content, indent=2)}\n".encode())

    @classmethod
    def read(cls, folder: Folder) -> Manifest:
        """Read the manifest of a folder of shards; a `ShardError` where there is none, or it is damaged or newer."""
        if MANIFEST not in folder.names():
            raise ShardError(f"{folder.uri} holds no {MANIFEST}; give a folder that encode_shards made")
        try:
            data = json.loads(folder.read(MANIFEST))
            version = data["schema_version"]
        except (ValueError, KeyError, TypeError) as error:
            raise ShardError(f"{folder.uri}/{MANIFEST} is damaged; encode into a new folder") from error
        if version != SCHEMA_VERSION:
            raise ShardError(f"{folder.uri} is of a newer version ({version}); upgrade fashion-retrieval")
        data.pop("shards", None)  # written for readers; follows from the others
        return validate(cls, data, f"{folder.uri}/{MANIFEST}", ShardError)


@dataclass(frozen=True, slots=True)
class Summary:
    """What became of a shard: how many images it holds, and which it lacks."""

    index: int
    encoded: int
    failures: tuple[Failure, ...]

    def __len__(self) -> int:
        """How many images were given to it."""
        return self.encoded + len(self.failures)


def precision(model: FashionModel) -> str:
    """What a model computes in: "float32", "bfloat16", "float32 by openvino int8" …

    Embeddings of one fingerprint but of two precisions differ, int8 down to a cosine of 0.99; so shards and galleries
    hold one precision only.
    """
    dtype = model.towers.dtype
    return dtype if model.backend == "torch" else f"{dtype} by {model.backend}"


def same_precision(one: str, other: str) -> bool:
    """Whether embeddings of two precisions agree; those in float32 do, to a cosine of 0.999999, in every runtime."""
    return one == other or all(_FLOAT32.fullmatch(name) for name in (one, other))
