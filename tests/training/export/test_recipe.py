"""What is added to a model folder after the export: a composer, measured figures, other runtimes."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from fashion_retrieval import FashionModel
from fashion_retrieval.checkpoint import load
from fashion_retrieval.checkpoint.export_manifest import Export
from fashion_retrieval.config import Figure, ModelConfig
from fashion_retrieval.errors import ConfigError
from fashion_retrieval.models.weights import weights_digest
from tests.support.exported import (
    WEIGHTS,
    refused,
    run,
    trained_composer,
    trained_encoder,
    trained_segmenter,
    write_recipe,
)
from tests.support.paths import ROOT
from tests.support.tiny import contents, drawn_photo
from training.engine.settings import read_settings
from training.export.figures import read_figures
from training.export.recipe import Settings, described

SHA256 = {WEIGHTS: "a" * 64, "composer.safetensors": "b" * 64, "segmenter.safetensors": "c" * 64}


@pytest.fixture
def desk(tmp_path: Path) -> Path:
    """An encoder that was trained."""
    trained_encoder(tmp_path / "encoder")
    return tmp_path


@pytest.fixture
def composing(desk: Path) -> Path:
    """A model folder with a composer, its recipe beside it."""
    trained_composer(desk / "trained", desk / "encoder")
    assert run("model", write_recipe(desk / "e.toml", composer=str(desk / "trained"))).exit_code == 0
    return desk / "tiny"


def test_composer_command_adds_a_composer(desk: Path) -> None:
    config = write_recipe(desk / "e.toml")
    assert run("model", config).exit_code == 0
    plain = contents(desk / "tiny")
    trained_composer(desk / "trained", desk / "tiny")
    done = run("composer", config, desk / "trained")
    assert done.exit_code == 0, done.output
    assert "queries 1.000000" in done.stdout
    assert contents(desk / "tiny")[WEIGHTS] == plain[WEIGHTS]
    model = FashionModel.from_pretrained(desk / "tiny", device="cpu", dtype="float32")
    assert model.compose(drawn_photo(), "in red").shape == (1, 16)
    assert model.config.name == "tiny"
    assert "2 trained file(s) not found" in refused(run("composer", config, desk / "nowhere"))


def test_segmenter_command_adds_a_segmenter(desk: Path) -> None:
    config = write_recipe(desk / "e.toml")
    assert run("model", config).exit_code == 0
    plain = contents(desk / "tiny")
    done = run("segmenter", config, trained_segmenter(desk / "trained"))
    assert done.exit_code == 0, done.output
    assert contents(desk / "tiny")[WEIGHTS] == plain[WEIGHTS]
    found = load_file(desk / "tiny/segmenter.safetensors")
    for name, value in load_file(desk / "trained/segmenter.safetensors").items():
        torch.testing.assert_close(found[name].to(value.dtype), value, rtol=1e-3, atol=1e-4)
    assert "2 trained file(s) not found" in refused(run("segmenter", config, desk / "nowhere"))


def results(folder: Path, **changes: Any) -> dict[str, Any]:
    """A results file of composed retrieval on this model."""
    config = ModelConfig.from_dict(json.loads((folder / "fashion_retrieval.json").read_text()), "x")
    average = {"recall_at_10": 0.5, "recall_at_10_interval": [0.4, 0.6], "recall_at_50": 0.9}
    protocols = {"original": {"average": average, "groups": {"dress": {"queries": 3}, "shirt": {"queries": 1000}}}}
    found = {"sha256": dict(config.sha256), "source": "fashioniq", "split": "val", "protocols": protocols}
    return found | changes


def test_card_command_adds_figures_and_changes_no_weight(composing: Path) -> None:
    folder, desk = composing, composing.parent
    before = contents(folder)
    (desk / "figures.json").write_text(json.dumps(results(folder)))
    config = write_recipe(desk / "e.toml", results=[str(desk / "figures.json")], license="CC0-1.0")
    done = run("card", config)
    assert done.exit_code == 0, done.output
    after = contents(folder)
    assert {name for name in after if after[name] != before[name]} == {"fashion_retrieval.json", "README.md"}
    text = after["README.md"].decode()
    row = "| composed retrieval among FashionIQ (original), R@10 | 0.5 | 0.4 to 0.6 | FashionIQ, val: 1,003 pairs, "
    assert row in text
    assert "license: cc0-1.0" in text
    loaded = FashionModel.from_pretrained(folder, device="cpu")
    assert loaded.config.figures["composed retrieval among FashionIQ (original), R@50"].interval is None
    assert loaded.config.figures["composed retrieval among FashionIQ (original), R@50"].value == 0.9
    assert loaded.config.name == "tiny"
    assert run("composer", config, desk / "trained").exit_code == 0
    again = FashionModel.from_pretrained(folder, device="cpu")
    assert again.config.figures == {}, "figures of the composer before"


def test_embedded_models_card_is_what_its_recipe_makes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(ROOT)
    settings = read_settings(Path("training/configs/export_compact.toml"), Settings)
    told = described(settings).config
    committed = (ROOT / settings.output / "fashion_retrieval.json").read_text(encoding="utf-8")
    assert told is not None
    assert told.to_json() == committed, "run `python -m training.export card training/configs/export_compact.toml`"
    assert len(told.figures) >= 10


@pytest.mark.parametrize("path", sorted((ROOT / "training/configs").glob("export_*.toml")), ids=lambda path: path.stem)
def test_every_recipe_can_be_read_and_names_its_commands(path: Path) -> None:
    settings = read_settings(path, Settings)
    assert settings.training_data
    assert settings.results or path.stem.endswith("_open")  # a few steps from random weights have no figures
    header = path.read_text(encoding="utf-8").partition("\nname")[0]
    assert header.startswith(f"# python -m training.export model training/configs/{path.name}\n")
    assert f"card training/configs/{path.name}" in header


def test_card_command_refuses_a_folder_without_configuration(desk: Path) -> None:
    line = refused(run("card", write_recipe(desk / "e.toml", output=str(desk / "encoder"))))
    assert "has no configuration; make it with `python -m training.export model`" in line


def test_recipe_of_an_earlier_release_reads_its_license(tmp_path: Path) -> None:
    path = write_recipe(tmp_path / "e.toml", license="CC0-1.0")
    new = read_settings(path, Settings)
    path.write_text(path.read_text().replace("license =", "licence ="))
    with pytest.warns(DeprecationWarning, match="key 'licence' is now 'license'"):
        assert read_settings(path, Settings) == new


def test_publish_keeps_exports_of_the_same_weights_only(composing: Path) -> None:
    desk = composing.parent
    bundle = load(composing)
    (composing / "openvino").mkdir()
    (composing / "openvino" / "image.bin").write_bytes(b"x")
    digests = {"encoder": bundle.encoder.fingerprint, "composer": weights_digest(bundle.composer)}
    Export(backend="openvino", precision="fp32", sha256={"image.bin": "a" * 64}, **digests).write(
        composing / "openvino"
    )
    assert run("card", write_recipe(desk / "e.toml", license="CC0-1.0")).exit_code == 0
    assert (composing / "openvino" / "image.bin").read_bytes() == b"x"
    trained_composer(desk / "other", desk / "tiny", seed=1)
    done = run("composer", desk / "e.toml", desk / "other")
    assert "openvino held other weights and is gone; export the model again" in done.stdout
    assert not (composing / "openvino").exists()


# Results files


def row(value: float, interval: list[float] | None = None, *, key: str = "top1", **more: Any) -> dict[str, Any]:
    return {key: value} | ({f"{key}_interval": interval} if interval else {}) | more


def read(tmp_path: Path, *found: object) -> dict[str, Figure]:
    paths = [tmp_path / f"{i}.json" for i in range(len(found))]
    for path, results in zip(paths, found, strict=True):
        path.write_text(json.dumps(results))
    return read_figures(paths, SHA256)


def test_read_figures_of_an_earlier_release_reads_its_keys(tmp_path: Path) -> None:
    text = (ROOT / "training/results/compact_val.json").read_text()
    sha256 = json.loads(text)["sha256"]
    new, old = tmp_path / "new.json", tmp_path / "old.json"
    new.write_text(text)
    old.write_text(text.replace('"color"', '"colour"').replace('"labeled', '"labelled'))
    assert read_figures([old], sha256) == read_figures([new], sha256)
    assert read_figures([old], sha256)["dominant color, top-1 of 13"].value > 0.8


def test_read_figures_of_deepfashion(tmp_path: Path) -> None:
    view = row(0.66, [0.6, 0.7], key="mean_precision", mean_macro_f1=0.5, category=row(0.4, [0.3, 0.5]))
    recognition = {"garments": 1234, "views": {"masked_crop": view, "whole_photo": view}}
    way = row(0.4, [0.3, 0.5], key="recall_at_10", recall_at_50=0.7, queries=2000, gallery=1900)
    ways = {"text_to_image": way, "image_to_text": way}
    retrieval = {"own": ways, "same_text": ways}
    found = read(
        tmp_path,
        {"sha256": SHA256, "split": "test", "recognition": recognition},
        {"sha256": SHA256, "split": "test", "retrieval": retrieval},
    )
    assert len(found) == 6 + 8
    assert found["attributes, mean precision, whole photo"] == Figure(
        value=0.66,
        interval=(0.6, 0.7),
        metric="accuracy",
        task="zero-shot-image-classification",
        data="DeepFashion, test: 1,234 garments",
    )
    assert found["text to image, captions (own right), R@10"].data == (
        "DeepFashion, test: 2,000 queries, 1,900 in the gallery"
    )
    assert found["image to text, captions (same text right), R@50"].interval is None


def test_read_figures_of_all_parts_and_several_models(tmp_path: Path) -> None:
    protocols = {"full": {"average": {"recall_at_10": 0.3, "recall_at_50": 0.6}, "groups": {"dress": {"queries": 7}}}}
    theirs = {"protocols": {"full": {"average": {"recall_at_10": 0.9, "recall_at_50": 0.9}, "groups": {}}}}
    found = read(
        tmp_path,
        {
            "models": {"ours": {"sha256": SHA256}, "theirs": {"sha256": SHA256 | {WEIGHTS: "d" * 64}}},
            "parts": {
                "composed_pack": {"ours": {"protocols": protocols}, "theirs": theirs, "against_first": []},
                "composed_fashioniq": {"ours": {"protocols": {"original": protocols["full"]}}},
            },
        },
    )
    assert {name: figure.value for name, figure in found.items()} == {
        "composed retrieval among all products, R@10": 0.3,
        "composed retrieval among all products, R@50": 0.6,
        "composed retrieval among FashionIQ (original), R@10": 0.3,
        "composed retrieval among FashionIQ (original), R@50": 0.6,
    }
    assert found["composed retrieval among all products, R@10"].data == "open data pack, val: 7 pairs, full galleries"


def test_read_figures_looks_at_other_models_too(tmp_path: Path) -> None:
    ours = {"sha256": SHA256, "split": "test", "recognition": {"garments": 1, "views": {}}}
    view = {"mean_precision": 0.5, "mean_macro_f1": 0.5, "category": {"top1": 0.5}}
    other = ours | {"recognition": {"garments": 1, "views": {"crop": view}}}
    assert len(read(tmp_path, ours | {"sha256": {}, "others": [other]})) == 3


def test_read_figures_names_all_unusable_files_at_once(tmp_path: Path) -> None:
    figures = {"protocols": {"full": {"average": {}, "groups": {}}}, "source": "pairs", "split": "val"}
    (tmp_path / "cut.json").write_text("{")
    (tmp_path / "others.json").write_text(json.dumps(figures | {"sha256": SHA256 | {"composer.safetensors": "0" * 64}}))
    (tmp_path / "lacks.json").write_text(json.dumps(figures | {"sha256": SHA256}))
    names = ("missing.json", "cut.json", "others.json", "lacks.json")
    with pytest.raises(ConfigError) as caught:
        read_figures([tmp_path / name for name in names], SHA256)
    message = str(caught.value)
    assert [message.count(str(tmp_path / name)) >= 1 for name in names] == [True] * 4
    assert "others.json has no figures of these weights" in message
    assert "lacks.json is no results file of training.evaluate (KeyError: 'recall_at_10')" in message
    assert message.endswith("measure the exported folder with training.evaluate")
