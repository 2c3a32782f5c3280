"""The comparison end to end on drawn products: all composers, resumed, with their table."""

from __future__ import annotations

import json
import re
import tomllib
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from typer import Exit

from fashion_retrieval import FashionModel
from fashion_retrieval.config import VARIANTS, ComposerConfig
from fashion_retrieval.errors import ConfigError, InputError
from tests.support.drawn_pack import LABELLED, log_of, write_lines
from tests.support.fashioniq_tree import write_tree
from tests.support.paths import ROOT
from tests.support.tiny import drawn_photo, tiny_folder
from training import compare_composers
from training.compare_composers import Settings, compare, main, methods
from training.comparison import metrics, runs
from training.comparison.runs import NAMES, TEXT_TOKENS, Method, flops_of_a_query, init_or_resume
from training.composers import COMPOSERS
from training.data.pairs import read_pairs
from training.data.triplets import GROUPS, ComposedSet, join_captions, with_wrong_photos
from training.engine.optimizer import OptimizerConfig
from training.engine.settings import from_mapping, read_settings
from training.evaluation.ablation import evaluate_ablation
from training.evaluation.metrics import rank_targets, recall_at_k
from training.evaluation.paper import TITLES, read_paper
from training.recipes import agcn_fit, agcn_settings
from training.recipes.agcn_data import held_out_photos, hold_out
from training.recipes.losses import composition_loss
from training.reports.comparison import comparison_page

PROTOCOLS = ["split", "full", *(f"changes_{name}" for name in ("split", "full", "split_noref", "full_noref"))]
CONFIG = ROOT / "training/configs/compare_composers.toml"


@pytest.fixture(autouse=True)
def _on_the_cpu(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)


@pytest.fixture(scope="module")
def start(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_folder(tmp_path_factory.mktemp("start"))


@pytest.fixture(scope="module")
def pack(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Fifteen products a group and split; six training pairs and five to be asked; shirts that differ in color."""
    root = tmp_path_factory.mktemp("pack")
    products, pairs = [], []
    for number, (group, split) in enumerate((g, s) for g in GROUPS for s in ("train", "val")):
        ids = [f"{15 * number + place:02}" for place in range(15)]
        products += [{"id": i, "split": split, "group": group, "base_colour": color, "name": i}
                     for i, color in zip(ids, ("Red", "Blue", "Grey") * 5, strict=True)]  # fmt: skip
        for place in range(6 if split == "train" else 5):
            captions = [f"is color {place}", f"has {group} sleeves"]
            pairs.append({"group": group, "split": split, "candidate": ids[place], "target": ids[place + 9],
                          "captions": captions})  # fmt: skip
    for row in products:
        photo = root / f"products/{row['split']}/{row['id']}.jpg"
        photo.parent.mkdir(parents=True, exist_ok=True)
        drawn_photo(seed=int(row["id"])).save(photo)
    write_lines(root / "products.jsonl", products)
    write_lines(root / "pairs.jsonl", pairs)
    changes = [row | {"target": f"{int(row['target']) - 1:02}", "captions": ["longer", "in red"]} for row in pairs]
    write_lines(root / "pairs_changes.jsonl", changes)
    asked = [{"id": f"{15 + place}", "split": "val", "colour": c} for place, c in enumerate(("red", "blue", "green"))]
    write_lines(root / "attributes.jsonl", [LABELLED[0] | {"id": "00"}, *(LABELLED[0] | row for row in asked)])
    write_lines(root / "street.jsonl", [{"id": "0001", "split": "train"}])
    return root


def recipe(pack: Path, start: Path, output: Path, *, steps: int = 2) -> agcn_settings.Settings:
    return agcn_settings.Settings(
        data=str(pack),
        source="pairs",
        model=str(start),
        output=str(output / "runs"),
        cache=str(output / "features"),
        composer=agcn_settings.Shape(width=8, depth=1, heads=2, hidden=8),
        optimization=OptimizerConfig(steps=steps, lr=1e-3, checkpoint_every=2),
        batch_size=4,
        negatives="gallery",
        derived=6,
        derived_share=0.5,
        held_out=0.4,
        validate_every=2,
    )


def comparison(output: Path, shared: agcn_settings.Settings, **changes: Any) -> Settings:
    fields = {"results": str(output / "found.json"), "seeds": [0, 1], "recipe": shared} | changes
    return Settings(**fields)


def test_every_composer_is_compared(pack: Path, start: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(metrics, "_ROUNDS", 20)
    settings = comparison(tmp_path, recipe(pack, start, tmp_path))
    compare(settings)
    written = (tmp_path / "found.json").read_text()
    results = json.loads(written)
    found = results["composers"]
    assert list(found)[:3] == ["agcn", "sum", "only_text"]
    assert set(found) == {"sum", "only_text", "only_image", "add", "agcn"} | {f"{n}_sum" for n in NAMES[5:]}
    assert (results["source"], results["failed"]) == ("pairs", {})
    written = read_pairs(pack, "train")
    trained, _ = hold_out(written, held_out_photos([written], 0.4))
    assert results["triplets"] == sum(len(group.triplets) for group in trained.groups)
    for key, row in found.items():
        assert list(row["protocols"]) == PROTOCOLS
        for protocol in row["protocols"].values():
            assert list(protocol["groups"]) == list(GROUPS)
            recalls = [group["recall_at_10"] for group in protocol["groups"].values()]
            assert protocol["average"]["recall_at_10"] == pytest.approx(np.mean(recalls), abs=1e-4)
            assert protocol["average"]["recall_at_50"] == 1.0
        assert [run["seed"] for run in row["runs"]] == ([0] if key == "sum" else [0, 1])
        assert row["parameters"] > 0 or key == "sum"
        assert (row["flops"] > 0) == (key != "sum")
        average = row["protocols"]["split"]["average"]
        spread = np.std([of_seed[0] for of_seed in average["seeds"]], ddof=1) if key != "sum" else None
        assert average["spread"] == (None if spread is None else pytest.approx([spread, 0.0], abs=1e-4))
        assert (row["agcn_is_ahead_by"] is None) == (key == "agcn")
        worth = row["protocols"]["changes_full"]["photos_worth"]
        low, high = worth["recall_at_10_interval"]
        assert -1 <= low <= worth["recall_at_10"] <= high <= 1
        assert 0 < row["edits"]["map_at_10"] <= 1
        if key != "agcn":
            assert list(row["agcn_is_ahead_by"]) == [*PROTOCOLS, "edits"]
            lead = found["agcn"]["edits"]["map_at_10"] - row["edits"]["map_at_10"]
            assert row["agcn_is_ahead_by"]["edits"]["mean"] == pytest.approx(lead, abs=1e-4)
    sums, model = found["sum"]["protocols"]["changes_split_noref"], FashionModel.from_pretrained(start)
    data = read_pairs(pack, "val", pairs="changes", gallery="split_noref")
    right, *wrong = (sums_recall(model, one) for one in (data, *(with_wrong_photos(data, seed=s) for s in range(3))))
    assert 0 < right < 1
    assert sums["average"]["recall_at_10"] == pytest.approx(right, abs=1e-4)
    assert sums["photos_worth"]["recall_at_10"] == pytest.approx(right - np.mean(wrong), abs=1e-4)
    assert not list((tmp_path / "runs").rglob("checkpoint.pt"))

    table = (tmp_path / "found.md").read_text()
    assert table.count("\n| TIRG | sum of both | ") == len(PROTOCOLS) + 1
    assert "| 17.40 / 37.39 |" in table
    assert "### pairs, val, protocol full" in table

    def no_more(*_: object) -> None:
        raise AssertionError("trained again")

    monkeypatch.setattr(runs, "fit", no_more)
    again = compare(replace(settings, composers=["tirg", "agcn"], results=str(tmp_path / "again.json")))
    assert list(again["composers"]) == ["agcn", "tirg_sum"]
    again = json.loads((tmp_path / "again.json").read_text())["composers"]
    assert again == {key: found[key] for key in again}


def sums_recall(model: FashionModel, data: ComposedSet) -> float:
    """R@10 of the sum of both embeddings, by the public model."""
    recalls = []
    for group in data.groups:
        photos = model.encode(images=[group.photos[triplet.candidate] for triplet in group.triplets])
        texts = model.encode(texts=[join_captions(triplet.captions) for triplet in group.triplets])
        gallery = model.encode(images=[group.photos[name] for name in group.gallery])
        ranks = rank_targets(photos + texts, gallery, group.target_rows, group.excluded_rows)
        recalls.append(recall_at_k(ranks, 10))
    return float(np.mean(recalls))


def test_a_run_cut_short_goes_on_exactly(
    pack: Path, start: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole, cut = (
        comparison(tmp_path, recipe(pack, start, tmp_path / name, steps=6), composers=["fashionvil"], seeds=[3])
        for name in ("straight", "cut")
    )
    straight = compare(whole)
    folders = [tmp_path / name / "runs/fashionvil_sum/3" for name in ("straight", "cut")]
    calls = []

    def stopping(*arguments: Any) -> torch.Tensor:
        calls.append(1)
        if len(calls) == 4:
            raise KeyboardInterrupt
        return composition_loss(*arguments)

    with monkeypatch.context() as patch:
        patch.setattr(agcn_fit, "composition_loss", stopping)
        with pytest.raises(KeyboardInterrupt):
            compare(cut)
    assert (folders[1] / "checkpoint.pt").exists()
    assert not (folders[1] / "run.json").exists()
    resumed = compare(cut)
    assert log_of(folders[1]) == log_of(folders[0])
    assert [row["step"] for row in log_of(folders[1])] == [0, 1, 2, 3, 4, 5]
    assert resumed["composers"] == straight["composers"]


def test_a_failing_composer_leaves_the_others(
    pack: Path, start: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = compare_composers.run

    def failing(method: Any, *arguments: Any) -> dict[str, Any]:
        if method.name == "combiner":
            raise InputError("queries[0] is zero or not finite; expected embeddings")
        return real(method, *arguments)

    monkeypatch.setattr(compare_composers, "run", failing)
    shared = recipe(pack, start, tmp_path)
    settings = comparison(tmp_path, shared, composers=["val", "combiner", "sum"], seeds=[0], starts=["own"])
    results = compare(settings)
    assert list(results["composers"]) == ["sum", "val_own"]
    assert results["failed"] == {"combiner_own": "queries[0] is zero or not finite; expected embeddings"}
    table = (tmp_path / "found.md").read_text()
    assert "| VAL | as published | " in table
    assert "combiner_own failed: queries[0]" in table
    monkeypatch.setattr(compare_composers, "read_settings", lambda *_: settings)
    with pytest.raises(Exit):
        main(tmp_path)


def test_runs_of_another_recipe_are_not_mixed_in(pack: Path, start: Path, tmp_path: Path) -> None:
    base = recipe(pack, start, tmp_path)
    settings = comparison(tmp_path, base, composers=["sum"])
    compare(settings)
    with pytest.raises(ConfigError, match="holds runs of another recipe or encoder; choose another output"):
        compare(replace(settings, recipe=replace(base, batch_size=5)))
    assert (tmp_path / "runs/sum/0/run.json").exists()


def test_init_or_resume_takes_the_recipe_of_the_release_before(tmp_path: Path) -> None:
    base = recipe(tmp_path, tmp_path, tmp_path)
    init_or_resume(base, "0" * 64)
    path = Path(base.output) / "recipe.json"
    path.write_text(path.read_text().replace('"optimization"', '"optimisation"'))
    with pytest.warns(DeprecationWarning, match="key 'optimisation'"):
        init_or_resume(base, "0" * 64)
    assert '"optimization"' in path.read_text()


def test_variations_of_the_recipe_are_trained_as_agcn(
    pack: Path, start: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(metrics, "_ROUNDS", 20)
    base = recipe(pack, start, tmp_path)
    variations = {
        "paper_equations": {"composer": {"residual": "none"}},
        "no_derived": {"derived": 0, "derived_share": 0.0},
    }
    settings = comparison(tmp_path, base, composers=list(VARIANTS), variations=variations)
    for part in ((0, 2), (1, 2)):
        assert compare(settings, part)["composers"] == {}
    assert not (tmp_path / "found.json").exists()
    done = sorted(str(path.parent.relative_to(tmp_path / "runs")) for path in (tmp_path / "runs").rglob("run.json"))
    assert [name for name in done if "variations" in name] == [
        f"variations/{name}/agcn/{seed}" for name in ("no_derived", "paper_equations") for seed in (0, 1)
    ]
    assert len(done) == 2 * 4 + 1 + 2 * 2
    monkeypatch.setattr(runs, "fit", None)
    results = compare(settings)
    assert list(results["variations"]) == ["paper_equations", "no_derived"]
    row = results["variations"]["paper_equations"]
    assert row["protocols"] != results["composers"]["agcn"]["protocols"]
    assert row["agcn_is_ahead_by"].keys() == {*PROTOCOLS, "edits"}
    assert json.loads((tmp_path / "runs/variations/no_derived/recipe.json").read_text())["derived"] == 0
    page = (tmp_path / "found.md").read_text()
    assert "AGCN, `paper_equations`: `composer.residual = none`." in page
    assert page.count("\n| AGCN, `no_derived` |  | ") == len(PROTOCOLS) + 1

    found = evaluate_ablation(tmp_path / "found.json")
    assert [*found["variations"]] == ["paper_equations", "no_derived"]
    leads = {(one["first"], one["measure"]): one for one in found["against_first"]}
    lead = leads["AGCN, paper_equations", "changes_full, R@10"]
    told = row["agcn_is_ahead_by"]["changes_full"]["recall_at_10"]
    assert lead["difference"] == pytest.approx(told, abs=1e-4)
    assert 0 < lead["p"] <= 1
    assert ("Only text", "edits, mAP@10") in leads


@pytest.mark.parametrize(
    ("variations", "message"),
    [
        ({"no_wrong": {"wrong_foto": 0.0}}, "unknown keys wrong_foto"),
        ({"wide": {"composer": {"width": "wide"}}}, "'composer.width' must be a whole number, got 'wide'"),
        ({"odd": {"composer": {"heads": 3}}}, "must divide the width"),
        ({"other": {"model": "x"}}, "'variations.other' must change something, but none of data, source, model"),
        ({"nothing": {}}, "'variations.nothing' must change something"),
        ({"../up": {"batch_size": 8}}, "must have names of small letters, digits and _, got '../up'"),
        ({"flat": 3}, "'variations.flat' must be a mapping"),
    ],
)
def test_faults_of_variations_are_one_line(variations: dict[str, Any], message: str, tmp_path: Path) -> None:
    mapping = tomllib.loads(CONFIG.read_text())
    with pytest.raises(ConfigError, match=re.escape(message)) as error:
        from_mapping(mapping | {"variations": variations}, Settings, "config")
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("part", ["2/2", "1", "a/b", "-1/2", "0/0"])
def test_a_part_that_is_none_is_refused(part: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        main(CONFIG, part)
    assert f"error: --part must be INDEX/NUMBER, as 0/2 and 1/2, got '{part}'" in capsys.readouterr().err


def test_fashioniq_under_its_three_protocols(start: Path, tmp_path: Path) -> None:
    fashioniq = replace(
        recipe(write_tree(tmp_path / "tree"), start, tmp_path),
        source="fashioniq", derived=0, derived_share=0.0, held_out=0.0, batch_size=3,
    )  # fmt: skip
    results = compare(comparison(tmp_path, fashioniq, composers=["sum"]))
    assert list(results["composers"]["sum"]["protocols"]) == ["original", "original_noref", "val_split"]


def test_settings_of_a_comparison_name_all_their_faults(tmp_path: Path) -> None:
    settings = read_settings(CONFIG, Settings)
    assert settings.composers == ["agcn", "sum", "tirg", "val", "dcnet", "sac", "combiner", "lfm_ir"]
    assert set(settings.composers[2:]) < COMPOSERS.keys()
    shared = settings.recipe
    assert (shared.composer.heads, shared.optimization.seed) == (4, 0)
    assert [c.key for c in methods(settings)][:4] == ["agcn", "sum", "tirg_sum", "val_sum"]
    both = methods(replace(settings, starts=["text", "own"], composers=["crn", "add"]))
    assert [c.key for c in both] == ["add", "crn_text", "crn_own"]
    text = CONFIG.read_text()
    for key, value in {"seeds": "[]", "composers": '["tirg", "tirg", "clip"]', "starts": '["zero"]'}.items():
        text = re.sub(f"(?m)^{key} = .*", f"{key} = {value}", text)
    (tmp_path / "wrong.toml").write_text(text)
    with pytest.raises(ConfigError) as error:
        read_settings(tmp_path / "wrong.toml", Settings)
    for fault in (
        "'starts.0' must be 'sum', 'text' or 'own', got 'zero'",
        "'seeds' must list something, each once, got []",
        "'composers' must be one of sum, only_text, only_image, add, agcn, tirg,",
        "got 'clip'",
    ):
        assert fault in str(error.value)
    (tmp_path / "wrong.toml").write_text(re.sub(r"(?m)^seeds = .*", "seeds = [0, -1]", CONFIG.read_text()))
    with pytest.raises(ConfigError, match=r"'seeds.1' must be greater than or equal to 0, got -1"):
        read_settings(tmp_path / "wrong.toml", Settings)
    (tmp_path / "wrong.toml").write_text(CONFIG.read_text().replace("width =", "widht ="))
    with pytest.raises(ConfigError, match=r"unknown keys recipe.composer.widht"):
        read_settings(tmp_path / "wrong.toml", Settings)


def test_a_query_costs_what_its_matrix_products_do() -> None:
    config = ComposerConfig(
        embedding_dim=12, width=8, depth=2, heads=2, hidden=24, dropout=0.1, encoder="0" * 64, variant="agcn"
    )
    k, s, d, w, h = 6, TEXT_TOKENS, 12, 8, 24
    entrances = (s + k) * d * w
    projections = 4 * s * w * w + (2 * s + 2 * k) * w * w
    first = projections + 2 * s * s * w + 2 * s * k * w + 2 * s * w * h
    last = 2 * 4 * w * w + 2 * config.heads * (s + k) * w + 2 * w * h  # of one token, without projected keys
    expected = 2 * (entrances + first + last + w * d)
    assert flops_of_a_query(Method("only_text", None), config, k) == expected
    assert flops_of_a_query(Method("sum", None), config, k) == 0
    combiner = 2 * (2 * d * w + 2 * (2 * w * h) + h * d + h)
    assert flops_of_a_query(Method("combiner", "own"), config, k) == combiner
    assert flops_of_a_query(Method("combiner", "text"), config, k) == combiner + 2 * d * d


def test_the_papers_tables_are_whole() -> None:
    paper = read_paper()
    for number in range(1, 6):
        table = paper[f"table_{number}"]
        assert all(len(row) == len(table["columns"]) for row in table["rows"].values())
    for number in (1, 4):
        for name, row in paper[f"table_{number}"]["rows"].items():
            printed = 0.5166 if name == "CLIP" else row[-1]  # its printed mean is not that of its six figures
            assert np.mean(row[:-1]) == pytest.approx(printed, abs=1e-4)
    for number in (3, 5):
        for name, row in paper[f"table_{number}"]["rows"].items():
            assert name in TITLES.values()
            assert np.mean(row[0:6:2]) == pytest.approx(row[6], abs=0.011)
            printed = 61.75 if name == "AGCN" else row[7]  # likewise
            assert np.mean(row[1:6:2]) == pytest.approx(printed, abs=0.011)
    assert set(NAMES) == set(TITLES)
    nothing = {"composers": {}, "variations": {}, "failed": {}, "left_out": [], "tokens": {"image": 50, "text": 16}}
    assert comparison_page(nothing).startswith("Recall in percent")
