"""The segmenter's recipe on a drawn data pack: labels of pixels, a training and its losses by hand."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from PIL import Image
from safetensors.torch import save_file
from torch import Tensor

from fashion_retrieval.models.segmenter import GarmentSegmenter
from tests.support.drawn_pack import (
    GARMENT_MASK,
    SCENES,
    STREET_COLORS,
    STREET_LABELS,
    labels_of,
    log_of,
    save_photo,
    write_pack,
)
from training import train_segmenter
from training.data.pixels import (
    CLASSES,
    EXACT,
    IGNORED,
    SEVERAL,
    Photo,
    allowed_classes,
    clothing_photos,
    flat_lay_photos,
    in_fold,
    load_photos,
    product_photos,
    street_photos,
    tagged_photos,
)
from training.engine.loop import generator
from training.engine.optimizer import OptimizerConfig
from training.engine.weights import load_efficientnet

STREET_KINDS = {"null": "background", "hair": "person", "skin": "person", "dress": "dress", "ring": "other"} | {
    "bag": "bag", "boots": "footwear", "shoes": "footwear", "jacket": "outerwear", "pants": "trousers"
}  # fmt: skip

Loaded = tuple[Tensor, Tensor, Tensor]
SETTINGS = train_segmenter.Settings(
    data="",
    output="",
    architecture="tf_efficientnet_lite0",
    image_size=[64, 64],
    train_size=[64, 64],
    optimization=OptimizerConfig(steps=2, lr=1e-2),
    street=2,
)


@pytest.fixture(autouse=True)
def _on_the_cpu(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)


@pytest.fixture(scope="module")
def loaded(tmp_path_factory: pytest.TempPathFactory) -> Loaded:
    """Photos 0-1 street, 2-8 products, 9-11 clothing, 12 an empty studio; no larger than the street photos."""
    pack = write_pack(tmp_path_factory.mktemp("pack"))
    save_photo(np.full((128, 96, 3), 250, np.uint8), pack / "blank.jpg")
    photos = [*street_photos(pack, "train"), *product_photos(pack, "train"), *clothing_photos(pack, "train")]
    kinds = ["upper", "upper", "dress", "bag", "trousers", "bag", "upper", "dress", "footwear", "headwear"]
    assert [photo.kinds for photo in photos] == [(), (), *((kind,) for kind in kinds)]
    return load_photos([*photos, Photo(pack / "blank.jpg", kinds=("bag",), studio=True)], (96, 64), pack, "drawn")


def classes(bits: Tensor) -> set[str]:
    return {name for place, name in enumerate(CLASSES) if int(bits) >> place & 1}


def test_street_masks_give_exact_labels(loaded: Loaded) -> None:
    pixels, allowed, tags = loaded
    assert (pixels.shape, pixels.dtype) == ((13, 3, 96, 64), torch.uint8)
    assert (allowed.shape, allowed.dtype, tags.dtype) == ((13, 96, 64), torch.int16, torch.int64)
    for row, name in enumerate(("0001", "0002")):
        drawn = labels_of(SCENES[name])
        wanted = [1 << CLASSES.index(STREET_KINDS[STREET_LABELS[value]]) for value in drawn.ravel()]
        np.testing.assert_array_equal(allowed[row].numpy().ravel(), wanted)
        inside = pixels[row].permute(1, 2, 0).numpy().astype(int) - STREET_COLORS[drawn]
        assert np.median(abs(inside)) <= 2
    assert tags.tolist()[:2] == [EXACT, EXACT]
    assert [CLASSES[tag] for tag in tags[2:6].tolist()] == ["upper", "upper", "dress", "bag"]


def test_studio_products_give_weak_labels(loaded: Loaded) -> None:
    _, allowed, _ = loaded
    bag, dress = allowed[5], allowed[4]  # 64x85 pixels, five rows of padding above
    assert classes(bag[48, 32]) == {"bag"}
    assert classes(bag[10, 4]) == {"background"}
    assert set(bag[5:90].ravel().tolist()) == {1 << CLASSES.index(name) for name in ("bag", "background")}
    drawn = 80 * 56 / (128 * 96)
    assert (bag[5:90] == 1 << CLASSES.index("bag")).double().mean().item() == pytest.approx(drawn, rel=0.05)
    assert classes(dress[48, 32]) >= {"dress", "person", "upper"}
    assert classes(dress[48, 32]).isdisjoint({"background", "bag"})
    assert classes(dress[10, 4]) == {"background"}
    assert (allowed[12] == IGNORED).all()
    for part in (bag[:5], bag[90:]):
        assert (part == IGNORED).all()


def test_users_photos_give_weak_labels(loaded: Loaded) -> None:
    _, allowed, tags = loaded
    for row, kind in ((9, "dress"), (10, "footwear"), (11, "headwear")):
        assert CLASSES[tags[row]] == kind
        assert len(set(allowed[row, 5:90].ravel().tolist())) == 1
        assert classes(allowed[row, 40, 40]) == {kind, "background", "person"}


def test_tags_of_street_photos_give_weak_labels(tmp_path: Path) -> None:
    pack = write_pack(tmp_path)
    save_photo(STREET_COLORS[labels_of(SCENES["0002"])], pack / "street/train/0003.jpg")
    (photo,) = tagged_photos(pack, "train")
    _, allowed, tags = load_photos([photo], (128, 96), pack, "drawn")
    assert tags.tolist() == [SEVERAL]
    (value,) = set(allowed.ravel().tolist()) - {IGNORED}
    small = {"footwear", "other", "headwear", "bag"}
    assert classes(torch.tensor(value)) == {"background", "person", *small, *photo.kinds}


def test_faces_of_studio_models_are_person(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    skin, around = np.zeros((2, 160, 120), dtype=bool)
    skin[60:80, 50:70] = True
    around[40:60, 50:70] = True
    photo = np.full((160, 120, 3), 250, np.uint8)
    photo[30:140, 40:80] = (160, 20, 30)
    monkeypatch.setattr("training.data.pixels.head_masks", lambda rgb: (skin, around))
    worn = Photo(tmp_path / "worn.jpg", kinds=("upper",), studio=True)
    allowed = torch.from_numpy(allowed_classes(worn, Image.fromarray(photo), np.zeros(1, np.int16)))
    assert classes(allowed[70, 60]) == {"person"}
    assert classes(allowed[50, 60]) == {"person", "headwear", "other"}
    assert classes(allowed[120, 60]) >= {"upper", "person"}
    assert classes(allowed[5, 5]) == {"background"}


def test_the_segmenter_recipe(loaded: Loaded, tmp_path: Path) -> None:
    pixels, allowed, tags = loaded
    settings = replace(SETTINGS, output=str(tmp_path), weak_weight=0.3, freeze=["backbone.conv_stem"])
    parts = {"street": (2, slice(0, 2)), "products": (1, slice(2, 9)), "clothing": (1, slice(9, 12))}
    sources = {name: (count, (pixels[rows], allowed[rows], tags[rows])) for name, (count, rows) in parts.items()}
    trained = train_segmenter.train(settings, sources).state_dict()
    torch.manual_seed(settings.optimization.seed)
    fresh = GarmentSegmenter(settings.segmenter())
    load_efficientnet(fresh.backbone)
    before = fresh.state_dict()
    same = {name for name, value in trained.items() if torch.equal(value, before[name])}
    assert {"backbone.conv_stem.weight", "backbone.bn1.running_mean"} <= same
    assert {"head.1.weight", "lateral.0.weight", "smooth.3.0.weight"} <= trained.keys() - same
    for row in log_of(tmp_path):
        assert row["loss"] == pytest.approx(row["pixel"] + 0.5 * row["dice"] + 0.3 * row["weak"], abs=1e-4)
    assert log_of(tmp_path)[0]["pixel"] == pytest.approx(np.log(len(CLASSES)), abs=1.0)


def drawn_logits() -> tuple[Tensor, Tensor, NDArray[np.float64]]:
    """(2, 4, 2, 3) logits, allowed classes as bits with singles, sets and free pixels, and the softmax by NumPy."""
    logits = 2 * torch.randn(2, 4, 2, 3, generator=generator(0, 3), dtype=torch.float64)
    allowed = torch.tensor([[[1, 2, 4], [8, 15, 1]], [[3, 15, 2], [12, 2, 7]]])
    odds = np.exp(logits.numpy())
    return logits, allowed, odds / odds.sum(1, keepdims=True)


def test_pixel_loss_is_minus_log_of_what_is_allowed() -> None:
    logits, allowed, shares = drawn_logits()
    terms = []
    for photo, y, x in np.ndindex(2, 2, 3):
        kept = [k for k in range(4) if int(allowed[photo, y, x]) >> k & 1]
        if len(kept) < 4:
            terms.append(-np.log(shares[photo, kept, y, x].sum()))
    assert len(terms) == 10
    assert train_segmenter.pixel_loss(logits, allowed).item() == pytest.approx(np.mean(terms), abs=1e-9)
    assert train_segmenter.pixel_loss(logits, torch.full_like(allowed, 15)).item() == 0
    assert train_segmenter.pixel_loss(logits[:0], allowed[:0]).item() == 0


def test_dice_loss_counts_the_classes_that_are_there() -> None:
    logits, allowed, shares = drawn_logits()
    exact = np.isin(allowed.numpy(), [1, 2, 4, 8])
    terms = []
    for index in range(4):
        target = allowed.numpy() == 1 << index
        share = shares[:, index] * exact
        terms.append(1 - 2 * share[target].sum() / max(1.0, share.sum() + target.sum()))
    assert train_segmenter.dice_loss(logits, allowed).item() == pytest.approx(np.mean(terms), abs=1e-6)
    one = train_segmenter.dice_loss(logits, torch.where(allowed == 2, 2, 15)).item()
    target = allowed.numpy() == 2
    assert one == pytest.approx(1 - 2 * shares[:, 1][target].sum() / (shares[:, 1][target].sum() + 3), abs=1e-6)


def test_presence_loss_looks_at_the_surest_pixels_that_may_be_of_the_kind() -> None:
    logits, _, shares = drawn_logits()
    anywhere = torch.full((2, 2, 3), 0b1101)
    surest = [np.sort(shares[photo, tag].ravel())[-2:].mean() for photo, tag in ((0, 3), (1, 0))]
    found = train_segmenter.presence_loss(logits, anywhere, torch.tensor([3, 0]), fraction=1 / 3).item()
    assert found == pytest.approx(-np.mean(np.log(surest)), abs=1e-9)
    best = train_segmenter.presence_loss(logits, anywhere, torch.tensor([-1, 2])).item()
    assert best == pytest.approx(-np.log(shares[1, 2].max()), abs=1e-9)
    below = anywhere.clone()
    below[1, 0] = 0b0001
    there = train_segmenter.presence_loss(logits, below, torch.tensor([-2, 2])).item()
    assert there == pytest.approx(-np.log(shares[1, 2, 1].max()), abs=1e-9)
    assert train_segmenter.presence_loss(logits, below, torch.tensor([-1, 2]), fraction=2 / 3).item() == 0
    assert train_segmenter.presence_loss(logits, torch.full_like(below, 0b1111), torch.tensor([3, 0])).item() == 0
    assert train_segmenter.presence_loss(logits, anywhere, torch.tensor([-1, -1])).item() == 0


def test_portraits_and_scenes_change_what_is_seen_by_the_generator_alone(loaded: Loaded) -> None:
    pixels, allowed, tags = loaded
    settings = replace(SETTINGS, train_size=[96, 64], portraits=0.5, scenes=0.5)
    parts = tags == EXACT, torch.zeros(13, dtype=torch.bool), torch.empty(0)
    seen, labels = train_segmenter.augment_pairs(pixels, allowed, *parts, generator(0, 1), settings)
    assert (seen.shape, seen.dtype) == ((13, 3, 96, 64), torch.float32)
    assert (labels.shape, labels.dtype) == ((13, 24, 16), torch.int64)
    assert 0 <= seen.min() <= seen.max() <= 1
    again, _ = train_segmenter.augment_pairs(pixels, allowed, *parts, generator(0, 1), settings)
    assert torch.equal(seen, again)
    plain, _ = train_segmenter.augment_pairs(
        pixels, allowed, *parts, generator(0, 1), replace(settings, portraits=0.0, scenes=0.0)
    )
    assert not torch.equal(seen, plain)


def test_masks_of_single_garments_give_exact_labels(tmp_path: Path) -> None:
    pack = write_pack(tmp_path)
    (photo,) = flat_lay_photos(pack, "train")
    _, allowed, tags = load_photos([photo], (128, 96), pack, "drawn")
    assert tags.tolist() == [EXACT]
    wanted = np.where(GARMENT_MASK > 0, 1 << CLASSES.index("dress"), 1 << CLASSES.index("background"))
    np.testing.assert_array_equal(allowed[0].numpy(), wanted)


def test_single_garments_are_laid_on_other_floors(tmp_path: Path) -> None:
    pack = write_pack(tmp_path)
    loaded = load_photos(flat_lay_photos(pack, "train"), (128, 96), pack, "drawn")
    settings = replace(
        SETTINGS, output=str(tmp_path / "run"), street=0, flat=2, floors=1.0, in_front=1.0, flat_zoom=[0.9, 1.0],
    )  # fmt: skip
    train_segmenter.train(settings, {"flat": (2, loaded)})
    assert [row["weak"] for row in log_of(tmp_path / "run")] == [0.0, 0.0]
    assert all(row["loss"] == pytest.approx(row["pixel"] + 0.5 * row["dice"]) for row in log_of(tmp_path / "run"))


def test_a_fold_is_a_sixth_that_training_never_sees(tmp_path: Path) -> None:
    photos = [Photo(Path(f"{number}.jpg")) for number in range(600)]
    folds = [[photo for photo in photos if in_fold(photo, fold)] for fold in range(6)]
    assert sum(map(len, folds)) == len({photo.path for fold in folds for photo in fold}) == 600
    assert all(70 < len(fold) < 130 for fold in folds)
    kept = train_segmenter._some(photos, replace(SETTINGS, fold=2, most=100))
    assert not {photo.path for photo in kept} & {photo.path for photo in folds[2]}
    assert 80 < len(kept) <= 100
    assert train_segmenter._some(photos, SETTINGS) == photos


def test_a_training_may_start_between_two_others(tmp_path: Path) -> None:
    for name, value in (("one", 1.0), ("other", 3.0)):
        (tmp_path / name).mkdir()
        tensors = {"weight": torch.full((2,), value), "count": torch.tensor(7 if name == "one" else 9)}
        save_file(tensors, tmp_path / name / "segmenter.safetensors")
    settings = replace(SETTINGS, init=str(tmp_path / "one"), blend=str(tmp_path / "other"), blended=0.25)
    start = train_segmenter._start(settings)
    assert start["weight"].tolist() == [1.5, 1.5]
    assert start["count"] == 7
    assert train_segmenter._start(replace(settings, blend=""))["weight"].tolist() == [1.0, 1.0]
