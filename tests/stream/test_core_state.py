"""What the core does about partitions that go, rows that are damaged, and records that are not what they should be."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import orjson
import pytest

from stream.core import Core
from stream.errors import StateError
from stream.inputs import InputBatch
from stream.record import Record
from tests.doubles import WordEmbedder
from tests.stream.releases import release
from tests.stream.streams import SETTINGS, START_MS, TOPIC, Said, cut, event, record, run, stream, text


def core() -> Core:
    return Core(SETTINGS, release(), WordEmbedder())


RECORDS = stream(seed=11, n=300)


@pytest.fixture(scope="module")
def whole() -> Said:
    return run(core(), cut(RECORDS, 50))


# -- partitions ------------------------------------------------------------------------------------------------------


def test_dropping_a_partition_leaves_the_others_as_they_were(whole: Said) -> None:
    live, said = core(), Said()
    run(live, cut(RECORDS[:150], 50), said)
    live.drop(1)
    assert live.cursor(1) is None and live.next_timer_ms(1) is None
    rest = [record for record in RECORDS[150:] if record.partition != 1]
    run(live, cut(rest, 50), said)
    for partition in (0, 2):
        assert said.scores[partition] == whole.scores[partition]
        assert said.findings[partition] == whole.findings[partition]


def test_dropped_partition_starts_anew_and_leaves_nothing_behind() -> None:
    live = core()
    run(live, cut(RECORDS, 50))
    for partition in range(3):
        live.drop(partition)
    assert live.state_bytes() == 0
    assert not live.step(InputBatch([], topic=TOPIC)).changes
    assert run(live, cut(RECORDS, 50)).results() == run(core(), cut(RECORDS, 50)).results()


def test_drop_before_the_outcome_was_written_loses_only_that_outcome(whole: Said) -> None:
    """A transaction that aborts: drop, restore from what was committed, do it again."""
    live, said = core(), Said()
    for batch in cut(RECORDS, 40):
        live.step(batch)
        for partition in range(3):
            live.restore(partition, said.rows.get(partition, []))
        run(live, [batch], said)
    assert said.results() == whole.results()


def test_dropping_a_partition_that_was_never_held_does_nothing() -> None:
    live = core()
    live.drop(7)
    assert live.cursor(7) is None


def test_partition_without_rows_is_not_held() -> None:
    live = core()
    live.restore(0, [])
    assert live.cursor(0) is None


def test_tombstones_leave_no_row_of_closed_sessions_and_findings() -> None:
    live = core()
    said = run(live, cut(RECORDS, 20))
    for partition in range(3):
        run(live, [InputBatch([record(10**6, event(10**6 + partition, START_MS + 10**9), partition=partition,
                                      ingest_ms=START_MS + 10**9)], topic=TOPIC)], said)  # fmt: skip
    rows = {(p, key): value for p, changes in said.rows.items() for key, value in changes}
    kinds = [orjson.loads(key)[0] for (_, key), value in rows.items() if value is not None]
    assert kinds.count("session") == 3
    assert kinds.count("finding") <= 3


# -- damaged rows ----------------------------------------------------------------------------------------------------


def damaged(said: Said, kind: str, value: bytes) -> list[tuple[bytes, bytes | None]]:
    """Partition 0's rows with the last one of a kind replaced."""
    rows = [(key, row) for key, row in {**dict(said.rows[0])}.items() if row is not None]
    at = max(i for i, (key, _) in enumerate(rows) if orjson.loads(key)[0] == kind)
    return [*rows[:at], (rows[at][0], value), *rows[at + 1 :]]


@pytest.mark.parametrize(
    "kind", ["tenant", "learned", "session", "finding", "pending", "quarantine", "dedup", "cursor"]
)
@pytest.mark.parametrize("value", [b"", b"{", b"{}", b"[]", b'{"v":1,"row":"AAAA"}', b'{"v":99,"row":""}', b"null"])
def test_damaged_row_is_told_with_its_remedy(whole: Said, kind: str, value: bytes) -> None:
    with pytest.raises(StateError, match=r"partition 0|in 0|dedup row") as told:
        core().restore(0, damaged(whole, kind, value))
    assert "docs/runbook.md" in str(told.value)


def test_row_of_an_unknown_kind_is_refused(whole: Said) -> None:
    with pytest.raises(StateError, match="kind 'mood' in partition 0: a newer version wrote it"):
        core().restore(0, [*whole.rows[0], (b'["mood","team-1"]', b"{}")])


def test_key_that_is_no_array_is_refused(whole: Said) -> None:
    for key in (b"cursor", b'"cursor"', b"[]", b"{}", b"7", b'["tenant",5]', b"\xff"):
        with pytest.raises(StateError, match="must be a JSON array"):
            core().restore(0, [*whole.rows[0], (key, b"{}")])


@pytest.mark.parametrize(
    "key",
    [b'["session","a"]', b'["tenant"]', b'["dedup","x"]', b'["pending","team-1","x"]', b'["quarantine","team-1","x"]'],
)
def test_key_that_names_no_row_of_its_kind_is_refused(whole: Said, key: bytes) -> None:
    with pytest.raises(StateError, match="must name a row of its kind"):
        core().restore(0, [*whole.rows[0], (key, b"{}")])


def test_rows_without_a_cursor_are_refused(whole: Said) -> None:
    rows = [(key, value) for key, value in whole.rows[0] if key != b'["cursor"]']
    with pytest.raises(StateError, match="rows and no cursor"):
        core().restore(0, rows)


@pytest.mark.parametrize("kind", ["pending", "quarantine"])
def test_row_that_waits_without_its_tenant_is_refused(whole: Said, kind: str) -> None:
    rows = [(key, value) for key, value in whole.rows[0] if orjson.loads(key)[0] in (kind, "cursor")]
    with pytest.raises(StateError, match="has no tenant"):
        core().restore(0, rows)


# -- records that are not what they should be ------------------------------------------------------------------------


def nasty() -> Iterator[tuple[str, Any]]:
    """Values that one field of an event might hold."""
    yield from (("event_id", value) for value in ("a" * 64, "A" * 64, " " * 64, "ab " * 21 + "a", "é" * 64, "", 5))
    yield from (("tenant", value) for value in ("", "\x00", "é" * 5_000, "\ud800", None, '["x"]', "a\nb"))
    yield from (("session", value) for value in ("", "\x00", "x" * 100_000, "\ud800", 5))
    yield from (("event_time_ms", value) for value in (-1, 0, 2**53 - 1, 2**53, 2**63, 2**64, 1.5, "5", None, True))
    yield from (("prompt_tokens", value) for value in (-5, 2**70, 1.5, "x", None, 2**63))
    yield from (("duration_ms", value) for value in (-1.0, 1e308, 5, None, "x"))
    yield from (("tools", value) for value in (["a"] * 1_000, [""], [5], None, "x"))
    yield from (("status", value) for value in ("odd", None, 5))
    yield from (("user", value) for value in ("\ud800\u202e", "", 5))
    for sha256 in ("", "zz" * 32, " " * 64, "ab" * 4, None):
        yield "source", {"gateway": "x", "raw_sha256": sha256}
    nothing: list[Any] = [None, {}, [], [{}], [5], "x"]
    yield from (("source", value) for value in nothing)
    yield from (("messages", value) for value in nothing)
    unreadable: list[Any] = [{"type": 5}, {"type": "text", "text": 5}, {"type": "tool_call", "name": "\ud800"}]
    odd: list[Any] = [{"type": "odd", "text": "x"}, {"type": "text", "text": "a" * 300_000}, {"type": "text"}]
    odd += [{"type": "text", "text": "\x00\x01\u2028"}, {"type": "text", "text": "\ud800"}]
    for parts in [*nothing, *([part] for part in unreadable + odd)]:
        yield "messages", [{"role": "user", "digest": "ab" * 16, "parts": parts}]
    for digest in ("", "zz" * 16, "ab" * 15 + " b", "ab" * 17, None):
        yield "messages", [{"role": "user", "digest": digest, "parts": []}]
    yield "messages", [{"role": "odd", "digest": "ab" * 16, "parts": [{"type": "text", "text": "x"}]}]


def as_json(value: Any) -> bytes:
    """JSON also of what orjson refuses to write."""
    import json

    return json.dumps(value).encode()


RAW = [
    b"", b"null", b"[]", b"7", b"{", b"\xff\xfe", b"[" * 5_000, b'{"messages":' + b"[" * 100_000, b'{"a":NaN}',
    as_json(event(1, START_MS, [text("user", "hi")])).replace(b'"hi"', b'"\xff\xfe"'),
    as_json(event(1, START_MS, [text("user", "hi")])) + b"{}",
]  # fmt: skip
VALUES = [as_json(event(900, START_MS, [text("user", "hi")]) | {field: value}) for field, value in nasty()]


@pytest.mark.parametrize("value", [*RAW, *VALUES], ids=range(len(RAW) + len(VALUES)))
def test_no_record_stops_the_core_or_spoils_its_state(value: bytes) -> None:
    """It is scored or a dead letter; what follows is scored as ever, by this core and by a restored one."""
    before, after = RECORDS[:20], RECORDS[20:40]
    odd = Record(TOPIC, 0, 15_000, START_MS, None, value)
    later = [Record(r.topic, r.partition, r.offset + 20_000, r.timestamp_ms, r.key, r.value) for r in after]
    live, said = core(), Said()
    run(live, [InputBatch(before, topic=TOPIC), InputBatch([odd], topic=TOPIC)], said)
    assert len(said.scored()) + len(said.dead_letters) == len(before) + 1
    assert {reason for *_, reason in said.dead_letters} <= {"undecodable", "schema"}
    again = core()
    for partition, rows in said.rows.items():
        again.restore(partition, rows)
    straight, restored = run(live, cut(later, 7)), run(again, cut(later, 7))
    assert straight.results() == restored.results()


def test_dead_letter_says_where_and_what() -> None:
    value = orjson.dumps(event(1, START_MS) | {"event_time_ms": "soon"})
    outcome = core().step(InputBatch([Record(TOPIC, 3, 77, START_MS, b"k", value)], topic=TOPIC))
    (letter,) = outcome.dead_letters
    assert (letter.reason, letter.stage) == ("schema", "VALUE_CONVERTER")
    assert letter.exception_class == "msgspec.ValidationError"
    assert letter.message.endswith(". See schemas/examples/events.v1/.")
    assert letter.message.startswith(f"{TOPIC}[3]@77: ") and "$.event_time_ms" in letter.message
    assert letter.record.value == value
