"""Names and photos: recalls by hand, shared names, and the command."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from fashion_retrieval.errors import ConfigError
from tests.support.drawn_pack import write_lines
from tests.support.fashioniq_tree import directions, draw
from tests.support.tiny import tiny_folder
from training import evaluate
from training.evaluation.retrieval import evaluate_retrieval, rank_labels

NAMES = ["boots", "shirt", "boots", "scarf", "dress"]
AT = {"boots": -1.0, "shirt": 3.0, "scarf": 17.0, "dress": 12.2}
"""Where names point, in degrees; photo n points at 4 n."""


class Table:
    """Photos by the number in their name, names by `AT`."""

    def encode(self, *, images: list[Path] | None = None, texts: list[str] | None = None, progress: bool) -> np.ndarray:
        if images is not None:
            return directions([4.0 * int(path.stem) for path in images])
        return directions([AT[text] for text in texts or []])


def write_products(root: Path) -> Path:
    rows = [{"id": f"{n:02}", "split": "val", "name": name} for n, name in enumerate(NAMES)]
    write_lines(root / "products.jsonl", [*rows, {"id": "77", "split": "train", "name": "belt"}])
    for row in rows:
        draw(root / f"products/val/{row['id']}.jpg")
    return root


def test_evaluate_retrieval_by_hand(tmp_path: Path) -> None:
    figures = evaluate_retrieval(Table(), write_products(tmp_path), "val")
    # Photos at 0 4 8 12 16. "boots" at -1 finds its 00 first, asked for 00 as for 02; "shirt" at 3 finds 01; "scarf" at
    # 17 finds 04, then its 03; "dress" at 12.2 finds 03, then its 04 at 3.8, before 02 at 4.2.
    to_image = figures["text_to_image"]
    assert to_image["ranks"] == [1, 1, 1, 2, 2]
    assert (to_image["queries"], to_image["gallery"]) == (5, 5)
    # Names at -1 3 12.2 17. Photo 02 at 8 sees dress at 4.2, shirt at 5, then its boots at 9, scarf at 9.
    to_text = figures["image_to_text"]
    assert to_text["ranks"][0] == 1
    assert to_text["ranks"][1] == 1
    assert to_text["ranks"][3:] == [2, 2]  # 12 is nearest dress, then scarf; 16 nearest scarf, then dress
    assert to_text["ranks"][2] in (3, 4)  # boots and scarf are both 9 degrees away
    assert (to_text["queries"], to_text["gallery"]) == (5, 4)
    assert (figures["products"], figures["names"], figures["ids"]) == (5, 4, ["00", "01", "02", "03", "04"])
    assert to_image["recall_at_3"] == to_image["recall_at_50"] == 1
    assert to_image["recall_at_3_interval"] == [1, 1]


def test_rank_labels_takes_the_best_row_of_the_label() -> None:
    gallery = np.array([[1, 0.0], [0.8, 0.6], [0.6, 0.8], [0.6, 0.8]], dtype=np.float32)
    query = np.array([[1, 0.0]], dtype=np.float32)
    for labels, rank in (([1, 2, 7, 7], 3), ([1, 7, 7, 2], 2), ([7, 7, 7, 7], 1), ([2, 1, 1, 7], 4)):
        assert rank_labels(query, gallery, np.array([7]), np.array(labels)).tolist() == [rank]


def test_faults_come_at_once(tmp_path: Path) -> None:
    root = write_products(tmp_path)
    with pytest.raises(ConfigError, match="no rows of split 'test'; it has train, val"):
        evaluate_retrieval(Table(), root, "test")
    (root / "products/val/01.jpg").write_text("gone")
    (root / "products/val/03.jpg").unlink()
    write_lines(root / "products.jsonl", [{"id": f"{n:02}", "split": "val", "name": " " * n} for n in range(5)])
    with pytest.raises(
        ConfigError, match=r"5 of 5 products have no name: 00, .*; 2 of 5 .* can be read: 01\.jpg, 03\.jpg"
    ):
        evaluate_retrieval(Table(), root, "val")
    with pytest.raises(ConfigError, match=r"products\.jsonl is missing"):
        evaluate_retrieval(Table(), root / "nowhere", "val")


def test_retrieval_command_runs_a_real_model(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    root = write_products(tmp_path)
    monkeypatch.setattr(evaluate, "RESULTS", tmp_path)
    with pytest.raises(SystemExit) as left:
        evaluate.run(["retrieval", "--model", str(tiny_folder(tmp_path / "tiny")), "--data", str(root)])
    assert left.value.code == 0
    figures = json.loads((tmp_path / "retrieval_tiny_val.json").read_text())
    ranks = figures["retrieval"]["text_to_image"]["ranks"]
    assert len(ranks) == 5
    assert all(1 <= rank <= 5 for rank in ranks)
    assert figures["retrieval"]["text_to_image"]["recall_at_3"] == np.mean([rank <= 3 for rank in ranks])
    assert f"text to image  R@3 {100 * np.mean([rank <= 3 for rank in ranks]):5.2f}" in capsys.readouterr().out
    assert (figures["split"], figures["seed"], len(figures["sha256"])) == ("val", 0, 1)
