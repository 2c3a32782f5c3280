"""Preprocessing: open_clip's own transform, for every mode and shape of photo."""

from __future__ import annotations

from typing import Any

import numpy as np
import PIL
import pytest
import torch
from open_clip.transform import PreprocessCfg, image_transform_v2
from PIL import Image

from fashion_retrieval.errors import ConfigError
from fashion_retrieval.images.preprocess import Preprocessing
from tests.support.tiny import drawn_photo

MEAN, STD = (0.48, 0.45, 0.4), (0.26, 0.25, 0.27)
# Before release 13 Pillow always resized across first.
_MOST, _MEAN = (2.1, 0.05) if int(PIL.__version__.partition(".")[0]) >= 13 else (4.1, 0.2)
SHAPES = [(96, 128), (112, 74), (48, 64), (1, 1), (15, 350), (350, 15), (51, 49), (140, 300), (500, 330)]


def smooth(size: tuple[int, int]) -> Image.Image:
    """A photo-like picture, (width, height): every level next to its like, dark and bright ends included."""
    width, height = size
    coarse = np.random.default_rng(width).integers(0, 256, (max(2, height // 8), max(2, width // 8), 3), dtype=np.uint8)
    return Image.fromarray(coarse).resize(size, Image.Resampling.BICUBIC)


@pytest.mark.parametrize("mode", ["shortest", "longest", "squash"])
@pytest.mark.parametrize("interpolation", ["bicubic", "bilinear"])
@pytest.mark.parametrize("size", [(56, 56), (72, 54), (48, 64)])
def test_it_is_open_clips_transform(mode: Any, interpolation: Any, size: tuple[int, int]) -> None:
    settings: dict[str, Any] = {"size": size, "mean": MEAN, "std": STD}
    settings |= {"interpolation": interpolation, "resize_mode": mode}
    theirs = image_transform_v2(PreprocessCfg(**settings, fill_color=255), is_train=False)
    ours = Preprocessing(**settings, fill=255)
    exact = Preprocessing(**settings, fill=255, exact=True)
    for shape in SHAPES:
        photo = smooth(shape)
        wanted = theirs(photo).numpy()
        np.testing.assert_allclose(exact(photo), wanted, rtol=0, atol=1e-6)
        found = ours(photo)
        assert found.shape == (3, *size)
        assert found.dtype == np.float32
        levels = np.abs(found - wanted) * np.reshape(STD, (3, 1, 1)) * 255
        assert levels.max() < _MOST
        assert levels.mean() < _MEAN


@pytest.mark.parametrize("exact", [False, True])
def test_arrays_tensors_and_parts_of_a_photo_are_taken_alike(exact: bool) -> None:
    ours = Preprocessing(size=(24, 32), mean=MEAN, std=STD, exact=exact)
    photo = drawn_photo((90, 70))
    array = np.array(photo)
    expected = ours.resize(photo)
    assert expected.dtype == np.uint8
    for same in (array, torch.from_numpy(array), np.pad(array, ((3, 2), (1, 4), (0, 0)))[3:-2, 1:-4]):
        np.testing.assert_array_equal(ours.resize(same), expected)
    batch = np.stack([expected, expected // 2])
    np.testing.assert_array_equal(ours.normalize(batch)[0], ours(photo))
    by_hand = (np.moveaxis(batch, -1, 1) / 255 - np.reshape(MEAN, (3, 1, 1))) / np.reshape(STD, (3, 1, 1))
    np.testing.assert_allclose(ours.normalize(batch), by_hand, rtol=0, atol=1e-6)


def test_the_longer_side_keeps_all_of_the_photo_between_borders() -> None:
    ours = Preprocessing(size=(20, 20), mean=(0, 0, 0), std=(1, 1, 1), resize_mode="longest", fill=200)
    wide = ours.resize(Image.new("RGB", (80, 40), (10, 20, 30)))
    assert set(wide[:5].flatten().tolist()) == set(wide[15:].flatten().tolist()) == {200}
    assert (wide[5:15] == [10, 20, 30]).all()


@pytest.mark.parametrize("wrong", [{"interpolation": "nearest"}, {"resize_mode": "fit"}])
def test_unknown_settings_are_refused(wrong: dict[str, Any]) -> None:
    with pytest.raises(ConfigError, match=f"{next(iter(wrong))} must be one of .*, got '{next(iter(wrong.values()))}'"):
        Preprocessing(size=(8, 8), mean=MEAN, std=STD, **wrong)
