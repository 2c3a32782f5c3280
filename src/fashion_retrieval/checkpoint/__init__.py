"""Model folders: which files they hold, reading and writing them."""

from typing import TYPE_CHECKING

from fashion_retrieval._utils.lazy import lazy_names

if TYPE_CHECKING:
    from fashion_retrieval.checkpoint.folder import Bundle, load, load_segmenter, save, stale_exports

__all__ = ["Bundle", "load", "load_segmenter", "save", "stale_exports"]

__getattr__ = lazy_names(__name__, {name: f"checkpoint.folder:{name}" for name in __all__})
