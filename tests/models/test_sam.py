"""Regions by Segment Anything, from the user's boxes or a detector's: equal to those of segment_anything itself."""

import numpy as np
import pytest
import torch
from PIL import Image
from segment_anything import SamPredictor

from fashion_retrieval.errors import InputError
from fashion_retrieval.models.sam import SegmentAnythingSegmenter
from fashion_retrieval.results import Region
from tests.support.tiny_sam import BOXES, PHOTO_SIZE, SIDE, filled, garments_photo, tiny_sam


@pytest.fixture(scope="module")
def sam():
    return filled(tiny_sam())


@pytest.fixture(scope="module")
def segmenter(sam):
    return SegmentAnythingSegmenter(sam, device="cpu")


@pytest.fixture(scope="module")
def photo():
    return garments_photo()


def reference(sam, photo, box):
    """Segment_anything's own path for one box."""
    predictor = SamPredictor(sam)
    predictor.set_image(np.asarray(photo))
    masks, quality, _ = predictor.predict(box=box, multimask_output=False)
    return masks[0], float(quality[0])


class Detector:
    """A segmenter that always finds the same regions."""

    def __init__(self, boxes=BOXES, kind="dress", score=0.7):
        masks = [np.zeros((PHOTO_SIZE[1], PHOTO_SIZE[0]), dtype=bool) for _ in boxes]
        for mask in masks:
            mask[5:9, 5:9] = True
        self.regions = [
            Region(box=tuple(box), mask=mask, score=score, kind=kind) for box, mask in zip(boxes, masks, strict=True)
        ]
        self.calls = []

    def segment(self, image, boxes=None):
        self.calls.append((image.mode, boxes))
        return self.regions


def spy(function, seen):
    """The function, which also notes what it was called with."""

    def wrapper(*args, **kwargs):
        seen.append((args, kwargs))
        return function(*args, **kwargs)

    return wrapper


def noting_dtype(function, types, name):
    """The function, which also notes the type of its result."""

    def wrapper(*args):
        result = function(*args)
        types[name] = result.dtype
        return result

    return wrapper


def test_regions_equal_segment_anythings_own_predictor(segmenter, sam, photo):
    regions = segmenter.segment(photo, BOXES)
    assert len(regions) == 3
    for region, box in zip(regions, BOXES, strict=True):
        mask, quality = reference(sam, photo, box)
        assert 0.01 < mask.mean() < 0.99
        assert np.array_equal(region.mask, mask)
        assert region.score == pytest.approx(min(max(quality, 0), 1), abs=1e-6)
        assert region.kind is None


def test_each_box_has_its_own_mask(segmenter, photo):
    first, second, third = (region.mask for region in segmenter.segment(photo, BOXES))
    assert not np.array_equal(first, second)
    assert not np.array_equal(second, third)


def test_the_regions_box_is_that_of_its_mask(segmenter, photo):
    for region in segmenter.segment(photo, BOXES):
        rows, columns = np.nonzero(region.mask)
        assert region.mask.shape == (300, 400)
        assert region.box == (columns.min(), rows.min(), columns.max() + 1, rows.max() + 1)


def test_a_batch_of_boxes_equals_one_box_at_a_time(segmenter, photo):
    together = segmenter.segment(photo, BOXES)
    alone = [segmenter.segment(photo, box[None])[0] for box in BOXES]
    for one, other in zip(together, alone, strict=True):
        assert np.array_equal(one.mask, other.mask)
        assert one.score == pytest.approx(other.score, abs=1e-6)


def test_one_image_embedding_and_one_prompt_batch_per_photo(segmenter, sam, photo, monkeypatch):
    embedded, prompted = [], []
    monkeypatch.setattr(sam.image_encoder, "forward", spy(sam.image_encoder.forward, embedded))
    monkeypatch.setattr(sam.prompt_encoder, "forward", spy(sam.prompt_encoder.forward, prompted))
    segmenter.segment(photo, BOXES)
    assert [args[0].shape for args, _ in embedded] == [(1, 3, SIDE, SIDE)]
    assert [kwargs["boxes"].shape for _, kwargs in prompted] == [(3, 4)]


@pytest.mark.parametrize(
    ("size", "scale_x", "scale_y"),
    [((400, 300), 0.64, 0.64), ((300, 400), 0.64, 0.64), ((128, 64), 2.0, 2.0), ((500, 333), 0.512, 170 / 333)],
)
def test_boxes_reach_the_prompt_encoder_scaled_to_the_long_side(segmenter, sam, monkeypatch, size, scale_x, scale_y):
    prompted = []
    monkeypatch.setattr(sam.prompt_encoder, "forward", spy(sam.prompt_encoder.forward, prompted))
    box = np.array([[10, 20, 110, 60]], dtype=np.float32)
    segmenter.segment(Image.new("RGB", size, "gray"), box)
    ((_, kwargs),) = prompted
    assert kwargs["points"] is None
    assert kwargs["masks"] is None
    assert kwargs["boxes"].dtype == torch.float32
    expected = [10 * scale_x, 20 * scale_y, 110 * scale_x, 60 * scale_y]
    assert kwargs["boxes"].tolist() == [pytest.approx(expected, rel=1e-6)]


def test_a_box_over_the_edge_is_cut_there(segmenter, sam, photo, monkeypatch):
    prompted = []
    monkeypatch.setattr(sam.prompt_encoder, "forward", spy(sam.prompt_encoder.forward, prompted))
    segmenter.segment(photo, np.array([[-50, -5, 1000, 301]], dtype=np.float32))
    assert prompted[0][1]["boxes"].tolist() == [[0, 0, 256, 192]]


def test_where_sam_finds_nothing_the_whole_box_stands_with_score_zero(segmenter, sam, photo, monkeypatch):
    monkeypatch.setattr(sam, "mask_threshold", float("inf"))
    region = segmenter.segment(photo, np.array([[10.5, 20, 30, 40.25]], dtype=np.float32))[0]
    expected = np.zeros((300, 400), dtype=bool)
    expected[20:41, 10:30] = True
    assert region == Region(box=(10.5, 20, 30, 40.25), mask=expected, score=0.0)


def test_segment_without_boxes_gives_no_regions(segmenter, photo):
    assert segmenter.segment(photo, np.empty((0, 4), dtype=np.float32)) == []


def test_segment_takes_extreme_shapes_of_photos(segmenter):
    assert segmenter.segment(Image.new("RGB", (1, 1)), np.array([[0, 0, 1, 1]]))[0].mask.shape == (1, 1)
    assert segmenter.segment(Image.new("RGB", (4000, 10)), np.array([[5, 1, 900, 9]]))[0].mask.shape == (10, 4000)
    with pytest.raises(InputError, match=r"photo of 4000x1 is too narrow for SAM; crop its long side"):
        segmenter.segment(Image.new("RGB", (4000, 1)), np.array([[5, 0, 900, 1]]))


@pytest.mark.parametrize(
    ("boxes", "message"),
    [
        ([1, 2, 3, 4], r"boxes must have shape \(N, 4\), x1 y1 x2 y2 in pixels, got \(4,\)"),
        ([[1, 2, 3]], r"got \(1, 3\)"),
        ([[1, 2, np.nan, 4]], r"must hold finite numbers"),
        (
            [[1, 2, 9, 9], [500, 10, 600, 20]],
            r"boxes\[1\] = \[500.0, 10.0, 600.0, 20.0\] lies outside the photo of 400x300",
        ),
        ([[50, 60, 40, 90]], r"boxes\[0\] = .* must be x1 y1 x2 y2 with x2 > x1 and y2 > y1"),
    ],
)
def test_segment_refuses_impossible_boxes(segmenter, photo, boxes, message):
    with pytest.raises(InputError, match=message):
        segmenter.segment(photo, np.array(boxes, dtype=np.float32))


def test_a_detectors_boxes_kinds_and_scores_are_kept(sam, photo):
    detector = Detector()
    regions = SegmentAnythingSegmenter(sam, detector=detector, device="cpu").segment(photo)
    assert detector.calls == [("RGB", None)]
    assert [(region.kind, region.score) for region in regions] == [("dress", 0.7)] * 3
    for region, box in zip(regions, BOXES, strict=True):
        assert np.array_equal(region.mask, reference(sam, photo, box)[0])


def test_the_users_boxes_go_before_the_detector(sam, photo):
    detector = Detector()
    regions = SegmentAnythingSegmenter(sam, detector=detector, device="cpu").segment(photo, BOXES[:1])
    assert detector.calls == []
    assert [region.kind for region in regions] == [None]


def test_where_sam_finds_nothing_the_detectors_region_stands(sam, photo, monkeypatch):
    monkeypatch.setattr(sam, "mask_threshold", float("inf"))
    detector = Detector()
    assert SegmentAnythingSegmenter(sam, detector=detector, device="cpu").segment(photo) == detector.regions


def test_segment_gives_nothing_where_the_detector_finds_nothing(sam, photo):
    assert SegmentAnythingSegmenter(sam, detector=Detector(boxes=[]), device="cpu").segment(photo) == []


def test_segment_needs_boxes_or_a_detector(segmenter, photo):
    with pytest.raises(InputError, match=r"needs boxes, got none; pass boxes=..., or build it with detector=..."):
        segmenter.segment(photo)


def test_the_old_name_of_the_detector_works_with_a_warning(sam):
    detector = Detector()
    with pytest.warns(DeprecationWarning, match="detector="):
        segmenter = SegmentAnythingSegmenter(sam, proposer=detector, device="cpu")
    assert segmenter.detector is detector
    with pytest.warns(DeprecationWarning, match="is now detector"):
        assert segmenter.proposer is detector


def test_the_device_is_resolved(segmenter, sam):
    assert segmenter.device == torch.device("cpu")
    assert segmenter.dtype == torch.float32
    with pytest.raises(InputError, match="use 'auto'"):
        SegmentAnythingSegmenter(sam, device="tpu")


def test_only_the_image_encoder_runs_in_the_low_precision(sam, photo, monkeypatch):
    types = {}
    for name, layer in (
        ("image", sam.image_encoder.blocks[0].attn.qkv),
        ("decoder", sam.mask_decoder.transformer.layers[0].self_attn.q_proj),
    ):
        monkeypatch.setattr(layer, "forward", noting_dtype(layer.forward, types, name))
    encode = sam.prompt_encoder.pe_layer._pe_encoding
    monkeypatch.setattr(sam.prompt_encoder.pe_layer, "_pe_encoding", noting_dtype(encode, types, "prompt"))
    fast = SegmentAnythingSegmenter(sam, device="cpu", dtype="bfloat16").segment(photo, BOXES)
    assert types == {"image": torch.bfloat16, "prompt": torch.float32, "decoder": torch.float32}
    exact = SegmentAnythingSegmenter(sam, device="cpu").segment(photo, BOXES)
    assert types["image"] == torch.float32
    for one, other in zip(fast, exact, strict=True):
        assert (one.mask == other.mask).mean() > 0.95


def test_weights_neither_train_nor_change_mode(segmenter):
    assert not segmenter.sam.training
    assert not any(parameter.requires_grad for parameter in segmenter.sam.parameters())
