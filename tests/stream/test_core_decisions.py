"""What becomes of an anomaly: a finding, or nothing, for a reason that its score tells."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from dataclasses import replace
from functools import cache
from random import Random

import numpy as np
import orjson
import pytest
from numpy.typing import NDArray

from stream.config import BudgetSettings, DecisionSettings, FindingsSettings, LearningSettings, Settings
from stream.core import Core
from stream.inputs import InputBatch
from stream.record import Record
from stream.release import Release
from stream.state.schema import SHARED
from stream.steps.drift import DriftStep, Moved
from tests.doubles import WordEmbedder
from tests.stream.releases import random_bank, release
from tests.stream.streams import SETTINGS, START_MS, Said, cut, event, record, run, stream, text

DAY_MS = 86_400_000
BUDGET = replace(
    SETTINGS,
    decision=DecisionSettings(mode="budget"),
    # A finding is closed before the tenant's next event, which is then a new one.
    findings=FindingsSettings(quiet_ms=1_000),
    learning=LearningSettings(grace_sessions=0),
    budget=BudgetSettings(findings_per_day=10.0, critical_reserve=0.2),
)
EXCEPTED = replace(SETTINGS, decision=DecisionSettings(session_fpr=0.5, exceptions={"team-1": "its work are attacks"}))


@cache
def _reading(sessions_per_day: float) -> Release:
    """A release that was trained on so many sessions a day, of two tenants."""
    each = {"team-0": 0.75 * sessions_per_day, "team-1": 0.25 * sessions_per_day}
    return replace(release(reading=True), sessions_per_day=each)


def core(settings: Settings, made: Release | None = None) -> Core:
    return Core(settings, made or release(reading=True), WordEmbedder())


def strange(number: int, at_ms: int, tenant: str = "team-0") -> Record:
    """A session of one event, in which nothing was said before: strange to any past."""
    words = " ".join(f"{number}-{i}" for i in range(60))
    value = event(number, START_MS + at_ms, [text("user", words)], tenant=tenant, session=f"s{number}")
    return record(number, value)


def decided(said: Said, tenant: str) -> Counter[str]:
    return Counter(score["decision"] for score in said.scored() if score["tenant"] == tenant)


def alone(records: Iterable[Record]) -> Iterable[InputBatch]:
    return cut(list(records), 1)


# -- newcomers ---------------------------------------------------------------------------------------------------------


def _first_sessions(grace_sessions: int, made: Release) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """P-values of the same events of a tenant that the release was trained on, and of one that it was not.

    Neither has a warm row. What signals say that need no past is nothing in most of this stream, and is moved to where
    it is something: by forty of their units, on which the p-values asserted below depend.
    """
    nearer = made.calibration.prior_location - np.where(SHARED, 40.0, 0.0)
    made = replace(made, calibration=replace(made.calibration, prior_location=nearer, newcomer_nats=1.1))
    settings = replace(SETTINGS, learning=LearningSettings(grace_sessions=grace_sessions))
    first = [each for each in stream(11, 400) if b'"team-1"' in (each.value or b"")][:60]
    renamed = [replace(each, value=(each.value or b"").replace(b'"team-1"', b'"team-9"')) for each in first]
    known, newcomer = (
        np.array([score["p_combined"] for score in run(core(settings, made), alone(own)).scored()], np.float64)
        for own in (first, renamed)
    )
    return known, newcomer


def test_it_takes_more_in_a_tenants_first_sessions_where_the_release_has_learned_nothing_of_it() -> None:
    known, newcomer = _first_sessions(100, _reading(100.0))
    assert (known < 0.3).sum() > 3
    # exp(1.1) is 3.004.
    assert newcomer == pytest.approx(np.minimum(3.004 * known, 1), rel=1e-3, nan_ok=True)


def test_nobody_is_new_after_the_grace_period_nor_to_a_release_that_knows_the_name() -> None:
    made = _reading(100.0)
    # Of events after it the bank's adapter tells the two tenants apart, so both have that of nobody.
    assert np.array_equal(*_first_sessions(0, replace(made, bank=random_bank(tenants=0), adapters={})), equal_nan=True)
    # One that was trained on both, with one adapter.
    both = replace(made, adapters={**made.adapters, "team-9": made.adapters["team-1"]})
    assert np.array_equal(*_first_sessions(100, both), equal_nan=True)


# -- exceptions --------------------------------------------------------------------------------------------------------


def test_nothing_is_found_of_an_excepted_tenant_and_its_scores_say_so() -> None:
    records = stream(11, 400)
    everyone = run(core(replace(EXCEPTED, decision=DecisionSettings(session_fpr=0.5))), cut(records, 50))
    said = run(core(EXCEPTED), cut(records, 50))
    assert decided(everyone, "team-1")["finding"] > 3
    # What would have been found is suppressed, and everybody else has what they had.
    assert decided(said, "team-1") == Counter(
        {("suppressed" if name == "finding" else name): n for name, n in decided(everyone, "team-1").items()}
    )
    for tenant in ("team-0", "team-2"):
        assert decided(said, tenant) == decided(everyone, tenant)
    assert said.counts["suppressed"] == decided(said, "team-1")["suppressed"]
    assert "team-1" not in {finding["metadata"]["tenant_uid"] for finding in said.found()}
    assert {score["finding_uid"] for score in said.scored() if score["decision"] == "suppressed"} == {None}


def test_what_is_suppressed_is_held_back_from_the_memory_as_what_is_found_is() -> None:
    said = run(core(EXCEPTED), cut(stream(11, 400), 50))
    assert {score["learned"] for score in said.scored() if score["decision"] == "suppressed"} == {"quarantined"}


# -- a budget ----------------------------------------------------------------------------------------------------------


def test_a_tenant_s_findings_end_with_its_share_of_the_day() -> None:
    # 10 a day less 20 % for critical ones, 80 % of that for known tenants, 75 % of those for this one: 4.8. One more is
    # of the partition's reserve, as these are all critical.
    one_day = [strange(i, 10_000 * i) for i in range(20)]
    said = run(core(BUDGET, _reading(100.0)), alone(one_day))
    assert {finding["severity_id"] for finding in said.found()} == {5}
    left = decided(said, "team-0")
    assert left == Counter({"finding": 4 + 1, "over_budget": 15})
    assert said.counts["over_budget"] == left["over_budget"]
    dropped = [score for score in said.scored() if score["decision"] == "over_budget"]
    assert {(score["finding_uid"], score["learned"]) for score in dropped} == {(None, "quarantined")}


def test_a_new_day_brings_new_findings() -> None:
    told = core(BUDGET, _reading(100.0))
    first = run(told, alone([strange(i, 10_000 * i) for i in range(20)]))
    later = run(told, alone([strange(20 + i, 2 * DAY_MS + 10_000 * i) for i in range(20)]))
    assert decided(first, "team-0")["over_budget"] > 5
    # Its own 4.8, and of what nobody had room for in two days as much as a day brings this partition, not the tenants'
    # home: 4.8, and an eighth of the 0.8 for unknown tenants, the 0.8 for drift and the 2 for critical ones.
    assert decided(later, "team-0")["finding"] == int(4.8) + int(4.8 + 0.8 / 8 + 0.8 / 8 + 2 / 8)


def test_how_much_of_the_budget_is_used_is_told() -> None:
    assert core(EXCEPTED).budget_used() == 0
    told = core(BUDGET, _reading(100.0))
    assert told.budget_used() == 0
    run(told, alone([strange(i, 10_000 * i) for i in range(20)]))
    # 4 of 4.8 are spent, and the critical one; nobody has spent the pool's or drift's. Each of the small ones has room
    # for one.
    assert told.budget_used() == pytest.approx((4 + 1) / (4.8 + 1 + 1 + 1), abs=0.01)


def test_updates_of_an_open_finding_cost_nothing() -> None:
    settings = replace(BUDGET, findings=FindingsSettings(quiet_ms=DAY_MS))
    session = [record(i, {**orjson.loads(strange(i, 1_000 * i).value or b""), "session": "one"}) for i in range(30)]
    said = run(core(settings, _reading(100.0)), alone(session))
    assert decided(said, "team-0") == Counter({"finding": 30})
    assert [finding["activity_id"] for finding in said.found()] == [1, *[2] * 29]


def test_the_operating_point_follows_from_the_budget_and_the_sessions_of_a_day() -> None:
    """Where there are few sessions there is room for what is less strange."""
    records = stream(13, 300)
    busy, quiet = (run(core(BUDGET, _reading(sessions)), cut(records, 50)) for sessions in (80_000.0, 50.0))

    def anomalous(said: Said) -> int:
        return sum(said.counts.get(name, 0) for name in ("finding", "over_budget"))

    # 8 of 80,000 sessions are 0.0001 of them, and 8 of 50 are 0.16.
    for said, fpr in ((busy, 1e-4), (quiet, 0.16)):
        scored = [score for score in said.scored() if score["p_combined"] is not None]
        assert anomalous(said) == sum(score["p_combined"] <= fpr for score in scored)
    assert anomalous(busy) < anomalous(quiet)


def test_drift_that_the_budget_drops_is_counted_though_no_score_tells_of_it(monkeypatch: pytest.MonkeyPatch) -> None:
    moves: list[int] = []

    def moving(step: DriftStep, window: object, due: NDArray[np.int64], *_: object) -> list[Moved]:
        moves.extend(due.tolist())
        return [Moved(0, int(at), "prompt tokens", 1.0, 2.0, 3.0) for at in due]

    monkeypatch.setattr(DriftStep, "learn", moving)
    said = run(core(BUDGET, _reading(100.0)), alone([strange(i, 10_000 * i) for i in range(120)]))
    drifts = [
        finding
        for finding in said.found()
        if finding["unmapped"]["entity_type"] == "tenant" and finding["activity_name"] == "Create"
    ]
    told = decided(said, "team-0")["over_budget"]
    # Drift's own share has room for one: attacks have spent what its tenant has.
    assert len(drifts) == 1 < len(moves)
    assert said.counts["over_budget"] - told == len(moves) - len(drifts)


@pytest.mark.parametrize("settings", [BUDGET, EXCEPTED], ids=["budget", "exceptions"])
@pytest.mark.parametrize("seed", range(4))
def test_decisions_are_the_same_bytes_however_a_stream_is_cut_and_wherever_it_is_restored(
    settings: Settings, seed: int
) -> None:
    made = _reading(50.0)
    records = stream(seed, 400)
    whole = run(core(settings, made), cut(records, len(records)))
    random = Random(seed)
    said, live = Said(), core(settings, made)
    for batch in cut(records, [random.choice([1, 3, 30]) for _ in range(400)]):
        said = run(live, [batch], said)
        if random.random() < 0.15:
            live = core(settings, made)
            for partition, rows in said.rows.items():
                live.restore(partition, rows)
    assert said.results() == whole.results()
    wanted = "over_budget" if settings is BUDGET else "suppressed"
    assert said.counts[wanted] > 0
    assert said.counts["finding"] > 0


def test_a_cursor_that_was_read_does_not_change_with_what_comes_after() -> None:
    live = core(BUDGET, _reading(100.0))
    run(live, alone([strange(0, 0)]))
    cursor = live.cursor(0)
    assert cursor is not None
    before = {name: (each.left, each.core_ms) for name, each in cursor.allowances.items()}
    assert before
    run(live, alone([strange(i, 10_000 * i) for i in range(1, 4)]))
    assert {name: (each.left, each.core_ms) for name, each in cursor.allowances.items()} == before
