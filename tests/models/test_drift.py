"""Drift of a tenant's windows: Page's test as its paper has it, through river, from stored numbers."""

from __future__ import annotations

import numpy as np
import pytest
from numpy.typing import NDArray

from models.drift import DIMENSIONS, GRID, PARTS, UNIT, Drift, Watch, Windows


def windows(drift: Drift, means: NDArray[np.float64], parts: NDArray[np.int64] | None = None) -> Windows:
    """A window (t) each of 32 events whose sizes all have the mean (t,), alike in composition unless it is given."""
    t = len(means)
    counts = np.full((t, len(drift.sizes)), 32)
    sums = np.rint(means[:, None] * 32 * GRID).astype(np.int64) * np.ones_like(counts)
    alike = np.tile(32 * UNIT // 2 * (np.arange(DIMENSIONS) % 2), (t, 1))
    return Windows(counts, sums, np.full((t, len(PARTS)), 32), alike if parts is None else parts)


def fed(drift: Drift, means: list[float], parts: list[NDArray[np.int64]] | None = None) -> list[tuple[int, str]]:
    """Window number and metric of each drift."""
    watch, found = drift.empty(1), []
    for number, mean in enumerate(means):
        own = None if parts is None else parts[number][None]
        drifts = drift.take(watch, windows(drift, np.array([mean]), own))
        found += [(number, drift.metrics[metric]) for metric in drifts.metric.tolist()]
    return found


def noise(seed: int, n: int, mean: float = 5.0) -> list[float]:
    return [mean + 0.3 * x for x in np.random.default_rng(seed).normal(size=n).tolist()]


def page(values: list[float]) -> tuple[float, float]:
    """Page's two sums without slack: of values less the mean so far, over their least and under their highest."""
    total = np.cumsum([0.0, *(value - float(np.mean(values[: n + 1])) for n, value in enumerate(values))])
    return float(total[-1] - total.min()), float(total.max() - total[-1])


def test_statistic_is_that_of_page_on_the_windows_means() -> None:
    drift = Drift([], warmup=0, believed=1e9)
    values = noise(1, 12)
    watch = drift.empty(1)
    for value in values[:-1]:
        drift.take(watch, windows(drift, np.array([value])))
    watch.detectors[0, :, 2] = 1e6  # so that the spread is all but constant: the sum is compared, not the estimate
    watch.detectors[0, :, 3:] = 0
    given = windows(drift, np.array([values[-1] + 3000.0]))
    statistic = drift.score(watch, np.array([0]), given)[1][0, 0] * drift.threshold
    mean, n = float(watch.detectors[0, 0, 1]), len(values)
    spread = np.sqrt((2 * drift.spread[0] ** 2 + 1e6) / (2 + n - 2))
    x = given.sums[0, 0] / (32 * GRID)
    # One step of Page's sum from 0: what the value exceeds the new mean by, less the slack.
    expected = (x - (mean + (x - mean) / n)) / spread - drift.slack
    assert statistic == pytest.approx(expected, rel=1e-5)


def test_sums_go_on_from_stored_numbers_as_page_adds_them_up() -> None:
    drift = Drift([], warmup=0, believed=1e9, threshold=1e9, slack=0.0)
    watch, values = drift.empty(1), noise(2, 30)
    for value in values:
        # Stored and read again between any two windows.
        watch = Watch(watch.slow.copy(), watch.detectors.astype("<f4").copy())
        drift.take(watch, windows(drift, np.array([value])))
    n, mean, squares, up, down = watch.detectors[0, 0].tolist()
    assert n == 30
    assert mean == pytest.approx(np.mean(values), rel=1e-4)
    assert squares == pytest.approx(np.var(values) * 30, rel=0.01)
    assert (up, down) == pytest.approx(page(values), abs=0.01)
    assert up > 0.1 < down


@pytest.mark.parametrize("shift", [1.2, -1.2])
def test_a_shift_of_either_sign_is_found_within_seven_windows(shift: float) -> None:
    drift = Drift([])
    found = fed(drift, noise(3, 40) + noise(4, 10, 5.0 + shift))
    assert {metric for _, metric in found} >= set(drift.sizes) - {"failed"}
    assert all(40 <= number < 47 for number, _ in found)


def test_a_slow_slope_is_found_too() -> None:
    drift = Drift([])
    values = [value + 0.02 * max(0, number - 40) for number, value in enumerate(noise(5, 140))]
    assert "cost" in {metric for number, metric in fed(drift, values) if number > 40}


def test_one_window_however_far_off_is_no_drift() -> None:
    assert fed(Drift([]), [*noise(6, 40), 500.0, *noise(7, 40)]) == []


def test_still_traffic_drifts_in_less_than_one_month_of_twenty() -> None:
    drift = Drift([])
    # 150 windows of 32 events are a month of 4,800 events; each size is a stream of its own here.
    rng = np.random.default_rng(8)
    watch, found = drift.empty(12), 0
    for _ in range(150):
        given = windows(drift, np.full(12, 5.0))
        given.sums += np.rint(32 * GRID * 0.3 * rng.normal(size=given.sums.shape)).astype(np.int64)
        found += len(np.unique(drift.take(watch, given).row))
    assert found <= 12 / 20 * 1


def test_what_a_window_consists_of_drifts_and_is_named() -> None:
    drift = Drift([])
    rng = np.random.default_rng(9)
    usual = np.zeros(DIMENSIONS, np.int64)
    usual[24:40] = 32 * UNIT // 16
    parts = [usual + rng.integers(0, 8, DIMENSIONS) for _ in range(50)]
    for own in parts[40:]:
        own[24:40] = 0
        own[27] = 32 * UNIT
    found = fed(drift, noise(10, 50), parts)
    assert {metric for _, metric in found} == {"models"}
    assert 40 <= found[0][0] < 45


def test_a_metric_that_has_drifted_begins_anew_and_takes_the_new_level_for_normal() -> None:
    found = fed(Drift([]), noise(11, 40) + noise(12, 60, 8.0))
    assert len([number for number, metric in found if metric == "cost"]) == 1


def test_scoring_says_what_taking_would_find() -> None:
    drift, watch = Drift(["volume"]), Drift(["volume"]).empty(1)
    for value in noise(13, 30) + [7.0] * 6:
        given = windows(drift, np.array([value]))
        would = drift.score(watch, np.array([0]), given)[1][0]
        drifts = drift.take(watch, given)
        assert np.flatnonzero(would > 1).tolist() == drifts.metric.tolist()


def test_numbers_of_another_version_or_other_settings_are_told_apart() -> None:
    versions = {Drift(["a"]).version, Drift(["b"]).version, Drift(["a"], slack=0.5).version}
    assert len(versions) == 3
    assert Drift(["a"]).version == Drift(["a"]).version
