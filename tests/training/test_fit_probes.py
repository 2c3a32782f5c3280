"""Probes of "not visible": a least point, the order of the values in view, views that are kept, and the command."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from PIL import Image

from fashion_retrieval import FashionModel
from fashion_retrieval.models.probe import Floats
from fashion_retrieval.models.zero_shot import normalized
from tests.support.drawn_pack import write_lines, write_pack
from tests.support.tiny import saved_folder, tiny_folder
from training.data import views as views_module
from training.data.cuts import CUTS
from training.data.manifest import labeled_samples
from training.data.views import NOTHING, PHOTO, load_views
from training.fit_probes import Examples, cautious, examples, fit_told, fit_value, main, unseen


def drawn(count: int = 400) -> tuple[Floats, Floats, NDArray[np.bool_]]:
    """Embeddings whose first number tells what is hidden, log-odds that mislead, and the truth."""
    rng = np.random.default_rng(0)
    hidden = rng.random(count) < 0.4
    rows = rng.normal(size=(count, 6)) + np.eye(6)[0] * np.where(hidden, 3, -3)[:, None]
    return normalized(rows.astype(np.float32)), rng.normal(2, 1, count).astype(np.float32), hidden


def test_a_value_is_fitted_beside_its_odds_by_the_prompts() -> None:
    rows, odds, hidden = drawn()
    probe = fit_value(rows, odds, hidden, "out", 0.01)
    assert (probe.values, probe.weight.shape, float(probe.scale)) == (("out",), (1, 6), 1.0)
    said = odds + rows @ probe.weight[0] + probe.bias[0]
    assert (odds > 0).mean() > 0.95
    assert ((said > 0) == hidden).mean() > 0.95
    chance = 1 / (1 + np.exp(-said.astype(np.float64)))
    assert chance.mean() == pytest.approx(hidden.mean(), abs=1e-4)  # where the bias' gradient is zero
    center = rows.mean(0, dtype=np.float64)
    spread = np.sqrt(((rows - center) ** 2).sum(1).mean())
    gradient = ((chance - hidden) @ (rows - center)) / spread / len(rows)
    np.testing.assert_allclose(gradient, -0.01 * probe.weight[0] * spread, atol=1e-4)
    strong = fit_value(rows, odds, hidden, "out", 10.0)
    assert np.linalg.norm(strong.weight) < 0.1 * np.linalg.norm(probe.weight)


def test_values_in_view_keep_their_odds() -> None:
    rows, odds, hidden = drawn()
    probe = fit_value(rows, odds, hidden, "out", 0.01)
    given = np.array([0.5, 0.3, 0.2], np.float32)
    corrected = probe.correct(given, rows[0], ("long", "short", "out"))
    assert corrected[0] / corrected[1] == pytest.approx(0.5 / 0.3, rel=1e-5)
    logit = np.log(0.2 / 0.8) + rows[0] @ probe.weight[0] + probe.bias[0]
    assert corrected[2] == pytest.approx(1 / (1 + np.exp(-logit)), rel=1e-4)


def test_the_likeliest_category_is_as_sure_as_it_is_right() -> None:
    rows, _, hidden = drawn()
    whole = ~hidden
    sure = np.full(len(rows), 0.9, np.float32)
    probe = fit_told(rows, sure, whole, whole, 0.0001)
    left = np.array([0.9 * probe.chance(row)[0] for row in rows])
    assert left[hidden].mean() < 0.05
    assert 0.87 < left[whole].mean() <= 0.9
    strong = fit_told(rows, sure, whole, whole, 1000.0)  # one number for all: half of what counts is right
    assert 0.9 * strong.chance(rows[0])[0] == pytest.approx(0.5, abs=0.01)


def test_a_view_is_judged_by_probes_that_never_saw_its_photo() -> None:
    rows, odds, _ = drawn()
    rng = np.random.default_rng(1)
    drawn_labels, whole = rng.random(len(rows)) < 0.5, np.ones(len(rows), bool)
    by_chance = Examples(rows, 0 * odds, 0 * odds, drawn_labels, whole, np.arange(len(rows)) % 6)
    assert ((unseen(by_chance, "out", 0.001) > 0) == by_chance.hidden).mean() == pytest.approx(0.5, abs=0.08)


def test_a_margin_keeps_whole_garments_in_view() -> None:
    zeros, whole = np.zeros(6, np.float32), np.array([True] * 5 + [False])
    hidden = np.array([False] * 4 + [True, False])
    given = Examples(np.zeros((6, 1), np.float32), zeros, zeros - 1, hidden, whole, np.zeros(6, np.int64))
    odds = np.array([-3, 0, 1, 2, 9, 9], np.float32)
    assert [cautious(given, odds, part) for part in (0.01, 0.3, 0.99)] == [3, 3, 1]
    assert cautious(given, odds, 0.5) == pytest.approx(2)
    assert ((odds - 2 > given.rival) & whole & ~hidden).sum() == 1


@pytest.fixture
def pack(tmp_path: Path) -> Path:
    root = write_pack(tmp_path)
    write_lines(root / "clothing_masks.jsonl", [{"id": "c1", "split": "train", "label": "Dress", "worn": False}])
    mask = np.zeros((128, 96), np.uint8)
    mask[24:104, 20:76] = 1
    Image.fromarray(mask).save(root / "clothing/train/c1.mask.png")
    return root


def test_views_are_embedded_once_and_kept_for_another_text_tower(
    pack: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = FashionModel.from_pretrained(tiny_folder(tmp_path / "tiny"), device="cpu", dtype="float32")
    views = load_views(model, pack, "train", tmp_path / "cache")
    parts = views.cuts == NOTHING
    assert (np.diff(parts.astype(int)) >= 0).all()  # they come last
    garments = [*zip(views.samples, views.cuts.tolist(), strict=True)][: (~parts).sum()]
    shown = {source: [cut for sample, cut in garments if sample.id == source] for source in ("1", "c1", "c3", "0001")}
    assert shown == {"1": [PHOTO, *CUTS], "c1": [*CUTS, PHOTO], "c3": [PHOTO], "0001": [*CUTS]}
    same = views.crop == views.masked
    assert [bool(row.all()) for row in same[:6]] == [True] * 6  # a studio product has no mask
    np.testing.assert_allclose(np.linalg.norm(views.crop, axis=1), 1, rtol=1e-5)
    sample = next(sample for sample in labeled_samples(pack, "train") if sample.id == "1")
    photo = model.recognizer("default", 1).embed([np.asarray(Image.open(sample.photo))], 1)
    np.testing.assert_allclose(views.crop[0], photo[0], atol=1e-6)
    monkeypatch.setattr(views_module, "_write", None)  # nothing is embedded again
    with torch.no_grad():
        next(model.encoder.clip.get_submodule("token_embedding").parameters()).add_(1)
    again = load_views(model, pack, "train", tmp_path / "cache")
    np.testing.assert_array_equal(again.masked, views.masked)


def test_the_command_writes_the_model_with_its_probes(
    pack: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = saved_folder(tmp_path / "saved", tiny_folder(tmp_path / "tiny"))
    config = tmp_path / "probes.toml"
    given = {"model": folder, "data": pack, "output": tmp_path / "made", "cache": tmp_path / "cache"}
    config.write_text("".join(f'{name} = "{path}"\n' for name, path in given.items()) + "strength = 0.01\nlost = 0.5\n")
    main(config)
    told = capsys.readouterr().out.splitlines()
    assert [line.split()[0].strip(",") for line in told] == ["sleeve", "length", "neckline", "category", "sleeve"]
    made, plain = (
        FashionModel.from_pretrained(path, device="cpu", dtype="float32") for path in (tmp_path / "made", folder)
    )
    assert made.fingerprint == plain.fingerprint
    values = {name: probe.values for name, probe in made.recognizer().probes.items()}
    assert values == {"sleeve": ("sleeves_out_of_view",), "length": ("hem_out_of_view",), "neckline": ("none",),
                      "category": ("told",)}  # fmt: skip
    given_views = examples(plain, load_views(plain, pack, "train", tmp_path / "cache"), "neckline")
    probe = made.recognizer().probes["neckline"]
    again = fit_value(given_views.views, given_views.odds, given_views.hidden, "none", 0.01)
    np.testing.assert_allclose(probe.weight, again.weight, atol=1e-6)
    margin = cautious(given_views, unseen(given_views, "none", 0.01), 0.5)
    assert probe.bias[0] == pytest.approx(again.bias[0] - margin, abs=1e-5)
