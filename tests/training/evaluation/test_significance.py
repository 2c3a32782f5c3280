"""Figures of items: by hand, and against scipy where it has the test."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import stats

from fashion_retrieval._utils.significance import ItemScores, randomization_p
from fashion_retrieval.errors import InputError
from training.evaluation.attribute_groups import precision_scores
from training.evaluation.significance import compare_with_first

CHANCE = 1 / 10_001


def test_item_scores_mean_is_unweighted_over_groups() -> None:
    groups = ItemScores.of_groups([np.array([1, 0, 1, 0]), np.array([True]), np.array([0.5, 0.0])])
    assert groups.mean() == pytest.approx((0.5 + 1 + 0.25) / 3)
    assert groups.strata == (4, 1, 2)
    labels = precision_scores({"texture": "10-", "sleeve": "--1", "fit": "---"})
    assert labels.mean() == pytest.approx((1 / 2 + 1) / 2)  # nothing is labeled with a fit
    assert labels.values.shape == (3, 2)
    assert precision_scores({"texture": "1-0", "fit": "--1"}).values.shape == (2, 2)  # the second says nothing
    assert labels.mean(np.array([0, 0])) == 1  # no sleeve was drawn


def test_item_scores_interval_draws_garments_with_all_their_labels() -> None:
    same = precision_scores({"texture": "1100" * 25, "fit": "1100" * 25})
    apart = precision_scores({"texture": "1100" * 25, "fit": "0011" * 25})
    low, high = same.interval()
    margin = 1.96 * 0.5 / 10
    assert [low, high] == pytest.approx([0.5 - margin, 0.5 + margin], abs=0.02)
    assert apart.interval() == [0.5, 0.5]  # each garment has one right and one wrong
    assert same.interval(seed=1) != [low, high] == same.interval()


def test_item_scores_interval_draws_queries_within_their_group() -> None:
    large, small = np.ones(90), np.zeros(10)
    assert ItemScores.of_groups([large, small]).interval() == [0.5, 0.5]
    values = np.random.default_rng(3).random(300)
    found = stats.bootstrap((values,), np.mean, n_resamples=1000, method="percentile", rng=np.random.default_rng(0))
    interval = found.confidence_interval
    assert ItemScores.of_groups([values]).interval() == pytest.approx([interval.low, interval.high], abs=0.005)


def test_randomization_p_by_hand() -> None:
    # Of the 8 choices of signs two give a sum of 3 or -3; of 16, 2 * (1 + 4) reach 2.
    assert randomization_p(np.ones(3)) == pytest.approx(2 / 8, abs=0.02)
    assert randomization_p(np.array([1.0, 1, 1, -1])) == pytest.approx(10 / 16, abs=0.02)
    assert randomization_p(np.array([1.0, 0, 0, -1])) == 1
    assert randomization_p(np.zeros(5)) == 1
    assert randomization_p(np.ones(60)) == pytest.approx(CHANCE)
    assert randomization_p(np.array([1.0, 1, 1, -1]), seed=1) != randomization_p(np.array([1.0, 1, 1, -1]))


@pytest.mark.parametrize(("ahead", "behind"), [(8, 2), (14, 4), (30, 22)])
def test_compare_of_hits_gives_mcnemars_p(ahead: int, behind: int) -> None:
    first = np.concatenate([np.ones(ahead), np.zeros(behind), np.ones(40)])
    second = np.concatenate([np.zeros(ahead), np.ones(behind), np.ones(40)])
    found = ItemScores.of_groups([first]).compare(ItemScores.of_groups([second]))
    assert found["difference"] == pytest.approx((ahead - behind) / (ahead + behind + 40))
    assert found["p"] == pytest.approx(stats.binomtest(ahead, ahead + behind).pvalue, abs=0.015)


def test_compare_of_means_gives_scipys_p_and_interval() -> None:
    chance = np.random.default_rng(5)
    first = chance.random(40)
    second = first - 0.05 + 0.2 * chance.normal(size=40)
    wanted = stats.permutation_test(
        (first, second), lambda a, b, axis: (a - b).mean(axis), permutation_type="samples", n_resamples=20_000,
        vectorized=True, rng=np.random.default_rng(0),
    ).pvalue  # fmt: skip
    assert 0.02 < wanted < 0.5
    found = ItemScores.of_groups([first]).compare(ItemScores.of_groups([second]))
    assert found["p"] == pytest.approx(wanted, abs=0.015)
    drawn = stats.bootstrap((first - second,), np.mean, method="percentile", rng=np.random.default_rng(0))
    interval = drawn.confidence_interval
    assert found["interval"] == pytest.approx([interval.low, interval.high], abs=0.006)


def test_compare_weighs_a_small_group_as_a_large_one() -> None:
    first = ItemScores.of_groups([np.zeros(100), np.ones(2)])
    second = ItemScores.of_groups([np.zeros(100), np.zeros(2)])
    found = first.compare(second)
    assert (found["difference"], found["interval"]) == (0.5, [0.5, 0.5])
    assert found["p"] == pytest.approx(0.5, abs=0.02)  # two of the four choices of two signs


def test_compare_of_other_items_is_refused() -> None:
    two, three = (ItemScores.of_groups([np.ones(n)]) for n in (2, 3))
    with pytest.raises(InputError, match=r"same items alone, got \(2, 1\) and \(3, 1\)"):
        two.compare(three)
    with pytest.raises(InputError, match="measure both on the same data"):
        precision_scores({"a": "1-", "b": "11"}).compare(precision_scores({"a": "-1", "b": "11"}))


def test_compare_with_first_compares_each_later_run() -> None:
    runs = {
        "clip": {"right": {"fit": "0000"}},
        "ours": {"right": {"fit": "1110"}},
        "theirs": {"right": {"fit": "0001"}},
    }
    rows = compare_with_first(runs, lambda row: {"mean precision": precision_scores(row["right"])})
    assert [(row["first"], row["other"], row["difference"]) for row in rows] == [
        ("clip", "ours", 0.75), ("clip", "theirs", 0.25)
    ]  # fmt: skip
    assert rows[0]["p"] == pytest.approx(0.25, abs=0.02)
    assert rows[1]["p"] == 1
    assert compare_with_first({"clip": runs["clip"]}, lambda row: {}) == []
