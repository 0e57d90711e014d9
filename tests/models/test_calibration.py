"""Signals come to one scale."""

from dataclasses import replace
from itertools import product
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from models.calibration import Calibration, location_scale
from models.tail import Tail


def _by_hand(values: list[float], location: float, scale: float, weight: float) -> tuple[float, float]:
    """Location and scale of one tenant, in Python."""
    distinct = sorted(set(values))
    if not distinct:
        return location, scale
    median = float(np.median(distinct))
    spread = 1.4826 * float(np.median([abs(v - median) for v in distinct]))
    share = len(distinct) / (len(distinct) + weight)
    return location + share * (median - location), max(scale + share * (spread - scale), 0.25 * scale)


def test_location_and_scale_are_shrunken_medians_of_distinct_values() -> None:
    rng = np.random.default_rng(0)
    ring = np.round(rng.exponential(3, (200, 16)), 1)
    counts = rng.integers(0, 17, 200)
    location, scale = location_scale(ring, counts, 2.0, 1.5, 5.0)
    expected = [_by_hand(ring[i, : counts[i]].tolist(), 2.0, 1.5, 5.0) for i in range(200)]
    assert location == pytest.approx([e[0] for e in expected], rel=1e-12)
    assert scale == pytest.approx([e[1] for e in expected], rel=1e-12)


def test_a_tenant_without_sessions_gets_the_prior_itself() -> None:
    location, scale = location_scale(np.full((2, 4), 7.0), np.array([0, 0]), [0.1, 0.3], [0.7, 0.9], 3.0)
    assert (location.tolist(), scale.tolist()) == ([0.1, 0.3], [0.7, 0.9])


def test_a_tenants_location_does_not_depend_on_those_beside_it() -> None:
    rng = np.random.default_rng(0)
    ring, counts = rng.random((500, 64)), rng.integers(0, 65, 500)
    whole = location_scale(ring, counts, 0.5, 0.2, 20.0)
    for size in (1, 7):
        parts = [location_scale(ring[i : i + size], counts[i : i + size], 0.5, 0.2, 20.0) for i in range(0, 500, size)]
        assert np.concatenate([p[0] for p in parts]).tobytes() == whole[0].tobytes()
        assert np.concatenate([p[1] for p in parts]).tobytes() == whole[1].tobytes()


def test_the_order_of_a_ring_does_not_matter() -> None:
    rng = np.random.default_rng(0)
    ring = rng.random((50, 16))
    shuffled = rng.permuted(ring, axis=1)
    counts = np.full(50, 16)
    assert np.array_equal(location_scale(ring, counts, 0, 1, 4.0), location_scale(shuffled, counts, 0, 1, 4.0))


def test_a_burst_of_strange_sessions_moves_a_tenant_little() -> None:
    ring = np.random.default_rng(0).normal(5, 1, (1, 64))
    spoilt = ring.copy()
    spoilt[0, :10] = 1e9
    counts = np.array([64])
    (before, width), (after, wider) = (location_scale(r, counts, 5.0, 1.0, 20.0) for r in (ring, spoilt))
    assert abs(after - before)[0] < 0.5 and wider[0] < 2 * width[0]


def test_equal_sessions_leave_a_share_of_the_priors_scale() -> None:
    many_alike = np.linspace(3, 3.0001, 64)[None]
    scale = location_scale(many_alike, np.array([64]), 0.0, 1.0, 1.0)[1]
    assert scale.tolist() == [0.25]


def test_a_prior_that_is_no_scale_is_refused() -> None:
    with pytest.raises(ValueError, match=r"prior_weight and prior_scale must be above 0; got 1\.0 and 0\.0"):
        location_scale(np.zeros((1, 2)), np.array([1]), 0.0, 0.0, 1.0)


def _calibration(k: int = 2, masks: list[int] | None = None) -> Calibration:
    rng = np.random.default_rng(k)
    return Calibration(
        tuple("abcdefg"[:k]),
        ("tenant",) * k,
        np.zeros(k),
        np.ones(k),
        tuple(Tail.fit(rng.exponential(size=400)) for _ in range(k)),
        {
            mask: Tail.fit(rng.gamma(mask.bit_count(), size=400))
            for mask in (masks if masks is not None else range(1, 1 << k))
        },
        np.linspace(0.5, 1.5, k) if k > 1 else np.ones(1),
        np.full(k, np.inf),
        np.arange(k) // 2,
    )


def test_p_values_are_the_tails_of_scaled_scores() -> None:
    calibration = _calibration()
    x, location, scale = np.array([1.0, 5.0, np.nan]), np.array([0.0, 1.0, 0.0]), np.array([1.0, 2.0, 1.0])
    p = calibration.p_values(1, x, location, scale)
    assert p[:2].tolist() == calibration.tails[1].survival(np.array([1.0, 2.0])).tolist()
    assert np.isnan(p[2])


def test_surprises_have_a_norm_that_meets_the_tail_of_their_combination() -> None:
    calibration = _calibration()
    p = np.array([[0.1, 0.02], [0.1, 0.02], [0.1, 0.02], [0.1, np.nan]])
    eligible = np.array([[True, True], [True, False], [False, True], [True, True]])
    statistic, combined = calibration.combine(p, eligible)
    # Weights are 0.5 and 1.5.
    first, second = -0.5 * np.log(0.1), -1.5 * np.log(0.02)
    expected = [(first**2 + second**2) ** (1 / 2), first, second, first]
    assert statistic == pytest.approx(expected, abs=1e-5)
    for i, mask in enumerate([3, 1, 2, 3]):
        assert combined[i] == calibration.combined[mask].survival(statistic[i : i + 1])[0]


def test_kinds_of_one_group_bear_each_other_out_more_than_those_of_two() -> None:
    calibration = _calibration(3)
    assert calibration.groups.tolist() == [0, 0, 1]
    # Weights are 0.5, 1 and 1.5: each of these says as much as the others.
    p = np.exp(-np.array([6.0, 3.0, 2.0]))
    both, apart = np.array([[p[0], p[1], 1.0], [1.0, p[1], p[2]]])
    statistic = calibration.combine(np.array([both, apart]), np.ones((2, 3), bool))[0]
    assert statistic == pytest.approx([3 * 2 ** (1 / 2), 3 * 2 ** (1 / 4)], abs=1e-5)


def test_above_its_limit_a_kind_says_no_more() -> None:
    limited = replace(_calibration(2), limits=np.array([3.0, np.inf]))
    p = np.exp(-np.array([[2.0, 1.0], [3.0, 1.0], [20.0, 1.0], [20.0, 30.0]]))
    statistic = limited.combine(p, np.ones((4, 2), np.bool_))[0]
    assert statistic[0] < statistic[1] == statistic[2] < statistic[3]
    # Weights are 0.5 and 1.5, so the limited one never weighs more than 1.5.
    assert limited.leading(p, np.ones((4, 2), np.bool_)).tolist() == [1, 0, 0, 1]


def test_what_leads_is_the_largest_weighted_surprise_of_those_that_count() -> None:
    # Weights are 0.5 and 1.5: the second is less rare and weighs more, until it does not count.
    p = np.array([[1e-4, 1e-3], [1e-4, 1e-3], [1e-4, np.nan], [1.0, 1.0]])
    eligible = np.array([[True, True], [True, False], [True, True], [True, True]])
    assert _calibration(2).leading(p, eligible).tolist() == [1, 0, 0, 0]


def test_an_event_without_eligible_kinds_or_scores_is_no_anomaly() -> None:
    p = np.array([[1e-9, 1e-9], [np.nan, np.nan]])
    statistic, combined = _calibration().combine(p, np.array([[False, False], [True, True]]))
    assert (statistic.tolist(), combined.tolist()) == ([0, 0], [1, 1])


@pytest.mark.parametrize("size", [1, 7, 500])
def test_a_combination_does_not_depend_on_its_batch(size: int) -> None:
    rng = np.random.default_rng(0)
    calibration = replace(_calibration(3), newcomer_nats=1.1)
    p, eligible = rng.random((2000, 3)) ** 4 + 1e-300, rng.random((2000, 3)) < 0.7
    p[rng.random((2000, 3)) < 0.1] = np.nan
    newcomer = rng.random(2000) < 0.3
    whole = calibration.combine(p, eligible, newcomer)
    order = rng.permutation(2000)
    for low in range(0, 2000, size):
        at = order[low : low + size]
        part = calibration.combine(p[at], eligible[at], newcomer[at])
        assert all(a.tobytes() == b[at].tobytes() for a, b in zip(part, whole, strict=True))


def test_a_newcomer_is_as_surprising_as_a_tenant_with_three_times_the_p_value() -> None:
    calibration = replace(_calibration(3), newcomer_nats=1.1)
    p = np.random.default_rng(0).random((200, 3)) ** 4
    eligible, newcomer = np.ones((200, 3), np.bool_), np.arange(200) % 2 == 0
    known, said = (calibration.combine(p, eligible, who)[1] for who in (None, newcomer))
    # exp(1.1) is 3.004.
    assert said[newcomer] == pytest.approx(np.minimum(3.004 * known[newcomer], 1), rel=1e-3)
    assert np.array_equal(said[~newcomer], known[~newcomer])
    assert np.array_equal(_calibration(3).combine(p, eligible, newcomer)[1], known)


@pytest.mark.parametrize("nats", [-0.1, np.inf, np.nan])
def test_nats_that_are_none_are_refused(nats: float) -> None:
    with pytest.raises(ValueError, match="newcomer_nats must be finite and at least 0"):
        replace(_calibration(), newcomer_nats=nats)


def test_a_combination_that_was_not_measured_takes_the_smallest_that_holds_it() -> None:
    calibration = _calibration(5, masks=[0b11111, 0b00111, 0b01111, 0b00001])
    chosen = {0b00001: 0b00001, 0b00011: 0b00111, 0b00110: 0b00111, 0b01001: 0b01111, 0b10000: 0b11111}
    for mask, measured in chosen.items():
        eligible = np.array([[bool(mask >> kind & 1) for kind in range(5)]])
        statistic, p = calibration.combine(np.full((1, 5), 0.05), eligible)
        assert p[0] == calibration.combined[measured].survival(statistic)[0]


def test_more_surprise_never_means_a_larger_p_value() -> None:
    calibration = _calibration(3)
    levels = np.array([1.0, 0.3, 0.01, 1e-5, 1e-300])
    p = np.array(list(product(levels, repeat=3)))
    combined = calibration.combine(p, np.ones(p.shape, bool))[1]
    for kind in range(3):
        deeper = p.copy()
        deeper[:, kind] /= 3
        deeper = np.maximum(deeper, 1e-300)
        assert (calibration.combine(deeper, np.ones(p.shape, bool))[1] <= combined).all()


def test_arrays_and_meta_restore_a_calibration() -> None:
    calibration = replace(_calibration(3), newcomer_nats=0.7)
    arrays, meta = calibration.to_arrays()
    restored = Calibration.from_arrays(arrays, meta)
    assert restored.newcomer_nats == 0.7
    # Releases of before do not tell newcomers from others.
    before = {name: array for name, array in arrays.items() if name != "newcomer_nats"}
    assert Calibration.from_arrays(before, meta).newcomer_nats == 0
    p = np.random.default_rng(0).random((100, 3))
    eligible = np.ones((100, 3), bool)
    assert np.array_equal(restored.combine(p, eligible), calibration.combine(p, eligible))
    assert (restored.kinds, restored.scales) == (calibration.kinds, calibration.scales)
    assert restored.to_arrays()[1] == meta and restored.to_arrays()[0].keys() == arrays.keys()


def test_scoring_changes_no_input() -> None:
    p, eligible = np.array([[0.5, np.nan]]), np.array([[True, True]])
    before = p.tobytes(), eligible.tobytes()
    _calibration().combine(p, eligible)
    assert (p.tobytes(), eligible.tobytes()) == before


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"only": {"kinds": ["a", "b"]}}, r"meta needs \['combined', 'groups', 'scales'\]"),
        ({"drop": "tail.b.x"}, "tail.b: a calibration needs the array tail.b.x, which is missing"),
        ({"set": ("prior_scale", np.ones(2, np.float32))}, "prior_scale must be float64; got float32"),
        ({"set": ("prior_scale", np.zeros(2))}, "prior_scale above 0"),
        ({"set": ("prior_location", np.zeros(3))}, r"prior_location, prior_scale and tails must be \(2,\)"),
        ({"set": ("combined.3.level", np.zeros(2))}, "combined.3: a tail needs"),
        ({"set": ("weights", np.zeros(2))}, r"weights must be \(2,\) and above 0"),
        ({"meta": {"kinds": ["a", "a"]}}, "kinds must be 1 to 16 different"),
        ({"meta": {"scales": ["tenant", "mine"]}}, "scales must be one of"),
        ({"meta": {"groups": [0]}}, r"groups must be int64 \(2,\); got int64 \(1,\)"),
        ({"meta": {"combined": [1]}}, r"that of all; got \[1\]"),
    ],
)
def test_arrays_that_make_no_calibration_are_refused(change: dict[str, Any], message: str) -> None:
    arrays, meta = _calibration().to_arrays()
    loaded: dict[str, NDArray[np.generic]] = dict(arrays)
    loaded.pop(change.get("drop", ""), None)
    if "set" in change:
        loaded[change["set"][0]] = change["set"][1]
    with pytest.raises(ValueError, match=message):
        Calibration.from_arrays(loaded, change.get("only", {**meta, **change.get("meta", {})}))


def test_p_values_of_other_kinds_are_refused() -> None:
    with pytest.raises(ValueError, match=r"p and eligible must be \(n, 2\); got \(4, 3\)"):
        _calibration().combine(np.ones((4, 3)), np.ones((4, 3), bool))
