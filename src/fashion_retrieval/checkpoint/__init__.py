"""Model folders: which files they hold, reading and writing them."""

from fashion_retrieval.checkpoint.folder import Bundle, load, save

__all__ = ["Bundle", "load", "save"]
