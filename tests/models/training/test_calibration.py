"""Observed rates are the nominal ones, whatever the signals' dependence."""

from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from models.calibration import Calibration, location_scale
from models.training.calibration import PRIOR_SESSIONS, RING, _others, fit_population, session_maxima

TENANTS = 12
FITTED, FRESH, WORLDS = 1500, 3000, 10


def _world(
    seed: int, sessions: int, dependence: float, heavy: bool
) -> tuple[NDArray[np.float64], NDArray[np.int64], NDArray[np.int64]]:
    """Events of two kinds (n, 2), the tenant (s,) of each session, and the session (n,) of each event.

    Sessions have one to eight events; kinds share `dependence` of their variance; a third of the events has nothing for
    the first kind; tenants differ in location and scale. Light tails are exponential, heavy ones Pareto with xi = 0.4.
    """
    rng = np.random.default_rng(seed)
    session = np.repeat(np.arange(sessions), rng.integers(1, 9, sessions))
    tenant = rng.integers(TENANTS, size=sessions)
    shared, own = rng.normal(size=(len(session), 1)), rng.normal(size=(len(session), 2))
    z = shared * dependence**0.5 + own * (1 - dependence) ** 0.5
    # The survival of a normal law, by Abramowitz and Stegun 7.1.26 (1.5e-7).
    t = 1 / (1 + 0.3275911 * np.abs(z) / 2**0.5)
    series = ((((1.061405429 * t - 1.453152027) * t + 1.421413741) * t - 0.284496736) * t + 0.254829592) * t
    half = series * np.exp(-(z**2) / 2) / 2
    survival = np.maximum(np.where(z > 0, half, 1 - half), 1e-12)
    x = survival**-0.4 if heavy else -np.log(survival)
    profile = np.random.default_rng(99)
    location, scale = profile.normal(0, 2, TENANTS), profile.lognormal(0, 0.4, TENANTS)
    x = location[tenant[session], None] + scale[tenant[session], None] * x
    x[rng.random(len(session)) < 1 / 3, 0] = np.nan
    return x, tenant, session


def _p_values(
    calibration: Calibration,
    fitted: tuple[NDArray[np.float64], NDArray[np.int64], NDArray[np.int64]],
    fresh: tuple[NDArray[np.float64], NDArray[np.int64], NDArray[np.int64]],
) -> NDArray[np.float64]:
    """P-values (n, 2) of fresh events, each tenant's ring holding its last fitted sessions."""
    x, tenant, session = fresh
    p = np.empty_like(x)
    for kind in range(2):
        maxima = session_maxima(fitted[0][:, kind], fitted[2])
        ring, counts = np.zeros((TENANTS, RING)), np.zeros(TENANTS, np.int64)
        for number in range(TENANTS):
            own = maxima[(fitted[1] == number) & np.isfinite(maxima)][-RING:]
            ring[number, : len(own)], counts[number] = own, len(own)
        location, scale = location_scale(
            ring, counts, calibration.prior_location[kind], calibration.prior_scale[kind], PRIOR_SESSIONS
        )
        of = tenant[session]
        p[:, kind] = calibration.p_values(kind, x[:, kind], location[of], scale[of])
    return p


@pytest.mark.parametrize("heavy", [False, True])
@pytest.mark.parametrize("dependence", [0.0, 0.6, 0.95])
def test_sessions_are_flagged_at_the_nominal_rate(dependence: float, heavy: bool) -> None:
    # A quantile estimated from m sessions and checked on n others is off by sqrt(a (1 - a) (1/m + 1/n)), two binomials;
    # over w independent worlds by that over sqrt(w). Three of them, and a tenth of a for the tails' bias.
    rates = []
    for world in range(WORLDS):
        fitted = _world(world, FITTED, dependence, heavy)
        x, tenant, session = fitted
        calibration = fit_population({"a": x[:, 0], "b": x[:, 1]}, tenant[session], session)
        fresh = _world(1000 + world, FRESH, dependence, heavy)
        p = _p_values(calibration, fitted, fresh)
        combined = calibration.combine(p, np.ones(p.shape, bool))[1]
        each = [-session_maxima(-q, fresh[2]) for q in (p[:, 0], p[:, 1], combined)]
        rates.append([[(q[np.isfinite(q)] <= nominal).mean() for nominal in (0.01, 0.05)] for q in each])
    for column, nominal in enumerate((0.01, 0.05)):
        error = (nominal * (1 - nominal) * (1 / FITTED + 1 / FRESH) / WORLDS) ** 0.5
        for observed in np.mean(rates, axis=0)[:, column]:
            assert abs(observed - nominal) < 3 * error + nominal / 10


def test_a_tenants_first_kind_alone_is_calibrated_too() -> None:
    x, tenant, session = fitted = _world(0, 4000, 0.6, False)
    calibration = fit_population({"a": x[:, 0], "b": x[:, 1]}, tenant[session], session)
    fresh = _world(1, 8000, 0.6, False)
    p = _p_values(calibration, fitted, fresh)
    for kind in range(2):
        eligible = np.zeros(p.shape, bool)
        eligible[:, kind] = True
        flagged = session_maxima(-calibration.combine(p, eligible)[1], fresh[2]) >= -0.05
        assert flagged.mean() == pytest.approx(0.05, abs=3 * (0.05 * 0.95 * (1 / 4000 + 1 / 8000)) ** 0.5 + 0.005)


def test_a_population_scale_takes_no_tenants_location() -> None:
    x, tenant, session = _world(0, 1000, 0.0, False)
    calibration = fit_population({"a": x[:, 0]}, tenant[session], session, scales={"a": "population"})
    maxima = session_maxima(x[:, 0], session)
    median = np.median(np.unique(maxima[np.isfinite(maxima)]))
    assert calibration.scales == ("population",)
    assert calibration.prior_location[0] == median
    z = (maxima[np.isfinite(maxima)] - median) / calibration.prior_scale[0]
    assert calibration.tails[0].x[0] == z.min()


def test_values_beside_the_events_make_their_own_kind_s_tail_longer_and_no_other_s() -> None:
    x, tenant, session = _world(0, 1000, 0.0, False)
    scores = {"a": np.maximum(x[:, 0], 0), "b": x[:, 1]}
    how: dict[str, Any] = {
        "scales": dict.fromkeys("ab", "population"),
        "atoms": {"a": 0.0},
        "beside_shares": {"a": 0.05},
    }
    plain, longer = (
        fit_population(scores, tenant[session], session, beside=beside, **how)
        for beside in ({}, {"a": np.linspace(20, 30, 500)})
    )
    # One session in twenty lies beyond 20 then; the tail is a smooth one.
    assert 0.02 < longer.tails[0].survival(np.array([19.9]))[0] < 0.06
    assert plain.tails[0].survival(np.array([19.9]))[0] < 1e-3
    assert np.array_equal(plain.tails[1].x, longer.tails[1].x)


def test_a_kind_with_a_limit_is_measured_with_it_among_the_others() -> None:
    x, tenant, session = _world(0, 1000, 0.0, False)
    scores = {"a": x[:, 0], "b": x[:, 1]}
    plain, limited = (fit_population(scores, tenant[session], session, limits=limits) for limits in ({}, {"a": 2.0}))
    assert limited.limits.tolist() == [2.0, np.inf]
    # Of a thousand sessions some are rarer than exp(-2) in it: their norms end there.
    assert plain.combined[1].x[-1] > limited.combined[1].x[-1]
    assert np.array_equal(plain.combined[2].x, limited.combined[2].x)
    assert np.array_equal(plain.tails[0].x, limited.tails[0].x)


def test_the_order_of_the_events_of_sessions_does_not_matter() -> None:
    x, tenant, session = _world(0, 300, 0.5, False)
    order = np.argsort(np.random.default_rng(0).random(len(session)) + 2 * session)
    first = fit_population({"a": x[:, 0], "b": x[:, 1]}, tenant[session], session).to_arrays()
    second = fit_population({"a": x[order, 0], "b": x[order, 1]}, tenant[session[order]], session[order]).to_arrays()
    assert all(np.array_equal(first[0][name], second[0][name]) for name in first[0])


def test_each_session_is_judged_by_the_others_of_its_tenant() -> None:
    maxima = np.array([1.0, 2.0, np.nan, 3.0, 9.0, 4.0])
    ring, counts = _others(maxima, np.array([0, 0, 0, 0, 1, 0]), 2)
    # The two before, going round: no session sees itself, the only session of a tenant sees none.
    assert ring[[0, 1, 2, 3, 5]].tolist() == [[4, 3], [1, 4], [2, 1], [2, 1], [3, 2]]
    assert counts.tolist() == [2, 2, 2, 2, 0, 2]


def test_of_many_kinds_some_combinations_are_measured() -> None:
    x, tenant, session = _world(0, 200, 0.5, False)
    scores = {name: x[:, 1] + shift for shift, name in enumerate("abcdef")}
    calibration = fit_population(scores, tenant[session], session, scales={"a": "population", "c": "population"})
    assert {0b111111, 0b000101, 0b011111, 0b000001} <= calibration.combined.keys()
    assert len(calibration.combined) == 1 + 6 + 6 + 1


def test_kinds_without_a_group_are_alone_and_their_combinations_know_of_groups() -> None:
    x, tenant, session = _world(0, 200, 0.0, False)
    scores = {"a": x[:, 0], "b": x[:, 1], "c": x[:, 0] + x[:, 1]}
    apart, together = (fit_population(scores, tenant[session], session, groups=g) for g in ({}, {"a": "g", "b": "g"}))
    assert (apart.groups.tolist(), together.groups.tolist()) == ([0, 1, 2], [0, 0, 2])
    # The same two surprises come to more in one group, and so do those of the sessions that the tail is measured on.
    levels = np.full((1, 3), 0.01)
    chosen = np.array([[True, True, False]])
    assert together.combine(levels, chosen)[0] > apart.combine(levels, chosen)[0]
    assert together.combined[0b011].surprise(np.array([3.0])) < apart.combined[0b011].surprise(np.array([3.0]))
    assert together.combined[0b001].level.tolist() == apart.combined[0b001].level.tolist()


@pytest.mark.parametrize("values", [[0.5], [0.5, 0.5, 0.5], [0.1, 0.4], [0.0, 0.0, 1.0]])
def test_a_handful_of_sessions_still_gives_p_values(values: list[float]) -> None:
    n = len(values)
    calibration = fit_population({"a": np.array(values)}, np.zeros(n, int), np.arange(n))
    x = np.array([-1.0, values[0], 100.0])
    p = calibration.p_values(0, x, np.repeat(calibration.prior_location, 3), np.repeat(calibration.prior_scale, 3))
    assert 0 < p[2] < p[1] <= p[0] == 1


def test_a_kind_without_scores_is_refused() -> None:
    with pytest.raises(ValueError, match="b needs a finite score"):
        fit_population({"a": np.ones(2), "b": np.full(2, np.nan)}, np.zeros(2, int), np.arange(2))


def test_columns_of_different_lengths_are_refused() -> None:
    with pytest.raises(ValueError, match=r"must be \(n,\) with n = 2"):
        fit_population({"a": np.ones(3)}, np.zeros(2, int), np.arange(2))
