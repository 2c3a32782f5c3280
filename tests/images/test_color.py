"""Whatever color space a file is in, its colors come out as sRGB; a profile that can't be right changes nothing."""

import pickle
import struct
import zlib
from io import BytesIO

import numpy as np
import pillow_heif
import pytest
from PIL import Image, ImageCms

from fashion_retrieval.errors import ImageError
from fashion_retrieval.images import color, load, pixels, preprocess
from fashion_retrieval.images.load import decode, load_image, load_pixels
from fashion_retrieval.images.preprocess import Preprocessing
from fashion_retrieval.inference.colors import PixelColors, dominant_colors, to_lab
from tests.support.profiles import cmyk_profile, gray_profile

CURVE = np.where((v := np.linspace(0, 1, 4096)) <= 0.04045, v / 12.92, ((v + 0.055) / 1.055) ** 2.4)
P3 = color._profile(color._PRIMARIES[12], CURVE)
ADOBE = color._profile(((0.64, 0.33), (0.21, 0.71), (0.15, 0.06), (0.3127, 0.329)), v**2.19921875)
PROPHOTO = color._profile(((0.7347, 0.2653), (0.1596, 0.8404), (0.0366, 0.0001), (0.3457, 0.3585)), v**1.8)


def scene(width=60, height=40):
    """A smooth picture whose colors are in every space here."""
    down, across = np.mgrid[0:height, 0:width] / max(width, height)
    return Image.fromarray((60 + 130 * np.stack([down, across, 1 - across], axis=-1)).astype(np.uint8))


def copy_in(profile, image, kind="PNG", **options):
    """The scene saved in another color space, by Pillow's own conversion."""
    way = ImageCms.buildTransform(
        ImageCms.createProfile("sRGB"), ImageCms.ImageCmsProfile(BytesIO(profile)), "RGB", "RGB"
    )
    return saved(ImageCms.applyTransform(image, way), kind, icc_profile=profile, **options)


def saved(image, kind="PNG", **options):
    buffer = BytesIO()
    image.save(buffer, kind, **options)
    return buffer.getvalue()


def chunk(name, content):
    return struct.pack(">L", len(content)) + name + content + struct.pack(">L", zlib.crc32(name + content))


def png_with(image, *chunks):
    data = saved(image)
    return data[:33] + b"".join(chunk(*one) for one in chunks) + data[33:]


def plain(levels, **chunks):
    """What a PNG of one color with these chunks is read as."""
    image = Image.new("RGB", (2, 2), levels)
    given = [(name.encode(), content) for name, content in chunks.items()]
    return tuple(load_pixels(png_with(image, *given))[0, 0].tolist())


# --- profiles


@pytest.mark.parametrize(("profile", "most"), [(P3, 2), (ADOBE, 2), (PROPHOTO, 5)], ids=["P3", "Adobe", "ProPhoto"])
@pytest.mark.parametrize("mode", ["RGB", "RGBA", "P"])
def test_a_copy_in_another_space_is_the_scene(profile, most, mode):
    copy = copy_in(profile, scene())
    if mode == "RGBA":
        copy = saved(Image.open(BytesIO(copy)).convert("RGBA"), icc_profile=profile)
    if mode == "P":
        copy = saved(Image.open(BytesIO(copy)).quantize(256), icc_profile=profile)
        same = saved(Image.open(BytesIO(copy)).convert("RGB"), icc_profile=profile)
        np.testing.assert_array_equal(load_pixels(copy), load_pixels(same))
        return
    off = np.abs(load_pixels(copy).astype(int) - np.asarray(scene()))
    ignored = np.abs(np.asarray(Image.open(BytesIO(copy)).convert("RGB")).astype(int) - np.asarray(scene()))
    assert off.max() <= most
    assert off.mean() < 0.25 * ignored.mean()


def test_published_colors_of_display_p3_and_adobe_rgb():
    image = Image.new("RGB", (1, 1), (234, 51, 35))  # sRGB's red in Display P3
    assert load_pixels(saved(image, icc_profile=P3)).tolist() == [[[255, 0, 0]]]
    image = Image.new("RGB", (1, 1), (144, 255, 60))  # sRGB's green in Adobe RGB
    assert np.abs(load_pixels(saved(image, icc_profile=ADOBE)).astype(int) - (0, 255, 0)).max() <= 6


def test_a_jpeg_a_pil_image_and_an_avif_are_converted_too():
    expected = load_pixels(copy_in(P3, scene()))
    with Image.open(BytesIO(copy_in(P3, scene()))) as opened:
        np.testing.assert_array_equal(load_pixels(opened), expected)
    for kind, options in (("JPEG", {"quality": 100, "subsampling": 0}), ("AVIF", {"quality": 100})):
        found = load_pixels(copy_in(P3, scene(), kind, **options))
        assert np.abs(found.astype(int) - expected).mean() < 1.5


def test_gray_and_cmyk_profiles():
    half = Image.new("L", (2, 2), 55)
    assert load_pixels(saved(half, icc_profile=gray_profile(1.0)))[0, 0].tolist() == [128, 128, 128]
    alpha = Image.merge("LA", (half, Image.new("L", (2, 2), 255)))
    assert load_pixels(saved(alpha, icc_profile=gray_profile(1.0)))[0, 0].tolist() == [128, 128, 128]
    cyan = (60, -10, -25)
    inks = Image.new("CMYK", (16, 16), (255, 0, 0, 0))
    for kind, options in (("TIFF", {}), ("JPEG", {"quality": 100})):
        found = load_pixels(saved(inks, kind, icc_profile=cmyk_profile(cyan), **options))
        np.testing.assert_allclose(to_lab(found[8, 8]), cyan, atol=4)  # of D50 there, of D65 here
    white = load_pixels(saved(Image.new("CMYK", (4, 4), (0, 0, 0, 0)), "TIFF", icc_profile=cmyk_profile(cyan)))
    assert white[0, 0].tolist() == [255, 255, 255]


@pytest.mark.parametrize("profile", [b"no profile", cmyk_profile((60, -10, -25)), gray_profile(1.0), P3[:200]])
def test_a_profile_that_does_not_fit_leaves_the_colors(profile):
    np.testing.assert_array_equal(load_pixels(saved(scene(), icc_profile=profile)), np.asarray(scene()))
    gray = scene().convert("L")
    np.testing.assert_array_equal(load_pixels(saved(gray, icc_profile=P3))[..., 0], np.asarray(gray))


def test_a_profile_that_is_srgb_costs_nothing():
    own = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    assert color.to_srgb(own, "RGB") is None
    np.testing.assert_array_equal(load_pixels(saved(scene(), icc_profile=own)), np.asarray(scene()))


# --- code points and gamma


def test_code_points_of_png():
    assert plain((234, 51, 35), cICP=bytes([12, 13, 0, 1])) == (255, 0, 0)
    assert plain((10, 20, 30), cICP=bytes([1, 13, 0, 1])) == (10, 20, 30)
    assert plain((10, 20, 30), cICP=bytes([2, 2, 0, 1])) == (10, 20, 30)
    assert plain((148, 148, 148), cICP=bytes([9, 16, 0, 1])) == (255, 255, 255)  # PQ: 203 nits
    assert plain((191, 191, 191), cICP=bytes([9, 18, 0, 1]))[0] in (253, 254, 255)  # HLG: its reference white
    assert plain((55, 55, 55), cICP=bytes([1, 8, 0, 1])) == (128, 128, 128)  # linear
    before = png_with(scene(), (b"cICP", bytes([1, 13, 0, 1])))
    assert load_pixels(saved(Image.open(BytesIO(before)))).tolist() == np.asarray(scene()).tolist()


@pytest.mark.parametrize(("points", "words"), [((99, 13), "primaries number 99"), ((9, 11), "transfer 11")])
def test_unknown_code_points_are_refused_with_their_number(points, words):
    with pytest.raises(ImageError, match=f"{words}.*not known; convert it to sRGB$"):
        load_pixels(png_with(scene(), (b"cICP", bytes([*points, 0, 1]))))


def test_code_points_come_before_a_profile_in_png_and_after_it_in_avif():
    image = Image.new("RGB", (8, 8), (234, 51, 35))
    data = saved(image, icc_profile=ADOBE)
    data = data[:33] + chunk(b"cICP", bytes([12, 13, 0, 1])) + data[33:]
    assert load_pixels(data)[0, 0].tolist() == [255, 0, 0]


@pytest.mark.parametrize("kind", ["AVIF", "HEIC"])
def test_code_points_of_avif_and_heic(kind):
    image = Image.new("RGB", (64, 64), (150, 150, 150))
    buffer = BytesIO()
    if kind == "AVIF":
        image.save(buffer, "AVIF", quality=100)
    else:
        pillow_heif.from_pillow(image).save(buffer, quality=100)
    data = buffer.getvalue()
    place = data.index(b"colrnclx") + 8
    hdr = data[:place] + struct.pack(">HH", 9, 16) + data[place + 4 :]
    assert abs(int(load_pixels(data)[32, 32, 0]) - 150) <= 2
    assert load_pixels(hdr)[32, 32].tolist() == [255, 255, 255]
    unknown = data[:place] + struct.pack(">HH", 9, 10) + data[place + 4 :]
    with pytest.raises(ImageError, match="transfer 10"):
        load_pixels(unknown)


def test_gamma_of_png():
    def gamma(value):
        return struct.pack(">L", round(value * 100_000))

    wide = struct.pack(">8L", 31270, 32900, 68000, 32000, 26500, 69000, 15000, 6000)
    assert plain((55, 55, 55), gAMA=gamma(1.0)) == (128, 128, 128)
    assert plain((55, 56, 57), gAMA=gamma(0.45455)) == (55, 56, 57)
    assert plain((234, 51, 35), gAMA=gamma(0.45455), cHRM=wide) == (255, 0, 0)
    assert plain((55, 56, 57), gAMA=gamma(1.0), sRGB=b"\0") == (55, 56, 57)
    assert plain((55, 56, 57), gAMA=gamma(0)) == (55, 56, 57)
    assert plain((55, 56, 57), gAMA=gamma(1.0), cHRM=bytes(32)) == (55, 56, 57)


# --- where colors are looked at


def test_hex_and_name_are_those_of_the_srgb_copy():
    shirt = Image.new("RGB", (80, 80), (196, 54, 60))
    copy = decode(copy_in(ADOBE, shirt), "photo")
    mask = np.ones((80, 80), bool)
    (first, *_), (expected, *_) = PixelColors.compute(copy, mask).colors(), dominant_colors(np.asarray(shirt), mask)
    assert first.name == expected.name == "red"
    assert np.abs(np.subtract(*(tuple(bytes.fromhex(one.hex[1:])) for one in (first, expected)))).max() <= 2


@pytest.mark.parametrize("profile", [None, P3])
@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("mode", ["shortest", "longest", "squash"])
def test_shrinking_before_turning_and_converting_changes_no_more_than_rounding(profile, orientation, mode, monkeypatch):
    transform = Preprocessing(size=(24, 24), mean=(0.5,) * 3, std=(0.5,) * 3, resize_mode=mode, fill=255)
    exif = Image.Exif()
    exif[274] = orientation
    data = saved(scene(160, 90), exif=exif) if profile is None else copy_in(profile, scene(160, 90), exif=exif)
    whole = load_image(data)
    expected = transform.resize(whole)
    monkeypatch.setattr(pixels, "_SMALL", 0)
    monkeypatch.setattr(preprocess, "_LARGE", 0)
    monkeypatch.setattr(preprocess, "_SHEET", 1000)
    kept = decode(data, "photo")
    assert kept.orientation == orientation
    assert (kept.width, kept.height) == whole.size
    off = np.abs(transform.resize(kept).astype(int) - expected)
    assert off.max() <= (1 if profile is None and mode != "squash" else 2)  # 0 where torch has its fast way


def test_a_converted_photo_can_be_pickled():
    photo = pickle.loads(pickle.dumps(decode(copy_in(P3, scene()), "photo")))
    np.testing.assert_array_equal(photo.srgb(), load_pixels(copy_in(P3, scene())))


# --- HEIC


def heic(image, **options):
    buffer = BytesIO()
    pillow_heif.from_pillow(image).save(buffer, quality=100, **options)
    return buffer.getvalue()


@pytest.mark.parametrize("named", ["photo.heic", "photo.jpg"])
def test_a_heic_is_read_whatever_its_name_and_pillow_stays_as_it_is(tmp_path, named):
    before = list(Image.ID), dict(Image.OPEN)
    (tmp_path / named).write_bytes(heic(scene(64, 48)))
    assert np.abs(load_pixels(tmp_path / named).astype(int) - np.asarray(scene(64, 48))).mean() < 2
    assert (list(Image.ID), dict(Image.OPEN)) == before


def test_a_heic_has_its_own_turning_and_no_other():
    exif = Image.Exif()
    exif[274] = 6
    # The writer turns EXIF's orientation into the file's own, as phones do that write both.
    told_twice = load_pixels(heic(scene(64, 48), exif=exif.tobytes(), xmp=b'<x tiff:Orientation="6"/>'))
    assert told_twice.shape == (64, 48, 3)
    assert np.abs(told_twice.astype(int) - pixels.turned(np.asarray(scene(64, 48)), 6)).mean() < 2


def test_without_its_extra_a_heic_names_it(monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, "pillow_heif.as_plugin", None)
    with pytest.raises(ImageError, match=r"is HEIC: .*pip install 'fashion-retrieval\[heif\]'$"):
        load.load_pixels(heic(scene(64, 48)))


def test_a_damaged_heic_is_one_line():
    data = heic(scene(64, 48))
    for cut in (len(data) // 3, len(data) - 20):
        with pytest.raises(ImageError, match="can't be decoded"):
            load_pixels(data[:cut])
