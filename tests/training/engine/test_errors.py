"""Errors of the input, of every recipe: one line, exit status 1; under torchrun told once."""

from __future__ import annotations

import json
import runpy
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from fashion_retrieval.errors import ConfigError
from training import distill_text, fit_colors, pseudo_label, report, train_segmenter, train_words
from training.engine import errors
from training.engine.errors import one_line_errors

RECIPES = [distill_text.main, pseudo_label.main, train_segmenter.main, train_words.main]


@pytest.mark.parametrize("main", RECIPES, ids=lambda main: main.__module__)
def test_a_recipe_with_faults(main: Callable[[Path], None], tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    config = tmp_path / "recipe.toml"
    config.write_text("wrong = 1\ndata = 2\n")
    for path, wanted in (
        (config, "unknown keys wrong"),
        (config, "'data' must be"),
        (tmp_path, "Is a directory"),
    ):
        with pytest.raises(SystemExit, match="1"):
            main(path)
        told = capsys.readouterr().err
        assert told.startswith("error: ")
        assert wanted in told
        assert told.count("\n") == 1
    assert [*tmp_path.iterdir()] == [config]


def test_report_and_fit_colors_without_their_files_exit_with_one_line(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit, match="1"):
        report.main(tmp_path / "figures.json")
    assert capsys.readouterr().err == f"error: {tmp_path}/figures.json is missing\n"
    with pytest.raises(SystemExit, match="1"):
        fit_colors.main(tmp_path, tmp_path / "cache.npz")
    told = capsys.readouterr().err
    assert told.startswith("error: ")
    assert str(tmp_path / "street.jsonl") in told
    assert told.count("\n") == 1


def test_the_leading_process_tells_and_torchrun_quotes_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    waited: list[float] = []
    monkeypatch.setattr(errors.time, "sleep", waited.append)
    monkeypatch.setenv("TORCHELASTIC_ERROR_FILE", str(tmp_path / "error.json"))
    for rank, line in ((0, "lr must be above 0"), (1, "process 1: lr must be above 0")):
        monkeypatch.setenv("RANK", str(rank))
        with pytest.raises(SystemExit, match="1"), one_line_errors():
            raise ConfigError("lr must be above 0")
        assert waited == [errors._GRACE] * rank
        assert capsys.readouterr().err == f"error: {line}\n"
        assert json.loads((tmp_path / "error.json").read_text())["message"] == line


def test_other_errors_keep_their_traceback() -> None:
    with pytest.raises(ZeroDivisionError), one_line_errors():
        raise ZeroDivisionError


def test_fit_colours_warns_and_runs_fit_colors(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sys, "argv", ["fit_colours", "--help"])
    monkeypatch.delitem(sys.modules, "training.fit_colors")
    with pytest.warns(DeprecationWarning, match="is now python -m training.fit_colors"), pytest.raises(SystemExit):
        runpy.run_module("training.fit_colours", run_name="__main__")
    assert "--folds" in capsys.readouterr().out
