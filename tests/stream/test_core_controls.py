"""Controls take effect: rules say what is not found, verdicts what is learned and who is judged more strictly."""

from __future__ import annotations

from dataclasses import replace
from random import Random
from typing import Any

import numpy as np
import orjson
import pytest

from models.drift import DIMENSIONS
from schemas.finding import revision_uid
from stream.config import DecisionSettings, FindingsSettings, LearningSettings, Settings
from stream.core import Core
from stream.errors import StateError
from stream.inputs import Applied, InputBatch
from stream.record import Record
from stream.state.schema import SEQUENCE, VOLUME
from stream.steps.rings import ADOPTED_SESSIONS
from tests.doubles import WordEmbedder
from tests.stream.controls import DAY_MS, applied, begin, control, end, rule, switch, verdict
from tests.stream.releases import release
from tests.stream.streams import SETTINGS, START_MS, TOPIC, Said, cut, event, record, run, stream, text, tick

MINUTE_MS = 60_000
FOUND = replace(
    SETTINGS,
    decision=DecisionSettings(session_fpr=1.0),
    learning=LearningSettings(grace_sessions=0, quarantine_days=0.5),
    findings=FindingsSettings(quiet_ms=10 * MINUTE_MS),
)
"""Everything is an anomaly; what is flagged is held back for half a day."""


def core(settings: Settings = FOUND) -> Core:
    return Core(settings, release(reading=True), WordEmbedder())


def restored(said: Said, settings: Settings = FOUND) -> Core:
    fresh = core(settings)
    for partition, rows in said.rows.items():
        fresh.restore(partition, rows)
    return fresh


def told(number: int, at_ms: int, said: str = "", *, session: str = "s0", **more: Any) -> Record:
    """An event of `team-0`."""
    words = said or f"{number} words {number} of {number} its own"
    value = event(number, START_MS + at_ms, [text("user", words)], tenant="team-0", session=session, **more)
    return record(number, value)


def step(live: Core, said: Said, *batches: InputBatch | Record | dict[str, Any]) -> Said:
    for batch in batches:
        if isinstance(batch, Record):
            batch = InputBatch([batch], topic=TOPIC)
        elif isinstance(batch, dict):
            batch = applied(batch)
        run(live, [batch], said)
    return said


def decisions(said: Said) -> list[str]:
    return [score["decision"] for score in said.scored()]


def rows_of(said: Said, kind: str) -> dict[str, dict[str, Any]]:
    """What is left of a kind, by the last of its ids."""
    latest = {key: value for rows in said.rows.values() for key, value in rows}
    named = {tuple(orjson.loads(key)): value for key, value in latest.items() if value is not None}
    return {key[-1]: orjson.loads(value) for key, value in named.items() if key[0] == kind}


def held_back(said: Said) -> int:
    """Segments in quarantine."""
    return sum(len(value["segments"]) * 3 // 4 // 21 for value in rows_of(said, "quarantine").values())


def activities(said: Said) -> list[tuple[int, int, int]]:
    """Of each finding record its activity, its revision and its count."""

    def revision(found: dict[str, Any]) -> int:
        uid = found["finding_info"]["uid"]
        return next(i for i in range(1, 20) if revision_uid(uid, i) == found["metadata"]["uid"])

    return [(found["activity_id"], revision(found), found["count"]) for found in said.found()]


# -- controls ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "value",
    [
        {"kind": "nap", "value": {}, "time_ms": 1, "issuer": "x"},
        {"kind": "exception", "value": {"rule": {"action": "exception"}}, "time_ms": 1, "issuer": "x"},
        {"kind": "exception", "value": [], "time_ms": 1, "issuer": "x"},
        {"kind": "verdict", "value": {}, "issuer": "x"},
        {"kind": "release", "release": "r-evil"},
        {"raw": "no JSON"},
        verdict(rule=rule(tenant="team-1")),
        switch("r-unknown"),
    ],
)
def test_what_cannot_take_effect_is_journalled_as_it_lay_there_and_changes_nothing(value: dict[str, Any]) -> None:
    live = core()
    outcome = live.step(InputBatch([], [Applied(0, "control", value, 6)], topic=TOPIC))
    assert outcome.counts["controls_ignored"] == 1
    entry = orjson.loads(outcome.journal[0].value)
    assert (entry["control_offset"], entry["value"]) == (6, {**value, "ignored": True})
    cursor = live.cursor(0)
    assert cursor is not None
    assert (cursor.next_control, cursor.release) == (7, "r-test")
    assert [orjson.loads(change.key) for change in outcome.changes] == [["cursor"]]
    # Nor does it when a replay repeats it.
    again = core()
    repeated = again.step(InputBatch([], [Applied(0, "control", entry["value"], 6)], topic=TOPIC))
    assert [each.value for each in repeated.journal] == [each.value for each in outcome.journal]


def test_cursor_tells_with_what_the_partition_was_started() -> None:
    live = core()
    live.step(InputBatch([], [Applied(0, "start", {"release": "r-test", "given": "r-given"})], topic=TOPIC))
    cursor = live.cursor(0)
    assert cursor is not None
    assert (cursor.release, cursor.given) == ("r-test", "r-given")
    said = step(live, Said(), begin())
    again = restored(said).cursor(0)
    assert again is not None
    assert again.given == "r-given"


# -- rules -------------------------------------------------------------------------------------------------------------


def test_exception_is_not_found_and_learned_as_normal() -> None:
    live = core()
    said = step(live, Said(), begin(), told(1, 0), told(2, 1))
    assert decisions(said) == ["suppressed"] * 2
    assert {score["learned"] for score in said.scored()} == {"yes"}
    assert not said.found()
    assert not rows_of(said, "quarantine")


def test_suppression_is_not_found_and_held_back() -> None:
    said = step(core(), Said(), begin(action="suppression"), told(1, 0))
    assert decisions(said) == ["suppressed"]
    assert {score["learned"] for score in said.scored()} == {"quarantined"}
    assert not said.found()
    assert held_back(said) > 0


@pytest.mark.parametrize(
    ("of_rule", "matches"),
    [
        ({}, True),
        ({"tenant": "team-1"}, False),
        ({"session": "s0"}, True),
        ({"session": "s1"}, False),
        ({"key_hash": "k1"}, True),
        ({"key_hash": "k2"}, False),
        ({"signal": "drift"}, False),
        ({"until_ms": START_MS + 5}, False),
        ({"until_ms": START_MS + 6}, True),
    ],
)
def test_rule_reaches_what_it_names_until_it_ends(of_rule: dict[str, Any], matches: bool) -> None:
    said = step(core(), Said(), begin(**of_rule), told(1, 5, key_hash="k1"))
    assert decisions(said) == ["suppressed" if matches else "finding"]


def test_rule_of_a_signal_reaches_what_is_rarest_by_it() -> None:
    cause = min(
        (p, kind) for kind, p in step(core(), Said(), told(1, 0)).scored()[0]["p"].items()
    )[1]  # fmt: skip
    assert decisions(step(core(), Said(), begin(signal=cause), told(1, 0))) == ["suppressed"]


def test_rule_ends_by_its_id_or_by_time_and_its_row_goes() -> None:
    live = core()
    said = step(live, Said(), begin(), begin(rule_id="x-2", until_ms=START_MS + 10))
    assert set(rows_of(said, "rule")) == {"x-1", "x-2"}
    step(live, said, told(1, 10), end(), told(2, 11))
    assert decisions(said) == ["suppressed", "finding"]
    assert not rows_of(said, "rule")


def test_exception_says_more_than_a_suppression_and_that_more_than_a_snooze() -> None:
    rules = [begin(rule_id=f"x-{i}", action=action) for i, action in enumerate(("snooze", "suppression", "exception"))]
    said = step(core(), Said(), *rules, told(1, 0))
    assert {score["learned"] for score in said.scored()} == {"yes"}


@pytest.mark.parametrize("by", [{"session": "s0"}, {"key_hash": "k1"}])
def test_snoozed_finding_counts_silently_and_tells_of_it_afterwards(by: dict[str, str]) -> None:
    live = core()
    until_ms = START_MS + 30 * MINUTE_MS
    said = step(live, Said(), told(1, 0, key_hash="k1"), begin(action="snooze", until_ms=until_ms, **by))
    for number in range(2, 12):
        step(live, said, told(number, 2 * MINUTE_MS * number, key_hash="k1"))
    assert activities(said) == [(1, 1, 1)]
    assert decisions(said) == ["finding"] + ["suppressed"] * 10
    step(live, said, told(20, 31 * MINUTE_MS, key_hash="k1"))
    assert activities(said)[1:] == [(2, 2, 12)]


def test_snoozed_finding_that_stays_quiet_is_closed_when_the_snooze_ends() -> None:
    live = core()
    until_ms = START_MS + 30 * MINUTE_MS
    said = step(live, Said(), told(1, 0), begin(action="snooze", session="s0", until_ms=until_ms))
    step(live, said, tick(0, until_ms - 1))
    assert activities(said) == [(1, 1, 1)]
    step(restored(said), said, tick(0, until_ms))
    assert activities(said)[1:] == [(3, 2, 1)]
    assert said.found()[-1]["time"] == until_ms


def test_snooze_that_is_taken_back_lets_its_finding_close() -> None:
    live = core()
    snoozes = [begin(rule_id=f"x-{i}", action="snooze", session="s0") for i in (1, 2)]
    said = step(live, Said(), told(1, 0), *snoozes, tick(0, START_MS + 20 * MINUTE_MS), end("x-1"))
    step(live, said, tick(0, START_MS + 21 * MINUTE_MS))
    assert activities(said) == [(1, 1, 1)]
    step(live, said, end("x-2"), tick(0, START_MS + 22 * MINUTE_MS))
    assert activities(said)[1:] == [(3, 2, 1)]


def test_anomaly_opens_a_finding_after_a_snooze_without_one() -> None:
    live = core()
    said = step(live, Said(), begin(action="snooze", session="s0", until_ms=START_MS + 10), told(1, 0), told(2, 10))
    assert decisions(said) == ["suppressed", "finding"]
    assert activities(said) == [(1, 1, 1)]


# -- verdicts: what is held back ---------------------------------------------------------------------------------------


def memory(live: Core) -> int:
    """Segments that the tenant remembers."""
    return int(live.export_tenants()[1]["used"][0])


def flagged(live: Core) -> Said:
    """Three sessions of two keys, all of them held back."""
    records = [
        told(i, i, session=session, key_hash=key)
        for i, (session, key) in enumerate([("s0", "k1"), ("s1", "k1"), ("s2", "k2")])
    ]
    said = run(live, cut(records, 2))
    assert (memory(live), held_back(said)) == (0, 3)
    return said


def until_learned(live: Core, said: Said, at_ms: int = 100) -> None:
    """The tenant, whose warm row has 40 events, goes on past its next learn point with what it knows."""
    step(live, said, begin(rule_id="off", session="other"))
    for number in range(100, 130):
        step(live, said, told(number, at_ms + number, "hello", session="other"))


@pytest.mark.parametrize(("scope", "left"), [("session", 2), ("event", 2), ("entity", 1), ("tenant", 0)])
def test_admitted_content_is_learned_at_the_next_learn_point(scope: str, left: int) -> None:
    live = core()
    said = flagged(live)
    step(live, said, verdict("admit", key_hash="k1", scope=scope))
    assert held_back(said) == 3
    again = restored(said)
    for each, what in ((live, said), (again, Said())):
        until_learned(each, what)
        # What the other session says is one segment more.
        assert memory(each) == 1 + 3 - left


@pytest.mark.parametrize(("scope", "left"), [("session", 2), ("entity", 1), ("tenant", 0)])
def test_content_kept_out_is_dropped_and_what_follows_is_not_kept(scope: str, left: int) -> None:
    live = core()
    said = flagged(live)
    step(live, said, verdict("keep_out", key_hash="k1", scope=scope))
    assert held_back(said) == left
    more = [
        told(10 + i, 10 + i, session=session, key_hash=key)
        for i, (session, key) in enumerate([("s0", "k1"), ("s1", "k1"), ("s2", "k2")])
    ]
    run(live, [InputBatch(more, topic=TOPIC)], said)
    assert held_back(said) == 2 * left
    # For as long as quarantine lasts.
    run(live, [InputBatch([told(20, DAY_MS, session="s0", key_hash="k1")], topic=TOPIC)], said)
    assert held_back(said) == 2 * left + 1
    assert not rows_of(said, "verdict")


def test_later_verdict_ends_what_the_earlier_one_kept_out() -> None:
    live = core()
    said = flagged(live)
    step(live, said, verdict("keep_out"), verdict("admit"), told(10, 10, session="s0"))
    assert held_back(said) == 3


def test_the_same_control_twice_changes_nothing() -> None:
    live = core()
    said = flagged(live)
    admitted = verdict("admit", scope="tenant", risk_ms=1000, rule=rule(session="s9"))
    step(live, said, admitted, told(10, 10, session="s3"))
    before = dict(said.rows[0])
    outcome = live.step(applied(admitted, 1))
    assert [orjson.loads(change.key) for change in outcome.changes] == [["cursor"]]
    assert rows_of(said, "verdict")["f" * 32]["risk_until_ms"] == START_MS + 2 + 1000
    assert before.keys() == dict(said.rows[0]).keys()


# -- verdicts: risk and rules ------------------------------------------------------------------------------------------

STRICT = replace(FOUND, decision=DecisionSettings(session_fpr=0.02))


def points(settings: Settings, *batches: Any) -> list[float]:
    """Operating points of the events."""
    seen: list[float] = []
    live = Core(
        settings,
        release(reading=True),
        WordEmbedder(),
        watch=lambda scored, _: seen.extend(scored.given.operating_point.tolist()),
    )
    step(live, Said(), *batches)
    return seen


def test_who_is_at_risk_is_judged_more_strictly_for_its_time() -> None:
    of_key = verdict("keep_out", key_hash="k1", risk_ms=100)
    events = [
        told(1, 0, key_hash="k1", session="s8"),
        told(2, 50, key_hash="k2", session="s0"),
        told(3, 99, key_hash="k1", session="s9"),
        told(4, 100, key_hash="k1", session="s9"),
    ]
    first = told(0, 0, key_hash="k1")
    for batches in (events, [InputBatch(events, topic=TOPIC)]):
        assert points(STRICT, first, of_key, *batches) == [0.02, 0.06, 0.02, 0.06, 0.02]
    # A later control of the finding ends it.
    assert points(STRICT, first, of_key, verdict("keep_out", key_hash="k1"), events[0]) == [0.02, 0.02]


def test_without_a_key_the_session_is_at_risk() -> None:
    assert points(STRICT, verdict("keep_out", risk_ms=100), told(1, 0), told(2, 1, session="s1")) == [0.06, 0.02]


def test_risk_never_makes_an_operating_point_laxer_than_a_fifth_unless_it_was() -> None:
    for fpr, wanted in ((0.1, 0.2), (0.5, 0.5)):
        settings = replace(FOUND, decision=DecisionSettings(session_fpr=fpr))
        assert points(settings, verdict("keep_out", risk_ms=100), told(1, 0)) == [wanted]


def test_verdict_begins_an_exception_and_a_later_one_ends_it() -> None:
    live = core()
    said = step(live, Said(), verdict("admit", rule=rule(session="s0")), told(1, 0), told(2, 1, session="s1"))
    assert decisions(said) == ["suppressed", "finding"]
    step(live, said, verdict("admit", rule=rule("x-2", session="s1")), told(3, 2), told(4, 3, session="s1"))
    assert decisions(said)[2:] == ["finding", "suppressed"]
    step(restored(said), said, verdict("keep_out"), told(5, 4, session="s1"))
    assert decisions(said)[4:] == ["finding"]
    assert not rows_of(said, "rule")


def test_verdict_does_not_end_a_rule_that_somebody_began() -> None:
    live = core()
    said = step(live, Said(), begin(finding_uid="f" * 32), verdict("keep_out"), told(1, 0))
    assert decisions(said) == ["suppressed"]


# -- verdicts: a new normal --------------------------------------------------------------------------------------------


def test_adopted_traffic_is_the_tenant_s_normal() -> None:
    live = core()
    records = [told(i, i * 2 * MINUTE_MS, session=f"s{i}", prompt_tokens=400 + i) for i in range(70)]
    said = run(live, cut(records, 20))
    before = {name: column[0].copy() for name, column in live.export_tenants()[1].items()}
    assert before["maxima_count"][SEQUENCE] > ADOPTED_SESSIONS < before["maxima_count"][VOLUME]
    assert before["volume_gauges"].any()
    step(live, said, verdict("admit", adopt=True, entity_type="tenant", session=None, scope="tenant"))
    after = {name: column[0] for name, column in live.export_tenants()[1].items()}
    assert after["maxima_count"][[SEQUENCE, VOLUME]].tolist() == [ADOPTED_SESSIONS, 0]
    count = int(before["maxima_count"][SEQUENCE])
    latest = [before["maxima"][SEQUENCE, at % 64] for at in range(count - ADOPTED_SESSIONS, count)]
    assert after["maxima"][SEQUENCE, :ADOPTED_SESSIONS].tolist() == latest
    assert after["location"][VOLUME] == release(reading=True).calibration.prior_location[VOLUME]
    assert not after["volume_gauges"].any()
    assert after["drift_parts"].tolist() == [0] * DIMENSIONS
    assert not after["drift_detectors"].any()
    again = restored(said).export_tenants()[1]
    for name, column in after.items():
        # Time is a warm row's own.
        assert np.array_equal(column, again[name][0]), name


# -- rows --------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["rule", "verdict"])
def test_row_that_is_none_is_refused(kind: str) -> None:
    with pytest.raises(StateError, match=f"{kind} row .* in partition 0 cannot be read"):
        core().restore(0, [(b'["cursor"]', core_cursor()), (orjson.dumps([kind, "x"]), b'{"v":1}')])


def core_cursor() -> bytes:
    rows = run(core(), [tick(0, START_MS)]).rows[0]
    return dict(rows)[b'["cursor"]'] or b""


# -- however it is cut -------------------------------------------------------------------------------------------------

RECORDS = stream(31, 260)
EAGER = replace(
    SETTINGS,
    decision=DecisionSettings(session_fpr=0.3),
    learning=LearningSettings(grace_sessions=2, quarantine_days=3 * MINUTE_MS / DAY_MS),
)
_LAST_MS = max(record.timestamp_ms for record in RECORDS)


def script() -> dict[int, list[dict[str, Any]]]:
    """Before which record each control comes; they cross partitions, tenants and sessions."""
    soon, later = START_MS + (_LAST_MS - START_MS) // 2, _LAST_MS
    effect = {"session": "séance 1", "tenant": "team-1"}
    return {
        30: [begin(rule_id="a", tenant="team-1", session="séance 0", until_ms=later)],
        60: [begin(rule_id="b", tenant="team-0", action="snooze", until_ms=soon), verdict("keep_out", **effect)],
        100: [verdict("admit", finding_uid="a" * 32, scope="tenant", tenant="team-0", risk_ms=10 * MINUTE_MS)],
        150: [begin(rule_id="c", tenant="team-2", action="suppression", until_ms=later), verdict("admit", **effect)],
        190: [verdict("admit", finding_uid="b" * 32, adopt=True, tenant="team-2", risk_ms=1_000), end("a")],
    }


def cut_at_controls(random: Random | int) -> list[InputBatch]:
    """The stream with its controls in every partition, cut at random, or in so many records."""
    out, at, offset = [], 0, 0
    for place, controls in [*script().items(), (len(RECORDS), [])]:
        while at < place:
            size = random if isinstance(random, int) else random.choice([1, 3, 40])
            out.append(InputBatch(RECORDS[at : min(at + size, place)], topic=TOPIC))
            at = min(at + size, place)
        given = [
            Applied(partition, "control", value, offset + i)
            for i, value in enumerate(controls)
            for partition in range(3)
        ]
        offset += len(controls)
        out.append(InputBatch([], given, topic=TOPIC))
    return out


@pytest.fixture(scope="module")
def whole() -> Said:
    return run(core(EAGER), cut_at_controls(2_000))


def test_the_stream_meets_every_rule_and_every_effect(whole: Said) -> None:
    assert whole.counts["suppressed"] > 5
    without = run(core(EAGER), cut(RECORDS, 2_000))
    assert without.results() != whole.results()


@pytest.mark.parametrize("size", [1, 7])
def test_batches_of_any_size_give_the_same_bytes(whole: Said, size: int) -> None:
    assert run(core(EAGER), cut_at_controls(size)).results() == whole.results()


@pytest.mark.parametrize("seed", range(3))
def test_restored_at_random_cuts_gives_the_same_bytes(whole: Said, seed: int) -> None:
    random, said, live = Random(seed), Said(), core(EAGER)
    for batch in cut_at_controls(Random(seed)):
        if random.random() < 0.4:
            live = restored(said, EAGER)
        run(live, [batch], said)
    assert said.results() == whole.results()


def nested(depth: int) -> Any:
    value: Any = []
    for _ in range(depth):
        value = [value]
    return value


@pytest.mark.parametrize(
    "odd",
    [
        control("exception", {"remove": "x-1"}, time_ms=2**65),
        control("exception", {"remove": "x-1", "n": 2**65}),
        control("exception", {"remove": "x-1", "n": nested(300)}),
        control("exception", {"remove": "x-1", "n": nested(30_000)}),
        control("exception", {"remove": "\ud800"}),
        verdict("keep_out", risk_ms=2**70),
        {**control("exception", {"remove": "x-1"}), 3: "no name"},  # type: ignore[misc]
        control("exception", {"remove": {1, 2}}),
    ],
    ids=range(8),
)
def test_control_that_no_journal_can_hold_is_ignored_without_its_value(odd: dict[str, Any]) -> None:
    live, said = core(), Said()
    step(live, said, begin())
    outcome = live.step(applied(odd, 1))
    step(live, said, told(1, 0))
    refused = {"kind": "unreadable", "refused": "no control: it cannot be written as JSON", "ignored": True}
    assert orjson.loads(outcome.journal[0].value)["value"] == refused
    assert outcome.counts["controls_ignored"] == 1
    # The rule before it stands.
    assert decisions(said) == ["suppressed"]


def test_control_of_a_time_beyond_every_clock_is_ignored() -> None:
    said = step(core(), Said(), control("exception", {"rule": rule()}, time_ms=2**60), begin(until_ms=-1), told(1, 0))
    assert said.counts["controls_ignored"] == 2
    assert decisions(said) == ["finding"]
