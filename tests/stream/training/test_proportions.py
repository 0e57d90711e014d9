"""Intervals and tails of shares are those of the literature and of scipy."""

from __future__ import annotations

from fractions import Fraction

import numpy as np
import pytest
from scipy import stats

from stream.training.proportions import at_least, most_by_chance, paired_interval, wilson
from tests.stream.training.binomials import tail


@pytest.mark.parametrize("of", [1, 20, 100, 368])
@pytest.mark.parametrize("share", [Fraction(1, 1000), Fraction(1, 100), Fraction(3, 100), Fraction(1, 2)])
def test_the_most_that_chance_makes_agrees_with_the_binomial_sum(of: int, share: Fraction) -> None:
    chance = Fraction(5, 100)
    expected = max(k for k in range(of + 1) if tail(k, of, share) > chance)
    assert most_by_chance(of, float(share), 0.05) == expected


def test_the_most_that_chance_makes_has_its_ends() -> None:
    assert [most_by_chance(0, 0.1, 0.05), most_by_chance(9, 0.0, 0.05), most_by_chance(9, 1.0, 0.05)] == [0, 0, 9]


def test_wilson_agrees_with_scipy() -> None:
    for hits, of in ((0, 20), (3, 25), (148, 148), (7, 9)):
        expected = stats.binomtest(hits, of).proportion_ci(0.95, "wilson")
        assert wilson(hits, of, 0.05) == pytest.approx((expected.low, expected.high), abs=1e-9)


def test_the_paired_interval_covers_the_true_difference_as_often_as_it_says() -> None:
    rng = np.random.default_rng(1)
    covered = 0
    for _ in range(1_000):
        easy = rng.random(60)
        before, after = easy < 0.8, easy < 0.7
        swapped = rng.random(60) < 0.1
        before, after = np.where(swapped, after, before), np.where(swapped, before, after)
        low, high = paired_interval(before, after, 0.05)
        covered += low <= -0.08 <= high
    assert covered >= 930


def test_equal_judgements_have_no_difference() -> None:
    same = np.arange(50) < 40
    low, high = paired_interval(same, same, 0.05)
    assert low <= 0 <= high
    assert high - low < 0.2


def test_at_least_is_the_binomial_tail() -> None:
    assert at_least(3, 20, 0.1) == pytest.approx(stats.binomtest(3, 20, 0.1, "greater").pvalue)
