"""The one way any photo becomes an upright RGB image, and the crops of its regions."""

from __future__ import annotations

import os
import re
import sys
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from io import BytesIO
from pathlib import Path
from threading import Lock
from typing import TYPE_CHECKING, Any, BinaryIO, TypeAlias, TypeGuard, TypeVar, Union

import numpy as np
import simplejpeg
from numpy.typing import NDArray
from PIL import ExifTags, Image, UnidentifiedImageError

from fashion_retrieval.errors import ImageError, InputError

if TYPE_CHECKING:
    from torch import Tensor

ImageInput: TypeAlias = Union[str, Path, bytes, BinaryIO, Image.Image, NDArray[np.uint8], "Tensor"]
"""A path, the bytes of a file, a binary file object, a PIL image, an HWC uint8 RGB array or a CHW uint8 RGB tensor."""

Result = TypeVar("Result")
Finish: TypeAlias = Callable[[Image.Image, BinaryIO | None], Result]
"""An image that may not be loaded yet, and the file that it was opened from here -> what is asked for."""

MAX_PIXELS = 178_956_970
"""Photos with more pixels are refused unless `max_pixels` says otherwise; about 13,400 x 13,400."""

_URL = re.compile(r"(?:[a-z][a-z0-9+.-]+://|data:image/)", re.IGNORECASE)
_SHOWN = 160
_PILLOW_GLOBALS = Lock()
_SHARED = Lock()
"""Held while an object of the caller's is read: it may stand in a list twice, and two threads disturb each other."""
_TURNS = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}


def load_image(image: ImageInput, *, max_pixels: int | None = None) -> Image.Image:
    """Any photo as an upright RGB image that shares nothing with the input.

    EXIF orientation is applied, transparency lies on white, 16-bit gray is scaled to 8 bits, and of an animation the
    first frame counts. A PIL image is taken at its current frame and is not changed.

    Args:
        image: See `ImageInput`.
        max_pixels: Refuse photos with more pixels, before they are decoded; None is `MAX_PIXELS`.

    Raises:
        ImageError: The photo can't be found, read or decoded, or is too large.
        InputError: The type, dtype or shape is not one of `ImageInput`.
    """
    return _load(image, max_pixels, _as_image)


def load_pixels(image: ImageInput, *, max_pixels: int | None = None) -> NDArray[np.uint8]:
    """The same as an array, (H, W, 3) uint8: of a JPEG file, in half the time."""
    return _load(image, max_pixels, _as_array)


def _load(image: ImageInput, max_pixels: int | None, finish: Finish[Result]) -> Result:
    limit = MAX_PIXELS if max_pixels is None else max_pixels
    name = _called(image)
    if isinstance(image, Image.Image):
        with _SHARED:
            return _decode(image, name, limit, finish)
    if isinstance(image, str | os.PathLike):
        return _from_path(image, name, limit, finish)
    if isinstance(image, bytes | bytearray | memoryview):
        return _from_stream(BytesIO(image), name, limit, finish)
    if isinstance(image, np.ndarray):
        return _decode(_from_array(image), name, limit, finish)
    if _is_tensor(image):
        return _decode(_from_tensor(image), name, limit, finish)
    if _is_stream(image):
        with _SHARED:
            return _from_stream(image, name, limit, finish)
    expected = "a path, bytes, a binary file object, a PIL image, an HWC uint8 array or a CHW uint8 tensor"
    raise InputError(f"a photo must be {expected}, got {type(image).__name__}; convert it to one of these")


def describe(image: ImageInput) -> str | None:
    """A short name of the photo, its file name, or None where it has none."""
    path = image if isinstance(image, str | os.PathLike) else getattr(image, "name", getattr(image, "filename", None))
    if not isinstance(path, str | os.PathLike):
        return None
    name = Path(os.fsdecode(path)).name
    return name.encode("utf-8", "backslashreplace").decode("utf-8") or None


def is_photo(image: object) -> bool:
    """Whether something is one photo, and not several or none."""
    data = isinstance(image, str | os.PathLike | bytes | bytearray | memoryview)
    return data or isinstance(image, Image.Image | np.ndarray) or _is_tensor(image) or _is_stream(image)


def _from_path(source: str | os.PathLike[str], name: str, limit: int, finish: Finish[Result]) -> Result:
    if isinstance(source, str) and _URL.match(source):
        raise ImageError(f"{name} is a URL; download it first and give the file")
    path = Path(source)
    try:
        if path.is_dir():
            raise ImageError(f"{name} is a folder; give the photos inside it")
        with path.open("rb") as stream:
            return _from_stream(stream, name, limit, finish)
    except FileNotFoundError as error:
        raise ImageError(f"{name} does not exist; check the path") from error
    except InputError:
        raise
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or error
        raise ImageError(f"{name} can't be opened ({reason}); check the path and its permissions") from error


def _from_stream(stream: BinaryIO, name: str, limit: int, finish: Finish[Result]) -> Result:
    if not stream.seekable():
        stream = BytesIO(stream.read())
    stream.seek(0)
    first = stream.read(1)
    if isinstance(first, str):
        raise InputError(f"{name} is a text file object; open it in binary mode, open(path, 'rb')")
    if not first:
        raise ImageError(f"{name} is empty (0 bytes); copy or download it again")
    try:
        with _pillow_header():
            opened = Image.open(stream)
    except UnidentifiedImageError as error:
        raise ImageError(f"{name} is not a photo in a known format; convert it to JPEG or PNG") from error
    except Exception as error:  # a broken header makes Pillow's readers raise nearly anything
        raise _undecodable(name, error) from error
    with opened:
        return _decode(opened, name, limit, finish, stream)


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


def _is_stream(image: object) -> TypeGuard[BinaryIO]:
    return hasattr(image, "read")


def _decode(
    image: Image.Image, name: str, limit: int, finish: Finish[Result], stream: BinaryIO | None = None
) -> Result:
    width, height = image.size
    if not width or not height:
        raise ImageError(f"{name} has no pixels ({width}x{height}); give a photo of at least 1x1")
    if width * height > limit:
        raise ImageError(f"{name} has {width}x{height} pixels, over max_pixels={limit}; shrink it or raise max_pixels")
    try:
        return finish(image, stream)
    except Exception as error:  # damaged data makes Pillow's readers raise nearly anything
        raise _undecodable(name, error) from error


def _as_image(image: Image.Image, stream: BinaryIO | None) -> Image.Image:
    upright = _upright(_to_rgb(image), image)
    own = upright.convert("RGB") if upright is image else upright
    own.info.clear()
    return own


def _as_array(image: Image.Image, stream: BinaryIO | None) -> NDArray[np.uint8]:
    if stream is None or image.format != "JPEG" or image.mode != "RGB" or (pixels := _jpeg(stream)) is None:
        return np.array(_upright(_to_rgb(image), image))
    turn = _turn(image)
    return pixels if turn is None else np.array(Image.fromarray(pixels).transpose(turn))


def _jpeg(stream: BinaryIO) -> NDArray[np.uint8] | None:
    """The (H, W, 3) pixels of a JPEG file, the same as Pillow's in half the time; None leaves the file to Pillow."""
    stream.seek(0)
    try:
        pixels: NDArray[np.uint8] = simplejpeg.decode_jpeg(stream.read(), colorspace="RGB")
    except ValueError:  # of a damaged file: Pillow tells what is wrong with it, or overlooks it
        return None
    return pixels


def _to_rgb(image: Image.Image) -> Image.Image:
    image.load()
    if image.mode == "I" or image.mode.startswith("I;16"):
        return _from_sixteen_bits(image)
    if image.mode == "F":
        raise ValueError("its pixels are 32-bit floats of unknown range")
    if not image.has_transparency_data:
        return image if image.mode == "RGB" else image.convert("RGB")
    layer = image.convert("RGBA")
    canvas = Image.new("RGB", image.size, "white")
    canvas.paste(layer, (0, 0), layer)
    return canvas


def _from_sixteen_bits(image: Image.Image) -> Image.Image:
    values = np.asarray(image, dtype=np.int32)
    if values.min() < 0 or values.max() > 65_535:
        raise ValueError(f"its gray values run from {values.min()} to {values.max()}, beyond 16 bits")
    return Image.fromarray(((values + 128) // 257).astype(np.uint8)).convert("RGB")


def _upright(rgb: Image.Image, original: Image.Image) -> Image.Image:
    turn = _turn(original)
    return rgb if turn is None else rgb.transpose(turn)


def _turn(image: Image.Image) -> Image.Transpose | None:
    """What turns a photo upright, by its EXIF orientation."""
    try:
        with _pillow_header():
            return _TURNS.get(image.getexif().get(ExifTags.Base.Orientation, 1))
    except Exception:  # a photo with damaged EXIF is still a photo
        return None


def _undecodable(name: str, error: Exception) -> ImageError:
    reason = str(error) or type(error).__name__
    return ImageError(f"{name} can't be decoded ({reason}); copy it again or convert it to an 8-bit JPEG or PNG")


@contextmanager
def _pillow_header() -> Iterator[None]:
    # Pillow warns of damaged EXIF and of large photos, and refuses larger ones by a global of its own.
    with _PILLOW_GLOBALS, warnings.catch_warnings(action="ignore"):
        before, Image.MAX_IMAGE_PIXELS = Image.MAX_IMAGE_PIXELS, None
        try:
            yield
        finally:
            Image.MAX_IMAGE_PIXELS = before


def _called(image: object) -> str:
    if isinstance(image, str | os.PathLike):
        path = os.fsdecode(image)
        return f"photo {path if len(path) <= _SHOWN else '…' + path[-_SHOWN:]!r}"
    name = describe(image)  # type: ignore[arg-type]
    return f"photo {name!r}" if name else f"the photo given as {type(image).__name__}"
