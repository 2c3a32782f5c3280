"""Galleries of images: adding, searching, refining."""

from fashion_retrieval.gallery.gallery import Gallery
from fashion_retrieval.gallery.info import AddReport, GalleryInfo
from fashion_retrieval.gallery.refinement import Refinement, Turn

__all__ = ["AddReport", "Gallery", "GalleryInfo", "Refinement", "Turn"]
