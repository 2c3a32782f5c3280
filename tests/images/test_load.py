"""Every kind of photo becomes the right RGB pixels, and every bad one gets one line that says what to do."""

import os
import struct
import warnings
import zlib
from io import BytesIO
from pathlib import Path

import numpy as np
import pytest
import tifffile
import torch
from PIL import ExifTags, Image, ImageDraw

from fashion_retrieval.errors import ImageError, InputError
from fashion_retrieval.images import load
from fashion_retrieval.images.inputs import describe, is_photo
from fashion_retrieval.images.load import load_image, load_pixels
from fashion_retrieval.images.preprocess import resized
from fashion_retrieval.images.regions import check_boxes, crop_region, masked_crop

RED, GREEN, BLUE, WHITE = (255, 0, 0), (0, 255, 0), (0, 0, 255), (255, 255, 255)


def corners(width=8, height=6):
    """Red top left, green top right, blue bottom left, white bottom right."""
    image = Image.new("RGB", (width, height), WHITE)
    draw = ImageDraw.Draw(image)
    draw.rectangle((0, 0, width // 2 - 1, height // 2 - 1), fill=RED)
    draw.rectangle((width // 2, 0, width - 1, height // 2 - 1), fill=GREEN)
    draw.rectangle((0, height // 2, width // 2 - 1, height - 1), fill=BLUE)
    return image


def encoded(image, kind, **options):
    buffer = BytesIO()
    image.save(buffer, format=kind, **options)
    return buffer.getvalue()


def pixels(image, **options):
    """What `load_image` gives and, of what can be read twice, `load_pixels` too."""
    found = np.asarray(load_image(image, **options))
    if not hasattr(image, "read"):
        np.testing.assert_array_equal(load_pixels(image, **options), found)
    return found


def error_of(image, kind=ImageError, **options):
    with pytest.raises(kind) as caught:
        load_image(image, **options)
    with pytest.raises(kind) as same:
        load_pixels(image, **options)
    message = str(caught.value)
    assert message == str(same.value)
    assert "\n" not in message
    assert len(message) < 300
    return message


# --- what a photo can be given as


def test_every_way_to_give_a_photo_gives_the_same_pixels(tmp_path):
    photo = corners()
    expected = np.asarray(photo)
    path = tmp_path / "photo.png"
    photo.save(path)
    data = path.read_bytes()
    read_to_the_end = BytesIO(data)
    read_to_the_end.read()
    with path.open("rb") as stream:
        ways = [str(path), path, data, bytearray(data), memoryview(data), stream, read_to_the_end, photo]
        ways += [expected, expected[::-1][::-1], torch.from_numpy(expected.copy()).permute(2, 0, 1)]
        for way in ways:
            loaded = load_image(way)
            assert loaded.mode == "RGB"
            np.testing.assert_array_equal(np.asarray(loaded), expected)


def test_a_pipe_is_read_to_its_end():
    reading, writing = os.pipe()
    with os.fdopen(writing, "wb") as stream:
        stream.write(encoded(corners(), "PNG"))
    with os.fdopen(reading, "rb") as stream:
        np.testing.assert_array_equal(pixels(stream), np.asarray(corners()))


def test_the_result_shares_nothing_with_the_input():
    array = np.zeros((4, 4, 3), dtype=np.uint8)
    loaded = load_image(array)
    array[:] = 255
    assert np.asarray(loaded).max() == 0
    image = corners()
    load_image(image).paste(BLUE, (0, 0, 8, 6))
    load_pixels(image)[:] = 0
    assert image.getpixel((0, 0)) == RED


@pytest.mark.parametrize("name", ["Kleid größe 38 服装 👗.png", "x" * 251 + ".png", "two\nlines.png"])
def test_unusual_file_names(tmp_path, name):
    path = tmp_path / name
    corners().save(path)
    np.testing.assert_array_equal(pixels(path), np.asarray(corners()))
    assert describe(path) == name


def test_describe():
    assert describe("folder/dress.jpg") == "dress.jpg"
    assert describe(Path("dress.jpg")) == "dress.jpg"
    assert describe(b"...") is None
    assert describe(np.zeros((2, 2, 3), dtype=np.uint8)) is None
    assert describe(torch.zeros(3, 2, 2)) is None
    assert describe(corners()) is None
    assert describe(BytesIO()) is None
    assert describe(os.fsdecode(b"caf\xe9.jpg")).isascii()


def test_describe_names_opened_files(tmp_path):
    path = tmp_path / "coat.png"
    corners().save(path)
    with path.open("rb") as stream, Image.open(path) as image:
        assert describe(stream) == describe(image) == "coat.png"


def test_one_photo_is_told_from_several(tmp_path):
    with (tmp_path / "a").open("wb+") as stream:
        one = ["a.jpg", tmp_path, b"", stream, corners(), np.zeros((1, 1, 3)), torch.zeros(1), memoryview(b"")]
        assert all(is_photo(image) for image in one)
    assert not any(is_photo(image) for image in (["a.jpg"], ("a.jpg",), iter(["a.jpg"]), None, 7, {"a.jpg"}))


# --- what a file can hold


@pytest.mark.parametrize("orientation", range(1, 9))
def test_exif_orientation_is_undone(orientation):
    turns = {2: 0, 3: 3, 4: 1, 5: 5, 6: 2, 7: 6, 8: 4}  # PIL's code of the turn that a viewer has to undo
    stored = corners(32, 16) if orientation == 1 else corners(32, 16).transpose(Image.Transpose(turns[orientation]))
    exif = Image.Exif()
    exif[0x0112] = orientation
    upright = load_image(encoded(stored, "JPEG", exif=exif, quality=95, subsampling=0))
    assert upright.size == (32, 16)
    for x, y, color in ((4, 3, RED), (27, 3, GREEN), (4, 12, BLUE), (27, 12, WHITE)):
        assert np.abs(np.subtract(upright.getpixel((x, y)), color)).max() < 12
    again = load_image(upright)
    np.testing.assert_array_equal(np.asarray(again), np.asarray(upright))


def test_damaged_exif_does_not_cost_the_photo():
    data = encoded(corners(16, 16), "JPEG", exif=b"Exif\0\0II*\0garbage")
    assert load_image(data).size == (16, 16)


def test_cmyk_jpeg():
    loaded = load_image(encoded(Image.new("CMYK", (16, 16), (255, 0, 0, 0)), "JPEG", quality=95))
    assert np.abs(np.subtract(loaded.getpixel((8, 8)), (0, 255, 255))).max() <= 3


@pytest.mark.parametrize("kind", ["PNG", "TIFF"])
def test_sixteen_bits_are_scaled_to_eight(kind):
    gray = np.array([[0, 257, 256 * 100, 65_535]], dtype=np.uint16)
    expected = [0, 1, 100, 255]
    assert pixels(encoded(Image.fromarray(gray), kind))[0, :, 0].tolist() == expected


@pytest.mark.parametrize("mode", ["I;16", "I;16B", "I"])
def test_sixteen_bit_pil_modes(mode):
    kind = {"I;16": "<u2", "I;16B": ">u2", "I": "<i4"}[mode]
    image = Image.fromarray(np.array([[0, 32_896, 65_535]], dtype=kind))
    assert image.mode == mode
    assert pixels(image)[0].tolist() == [[0] * 3, [128] * 3, [255] * 3]


def test_transparency_lies_on_white():
    clear, half = (255, 0, 0, 0), (0, 0, 0, 128)
    image = Image.new("RGBA", (2, 1), clear)
    image.putpixel((1, 0), half)
    for data in (encoded(image, "PNG"), encoded(image, "WEBP", lossless=True, exact=True)):
        assert pixels(data)[0].tolist() == [[255] * 3, [127] * 3]
    assert pixels(encoded(image.convert("LA"), "PNG"))[0].tolist() == [[255] * 3, [127] * 3]


def test_palette_with_alpha_lies_on_white():
    image = Image.new("P", (3, 1))
    image.putpalette([255, 0, 0, 0, 0, 255, 0, 255, 0])
    image.putdata([0, 1, 2])
    assert pixels(encoded(image, "PNG", transparency=bytes([255, 0, 255])))[0].tolist() == [
        [255, 0, 0],
        [255] * 3,
        [0, 255, 0],
    ]
    assert pixels(encoded(image, "GIF", transparency=1))[0].tolist() == [[255, 0, 0], [255] * 3, [0, 255, 0]]
    gray = Image.new("L", (2, 1), 7)
    gray.putpixel((1, 0), 50)
    assert pixels(encoded(gray, "PNG", transparency=7))[0].tolist() == [[255] * 3, [50] * 3]


@pytest.mark.parametrize("kind", ["GIF", "WEBP", "PNG", "TIFF"])
def test_an_animation_gives_its_first_frame(kind):
    frames = [Image.new("RGB", (8, 8), color) for color in (RED, GREEN, BLUE)]
    options = {"lossless": True} if kind == "WEBP" else {}
    data = encoded(frames[0], kind, save_all=True, append_images=frames[1:], **options)
    assert load_image(data).getpixel((4, 4)) == RED


@pytest.mark.parametrize("options", [{"progressive": True}, {}])
def test_jpeg_baseline_and_progressive(options):
    photo = corners(64, 48)
    loaded = pixels(encoded(photo, "JPEG", quality=95, subsampling=0, **options))
    assert np.abs(loaded.astype(int) - np.asarray(photo)).mean() < 2


@pytest.mark.parametrize(
    "options",
    [{}, {"progressive": True}, {"subsampling": 0}, {"subsampling": 1}, {"quality": 30, "optimize": True},
     {"keep_rgb": True}],
)  # fmt: skip
@pytest.mark.parametrize("size", [(64, 48), (37, 53), (1, 1)])
def test_a_jpeg_decoded_the_fast_way_is_what_pillow_decodes(options, size, monkeypatch):
    noise = np.random.default_rng(0).integers(0, 256, (*size, 3), dtype=np.uint8)
    data = encoded(Image.fromarray(noise), "JPEG", **options)
    expected = np.asarray(Image.open(BytesIO(data)))
    monkeypatch.setattr(load, "_to_rgb", None)  # Pillow's way
    np.testing.assert_array_equal(load_pixels(data), expected)


@pytest.mark.parametrize("options", [{}, {"progressive": True}, {"restart_marker_rows": 1}])
@pytest.mark.parametrize("mode", ["RGB", "L", "CMYK"])
def test_a_jpeg_with_lost_parts_is_refused_whatever_end_it_has(options, mode):
    noise = Image.fromarray(np.random.default_rng(0).integers(0, 256, (64, 64, 3), dtype=np.uint8)).convert(mode)
    data = encoded(noise, "JPEG", quality=95, **options)
    whole = load_pixels(data)
    assert "lost" in error_of(data[: len(data) * 4 // 10] + b"\xff\xd9")
    assert "lost" in error_of(data[:-40] + b"\xff\xd9")
    np.testing.assert_array_equal(load_pixels(data[:-2]), whole)  # without its end mark nothing is lost
    np.testing.assert_array_equal(load_pixels(data[:-2] + b"\0\0" + data[-2:]), whole)  # harmless
    np.testing.assert_array_equal(load_pixels(data + b"a trailer of the camera's"), whole)


def test_a_jpeg_with_overwritten_data_is_what_pillow_makes_of_it():
    noise = np.random.default_rng(0).integers(0, 256, (64, 64, 3), dtype=np.uint8)
    data = bytearray(encoded(Image.fromarray(noise), "JPEG", quality=95))
    data[-1000:-990] = b"\0" * 10
    assert load._decode_jpeg(bytes(data), "RGB") is None  # "extraneous bytes": nothing need be lost
    np.testing.assert_array_equal(load_pixels(bytes(data)), np.asarray(Image.open(BytesIO(data))))


def tiff(array, **options):
    buffer = BytesIO()
    tifffile.imwrite(buffer, array, **options)
    return buffer.getvalue()


DEEP = np.random.default_rng(1).integers(0, 65_536, (20, 30, 3), dtype=np.uint16)


@pytest.mark.parametrize("options", [{}, {"byteorder": ">"}, {"compression": "zlib"}, {"bigtiff": True}])
@pytest.mark.parametrize("planar", [False, True])
def test_sixteen_bit_color_tiffs_are_right_or_refused(planar, options):
    how = {"photometric": "rgb", "planarconfig": "separate" if planar else "contig"} | options
    data = tiff(np.ascontiguousarray(DEEP.transpose(2, 0, 1)) if planar else DEEP, **how)
    if planar and "compression" not in options:
        assert "16-bit channels lie one after the other" in error_of(data)
        return
    assert np.abs(pixels(data).astype(int) - (DEEP / 257).round()).max() <= 1


@pytest.mark.parametrize("kind", [np.uint8, np.uint16])
@pytest.mark.parametrize("white", [False, True])
def test_a_gray_tiff_whose_white_is_zero_is_no_negative(kind, white):
    gray = DEEP[..., 0] if kind is np.uint16 else (DEEP[..., 0] // 257).astype(np.uint8)
    full = np.iinfo(kind).max
    data = tiff(full - gray if white else gray, photometric="miniswhite" if white else "minisblack")
    assert np.abs(pixels(data)[..., 0].astype(int) - (gray / full * 255).round()).max() <= 1


def test_files_that_no_reader_takes_say_why():
    assert "floats of unknown range" in error_of(tiff(DEEP[..., 0].astype(np.float32), photometric="minisblack"))
    for kind, told in ((np.float32, "32-bit floats of unknown range"), (np.uint32, "32-bit integers")):
        for big in (False, True):
            unread = error_of(tiff(DEEP.astype(kind), photometric="rgb", bigtiff=big))
            assert f"can't be decoded (its pixels are {told}" in unread
    twelve = bytearray(encoded(corners(), "JPEG"))
    twelve[twelve.index(b"\xff\xc0") + 4] = 12
    assert "12-bit" in error_of(bytes(twelve))


def test_webp_gray_and_bilevel():
    assert pixels(encoded(corners(), "WEBP", lossless=True)).tolist() == np.asarray(corners()).tolist()
    assert load_image(encoded(Image.new("L", (4, 4), 90), "JPEG")).getpixel((1, 1)) == (90, 90, 90)
    assert load_image(encoded(Image.new("1", (4, 4), 1), "PNG")).getpixel((1, 1)) == WHITE


@pytest.mark.parametrize("size", [(1, 1), (20_000, 10), (10, 20_000)])
def test_extreme_shapes(size):
    assert load_image(encoded(Image.new("RGB", size, BLUE), "PNG")).size == size


# --- what can be wrong with a file


def test_missing_file(tmp_path):
    message = error_of(tmp_path / "gone.jpg")
    assert "gone.jpg' does not exist; check the path" in message


def test_name_too_long_for_the_file_system(tmp_path):
    message = error_of(tmp_path / ("x" * 400 + ".jpg"))
    assert "can't be opened" in message


def test_null_byte_in_the_name():
    assert "can't be opened" in error_of("a\0b.jpg")


def test_folder(tmp_path):
    assert f"{tmp_path.name}' is a folder; give the photos inside it" in error_of(str(tmp_path))


@pytest.mark.parametrize("url", ["https://example.org/a.jpg", "s3://bucket/a.jpg", "data:image/png;base64,AAAA"])
def test_url(url):
    assert f"photo '{url}' is a URL; download it first" in error_of(url)


def test_zero_bytes(tmp_path):
    path = tmp_path / "empty.jpg"
    path.touch()
    assert "empty.jpg' is empty (0 bytes)" in error_of(path)
    assert "photo given as bytes is empty" in error_of(b"")


def test_truncated_jpeg(tmp_path):
    noise = np.random.default_rng(0).integers(0, 256, (64, 64, 3), dtype=np.uint8)
    data = encoded(Image.fromarray(noise), "JPEG")
    path = tmp_path / "half.jpg"
    path.write_bytes(data[: len(data) // 2])
    message = error_of(path)
    assert "half.jpg' can't be decoded (parts of it are lost: Corrupt JPEG data: premature end" in message
    for length in (2, 3, 20, 200):
        error_of(data[:length])


def test_text_named_jpg(tmp_path):
    path = tmp_path / "notes.jpg"
    path.write_text("not a photo")
    assert "notes.jpg' is not a photo in a known format; convert it to JPEG or PNG" in error_of(path)


def test_a_png_whose_checksum_is_wrong_is_refused():
    noise = Image.fromarray(np.random.default_rng(0).integers(0, 256, (200, 200, 3), dtype=np.uint8))
    data = encoded(noise, "PNG")
    cut = len(data) * 4 // 5
    assert "lost: the checksum of its chunk IDAT is wrong" in error_of(data[:cut] + bytes(len(data) - cut))


def chunk(name, data):
    return struct.pack(">L", len(data)) + name + data + zlib.crc32(name + data).to_bytes(4, "big")


@pytest.mark.parametrize("cut", [0, 2, 12])
def test_what_follows_the_pixels_of_a_png_does_not_count(cut):
    content = encoded(corners(), "PNG")
    after = b"" if cut else bytes(4) + b"SEFHk" + bytes(7)
    assert np.array_equal(pixels(content[: len(content) - cut] + after), pixels(content))


@pytest.mark.parametrize("tag", [chunk(b"gAMA", struct.pack(">L", 100_000)), chunk(b"cICP", bytes((9, 16, 0, 1)))])
@pytest.mark.parametrize("mode", ["L", "LA", "I;16"])
def test_gray_with_a_gamma_or_code_points_is_as_bright_as_the_same_in_rgb(mode, tag):
    gray = Image.linear_gradient("L")
    wide = Image.fromarray(np.asarray(gray).astype(np.uint16) * 257)
    one, three = (
        encoded(image, "PNG") for image in (wide if mode == "I;16" else gray.convert(mode), gray.convert("RGB"))
    )
    assert np.array_equal(pixels(one[:33] + tag + one[33:]), pixels(three[:33] + tag + three[33:]))
    assert not np.array_equal(pixels(one[:33] + tag + one[33:]), pixels(one))


def test_a_few_letters_are_no_photo():
    assert "is not a photo in a known format" in error_of(b"x\n")


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("size", [(1, 30), (30, 1), (1, 1)])
def test_strips_of_any_orientation_are_resized(size, orientation):
    exif = Image.Exif()
    exif[ExifTags.Base.Orientation] = orientation
    photo = load.decode(encoded(corners(30, 30).resize(size), "PNG", exif=exif), "photo")
    assert resized(photo, (8, 8), "bicubic").shape == (8, 8, 3)


def test_damaged_png():
    data = bytearray(encoded(corners(64, 64), "PNG"))
    data[60:80] = bytes(20)
    assert "can't be decoded" in error_of(bytes(data))


def bomb(width, height):
    """A PNG of a few bytes that claims to be large."""
    data = bytearray(encoded(Image.new("1", (1, 1)), "PNG"))
    data[16:24] = struct.pack(">II", width, height)
    data[29:33] = struct.pack(">I", zlib.crc32(bytes(data[12:29])))
    return bytes(data)


@pytest.mark.parametrize("side", [13_500, 60_000])
def test_decompression_bomb_is_refused_undecoded_and_without_a_warning(side):
    before = Image.MAX_IMAGE_PIXELS
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        message = error_of(bomb(side, side))
    assert f"{side}x{side} pixels, over max_pixels=178956970; shrink it or raise max_pixels" in message
    assert before == Image.MAX_IMAGE_PIXELS


def test_the_pixel_limit_can_be_set(monkeypatch):
    photo = encoded(corners(20, 10), "PNG")
    assert load_image(photo, max_pixels=200).size == (20, 10)
    assert "20x10 pixels, over max_pixels=199" in error_of(photo, max_pixels=199)
    monkeypatch.setattr(load, "MAX_PIXELS", 100)
    assert "max_pixels=100" in error_of(photo)
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 10)  # Pillow's own limit is not the one that counts
    assert load_image(photo, max_pixels=1000).size == (20, 10)


@pytest.mark.parametrize(
    ("array", "words"),
    [
        (np.zeros((4, 4, 3), dtype=np.float32), "must be uint8 in [0, 255], got float32 (4, 4, 3)"),
        (np.zeros((4, 4), dtype=np.uint8), "np.stack([array] * 3, axis=-1)"),
        (np.zeros((3, 4, 5), dtype=np.uint8), "use array.transpose(1, 2, 0)"),
        (np.zeros((4, 4, 4), dtype=np.uint8), "got uint8 (4, 4, 4)"),
        (np.zeros((1, 4, 4, 3), dtype=np.uint8), "pass one photo"),
        (np.zeros((0, 4, 3), dtype=np.uint8), "must have pixels"),
        (torch.zeros(3, 4, 4), "must be uint8 in [0, 255], got float32 (3, 4, 4)"),
        (torch.zeros(3, 4, 4, dtype=torch.int8), "must be uint8"),
        (torch.zeros(4, 4, 3, dtype=torch.uint8), "use tensor.permute(2, 0, 1)"),
        (torch.zeros(1, 3, 4, 4, dtype=torch.uint8), "must be (3, H, W) RGB, got uint8 (1, 3, 4, 4)"),
        (torch.zeros(3, 0, 4, dtype=torch.uint8), "must be (3, H, W)"),
        (None, "a photo must be a path, bytes"),
        (7, "got int"),
        (["a.jpg"], "got list"),
    ],
)
def test_wrong_types_dtypes_and_shapes(array, words):
    assert words in error_of(array, InputError)


def test_text_file_object_floats_and_empty_images(tmp_path):
    path = tmp_path / "a.txt"
    path.write_text("words")
    with path.open() as stream:
        assert "open it in binary mode" in error_of(stream, InputError)
    assert "32-bit floats" in error_of(Image.new("F", (2, 2)))
    assert "beyond 16 bits" in error_of(Image.new("I", (2, 2), 70_000))
    assert "has no pixels (0x3)" in error_of(Image.new("RGB", (0, 3)))


# --- regions


def test_crop_region_rounds_outwards_and_stays_inside():
    photo = np.asarray(corners(8, 6))
    assert crop_region(photo, (1.2, 1.9, 3.1, 4.0)).shape == (3, 3, 3)
    np.testing.assert_array_equal(crop_region(photo, (1, 1, 7, 5)), photo[1:5, 1:7])
    assert crop_region(photo, (-5, -5, 100, 100)).shape == photo.shape


@pytest.mark.parametrize("box", [(3, 3, 3, 3), (8, 6, 9, 9), (50, 50, 60, 60), (-9, -9, -1, -1), (5, 5, 2, 2)])
def test_a_crop_is_never_empty(box):
    assert crop_region(np.asarray(corners(8, 6)), box).shape == (1, 1, 3)


def test_masked_crop_is_white_outside_the_mask():
    photo = np.full((4, 6, 3), BLUE, dtype=np.uint8)
    mask = np.zeros((4, 6), dtype=bool)
    mask[1:3, 2:4] = True
    expected = np.full((4, 4, 3), 255, dtype=np.uint8)
    expected[1:3, 1:3] = BLUE
    np.testing.assert_array_equal(masked_crop(photo, (1, 0, 5, 4), mask), expected)
    whole = masked_crop(photo, (2, 1, 4, 3), mask)
    np.testing.assert_array_equal(whole, photo[1:3, 2:4])
    assert np.shares_memory(whole, photo)
    assert (photo == BLUE).all()
    with pytest.raises(InputError, match=r"must be \(4, 6\) bool"):
        masked_crop(photo, (0, 0, 2, 2), mask.T)
    with pytest.raises(InputError, match="uint8"):
        masked_crop(photo, (0, 0, 2, 2), mask.astype(np.uint8))


def test_boxes_are_clipped_to_the_photo():
    boxes = check_boxes([[-4, 2, 5, 9.5], [0, 0, 10, 8]], 10, 8)
    assert boxes.dtype == np.float32
    assert boxes.tolist() == [[0, 2, 5, 8], [0, 0, 10, 8]]
    assert check_boxes(torch.tensor([[1, 2, 3, 4]]), 10, 8).tolist() == [[1, 2, 3, 4]]
    assert check_boxes([], 10, 8).shape == (0, 4)


def test_boxes_of_one_pixel_are_no_fractions():
    for boxes, size in (([[0, 0, 1, 1]], (1, 1)), ([[0, 0, 1, 1]], (2, 2)), ([[0, 0, 1, 1], [3, 2, 4, 3]], (10, 8))):
        assert check_boxes(boxes, *size).tolist() == boxes


@pytest.mark.parametrize(
    ("boxes", "words"),
    [
        ([[0, 0, 1, 1], [20, 1, 30, 2]], "boxes[1] = [20.0, 1.0, 30.0, 2.0] lies outside the photo of 10x8 pixels"),
        ([[10, 0, 12, 8]], "lies outside"),
        (
            [[0.1, 0.25, 0.5, 1]],
            "boxes must be in pixels, got fractions of the photo, all values at most 1; "
            "multiply x1, x2 by the width, 10, and y1, y2 by the height, 8",
        ),
        ([[0, 0, 1, 1], [0.2, 0.2, 0.9, 0.9]], "got fractions of the photo"),
        ([[0.5, 0.5, 0.2, 0.2]], "not x y width height"),
        ([[5, 5, 2, 7]], "x2 > x1"),
        ([[5, 5, 5, 7]], "not x y width height"),
        ([[0, float("nan"), 1, 1]], "boxes[0] = [0.0, nan, 1.0, 1.0] must hold finite numbers"),
        ([[0, 0, 1e300, 1]], "finite"),
        ([0, 0, 1, 1], "got (4,); one box is [[…]]"),
        ([[0, 0, 1]], "shape (N, 4)"),
        ([[0, 0, 1], [1]], "must be (N, 4) numbers"),
        ("box", "got 'box'"),
    ],
)
def test_bad_boxes(boxes, words):
    with pytest.raises(InputError) as caught:
        check_boxes(boxes, 10, 8)
    assert words in str(caught.value)
