"""The calibration is that of sessions which count, and tenants start with their own latest maxima."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from numpy.typing import NDArray

from models.calibration import location_scale
from stream.state.schema import (
    KINDS,
    KNOWN_ATTACK,
    NOVELTY,
    PROVENANCE,
    REMEMBERED,
    RING,
    SEQUENCE,
    SHARED,
    TOOL_NOVELTY,
)
from stream.training.calibrate import LOOK_ALIKES, Known, calibrate, flagged_share, rings
from stream.training.events import FOLDS, TrainingEvents


def drawn(sessions: int = 1200, tenants: int = 4, seed: int = 1) -> tuple[TrainingEvents, NDArray[np.float64]]:
    """Two events a session, tenants in turn, each with a level of its own; tools answer every other event.

    Where nobody's past is what counts, no tenant has a level, and most calls obey nothing.
    """
    rng = np.random.default_rng(seed)
    number = np.repeat(np.arange(sessions), 2)
    tenant = np.arange(sessions) % tenants
    scores = rng.gamma(4.0, 0.05, (len(number), len(KINDS))) + 0.3 * tenant[number, None] * ~SHARED
    scores[rng.random(len(number)) < 0.8, PROVENANCE] = 0
    scores[::2, TOOL_NOVELTY] = np.nan
    events = TrainingEvents(
        records=[],
        session=number,
        session_tenant=tenant,
        session_fold=np.arange(sessions) % FOLDS,
        tenants=[f"team-{i}" for i in range(tenants)],
        first_ms=0,
        last_ms=0,
        unreadable=0,
        sha256="",
    )
    return events, scores


def test_as_many_held_out_sessions_are_flagged_as_the_operating_point_says() -> None:
    events, scores = drawn()
    calibration, taken = calibrate(events, scores, grace_sessions=20, labelled=True)
    own = rings(events, taken, calibration)
    assert np.array_equal(taken, scores, equal_nan=True)
    for fpr in (0.01, 0.05):
        # Two binomial standard errors of 1,200 sessions are .006 and .013, and rings of 64 add to them.
        assert flagged_share(events, taken, calibration, own, fpr) == pytest.approx(fpr, abs=0.4 * fpr + 0.004)


def test_rings_hold_the_latest_maxima_of_each_tenant_where_the_table_would() -> None:
    events, scores = drawn()
    calibration, taken = calibrate(events, scores, grace_sessions=20, labelled=True)
    own = rings(events, taken, calibration)
    # What is judged against everyone alone has no ring.
    counts = np.zeros(len(KINDS), np.int64)
    counts[REMEMBERED] = 300
    assert own.counts.tolist() == [counts.tolist()] * 4
    others = np.setdiff1d(np.arange(len(KINDS)), REMEMBERED)
    assert PROVENANCE in others
    assert np.array_equal(own.location[:, others], np.tile(calibration.prior_location[others], (4, 1)))
    assert np.array_equal(own.scale[:, others], np.tile(calibration.prior_scale[others], (4, 1)))
    maxima = scores.reshape(-1, 2, len(KINDS))[2::4, :, NOVELTY].max(axis=1).astype(np.float32)
    for place in range(300 - RING, 300):
        assert own.maxima[2, NOVELTY, place % RING] == maxima[place]
    expected = location_scale(
        own.maxima[:, NOVELTY].astype(np.float64),
        np.full(4, RING),
        calibration.prior_location[NOVELTY],
        calibration.prior_scale[NOVELTY],
        20.0,
    )
    assert np.array_equal(own.location[:, NOVELTY], expected[0])
    assert np.array_equal(own.scale[:, NOVELTY], expected[1])


def test_tenants_within_their_grace_are_left_out() -> None:
    events, scores = drawn(sessions=400)
    few = events.session_tenant.copy()
    few[np.flatnonzero(few == 3)[10:]] = 0
    events = TrainingEvents(**{name: getattr(events, name) for name in events.__slots__} | {"session_tenant": few})
    strange = scores.copy()
    strange[few[events.session] == 3] += 100
    with_them, _ = calibrate(events, strange, grace_sessions=20, labelled=True)
    without, _ = calibrate(events, scores, grace_sessions=20, labelled=True)
    assert np.array_equal(with_them.tails[SEQUENCE].x, without.tails[SEQUENCE].x)
    alone, _ = calibrate(events, strange, grace_sessions=1000, labelled=True)
    assert not np.array_equal(alone.tails[SEQUENCE].x, without.tails[SEQUENCE].x)


def test_a_signal_that_the_input_never_gave_stays_silent() -> None:
    events, scores = drawn()
    scores[:, TOOL_NOVELTY] = np.nan
    calibration, taken = calibrate(events, scores, grace_sessions=20, labelled=True)
    own = rings(events, taken, calibration)
    location, scale = own.location[:1, TOOL_NOVELTY], own.scale[:1, TOOL_NOVELTY]
    assert calibration.p_values(TOOL_NOVELTY, np.array([1.0]), location, scale) == 1


def test_unlabelled_attacks_do_not_set_the_threshold_and_labelled_sessions_do() -> None:
    events, scores = drawn()
    attacked = scores.copy()
    attacked[:16] += 5  # 8 of 1,200 sessions
    share = {}
    for labelled in (True, False):
        calibration, taken = calibrate(events, attacked, grace_sessions=20, labelled=labelled)
        own = rings(events, taken, calibration)
        assert bool(np.nanmax(taken) < 3) is not labelled
        share[labelled] = flagged_share(events, attacked, calibration, own, 0.01)
    assert share[True] < share[False]
    assert share[False] >= 8 / 1200


def test_winsorising_input_without_attacks_costs_few_false_positives() -> None:
    shares = []
    for seed in range(3):
        events, scores = drawn(seed=seed)
        calibration, taken = calibrate(events, scores, grace_sessions=20, labelled=False)
        shares.append(flagged_share(events, scores, calibration, rings(events, taken, calibration), 0.01))
    # Each of the signals is winsorised, so that the more there are the more it costs, and the more the largest alone
    # decides: 4.1 % of eight that are independent (docs/decisions/0036).
    assert 0.008 <= np.mean(shares) <= 0.045


def test_of_sessions_that_somebody_called_benign_every_height_counts() -> None:
    events, scores = drawn()
    high = scores.copy()
    high[:16] += 5  # 8 of 1,200 sessions
    believed = np.zeros(1200, np.bool_)
    believed[:4] = True
    some = replace(events, session_believed=believed)
    _, taken = calibrate(some, high, grace_sessions=20, labelled=False)
    assert np.array_equal(taken[:8], high[:8], equal_nan=True)
    assert np.nanmax(taken[8:16]) < 3
    every = replace(events, session_believed=np.ones(1200, np.bool_))
    _, taken = calibrate(every, high, grace_sessions=20, labelled=False)
    assert np.array_equal(taken, high, equal_nan=True)


def test_the_first_harmless_message_that_looks_like_an_attack_is_not_the_strangest_thing_ever() -> None:
    events, scores = drawn()
    scores[:, KNOWN_ATTACK] = 0
    look_alikes = np.random.default_rng(1).gamma(2.0, 0.5, 900)
    alone, _ = calibrate(events, scores, grace_sessions=20, labelled=True)
    beside, _ = calibrate(
        events, scores, grace_sessions=20, labelled=True, known=Known(look_alikes={"known_attack": look_alikes})
    )
    half = np.array([np.median(look_alikes)])
    # Half of the look-alikes, which so many sessions are taken to hold.
    share = LOOK_ALIKES["known_attack"]
    assert beside.tails[KNOWN_ATTACK].survival(half)[0] == pytest.approx(share / 2, rel=0.2)
    assert alone.tails[KNOWN_ATTACK].survival(half)[0] < share / 4
    assert np.array_equal(alone.tails[SEQUENCE].x, beside.tails[SEQUENCE].x)
