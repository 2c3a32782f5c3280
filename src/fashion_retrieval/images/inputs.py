"""The kinds of photos a caller may give, checked: each becomes the bytes of a file or a PIL image."""

from __future__ import annotations

import os
import re
import sys
from collections.abc import Callable
from dataclasses import dataclass
from io import TextIOBase
from pathlib import Path
from threading import Lock
from typing import TYPE_CHECKING, Any, BinaryIO, TypeAlias, TypeGuard, Union, cast

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from fashion_retrieval.errors import ImageError, InputError

if TYPE_CHECKING:
    from torch import Tensor

ImageInput: TypeAlias = Union[str, Path, bytes, BinaryIO, Image.Image, NDArray[np.uint8], "Tensor"]
"""A path, the bytes of a file, a binary file object, a PIL image, an HWC uint8 RGB array or a CHW uint8 RGB tensor."""

SHARED = Lock()
"""Held while an object of the caller's is read: it may stand in a list twice, and two threads disturb each other."""

_URL = re.compile(r"(?:[a-z][a-z0-9+.-]+://|data:image/)", re.IGNORECASE)
_SHOWN = 160


@dataclass(frozen=True, slots=True)
class DeferredFile:
    """A photo that a thread of the reader fetches, from an object store for example.

    `name` is what messages call it; `read`, called at most once, returns the bytes of its file or raises `ImageError`.
    """

    name: str
    read: Callable[[], bytes]


def read_content(image: ImageInput | DeferredFile) -> bytes | Image.Image:
    """Read a photo whole: the bytes of its file or, where it has no file, a PIL image."""
    if isinstance(image, DeferredFile):
        return image.read()
    if isinstance(image, Image.Image):
        return image
    if isinstance(image, str | os.PathLike):
        return _read_path(image)
    if isinstance(image, bytes | bytearray | memoryview):
        return bytes(image)
    if isinstance(image, np.ndarray):
        return _from_array(image)
    if _is_tensor(image):
        return _from_tensor(image)
    if hasattr(image, "read"):
        return _read_stream(cast("BinaryIO", image))
    expected = "a path, bytes, a binary file object, a PIL image, an HWC uint8 array or a CHW uint8 tensor"
    raise InputError(f"a photo must be {expected}, got {type(image).__name__}; convert it to one of these")


def describe(image: object) -> str | None:
    """A short name of the photo, its file name, or None where it has none."""
    path = image if isinstance(image, str | os.PathLike) else getattr(image, "name", getattr(image, "filename", None))
    if not isinstance(path, str | os.PathLike):
        return None
    name = Path(os.fsdecode(path)).name
    return name.encode("utf-8", "backslashreplace").decode("utf-8") or None


def called(image: object) -> str:
    """What messages call a photo: "photo 'dress.jpg'"."""
    if isinstance(image, str | os.PathLike):
        path = os.fsdecode(image)
        return f"photo {path if len(path) <= _SHOWN else '…' + path[-_SHOWN:]!r}"
    name = describe(image)
    return f"photo {name!r}" if name else f"the photo given as {type(image).__name__}"


def is_photo(image: object) -> bool:
    """Whether something is one photo, and not several or none."""
    data = isinstance(image, str | os.PathLike | bytes | bytearray | memoryview)
    return data or isinstance(image, Image.Image | np.ndarray) or _is_tensor(image) or hasattr(image, "read")


def _read_path(source: str | os.PathLike[str]) -> bytes:
    name = called(source)
    if isinstance(source, str) and _URL.match(source):
        raise ImageError(f"{name} is a URL; download it first and give the file")
    path = Path(source)
    try:
        if path.is_dir():
            raise ImageError(f"{name} is a folder; give the photos inside it")
        return path.read_bytes()
    except FileNotFoundError as error:
        raise ImageError(f"{name} does not exist; check the path") from error
    except ImageError:
        raise
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or error
        raise ImageError(f"{name} can't be opened ({reason}); check the path and its permissions") from error


def _read_stream(stream: BinaryIO) -> bytes:
    """All of a file object, from its beginning where it can seek."""
    name = called(stream)
    try:
        with SHARED:
            content: object = None
            if not isinstance(stream, TextIOBase):
                if stream.seekable():
                    stream.seek(0)
                content = stream.read()
    except (OSError, ValueError) as error:
        raise InputError(f"{name} can't be read ({error}); open it again") from error
    if not isinstance(content, bytes):
        raise InputError(f"{name} is a text file object; open it in binary mode, open(path, 'rb')")
    return content


def _from_array(array: NDArray[Any]) -> Image.Image:
    got = f"{array.dtype} {array.shape}"
    if array.dtype != np.uint8:
        raise InputError(f"a photo array must be uint8 in [0, 255], got {got}; scale it and use .astype(np.uint8)")
    if array.ndim == 2:
        raise InputError(f"a photo array must be (H, W, 3) RGB, got {got}; for gray use np.stack([array] * 3, axis=-1)")
    if array.ndim == 3 and array.shape[0] == 3 != array.shape[2]:
        raise InputError(f"a photo array must be (H, W, 3) RGB, got {got}; use array.transpose(1, 2, 0)")
    if array.ndim != 3 or array.shape[2] != 3:
        raise InputError(f"a photo array must be (H, W, 3) RGB, got {got}; pass one photo and drop alpha")
    if 0 in array.shape:
        raise InputError(f"a photo array must have pixels, got {got}")
    return Image.fromarray(array)


def _from_tensor(tensor: Tensor) -> Image.Image:
    shape = tuple(tensor.shape)
    got = f"{tensor.dtype} {shape}".removeprefix("torch.")
    if tensor.element_size() != 1 or tensor.is_floating_point() or "uint8" not in got:
        raise InputError(f"a photo tensor must be uint8 in [0, 255], got {got}; scale it and use .to(torch.uint8)")
    if len(shape) == 3 and shape[2] == 3 != shape[0]:
        raise InputError(f"a photo tensor must be (3, H, W) RGB, got {got}; use tensor.permute(2, 0, 1)")
    if len(shape) != 3 or shape[0] != 3 or 0 in shape:
        raise InputError(f"a photo tensor must be (3, H, W) RGB, got {got}; pass one photo with three channels")
    return _from_array(tensor.detach().permute(1, 2, 0).cpu().numpy())


def _is_tensor(image: object) -> TypeGuard[Tensor]:
    torch = sys.modules.get("torch")
    return torch is not None and isinstance(image, torch.Tensor)
