"""Galleries of photos: adding, searching, refining."""

from fashion_retrieval.gallery.gallery import AddReport, Gallery, GalleryInfo
from fashion_retrieval.gallery.refinement import Refinement, Turn

__all__ = ["AddReport", "Gallery", "GalleryInfo", "Refinement", "Turn"]
