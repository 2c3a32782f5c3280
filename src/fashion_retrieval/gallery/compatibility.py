"""Which models a gallery can be searched with, and which can add to it."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING

from fashion_retrieval.errors import GalleryError
from fashion_retrieval.gallery.engines.base import VectorStore
from fashion_retrieval.shards.manifest import precision as computed_in
from fashion_retrieval.shards.manifest import same_precision
from fashion_retrieval.taxonomy import Taxonomy

if TYPE_CHECKING:
    from fashion_retrieval.model import FashionModel

_log = logging.getLogger(__name__)


def check_model(store: VectorStore, model: FashionModel) -> None:
    """Refuse a model whose queries mean nothing here; another composer is logged as a warning."""
    kept = store.settings
    if kept.fingerprint != model.fingerprint or kept.embedding_dim > model.embedding_dim:
        raise GalleryError(
            f"gallery {store.uri} holds embeddings of model {kept.model_id!r} ({kept.fingerprint[:12]}), "
            f"got model {model.model_id!r} ({model.fingerprint[:12]}); load that model, or build a new gallery"
        )
    if kept.embedding_dim < model.embedding_dim and kept.basis != model.basis_digest:
        raise GalleryError(
            f"gallery {store.uri} holds {kept.embedding_dim} dimensions by another basis than the model's "
            "dimensions.safetensors; load the model folder that it was made with, or build a new gallery"
        )
    if kept.composer and kept.composer != model.composer_digest:
        _log.warning(
            "gallery %s was made with another composer than that of model %r: the same queries find other photos; "
            "load model %r, or call migrate with this one",
            *(store.uri, model.model_id, kept.model_id),
        )


def check_adding(store: VectorStore, model: FashionModel, taxonomy: Taxonomy | None) -> None:
    """Refuse a model whose embeddings or recognized fields differ from those that the gallery holds."""
    kept, given = store.settings.dtype, computed_in(model)
    if kept is not None and not same_precision(kept, given):
        dtype, _, runtime = kept.partition(" by ")
        remedy = f"load the model with dtype={dtype!r}, backend={(runtime or 'torch').split()[0]!r}"
        raise GalleryError(
            f"gallery {store.uri} holds embeddings computed in {kept}, got a model that computes in {given}; "
            f"{remedy}, or build a new gallery"
        )
    fitted = model.recognizer(taxonomy).fitted if taxonomy else None
    if fitted != store.settings.probes:
        raise GalleryError(
            f"gallery {store.uri} holds attributes that were fitted to other labels than this model's; "
            "load the model that it was made with, or build a new gallery"
        )
