"""Files by path or URI: on a disk of this machine, or in an object store through pyarrow."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import unquote
from uuid import uuid4

from fashion_retrieval.errors import FashionRetrievalError, ImageError, ShardError

if TYPE_CHECKING:
    from pyarrow import NativeFile
    from pyarrow.fs import FileSystem

_PART = ".part"


class Folder:
    """A folder whose files appear whole or not at all.

    Args:
        uri: A path, or a URI such as "s3://bucket/shards".
    """

    def __init__(self, uri: str) -> None:
        self.filesystem, path = locate(uri)
        self._local = self.filesystem.type_name == "local"
        self._path = str(Path(path).absolute()) if self._local else path
        self.uri = self._path if self._local else uri.rstrip("/")

    def path(self, name: str) -> str:
        """The path of a file, as `filesystem` takes it."""
        return f"{self._path}/{name}"

    def names(self) -> list[str]:
        """What is in it, sorted; nothing where there is no folder."""
        from pyarrow.fs import FileSelector

        with reaching(self.uri):
            inside = self.filesystem.get_file_info(FileSelector(self._path, allow_not_found=True))
            return sorted(info.base_name for info in inside)

    def read(self, name: str) -> bytes:
        """The content of a file."""
        with reaching(f"{self.uri}/{name}"), self.filesystem.open_input_stream(self.path(name)) as stream:
            return bytes(stream.read())

    def write(self, name: str, content: bytes) -> None:
        """Put a file there, or replace it; the folder is made where it is missing."""
        with reaching(f"{self.uri}/{name}"):
            # A store has no folders and shows an object when its last byte is there; a disk shows every byte.
            part = self.path(f".{uuid4().hex}{_PART}" if self._local else name)
            if self._local:
                self.filesystem.create_dir(self._path)
            with self.filesystem.open_output_stream(part) as stream:
                stream.write(content)
            if self._local:
                self.filesystem.move(part, self.path(name))

    def remove(self, name: str) -> None:
        """Remove a folder inside, if it is there."""
        from pyarrow.fs import FileType

        with reaching(f"{self.uri}/{name}"):
            if self.filesystem.get_file_info(self.path(name)).type == FileType.Directory:
                self.filesystem.delete_dir(self.path(name))

    def tidy(self) -> None:
        """Remove what a writer that was killed left half-written."""
        for name in self.names():
            if name.startswith(".") and name.endswith(_PART):
                with reaching(f"{self.uri}/{name}"):
                    self.filesystem.delete_file(self.path(name))


def locate(uri: str) -> tuple[FileSystem, str]:
    """The file system of a path or URI, and the path in it.

    Raises:
        ShardError: The store is of no kind that pyarrow knows, or does not answer.
    """
    scheme, separator, rest = uri.partition("://")
    if not separator or scheme == "file":
        return _filesystem("file:///")[0], unquote(rest) if separator else uri
    store, _, key = rest.partition("/")
    region = os.environ.get("AWS_REGION") or os.environ.get("AWS_DEFAULT_REGION")  # else pyarrow asks Amazon for it
    with reaching(uri):
        filesystem, root = _filesystem(
            f"{scheme}://{store}/" + (f"?region={region}" if scheme == "s3" and region else "")
        )
    return filesystem, f"{root.rstrip('/')}/{key}".rstrip("/")


def open_file(uri: str) -> NativeFile:
    """A file to be read from its beginning; what is compressed by its name (.gz, .zst) is read uncompressed."""
    filesystem, path = locate(uri)
    with reaching(uri):
        return filesystem.open_input_stream(path)


def read_photo(uri: str) -> bytes:
    """The bytes of a photo's file.

    Raises:
        ImageError: It isn't there or can't be read.
    """
    try:
        if "://" not in uri:
            return Path(uri).read_bytes()
        filesystem, path = locate(uri)
        with filesystem.open_input_stream(path, compression=None) as stream:
            return bytes(stream.read())
    except (OSError, ValueError, ShardError) as error:
        raise ImageError(f"photo {uri:.200} can't be read ({_reason(error)}); check path and access") from error


@contextmanager
def reaching(uri: str) -> Iterator[None]:
    """Any error of a file system becomes a `ShardError` of one line."""
    try:
        yield
    except FashionRetrievalError:
        raise
    except (OSError, ValueError, NotImplementedError) as error:  # pyarrow's own are among these
        raise ShardError(f"{uri:.200} can't be used ({_reason(error)}); check the address and your access") from error


def _reason(error: Exception) -> str:
    return " ".join(str(getattr(error, "strerror", None) or error).split())[:200]


@cache
def _filesystem(root: str) -> tuple[FileSystem, str]:
    from pyarrow.fs import FileSystem, LocalFileSystem

    return (LocalFileSystem(), "/") if root.startswith("file:") else FileSystem.from_uri(root)
