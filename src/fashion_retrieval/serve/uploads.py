"""Pictures of a gallery's photos, and the files of photos that came by HTTP."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from functools import lru_cache
from io import BytesIO
from pathlib import Path
from typing import TYPE_CHECKING, Any

from PIL import Image

from fashion_retrieval._utils.files import write_atomically
from fashion_retrieval.errors import InputError
from fashion_retrieval.gallery.info import AddReport
from fashion_retrieval.images.load import load_image

if TYPE_CHECKING:
    from fashion_retrieval.gallery.gallery import Gallery
    from fashion_retrieval.serve.requests import Upload


@lru_cache(maxsize=512)
def _thumbnail(path: str, stamp: tuple[int, int], size: int, max_pixels: int | None) -> bytes:
    image = load_image(path, max_pixels=max_pixels)
    image.thumbnail((size, size), Image.Resampling.LANCZOS)
    buffer = BytesIO()
    image.save(buffer, format="JPEG", quality=85)
    return buffer.getvalue()


def thumbnail(path: str, size: int, max_pixels: int | None) -> bytes:
    """A photo's JPEG of at most `size` pixels a side, upright and in sRGB; the last ones are kept.

    Raises:
        ImageError: The photo can't be read.
    """
    try:
        status = Path(path).stat()
    except (OSError, ValueError) as error:
        raise InputError("the photo's file is not there any more") from error
    return _thumbnail(path, (status.st_mtime_ns, status.st_size), size, max_pixels)


class Uploads:
    """Adds photos that have no file of their own to a gallery: their files are kept in a folder, one an id.

    A file is there before its row and gone after it, so that a row never lacks its picture.
    """

    def __init__(self, gallery: Gallery, folder: Path) -> None:
        self.gallery = gallery
        self.folder = folder

    def add(self, photos: Sequence[Upload], ids: Sequence[str], metadata: Sequence[dict[str, Any]] | None) -> AddReport:
        """`Gallery.add`, with photos that can't be read in the report."""
        if len(set(ids)) != len(ids):
            raise InputError("ids must differ from each other; leave out those that stand there twice")
        before = self._files(ids)
        self.folder.mkdir(parents=True, exist_ok=True)
        paths = [self._path(id, photo.content) for id, photo in zip(ids, photos, strict=True)]
        new = [path for path in paths if not path.exists()]
        for path, photo in zip(paths, photos, strict=True):
            with write_atomically(path) as partial:
                partial.write_bytes(photo.content)
        try:
            return self.gallery.add(paths, list(ids), metadata, on_error="skip")
        finally:
            kept = self._files(ids)
            for path in {*before, *new} - kept:
                path.unlink(missing_ok=True)

    def delete(self, ids: Sequence[str]) -> int:
        """`Gallery.delete`, with the files that `add` kept."""
        files = self._files(ids)
        count = self.gallery.delete(ids)
        for path in files:
            path.unlink(missing_ok=True)
        return count

    def _path(self, id: str, content: bytes) -> Path:
        digests = (hashlib.sha256(part).hexdigest()[:32] for part in (id.encode(), content))
        return self.folder / "-".join(digests)

    def _files(self, ids: Sequence[str]) -> set[Path]:
        """The files in this folder that rows of these ids have."""
        photos = (self.gallery.get(id).photo for id in ids if id in self.gallery)
        return {Path(photo) for photo in photos if photo and Path(photo).parent == self.folder}
