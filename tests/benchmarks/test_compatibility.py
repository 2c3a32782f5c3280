"""benchmarks/: the walk over open_clip's architectures, and its page."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from benchmarks import compatibility, loading
from benchmarks.compatibility import Step
from benchmarks.compatibility_report import render
from tests.support.open_clip_families import family_folder, shrink_trunks, small


@pytest.fixture(autouse=True)
def _small(monkeypatch: pytest.MonkeyPatch) -> None:
    shrink_trunks(monkeypatch)
    monkeypatch.setattr(compatibility, "get_model_config", small)


def test_the_page_is_made_of_the_committed_results() -> None:
    results = json.loads(compatibility.RESULTS.read_text(encoding="utf-8"))
    assert compatibility.PAGE.read_text(encoding="utf-8") == render(results)
    rows = results["rows"]
    assert len(rows) == 144
    assert all("tensors" in row["shapes"] for row in rows.values())
    assert {
        name for name, row in rows.items() if row["shapes"]["parameters"] > compatibility.LIMIT and "encode" in row
    } == set()


def test_an_architecture_is_written_loaded_and_compared(tmp_path: Path) -> None:
    row = compatibility.child(Step.ENCODE, "roberta-ViT-B-32", tmp_path)
    assert (row["embedding_dim"], row["garments"]) == (32, 1)
    assert min(row["image_cosine"], row["text_cosine"]) >= 0.99999 > max(row["image_others"], row["text_others"])


def test_tensors_of_an_architecture_are_open_clips(tmp_path: Path) -> None:
    row = compatibility.child(Step.SHAPES, "coca_ViT-B-32", tmp_path)
    assert row["tensors"] > 50
    assert row["parameters"] < 5_000_000


def test_what_is_refused_is_a_row(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def odd(name: str) -> dict[str, Any]:
        config = small(name)
        config["vision_cfg"]["global_average_pool"] = True
        return config

    monkeypatch.setattr(compatibility, "get_model_config", odd)
    row = compatibility.child(Step.SHAPES, "ViT-B-32", tmp_path)
    assert "global_average_pool" in str(row)
    assert row.keys() in ({"refused"}, {"failed"})


def test_a_walk_goes_on_where_it_stopped(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(compatibility.open_clip, "list_models", lambda: ["b", "a", "c"])
    done: list[str] = []
    monkeypatch.setitem(
        compatibility.DO, Step.SHAPES, lambda name, folder: done.append(name) or {"parameters": len(done)}
    )
    assert [json.loads(line)["name"] for line in compatibility.walk(Step.SHAPES, tmp_path, largest_first=False)] == [
        "a",
        "b",
        "c",
    ]
    log = tmp_path / "shapes.jsonl"
    log.write_text("".join(log.read_text(encoding="utf-8").splitlines(keepends=True)[:2]), encoding="utf-8")
    assert len(list(compatibility.walk(Step.SHAPES, tmp_path, largest_first=True))) == 1
    assert done == ["a", "b", "c", "c"]
    assert compatibility.lines(log)["c"] == {"parameters": 4}
    assert [path.name for path in tmp_path.iterdir()] == ["shapes.jsonl"]


def test_a_page_says_what_was_not_run_and_what_is_refused() -> None:
    row = {"image_cosine": 1.0, "text_cosine": 0.999991, "garments": 1}
    rows = {
        "one": {"shapes": {"parameters": 2_000_000, "tensors": 3}, "encode": row, "onnx": row},
        "two": {"shapes": {"parameters": 3_000_000, "tensors": 3}, "encode": {"refused": "UnsupportedError: why"}},
        "three": {"shapes": {"parameters": 4_000_000, "tensors": 3}},
        "four": {"shapes": {"parameters": 9_000_000, "tensors": 3}},
    }
    where = {"versions": {"torch": "1"}, "date": "today", "processor": "one", "python": "3"}
    page = render({"rows": rows, "limit": 5_000_000, "machine": where})
    assert "| one | 2 | yes | 1.0000000 | 0.9999910 | 1 | 0.9999910 |" in page
    assert "| two | 3 | no |  |  |  |  |" in page
    assert "| three | 4 |  |  |  |  |  |" in page
    assert "- two, encode: UnsupportedError: why" in page
    assert "3 of open_clip's 4 architectures" in page
    assert "2 were run: 1 load and agree" in page
    assert "They are open_clip's in 1: four." in page


def test_loads_are_timed_with_their_peak(tmp_path: Path) -> None:
    family_folder(tmp_path, small("ViT-B-32"))
    measured = loading.load(loading.PROGRAMS[loading.OURS], tmp_path)
    assert 0 < measured["seconds"] < measured["first_seconds"]
    assert 0 < measured["peak"] <= measured["first_peak"]


def test_agreement_is_the_least_of_all() -> None:
    one, other = np.float32([[1, 0], [0, 1]]), np.float32([[0.6, 0.8], [0, 1]])
    found = compatibility.agreement([one, other], [one, one])
    expected = {"image_cosine": 1.0, "image_others": 0.0, "text_cosine": 0.6, "text_others": 0.0}
    assert found == pytest.approx(expected, abs=1e-6)
