"""The gallery of `--demo`: the example photos, in a temporary folder."""

from __future__ import annotations

import sys
from importlib.resources import files
from pathlib import Path
from typing import TYPE_CHECKING

from fashion_retrieval.errors import GalleryError
from fashion_retrieval.gallery.gallery import Gallery

if TYPE_CHECKING:
    from fashion_retrieval.model import FashionModel


def demo_gallery(model: FashionModel, folder: str | Path) -> Gallery:
    """Make a gallery of the example photos in a folder, with recognition; it takes some seconds.

    Raises:
        GalleryError: The example photos are not there.
    """
    photos = sorted(_photos().glob("*.jpg"))
    if not photos:
        raise GalleryError(f"the example photos are not in {_photos()}; install fashion-retrieval again")
    gallery = Gallery.create(Path(folder) / "wardrobe", model, recognize=True)
    gallery.add(photos, [photo.stem for photo in photos], progress=sys.stderr.isatty())
    return gallery


def _photos() -> Path:
    """Where the wheel has the photos or, in a checkout, the repository."""
    package = Path(str(files("fashion_retrieval")))
    packed = package / "assets" / "wardrobe"
    return packed if packed.is_dir() else package.parents[1] / "examples" / "wardrobe"
