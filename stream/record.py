"""Kafka's envelopes as plain values: what sources hand to the core, and what the core hands to sinks."""

from __future__ import annotations

import re
from dataclasses import dataclass

Headers = tuple[tuple[str, bytes | None], ...]

_TRACEPARENT = re.compile(rb"(?!ff)[0-9a-f]{2}-(?!0{32})[0-9a-f]{32}-(?!0{16})[0-9a-f]{16}-[0-9a-f]{2}")
"""W3C Trace Context, version 00. Whoever writes the header must not decide how large what we write gets."""


@dataclass(frozen=True, slots=True)
class Record:
    """One record as it was read.

    On the events topic `timestamp_ms` is the ingest time; the event's own time lies in its value.
    """

    topic: str
    partition: int
    offset: int
    timestamp_ms: int
    key: bytes | None
    value: bytes | None
    headers: Headers = ()

    def header(self, name: str) -> bytes | None:
        """The last value of header `name`, None when there is none.

        >>> Record("t", 0, 7, 0, None, b"{}", (("traceparent", b"00-1"),)).header("traceparent")
        b'00-1'
        """
        for key, value in reversed(self.headers):
            if key == name:
                return value
        return None

    @property
    def traceparent(self) -> bytes | None:
        """The trace that the record belongs to: None when its header is absent or not in W3C's form.

        >>> Record("t", 0, 7, 0, None, b"{}", (("traceparent", b"x" * 2_000_000),)).traceparent is None
        True
        """
        value = self.header("traceparent") if self.headers else None
        return value if value is not None and _TRACEPARENT.fullmatch(value) else None

    @property
    def position(self) -> str:
        """`topic[partition]@offset`, as messages name a record."""
        return f"{self.topic}[{self.partition}]@{self.offset}"


@dataclass(frozen=True, slots=True)
class OutRecord:
    """An event, a score or a finding on its way out.

    Sinks add the headers `tg-schema`, `tg-event-id`, `tg-source`, `tg-release` and `traceparent`.
    """

    partition: int
    key: bytes
    value: bytes
    source: tuple[str, int, int]
    """Topic, partition and offset of the input that caused it."""
    event_id: str
    traceparent: bytes | None = None


@dataclass(frozen=True, slots=True)
class DeadLetter:
    """An input that could not be read, and why; `schemas.dead_letter` makes headers and value of it."""

    record: Record
    reason: str
    """One of `schemas.dead_letter.REASONS`."""
    message: str
    stage: str
    """In Kafka Connect's words."""
    exception_class: str
    event_id: str | None = None
    """Of the event in it, where that much could be read."""


@dataclass(frozen=True, slots=True)
class StateChange:
    """A row of the state topic; `value` None is a tombstone."""

    partition: int
    key: bytes
    value: bytes | None


@dataclass(frozen=True, slots=True)
class JournalEntry:
    """A control or tick as it took effect in a partition."""

    partition: int
    value: bytes
