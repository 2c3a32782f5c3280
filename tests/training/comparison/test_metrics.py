"""Metrics over seeds and queries, their intervals and differences, by hand."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from training.comparison import metrics
from training.comparison.metrics import difference, summarize


def hand_runs() -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
    """Two seeds that answer alike, and one seed that finds nothing."""
    ranks = {"a": [1, 20, 60, 5], "b": [11, 9]}
    wrong = [{"a": [11] * 4, "b": [11, 9]}, {"a": [60] * 4, "b": [60, 9]}]
    ours = {"parameters": 7, "ranks": {"p": ranks}, "wrong_photo": {"p": wrong}, "edits": [1.0, 0.5, 0.0]}
    nothing = {"a": [60] * 4, "b": [60, 60]}
    theirs = ours | {"ranks": {"p": nothing}, "wrong_photo": {"p": [nothing] * 2}, "edits": [0.5, 0.25, 0.0]}
    return [ours | {"seed": seed} for seed in range(2)], [theirs | {"seed": 0}]


def test_figures_and_a_paired_difference_by_hand() -> None:
    first, second = hand_runs()
    found = summarize(first)["protocols"]["p"]
    assert found["groups"]["a"]["recall_at_10"] == 0.5
    assert found["groups"]["b"]["recall_at_50"] == 1.0
    assert found["average"]["recall_at_10"] == 0.5
    assert found["average"]["recall_at_50"] == 0.875
    assert found["average"]["seeds"] == [[0.5, 0.875], [0.5, 0.875]]
    assert found["average"]["spread"] == [0.0, 0.0]
    apart = [first[0], {**second[0], "seed": 1}]
    assert summarize(apart)["protocols"]["p"]["average"]["spread"] == pytest.approx([0.5 / 2**0.5, 0.875 / 2**0.5])
    assert summarize(second)["protocols"]["p"]["average"]["spread"] is None
    low, high = found["average"]["recall_at_10_interval"]
    assert 0 <= low < 0.5 < high <= 1
    ahead = difference(first, second)
    assert (ahead["p"]["mean"], ahead["p"]["recall_at_10"], ahead["p"]["recall_at_50"]) == (0.6875, 0.5, 0.875)
    assert 0 < ahead["p"]["interval"][0] < 0.6875 < ahead["p"]["interval"][1] <= 1
    assert ahead["edits"]["map_at_10"] == ahead["edits"]["mean"] == 0.25
    assert difference(first, first)["p"]["recall_at_10_interval"] == [0.0, 0.0]


def test_the_photos_worth_and_edits_by_hand() -> None:
    """With wrong photos R@10 is 0 and 1/2 by group, and R@50 1/2 and 3/4, each the mean of two draws."""
    runs = hand_runs()[0]
    found = summarize(runs)
    worth = found["protocols"]["p"]["photos_worth"]
    assert worth["recall_at_10"] == (0.5 + 0.0) / 2
    assert worth["recall_at_50"] == (0.75 - 0.5 + 1.0 - 0.75) / 2
    assert worth["recall_at_10_interval"][0] < 0.25 < worth["recall_at_10_interval"][1]
    assert (found["edits"]["map_at_10"], found["edits"]["seeds"], found["edits"]["spread"]) == (0.5, [[0.5]] * 2, [0.0])
    low, high = found["edits"]["map_at_10_interval"]
    assert 0 <= low < 0.5 < high <= 1
    assert summarize([{key: value for key, value in runs[0].items() if key != "edits"}])["edits"] is None


def test_an_interval_is_that_of_drawing_by_hand() -> None:
    """Of one seed and one group the bootstrap of a mean: about 1.96 standard errors on both sides."""
    hits = [(np.arange(400) % 4 == 0).astype(float)[None]]
    low, high = metrics._interval(hits)
    error = (0.25 * 0.75 / 400) ** 0.5
    assert [low, high] == pytest.approx([0.25 - 1.96 * error, 0.25 + 1.96 * error], abs=0.006)
    assert metrics._interval(hits, [hits[0][:, ::-1]])[0] < 0 < metrics._interval(hits, [hits[0][:, ::-1]])[1]
    assert metrics._interval(hits, [hits[0] / 2])[0] > 0
