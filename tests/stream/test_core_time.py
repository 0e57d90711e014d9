"""Time in the core: lateness, clamping, timers, ticks, duplicates."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import orjson
import pytest

from stream.config import DecisionSettings, LearningSettings, Settings
from stream.core import Core
from stream.inputs import Applied, InputBatch, Outcome
from stream.record import Record
from tests.doubles import WordEmbedder
from tests.stream.releases import release
from tests.stream.streams import QUIET_MS, SETTINGS, START_MS, TOPIC, event, record, run, text, tick

EVERYTHING_FOUND = replace(
    SETTINGS, decision=DecisionSettings(session_fpr=1.0), learning=LearningSettings(grace_sessions=0)
)
"""Every event is an anomaly from the first one on."""
FINDING_QUIET_MS = SETTINGS.findings.quiet_ms


def core(settings: Settings = SETTINGS) -> Core:
    return Core(settings, release(), WordEmbedder())


def said(number: int, after_ms: int, session: str = "s") -> dict[str, Any]:
    return event(number, START_MS + after_ms, [text("user", f"words of event {number}")], session=session)


def step(of: Core, *records: Record) -> Outcome:
    return of.step(InputBatch(records, topic=TOPIC))


def score_of(outcome: Outcome, at: int = 0) -> dict[str, Any]:
    read: dict[str, Any] = orjson.loads(outcome.scores[at].value)
    return read


def found(outcome: Outcome) -> list[tuple[int, int, int]]:
    """Offset, activity and time of each finding record."""
    out = []
    for finding in outcome.findings:
        value = orjson.loads(finding.value)
        out.append((finding.source[2], value["activity_id"], value["time"] - START_MS))
    return out


def session_rows(outcome: Outcome) -> dict[str, bool]:
    """Sessions whose row changed -> whether they are open."""
    keys = [(orjson.loads(change.key), change.value) for change in outcome.changes]
    return {key[2]: value is not None for key, value in keys if key[0] == "session"}


# -- lateness and clamping ---------------------------------------------------------------------------------------------


def test_late_event_is_scored_and_never_moves_time_back() -> None:
    live = core()
    step(live, record(0, said(1, 60_000)))
    outcome = step(live, record(1, said(2, 60_000 - SETTINGS.core.lateness_ms - 1)))
    assert score_of(outcome)["late"] is True
    assert (score_of(outcome)["decision"], set(score_of(outcome)["signals"])) == (
        "none",
        {"novelty", "sequence", "volume"},
    )
    cursor = live.cursor(0)
    assert cursor is not None and cursor.core_time_ms == START_MS + 60_000


def test_event_within_the_allowed_lateness_is_not_late() -> None:
    live = core()
    step(live, record(0, said(1, 60_000)))
    outcome = step(live, record(1, said(2, 60_000 - SETTINGS.core.lateness_ms)))
    assert score_of(outcome)["late"] is False


def test_event_dated_past_its_ingest_time_is_clamped_and_flagged() -> None:
    live, allowed = core(), SETTINGS.core.future_ms
    outcome = step(live, record(0, said(1, 10 * allowed), ingest_ms=START_MS))
    assert score_of(outcome)["clamped"] is True
    assert score_of(outcome)["event_time_ms"] == START_MS + allowed
    cursor = live.cursor(0)
    assert cursor is not None and cursor.core_time_ms == START_MS + allowed


def test_event_dated_just_within_the_allowance_keeps_its_time() -> None:
    outcome = step(core(), record(0, said(1, SETTINGS.core.future_ms), ingest_ms=START_MS))
    assert score_of(outcome)["clamped"] is False


def test_one_partition_s_time_does_not_move_another_s() -> None:
    live = core()
    step(live, record(0, said(1, 9 * QUIET_MS)), record(0, said(2, 0), partition=1))
    assert (live.cursor(0).core_time_ms, live.cursor(1).core_time_ms) == (START_MS + 9 * QUIET_MS, START_MS)  # type: ignore[union-attr]


# -- session timers ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("together", [True, False])
def test_quiet_session_closes_with_the_event_that_passes_its_time(together: bool) -> None:
    records = [
        record(0, said(1, 0, "quiet")),
        record(1, said(2, QUIET_MS - 1, "other")),
        record(2, said(3, QUIET_MS, "other")),
    ]
    live = core()
    if together:
        assert session_rows(step(live, *records)) == {"other": True}
        return
    assert session_rows(step(live, records[0])) == {"quiet": True}
    assert session_rows(step(live, records[1])) == {"other": True}
    assert session_rows(step(live, records[2])) == {"other": True, "quiet": False}


def test_session_that_goes_on_after_quiet_starts_anew() -> None:
    """The second of two sessions is beyond the grace period of one; the first event of all is within."""
    settings = replace(
        SETTINGS, decision=DecisionSettings(session_fpr=0.999999), learning=LearningSettings(grace_sessions=1)
    )
    for gap_ms, decision in ((QUIET_MS - 1, "warmup"), (QUIET_MS, "finding")):
        # Nothing that was said before: strange to any past.
        strange = [
            event(n, START_MS + after_ms, [text("user", " ".join(f"{n}-{i}" for i in range(30)))])
            for n, after_ms in ((1, 0), (2, gap_ms))
        ]
        outcome = step(core(settings), record(0, strange[0]), record(1, strange[1]))
        assert [score_of(outcome, at)["decision"] for at in range(2)] == ["warmup", decision]


def test_session_closes_by_a_batch_made_only_of_duplicates() -> None:
    live = core()
    first, last = said(1, 0, "quiet"), said(2, 1_000, "other")
    step(live, record(0, first), record(1, last))
    # The same event again, taken in at a time that lets its true one count: core time moves, nothing is scored.
    late_ms = START_MS + 1_000 + QUIET_MS
    clamped = {**last, "event_time_ms": late_ms}
    outcome = step(live, record(2, clamped))
    assert score_of(outcome)["decision"] == "duplicate"
    assert session_rows(outcome) == {"quiet": False, "other": False}
    assert live.next_timer_ms(0) is None


def test_batch_of_dead_letters_fires_nothing_and_still_moves_the_cursor() -> None:
    live = core()
    step(live, record(0, said(1, 0)))
    outcome = step(live, Record(TOPIC, 0, 7, START_MS + 9 * QUIET_MS, None, b"{"))
    assert [letter.reason for letter in outcome.dead_letters] == ["undecodable"]
    assert not outcome.scores and not session_rows(outcome)
    cursor = live.cursor(0)
    assert cursor is not None and (cursor.next_offset, cursor.core_time_ms) == (8, START_MS)


def test_empty_batch_says_nothing() -> None:
    outcome = step(core())
    assert not (outcome.scores or outcome.findings or outcome.changes or outcome.journal)


def test_batch_that_only_names_offsets_moves_the_cursor() -> None:
    """Behind a partition's last record may lie transaction markers that nobody is given."""
    live = core()
    step(live, record(4, said(1, 0)))
    live.step(InputBatch([], next_offsets={0: 9}, topic=TOPIC))
    assert live.cursor(0).next_offset == 9  # type: ignore[union-attr]


# -- finding timers ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("size", [1, 2, 3, 4])
def test_quiet_finding_closes_at_the_offset_of_the_event_that_passes_its_time(size: int) -> None:
    records = [
        record(10, said(1, 0, "a")),
        record(12, said(2, 5_000, "b")),
        record(20, said(3, FINDING_QUIET_MS - 1, "b")),
        record(31, said(4, FINDING_QUIET_MS, "b")),
    ]
    live, closed = core(EVERYTHING_FOUND), []
    for at in range(0, len(records), size):
        closed += [each for each in found(step(live, *records[at : at + size])) if each[1] == 3]
    assert closed == [(31, 3, FINDING_QUIET_MS)]


def test_findings_close_by_due_time_then_entity_and_before_the_event_that_fires_them_opens_its_own() -> None:
    live = core(EVERYTHING_FOUND)
    for number, (after_ms, session) in enumerate([(0, "z"), (2_000, "b"), (2_000, "a")]):
        step(live, record(number, said(number, after_ms, session)))
    outcome = step(live, record(9, said(9, 5 * FINDING_QUIET_MS, "z")))
    told = [orjson.loads(finding.value) for finding in outcome.findings]
    closed_at = [START_MS + after_ms + FINDING_QUIET_MS for after_ms in (0, 2_000, 2_000)]
    assert [(value["activity_id"], value["metadata"]["correlation_uid"]) for value in told] == [
        (3, "z"), (3, "a"), (3, "b"), (1, "z"),
    ]  # fmt: skip
    assert [value["time"] for value in told[:3]] == closed_at


def test_finding_is_created_updated_and_closed_with_gapless_revisions() -> None:
    live = core(EVERYTHING_FOUND)
    anomalies = [record(i, said(i, 1_000 * i)) for i in range(3)]
    outcome = step(live, *anomalies, record(3, said(9, 9 * FINDING_QUIET_MS, "x")))
    told = [orjson.loads(finding.value) for finding in outcome.findings]
    first = [value for value in told if value["finding_info"]["uid"] == told[0]["finding_info"]["uid"]]
    revisions = [(value["activity_id"], value["metadata"]["sequence"]) for value in first]
    assert revisions == [(1, 1), (2, 2), (2, 3), (3, 4)]


TRACES = [b"00-%032x-%016x-01" % (trace, trace) for trace in (1, 2)]


def test_update_carries_its_own_trace_and_close_the_opening_one() -> None:
    live = core(EVERYTHING_FOUND)
    traced = [replace(record(i, said(i, i)), headers=(("traceparent", TRACES[i]),)) for i in range(2)]
    outcome = step(live, *traced, record(5, said(5, 9 * FINDING_QUIET_MS, "x")))
    mine = [finding for finding in outcome.findings if finding.key == outcome.findings[0].key]
    assert [finding.traceparent for finding in mine] == [TRACES[0], TRACES[1], TRACES[0]]
    ids = [event(i, 0)["event_id"] for i in range(2)]
    assert [finding.event_id for finding in mine] == [ids[0], ids[1], ids[0]]


# -- ticks -------------------------------------------------------------------------------------------------------------


def test_tick_closes_what_is_due_at_the_next_offset_and_is_journalled() -> None:
    live = core(EVERYTHING_FOUND)
    step(live, record(6, said(1, 0)))
    early = live.step(tick(0, START_MS + FINDING_QUIET_MS - 1))
    assert (found(early), session_rows(early)) == ([], {"s": False})
    outcome = live.step(tick(0, START_MS + FINDING_QUIET_MS))
    assert found(outcome) == [(7, 3, FINDING_QUIET_MS)]
    assert [orjson.loads(entry.value) for entry in outcome.journal] == [
        {
            "before_offset": 7,
            "control_offset": None,
            "kind": "tick",
            "partition": 0,
            "seq": 1,
            "value": {"core_time_ms": START_MS + FINDING_QUIET_MS},
        }
    ]
    assert live.next_timer_ms(0) is None


def test_tick_behind_the_partition_s_time_changes_nothing_but_the_journal() -> None:
    live = core(EVERYTHING_FOUND)
    step(live, record(6, said(1, QUIET_MS)))
    outcome = live.step(tick(0, START_MS))
    assert not outcome.findings and not session_rows(outcome) and len(outcome.journal) == 1
    assert live.cursor(0).core_time_ms == START_MS + QUIET_MS  # type: ignore[union-attr]


def test_tick_moves_the_partition_s_time_so_that_what_comes_after_it_is_late() -> None:
    live = core()
    step(live, record(0, said(1, 0)))
    live.step(tick(0, START_MS + QUIET_MS // 2))
    assert live.cursor(0).core_time_ms == START_MS + QUIET_MS // 2  # type: ignore[union-attr]
    assert score_of(step(live, record(1, said(2, 1_000))))["late"] is True


def test_tick_keeps_the_clock_that_the_next_one_is_measured_from() -> None:
    live = core()
    step(live, record(0, said(1, 0)))
    value = {"core_time_ms": START_MS + 50, "ingest_time_ms": START_MS + 77}
    live.step(InputBatch([], [Applied(0, "tick", value)], topic=TOPIC))
    assert live.cursor(0).ingest_time_ms == START_MS + 77  # type: ignore[union-attr]


def test_tick_reaches_one_partition_only() -> None:
    live = core(EVERYTHING_FOUND)
    step(live, record(0, said(1, 0)), record(0, said(2, 0), partition=1))
    outcome = live.step(tick(1, START_MS + 9 * FINDING_QUIET_MS))
    assert [finding.source[1] for finding in outcome.findings] == [1]
    assert live.next_timer_ms(0) is not None


def test_next_timer_is_never_later_than_what_is_due() -> None:
    live = core(EVERYTHING_FOUND)
    assert live.next_timer_ms(0) is None
    step(live, record(0, said(1, 0)))
    assert live.next_timer_ms(0) == START_MS + QUIET_MS
    step(live, record(1, said(2, 30_000)))
    due = live.next_timer_ms(0)
    assert due is not None and due <= START_MS + 30_000 + QUIET_MS
    live.step(tick(0, due))
    assert live.next_timer_ms(0) == START_MS + 30_000 + QUIET_MS


# -- duplicates --------------------------------------------------------------------------------------------------------


def test_duplicate_is_told_by_its_score_and_teaches_and_finds_nothing() -> None:
    live = core(EVERYTHING_FOUND)
    step(live, record(0, said(1, 0)))
    outcome = step(live, record(1, said(1, 0)))
    score = score_of(outcome)
    assert (score["decision"], score["signals"], score["ordinal"], score["learned"]) == ("duplicate", {}, 1, "no")
    assert not outcome.findings
    assert not [change for change in outcome.changes if b'"learned"' in change.key]


def test_same_id_with_other_content_is_scored_and_counted() -> None:
    live = core()
    other = {**said(2, 5), "event_id": said(1, 0)["event_id"]}
    outcome = step(live, record(0, said(1, 0)), record(1, other))
    assert [score_of(outcome, at)["decision"] for at in range(2)] == ["none", "none"]
    assert outcome.counts["conflicting_ids"] == 1


@pytest.mark.parametrize(("fewer", "decision"), [(1, "duplicate"), (0, "none")])
def test_event_is_forgotten_after_as_many_others_as_are_remembered(fewer: int, decision: str) -> None:
    live = core()
    step(live, record(0, said(0, 0)))
    for number in range(1, SETTINGS.dedup.events_max - fewer + 1):
        step(live, record(number, said(number, 0)))
    assert score_of(step(live, record(99, said(0, 0))))["decision"] == decision


@pytest.mark.parametrize("restart", [False, True])
@pytest.mark.parametrize(("past_ms", "decision"), [(0, "duplicate"), (1, "none")])
def test_event_is_forgotten_after_the_time_that_is_remembered(past_ms: int, decision: str, restart: bool) -> None:
    live = core()
    records = [record(0, said(0, 0)), record(1, said(1, SETTINGS.dedup.window_ms + past_ms))]
    before = run(live, [InputBatch(records, topic=TOPIC)])
    if restart:
        live = core()
        live.restore(0, before.rows[0])
    assert score_of(step(live, record(2, said(0, 0))))["decision"] == decision


def test_rows_of_forgotten_events_are_tombstoned() -> None:
    live = core()
    rows: dict[bytes, bytes | None] = {}
    for number in range(3 * SETTINGS.dedup.events_max):
        rows |= {change.key: change.value for change in step(live, record(number, said(number, 0))).changes}
    kept = [key for key, value in rows.items() if value is not None and key.startswith(b'["dedup"')]
    assert len(kept) <= SETTINGS.dedup.events_max + 1


def test_same_event_in_two_partitions_is_no_duplicate() -> None:
    outcome = step(core(), record(0, said(1, 0)), record(0, said(1, 0), partition=1))
    assert [score_of(outcome, at)["decision"] for at in range(2)] == ["none", "none"]
