"""Scores of answers, the difference of two models and the board of what was wrong, by hand."""

from __future__ import annotations

import json
import re
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from PIL import Image

from fashion_retrieval._utils.significance import randomization_p
from fashion_retrieval.errors import InputError
from fashion_retrieval.results import Evaluation
from fashion_retrieval.results.evaluation import Answer, GroupScores
from tests.support.painted import check_apart, record_painted

# label, said, probability: 5 of 8 right
ROWS = [
    ("tee", "tee", 0.95),
    ("tee", "tee", 0.95),
    ("tee", "tee", 0.95),
    ("tee", "polo", 0.97),
    ("polo", "polo", 0.55),
    ("polo", "tee", 0.51),
    ("polo", "dress", 0.52),
    ("dress", "dress", 0.35),
]


def answers(rows: list[Any] = ROWS, group: str = "category") -> list[Answer]:
    return [
        Answer(place, f"{place}.jpg", group, label, said, probability, 0.1)
        for place, (label, said, probability) in enumerate(rows)
    ]


def evaluation(rows: list[Any] = ROWS, name: str = "mine", group: str = "category", **more: Any) -> Evaluation:
    found = answers(rows, group)
    return Evaluation(name, {group: GroupScores.of(found)}, tuple(found), **more)


def test_scores_of_a_group_by_hand() -> None:
    scores = GroupScores.of(answers())
    assert (scores.photos, scores.accuracy) == (8, 5 / 8)
    assert scores.accuracy_interval == pytest.approx((0.306, 0.863), abs=0.001)  # Wilson's, of 5 in 8
    assert scores.macro_f1 == pytest.approx((3 / 4 + 2 / 5 + 2 / 3) / 3)
    # Bins of 0.3, 0.5 and 0.9: said 0.35, 0.527 and 0.955; right 1, 1/3 and 3/4.
    assert scores.calibration_error == pytest.approx((0.65 + 3 * abs(1.58 / 3 - 1 / 3) + 4 * (0.955 - 0.75)) / 8)
    assert [(one.photos, one.accuracy) for one in scores.reliability] == [(1, 1.0), (3, 1 / 3), (4, 0.75)]
    assert [one.probability for one in scores.reliability] == pytest.approx([0.35, 1.58 / 3, 0.955])
    found = {name: (one.photos, one.recall, one.precision) for name, one in scores.values.items()}
    assert found == {"dress": (1, 1.0, 0.5), "polo": (3, 1 / 3, 0.5), "tee": (4, 0.75, 0.75)}


def test_intervals_hold_what_was_drawn_and_a_calibrated_model_has_a_low_one() -> None:
    generator = np.random.default_rng(0)
    confidence = generator.uniform(0.5, 1, 400)
    rows = [("a", "a" if one > generator.random() else "b", one) for one in confidence]
    scores = GroupScores.of(answers(rows))
    assert scores.calibration_error is not None
    assert scores.calibration_error_interval is not None
    low, high = scores.calibration_error_interval
    assert low <= scores.calibration_error <= high  # of the percentile bootstrap itself both ends are above it
    assert (low < 0.02, high < 0.09) == (True, True)
    assert scores.macro_f1_interval[0] < scores.macro_f1 < scores.macro_f1_interval[1]


def test_a_single_value_and_a_value_that_is_never_said_have_scores() -> None:
    scores = GroupScores.of(answers([("tee", None, 0.0), ("tee", "polo", 1.0)]))
    assert (scores.accuracy, scores.macro_f1, scores.values["tee"].precision) == (0.0, 0.0, None)
    assert GroupScores.of(answers([("tee", "tee", 1.0)])).accuracy_interval == pytest.approx((0.206, 1.0), abs=0.001)


def test_colors_have_no_calibration() -> None:
    found = evaluation(group="color")
    scores = found.groups["color"]
    assert (scores.calibration_error, scores.calibration_error_interval, scores.reliability) == (None, None, ())
    assert str(found).splitlines()[2].endswith("|     |")


def test_compare_is_paired() -> None:
    better = [*ROWS[:3], ("tee", "tee", 0.9), *ROWS[4:]]
    first, other = evaluation(better, "better"), evaluation()
    row, f1, error = first.compare(other).differences
    assert (row.group, row.measure, row.first, row.other) == ("category", "accuracy", 0.75, 0.625)
    assert row.difference == 0.125
    assert row.interval == pytest.approx((0.0, 0.375))
    assert row.p == randomization_p(np.array([0, 0, 0, 1.0, 0, 0, 0, 0]))
    assert f1.difference == pytest.approx(first.groups["category"].macro_f1 - other.groups["category"].macro_f1)
    assert f1.interval[0] <= f1.difference <= f1.interval[1]
    assert (f1.p, error.measure, error.p) == (None, "calibration_error", None)
    same = other.compare(other)
    assert {(one.difference, one.interval) for one in same.differences} == {(0.0, (0.0, 0.0))}
    back = other.compare(first).differences[0]
    assert (back.difference, back.interval) == (-0.125, (-0.375, 0.0))
    lines = str(first.compare(other)).splitlines()
    assert lines[0].startswith("| better against mine ")
    assert lines[2].startswith("| category, accuracy  | 0.750  | 0.625 | +0.125 [+0.000, +0.375] | 1.000 |")


def test_compare_of_other_photos_or_groups_is_refused() -> None:
    first = evaluation()
    with pytest.raises(InputError, match="on the same photos alone, got 8 and 7 labeled photos of category"):
        first.compare(evaluation(ROWS[:7]))
    moved = evaluation()
    renamed = tuple(replace(answer, source="other.jpg") for answer in moved.answers)
    with pytest.raises(InputError, match="or other labels; evaluate both on the same photos and labels"):
        first.compare(evaluation([("polo", "tee", 0.95), *ROWS[1:]]))
    with pytest.raises(InputError, match="evaluate both on the same photos and labels"):
        first.compare(replace(moved, answers=renamed))
    with pytest.raises(InputError, match="on the same groups alone, got category and color; evaluate both on one"):
        first.compare(evaluation(group="color"))


def test_an_evaluation_is_a_table_and_json() -> None:
    found = evaluation(_photos={0: ("a.jpg", None)})
    heading, rule, row = str(found).splitlines()
    assert [cell.strip() for cell in heading.strip("|").split("|")] == ["mine", "photos", "accuracy", "macro-F1", "ECE"]
    assert set(rule) == {"|", " ", "-"}
    assert row.startswith("| category | 8      | 0.625 [0.306, 0.863] | 0.606 [")
    told = json.loads(json.dumps(found.to_dict()))
    assert set(told) == {"model_id", "groups", "answers", "failures"}
    assert told["groups"]["category"]["values"]["polo"] == {"photos": 3, "recall": 0.333333, "precision": 0.5}
    assert told["answers"][3] == {
        "index": 3, "source": "3.jpg", "group": "category", "label": "tee", "said": "polo", "probability": 0.97,
        "label_probability": 0.1,
    }  # fmt: skip


def test_worst_answers_are_the_surest_wrong_ones() -> None:
    found = evaluation()
    assert [answer.index for answer in found.worst()] == [3, 6, 5]
    assert [answer.index for answer in found.worst(1, group="category")] == [3]
    with pytest.raises(InputError, match="group must be one of category, got 'sleeve'"):
        found.worst(group="sleeve")


def test_the_board_shows_photo_label_and_what_was_said(monkeypatch: pytest.MonkeyPatch) -> None:
    halves = np.zeros((40, 30, 3), np.uint8)
    halves[:, 15:] = 255, 0, 0
    found = evaluation(_photos={3: (halves, (15, 0, 30, 40)), 6: ("gone.jpg", None)})
    painted = record_painted(monkeypatch)
    board = found.draw(2)
    words = check_apart(painted, board.size)
    assert words[0] == "Where mine is most surely wrong"
    assert {"polo, labeled tee", "0.97", "3.jpg", "dress, labeled polo", "0.52"} <= set(words)
    assert "2 of 3 wrong answers, of 8 in all." in " ".join(words)
    assert ((np.asarray(board) == (255, 0, 0)).all(-1)).sum() > 20_000
    assert not (np.asarray(board) == 0).all(-1).any()  # the part outside the box
    page = found.to_html()
    assert re.findall(r'<p dir="auto">([a-z]+, labeled [a-z]+)</p>', page) == [
        "polo, labeled tee", "dress, labeled polo", "tee, labeled polo"]  # fmt: skip
    assert "photo not found" in page


def test_a_board_without_mistakes_says_so() -> None:
    found = evaluation([("tee", "tee", 1.0)])
    assert "0 of 0 wrong answers, of 1 in all" in found.to_html()
    assert isinstance(found.draw(), Image.Image)
