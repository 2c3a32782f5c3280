"""Garments of a drawn data pack: samples, masked crops, and their texts as ids."""

from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from fashion_retrieval.taxonomy import Taxonomy
from tests.support.drawn_pack import (
    LABELLED,
    NOTHING,
    SCENES,
    STREET_COLORS,
    STREET_LABELS,
    labels_of,
    write_lines,
    write_pack,
)
from training.data.crops import Crop, load_crops, read_crop
from training.data.manifest import Sample, extra_samples, labeled_samples, read_held_out, region_mask
from training.data.texts import Vocabulary, encode_samples
from training.train_raf_clip import HELD_OUT

HELD_OUT_WORDS = list(read_held_out(HELD_OUT))


@pytest.fixture(scope="module")
def pack(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_pack(tmp_path_factory.mktemp("pack"))


def test_the_pack_is_read_as_samples(pack: Path) -> None:
    labeled, extra = labeled_samples(pack, "train"), extra_samples(pack, "train")
    assert [(s.source, s.id) for s in labeled] == [(row["source"], row["id"]) for row in LABELLED]
    assert [(s.source, s.id, s.category, s.color) for s in extra] == [
        ("products", "5", "jeans", "blue"),
        ("products", "6", "handbag", None),
        ("products", "7", None, "gray"),
        ("clothing", "c2", None, None),
        ("street", "0001", "boots", None),
        ("street", "0002", None, None),
    ]
    handbag, trousers = labeled[3], labeled[8]
    assert handbag.attributes == {k: v for k, v in NOTHING.items() if k not in ("sleeve", "fabric")} | {
        "texture": "solid"
    }
    assert handbag.texts == ("Roya Women Black Handbag",)
    assert (trousers.box, trousers.mask_value, trousers.photo) == (
        (20, 52, 44, 84),
        STREET_LABELS.index("pants"),
        pack / "street/train/0002.jpg",
    )
    assert [s.id for s in labeled_samples(pack, "val")] == ["c4"]


def test_a_masked_crop_is_white_outside_its_garment(pack: Path, tmp_path: Path) -> None:
    dress = labeled_samples(pack, "train")[6]
    mask = region_mask(dress)
    assert mask is not None
    np.testing.assert_array_equal(mask, labels_of(SCENES["0001"]) == STREET_LABELS.index("dress"))
    wide = replace(dress, box=(8, 20, 56, 76))
    crop, masked = (np.asarray(read_crop(wide, masked=masked)).astype(int) for masked in (False, True))
    inside = mask[20:76, 8:56]
    assert (masked[~inside] == 255).all()
    np.testing.assert_array_equal(masked[inside], crop[inside])
    assert abs(crop[inside].mean(0) - STREET_COLORS[3]).max() < 3
    batch = load_crops([Crop(wide, masked=True)], (56, 64), tmp_path)[torch.tensor([0])]
    assert (batch.shape, batch.dtype) == ((1, 3, 56, 64), torch.uint8)
    np.testing.assert_array_equal(batch[0, :, :, 8:56].permute(1, 2, 0).numpy(), masked)
    assert (batch[..., :8] == 255).all()
    assert (batch[..., 56:] == 255).all()


def test_texts_with_held_out_words_never_reach_the_vocabulary(pack: Path) -> None:
    samples = [*labeled_samples(pack, "train"), *extra_samples(pack, "train")]
    assert any("Plaid" in text for sample in samples for text in sample.texts)
    vocabulary = Vocabulary(Taxonomy.load("default"))
    rows = encode_samples(samples, vocabulary, HELD_OUT_WORDS, 0.0)
    plain = [f" {re.sub('[^a-z-]+', ' ', text.lower())} " for text in vocabulary.texts]
    assert not [word for word in HELD_OUT_WORDS if any(f" {word} " in text for text in plain)]
    texts = vocabulary.texts
    assert {"Lark Men Blue T-shirt", "Noor Women Handbag", "a photo of grey tshirts"} <= set(texts)
    assert {"Mara Men Plaid Shirt", "a photo of khaki handbags", "Lark Women Oversized T-shirt"}.isdisjoint(texts)
    names = [texts[row] if row >= 0 else None for row in rows.attribute_texts[:, -2].tolist()]
    assert names[:4] == ["Lark Men Blue T-shirt", None, "Ines Women Red Dress", "Roya Women Black Handbag"]


def test_what_a_pair_says_of_its_target_is_a_text_of_its_photo(tmp_path: Path) -> None:
    pack = write_pack(tmp_path)
    known = [s for s in [*labeled_samples(pack, "train"), *extra_samples(pack, "train")] if s.source == "products"]
    pairs = [{"group": "shirt", "split": "train", "candidate": "0", "target": s.id, "captions": ["is red", "a collar"]}
             for s in known[:1] + known[-1:]]  # fmt: skip
    write_lines(pack / "pairs.jsonl", [*pairs, pairs[0] | {"split": "val", "captions": ["is secret", "x"]}])
    told = [s for s in [*labeled_samples(pack, "train"), *extra_samples(pack, "train")] if s.source == "products"]
    for before, after in zip(known, told, strict=True):
        said = ("is red and a collar",) if before.id in (known[0].id, known[-1].id) else ()
        assert after.texts == (before.texts[0], *said, *before.texts[1:])
    vocabulary = Vocabulary(Taxonomy.load("default"))
    rows = encode_samples(told, vocabulary, HELD_OUT_WORDS, 0.0)
    assert vocabulary.texts[rows.attribute_texts[0, -1]] == "is red and a collar"


def test_samples_become_rows_of_text_ids(pack: Path) -> None:
    samples = [*labeled_samples(pack, "train"), *extra_samples(pack, "train")]
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
        return [vocabulary.texts[text] if text >= 0 else None for text in rows.attribute_texts[row, :-2].tolist()]

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
    assert {name: column[3].nonzero().flatten().tolist() for name, column in rows.targets.items()} == {
        "category": [vocabulary.categories["handbag"]],
        "texture": [0], "sleeve": [], "length": [2], "neckline": [9], "fabric": [], "fit": [0],
    }  # fmt: skip
    assert rows.weights.tolist() == [1.0] * 16


def test_what_a_model_said_is_a_target_where_there_is_no_label() -> None:
    said = {"category": {"tee": 0.75, "polo": 0.25}, "sleeve": {"short_sleeve": 0.9, "long_sleeve": 0.1}}
    samples = [
        Sample("products", "1", Path(), soft_labels=said),
        Sample("products", "2", Path(), category="dress", attributes={"sleeve": "sleeveless"}, soft_labels=said),
        Sample("products", "3", Path(), category="tee"),
    ]
    vocabulary = Vocabulary(Taxonomy.load("default"))
    rows = encode_samples(samples, vocabulary, HELD_OUT_WORDS, 1.0)
    names, sleeves = vocabulary.categories, vocabulary.values["sleeve"]
    assert rows.category.tolist() == [names["tee"], names["dress"], names["tee"]]
    assert rows.targets["category"][0, [names["tee"], names["polo"]]].tolist() == [0.75, 0.25]
    assert rows.targets["category"][1].argmax().item() == names["dress"]
    assert rows.targets["category"].sum(1).tolist() == [1, 1, 1]
    assert rows.targets["sleeve"][0, sleeves["long_sleeve"]].item() == pytest.approx(0.1)
    assert rows.targets["sleeve"][1].nonzero().flatten().tolist() == [sleeves["sleeveless"]]
    assert not rows.targets["sleeve"][2].any()
    assert rows.attribute_texts[0].tolist() == [-1] * 8  # the paper's losses are for labels
    assert rows.weights.tolist() == [0.5, 1.0, 0.5]


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
