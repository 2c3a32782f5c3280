"""The page on reproducing the paper is what the files give."""

from __future__ import annotations

import json
import re
import shutil
from pathlib import Path

import pytest
import typer
from typer.testing import CliRunner

from fashion_retrieval.errors import ConfigError
from tests.support.paths import ROOT
from training import reproduce
from training.evaluation.paper import read_paper
from training.evaluation.results_file import RESULTS

app = typer.Typer()
app.command()(reproduce.main)


def test_reproduce_gives_the_committed_page() -> None:
    assert reproduce.PAGE.read_text(encoding="utf-8") == reproduce.reproduce(), "run `python -m training.reproduce`"


def test_reproduce_shows_every_figure_of_the_paper() -> None:
    page = reproduce.reproduce()
    paper = read_paper()
    for key in reproduce.MEASURED:
        for row, figures in paper[key]["rows"].items():
            numbers = [f"{f:.2f}" if paper[key]["unit"] == "percent" else f"{f:.4f}" for f in figures]
            assert f"| {row}, in the paper | {' | '.join(numbers)} |" in page


def test_reproduce_shows_the_measured_results() -> None:
    page = reproduce.reproduce()
    recognition = json.loads((RESULTS / "compact_val.json").read_text())["recognition"]
    mean = recognition["deepfashion"]["all"]["mean_precision"]
    low, high = recognition["deepfashion"]["all"]["mean_precision_interval"]
    assert f"| {mean:.4f}<br>{low:.4f} to {high:.4f} |" in page
    assert (
        f"| **compact, whole photo** |  |  |  |  |  |  | {recognition['views_on_street']['whole_photo']:.4f} |" in page
    )
    names = json.loads((RESULTS / "retrieval_val.json").read_text())["retrieval"]["text_to_image"]
    assert f"| **compact** | {100 * names['recall_at_3']:.2f}<br>" in page


def test_reproduce_names_commands_that_exist() -> None:
    for block in re.findall(r"```bash\n(.*?)```", reproduce.reproduce(), re.DOTALL):
        for line in block.splitlines():
            if line.startswith("hf download "):
                continue
            assert line.startswith("python -m training.")
            module = ROOT / line.split()[2].replace(".", "/")
            assert module.with_suffix(".py").is_file() or (module / "__main__.py").is_file(), line
            for config in re.findall(r"training/configs/\S+\.toml", line):
                assert (ROOT / config).is_file(), line


@pytest.fixture
def results(tmp_path: Path) -> Path:
    folder = tmp_path / "results"
    folder.mkdir()
    for name in ("compact_val", "retrieval_val", "composed_val", "compare_composers", "ablation"):
        shutil.copy(RESULTS / f"{name}.json", folder)
    return folder


def test_reproduce_shows_proofs_that_exist(results: Path) -> None:
    plain = reproduce.reproduce(results)
    assert "Memory of the paper's recipe" not in plain
    rows = [{"batch": 2, "bytes": 1234567}, {"batch": 256, "bytes": 99, "fits": True}]
    found = {"device": "a card", "step": {"loss_at": 5.25, "steps": 1000}, "batches": rows, "losses": [5.5, 5.25]}
    (results / "memory_vit_b_32.json").write_text(json.dumps(found))
    page = reproduce.reproduce(results)
    assert page.startswith(plain.rstrip())
    assert (
        page.removeprefix(plain.rstrip())
        == """

## Memory of the paper's recipe

Gigabytes at the paper's batch, computed from small batches on the CPU and checked against larger ones, by \
release 0.1. On a GPU each training logs what it really took.

|  |  |
| --- | --- |
| device | a card |
| step / loss at | 5.25 |
| step / steps | 1,000 |

batches:

| batch | bytes | fits |
| --- | --- | --- |
| 2 | 1,234,567 |  |
| 256 | 99 | yes |

losses: 5.5, 5.25
"""
    )


def test_reproduce_with_faults_says_one_line(results: Path, tmp_path: Path) -> None:
    (results / "ablation.json").unlink()
    with pytest.raises(ConfigError, match=r"ablation\.json is missing"):
        reproduce.reproduce(results)
    (results / "compact_val.json").write_text('{"recognition": {}}')
    with pytest.raises(ConfigError, match="table_1 lacks 'deepfashion'; measure again"):
        reproduce.reproduce(results)
    texts = tmp_path / "texts.toml"
    texts.write_text("[table_1]\nname = 1\n")
    with pytest.raises(ConfigError, match="table_1"):
        reproduce.reproduce(results, texts)


def test_reproduce_command_writes_the_page(tmp_path: Path) -> None:
    page = tmp_path / "page.md"
    assert CliRunner().invoke(app, ["--output", str(page)]).exit_code == 0
    assert page.read_text(encoding="utf-8") == reproduce.reproduce()
    assert CliRunner().invoke(app, ["--output", str(page / "below.md")]).exit_code == 1
