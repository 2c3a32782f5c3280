"""The recipes end to end on a drawn data pack in the layout of the real one, and their figures by hand."""

from __future__ import annotations

import json
import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor

from fashion_retrieval import checkpoint
from fashion_retrieval.models.segmenter import GarmentSegmenter
from fashion_retrieval.taxonomy import Taxonomy
from tests.tiny import tiny_clip, tiny_folder
from training import metrics, train_raf_clip, train_segmenter
from training.data.crops import augment, load_crops, read_crop
from training.data.manifest import (
    Sample,
    extra_samples,
    labelled_samples,
    read_held_out,
    region_mask,
)
from training.data.pixels import CLASSES, IGNORED, Photo, clothing_photos, load_photos, product_photos, street_photos
from training.data.texts import Vocabulary, encode_samples
from training.loop import Optimisation, generator
from training.losses import Targets
from training.train_raf_clip import HELD_OUT, Settings, load_encoder

# `fit` of training/data/crops.py gives PyTorch a read-only array; PyTorch says so once a process.
HELD_OUT_WORDS = list(read_held_out(HELD_OUT))
STREET_LABELS = ["null", "bag", "boots", "dress", "hair", "jacket", "pants", "ring", "shoes", "skin"]
STREET_COLOURS = np.random.default_rng(7).integers(20, 240, (10, 3)).astype(np.uint8)
STREET_KINDS = {"null": "background", "hair": "person", "skin": "person", "dress": "dress", "ring": "other"} | {
    "bag": "bag", "boots": "footwear", "shoes": "footwear", "jacket": "outerwear", "pants": "trousers"
}  # fmt: skip
SCENES = {
    "0001": [("hair", 24, 4, 40, 14), ("skin", 26, 14, 38, 24), ("dress", 18, 24, 46, 70), ("bag", 46, 50, 52, 53),
             ("boots", 20, 82, 44, 92), ("ring", 14, 56, 15, 57)],
    "0002": [("skin", 26, 6, 38, 20), ("jacket", 16, 20, 48, 52), ("pants", 20, 52, 44, 84), ("shoes", 20, 86, 44, 92)],
    "0004": [("dress", 10, 10, 50, 80)],
}  # fmt: skip
"""Label and xyxy box of what is drawn, 64 pixels wide and 96 high."""
PRODUCTS = [
    ("1", "train", "Topwear", "Tshirts", "Blue", "Lark Men Blue T-shirt"),
    ("2", "train", "Topwear", "Shirts", "Navy Blue", "Mara Men Plaid Shirt"),
    ("3", "train", "Dress", "Dresses", "Red", "Ines Women Red Dress"),
    ("4", "train", "Bags", "Handbags", "Black", "Roya Women Black Handbag"),
    ("5", "train", "Bottomwear", "Jeans", "Blue", "Toro Men Blue Jeans"),
    ("6", "train", "Bags", "Handbags", "Khaki", "Noor Women Handbag"),
    ("7", "train", "Topwear", "Tshirts", "Grey", "Lark Women Oversized T-shirt"),
    ("8", "val", "Shoes", "Casual Shoes", "White", "Toro White Shoes"),
]
CLOTHING = [("c1", "train", "Dress"), ("c2", "train", "Shoes"), ("c3", "train", "Hat"), ("c4", "val", "Skirt")]
NOTHING = {"sleeve": "na", "length": "no_dress", "neckline": "none", "fabric": "other", "fit": "conventional"}
WORN = {"sleeve": "short_sleeve", "length": "no_dress", "neckline": "crew", "fabric": "cotton", "fit": "loose"}


def label(source: str, name: str, category: str, texture: str, colour: str, **more: Any) -> dict[str, Any]:
    row = {"source": source, "id": name, "split": "train", "category": category, "texture": texture, "colour": colour}
    return {**row, **WORN, **more}


LABELLED = [
    label("products", "1", "tee", "solid", "blue"),
    label("products", "2", "button_down", "lattice", "blue"),
    label("products", "3", "dress", "floral", "red", length="maxi_length"),
    label("products", "4", "handbag", "solid", "black", **NOTHING),
    label("clothing", "c1", "dress", "dotted", "green"),
    label("clothing", "c3", "hat", "solid", "white", **NOTHING),
    label("street", "0001", "dress", "solid", "red", region=0),
    label("street", "0002", "jacket", "solid", "green", region=0),
    label("street", "0002", "trousers", "striped", "blue", region=1, **NOTHING),
]


def write_lines(path: Path, rows: list[dict[str, Any]]) -> None:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")


def save_photo(pixels: NDArray[np.uint8], path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(pixels).save(path, quality=95, subsampling=0)


def one_garment(number: int, background: int) -> NDArray[np.uint8]:
    """A studio or bed photo, 96 wide and 128 high: a rectangle of its own colour."""
    pixels = np.full((128, 96, 3), background, dtype=np.uint8)
    pixels[24:104, 20:76] = np.random.default_rng(number).integers(20, 170, 3)
    return pixels


def street_row(name: str, split: str, scene: list[tuple[str, int, int, int, int]]) -> dict[str, Any]:
    regions = [
        {
            "label": label,
            "label_index": STREET_LABELS.index(label),
            "box": [left, top, right, bottom],
            "area": round((right - left) * (bottom - top) / (64 * 96), 5),
        }
        for label, left, top, right, bottom in scene
        if label not in ("hair", "skin")
    ]
    return {"id": name, "split": split, "width": 64, "height": 96, "regions": regions}


def labels_of(scene: list[tuple[str, int, int, int, int]]) -> NDArray[np.uint8]:
    labels = np.zeros((96, 64), dtype=np.uint8)
    for label, left, top, right, bottom in scene:
        labels[top:bottom, left:right] = STREET_LABELS.index(label)
    return labels


@pytest.fixture(scope="module")
def pack(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """products, clothing, street, attributes and the street labels: every key of the real files, drawn photos."""
    root = tmp_path_factory.mktemp("pack")
    (root / "street_labels.json").write_text(json.dumps(STREET_LABELS))
    rest = {"gender": "Unisex", "master_category": "Apparel", "season": "Fall", "usage": "Casual", "group": None}
    keys = ("id", "split", "sub_category", "article_type", "base_colour", "name")
    products = [{**dict(zip(keys, row, strict=True)), **rest} for row in PRODUCTS]
    write_lines(root / "products.jsonl", products)
    write_lines(root / "clothing.jsonl", [{"id": i, "split": s, "label": x, "kids": False} for i, s, x in CLOTHING])
    tagged = {"id": "0003", "split": "train", "width": 64, "height": 96, "tags": ["dress", "shoes"]}
    street = [street_row(name, "val" if name == "0004" else "train", scene) for name, scene in SCENES.items()]
    write_lines(root / "street.jsonl", [*street, tagged])
    held_back = label("clothing", "c4", "skirt", "solid", "blue", split="val")
    write_lines(root / "attributes.jsonl", [*LABELLED, held_back])
    for number, (name, split, *_) in enumerate(PRODUCTS):
        save_photo(one_garment(number, 252), root / f"products/{split}/{name}.jpg")
    for number, (name, split, _) in enumerate(CLOTHING):
        save_photo(one_garment(10 + number, 200), root / f"clothing/{split}/{name}.jpg")
    for row in street:
        folder, labels = root / "street" / row["split"], labels_of(SCENES[row["id"]])
        save_photo(STREET_COLOURS[labels], folder / f"{row['id']}.jpg")
        Image.fromarray(labels).save(folder / f"{row['id']}.mask.png")
    return root


@pytest.fixture(scope="module")
def start(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_folder(tmp_path_factory.mktemp("start"))


@pytest.fixture(autouse=True)
def _on_the_cpu(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)


def recipe(pack: Path, start: Path, output: Path) -> Settings:
    return Settings(
        data=str(pack),
        init=str(start),
        output=str(output),
        taxonomy="default",
        targets="same_text",
        alpha=0.5,
        optimisation=Optimisation(steps=2, lr=1e-3, warmup=1, checkpoint_every=2),
        vocabulary_weight=1.0,
        smoothing=0.05,
        balance=0.5,
        lock_text=True,
        cache_size=[40, 36],
        size_schedule=[[0, 32, 32]],
        whole_garments=4,
        masked_garments=3,
        extra_garments=2,
    )


def log_of(folder: Path) -> list[dict[str, float]]:
    rows = [json.loads(line) for line in (folder / "log.jsonl").read_text().splitlines()]
    return [{name: value for name, value in row.items() if name != "seconds"} for row in rows]


FIRST_LOSS: dict[Targets, float] = {"identity": 6.37393, "same_text": 6.32723}


@pytest.mark.parametrize("lock_text", [True, False])
@pytest.mark.parametrize("targets", ["identity", "same_text"])
def test_raf_clip_starts_at_its_golden_loss(
    pack: Path, start: Path, tmp_path: Path, targets: Targets, lock_text: bool
) -> None:
    settings = replace(recipe(pack, start, tmp_path), targets=targets, lock_text=lock_text)
    trained = train_raf_clip.train(settings).clip.state_dict()
    log = log_of(tmp_path)
    assert [row["step"] for row in log] == [0, 1]
    assert log[0]["loss"] == pytest.approx(FIRST_LOSS[targets], abs=1e-3)
    assert all(np.isfinite(list(row.values())).all() for row in log)
    before = tiny_clip().state_dict()
    moved = {name for name, value in trained.items() if not torch.equal(value, before[name])}
    of_text = {
        "token_embedding.weight",
        "text_projection",
        "ln_final.weight",
        "transformer.resblocks.1.mlp.c_fc.weight",
    }
    assert {"visual.proj", "visual.conv1.weight", "logit_scale"} <= moved
    assert of_text & moved == (set() if lock_text else of_text)


def test_the_parts_of_the_loss_add_up_and_it_falls(pack: Path, start: Path, tmp_path: Path) -> None:
    base = recipe(pack, start, tmp_path)
    plan = replace(base.optimisation, steps=12, lr=3e-3, checkpoint_every=12)
    train_raf_clip.train(replace(base, optimisation=plan, alpha=0.25, vocabulary_weight=2.0, whole_garments=6))
    log = log_of(tmp_path)
    for row in log:
        groups = [row[f"V_{name}"] for name in ("texture", "sleeve", "length", "neckline", "fabric", "fit")]
        vocabulary = 0.75 * (row["V_category"] + row["V_colour"]) / 2 + 0.25 * float(np.mean(groups))
        assert row["loss"] == pytest.approx(0.75 * row["L_c"] + 0.25 * row["L_a"] + 2 * vocabulary, abs=1e-4)
    losses = [row["loss"] for row in log]
    assert np.mean(losses[-4:]) < np.mean(losses[:4]) - 0.2


def test_an_interrupted_run_goes_on_exactly(
    pack: Path, start: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    plan = Optimisation(steps=4, lr=1e-3, warmup=1, ema=0.5, checkpoint_every=2)
    base = replace(recipe(pack, start, tmp_path / "straight"), optimisation=plan, lock_text=False)
    straight = train_raf_clip.train(base).clip.state_dict()
    steps: list[int] = []

    def stopping(crops: Tensor, size: tuple[int, int], chance: torch.Generator) -> Tensor:
        steps.append(len(steps))
        if len(steps) == 4:
            raise KeyboardInterrupt
        return augment(crops, size, chance)

    resumed = replace(base, output=str(tmp_path / "resumed"))
    with monkeypatch.context() as patch:
        patch.setattr(train_raf_clip, "augment", stopping)
        with pytest.raises(KeyboardInterrupt):
            train_raf_clip.train(resumed)
        assert len(log_of(tmp_path / "resumed")) == 3  # the last of them is past the checkpoint and done again
    found = train_raf_clip.train(resumed).clip.state_dict()
    assert found.keys() == straight.keys()
    assert all(torch.equal(found[name], straight[name]) for name in straight)
    assert log_of(tmp_path / "resumed") == log_of(tmp_path / "straight")


def test_the_command_writes_a_model_of_averaged_weights(
    pack: Path, start: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    output, config = tmp_path / "out", tmp_path / "recipe.toml"
    config.write_text(
        f'data = "{pack}"\ninit = "{start}"\noutput = "{output}"\ntaxonomy = "default"\ntargets = "identity"\n'
        "alpha = 0.5\nlock_text = true\ncache_size = [40, 36]\nsize_schedule = [[0, 32, 32]]\nwhole_garments = 4\n"
        'freeze = ["visual.conv1"]\n[optimisation]\nsteps = 1\nlr = 1e-2\nema = 0.9\n'
    )
    train_raf_clip.main(config)
    assert capsys.readouterr().out.endswith(f"encoder written to {output}\n")
    saved = torch.load(output / "checkpoint.pt", weights_only=True)
    written = load_encoder(output).clip.state_dict()
    assert all(torch.equal(value, saved["average"][f"clip.{name}"]) for name, value in written.items())
    assert not torch.equal(written["visual.proj"], saved["modules"]["clip.visual.proj"])
    assert torch.equal(written["visual.conv1.weight"], tiny_clip().state_dict()["visual.conv1.weight"])
    assert torch.equal(checkpoint.load(output).encoder.clip.state_dict()["visual.proj"], written["visual.proj"])


def test_the_pack_is_read_as_samples(pack: Path) -> None:
    labelled, extra = labelled_samples(pack, "train"), extra_samples(pack, "train")
    assert [(s.source, s.id) for s in labelled] == [(row["source"], row["id"]) for row in LABELLED]
    assert [(s.source, s.id, s.category, s.colour) for s in extra] == [
        ("products", "5", "jeans", "blue"),
        ("products", "6", "handbag", None),
        ("products", "7", None, "gray"),
        ("clothing", "c2", None, None),
        ("street", "0001", "boots", None),
        ("street", "0002", None, None),
    ]
    handbag, trousers = labelled[3], labelled[8]
    assert handbag.attributes == {k: v for k, v in NOTHING.items() if k not in ("sleeve", "fabric")} | {
        "texture": "solid"
    }
    assert handbag.texts == ("Roya Women Black Handbag",)
    assert (trousers.box, trousers.mask_value, trousers.photo) == (
        (20, 52, 44, 84),
        STREET_LABELS.index("pants"),
        pack / "street/train/0002.jpg",
    )
    assert [s.id for s in labelled_samples(pack, "val")] == ["c4"]


def test_a_masked_crop_is_white_outside_its_garment(pack: Path) -> None:
    dress = labelled_samples(pack, "train")[6]
    mask = region_mask(dress)
    assert mask is not None
    np.testing.assert_array_equal(mask, labels_of(SCENES["0001"]) == STREET_LABELS.index("dress"))
    wide = replace(dress, box=(8, 20, 56, 76))
    crop, masked = (np.asarray(read_crop(wide, masked=masked)).astype(int) for masked in (False, True))
    inside = mask[20:76, 8:56]
    assert (masked[~inside] == 255).all()
    np.testing.assert_array_equal(masked[inside], crop[inside])
    assert abs(crop[inside].mean(0) - STREET_COLOURS[3]).max() < 3
    batch = load_crops([wide], (56, 64), masked=True, label="crops")
    assert (batch.shape, batch.dtype) == ((1, 3, 56, 64), torch.uint8)
    np.testing.assert_array_equal(batch[0, :, :, 8:56].permute(1, 2, 0).numpy(), masked)
    assert (batch[..., :8] == 255).all()
    assert (batch[..., 56:] == 255).all()


def test_augmentation_depends_on_its_generator_alone_and_keeps_white() -> None:
    crops = torch.randint(0, 200, (3, 3, 40, 36), dtype=torch.uint8, generator=generator(0, 1))
    first, again, other = (augment(crops, (32, 28), generator(0, step)) for step in (5, 5, 6))
    assert torch.equal(first, again)
    assert not torch.equal(first, other)
    assert (first.shape, first.dtype) == ((3, 3, 32, 28), torch.float32)
    assert 0 <= first.min().item() < first.max().item() <= 1
    assert augment(torch.full_like(crops, 255), (32, 28), generator(0, 7)).min().item() == pytest.approx(1, abs=1e-5)


def test_texts_with_held_out_words_never_reach_the_vocabulary(pack: Path) -> None:
    samples = [*labelled_samples(pack, "train"), *extra_samples(pack, "train")]
    assert any("Plaid" in text for sample in samples for text in sample.texts)
    vocabulary = Vocabulary(Taxonomy.load("default"))
    rows = encode_samples(samples, vocabulary, HELD_OUT_WORDS, 0.0)
    plain = [f" {re.sub('[^a-z-]+', ' ', text.lower())} " for text in vocabulary.texts]
    assert not [word for word in HELD_OUT_WORDS if any(f" {word} " in text for text in plain)]
    texts = vocabulary.texts
    assert {"Lark Men Blue T-shirt", "Noor Women Handbag", "a photo of grey tshirts"} <= set(texts)
    assert {"Mara Men Plaid Shirt", "a photo of khaki handbags", "Lark Women Oversized T-shirt"}.isdisjoint(texts)
    names = [texts[row] if row >= 0 else None for row in rows.attribute_texts[:, -1].tolist()]
    assert names[:4] == ["Lark Men Blue T-shirt", None, "Ines Women Red Dress", "Roya Women Black Handbag"]


def test_samples_become_rows_of_text_ids(pack: Path) -> None:
    samples = [*labelled_samples(pack, "train"), *extra_samples(pack, "train")]
    samples.append(
        Sample("street", "x", pack, category="spacesuit", texts=("a plaid suit",), attributes={"fit": "loose"})
    )
    vocabulary = Vocabulary(Taxonomy.load("default"))
    rows = encode_samples(samples, vocabulary, HELD_OUT_WORDS, 0.0)
    assert [vocabulary.texts[row] for row in rows.category_text.tolist()] == [
        "a photo of blue t-shirt",
        "a photo of blue button-down shirt",
        "a photo of red dress",
        "a photo of black handbag",
        "a photo of green dress",
        "a photo of white hat",
        "a photo of red dress",
        "a photo of green jacket",
        "a photo of blue trousers",
        "a photo of blue jeans",
        "Noor Women Handbag",
        "a photo of grey tshirts",
        "a photo of shoes",
        "a photo of boots",
        "a photo of shoes",
        "a photo of a garment",
    ]

    def attributes(row: int) -> list[str | None]:
        return [vocabulary.texts[text] if text >= 0 else None for text in rows.attribute_texts[row, :-1].tolist()]

    assert vocabulary.groups == ("texture", "sleeve", "length", "neckline", "fabric", "fit")
    assert attributes(2) == [
        f"a photo of {words} dress"
        for words in ("floral", "short sleeve", "maxi length", "crew neck", "cotton", "loose fit")
    ]
    regular, none, fit = "regular length", "no visible neckline", "regular fit"
    wanted = ["solid", None, regular, none, None, fit]
    assert attributes(3) == [words and f"a photo of {words} handbag" for words in wanted]
    assert attributes(9) == [None] * 6
    assert attributes(15) == [None] * 6  # a category outside the taxonomy leaves its labels unused
    assert {name: int(column[3]) for name, column in rows.labels.items()} == {
        "texture": 0, "sleeve": -1, "length": 2, "neckline": 9, "fabric": -1, "fit": 0
    }  # fmt: skip
    assert rows.weights.tolist() == [1.0] * 16


def test_rare_labels_are_drawn_more_often() -> None:
    def sample(category: str, texture: str) -> Sample:
        return Sample("products", "1", Path(), category=category, attributes={"texture": texture})

    samples = [sample("tee", "solid")] * 4 + [
        sample("tee", "floral"),
        sample("dress", "floral"),
        sample("tee", "solid"),
    ]
    rows = encode_samples(samples, Vocabulary(Taxonomy.load("default")), HELD_OUT_WORDS, 0.5)
    wanted = [5**-0.5] * 4 + [2**-0.5, 1, 5**-0.5]  # 6 tees, 1 dress, 5 solid, 2 floral
    assert rows.weights.tolist() == pytest.approx(wanted)


Loaded = tuple[Tensor, Tensor, Tensor]


@pytest.fixture(scope="module")
def loaded(pack: Path) -> Loaded:
    """Photos 0-1 street, 2-8 products, 9-11 clothing, 12 an empty studio; no larger than the street photos."""
    save_photo(np.full((128, 96, 3), 250, np.uint8), pack / "blank.jpg")
    photos = [*street_photos(pack, "train"), *product_photos(pack, "train"), *clothing_photos(pack, "train")]
    kinds = ["upper", "upper", "dress", "bag", "trousers", "bag", "upper", "dress", "footwear", "headwear"]
    assert [photo.kind for photo in photos] == [None, None, *kinds]
    return load_photos([*photos, Photo(pack / "blank.jpg", kind="bag", studio=True)], (96, 64), pack, "drawn")


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
        inside = pixels[row].permute(1, 2, 0).numpy().astype(int) - STREET_COLOURS[drawn]
        assert np.median(abs(inside)) <= 2
    assert tags.tolist()[:2] == [-1, -1]
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


def test_the_segmenter_recipe(loaded: Loaded, tmp_path: Path) -> None:
    pixels, allowed, tags = loaded
    settings = train_segmenter.Settings(
        data="",
        output=str(tmp_path),
        architecture="tf_efficientnet_lite0",
        image_size=[64, 64],
        train_size=[64, 64],
        optimisation=Optimisation(steps=2, lr=1e-2),
        street=2,
        weak_weight=0.3,
        freeze=["backbone.conv_stem"],
    )
    parts = [(2, slice(0, 2)), (1, slice(2, 9)), (1, slice(9, 12))]
    sources = [(count, (pixels[rows], allowed[rows], tags[rows])) for count, rows in parts]
    trained = train_segmenter.train(settings, sources).state_dict()
    torch.manual_seed(settings.optimisation.seed)
    fresh = GarmentSegmenter(settings.segmenter())
    train_segmenter.load_backbone(fresh)
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


def test_presence_loss_looks_at_the_surest_pixels() -> None:
    logits, _, shares = drawn_logits()
    surest = [np.sort(shares[photo, tag].ravel())[-2:].mean() for photo, tag in ((0, 3), (1, 0))]
    tags = torch.tensor([3, 0])
    found = train_segmenter.presence_loss(logits, tags, share=1 / 3).item()
    assert found == pytest.approx(-np.mean(np.log(surest)), abs=1e-9)
    best = train_segmenter.presence_loss(logits, torch.tensor([-1, 2])).item()
    assert best == pytest.approx(-np.log(shares[1, 2].max()), abs=1e-9)
    assert train_segmenter.presence_loss(logits, torch.tensor([-1, -1])).item() == 0


def test_macro_f1_by_hand() -> None:
    truth, guess = list("aaabbc"), list("aabbda")
    assert metrics.macro_f1(truth, guess) == pytest.approx((4 / 6 + 2 / 4 + 0) / 3)  # "d" is no label of the truth
    assert metrics.accuracy(truth, guess) == 0.5
    assert metrics.macro_f1(truth, truth) == 1


def test_calibration_error_by_hand() -> None:
    confidence = np.array([0.95, 0.95, 1.0, 0.85, 0.15])
    correct = np.array([True, False, True, True, False])
    gaps = 0.6 * (2.9 / 3 - 2 / 3) + 0.2 * 0.15 + 0.2 * 0.15
    assert metrics.expected_calibration_error(confidence, correct) == pytest.approx(gaps)
    assert metrics.expected_calibration_error(confidence, correct, bins=1) == pytest.approx(3.9 / 5 - 3 / 5)


def test_boxes_match_one_to_one_best_first() -> None:
    truth = np.array([[0.0, 0, 10, 10], [0, 0, 10, 6]])
    found = np.array([[0.0, 0, 10, 7], [0, 0, 10, 10], [20, 20, 30, 30]])
    np.testing.assert_allclose(metrics.box_iou(truth, found), [[0.7, 1, 0], [6 / 7, 0.6, 0]])
    assert metrics.match_boxes(truth, found) == {0: 1, 1: 0}
    assert metrics.match_boxes(truth, found, threshold=0.9) == {0: 1}
    assert metrics.match_boxes(truth, found[:1]) == {1: 0}
    assert metrics.match_boxes(truth, found[2:]) == metrics.match_boxes(truth[:0], found) == {}


def test_a_bootstrap_interval_is_the_textbooks() -> None:
    values = np.random.default_rng(1).normal(3, 2, 400)
    low, high = metrics.bootstrap_interval(400, lambda rows: float(values[rows].mean()))
    margin = 1.96 * values.std() / 20
    assert [low, high] == pytest.approx([values.mean() - margin, values.mean() + margin], abs=0.03)
    assert metrics.bootstrap_interval(5, lambda rows: float(len(rows))) == [5.0, 5.0]
    first, again, other = (metrics.bootstrap_interval(9, lambda r: float(r.mean()), seed=s) for s in (0, 0, 1))
    assert first == again != other
