"""Parts of garments: what they hide and show, how they are drawn and fitted, and what a garment is labeled then."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from fashion_retrieval.taxonomy import Taxonomy
from tests.support.drawn_pack import clear_left, write_lines, write_pack
from training.data.crops import Crop, load_crops
from training.data.cuts import (
    CUTS,
    FOLDS,
    HIDDEN,
    SHOWN,
    UNKNOWN,
    cut_chances,
    cut_states,
    draw_cuts,
    extent,
    extents,
    fold_of,
    is_solid,
    pieces,
    refit,
    with_masks,
)
from training.data.manifest import Sample, labeled_samples
from training.data.texts import Vocabulary, encode_samples

DEFAULT = Taxonomy.load("default")
WHOLE, NO_HEM, NO_NECKLINE, NO_SLEEVES, STRIP = range(len(CUTS))
DRESS = Sample(
    "products", "1", Path("1.jpg"), category="dress", color="red", texts=("a name", "a caption"),
    attributes={"texture": "floral", "sleeve": "long_sleeve", "length": "maxi_length", "neckline": "v", "fit": "loose"},
)  # fmt: skip
SLEEVELESS = replace(DRESS, attributes={**DRESS.attributes, "sleeve": "sleeveless"})
JEANS = Sample(
    "street", "2", Path("2.jpg"), (0, 0, 40, 80), Path("2.png"), 3, "jeans", "blue",
    {"texture": "solid", "length": "no_dress", "neckline": "none", "fabric": "denim"},
)  # fmt: skip
PHOTO = Sample("clothing", "3", Path("3.jpg"), category="dress")
SHOE = Sample("products", "4", Path("4.jpg"), category="boots")


def test_a_cut_is_a_part_of_the_box() -> None:
    boxes = {name: cut.of((20, 100, 120, 300)) for name, cut in CUTS.items()}
    assert boxes == {
        "whole": (20, 100, 120, 300), "no_hem": (20, 100, 120, 210), "no_neckline": (20, 200, 120, 300),
        "no_sleeves": (50, 100, 90, 300), "strip": (55, 190, 85, 240),
    }  # fmt: skip
    assert CUTS["strip"].of((5, 5, 6, 6)) == (5, 5, 6, 6)
    mask = np.zeros((10, 10), bool)
    mask[:, :4] = True
    assert [is_solid(mask, (0, 0, right, 10)) for right in (5, 6)] == [True, False]


def test_a_cut_hides_what_it_leaves_out_and_keeps_what_it_surely_shows() -> None:
    dress, sleeveless, jeans = cut_states([DRESS, SLEEVELESS, JEANS], DEFAULT)
    columns = [group.name for group in DEFAULT.attributes]
    assert columns == ["texture", "sleeve", "length", "neckline", "fabric", "fit"]
    s, u, h = SHOWN, UNKNOWN, HIDDEN
    assert dress[WHOLE].tolist() == [s] * 6
    assert dress[NO_HEM].tolist() == [s, u, h, s, s, u]
    assert dress[NO_NECKLINE].tolist() == [s, u, u, h, s, u]
    assert dress[NO_SLEEVES].tolist() == [s, h, u, s, s, u]
    assert dress[STRIP].tolist() == [u, h, h, h, s, u]
    assert sleeveless[[NO_HEM, NO_SLEEVES], 1].tolist() == [s, u]  # straps show that there is no sleeve
    assert jeans[STRIP].tolist() == [u, s, s, s, s, u]  # jeans have no sleeve to hide; their labels stay
    sleeves = {"sleeve": {"values": ["long_sleeve", "short_sleeve"]}}
    own = Taxonomy.load({"category": {"values": ["dress", "jeans"]}, "attributes": sleeves})
    assert (cut_states([DRESS], own) != HIDDEN).all()


def test_only_clothes_of_known_extent_are_cut() -> None:
    samples = [DRESS, JEANS, PHOTO, SHOE]
    chances = cut_chances(samples, cut_states(samples, DEFAULT), DEFAULT)
    assert chances.tolist() == [
        pytest.approx([0, 1.2, 1.2, 1.2, 1.2]), pytest.approx([0, 0.2, 0.2, 0.2, 0.2]), [0] * 5, [0] * 5,
    ]  # fmt: skip


def test_cuts_are_drawn_around_those_of_the_protocol() -> None:
    chances = torch.tensor([[0, 1.0, 1, 1, 1]] * 4000 + [[0.0] * 5] * 100)
    cuts, parts = draw_cuts(chances, 0.4, torch.Generator().manual_seed(0))
    assert (cuts[4000:] == WHOLE).all()
    assert [float((cuts[:4000] == c).float().mean()) for c in range(5)] == pytest.approx([0.6, *[0.1] * 4], abs=0.02)
    assert (parts[cuts == WHOLE] == torch.tensor([0.0, 0, 1, 1])).all()
    hem = parts[cuts == NO_HEM]
    assert (hem[:, :3] == torch.tensor([0.0, 0, 1])).all()
    assert 0.45 <= hem[:, 3].min() < 0.46
    assert 0.59 < hem[:, 3].max() <= 0.6
    strip = parts[cuts == STRIP]
    assert (strip[:, :2] < strip[:, 2:]).all()
    assert 0.3 <= strip[:, 0].min() < 0.31
    again, same = draw_cuts(chances, 0.4, torch.Generator().manual_seed(0))
    assert torch.equal(again, cuts)
    assert torch.equal(same, parts)


def test_a_part_is_fitted_into_the_crop_again_on_white() -> None:
    crop = torch.zeros(3, 40, 20, dtype=torch.uint8)
    crop[0, :20] = 200
    upper = refit(crop, torch.tensor([0, 0, 1, 0.5]))
    assert (upper.shape, upper.dtype) == (crop.shape, torch.uint8)
    assert (upper[:, :10] == 255).all()
    assert (upper[:, 30:] == 255).all()
    assert (upper[:, 10:30] == torch.tensor([200, 0, 0])[:, None, None]).all()
    corner = refit(crop, torch.tensor([0.5, 0.75, 1, 1]))
    assert (corner[:, 10:30] == 0).all()
    assert (corner[:, :10] == 255).all()
    assert torch.equal(refit(crop, torch.tensor([0.0, 0, 1, 1])), crop)
    assert refit(crop, torch.tensor([1.0, 1, 1, 1])).shape == crop.shape


def test_where_garments_lie_in_their_crops(tmp_path: Path) -> None:
    pack = write_pack(tmp_path)
    samples = labeled_samples(pack, "train")
    tee, jacket = samples[0], samples[7]
    crops = load_crops([Crop(tee, masked=False), Crop(jacket, masked=False)], (64, 48), tmp_path / "crops")
    found = extents([tee, jacket], crops, (64, 48), torch.tensor([True, True]))
    assert found[0].tolist() == pytest.approx([20 / 96, 24 / 128, 76 / 96, 104 / 128], abs=0.03)
    assert found[1].tolist() == pytest.approx([0, 8 / 64, 1, 56 / 64])  # 32 by 32 pixels along its box, on white
    assert not extents([tee], crops, (64, 48), torch.tensor([False])).any()
    rows, columns = np.nonzero(extent(tee))
    assert (rows.min(), columns.min(), rows.max(), columns.max()) == pytest.approx((24, 20, 103, 75), abs=1)
    assert extent(jacket).sum() == 32 * 32


def test_users_photos_with_a_mask_are_cropped_along_it(tmp_path: Path) -> None:
    pack = write_pack(tmp_path)
    samples = labeled_samples(pack, "train")
    (pack / "clothing_masks.jsonl").unlink()
    assert with_masks(pack, samples, "train") == []
    write_lines(pack / "clothing_masks.jsonl", [{"id": "c1", "split": "train"}, {"id": "c4", "split": "val"}])
    mask = np.zeros((128, 96), np.uint8)
    mask[30:90, 22:70] = 1
    Image.fromarray(mask).save(pack / "clothing/train/c1.mask.png")
    (found,) = with_masks(pack, samples, "train")
    assert (found.id, found.box, found.mask_value) == ("c1", (22, 30, 70, 90), 1)
    assert found.attributes == next(s for s in samples if s.id == "c1").attributes
    np.testing.assert_array_equal(extent(found), mask == 1)


def test_parts_of_photos_without_a_garment(tmp_path: Path) -> None:
    samples = labeled_samples(write_pack(tmp_path), "train")
    clear_left(tmp_path, 48)
    found = list(pieces(samples, np.random.default_rng(0)))
    assert {(sample.source, sample.id) for sample, *_ in found} <= {("street", "0001"), ("street", "0002")}
    assert found
    for sample, _, crop in found:
        height, width = crop.shape[:2]
        assert (0.2 * 96 - 1 <= height <= 0.5 * 96, 0.2 * 64 - 1 <= width <= 0.5 * 64) == (True, True)
        assert sample.mask is not None
    assert [crop.tolist() for *_, crop in pieces(samples, np.random.default_rng(0))] == [c.tolist() for *_, c in found]


def test_folds_part_photos_by_their_names() -> None:
    folds = [fold_of(Path(f"folder/{number}.jpg")) for number in range(600)]
    assert set(folds) == set(range(FOLDS))
    assert min(folds.count(fold) for fold in range(FOLDS)) > 60
    assert fold_of(Path("other/7.png")) == folds[7]


def test_a_cut_garment_is_labeled_with_what_is_out_of_view() -> None:
    vocabulary = Vocabulary(DEFAULT)
    labels = encode_samples([DRESS, JEANS], vocabulary, ["plaid"], 0.0)
    rows, cuts = torch.tensor([0, 0, 1, 0]), torch.tensor([WHOLE, NO_HEM, STRIP, STRIP])
    category, attributes = labels.texts_of(rows, cuts)
    assert [vocabulary.texts[text] for text in category.tolist()] == [
        "a photo of red dress", "a photo of red dress", "a photo of blue fabric", "a photo of red fabric",
    ]  # fmt: skip
    said = [[vocabulary.texts[text] if text >= 0 else None for text in row] for row in attributes.tolist()]
    assert said[0] == [
        *(f"a photo of {words} dress" for words in ("floral", "long sleeve", "maxi length", "v-neck")),
        None, "a photo of loose fit dress", "a name", "a caption",
    ]  # fmt: skip
    assert said[1] == [
        "a photo of floral dress", None, "a photo of hem out of view dress", "a photo of v-neck dress",
        None, None, "a name", "a caption",
    ]  # fmt: skip
    assert said[3] == [
        None, "a photo of sleeves out of view dress", "a photo of hem out of view dress",
        "a photo of no visible neckline dress", None, None, None, None,
    ]  # fmt: skip
    rng = torch.Generator().manual_seed(0)
    targets = {g: labels.attributes(rows, g, cuts, rng)[1].argmax(1).tolist() for g in ("sleeve", "length", "neckline")}
    known = {g: labels.attributes(rows, g, cuts, rng)[1].any(1).tolist() for g in targets}
    assert targets == {"sleeve": [0, 0, 0, 3], "length": [1, 3, 2, 3], "neckline": [1, 1, 9, 9]}
    assert known == {"sleeve": [True, False, False, True], "length": [True] * 4, "neckline": [True] * 4}
