"""The one way any photo becomes upright RGB pixels. Pillow's global settings and warning filters are left alone."""

from __future__ import annotations

import hashlib
import re
import struct
from io import BytesIO

import numpy as np
import simplejpeg
from numpy.typing import NDArray
from PIL import ExifTags, Image, ImageOps
from PIL.JpegImagePlugin import JpegImageFile

from fashion_retrieval.errors import ImageError
from fashion_retrieval.images.inputs import SHARED, DeferredFile, ImageInput, called, read_content

MAX_PIXELS = 178_956_970
"""Photos with more pixels are refused unless `max_pixels` says otherwise; about 13,400 x 13,400."""

_ORIENTATION = int(ExifTags.Base.Orientation)
_XMP_ORIENTATION = re.compile(rb'tiff:Orientation(?:="|>)([0-9])')


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
    return Image.fromarray(load_pixels(image, max_pixels=max_pixels))


def load_pixels(image: ImageInput | DeferredFile, *, max_pixels: int | None = None) -> NDArray[np.uint8]:
    """`load_image` as an array of its own, (H, W, 3) uint8 in [0, 255]."""
    return decode(read_content(image), called(image), max_pixels=max_pixels)


def decode(content: bytes | Image.Image, name: str, *, max_pixels: int | None = None) -> NDArray[np.uint8]:
    """Decode what `read_content` gives: upright RGB pixels, (H, W, 3) uint8, which share nothing with it.

    `name` is what messages call the photo. An `ImageError` where it can't be decoded, or has too many pixels.
    """
    limit = MAX_PIXELS if max_pixels is None else max_pixels
    if isinstance(content, Image.Image):
        with SHARED:
            return _pixels(content, name, limit)
    if not content:
        raise ImageError(f"{name} is empty (0 bytes); copy or download it again")
    try:
        opened = _open(content)
    except Image.DecompressionBombError as error:  # the WebP reader's own check
        raise ImageError(f"{name} is over Pillow's limit ({error}); raise PIL.Image.MAX_IMAGE_PIXELS") from error
    except Exception as error:  # a broken header makes Pillow's readers raise nearly anything
        raise _undecodable(name, error) from error
    if opened is None:
        raise ImageError(f"{name} is not a photo in a known format; convert it to JPEG or PNG")
    with opened:
        return _pixels(opened, name, limit, content)


def digest_of(content: bytes | NDArray[np.uint8]) -> str:
    """SHA-256 of a file's bytes or, for a photo without a file, of the size and pixels, (H, W, 3) uint8; in hex."""
    if isinstance(content, bytes):
        return hashlib.sha256(content).hexdigest()
    height, width = content.shape[:2]
    digest = hashlib.sha256(f"{(width, height)}".encode())
    digest.update(np.ascontiguousarray(content).data)
    return digest.hexdigest()


class _Jpeg(JpegImageFile):
    """A JPEG file whose EXIF data stay unread: Pillow warns where they are damaged."""

    def _read_dpi_from_exif(self) -> None:
        pass


def _open(content: bytes) -> Image.Image | None:
    """`Image.open` without its check of the size, which warns and obeys a global setting; None for no known format."""
    stream, tried = BytesIO(content), set[str]()
    for register_formats in (Image.preinit, Image.init):  # the common ones, then all
        register_formats()
        for name in [name for name in Image.ID if name not in tried]:
            tried.add(name)
            opener, accepts = Image.OPEN[name]
            if accepts is None or accepts(content[:16]) is True:
                stream.seek(0)
                try:
                    return _Jpeg(stream) if name == "JPEG" else opener(stream, "")
                except (SyntaxError, IndexError, TypeError, struct.error):  # of another format after all
                    continue
    return None


def _pixels(image: Image.Image, name: str, limit: int, content: bytes | None = None) -> NDArray[np.uint8]:
    """Decode an opened image; `content` is its file, if it has one."""
    width, height = image.size
    if not width or not height:
        raise ImageError(f"{name} has no pixels ({width}x{height}); give a photo of at least 1x1")
    if width * height > limit:
        raise ImageError(f"{name} has {width}x{height} pixels, over max_pixels={limit}; shrink it or raise max_pixels")
    try:
        pixels = _decode_jpeg(content) if content and isinstance(image, _Jpeg) and image.mode == "RGB" else None
        if pixels is None:
            pixels = np.array(_to_rgb(image))
        orientation = _orientation(image, is_file=content is not None)
        if orientation == 1:
            return pixels
        turned = Image.fromarray(pixels)
        turned.getexif()[_ORIENTATION] = orientation
        return np.array(ImageOps.exif_transpose(turned))
    except Exception as error:  # damaged data makes Pillow's readers raise nearly anything
        raise _undecodable(name, error) from error


def _decode_jpeg(content: bytes) -> NDArray[np.uint8] | None:
    """The (H, W, 3) pixels of a JPEG file, equal to Pillow's in half the time; None leaves the file to Pillow."""
    try:
        pixels: NDArray[np.uint8] = simplejpeg.decode_jpeg(content, colorspace="RGB")
    except ValueError:  # a damaged file: Pillow says what is wrong with it, or overlooks it
        return None
    return pixels


def _to_rgb(image: Image.Image) -> Image.Image:
    image.load()
    if image.mode == "I" or image.mode.startswith("I;16"):
        values = np.asarray(image, dtype=np.int32)
        if values.min() < 0 or values.max() > 65_535:
            raise ValueError(f"its gray values run from {values.min()} to {values.max()}, beyond 16 bits")
        return Image.fromarray(((values + 128) // 257).astype(np.uint8)).convert("RGB")
    if image.mode == "F":
        raise ValueError("its pixels are 32-bit floats of unknown range")
    if not image.has_transparency_data:
        return image if image.mode == "RGB" else image.convert("RGB")
    layer = image.convert("RGBA")
    canvas = Image.new("RGB", image.size, "white")
    canvas.paste(layer, (0, 0), layer)
    return canvas


def _orientation(image: Image.Image, *, is_file: bool) -> int:
    """The EXIF orientation of an image, or else that of its XMP data; 1, upright, where neither can be read."""
    exif = image.info.get("exif") if is_file else None
    try:
        if not exif:
            return int(image.getexif().get(_ORIENTATION, 1))
        xmp = image.info.get("xmp") or str(image.info.get("XML:com.adobe.xmp", "")).encode()
        found = _XMP_ORIENTATION.search(xmp)
        return _exif_orientation(exif) or (int(found[1]) if found else 1)
    except Exception:  # a photo with damaged EXIF is still a photo
        return 1


def _exif_orientation(exif: bytes) -> int | None:
    """The orientation in the first directory of EXIF data, read here because Pillow warns where they are damaged."""
    data = exif.removeprefix(b"Exif\0\0")
    order = {b"II": "<", b"MM": ">"}.get(data[:2], "")
    try:
        (start,) = struct.unpack_from(f"{order}L", data, 4)
        (count,) = struct.unpack_from(f"{order}H", data, start)
        for entry in range(start + 2, start + 2 + 12 * count, 12):
            tag, kind = struct.unpack_from(f"{order}HH", data, entry)
            if tag == _ORIENTATION:
                return int(struct.unpack_from(order + {3: "H", 4: "L"}[kind], data, entry + 8)[0])
    except (KeyError, struct.error):
        pass
    return None


def _undecodable(name: str, error: Exception) -> ImageError:
    reason = str(error) or type(error).__name__
    return ImageError(f"{name} can't be decoded ({reason}); copy it again or convert it to an 8-bit JPEG or PNG")
