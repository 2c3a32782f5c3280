"""Pictures of a gallery's photos, and the files of photos that came by HTTP."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import replace
from functools import lru_cache
from io import BytesIO
from pathlib import Path
from typing import TYPE_CHECKING, Any

from PIL import Image

from fashion_retrieval._utils.files import write_atomically
from fashion_retrieval.errors import GalleryError, ImageError, InputError
from fashion_retrieval.gallery.info import AddReport
from fashion_retrieval.images.load import decode, load_image

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

    def __init__(self, gallery: Gallery, folder: Path, max_pixels: int | None = None) -> None:
        self.gallery = gallery
        self.folder = folder
        self._max_pixels = max_pixels

    def add(self, photos: Sequence[Upload], ids: Sequence[str], metadata: Sequence[dict[str, Any]] | None) -> AddReport:
        """`Gallery.add`, with photos that can't be read in the report.

        Raises:
            InputError: Ids or metadata can't be used.
            GalleryError: The files can't be kept.
        """
        if len(set(ids)) != len(ids):
            raise InputError("ids must differ from each other; leave out those that stand there twice")
        before = self._files(ids)
        paths = [self._path(id, photo.content) for id, photo in zip(ids, photos, strict=True)]
        new = [path for path in paths if not path.exists()]
        try:
            self._keep(paths, photos)
            report = self.gallery.add(paths, list(ids), metadata, on_error="skip", max_pixels=self._max_pixels)
            told = (replace(one, error=self._error(photos[one.index])) for one in report.failures)
            return replace(report, failures=tuple(told))
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

    def _keep(self, paths: Sequence[Path], photos: Sequence[Upload]) -> None:
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            for path, photo in zip(paths, photos, strict=True):
                with write_atomically(path) as partial:
                    partial.write_bytes(photo.content)
        except OSError as error:  # the disk is full
            raise GalleryError(f"photos can't be kept in {self.folder} ({error.strerror}); make room") from error

    def _error(self, photo: Upload) -> ImageError:
        """Why a photo can't be read; the gallery's own message names its file on the server."""
        try:
            decode(photo.content, photo.name, max_pixels=self._max_pixels).upright()
        except ImageError as error:
            return error
        return ImageError(f"{photo.name} can't be read; send it again")

    def _path(self, id: str, content: bytes) -> Path:
        digests = (hashlib.sha256(part).hexdigest()[:32] for part in (id.encode(), content))
        return self.folder / "-".join(digests)

    def _files(self, ids: Sequence[str]) -> set[Path]:
        """The files in this folder that rows of these ids have."""
        photos = (self.gallery.get(id).photo for id in ids if id in self.gallery)
        return {Path(photo) for photo in photos if photo and Path(photo).parent == self.folder}
