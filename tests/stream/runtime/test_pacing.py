"""Pacing captured traffic."""

from __future__ import annotations

import orjson

from stream.record import Record
from stream.runtime.pacing import PacedSource
from stream.sources.memory import MemorySource


class Clock:
    """Time that passes only by waiting."""

    def __init__(self) -> None:
        self.now = 100.0
        self.longest = 0.0

    def __call__(self) -> float:
        return self.now

    def sleep(self, seconds: float) -> None:
        assert seconds > 0
        self.longest = max(self.longest, seconds)
        self.now += seconds


def at(offset: int, event_ms: int | None, taken_ms: int = 10**12, partition: int = 0) -> Record:
    value = orjson.dumps({"event_time_ms": event_ms}) if event_ms is not None else b"not JSON"
    return Record("t", partition, offset, taken_ms, None, value)


def paced(*parts: list[Record], factor: float = 1.0, at_once: int = 100) -> tuple[list[tuple[float, int, int]], Clock]:
    """Seconds after the first record, partition and offset of each, and the clock."""
    clock = Clock()
    source = PacedSource([MemorySource(part) for part in parts], factor, clock, clock.sleep)
    out = []
    while not source.exhausted:
        out += [(round(clock.now - 100, 6), r.partition, r.offset) for r in source.poll(at_once)]
    return out, clock


def test_records_come_when_their_events_did() -> None:
    out, _ = paced([at(0, 5_000), at(1, 6_500), at(2, 6_500), at(3, 9_000)])
    assert out == [(0.0, 0, 0), (1.5, 0, 1), (1.5, 0, 2), (4.0, 0, 3)]


def test_pace_is_a_factor() -> None:
    out, _ = paced([at(0, 5_000), at(1, 6_500), at(2, 9_000)], factor=10)
    assert [seconds for seconds, *_ in out] == [0.0, 0.15, 0.4]


def test_no_wait_is_so_long_that_an_interrupt_is_not_heard() -> None:
    _, clock = paced([at(0, 0), at(1, 3_600_000)])
    assert clock.longest <= 0.5


def test_partitions_become_one_stream_in_the_order_of_time() -> None:
    out, _ = paced([at(0, 1_000), at(1, 4_000)], [at(0, 2_000, partition=1), at(1, 3_000, partition=1)])
    assert out == [(0.0, 0, 0), (1.0, 1, 0), (2.0, 1, 1), (3.0, 0, 1)]


def test_late_event_keeps_its_place_and_does_not_hold_back_what_follows() -> None:
    out, _ = paced([at(0, 5_000), at(1, 1_000), at(2, 6_000)])
    assert out == [(0.0, 0, 0), (0.0, 0, 1), (1.0, 0, 2)]


def test_record_without_an_event_s_time_comes_at_its_ingest_time() -> None:
    out, _ = paced([at(0, 5_000, 5_000), at(1, None, 7_000), at(2, -4, 8_000)])
    assert [seconds for seconds, *_ in out] == [0.0, 2.0, 3.0]


def test_record_of_broken_text_comes_at_its_ingest_time() -> None:
    broken = [Record("t", 0, 1, 7_000, None, b'{"event_time_ms":"\xff"}'), Record("t", 0, 2, 8_000, None, b"[" * 5_000)]
    out, _ = paced([at(0, 5_000, 5_000), *broken])
    assert [seconds for seconds, *_ in out] == [0.0, 2.0, 3.0]


def test_time_far_past_the_ingest_time_is_not_waited_for() -> None:
    out, _ = paced([at(0, 5_000, 5_000), at(1, 10**15, 6_000)])
    assert [seconds for seconds, *_ in out] == [0.0, 301.0]


def test_poll_gives_at_most_what_is_asked_for() -> None:
    out, _ = paced([at(n, 0) for n in range(10)], at_once=3)
    assert len(out) == 10


def test_nothing_is_exhausted_at_once() -> None:
    assert PacedSource([MemorySource([])], 1.0).exhausted
