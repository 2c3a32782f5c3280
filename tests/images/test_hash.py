"""The perceptual hash: the same for a photo made anew, another for another photo, none for a plain one."""

import io

import numpy as np
import pytest
from PIL import Image, ImageEnhance

from fashion_retrieval.images.hash import BITS, perceptual_hash


def drawn(seed, size=224, *, plain=False):
    """Smooth shapes, with a margin of white where `plain`."""
    chance = np.random.default_rng(seed)
    coarse = Image.fromarray(chance.integers(0, 200, (16, 16, 3), dtype=np.uint8))
    photo = coarse.resize((size, size), Image.Resampling.BICUBIC)
    if plain:
        canvas = Image.new("RGB", (size, size), "white")
        canvas.paste(photo.resize((size // 2, size // 2)), (size // 4, size // 5))
        return canvas
    return photo


def different(first, second):
    """How many bits differ between the hashes of two pictures, each as the image tower would take it."""
    one, other = (perceptual_hash(np.asarray(photo.resize((224, 224)))) for photo in (first, second))
    return ((one ^ other) % 2**BITS).bit_count()


def encoded(photo, quality):
    content = io.BytesIO()
    photo.save(content, "JPEG", quality=quality)
    return Image.open(content)


@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize("plain", [False, True])
def test_hash_of_a_photo_made_anew_differs_in_few_bits(seed, plain):
    photo = drawn(seed, plain=plain)
    assert different(photo, photo) == 0
    assert different(photo, encoded(photo, 40)) <= 5
    assert different(photo, photo.resize((120, 120), Image.Resampling.BICUBIC)) <= 9
    assert different(photo, ImageEnhance.Brightness(photo).enhance(0.92)) <= 6
    assert different(photo, encoded(photo.crop((3, 0, 224, 218)), 80)) <= 12


def test_hash_of_a_product_on_white_hardly_feels_a_crop():
    photo = drawn(3, plain=True)
    for box in ((8, 8, 220, 220), (0, 6, 224, 216), (10, 0, 218, 224)):
        assert different(photo, photo.crop(box)) <= 9


def test_hashes_of_different_photos_differ_in_about_half_of_the_bits():
    photos = [drawn(seed, plain=seed % 2 == 0) for seed in range(12)]
    apart = [different(a, b) for number, a in enumerate(photos) for b in photos[:number]]
    assert min(apart) >= 12
    assert np.mean(apart) == pytest.approx(BITS / 2, abs=5)


def test_hash_is_a_signed_number_of_64_bits_and_always_the_same():
    hashes = [perceptual_hash(np.asarray(drawn(seed))) for seed in range(20)]
    assert all(-(2**63) <= hash < 2**63 for hash in hashes)
    assert any(hash < 0 for hash in hashes)
    assert any(hash > 0 for hash in hashes)
    assert hashes == [perceptual_hash(np.asarray(drawn(seed))) for seed in range(20)]


@pytest.mark.parametrize("shape", [(224, 224, 3), (1, 1, 3), (3, 200, 3)])
def test_hash_of_one_color_is_none(shape):
    assert perceptual_hash(np.full(shape, 137, np.uint8)) is None


@pytest.mark.parametrize("shape", [(1, 9, 3), (9, 1, 3), (5, 7, 3), (65, 300, 3)])
def test_hash_of_any_size(shape):
    assert isinstance(perceptual_hash(np.random.default_rng(0).integers(0, 256, shape, dtype=np.uint8)), int)
