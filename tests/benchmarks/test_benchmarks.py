"""benchmarks/: rounds, the gate on correctness, replayed forward passes, the page."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from benchmarks import material, peak, report, startup
from benchmarks.encode import agreement
from benchmarks.rounds import interleave, paired, quartiles
from benchmarks.single import LABELS, recorded
from fashion_retrieval import FashionModel
from tests.support.paths import ROOT
from tests.support.tiny import tiny_folder

RESULTS = ROOT / "benchmarks/results"


def test_interleave_runs_every_contender_once_a_round() -> None:
    order: list[str] = []
    seconds = interleave({name: lambda name=name: order.append(name) for name in "abc"}, 4, warm_ups=2)
    assert [len(row) for row in seconds.values()] == [4, 4, 4]
    assert [sorted(order[start : start + 3]) for start in range(0, 18, 3)] == [["a", "b", "c"]] * 6
    assert len({tuple(order[start : start + 3]) for start in range(0, 18, 3)}) > 1


def test_paired_takes_ratios_within_a_round() -> None:
    timing = paired({"ours": [1.0, 2.0, 4.0], "theirs": [3.0, 4.0, 20.0]}, "ours", "theirs")
    assert timing.ratios == (3.0, 2.0, 5.0)
    assert timing.ratio() == {"median": 3.0, "q1": 2.5, "q3": 4.0}
    assert timing.milliseconds(10) == {"median": 200.0, "q1": 150.0, "q3": 300.0}
    assert quartiles([1.0]) == {"median": 1.0, "q1": 1.0, "q3": 1.0}


def test_agreement_shows_a_small_difference_without_the_mean() -> None:
    rng = np.random.default_rng(0)
    wanted = np.float32([1, 0, 0, 0]) + 0.1 * rng.normal(size=(50, 4)).astype(np.float32)
    wanted /= np.linalg.norm(wanted, axis=1, keepdims=True)
    found = wanted.copy()
    found[7] = wanted[8]
    cosine, centered = agreement(found, wanted)
    assert cosine == pytest.approx(float(wanted[7] @ wanted[8]), abs=1e-6)
    assert centered < cosine - 0.1
    assert agreement(wanted, wanted) == pytest.approx((1.0, 1.0), abs=1e-6)


def test_recorded_passes_run_again_on_the_same_tensors() -> None:
    layer = torch.nn.Linear(3, 2).eval()
    given = torch.ones(1, 3)
    with recorded((layer, "forward")) as passes, torch.inference_mode(), torch.autocast("cpu", dtype=torch.bfloat16):
        seen = layer(given)
    assert len(passes) == 1
    again = passes[0]()
    assert again.dtype == torch.bfloat16
    assert torch.equal(again, seen)
    assert "forward" not in vars(layer)


def test_labels_are_76_different_texts() -> None:
    assert len(set(LABELS)) == 76


def test_python_is_timed_to_the_end_of_its_work(tmp_path: Path) -> None:
    startup.run_python(f"open({str(tmp_path / 'done')!r}, 'w').close()")
    assert (tmp_path / "done").is_file()
    startup.run_python(startup._HELP)
    with pytest.raises(RuntimeError, match="ZeroDivisionError"):
        startup.run_python("1 / 0")


def test_photos_without_the_pack_are_drawn(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(material, "PACK", tmp_path / "none")
    files, source = material.photos(2, tmp_path)
    before = [file.read_bytes() for file in files]
    assert source == "drawn"
    assert before[0] != before[1]
    assert [file.read_bytes() for file in material.photos(2, tmp_path)[0]] == before


def test_gflop_of_an_image_includes_attention(tmp_path: Path) -> None:
    model = FashionModel.from_pretrained(tiny_folder(tmp_path), device="cpu", dtype="float32")
    vision = model.encoder.config["model_cfg"]["vision_cfg"]
    width, layers, patch = vision["width"], vision["layers"], vision["patch_size"]
    tokens = (vision["image_size"] // patch) ** 2
    blocks = layers * (tokens + 1) * (4 + 2 * 4) * width**2  # the four projections of attention, and the MLP
    attention = layers * 2 * (tokens + 1) ** 2 * width
    ends = tokens * 3 * patch**2 * width + width * model.embedding_dim
    expected = 2e-9 * (blocks + attention + ends)
    assert peak.gflop_of_an_image(model) == pytest.approx(expected, rel=1e-3)


def test_matmul_gflops_is_positive_in_both_precisions(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(peak, "_SIDES", {"cpu": 64})
    found = peak.matmul_gflops("cpu")
    assert set(found) == {"fp32", "bf16"}
    assert min(found.values()) > 0


def test_fraction_of_peak_is_a_percentage_where_a_peak_was_measured() -> None:
    data = {"gflop_of_an_image": 8.0, "matmul_gflops": {"fp32": 200.0, "bf16": 400.0}}
    assert report._fraction_of_peak(data, {"precision": "bf16", "images_per_second": 40.0}) == "80%"
    assert report._fraction_of_peak(data, {"precision": "int8", "images_per_second": 40.0}) == ""
    assert report._fraction_of_peak({}, {"precision": "fp32", "images_per_second": 40.0}) == ""


@pytest.mark.skipif(not list(RESULTS.glob("*.json")), reason="no results are committed")
def test_committed_page_equals_the_rendered_results() -> None:
    assert (report.DOCS / "benchmarks.md").read_text(encoding="utf-8") == report.render(RESULTS)
    readme = report.README.read_text(encoding="utf-8")
    assert readme == report.with_speed(readme, RESULTS)
