"""What a seed's folds took together."""

from __future__ import annotations

import pytest

from evaluation.report.facts import Cost
from evaluation.seed_run import summed


def test_folds_are_summed_and_what_an_event_takes_is_their_mean() -> None:
    first = Cost.of("session", 0, "tidegate+labels", 10, 2.0, 30.0, [1.0, 3.0])
    second = Cost.of("session", 0, "tidegate+labels", 5, 1.0, None, [4.0, 4.0])
    both = summed([first, second])
    assert both is not None
    assert (both.events, both.seconds, both.fit_seconds) == (15, 3.0, 30.0)
    # Medians 2 and 4; of two values the 99th percentile lies 0.02 below the larger, by linear interpolation.
    assert both.latency_p50_ms == 3.0
    assert both.latency_p99_ms == pytest.approx((2.98 + 4.0) / 2)


def test_without_single_events_nothing_is_said_of_them() -> None:
    alone = Cost.of("session", 0, "length", 0, 0.0, None, [])
    assert (alone.latency_p50_ms, alone.latency_p99_ms) == (None, None)
    assert summed([alone]) == alone
    assert summed([]) is None
