"""Where a gallery is: the vector store of its address, and what that is given."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from fashion_retrieval._utils.checks import check_whole
from fashion_retrieval.errors import InputError

if TYPE_CHECKING:
    from fashion_retrieval.gallery.engines.lancedb import LanceStore
    from fashion_retrieval.gallery.engines.milvus import MilvusStore


def budget_of(uri: str | Path, memory_budget: int | None) -> dict[str, Any]:
    """What a store is given of a memory budget."""
    if memory_budget is None:
        return {}
    check_whole("memory_budget", memory_budget, 1 << 60, least=0)
    if str(uri).startswith(("http://", "https://")):
        raise InputError("memory_budget is of LanceDB galleries, a Milvus server has limits of its own; leave it out")
    return {"memory_budget": int(memory_budget)}


def engine_of(uri: str | Path) -> type[LanceStore] | type[MilvusStore]:
    """The store of galleries at such an address."""
    if not isinstance(uri, str | Path) or not str(uri):
        raise InputError(f"a gallery's uri must be a folder or an address, got {uri!r}")
    if str(uri).startswith(("http://", "https://")):
        from fashion_retrieval.gallery.engines.milvus import MilvusStore

        return MilvusStore
    from fashion_retrieval.gallery.engines.lancedb import LanceStore

    return LanceStore


def address_of(uri: str | Path) -> str:
    """The address; of a folder its absolute path, which stays right when the process goes to another folder."""
    return str(uri) if "://" in str(uri) else str(Path(uri).absolute())
