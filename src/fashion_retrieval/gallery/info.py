"""What a gallery tells of itself, and of what was added to it."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from fashion_retrieval.gallery.engines.base import VectorStore
from fashion_retrieval.results import Failure
from fashion_retrieval.shards.manifest import precision
from fashion_retrieval.taxonomy import Taxonomy

if TYPE_CHECKING:
    from fashion_retrieval.model import FashionModel


@dataclass(frozen=True, slots=True)
class AddReport:
    """What became of the images given to `Gallery.add`.

    Attributes:
        added: How many are new in the gallery.
        updated: How many replaced one of other content, path or metadata.
        unchanged: How many the gallery held already; they were not encoded again.
        failures: The images that can't be read; what the gallery held of them stays.
    """

    added: int
    updated: int
    unchanged: int
    failures: tuple[Failure, ...] = ()


@dataclass(frozen=True, slots=True)
class MigrationReport:
    """What became of the photos in `Gallery.migrate`.

    Attributes:
        count: How many photos the gallery holds now.
        encoded: How many of them this call encoded; an interrupted one before it may have encoded others.
        failures: The photos that were left out: `source` is the id, `error` says why it can't be read.
    """

    count: int
    encoded: int
    failures: tuple[Failure, ...] = ()


@dataclass(frozen=True, slots=True)
class GalleryInfo:
    """What a gallery is.

    Attributes:
        uri: Where it is, without a password.
        engine: "lancedb" or "milvus".
        model_id: The model to load for it; a folder by its absolute path.
        fingerprint: SHA-256 of that model's encoder.
        embedding_dim: Width of the embeddings.
        count: How many images it holds.
        fields: The type ("str", "int", "float", "bool") by field.
        taxonomy: Name of the vocabulary images are recognized with, or None where they are not.
        indexed: Whether searches without a filter use an approximate index.
        dtype: What the embeddings were computed in, such as "float32", "bfloat16" or "float32 by openvino int8"; None
            in galleries made before release 0.2, which did not keep it.
        revision: The commit of the model's Hub repository; None for other models.
        precision: How the numbers of an embedding are stored: "float32", "float16" or "int8".
        composer: SHA-256 of the weights of the model's composer; None where it has none, or the gallery is older.
    """

    uri: str
    engine: str
    model_id: str
    fingerprint: str
    embedding_dim: int
    count: int
    fields: dict[str, str]
    taxonomy: str | None
    indexed: bool
    dtype: str | None = None
    revision: str | None = None
    precision: str = "float32"
    composer: str | None = None


def model_settings(model: FashionModel, taxonomy: Taxonomy | None, dimensions: int | None) -> dict[str, Any]:
    """What a gallery of so many dimensions keeps of the model that computes its rows, as `Settings` names it."""
    place, width = Path(model.model_id), dimensions or model.embedding_dim
    return {
        "model_id": str(place.absolute()) if place.is_dir() else model.model_id,
        "fingerprint": model.fingerprint,
        "embedding_dim": width,
        "basis": model.basis_digest if width < model.embedding_dim else None,
        "dtype": precision(model),
        "revision": model.revision,
        "probes": model.recognizer(taxonomy).fitted if taxonomy else None,
        "composer": model.composer_digest,
    }


def read_info(store: VectorStore) -> GalleryInfo:
    """What a vector store tells of its gallery."""
    kept = store.settings
    names = ("model_id", "fingerprint", "embedding_dim", "dtype", "revision", "precision", "composer")
    return GalleryInfo(
        uri=store.uri,
        engine=store.name,
        count=store.count(),
        fields=dict(kept.fields),
        taxonomy=Taxonomy.load(kept.taxonomy).name if kept.taxonomy else None,
        indexed=store.indexed(),
        **{name: getattr(kept, name) for name in names},
    )
