"""Files by path or URI: on a disk of this machine, or in any store that pyarrow or fsspec reaches."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import unquote

from fashion_retrieval._utils.files import write_atomically
from fashion_retrieval.errors import FashionRetrievalError, ImageError, ShardError

if TYPE_CHECKING:
    from fsspec import AbstractFileSystem

_ARROW = frozenset({"abfs", "abfss", "gs", "gcs", "hdfs", "s3", "viewfs"})
"""Stores that pyarrow reaches by itself; the others are fsspec's, each with a package of its own."""


class Folder:
    """A folder, by path or URI ("s3://bucket/shards"), whose files appear whole or not at all.

    `uri` becomes the absolute path where the folder is local.
    """

    def __init__(self, uri: str) -> None:
        self.filesystem, path = locate(uri)
        self._local = self.filesystem.protocol == ("file", "local")
        self._path = str(Path(path).absolute()) if self._local else path
        self.uri = self._path if self._local else uri.rstrip("/")

    def path(self, name: str) -> str:
        """The path of a file, as `filesystem` takes it."""
        return f"{self._path}/{name}"

    def names(self) -> list[str]:
        """The names of the files and folders inside, sorted; none where the folder does not exist."""
        with translate_errors(self.uri):
            try:
                found = self.filesystem.ls(self._path, detail=False)
            except FileNotFoundError:
                return []
            return sorted(name.rstrip("/").rpartition("/")[2] for name in found)

    def read(self, name: str) -> bytes:
        """The content of a file."""
        with translate_errors(f"{self.uri}/{name}"):
            return bytes(self.filesystem.cat_file(self.path(name)))

    def write(self, name: str, content: bytes) -> None:
        """Write or replace a file; the folder is made where it is missing."""
        path = self.path(name)
        with translate_errors(f"{self.uri}/{name}"):
            if not self._local:  # a store shows an object when its last byte has arrived
                self.filesystem.pipe_file(path, content)
                return
            Path(self._path).mkdir(parents=True, exist_ok=True)
            with write_atomically(Path(path)) as partial:
                partial.write_bytes(content)

    def remove(self, name: str) -> None:
        """Remove a folder inside, if it exists."""
        with translate_errors(f"{self.uri}/{name}"):
            if self.filesystem.isdir(self.path(name)):
                self.filesystem.rm(self.path(name), recursive=True)

    def tidy(self) -> None:
        """Remove the partial files of writers that were killed."""
        for name in self.names():
            if name.startswith(".") and ".part" in name:
                with translate_errors(f"{self.uri}/{name}"):
                    self.filesystem.rm_file(self.path(name))


def locate(uri: str) -> tuple[AbstractFileSystem, str]:
    """The file system of a path or URI, and the path in it; a `ShardError` where the store is unknown or silent."""
    from fsspec.core import url_to_fs
    from fsspec.implementations.local import LocalFileSystem

    scheme, separator, rest = uri.partition("://")
    if not separator or scheme == "file":
        return LocalFileSystem(), unquote(rest) if separator else uri
    with translate_errors(uri):
        if scheme not in _ARROW:
            filesystem, path = url_to_fs(uri)
            return filesystem, path.rstrip("/")
        store, _, key = rest.partition("/")
        region = s3_options().get("region")  # without one, pyarrow asks Amazon for it
        query = f"?region={region}" if scheme == "s3" and region else ""
        filesystem, root = _arrow_filesystem(f"{scheme}://{store}/{query}")
    return filesystem, f"{root.rstrip('/')}/{key}".rstrip("/")


def s3_options() -> dict[str, str]:
    """What LanceDB must be told of an S3 store beyond what it reads from the environment as pyarrow does."""
    region = os.environ.get("AWS_REGION") or os.environ.get("AWS_DEFAULT_REGION")
    endpoint = os.environ.get("AWS_ENDPOINT_URL_S3") or os.environ.get("AWS_ENDPOINT_URL") or ""
    return ({"region": region} if region else {}) | ({"allow_http": "true"} if endpoint.startswith("http://") else {})


def read_photo(uri: str) -> bytes:
    """The bytes of an image file; an `ImageError` where it does not exist or can't be read."""
    try:
        if "://" not in uri:
            return Path(uri).read_bytes()
        filesystem, path = locate(uri)
        return bytes(filesystem.cat_file(path))
    except Exception as error:  # file systems raise nearly anything
        raise ImageError(f"photo {uri:.200} can't be read ({_reason(error)}); check path and access") from error


@contextmanager
def translate_errors(uri: str) -> Iterator[None]:
    """Turn any error of a file system into a `ShardError` of one line."""
    try:
        yield
    except FashionRetrievalError:
        raise
    except Exception as error:  # file systems raise nearly anything
        raise ShardError(f"{uri:.200} can't be used ({_reason(error)}); check the address and your access") from error


def _reason(error: Exception) -> str:
    return " ".join(str(getattr(error, "strerror", None) or error).split())[:200]


@cache
def _arrow_filesystem(root: str) -> tuple[AbstractFileSystem, str]:
    from fsspec.implementations.arrow import ArrowFSWrapper
    from pyarrow.fs import FileSystem

    filesystem, path = FileSystem.from_uri(root)
    return ArrowFSWrapper(filesystem, skip_instance_cache=True), path
