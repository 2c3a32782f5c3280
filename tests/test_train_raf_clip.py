"""RaF-CLIP's recipe end to end on a drawn data pack: samples, crops, texts, training and resuming."""

from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from fashion_retrieval import checkpoint
from fashion_retrieval.taxonomy import Taxonomy
from tests.drawn_pack import (
    LABELLED,
    NOTHING,
    SCENES,
    STREET_COLOURS,
    STREET_LABELS,
    labels_of,
    log_of,
    write_lines,
    write_pack,
)
from tests.tiny import tiny_clip, tiny_folder
from training import train_raf_clip
from training.data.crops import augment, erase, load_crops, read_crop
from training.data.manifest import (
    Sample,
    extra_samples,
    labelled_samples,
    read_held_out,
    region_mask,
)
from training.data.texts import Vocabulary, encode_samples
from training.loop import Optimisation, generator
from training.losses import Targets
from training.train_raf_clip import HELD_OUT, Settings, load_encoder

HELD_OUT_WORDS = list(read_held_out(HELD_OUT))


@pytest.fixture(scope="module")
def pack(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_pack(tmp_path_factory.mktemp("pack"))


@pytest.fixture(scope="module")
def start(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_folder(tmp_path_factory.mktemp("start"))


@pytest.fixture(autouse=True)
def _on_the_cpu(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)


def recipe(pack: Path, start: Path, output: Path) -> Settings:
    return Settings(
        data=str(pack),
        init=[str(start)],
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

    def stopping(crops: Tensor, size: tuple[int, int], chance: torch.Generator, **how: Any) -> Tensor:
        steps.append(len(steps))
        if len(steps) == 4:
            raise KeyboardInterrupt
        return augment(crops, size, chance, **how)

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
        f'data = "{pack}"\ninit = ["{start}"]\noutput = "{output}"\ntaxonomy = "default"\ntargets = "identity"\n'
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
    names = [texts[row] if row >= 0 else None for row in rows.attribute_texts[:, -2].tolist()]
    assert names[:4] == ["Lark Men Blue T-shirt", None, "Ines Women Red Dress", "Roya Women Black Handbag"]


def test_what_a_pair_says_of_its_target_is_a_text_of_its_photo(tmp_path: Path) -> None:
    pack = write_pack(tmp_path)
    known = [s for s in [*labelled_samples(pack, "train"), *extra_samples(pack, "train")] if s.source == "products"]
    pairs = [{"group": "shirt", "split": "train", "candidate": "0", "target": s.id, "captions": ["is red", "a collar"]}
             for s in known[:1] + known[-1:]]  # fmt: skip
    write_lines(pack / "pairs.jsonl", [*pairs, pairs[0] | {"split": "val", "captions": ["is secret", "x"]}])
    told = [s for s in [*labelled_samples(pack, "train"), *extra_samples(pack, "train")] if s.source == "products"]
    for before, after in zip(known, told, strict=True):
        said = ("is red and a collar",) if before.id in (known[0].id, known[-1].id) else ()
        assert after.texts == (before.texts[0], *said, *before.texts[1:])
    vocabulary = Vocabulary(Taxonomy.load("default"))
    rows = encode_samples(told, vocabulary, HELD_OUT_WORDS, 0.0)
    assert vocabulary.texts[rows.attribute_texts[0, -1]] == "is red and a collar"


def test_random_erasing_hides_a_rectangle_of_a_share_of_the_pictures() -> None:
    pictures = torch.zeros(400, 3, 40, 30)
    hidden = erase(pictures, 0.25, torch.Generator().manual_seed(0))
    touched = hidden.flatten(1).any(1)
    assert touched.float().mean().item() == pytest.approx(0.25, abs=0.05)
    shares = hidden[touched].mean((1, 2, 3))
    assert 0.03 < shares.min() < shares.max() < 0.28
    rows, columns = (hidden[touched][:, 0].any(axis) for axis in (2, 1))
    torch.testing.assert_close(hidden[touched][:, 0], (rows[:, :, None] & columns[:, None, :]).float())


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
        Sample("products", "1", Path(), beliefs=said),
        Sample("products", "2", Path(), category="dress", attributes={"sleeve": "sleeveless"}, beliefs=said),
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


def test_the_mean_of_encoders_is_the_mean_of_their_weights(tmp_path: Path) -> None:
    folders = [tiny_folder(tmp_path / str(seed), seed=seed) for seed in (0, 1)]
    first, second = (tiny_clip(seed=seed).state_dict() for seed in (0, 1))
    assert not torch.equal(first["visual.proj"], second["visual.proj"])
    for name, value in load_encoder(*folders).clip.state_dict().items():
        torch.testing.assert_close(value, (first[name] + second[name]) / 2)
    for name, value in load_encoder(folders[1]).clip.state_dict().items():
        assert torch.equal(value, second[name])


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
