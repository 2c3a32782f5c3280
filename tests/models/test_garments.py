"""Garments from any network that names pixels, without torch: what it is shown, and how its maps are enlarged."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from PIL import Image
from torch.nn import functional

from fashion_retrieval.config import SegmenterConfig
from fashion_retrieval.models.garments import GarmentFinder
from fashion_retrieval.models.segmenter import GarmentSegmenter
from tests.support.tiny import drawn_photo

CLASSES = ("background", "person", "upper", "outerwear", "dress", "footwear")
CONFIG = SegmenterConfig(
    architecture="tf_efficientnet_lite0",
    image_size=(96, 96),
    classes=CLASSES,
    mean=(0.4, 0.5, 0.6),
    std=(0.2, 0.25, 0.3),
)
Floats = NDArray[np.float32]


class RedIsADress(GarmentFinder):
    """Takes what is red for a dress and all else for background; keeps what it is shown."""

    config = CONFIG

    def __init__(self) -> None:
        self.shown: list[Floats] = []

    def look(self, pixels: Floats) -> Floats:
        self.shown.append(pixels)
        found = np.zeros((len(CLASSES), *pixels.shape[2:]), np.float32)
        red = (pixels[0, 0] > pixels[0, 1] + 2.3).astype(np.float32)
        found[0], found[CLASSES.index("dress")] = 1 - red, red
        return found


class InTorch(RedIsADress):
    exact = False


def red_square() -> Image.Image:
    photo = Image.new("RGB", (200, 300), (230, 230, 230))
    photo.paste((200, 10, 10), (50, 100, 150, 250))
    return photo


@pytest.mark.parametrize("size", [(24, 18), (25, 31), (96, 72), (301, 200), (17, 18), (9, 40), (5, 4)])
def test_maps_are_enlarged_as_torch_does_it(size: tuple[int, int]) -> None:
    maps = np.random.default_rng(0).random((5, 17, 18), np.float32)
    found = RedIsADress().enlarged(maps, size)
    given = torch.from_numpy(maps)[None].double()  # in float32 torch itself is off by more
    wanted = functional.interpolate(given, size, mode="bilinear", align_corners=False)[0]
    assert (found.shape, found.dtype) == ((5, *size), np.float32)
    np.testing.assert_allclose(found, wanted.numpy(), rtol=0, atol=1e-6)
    shares = maps / maps.sum(0)
    np.testing.assert_allclose(RedIsADress().enlarged(shares, size).sum(0), 1, atol=1e-6)


def test_maps_of_that_size_stay_as_they_are() -> None:
    maps = np.random.default_rng(0).random((2, 8, 9), np.float32)
    assert RedIsADress().enlarged(maps, (8, 9)) is maps


def test_the_segmenter_enlarges_by_torch() -> None:
    maps = np.random.default_rng(0).random((3, 8, 9), np.float32)
    segmenter = GarmentSegmenter(CONFIG).eval()
    assert segmenter.enlarged(maps, (8, 9)) is maps
    found, wanted = segmenter.enlarged(maps, (20, 31)), RedIsADress().enlarged(maps, (20, 31))
    np.testing.assert_allclose(found, wanted, rtol=0, atol=1e-6)


def test_the_network_is_shown_pillows_pixels_normalized_and_padded() -> None:
    photo = drawn_photo((120, 170))
    finder = RedIsADress()
    finder.probabilities(photo)
    shown = finder.shown[0]
    assert (shown.shape, shown.dtype) == ((1, 3, 96, 96), np.float32)  # 96 x 68, up to whole strides of 32
    levels = np.asarray(photo.resize((68, 96), Image.Resampling.BILINEAR)).astype(float)
    wanted = (levels / 255 - CONFIG.mean) / CONFIG.std
    np.testing.assert_allclose(shown[0, :, :, :68], np.moveaxis(wanted, -1, 0), rtol=0, atol=1e-5)
    assert (shown[0, :, :, 68:] == 1).all()


def test_torch_shrinks_a_photo_to_the_same_levels_but_one() -> None:
    photo = drawn_photo((120, 170))
    exact, fast = RedIsADress(), InTorch()
    exact.probabilities(photo)
    fast.probabilities(photo)
    levels = np.abs(exact.shown[0] - fast.shown[0])[0, :, :, :68] * np.reshape(CONFIG.std, (3, 1, 1)) * 255
    assert levels.max() < 1.01


def test_a_garment_is_found_with_its_box_mask_and_kind() -> None:
    finder = RedIsADress()
    (region,) = finder.segment(red_square())
    assert (region.kind, region.score) == ("dress", pytest.approx(0.99, abs=1e-2))  # smooth edges
    np.testing.assert_allclose(region.box, (50, 100, 150, 250), atol=4)
    assert region.mask.shape == (300, 200)
    assert np.count_nonzero(region.mask) == pytest.approx(100 * 150, rel=0.05)
    assert len(finder.shown) == 1  # a quarter of the photo is no reason to look again
    (asked,) = finder.segment(red_square(), np.array([[40, 90, 160, 200]], np.float32))
    assert asked.kind == "dress"
    assert np.count_nonzero(asked.mask) == pytest.approx(100 * 100, rel=0.05)


def test_the_network_in_torch_gives_shares_of_its_logits() -> None:
    torch.manual_seed(0)
    segmenter = GarmentSegmenter(CONFIG).eval()
    pixels = torch.randn(2, 3, 64, 96)
    with torch.inference_mode():
        found, logits = segmenter.shares(pixels), segmenter(pixels)
    assert (logits.shape, found.shape) == ((2, 6, 16, 24), (2, 6, 64, 96))
    wanted = functional.interpolate(logits, (64, 96), mode="bilinear", align_corners=False).softmax(1)
    torch.testing.assert_close(found, wanted)
    torch.testing.assert_close(found.sum(1), torch.ones(2, 64, 96))
    seen = segmenter.look(pixels[:1].numpy())
    assert isinstance(seen, np.ndarray)
    np.testing.assert_allclose(seen, found[0].numpy(), rtol=0, atol=1e-6)
