"""Tables 1, 2 and 4 on a drawn DeepFashion: against a plain reference, and the commands."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from fashion_retrieval import FashionModel
from fashion_retrieval.errors import ConfigError
from fashion_retrieval.taxonomy import Taxonomy
from tests.support.deepfashion_tree import Drawn, write_tree
from tests.support.drawn_pack import write_lines
from tests.support.tiny import tiny_folder
from training import evaluate
from training.evaluation.captions import evaluate_captions, read_captioned
from training.evaluation.deepfashion import View, evaluate_deepfashion, read_garments

COUNTS = {"train": 1, "val": 1, "test": 20}
SINGLE = ("sleeve_length", "dress_length", "fabric", "fit")
"""Groups with one phrase a value: the likeliest value is that with the highest cosine."""


def name_of(garment: Drawn) -> str:
    return garment.path.removeprefix("img/").removesuffix(".jpg")


def prepare(root: Path, garments: list[Drawn]) -> None:
    """Masks, colors and captions as `training.prepare` leaves them; two photos have the same caption."""
    for garment in garments:
        mask = Image.new("1", (96, 128))
        mask.paste(1, garment.box)
        path = root / "masks" / f"{name_of(garment)}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        mask.save(path)
    write_lines(root / "colors.jsonl", [{"kind": "colors"}, *({"id": name_of(g), "color": g.color} for g in garments)])
    texts = [f"a {g.color} {g.category} number {n // 2}" for n, g in enumerate(garments)]
    texts[1] = texts[0]
    rows = [{"id": name_of(g), "caption": text} for g, text in zip(garments, texts, strict=True)]
    write_lines(root / "captions.jsonl", [{"kind": "captions", "view": "photo", "model": "drawn"}, *rows])


@pytest.fixture(scope="module")
def tree(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, list[Drawn]]:
    root = tmp_path_factory.mktemp("deepfashion")
    garments = write_tree(root, COUNTS)["test"]
    prepare(root, garments)
    return root, garments


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    return [str(tiny_folder(tmp_path_factory.mktemp("models") / f"tiny{seed}", seed=seed)) for seed in (0, 1)]


def test_evaluate_deepfashion_equals_a_plain_reference(tree: tuple[Path, list[Drawn]], models: list[str]) -> None:
    root, garments = tree
    model = FashionModel.from_pretrained(models[0], device="cpu", dtype="float32")
    views = [View.CROP, View.WHOLE_PHOTO, View.MASKED_CROP, View.AS_RECOGNIZED]
    found = evaluate_deepfashion(model, read_garments(root, "test", views), views)
    taxonomy = Taxonomy.load("deepfashion")
    for view, cut in ((View.CROP, "crop"), (View.WHOLE_PHOTO, "whole"), (View.MASKED_CROP, "masked")):
        right: dict[str, list[bool]] = {group: [] for group in SINGLE}
        for number, garment in enumerate(garments):
            photo = Image.open(root / garment.path).convert("RGB")
            box = (*garment.box[:3], 128) if (number + 2) % 7 == 0 else garment.box  # as annotated, cut at the edge
            inside = np.zeros((128, 96, 1), dtype=bool)
            inside[garment.box[1] : garment.box[3], garment.box[0] : garment.box[2]] = True
            masked = Image.fromarray(np.where(inside, np.asarray(photo), np.uint8(255))).crop(box)
            crop = photo if cut == "whole" else photo.crop(box)
            named = model.encode(images=[crop, masked if cut == "masked" else crop])
            nouns = [value.phrases[0] for value in taxonomy.category.values]
            best = (model.encode(texts=[f"a photo of {garment.color} {noun}" for noun in nouns]) @ named[0]).argmax()
            for group in (g for g in taxonomy.attributes if g.name in SINGLE):
                prompts = [f"a photo of {value.phrases[0]} {nouns[best]}" for value in group.values]
                value = group.values[int((model.encode(texts=prompts) @ named[1]).argmax())]
                right[group.name].append(value.name == garment.attributes[group.name])
        assert {group: found[view]["right"][group] for group in SINGLE} == {
            group: "".join("01"[hit] for hit in hits) for group, hits in right.items()
        }
        for group, hits in right.items():
            assert found[view][group]["precision"] == np.mean(hits)
    every = found[View.CROP]
    assert every["mean_precision"] == pytest.approx(np.mean([every[g.name]["precision"] for g in taxonomy.attributes]))
    assert every["mean_precision_interval"][0] < every["mean_precision"] < every["mean_precision_interval"][1]
    assert every["fabric"]["labeled"] == 20
    assert every["category"] == found[View.AS_RECOGNIZED]["category"]


def test_recognition_command_compares_models_and_views(
    tree: tuple[Path, list[Drawn]], models: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    output = tmp_path / "figures.json"
    options = [word for name in models for word in ("--model", name)]
    options += ["--view", "whole_photo", "--view", "masked_crop", "--output", str(output)]
    with pytest.raises(SystemExit, match="0"):
        evaluate.run(["recognition", "--deepfashion", str(tree[0]), *options])
    figures = json.loads(output.read_text())
    views = figures["recognition"]["views"]
    assert [*views] == ["whole_photo", "masked_crop"]
    (other,) = figures["others"]
    assert (figures["model"], other["model"], figures["split"]) == (*models, "test")
    assert figures["sha256"] != other["sha256"]
    rows = figures["against_first"]
    assert figures["resampling"].startswith(
        "intervals: 95%, percentile bootstrap over photos, 1,000 rounds; p: two-sided"
    )
    assert [row["other"] for row in rows] == [
        f"{models[0]}, masked crop", f"{models[1]}, whole photo", f"{models[1]}, masked crop"
    ]  # fmt: skip
    ahead = other["recognition"]["views"]["masked_crop"]["mean_precision"] - views["whole_photo"]["mean_precision"]
    assert rows[2]["difference"] == pytest.approx(ahead, abs=2e-4)
    text = output.with_suffix(".md").read_text()
    mean = views["masked_crop"]["mean_precision"]
    assert f"**{models[0]}, masked crop**" in text
    assert f"{mean:.4f}<br>" in text
    assert "| RaF-CLIP, in the paper | 0.6702 | 0.8357 | 0.5534 | 0.5070 | 0.7371 | 0.6761 | 0.6633 |" in text
    assert "| Complete, in the paper | 0.6474 |" in text
    assert f"masked crop: mean precision {mean:.4f}" in capsys.readouterr().out


def test_evaluate_captions_by_both_rules(tree: tuple[Path, list[Drawn]], models: list[str]) -> None:
    root, garments = tree
    data = read_captioned(root, "test")
    model = FashionModel.from_pretrained(models[0], device="cpu", dtype="float32")
    figures = evaluate_captions(model, data)
    images = model.encode(images=[root / garment.path for garment in garments]).astype(np.float64)
    texts = model.encode(texts=data.texts).astype(np.float64)
    cosines = images @ texts.T
    own = [1 + int(sum(c > row[i] + 1e-9 or (abs(c - row[i]) <= 1e-9 and j < i) for j, c in enumerate(row)))
           for i, row in enumerate(cosines)]  # fmt: skip
    assert figures["own"]["image_to_text"]["ranks"] == own
    assert (figures["own"]["image_to_text"]["gallery"], figures["own"]["text_to_image"]["gallery"]) == (20, 20)
    assert figures["own"]["texts"] == figures["same_text"]["image_to_text"]["gallery"] == len(set(data.texts)) < 20
    same = figures["same_text"]["text_to_image"]["ranks"]
    assert same[0] == same[1] == min(figures["own"]["text_to_image"]["ranks"][:2])
    assert figures["captions"]["model"] == "drawn"


def test_read_captioned_with_captions_of_crops_keeps_the_boxes(tmp_path: Path, models: list[str]) -> None:
    garments = write_tree(tmp_path, COUNTS)["test"]
    prepare(tmp_path, garments)
    path = tmp_path / "captions.jsonl"
    path.write_text(path.read_text().replace('"view": "photo"', '"view": "crop"'))
    assert [s.box is not None for s in read_captioned(tmp_path, "test").samples] == [True] * 20


def test_retrieval_command_writes_both_rules(tree: tuple[Path, list[Drawn]], models: list[str], tmp_path: Path) -> None:
    output = tmp_path / "figures.json"
    options = ["--model", models[0], "--model", models[1], "--output", str(output)]
    with pytest.raises(SystemExit, match="0"):
        evaluate.run(["retrieval", "--deepfashion", str(tree[0]), *options])
    figures = json.loads(output.read_text())
    assert len(figures["against_first"]) == 8
    own = figures["retrieval"]["own"]["text_to_image"]
    assert own["recall_at_3"] == pytest.approx(np.mean(np.array(own["ranks"]) <= 3))
    text = output.with_suffix(".md").read_text()
    assert f"| **{models[0]}, own** | {100 * own['recall_at_3']:.2f}<br>" in text
    assert "| CLIP, in the paper | 15.50 | 19.90 | 27.70 | 52.55 |" in text


def test_what_is_missing_is_named_before_anything_is_measured(
    tmp_path: Path, models: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    garments = write_tree(tmp_path, COUNTS)["test"]
    prepare(tmp_path, garments)
    (tmp_path / "masks" / f"{name_of(garments[0])}.png").unlink()
    with pytest.raises(ConfigError, match=r"no mask \(run .*prepare masks"):
        read_garments(tmp_path, "test", [View.MASKED_CROP])
    assert len(read_garments(tmp_path, "test", [View.CROP])) == 20
    photo = tmp_path / garments[3].path
    photo.write_bytes(photo.read_bytes()[:900])
    with pytest.raises(ConfigError, match=rf"1 photos can't be read: {name_of(garments[3])}"):
        read_garments(tmp_path, "test", [View.CROP])
    with pytest.raises(ConfigError, match="1 photos can't be read"):
        read_captioned(tmp_path, "test")
    (tmp_path / "captions.jsonl").write_text('{"kind": "captions"}\n{"id": "a"}\n')
    with pytest.raises(ConfigError, match=r"holds no captions \(KeyError: 'caption'\); remove it and make them"):
        read_captioned(tmp_path, "test")
    (tmp_path / "captions.jsonl").unlink()
    for command in (["recognition"], ["retrieval"]):
        with pytest.raises(SystemExit, match="1"):
            evaluate.run(
                [*command, "--model", models[0], "--deepfashion", str(tmp_path), "--output", str(tmp_path / "a.json")]
            )
        told = capsys.readouterr().err
        assert told.startswith("error: ")
        assert told.count("\n") == 1
    assert not (tmp_path / "a.json").exists()
