"""The composer's recipe on drawn products: what it learns, early stopping, resuming, the cache, what it writes."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from fashion_retrieval import FashionModel, checkpoint
from fashion_retrieval.errors import ConfigError
from tests.drawn_pack import log_of, save_photo, write_lines
from tests.fashioniq_tree import write_tree
from tests.tiny import tiny_folder
from training import train_agcn
from training.data.derived import Product, derive, describe, read_products
from training.data.features import image_features
from training.data.pairs import read_pairs
from training.eval_composed import average_recall, evaluate_composed
from training.loop import Optimisation, generator, read_settings
from training.losses import composition_loss

COLOURS = {"red": (200, 30, 40), "green": (30, 150, 60), "blue": (40, 60, 200), "black": (20, 20, 20)}
SHAPES = {"long_sleeve": (8, 88), "short_sleeve": (24, 72), "sleeveless": (36, 60)}
GROUPS = ("shirt", "dress", "toptee")


def write_products(root: Path) -> Path:
    """Per group one train and one val product a colour and sleeve, and pairs that change both."""
    products, labels, pairs = [], [], []
    for g, group in enumerate(GROUPS):
        looks = [(colour, sleeve) for colour in COLOURS for sleeve in SHAPES]
        for s, split in enumerate(("train", "val")):
            ids = [f"{g}{s}{i:02}" for i in range(len(looks))]
            for name, (colour, sleeve) in zip(ids, looks, strict=True):
                pixels = np.full((96, 96, 3), 250, np.uint8)
                left, right = SHAPES[sleeve]
                pixels[16 + 8 * g : 80, left:right] = COLOURS[colour]
                save_photo(pixels, root / f"products/{split}/{name}.jpg")
                row = {"id": name, "split": split, "group": group, "base_colour": colour.title(), "name": name}
                products.append(row | {"article_type": "Tops", "master_category": "Apparel", "sub_category": "Topwear"})
                labels.append(
                    {"source": "products", "id": name, "split": split, "category": "top", "texture": "solid",
                     "sleeve": sleeve, "length": "no_dress", "neckline": "crew", "fabric": "cotton",
                     "fit": "conventional", "colour": colour}
                )  # fmt: skip
            for i, name in enumerate(ids):
                target = (7 * i + 5) % len(looks)
                colour, sleeve = looks[target]
                captions = [f"is {colour}", f"has {sleeve.replace('_', ' ')}s"]
                if name != ids[target]:
                    pairs.append(
                        {"group": group, "split": split, "candidate": name, "target": ids[target], "captions": captions}
                    )
    write_lines(root / "products.jsonl", products)
    write_lines(root / "attributes.jsonl", labels)
    write_lines(root / "street.jsonl", [])
    write_lines(root / "pairs.jsonl", pairs)
    return root


@pytest.fixture(scope="module")
def pack(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_products(tmp_path_factory.mktemp("pack"))


@pytest.fixture(scope="module")
def settings(pack: Path, tmp_path_factory: pytest.TempPathFactory) -> train_agcn.Settings:
    folder = tmp_path_factory.mktemp("agcn")
    return train_agcn.Settings(
        data=str(pack),
        source="pairs",
        model=str(tiny_folder(folder / "encoder")),
        output=str(folder / "run"),
        cache=str(folder / "cache"),
        composer=train_agcn.Shape(width=16, depth=1, heads=2, hidden=32, dropout=0.1),
        optimisation=Optimisation(steps=120, lr=5e-3, warmup=5, weight_decay=0.01, checkpoint_every=30),
        batch_size=24,
        negatives="gallery",
        derived=200,
        derived_share=0.5,
        held_out=0.2,
        validate_every=10,
        patience=20,
    )


@pytest.fixture(scope="module")
def trained(settings: train_agcn.Settings) -> Path:
    """The model folder after a run of the command."""
    config = Path(settings.output).with_suffix(".toml")
    config.write_text(as_toml(settings), encoding="utf-8")
    train_agcn.main(config)
    return Path(settings.output) / "model"


def as_toml(settings: train_agcn.Settings) -> str:
    tables = ("composer", "optimisation")
    plain = [name for name in settings.__slots__ if name not in (*tables, "lr_scales")]
    lines = [f"{name} = {json.dumps(getattr(settings, name))}" for name in plain]
    for table in tables:
        part = getattr(settings, table)
        lines += [f"[{table}]", *(f"{name} = {json.dumps(getattr(part, name))}" for name in part.__slots__)]
    return "\n".join(lines)


def test_the_recipe_learns_and_keeps_its_best(settings: train_agcn.Settings, trained: Path) -> None:
    log = log_of(Path(settings.output))
    assert [row["step"] for row in log] == list(range(120))
    assert log[0]["loss"] == pytest.approx(3.8769, abs=0.01)
    assert log[-1]["loss"] < 0.9 * log[0]["loss"]
    scores = {int(row["step"]) + 1: row["score"] for row in log if "score" in row}
    assert list(scores) == list(range(10, 121, 10))
    saved = torch.load(Path(settings.output) / "checkpoint.pt", weights_only=True)["best"]
    assert saved["score"] == max(scores.values())
    assert scores[saved["step"]] == saved["score"]
    model = FashionModel.from_pretrained(trained, device="cpu", dtype="float32")
    weights = model._composition.composer.state_dict()  # type: ignore[union-attr]
    for name, value in weights.items():
        torch.testing.assert_close(value, saved["weights"][f"composer.{name}"])


def test_it_composes_better_than_either_alone(settings: train_agcn.Settings, trained: Path) -> None:
    model = FashionModel.from_pretrained(trained, device="cpu", dtype="float32")
    data = read_pairs(Path(settings.data), "val")
    ranks = {}
    for name, weight in (("composed", None), ("photo", "photo"), ("text", "text")):
        figures = evaluate_composed(_Asking(model, weight), [data])["split"]
        ranks[name] = np.mean([np.mean(group["ranks"]) for group in figures["groups"].values()])
    assert ranks["composed"] < 5, ranks
    assert min(ranks["photo"], ranks["text"]) > 6, ranks
    assert average_recall({"all": np.array([1, 20])}, 10) == 0.5


class _Asking:
    def __init__(self, model: FashionModel, only: str | None) -> None:
        self.encode, self.model, self.only = model.encode, model, only

    def compose(self, photos: list[Path], texts: list[str]) -> np.ndarray:
        if self.only == "photo":
            return self.model.compose(photos, None)
        return self.model.compose(None if self.only else photos, texts)  # type: ignore[arg-type]


def test_resume_equals_a_straight_run(
    settings: train_agcn.Settings, trained: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    again = replace(settings, output=str(tmp_path))
    bundle = checkpoint.load(Path(settings.model))
    calls: list[int] = []

    def failing(*args: object) -> torch.Tensor:
        calls.append(1)
        if len(calls) == 70:
            raise KeyboardInterrupt
        return composition_loss(*args)  # type: ignore[arg-type]

    monkeypatch.setattr(train_agcn, "composition_loss", failing)
    with pytest.raises(KeyboardInterrupt):
        train_agcn.train(again, bundle)
    train_agcn.train(again, bundle)
    assert log_of(tmp_path) == log_of(Path(settings.output))


def test_training_ends_when_nothing_gets_better(settings: train_agcn.Settings, tmp_path: Path) -> None:
    still = replace(settings, output=str(tmp_path), patience=2, optimisation=replace(settings.optimisation, lr=0.0))
    bundle = checkpoint.load(Path(settings.model))
    train_agcn.train(still, bundle)
    assert len(log_of(tmp_path)) == 30  # the first score is the best, two more are not better
    train_agcn.train(still, bundle)
    assert len(log_of(tmp_path)) == 30


def test_the_ablation_without_a_network(settings: train_agcn.Settings, tmp_path: Path) -> None:
    composer = train_agcn.train(
        replace(settings, output=str(tmp_path), variant="sum"), checkpoint.load(Path(settings.model))
    )
    assert list(composer.parameters()) == []
    assert not (tmp_path / "log.jsonl").exists()


def test_features_are_computed_once(
    settings: train_agcn.Settings, trained: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    encoder = checkpoint.load(Path(settings.model)).encoder
    photos = sorted((Path(settings.data) / "products/train").iterdir())
    cache = Path(settings.cache)
    first = image_features(encoder, photos, cache, device=torch.device("cpu"))
    assert (first.shape, first.dtype) == ((36, 17, 16), torch.float16)
    monkeypatch.setattr(encoder, "image_tokens", None)
    torch.testing.assert_close(image_features(encoder, photos, cache, device=torch.device("cpu")), first)
    assert list(cache.rglob("*.partial")) == []


def test_a_cut_off_shard_is_made_again(settings: train_agcn.Settings, tmp_path: Path) -> None:
    encoder = checkpoint.load(Path(settings.model)).encoder
    photos = sorted((Path(settings.data) / "products/val").iterdir())[:3]
    first = image_features(encoder, photos, tmp_path, device=torch.device("cpu"))
    (shard,) = tmp_path.rglob("*.safetensors")
    shard.write_bytes(shard.read_bytes()[:100])
    torch.testing.assert_close(image_features(encoder, photos, tmp_path, device=torch.device("cpu")), first)


def test_composition_loss_by_hand() -> None:
    generator_ = torch.Generator().manual_seed(0)
    query, gallery = (torch.nn.functional.normalize(torch.randn(n, 4, generator=generator_), dim=-1) for n in (3, 5))
    targets, scale = torch.tensor([4, 0, 4]), torch.tensor(7.0)
    cosines = 7 * (query @ gallery.T).double().numpy()
    rows = np.arange(3)
    for negatives, columns in (("gallery", [0, 1, 2, 3, 4]), ("batch", [0, 4])):
        total = np.log(np.exp(cosines[:, columns]).sum(1)) - cosines[rows, targets.numpy()]
        loss = composition_loss(query, gallery, targets, scale, negatives)  # type: ignore[arg-type]
        assert loss.item() == pytest.approx(total.mean(), abs=1e-6)


def test_derived_triplets_say_what_the_target_has(pack: Path) -> None:
    products = read_products(pack, None)
    assert len(products) == 36
    triplets = derive(products, 60, generator(0))
    assert triplets == derive(products, 60, generator(0))
    looks = {product.id: product for product in products}
    for triplet in triplets:
        candidate, target = looks[triplet.candidate], looks[triplet.target]
        assert candidate.group == target.group
        text = " ".join(triplet.captions)
        for word in COLOURS:
            assert (word in text.split()) <= (word == target.values["colour"])
        for sleeve, word in (("long_sleeve", "long"), ("short_sleeve", "short"), ("sleeveless", "sleeveless")):
            assert (word in text) <= (sleeve == target.values["sleeve"])
    assert describe(products[0], products[0], generator(0)) is None
    assert derive([Product("1", "shirt", {"colour": "red"})], 5, generator(0)) == []


def test_the_papers_recipe_on_fashioniqs_layout(settings: train_agcn.Settings, tmp_path: Path) -> None:
    paper = read_settings(Path(train_agcn.__file__).parent / "configs/agcn_fashioniq.toml", train_agcn.Settings)
    assert (paper.batch_size, paper.composer.depth, paper.negatives, paper.derived) == (128, 6, "batch", 0)
    assert (paper.optimisation.lr, paper.optimisation.steps) == (2e-5, 200 * 18_000 // 128)
    short = replace(paper.optimisation, steps=4, lr=1e-3, checkpoint_every=2)
    here = replace(
        paper, data=str(write_tree(tmp_path / "fashioniq")), model=settings.model, output=str(tmp_path / "run"),
        cache=str(tmp_path / "cache"), composer=settings.composer, optimisation=short, validate_every=2, batch_size=3,
    )  # fmt: skip
    train_agcn.train(here, checkpoint.load(Path(settings.model)))
    log = log_of(tmp_path / "run")
    scores = {row["step"]: row["score"] for row in log if "score" in row}
    assert list(scores) == [1, 3]
    assert all(0.3 < score <= 1 for score in scores.values())  # 12 to 60 photos a group: R@50 is nearly sure


def test_a_share_that_leaves_nothing(settings: train_agcn.Settings) -> None:
    with pytest.raises(ConfigError, match="held_out must leave triplets to train on"):
        train_agcn.train(replace(settings, held_out=1.0), checkpoint.load(Path(settings.model)))
