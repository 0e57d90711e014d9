"""What a tenant's calls amount to, and how strange a call is beside them."""

from __future__ import annotations

import numpy as np
import pytest
from numpy.typing import NDArray
from scipy.special import rel_entr

from models.training.volume import fit_priors, fit_units
from models.volume import (
    BEGUN,
    CALLS,
    COUNTERS,
    FAILED,
    FIRST,
    GAUGES,
    GRID,
    HOURS,
    NEW_KEY,
    PER_CALL,
    SESSIONS,
    SIZES,
    SUB_FEATURES,
    UNIT_MIN,
    Baseline,
    Lesson,
    Observed,
    Volume,
    believed,
    cusum,
    unfitted,
)

OWN = np.zeros((1, PER_CALL), np.bool_)
"""No size of the only call is held against any tenant's."""


def lesson(tenants: int = 1) -> Lesson:
    """One that teaches nothing yet."""
    counts, sums, squares = np.zeros((3, tenants, len(GAUGES)), np.int64)
    counters, hours = np.zeros((tenants, len(COUNTERS)), np.int64), np.zeros((tenants, HOURS), np.int64)
    return Lesson(counts, sums, squares, counters, hours)


def taught(model: Volume, sizes: NDArray[np.int64], turns: int = 1) -> Baseline:
    """A tenant whose gauges all took these sizes (n,), in so many lessons."""
    baseline = model.empty(1)
    for part in np.array_split(sizes, turns):
        one = lesson()
        one.counts[:], one.sums[:], one.squares[:] = len(part), part.sum(), (part**2).sum()
        model.learn(baseline, one)
    return baseline


def calm(n: int = 1) -> Observed:
    """Calls that nothing is strange about."""
    zeros = np.zeros(n, np.int64)
    key_errors = np.stack([zeros, zeros + 1], axis=1)
    return Observed(
        zeros, np.full((n, SIZES), -1), zeros.copy(), zeros.copy(), key_errors, zeros.copy(), np.zeros((n, 3), np.bool_)
    )


def scored(model: Volume, baseline: Baseline, seen: Observed) -> dict[str, float]:
    """Sub-features of the only call, times their units."""
    features = model.score(model.normal(baseline), np.zeros(1, np.int64), seen, OWN)[1][0] * model.unit
    return dict(zip(SUB_FEATURES, features.tolist(), strict=True))


def test_cusum_as_a_scan_is_one_step_after_another() -> None:
    rng = np.random.default_rng(1)
    group = np.sort(rng.integers(40, size=600))
    steps, start = rng.integers(-40, 41, 600), rng.integers(0, 90, 40)
    expected, held = [], start.copy()
    for step, number in zip(steps.tolist(), group.tolist(), strict=True):
        held[number] = max(0, held[number] + step)
        expected.append(int(held[number]))
    assert cusum(steps, group, start[group]).tolist() == expected


def test_baseline_of_a_busy_tenant_is_the_mean_and_spread_of_its_sizes() -> None:
    sizes = np.rint(100 + 12 * np.random.default_rng(2).normal(size=2000)).astype(np.int64)
    normal = Volume(half_life=1e9).normal(taught(Volume(half_life=1e9), sizes, turns=40))
    assert normal.location == pytest.approx(sizes.mean(), abs=0.5)
    assert normal.spread == pytest.approx(sizes.std(), rel=0.05)


def test_old_sizes_are_forgotten_by_half_after_the_half_life() -> None:
    model = Volume(half_life=100.0)
    baseline = taught(model, np.full(100, 50))
    weight = baseline.gauges[0, 0, 0]
    one = lesson()
    one.counts[:], one.sums[:], one.squares[:] = 100, 100 * 50, 100 * 2500
    model.learn(baseline, one)
    assert baseline.gauges[0, 0, 0] == pytest.approx(weight / 2 + 100 * model.event_weight)


def test_a_young_tenant_is_held_to_be_like_the_population() -> None:
    arrays = unfitted()
    arrays["gauge_prior"][:] = 80.0, 10.0, 2.0
    model = Volume(arrays)
    normal = model.normal(model.empty(1))
    assert normal.location[0, 0] == 80
    # The spread of a first value about a mean worth two observations: s √(1 + 1/2) (Murphy 2007).
    assert normal.spread[0, 0] == pytest.approx(10 * 1.5**0.5)


def test_tenant_whose_calls_are_all_alike_keeps_a_quarter_of_the_populations_spread() -> None:
    model = Volume()
    normal = model.normal(taught(model, np.full(50_000, 90)))
    assert normal.spread[0, 0] >= 0.25 * 1.5 * GRID


def test_a_size_is_strange_by_its_standard_deviations_and_only_above() -> None:
    model = Volume()
    baseline = taught(model, np.rint(90 + 8 * np.random.default_rng(3).normal(size=4000)).astype(np.int64))
    normal, seen = model.normal(baseline), calm()
    seen.sizes[0, 1], seen.sizes[0, 2] = 200, 10
    found = scored(model, baseline, seen)
    assert found["completion_tokens"] == pytest.approx((200 - normal.location[0, 1]) / normal.spread[0, 1], rel=1e-5)
    assert found["cost"] == found["duration"] == 0


ANYONE = np.array([[100.0, 20.0], [90.0, 10.0], [100.0, 20.0], [100.0, 20.0]])
"""Mean and spread of any tenant's calls: prompt tokens, completion tokens, cost, duration."""


def test_sizes_in_a_session_unlike_the_tenants_are_as_strange_as_they_would_be_of_any() -> None:
    model = Volume(unfitted() | {"anyone": ANYONE})
    normal, seen = model.normal(taught(model, np.full(4000, 40))), calm(3)
    seen.sizes[:, :SIZES] = 130
    seen.sizes[2] = -1
    rows = np.zeros(3, np.int64)
    as_anyones = model.as_anyones(normal, rows, seen, np.array([False, True, True]))
    assert as_anyones[:2].tolist() == [[False] * PER_CALL, [True] * PER_CALL]
    familiar, other, nothing = model.score(normal, rows, seen, as_anyones)[1] * model.unit
    names = "prompt_tokens", "completion_tokens", "key_calls"
    prompt, completion, calls = (SUB_FEATURES.index(name) for name in names)
    assert familiar[prompt] == pytest.approx((130 - normal.location[0, 0]) / normal.spread[0, 0], rel=1e-5)
    assert other[prompt] == pytest.approx((130 - 100) / 20)
    assert other[completion] == pytest.approx((130 - 90) / 10)
    assert other[calls] == familiar[calls] > 0, "how much a key calls is its own"
    assert nothing[prompt] == 0


def test_a_size_is_held_against_any_tenants_only_where_it_is_less_strange_so() -> None:
    # Of this tenant, whose own calls are larger than anyone's, the first two would be stranger.
    model = Volume(unfitted() | {"anyone": np.array([[10.0, 1.0], [10.0, 1.0], [90.0, 60.0], [90.0, 60.0]])})
    normal, seen, rows = model.normal(taught(model, np.full(4000, 90))), calm(), np.zeros(1, np.int64)
    seen.sizes[0, :PER_CALL] = 110
    as_anyones = model.as_anyones(normal, rows, seen, np.ones(1, np.bool_))
    assert as_anyones.tolist() == [[False, False, True, True]]
    found = model.score(normal, rows, seen, as_anyones)[1][0] * model.unit
    assert found[SUB_FEATURES.index("prompt_tokens")] == pytest.approx(
        scored(model, taught(model, np.full(4000, 90)), seen)["prompt_tokens"]
    )
    assert found[SUB_FEATURES.index("cost")] == pytest.approx((110 - 90) / 60)
    assert not Volume().as_anyones(normal, rows, seen, np.ones(1, np.bool_)).any(), "nobody has said what they are like"


def test_a_burst_is_winsorised_at_four_standard_deviations() -> None:
    model = Volume()
    normal = model.normal(taught(model, np.arange(80, 100).repeat(50)))
    held = believed(normal, np.zeros(2, np.int64), np.zeros(2, np.int64), np.array([10_000, 90]))
    assert held[0] == np.ceil(normal.location[0, 0] + 4 * normal.spread[0, 0])
    assert held[1] == 90


def test_rates_are_krichevsky_and_trofimovs_with_eight_trials_of_the_population() -> None:
    model, one = Volume(), lesson()
    one.counters[0, [CALLS, FAILED, SESSIONS, NEW_KEY, FIRST, BEGUN]] = 200, 6, 40, 1, 100, 3
    baseline = model.empty(1)
    model.learn(baseline, one)
    seen = calm()
    seen.new[0, 0], seen.repeats[0], seen.errors[0] = True, 3, 2 * GRID
    found = scored(model, baseline, seen)
    p = 8 * 0.05
    assert found["new_key"] == pytest.approx(-np.log((1 + 0.5 + p) / (40 + 9)), rel=1e-5)
    assert found["errors"] == pytest.approx(2 * -np.log((6 + 0.5 + p) / (200 + 9)), rel=1e-5)
    begun, gone_on = (3 + 0.5 + p) / (100 + 9), (0.5 + p) / 9
    assert found["repeats"] == pytest.approx(-np.log(begun) - 2 * np.log(gone_on), rel=1e-5)
    assert found["origin"] == pytest.approx(found["new_key"], rel=1e-5)


def test_failures_of_a_key_count_as_chernoff_bounds_them() -> None:
    model, baseline, seen = Volume(), Volume().empty(1), calm()
    seen.key_errors[0] = 7, 10
    rate = model.normal(baseline).rate[0, 0]
    expected = 10 * (rel_entr(0.7, rate) + rel_entr(0.3, 1 - rate))
    assert scored(model, baseline, seen)["key_errors"] == pytest.approx(float(expected), rel=1e-5)
    seen.key_errors[0] = 10, 10
    assert scored(model, baseline, seen)["key_errors"] == pytest.approx(-10 * np.log(rate), rel=1e-5)


def test_an_hour_at_which_a_tenant_hardly_calls_is_strange_its_neighbours_are_not() -> None:
    model, one = Volume(), lesson()
    one.hours[0, 9:17] = 50
    baseline = model.empty(1)
    model.learn(baseline, one)
    hour = model.normal(baseline).hour[0]
    assert (hour[9:17] == 0).all()
    assert hour[3] > 0 == hour[8], "a quarter of nine o'clock's calls may as well come before it"
    # 12 sessions' hours of a uniform week stand beside the 400: -log (12 / 412).
    assert hour[3] == pytest.approx(np.log(412 / 12), abs=1e-5)


def test_strongest_sub_feature_speaks() -> None:
    model, seen = Volume(), calm()
    seen.growth[0] = 9 * GRID
    value, features = model.score(model.normal(model.empty(1)), np.zeros(1, np.int64), seen, OWN)
    assert value[0] == features[0, SUB_FEATURES.index("argument_growth")] == pytest.approx(9 / 4)


def test_arrays_come_back_and_others_are_refused() -> None:
    arrays = Volume().to_arrays()
    assert {name: array.tolist() for name, array in Volume(arrays).to_arrays().items()} == {
        name: array.tolist() for name, array in unfitted().items()
    }
    with pytest.raises(ValueError, match=r"unit must be float64 \(15,\); got none\."):
        Volume({name: array for name, array in arrays.items() if name != "unit"})
    with pytest.raises(ValueError, match="rate_prior must lie between 0 and 1; got"):
        Volume(arrays | {"rate_prior": np.ones(6)})
    assert Volume(arrays | {"anyone": ANYONE}).to_arrays()["anyone"].tolist() == ANYONE.tolist()
    with pytest.raises(ValueError, match=r"anyone must be float64 \(4, 2\); got float64 \(3, 2\)\."):
        Volume(arrays | {"anyone": ANYONE[:3]})
    with pytest.raises(ValueError, match=r"anyone's spreads must be above 0; got \[0\.0, "):
        Volume(arrays | {"anyone": ANYONE * [[1.0, 0.0], [1, 1], [1, 1], [1, 1]]})
    with pytest.raises(ValueError, match="spreads and weights, and unit, must be above 0"):
        Volume(arrays | {"unit": np.zeros(15)})


def test_priors_are_those_that_tenants_were_drawn_from() -> None:
    rng, model = np.random.default_rng(5), Volume(half_life=1e9)
    tenants = 60
    means = rng.normal(100, 30, tenants)
    one = lesson(tenants)
    sizes = np.rint(means[:, None] + 10 * rng.normal(size=(tenants, 400))).astype(np.int64)
    one.counts[:], one.sums[:], one.squares[:] = 400, sizes.sum(axis=1)[:, None], (sizes**2).sum(axis=1)[:, None]
    one.counters[:, CALLS], one.counters[:, FAILED] = 400, rng.binomial(400, 0.1, tenants)
    baseline = model.empty(tenants)
    model.learn(baseline, one)
    fitted = fit_priors(baseline)
    location, spread, weight = fitted.gauge_prior[0]
    assert location == pytest.approx(100, abs=15)
    assert spread == pytest.approx(10, rel=0.1)
    assert weight == pytest.approx((10 / 30) ** 2, rel=0.6)
    assert fitted.anyone is not None
    # A mean of 60 such means, whose standard error is 30 / √60; the variances within and between add up.
    assert fitted.anyone[0, 0] == pytest.approx(100, abs=3 * 30 / 60**0.5)
    assert fitted.anyone[0, 1] == pytest.approx((10**2 + 30**2) ** 0.5, rel=0.3)
    assert fitted.rate_prior[0] == pytest.approx(0.1, abs=0.02)


def tenants_of(means: NDArray[np.float64], reported: int = len(GAUGES)) -> Baseline:
    """Tenants whose calls have these mean sizes (t,) and a spread of 10, as far as they report them."""
    rng, model, one = np.random.default_rng(6), Volume(), lesson(len(means))
    sizes = np.rint(means[:, None] + 10 * rng.normal(size=(len(means), 400))).astype(np.int64)
    one.counts[:, :reported] = 400
    one.sums[:, :reported], one.squares[:, :reported] = sizes.sum(axis=1)[:, None], (sizes**2).sum(axis=1)[:, None]
    baseline = model.empty(len(means))
    model.learn(baseline, one)
    return baseline


def test_of_too_few_tenants_nobody_knows_what_any_is_like() -> None:
    assert fit_priors(tenants_of(np.full(2, 90.0))).anyone is None


def test_a_size_that_nobody_reports_is_that_of_a_population_nothing_is_known_of() -> None:
    anyone = fit_priors(tenants_of(np.full(10, 90.0), reported=2)).anyone
    assert anyone is not None
    assert anyone[2:].tolist() == unfitted()["gauge_prior"][2:PER_CALL, :2].tolist()
    assert anyone[:2] == pytest.approx(np.array([[90.0, 10.0]] * 2), rel=0.1)


def test_one_tenant_unlike_any_other_does_not_say_what_anyones_calls_are_like() -> None:
    means = np.array([90.0, 95, 100, 105, 110, 90, 95, 100, 105, 110])
    before = fit_priors(tenants_of(means)).anyone
    after, further = (fit_priors(tenants_of(np.r_[means, size])).anyone for size in (300.0, 3000.0))
    assert before is not None
    assert after is not None
    assert further is not None
    # Six spreads of 10 beyond a median of 100 is where it ends: one in eleven moves the mean by 60 / 11.
    assert after[0, 0] - before[0, 0] == pytest.approx(60 / 11, abs=1)
    assert after[0] == pytest.approx(further[0], abs=0.5)


def test_too_few_tenants_leave_the_priors_open() -> None:
    baseline = taught(Volume(), np.full(400, 50))
    assert fit_priors(baseline).to_arrays()["gauge_prior"].tolist() == unfitted()["gauge_prior"].tolist()


def test_a_unit_is_what_one_session_in_a_hundred_exceeds_and_no_less_than_one_percents_surprise() -> None:
    features = np.zeros((2000, len(SUB_FEATURES)), np.float32)
    features[:, 1] = np.arange(2000) % 1000
    features[:, 0] = 1.0
    fitted = fit_units(Volume(), features, np.arange(2000) // 2)
    # Sessions' maxima of the first 1000 pairs are 1, 3, … 999, twice each: their 99 % quantile.
    assert fitted.unit[1] == np.quantile(np.arange(1, 1000, 2).repeat(2), 0.99, method="higher")
    assert fitted.unit[0] == UNIT_MIN[0]


@pytest.mark.parametrize("name", ["key_calls", "key_tokens"])
def test_a_keys_load_may_be_half_as_large_again(name: str) -> None:
    features, column = np.full((200, len(SUB_FEATURES)), 30.0, np.float32), SUB_FEATURES.index(name)
    fitted = fit_units(Volume(), features, np.arange(200))
    assert fitted.unit[column] == 45.0
    assert fitted.unit[SUB_FEATURES.index("cost")] == 30.0
