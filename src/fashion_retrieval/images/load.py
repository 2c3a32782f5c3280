"""The one way any photo becomes upright RGB pixels. Pillow's global settings and warning filters are left alone."""

from __future__ import annotations

import hashlib
import re
import struct
from io import BytesIO

import numpy as np
import simplejpeg
from numpy.typing import NDArray
from PIL import ExifTags, Image
from PIL.JpegImagePlugin import JpegImageFile
from PIL.TiffImagePlugin import ImageFileDirectory_v2

from fashion_retrieval._utils.optional import imported
from fashion_retrieval.errors import ImageError, MissingExtraError
from fashion_retrieval.images.color import ToSRGB, coded_profile, gamma_profile, to_srgb
from fashion_retrieval.images.containers import code_points, damaged_chunk, is_heic, is_isobmff
from fashion_retrieval.images.inputs import SHARED, DeferredFile, ImageInput, called, read_content
from fashion_retrieval.images.pixels import Pixels

MAX_PIXELS = 178_956_970
"""Photos with more pixels are refused unless `max_pixels` says otherwise; about 13,400 x 13,400."""

_ORIENTATION = int(ExifTags.Base.Orientation)
_BITS, _COMPRESSION, _PHOTOMETRIC, _PLANAR, _SAMPLES = 258, 259, 262, 284, 339
"""Tags of TIFF."""
_XMP_ORIENTATION = re.compile(rb'tiff:Orientation(?:="|>)([0-9])')
_PROFILED = ("RGB", "L", "CMYK")
_JPEG_SPACES = {"RGB": "RGB", "L": "GRAY", "CMYK": "CMYK"}
_END_OF_JPEG = b"\xff\xd9"
_LOST = re.compile(r"premature|bad huffman|bad arithmetic|instead of RST", re.IGNORECASE)
"""What libjpeg says where data is missing or wrong; its other warnings leave the photo whole."""


def load_image(image: ImageInput, *, max_pixels: int | None = None) -> Image.Image:
    """Any photo as an upright sRGB image that shares nothing with the input.

    EXIF orientation is applied, colors are converted to sRGB from the profile in the file, transparency lies on white,
    16-bit gray is scaled to 8 bits, and of an animation the first frame counts. A PIL image is taken at its current
    frame and is not changed.

    Args:
        image: See `ImageInput`.
        max_pixels: Refuse photos with more pixels, before they are decoded; None is `MAX_PIXELS`.

    Raises:
        ImageError: The photo can't be found, read or decoded, is damaged, or is too large.
        InputError: The type, dtype or shape is not one of `ImageInput`.
    """
    return Image.fromarray(load_pixels(image, max_pixels=max_pixels))


def load_pixels(image: ImageInput | DeferredFile, *, max_pixels: int | None = None) -> NDArray[np.uint8]:
    """`load_image` as an array of its own, (H, W, 3) uint8 in [0, 255]."""
    return decode(read_content(image), called(image), max_pixels=max_pixels).srgb()


def decode(content: bytes | Image.Image, name: str, *, max_pixels: int | None = None) -> Pixels:
    """Decode what `read_content` gives: pixels which share nothing with it.

    `name` is what messages call the photo. An `ImageError` where it can't be decoded, or has too many pixels.
    """
    limit = MAX_PIXELS if max_pixels is None else max_pixels
    if isinstance(content, Image.Image):
        with SHARED:
            return _decoded(content, name, limit)
    if not content:
        raise ImageError(f"{name} is empty (0 bytes); copy or download it again")
    try:
        opened, reason = _open(content)
    except Image.DecompressionBombError as error:  # the WebP reader's own check
        raise ImageError(f"{name} is over Pillow's limit ({error}); raise PIL.Image.MAX_IMAGE_PIXELS") from error
    except ImageError:
        raise
    except MissingExtraError as error:
        raise ImageError(f"{name} is HEIC: {error}") from error
    except Exception as error:  # a broken header makes Pillow's readers raise nearly anything
        raise _undecodable(name, error) from error
    if opened is None and reason is not None:
        if str(reason) == "unknown pixel mode":
            reason = _unread_tiff(content) or reason
        raise _undecodable(name, reason)
    if opened is None:
        raise ImageError(f"{name} is not a photo in a known format; convert it to JPEG or PNG")
    with opened:
        return _decoded(opened, name, limit, content)


def digest_of(content: bytes | Pixels) -> str:
    """SHA-256 of a file's bytes or, for a photo without a file, of the size and sRGB pixels; in hex."""
    if isinstance(content, bytes):
        return hashlib.sha256(content).hexdigest()
    digest = hashlib.sha256(f"{(content.width, content.height)}".encode())
    digest.update(np.ascontiguousarray(content.srgb()).data)
    return digest.hexdigest()


class _Jpeg(JpegImageFile):
    """A JPEG file whose EXIF data stay unread: Pillow warns where they are damaged."""

    def _read_dpi_from_exif(self) -> None:
        pass


def _open(content: bytes) -> tuple[Image.Image | None, Exception | None]:
    """`Image.open` without its check of the size, which warns and obeys a global setting.

    None for no known format, with the reason of one whose beginning it has.
    """
    stream, tried = BytesIO(content), set[str]()
    reason: Exception | None = None
    if is_heic(content):
        return imported("pillow_heif.as_plugin", "heif").HeifImageFile(stream), None  # not registered with Pillow
    for register_formats in (Image.preinit, Image.init):  # the common ones, then all
        register_formats()
        for name in [name for name in Image.ID if name not in tried]:
            tried.add(name)
            opener, accepts = Image.OPEN[name]
            accepted = False
            try:
                if accepts is None or (accepted := accepts(content[:16]) is True):
                    stream.seek(0)
                    return _Jpeg(stream) if name == "JPEG" else opener(stream, ""), None
            except (SyntaxError, IndexError, TypeError, struct.error) as error:  # of another format after all
                reason = reason or (error if accepted else None)
    return None, reason


def _decoded(image: Image.Image, name: str, limit: int, content: bytes | None = None) -> Pixels:
    """Decode an opened image; `content` is its file, if it has one."""
    width, height = image.size
    if not width or not height:
        raise ImageError(f"{name} has no pixels ({width}x{height}); give a photo of at least 1x1")
    if width * height > limit:
        raise ImageError(f"{name} has {width}x{height} pixels, over max_pixels={limit}; shrink it or raise max_pixels")
    try:
        if content and (chunk := damaged_chunk(content)):
            raise ValueError(f"parts of it are lost: the checksum of its chunk {chunk} is wrong")
        profile = _profile(image, name, content)
        levels = _decode_jpeg(content, image.mode) if content and isinstance(image, _Jpeg) else None
        if levels is not None and image.mode == "RGB":
            remaining = to_srgb(profile, "RGB") if profile else None
        else:
            plain = image if levels is None else Image.frombuffer(image.mode, image.size, levels)
            rgb, remaining = _to_rgb(plain, profile, coded=profile is not image.info.get("icc_profile"))
            levels = np.array(rgb)
        # Last, because a reader may load the image for it, and hide what went wrong.
        return Pixels(levels, _orientation(image, content), remaining).turned_if_small()
    except ImageError:
        raise
    except Exception as error:  # damaged data makes Pillow's readers raise nearly anything
        raise _undecodable(name, error) from error


def _decode_jpeg(content: bytes, mode: str) -> NDArray[np.uint8] | None:
    """The (H, W, channels) levels of a JPEG file, equal to Pillow's in half the time; None leaves the file to Pillow.

    Where parts of the photo are lost a `ValueError` is raised: Pillow fills them with gray and says nothing.
    """
    space = _JPEG_SPACES.get(mode)
    if space is None:
        return None
    for ending in (b"", _END_OF_JPEG):
        try:
            levels: NDArray[np.uint8] = simplejpeg.decode_jpeg(content + ending, colorspace=space)
        except ValueError as error:
            # Without an end mark nothing need be lost: with one it is looked at again.
            if str(error).startswith("Premature end of JPEG") and not ending:
                continue
            if _LOST.search(str(error)):
                raise ValueError(f"parts of it are lost: {error}") from error
            return None  # harmless, or nothing that this decoder reads
        return 255 - levels if mode == "CMYK" else levels  # as Pillow has it
    return None


def _profile(image: Image.Image, name: str, content: bytes | None) -> bytes | None:
    """What the numbers of an image mean, as an ICC profile; None is sRGB.

    The file's profile comes first, then code points, then a PNG's gamma, as PNG and HEIF order them.
    """
    tagged = image.info.get("icc_profile")
    points = code_points(content) if content else None
    if content and points and (not tagged or content.startswith(b"\x89PNG")):
        return coded_profile(*points, name)
    if isinstance(tagged, bytes) and tagged:
        return tagged
    gamma = image.info.get("gamma")
    if not isinstance(gamma, float) or "srgb" in image.info:
        return None
    xy = image.info.get("chromaticity")  # white first
    pairs = list(zip(xy[::2], xy[1::2], strict=True)) if xy else []
    return gamma_profile(gamma, (*pairs[1:], pairs[0]) if len(pairs) == 4 else None)


def _to_rgb(image: Image.Image, profile: bytes | None, *, coded: bool) -> tuple[Image.Image, ToSRGB | None]:
    """An RGB image, and the way to sRGB that is left to go: other modes go it here.

    `coded` profiles, of code points or a gamma, are for RGB, and gray is taken as such.
    """
    tags = getattr(image, "tag_v2", {})
    if tags.get(_PLANAR) == 2 and tags.get(_COMPRESSION, 1) == 1 and max(tags.get(_BITS, (8,))) > 8:
        raise ValueError("its 16-bit channels lie one after the other, uncompressed, which Pillow mixes up")
    image.load()
    if image.mode == "I" or image.mode.startswith("I;16"):
        values = np.asarray(image, dtype=np.int32)
        if values.min() < 0 or values.max() > 65_535:
            raise ValueError(f"its gray values run from {values.min()} to {values.max()}, beyond 16 bits")
        if tags.get(_PHOTOMETRIC) == 0:  # white is zero, which Pillow heeds in 8 bits only
            values = 65_535 - values
        image = Image.fromarray(((values + 128) // 257).astype(np.uint8))
    if image.mode == "F":
        raise ValueError("its pixels are 32-bit floats of unknown range")
    opacity = image.convert("RGBA").getchannel("A") if image.has_transparency_data else None
    if opacity is not None:
        image = image.getchannel("L") if image.mode == "LA" else image.convert("RGBA").convert("RGB")
    elif image.mode not in _PROFILED:
        profile = profile if image.mode == "P" else None  # LAB and YCbCr are what they are, whatever is claimed
        image = image.convert("L" if image.mode == "1" else "RGB")
    if coded and image.mode == "L":
        image = image.convert("RGB")
    remaining = to_srgb(profile, image.mode) if profile else None
    if image.mode != "RGB":
        image, remaining = (remaining.image(image) if remaining else image.convert("RGB")), None
    if opacity is None:
        return image, remaining
    canvas = Image.new("RGB", image.size, "white")
    canvas.paste(remaining.image(image) if remaining else image, (0, 0), opacity)
    return canvas, None


def _orientation(image: Image.Image, content: bytes | None) -> int:
    """The EXIF orientation of an image, or else that of its XMP data; 1, upright, where neither can be read.

    Readers of AVIF put the file's own turning into EXIF, and those of HEIC have turned it.
    """
    try:
        if content is not None and is_heic(content):
            return 1
        exif = image.info.get("exif") if content is not None else None
        if not exif and (content is None or not is_isobmff(content)):
            return _checked(int(image.getexif().get(_ORIENTATION, 1)))
        found = None
        if content is not None and not is_isobmff(content):
            xmp = image.info.get("xmp") or str(image.info.get("XML:com.adobe.xmp", "")).encode()
            found = _XMP_ORIENTATION.search(xmp)
        return _checked((_exif_orientation(exif) if exif else None) or (int(found[1]) if found else 1))
    except Exception:  # a photo with damaged EXIF is still a photo
        return 1


def _checked(orientation: int) -> int:
    return orientation if 1 <= orientation <= 8 else 1


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


def _unread_tiff(content: bytes) -> ValueError | None:
    """What the pixels of a TIFF file are that Pillow can't read and says nothing of."""
    try:
        tags = ImageFileDirectory_v2(content[: 16 if content[2:4] in (b"+\0", b"\0+") else 8])
        stream = BytesIO(content)
        stream.seek(tags.next)
        tags.load(stream)
        bits, floats = max(tags.get(_BITS, (1,))), 3 in tags.get(_SAMPLES, (1,))
    except Exception:  # damaged tags raise nearly anything; the photo is refused in any case, with Pillow's reason
        return None
    rest = "floats of unknown range" if floats else "integers, in an order that Pillow doesn't know"
    return ValueError(f"its pixels are {bits}-bit {rest}")


def _undecodable(name: str, error: Exception) -> ImageError:
    reason = str(error) or type(error).__name__
    return ImageError(f"{name} can't be decoded ({reason}); copy it again or convert it to an 8-bit JPEG or PNG")
