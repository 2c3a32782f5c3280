"""GarmentSegmenter: from probabilities to garments, at any size of photo."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from PIL import Image

from fashion_retrieval.config import SegmenterConfig
from fashion_retrieval.models.garments import _largest
from fashion_retrieval.models.segmenter import GarmentSegmenter
from tests.support.tiny import drawn_photo

CLASSES = ("background", "person", "upper", "outerwear", "dress", "footwear")
SIZE = (100, 80)  # height, width
Shares = Mapping[str, float]


@pytest.fixture(scope="module")
def segmenter() -> GarmentSegmenter:
    torch.manual_seed(0)
    config = SegmenterConfig(
        architecture="tf_efficientnet_lite0", image_size=(64, 64), classes=CLASSES, mean=(0.5,) * 3, std=(0.5,) * 3
    )
    return GarmentSegmenter(config).eval()


def painted(*patches: tuple[tuple[int, int, int, int], Shares]) -> NDArray[np.float32]:
    """Probabilities: background everywhere, and in each xyxy box what is told; the rest there is background."""
    found = np.zeros((len(CLASSES), *SIZE), dtype=np.float32)
    found[0] = 1
    for (x0, y0, x1, y1), shares in patches:
        found[:, y0:y1, x0:x1] = 0
        found[0, y0:y1, x0:x1] = 1 - sum(shares.values())
        for name, share in shares.items():
            found[CLASSES.index(name), y0:y1, x0:x1] = share
    return found


def see(segmenter: GarmentSegmenter, monkeypatch: pytest.MonkeyPatch, probabilities: NDArray[np.float32]) -> None:
    monkeypatch.setattr(segmenter, "probabilities", lambda image: probabilities)


PHOTO = Image.new("RGB", (SIZE[1], SIZE[0]))
HEAD = (20, 2, 40, 18), {"person": 0.95}


def test_probabilities_sum_to_one_at_the_size_of_the_photo(segmenter: GarmentSegmenter) -> None:
    found = segmenter.probabilities(drawn_photo((90, 130)))
    assert found.shape == (6, 130, 90)
    assert found.dtype == np.float32
    np.testing.assert_allclose(found.sum(0), 1, atol=1e-5)


def test_large_photos_are_worked_on_at_1024_pixels(segmenter: GarmentSegmenter) -> None:
    assert segmenter.probabilities(Image.new("RGB", (4096, 2048))).shape == (6, 512, 1024)


@pytest.mark.parametrize("size", [(1, 1), (20_000, 10), (10, 20_000), (3, 700)])
def test_segment_takes_every_shape_of_photo(segmenter: GarmentSegmenter, size: tuple[int, int]) -> None:
    for region in segmenter.segment(Image.new("RGB", size, (90, 20, 20))):
        assert region.mask.shape == (size[1], size[0])


def test_unsure_kinds_are_clothing_all_the_same(segmenter: GarmentSegmenter, monkeypatch: pytest.MonkeyPatch) -> None:
    """No class has half the probability, and background has more than any kind: the kinds together win."""
    unsure = {"upper": 0.2, "outerwear": 0.3, "dress": 0.15}
    see(segmenter, monkeypatch, painted(((10, 20, 50, 80), unsure)))
    (region,) = segmenter.segment(PHOTO)
    assert region.box == (10, 20, 50, 80)
    assert region.kind == "outerwear"
    assert region.score == pytest.approx(0.65)


def test_pixels_below_half_are_not_clothing(segmenter: GarmentSegmenter, monkeypatch: pytest.MonkeyPatch) -> None:
    see(segmenter, monkeypatch, painted(((10, 20, 50, 80), {"upper": 0.3, "dress": 0.19})))
    assert segmenter.segment(PHOTO) == []


def test_a_speck_of_another_kind_belongs_to_the_garment_around_it(
    segmenter: GarmentSegmenter, monkeypatch: pytest.MonkeyPatch
) -> None:
    coat, speck = {"outerwear": 0.9, "upper": 0.05}, {"outerwear": 0.4, "upper": 0.5}
    see(segmenter, monkeypatch, painted(((10, 20, 50, 80), coat), ((30, 40, 33, 43), speck)))
    (region,) = segmenter.segment(PHOTO)
    assert region.kind == "outerwear"
    assert region.mask.sum() == 40 * 60


@pytest.mark.parametrize(
    ("rival", "wanted"), [(0.2, {"outerwear", "upper"}), (0.22, {"outerwear", "upper"}), (0.23, {"outerwear"})]
)
def test_a_garment_that_may_be_its_neighbor_is_part_of_it(
    segmenter: GarmentSegmenter, monkeypatch: pytest.MonkeyPatch, rival: float, wanted: set[str]
) -> None:
    """Two fifths of its own probability is where a second kind becomes the same garment's other name."""
    coat, shirt = {"outerwear": 0.6, "upper": 0.3}, {"upper": 0.56, "outerwear": rival}
    see(segmenter, monkeypatch, painted(HEAD, ((10, 20, 50, 80), coat), ((20, 30, 40, 60), shirt)))
    regions = segmenter.segment(PHOTO)
    assert {region.kind for region in regions} == wanted
    assert sum(region.mask.sum() for region in regions) == 40 * 60


@pytest.mark.parametrize(
    ("kind", "of_dress", "box", "apart"),
    [
        ("footwear", 0.02, (20, 30, 35, 50), False),  # a print of an eighth of the dress
        ("footwear", 0.02, (10, 54, 50, 81), True),  # half of it: shoes that lie on the skirt of the dress
        ("footwear", 0.08, (10, 54, 50, 81), False),  # as large, but the dress is seen through it
        ("upper", 0.02, (10, 54, 50, 81), True),  # a shirt on the dress
        ("upper", 0.08, (10, 54, 50, 81), False),  # the upper part of the dress
        ("footwear", 0.08, (54, 84, 64, 96), True),  # beside it
    ],
)
def test_where_nobody_is_a_garment_is_one_with_its_parts(
    segmenter: GarmentSegmenter, monkeypatch: pytest.MonkeyPatch, kind: str, of_dress: float,
    box: tuple[int, int, int, int], apart: bool,
) -> None:  # fmt: skip
    patches = ((10, 20, 50, 81), {"dress": 0.9}), (box, {kind: 0.9, "dress": of_dress})
    see(segmenter, monkeypatch, painted(*patches))
    assert {region.kind for region in segmenter.segment(PHOTO)} == ({"dress", kind} if apart else {"dress"})
    see(segmenter, monkeypatch, painted(HEAD, *patches))
    assert {region.kind for region in segmenter.segment(PHOTO)} == {"dress", kind}


@pytest.mark.parametrize(("share", "kinds"), [(0.4, {"dress"}), (0.6, {"dress", "footwear"})])
def test_a_floor_that_might_be_skin_is_nobody(
    segmenter: GarmentSegmenter, monkeypatch: pytest.MonkeyPatch, share: float, kinds: set[str]
) -> None:
    patches = ((10, 20, 50, 81), {"dress": 0.9}), ((20, 30, 35, 50), {"footwear": 0.9})
    see(segmenter, monkeypatch, painted(((0, 84, 64, 96), {"person": share}), *patches))
    assert {region.kind for region in segmenter.segment(PHOTO)} == kinds


def test_kinds_that_nobody_confuses_stay_apart(segmenter: GarmentSegmenter, monkeypatch: pytest.MonkeyPatch) -> None:
    shoe = {"footwear": 0.5, "upper": 0.45}
    see(segmenter, monkeypatch, painted(((10, 20, 50, 80), {"upper": 0.9}), ((10, 84, 40, 96), shoe)))
    assert [region.kind for region in segmenter.segment(PHOTO)] == ["upper", "footwear"]


@pytest.mark.parametrize(("filled", "looks"), [(0.3, [64]), (0.4, [64, 48])])
def test_what_is_near_is_looked_at_from_further_away_too(
    segmenter: GarmentSegmenter, monkeypatch: pytest.MonkeyPatch, filled: float, looks: list[int]
) -> None:
    """Seen at the full size a third of the photo, or more, is not background; from further away all of it is."""
    seen = []

    def probabilities_at(image: Image.Image, longest: int) -> NDArray[np.float32]:
        seen.append(longest)
        background = 1 - filled if longest == 64 else 1.0
        found = np.zeros((len(CLASSES), longest, longest), np.float32)
        found[0], found[2] = background, 1 - background
        return found

    monkeypatch.setattr(segmenter, "_probabilities_at", probabilities_at)
    found = segmenter.probabilities(Image.new("RGB", (32, 32)))
    assert seen == looks
    np.testing.assert_allclose(found.sum(0), 1, atol=1e-5)
    np.testing.assert_allclose(found[2], filled / len(looks), atol=1e-5)


def test_garments_come_largest_first(segmenter: GarmentSegmenter, monkeypatch: pytest.MonkeyPatch) -> None:
    see(segmenter, monkeypatch, painted(((20, 10, 40, 30), {"upper": 0.9}), ((10, 40, 60, 90), {"dress": 0.8})))
    assert [(r.kind, r.box) for r in segmenter.segment(PHOTO)] == [
        ("dress", (10, 40, 60, 90)),
        ("upper", (20, 10, 40, 30)),
    ]


def test_a_pair_of_shoes_is_one_garment(segmenter: GarmentSegmenter, monkeypatch: pytest.MonkeyPatch) -> None:
    shoe = {"footwear": 0.9}
    see(segmenter, monkeypatch, painted(((20, 80, 32, 90), shoe), ((36, 82, 48, 92), shoe)))
    (pair,) = segmenter.segment(PHOTO)
    assert pair.box == (20, 80, 48, 92)
    assert not pair.mask[85, 34]


def test_people_who_stand_apart_have_garments_of_their_own(
    segmenter: GarmentSegmenter, monkeypatch: pytest.MonkeyPatch
) -> None:
    dress = {"dress": 0.9}
    see(segmenter, monkeypatch, painted(((2, 10, 22, 80), dress), ((55, 12, 75, 80), dress)))
    assert sorted(r.box for r in segmenter.segment(PHOTO)) == [(2, 10, 22, 80), (55, 12, 75, 80)]


@pytest.mark.parametrize(("between", "jackets"), [("upper", 1), ("person", 1), ("background", 2)])
def test_the_halves_of_an_open_jacket_are_one_garment(
    segmenter: GarmentSegmenter, monkeypatch: pytest.MonkeyPatch, between: str, jackets: int
) -> None:
    """The gap is wider than each half; with the wall between them they are two people's."""
    jacket = {"outerwear": 0.9}
    middle = ((20, 24, 42, 60), {between: 0.9})
    see(segmenter, monkeypatch, painted(HEAD, ((8, 20, 20, 70), jacket), ((42, 20, 54, 70), jacket), middle))
    found = [region.box for region in segmenter.segment(PHOTO) if region.kind == "outerwear"]
    assert len(found) == jackets
    assert (min(box[0] for box in found), max(box[2] for box in found)) == (8, 54)


def test_a_box_gets_the_kind_that_fills_it(segmenter: GarmentSegmenter, monkeypatch: pytest.MonkeyPatch) -> None:
    see(segmenter, monkeypatch, painted(((0, 0, 80, 40), {"upper": 0.9}), ((0, 40, 80, 100), {"footwear": 0.9})))
    (region,) = segmenter.segment(PHOTO, np.array([[10.5, 30, 60, 95.5]], dtype=np.float32))
    assert region.kind == "footwear"
    assert region.box == (10.5, 30, 60, 95.5)
    rows, columns = np.nonzero(region.mask)
    assert (rows.min(), rows.max(), columns.min(), columns.max()) == (40, 95, 10, 59)


def test_kinds_that_are_alike_add_up_in_a_box(segmenter: GarmentSegmenter, monkeypatch: pytest.MonkeyPatch) -> None:
    coat, shoe = {"upper": 0.2, "outerwear": 0.25, "dress": 0.1}, {"footwear": 0.9}
    see(segmenter, monkeypatch, painted(((0, 0, 80, 85), coat), ((0, 85, 80, 100), shoe)))
    (region,) = segmenter.segment(PHOTO, np.array([[10, 20, 60, 100]], dtype=np.float32))
    assert region.kind == "outerwear"
    assert np.nonzero(region.mask)[0].max() == 84
    assert region.score == pytest.approx(0.55, abs=1e-4)


def test_a_box_on_background_is_taken_whole(segmenter: GarmentSegmenter, monkeypatch: pytest.MonkeyPatch) -> None:
    see(segmenter, monkeypatch, painted())
    (region,) = segmenter.segment(PHOTO, np.array([[10, 20, 30, 40]], dtype=np.float32))
    assert region.mask.sum() == 20 * 20
    assert region.score == 0


def test_masks_and_boxes_are_of_the_photo_not_of_the_working_size(
    segmenter: GarmentSegmenter, monkeypatch: pytest.MonkeyPatch
) -> None:
    see(segmenter, monkeypatch, painted(((10, 20, 50, 80), {"dress": 0.9})))
    large = Image.new("RGB", (800, 1000))
    (found,) = segmenter.segment(large)
    assert found.mask.shape == (1000, 800)
    np.testing.assert_allclose(found.box, (100, 200, 500, 800), atol=1)
    (asked,) = segmenter.segment(large, np.array([[103, 203, 297, 397]], dtype=np.float32))
    assert asked.box == (103, 203, 297, 397)
    assert asked.mask.sum() == (297 - 103) * (397 - 203)


def test_largest_is_the_first_of_equals() -> None:
    shares = np.random.default_rng(0).integers(0, 4, (11, 500)).astype(np.float32)
    found = _largest(shares)
    assert found.dtype == np.int8
    np.testing.assert_array_equal(found, shares.argmax(0))
    assert _largest(shares[:, :0]).shape == (0,)
