"""Galleries of fewer dimensions or with a memory budget: what they ask of the model, of queries and of their place."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import ArrayLike

from fashion_retrieval._utils.checks import check_whole
from fashion_retrieval.errors import GalleryError, InputError
from fashion_retrieval.gallery.engines.base import VectorStore

if TYPE_CHECKING:
    from fashion_retrieval.model import FashionModel


def check_basis(store: VectorStore, model: FashionModel) -> None:
    """Refuse a model that shortens embeddings by another basis than the gallery's."""
    kept = store.settings
    if kept.embedding_dim < model.embedding_dim and kept.basis != model.basis_digest:
        raise GalleryError(
            f"gallery {store.uri} holds {kept.embedding_dim} dimensions by another basis than the model's "
            "dimensions.safetensors; load the model folder that it was made with, or build a new gallery"
        )


def as_wide(vectors: ArrayLike, model: FashionModel, width: int) -> ArrayLike:
    """Embeddings of the model's width as wide as the gallery's; all else as it is."""
    full = model.embedding_dim
    if width < full and isinstance(vectors, np.ndarray) and vectors.dtype.kind == "f" and vectors.ndim <= 2:
        return model.shorten(vectors, width) if vectors.shape[-1:] == (full,) else vectors
    return vectors


def budget(uri: str | Path, memory_budget: int | None) -> dict[str, Any]:
    """What a store is given of a memory budget; an `InputError` refuses what can't be one."""
    if memory_budget is None:
        return {}
    check_whole("memory_budget", memory_budget, 1 << 60, least=0)
    if str(uri).startswith(("http://", "https://")):
        raise InputError("memory_budget is of LanceDB galleries, a Milvus server has limits of its own; leave it out")
    return {"memory_budget": int(memory_budget)}
