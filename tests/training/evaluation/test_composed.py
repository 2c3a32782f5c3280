"""Composed retrieval: ranks against a plain reference, and three protocols against numbers found by hand."""

from __future__ import annotations

import hashlib
import json
from functools import partial
from pathlib import Path

import numpy as np
import pytest

from fashion_retrieval import FashionModel
from fashion_retrieval._utils import scores, significance
from fashion_retrieval._utils.scores import mean_interval, stratified_interval
from fashion_retrieval.errors import InputError
from tests.support.drawn_pack import write_lines
from tests.support.fashioniq_tree import Compass, directions, write_tree
from tests.support.tiny import tiny_folder
from tests.training.data.test_pairs import pair, write_pairs
from training import evaluate
from training.data.fashioniq import Protocol, read_fashioniq
from training.data.pairs import read_pairs
from training.data.triplets import CaptionMode, with_wrong_photos
from training.evaluation import composed
from training.evaluation.composed import average_recall, evaluate_composed, read_sets
from training.evaluation.metrics import rank_targets, recall_at_k

RANKS = {
    "original": {"shirt": [12, 2], "dress": [11, 51, 9, 56], "toptee": [55, 11, 12]},
    "original_noref": {"shirt": [11, 2], "dress": [10, 50, 9, 55], "toptee": [54, 10, 11]},
    "val_split": {"shirt": [3, 2], "dress": [4, 6, 4, 6], "toptee": [4, 1, 2]},
}
"""By hand: D10 is the 11th from the left of 60 photos, the 10th without its reference D03; of the eight photos that the
captions of dresses name it is the 5th, the 4th without D03."""
AVERAGES = {"original": (1 / 4, 13 / 18), "original_noref": (4 / 9, 29 / 36), "val_split": (1, 1)}
"""R@10 of shirt, dress, toptee is 1/2, 1/4, 0 under `original` and 1/2, 2/4, 1/3 without the reference; R@50 is 1, 2/4,
2/3 and 1, 3/4, 2/3."""


@pytest.fixture(scope="module")
def tree(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_tree(tmp_path_factory.mktemp("fashioniq"))


@pytest.fixture
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """Rough intervals, where they don't matter."""
    for module in (scores, significance):
        monkeypatch.setattr(module, "stratified_interval", partial(stratified_interval, rounds=20))


@pytest.mark.usefixtures("quick")
def test_evaluate_composed_under_three_protocols_by_hand(tree: Path) -> None:
    model = Compass()
    figures = evaluate_composed(model, [read_fashioniq(tree, "val", protocol=p) for p in Protocol], draws=0)
    assert {p: {g: row["ranks"] for g, row in f["groups"].items()} for p, f in figures.items()} == RANKS
    for protocol, (at_10, at_50) in AVERAGES.items():
        average = figures[protocol]["average"]
        wanted = (at_10, at_50, (at_10 + at_50) / 2)
        assert (average["recall_at_10"], average["recall_at_50"], average["mean"]) == pytest.approx(wanted)
    dress = figures["original_noref"]["groups"]["dress"]
    assert (dress["recall_at_10"], dress["recall_at_50"], dress["median_rank"]) == (2 / 4, 3 / 4, 30)
    galleries = {p: [row["gallery"] for row in f["groups"].values()] for p, f in figures.items()}
    assert galleries == {"original": [12, 60, 55], "original_noref": [12, 60, 55], "val_split": [4, 8, 5]}
    assert [f["reference_kept"] for f in figures.values()] == [True, False, False]
    assert len(model.encoded) == len(set(model.encoded)) == 12 + 60 + 55
    assert len(model.texts) == 2 + 4 + 3


@pytest.mark.usefixtures("quick")
def test_evaluate_composed_counts_leaks_and_empty_captions(tree: Path) -> None:
    figures = evaluate_composed(Compass(), [read_fashioniq(tree, "val")])["original"]["groups"]
    assert [(g["leaked"], g["leaked_targets"], g["empty_captions"]) for g in figures.values()] == [
        (1, 1, 0), (0, 0, 0), (2, 1, 1)
    ]  # fmt: skip


@pytest.mark.usefixtures("quick")
def test_evaluate_composed_joins_captions_by_mode(tree: Path) -> None:
    data = read_fashioniq(tree, "val", groups=["dress"])
    model = Compass()
    first, second = (
        evaluate_composed(model, [data], captions=m, draws=0)["original"]
        for m in (CaptionMode.FIRST, CaptionMode.SECOND)
    )
    assert model.texts[0] == "Is left"
    assert model.texts[4] == "Shorter, to the right"
    assert first["groups"]["dress"]["ranks"] == RANKS["original"]["dress"]
    assert second["groups"]["dress"]["ranks"] == [50, 10, 52, 5]
    assert (second["average"]["recall_at_10"], second["average"]["recall_at_50"]) == (2 / 4, 3 / 4)


def test_evaluate_composed_draws_intervals_within_groups(tree: Path) -> None:
    figures = evaluate_composed(Compass(), [read_fashioniq(tree, "val")])["original"]
    shirt, average = figures["groups"]["shirt"], figures["average"]
    assert shirt["recall_at_10_interval"] == [0, 1]
    assert shirt["recall_at_50_interval"] == [1, 1]
    assert average["recall_at_10_interval"] == [0, 0.5]  # toptee's is always 0
    hits = [np.array([0, 1]), np.array([0, 0, 1, 0]), np.array([0, 0, 0])]
    drawn = stratified_interval(
        [2, 4, 3], lambda rows: float(np.mean([h[r].mean() for h, r in zip(hits, rows, strict=True)]))
    )
    assert drawn == average["recall_at_10_interval"]
    again = evaluate_composed(Compass(), [read_fashioniq(tree, "val")], seed=1)["original"]["average"]
    assert again["mean_interval"] != average["mean_interval"]
    assert again["mean"] == average["mean"]


def test_stratified_interval_is_the_textbooks() -> None:
    small, large = np.random.default_rng(1).normal(0, 1, 100), np.random.default_rng(2).normal(5, 4, 400)
    low, high = stratified_interval([100, 400], lambda rows: float((small[rows[0]].mean() + large[rows[1]].mean()) / 2))
    middle = (small.mean() + large.mean()) / 2
    margin = 1.96 * np.hypot(small.std() / 10, large.std() / 20) / 2
    assert [low, high] == pytest.approx([middle - margin, middle + margin], abs=0.03)
    alone = stratified_interval([100], lambda rows: float(small[rows[0]].mean()))
    assert alone == mean_interval(small)


@pytest.mark.usefixtures("quick")
def test_evaluate_composed_without_missing_photos_has_a_smaller_gallery(tmp_path: Path) -> None:
    root = write_tree(tmp_path)
    for name in ("D10", "D59"):
        (root / f"images/{name}.jpg").unlink()
    figures = evaluate_composed(Compass(), [read_fashioniq(root, "val", missing="report")])["original"]
    dress = figures["groups"]["dress"]
    assert figures["missing"] == 2
    assert dress["missing"] == ["D10", "D59"]
    assert dress["left_out"] == ["D03 -> D10", "D59 -> D08"]
    assert (dress["queries"], dress["gallery"]) == (2, 58)
    assert dress["ranks"] == [50, 54]  # D50 with D10 gone; D04, from the right, with both gone


@pytest.mark.usefixtures("quick")
def test_evaluate_composed_of_pairs_in_both_galleries_by_hand(tmp_path: Path) -> None:
    root = write_pairs(tmp_path)
    figures = evaluate_composed(Compass(), [read_pairs(root, "val", gallery=g) for g in ("split", "full")])
    ranks = {p: {g: row["ranks"] for g, row in f["groups"].items()} for p, f in figures.items()}
    assert ranks["split"] == {"shirt": [11, 2], "dress": [3], "toptee": [2]}
    assert ranks["full"] == {"shirt": [21, 12], "dress": [3], "toptee": [3]}
    assert figures["split"]["average"]["recall_at_10"] == pytest.approx(5 / 6)
    assert figures["full"]["average"]["recall_at_10"] == pytest.approx(2 / 3)
    assert figures["full"]["reference_kept"] is True


def test_evaluate_composed_asks_in_other_ways_too(tree: Path) -> None:
    model = Compass()
    figures = evaluate_composed(model, [read_fashioniq(tree, "val")], draws=2)["original"]
    ways = figures["ways"]
    assert [*ways] == ["composed", "text", "photo", "sum", "wrong_photo"]
    assert "composed_is_ahead_by" not in ways["composed"]
    assert ways["composed"]["recall_at_10"] == figures["average"]["recall_at_10"] == 1 / 4
    assert ways["composed"]["recall_at_10_interval"] == figures["average"]["recall_at_10_interval"]
    # Photos alone, by distance: of shirts both targets are within 10; of dresses D04 is; T44 is the 11th, T11 the 2nd.
    assert ways["photo"]["recall_at_10"] == pytest.approx((1 / 2 + 1 / 4 + 1 / 3) / 3)
    # A compass never looks at its photo: no way that has the text is worse, and no photo is worth anything.
    for way in ("text", "wrong_photo"):
        for lead in ways[way]["composed_is_ahead_by"].values():
            assert (lead["difference"], lead["interval"], lead["p"]) == (0, [0, 0], 1)
    assert len(model.encoded) == len(set(model.encoded))


class _Steered(Compass):
    """Looks at its photo, and at nothing else: it finds what is two photos to the right."""

    def compose(self, reference_image: list[Path], modification_text: list[str], **_: object) -> np.ndarray:
        return self.encode(images=[path.with_name(f"{int(path.stem[-2:]) + 2:02}") for path in reference_image])


@pytest.mark.usefixtures("quick")
def test_a_photo_is_worth_what_a_wrong_one_loses(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(composed, "KS", (1,))  # ten photos are all among the first ten
    root = write_pairs(tmp_path)
    rows = [pair("shirt", "train", f"{n:02}", f"{n + 2:02}", "is left") for n in range(7)]
    write_lines(root / "pairs_changes.jsonl", rows)
    data = read_pairs(root, "train", pairs="changes", groups=["shirt"])
    wrong = [
        rank_targets(
            directions([2.0 * (int(t.candidate) + 2) for t in drawn.groups[0].triplets]),
            directions([2.0 * n for n in range(10)]),
            data.groups[0].target_rows,
        )
        for drawn in (with_wrong_photos(data, seed=3 + draw) for draw in range(2))
    ]
    kept = np.mean([r == 1 for r in wrong])
    assert kept < 0.5
    found = evaluate_composed(_Steered(), [data], draws=2, seed=3)["split"]
    assert found["groups"]["shirt"]["ranks"] == [1] * 7
    assert found["ways"]["composed"]["recall_at_1"] == 1
    lost = found["ways"]["wrong_photo"]
    assert lost["recall_at_1"] == pytest.approx(kept)
    assert lost["composed_is_ahead_by"]["recall_at_1"]["difference"] == pytest.approx(1 - kept)
    for bad in (-1, True, 1.5):
        with pytest.raises(InputError, match="draws must be a whole number from 0 on"):
            evaluate_composed(Compass(), [data], draws=bad)  # type: ignore[arg-type]


def test_read_sets_of_the_pack(tmp_path: Path) -> None:
    root = write_pairs(tmp_path)
    changes = ["changes_split", "changes_full", "changes_split_noref", "changes_full_noref"]
    read = partial(read_sets, root, None, None, "val", ["shirt"], "error")
    assert [one.protocol for one in read()] == ["split", "full", *changes]
    assert [one.protocol for one in read("pairs")] == ["split", "full"]
    assert [one.protocol for one in read("changes")] == changes
    assert [one.groups[0].reference_kept for one in read("changes")] == [True, True, False, False]
    assert {len(one.groups[0].triplets) for one in read("changes")} == {1}
    with pytest.raises(InputError, match="pairs must be one of pairs, changes, got 'all'"):
        read("all")
    with pytest.raises(InputError, match="pairs 'changes' are the data pack's; leave them out with --fashioniq"):
        read_sets(root, root, None, "val", ["shirt"], "error", "changes")


def test_rank_targets_equals_a_plain_count() -> None:
    chance = np.random.default_rng(0)
    gallery = chance.normal(size=(60, 8)).astype(np.float32)
    gallery[40:50] = gallery[:10]  # copies
    queries = chance.normal(size=(300, 8)).astype(np.float32)
    queries[:40] = 3 * gallery[:40]
    targets = chance.integers(60, size=300)
    excluded = (targets + chance.integers(1, 60, size=300)) % 60
    excluded[::3] = -1
    unit = gallery.astype(np.float64) / np.linalg.norm(gallery.astype(np.float64), axis=1, keepdims=True)
    wanted = []
    for query, target, out in zip(queries.astype(np.float64), targets, excluded, strict=True):
        scores = [round(float(query @ row) / float(np.linalg.norm(query)), 9) for row in unit]
        order = sorted((row for row in range(60) if row != out), key=lambda row: (-scores[row], row))
        wanted.append(order.index(target) + 1)
    ranks = rank_targets(queries, gallery, targets, excluded)
    assert ranks.dtype == np.int64
    assert ranks.tolist() == wanted
    assert rank_targets(queries[:40], gallery, np.arange(40)).tolist() == [1] * 40
    assert rank_targets(gallery[:10], gallery, np.arange(40, 50)).tolist() == [2] * 10  # the copy in front goes first
    assert rank_targets(gallery[:10], gallery, np.arange(40, 50), np.arange(10)).tolist() == [1] * 10


def test_recall_at_k_of_ranks() -> None:
    ranks = {"shirt": np.array([1, 10, 11, 60]), "dress": np.array([50])}
    assert [recall_at_k(ranks["shirt"], k) for k in (1, 10, 50, 60)] == [0.25, 0.5, 0.75, 1]
    assert average_recall(ranks, 10) == 0.25
    assert average_recall(ranks, 50) == 0.875


def test_rank_targets_of_wrong_input_is_refused() -> None:
    rows, targets = np.eye(3, dtype=np.float32), np.arange(3)
    broken = rows.copy()
    broken[1, 1] = np.nan
    with pytest.raises(InputError, match=r"gallery\[1\] is zero or not finite"):
        rank_targets(rows, broken, targets)
    with pytest.raises(InputError, match=r"queries\[0\] is zero or not finite"):
        rank_targets(0 * rows, rows, targets)
    with pytest.raises(InputError, match=r"queries must be \(N, D\) floating, got float32 \(3,\)"):
        rank_targets(rows[0], rows, targets)
    with pytest.raises(InputError, match="one width, got 3 and 2"):
        rank_targets(rows, rows[:, :2] + 1, targets)
    with pytest.raises(
        InputError, match=r"targets must be \(3,\) integers, each from 0 to 2, got int64 \(3,\) from -1"
    ):
        rank_targets(rows, rows, targets - 1)
    with pytest.raises(InputError, match=r"excluded must be .* from -1 to 2, got int64 \(2,\)"):
        rank_targets(rows, rows, targets, targets[:2])
    with pytest.raises(InputError, match="query 1 excludes its own target"):
        rank_targets(rows, rows, targets, np.array([-1, 1, 0]))


@pytest.fixture
def model(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A real folder of a model whose answers are a `Compass`'s."""
    compass = Compass()
    monkeypatch.setattr(FashionModel, "encode", lambda self, **given: compass.encode(**given))
    monkeypatch.setattr(FashionModel, "reference", lambda self, photos: list(photos))
    monkeypatch.setattr(FashionModel, "compose", lambda self, *given: compass.compose(*given))
    return tiny_folder(tmp_path / "model")


@pytest.mark.usefixtures("quick")
def test_composed_command_measures_fashioniq(
    tree: Path, model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    output = tmp_path / "figures/results.json"
    options = ["--model", str(model), "--fashioniq", str(tree), "--protocol", "all", "--output", str(output)]
    with pytest.raises(SystemExit, match="0"):
        evaluate.run(["composed", *options, "--seed", "5"])
    told = capsys.readouterr()
    assert "original_noref  average  R@10 44.44  R@50 80.56" in told.out
    assert "original toptee: 2 photos of the gallery are in the train split of another group" in told.err
    figures = json.loads(output.read_text())
    assert {p: {g: row["ranks"] for g, row in f["groups"].items()} for p, f in figures["protocols"].items()} == RANKS
    assert figures["protocols"]["original"]["average"]["recall_at_50"] == 0.7222
    weights = model / "open_clip_model.safetensors"
    assert figures["sha256"] == {weights.name: hashlib.sha256(weights.read_bytes()).hexdigest()}
    assert figures["fingerprint"] == FashionModel.from_pretrained(model).fingerprint
    assert (figures["model"], figures["source"], figures["split"]) == (str(model), "fashioniq", "val")
    assert (figures["caption_mode"], figures["seed"]) == ("c1_and_c2", 5)
    groups = ["shirt", "dress", "toptee"]
    assert figures["config"] == {"root": str(tree), "groups": groups, "missing": "error", "draws": 3}
    text = output.with_suffix(".md").read_text()
    assert "| **wrong photo** | 25.00 | 72.22 |" in text
    assert "| composed is ahead by | +0.00<br>+0.00 to +0.00 |" in text
    assert {"commit", "versions"} <= figures.keys()
    assert '"ranks": [11, 51, 9, 56]' in output.read_text()  # one line


@pytest.mark.usefixtures("quick")
def test_composed_command_measures_pairs_and_names_its_file(
    model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    root = write_pairs(tmp_path / "pack")
    (root / "products/train/03.jpg").unlink()
    monkeypatch.setattr(evaluate, "RESULTS", tmp_path)
    common = ["composed", "--model", str(model), "--data", str(root), "--missing", "report"]
    for more in ([], ["--group", "shirt", "--captions", "c1"]):
        with pytest.raises(SystemExit, match="0"):
            evaluate.run([*common, *more])
    figures = json.loads((tmp_path / "composed_model_val.json").read_text())
    assert figures["protocols"]["full"]["groups"]["shirt"]["ranks"] == [20, 11]
    assert figures["protocols"]["full"]["groups"]["shirt"]["missing"] == ["03"]
    assert figures["protocols"]["split"]["missing"] == 0
    assert figures["protocols"]["changes_full_noref"]["reference_kept"] is False
    assert figures["protocols"]["changes_full"]["groups"]["dress"]["ranks"] == [3]
    only = json.loads((tmp_path / "composed_shirt_c1_model_val.json").read_text())
    assert [*only["protocols"]["full"]["groups"]] == ["shirt"]
    assert "full shirt: 1 photos missing, 0 queries left out" in capsys.readouterr().err


def test_composed_command_says_what_is_wrong_in_one_line(
    model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for options, wanted in (
        (["--fashioniq", str(tmp_path)], "cap.dress.val.json is missing"),
        (["--data", str(tmp_path)], "pairs.jsonl is missing"),
        (["--protocol", "original"], "give its folder with --fashioniq"),
        (["--fashioniq", str(tmp_path), "--pairs", "changes"], "error: pairs 'changes' are the data pack's; leave"),
    ):
        with pytest.raises(SystemExit) as left:
            evaluate.run(["composed", "--model", str(model), *options])
        assert left.value.code == 1
        told = capsys.readouterr().err
        assert wanted in told
        assert told.startswith("error: ")
        assert told.count("\n") == 1
