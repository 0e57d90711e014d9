"""Intervals: against closed formulas, and by how often they hold the truth."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import stats

from evaluation.bootstrap import Draws, median_interval, percentile_interval, share_interval
from evaluation.measures import Ranked, Reference, share_of


def test_the_first_column_is_the_data_and_the_others_draw_as_many_as_there_are() -> None:
    draws = Draws.make(40, 5, 200, "paired")
    assert (draws.clusters[:, 0] == 1).all() and (draws.seeds[:, 0] == 1).all()
    assert (draws.clusters.sum(axis=0) == 40).all() and (draws.seeds.sum(axis=0) == 5).all()
    # With replacement: a replicate misses a cluster with probability (39/40)^40 = 0.363.
    assert (draws.clusters[:, 1:] == 0).mean() == pytest.approx(0.363, abs=0.02)


def test_one_name_gives_one_result_and_another_name_another() -> None:
    first, again, other = (Draws.make(9, 2, 20, name).clusters for name in ("paired", "paired", "splice"))
    assert (first == again).all()
    assert (first != other).any()


def test_the_mean_over_seeds_is_of_those_that_were_drawn_and_are_known() -> None:
    draws = Draws(np.ones((1, 3), np.float32), np.array([[1, 2, 0], [1, 0, 2]], np.float32))
    values = np.array([[0.2, 0.3, 0.4], [0.6, 0.7, np.nan]])
    assert draws.over_seeds(values) == pytest.approx([0.4, 0.3, np.nan], nan_ok=True)


def test_percentiles_leave_out_the_data_and_are_none_where_most_replicates_know_nothing() -> None:
    values = np.r_[99.0, np.arange(1001.0)]
    assert percentile_interval(values) == pytest.approx((25.0, 975.0))
    values[2:] = np.nan
    assert percentile_interval(values) is None
    assert percentile_interval(np.array([1.0])) is None


def test_of_independent_sessions_the_share_has_clopper_and_pearsons_interval() -> None:
    # Replicates of a binomial share vary by p (1 - p) / n: then the sessions are worth what they are.
    share, n = 0.05, 400
    replicates = share + np.sqrt(share * (1 - share) / n) * np.tile([-1.0, 1.0], 50)
    low, high = share_interval(np.r_[share, replicates], n, n) or (0, 0)
    expected = stats.binomtest(20, 400).proportion_ci(0.95, "exact")
    assert (low, high) == pytest.approx((expected.low, expected.high), rel=1e-6)


def test_a_share_of_nothing_or_all_is_as_good_as_its_clusters() -> None:
    none, every = np.zeros(101), np.ones(101)
    # 1 - 0.025^(1/20), the exact upper end of none among twenty.
    assert share_interval(none, 400, 20) == pytest.approx((0.0, 0.168433), rel=1e-4)
    assert share_interval(every, 400, 20) == pytest.approx((0.831567, 1.0), rel=1e-4)
    assert share_interval(none, 400, 1) is None


def test_sessions_are_worth_no_more_than_their_number() -> None:
    low, high = share_interval(np.r_[0.5, 0.5 + 1e-6 * np.tile([-1.0, 1.0], 50)], 10, 5) or (0, 0)
    expected = stats.binomtest(5, 10).proportion_ci(0.95, "exact")
    assert (low, high) == pytest.approx((expected.low, expected.high), rel=1e-6)


@pytest.mark.parametrize("n", [6, 11, 40])
def test_order_statistics_hold_the_median_at_least_as_often_as_they_say(n: int) -> None:
    interval = median_interval(np.arange(1.0, n + 1))
    assert interval is not None
    # The chance that at most so many of n fall below the median, on either side.
    assert 2 * stats.binom.cdf(interval[0] - 1, n, 0.5) <= 0.05
    assert median_interval(np.arange(5.0)) is None


def test_intervals_of_clustered_sessions_over_seeds_hold_the_truth() -> None:
    """Tasks have heights of their own, and seeds split the same tasks: five seeds are not five corpora."""
    random = np.random.default_rng(1)
    tasks, seeds, runs, limit = 60, 4, 100, 2.0
    held = {"auroc": 0, "rate": 0}
    # Of a difference of normals with variances 0.5 + 0.5 each, and of a normal's tail.
    truth = {"auroc": stats.norm.cdf(1.5 / np.sqrt(2)), "rate": stats.norm.sf(limit)}
    for run in range(runs):
        height = random.normal(0, np.sqrt(0.5), (tasks, 1))
        benign = height + random.normal(0, np.sqrt(0.5), (tasks, 3))
        attacks = 1.5 + random.normal(0, np.sqrt(0.5), (tasks, 1)) + random.normal(0, np.sqrt(0.5), (tasks, 3))
        draws = Draws.make(tasks, seeds, 150, f"run {run}")
        auroc, rate = np.empty((seeds, 151)), np.empty((seeds, 151))
        for seed in range(seeds):
            half = random.permutation(tasks)[: tasks // 2]
            weights = np.repeat(draws.clusters[half], 3, axis=0)
            reference = Reference(benign[half].ravel(), weights)
            auroc[seed] = Ranked.of(attacks[half].ravel(), weights, reference).auroc()
            rate[seed] = share_of(benign[half].ravel() > limit, weights)
        for name, interval in (
            ("auroc", percentile_interval(draws.over_seeds(auroc))),
            ("rate", share_interval(draws.over_seeds(rate), 3 * tasks, tasks)),
        ):
            assert interval is not None
            held[name] += interval[0] <= truth[name] <= interval[1]
    # 95 of 100, less three deviations of 2.2.
    assert held["auroc"] >= 88
    assert held["rate"] >= 88
