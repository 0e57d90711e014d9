"""Captured traffic as fast as it came, or N times as fast."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from heapq import merge

import msgspec

from schemas.undecodable import UNDECODABLE
from stream.record import Record
from stream.sources.source import Source

_READ_AT_ONCE = 500
_WAIT_SECONDS_MAX = 0.5
"""Longest single wait, so that an interrupt is heard."""
_AHEAD_MS_MAX = 300_000


def factor_of(pace: str) -> float | None:
    """How many times as fast as it came; None for as fast as it goes.

    >>> factor_of("full"), factor_of("original"), factor_of("x2.5")
    (None, 1.0, 2.5)
    """
    if pace == "full":
        return None
    return 1.0 if pace == "original" else float(pace.removeprefix("x"))


class PacedSource:
    """A `Source` that gives records when their time has come.

    Several sources become one stream in the order of event time; each keeps its own order. A record without a time of
    its own follows the one before it.

    Parameters
    ----------
    sources
        To be read.
    factor
        How many times as fast as it came.
    clock, sleep
        Seconds, and a wait of seconds.
    """

    def __init__(
        self,
        sources: Sequence[Source],
        factor: float,
        clock: Callable[[], float] = time.monotonic,
        sleep: Callable[[float], None] = time.sleep,
    ) -> None:
        self._factor = factor
        self._clock = clock
        self._sleep = sleep
        self._stream = merge(*(_timed(source) for source in sources), key=lambda timed: timed[0])
        self._next = next(self._stream, None)
        self._began_s = clock()
        self._first_ms = self._next[0] if self._next is not None else 0

    def poll(self, max_records: int) -> list[Record]:
        """At most `max_records` whose time has come; waits for the first."""
        records: list[Record] = []
        while self._next is not None and len(records) < max_records:
            wait_s = self._due_s(self._next[0]) - self._clock()
            if wait_s > 0:
                if records:
                    break
                self._sleep(min(wait_s, _WAIT_SECONDS_MAX))
                continue
            records.append(self._next[1])
            self._next = next(self._stream, None)
        return records

    @property
    def exhausted(self) -> bool:
        """Whether every source has been read to its end."""
        return self._next is None

    def _due_s(self, time_ms: int) -> float:
        return self._began_s + (time_ms - self._first_ms) / 1000 / self._factor


class _EventTime(msgspec.Struct):
    event_time_ms: int | None = None


_EVENT_TIME = msgspec.json.Decoder(_EventTime)


def _timed(source: Source) -> Iterator[tuple[int, Record]]:
    """Records with the time at which they are due, which never goes back."""
    latest = 0
    while not source.exhausted:
        for record in source.poll(_READ_AT_ONCE):
            latest = max(latest, _time_ms(record))
            yield latest, record


def _time_ms(record: Record) -> int:
    try:
        told = _EVENT_TIME.decode(record.value or b"").event_time_ms
    except UNDECODABLE:
        told = None
    # A time far ahead of the ingest time is no time to wait for; the core clamps it too.
    return record.timestamp_ms if told is None or told < 0 else min(told, record.timestamp_ms + _AHEAD_MS_MAX)
