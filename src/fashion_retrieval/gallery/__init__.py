"""Galleries of images: adding, searching, refining."""

from fashion_retrieval.gallery.gallery import Gallery
from fashion_retrieval.gallery.info import AddReport, GalleryInfo, MigrationReport
from fashion_retrieval.gallery.refinement import Refinement, Turn

__all__ = ["AddReport", "Gallery", "GalleryInfo", "MigrationReport", "Refinement", "Turn"]
