"""Captured events, read, and what is known of their sessions."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, replace

from schemas.event_head import EventHead
from schemas.label import Teaches
from stream.record import Record
from stream.steps.decode import decode

Session = tuple[str, str]
"""Tenant and name."""
Place = tuple[int, int]
"""Partition and offset on the events topic."""

_AT_ONCE = 2000
_MARKS = re.compile(r"[\W_]+")
_FIGURES = re.compile(r"\d+")


@dataclass(frozen=True, slots=True)
class Captured:
    """Readable events (n), and where they are."""

    records: list[Record]
    heads: list[EventHead]
    time_ms: list[int]
    of_session: dict[Session, list[int]]
    of_place: dict[Place, int]
    unreadable: int

    def session_at(self, place: Place) -> Session:
        """The session of the event there."""
        return session_of(self.heads[self.of_place[place]])


def capture(events: Sequence[Record], future_ms: int) -> Captured:
    """What the events topic holds, read; `future_ms` is `core.future_ms`."""
    found = Captured([], [], [], {}, {}, 0)
    unreadable = 0
    for low in range(0, len(events), _AT_ONCE):
        batch, dead = decode(events[low : low + _AT_ONCE], future_ms)
        unreadable += len(dead)
        refused = {id(letter.record) for letter in dead}
        readable = [record for record in events[low : low + _AT_ONCE] if id(record) not in refused]
        for record, head, time_ms in zip(readable, batch.heads, batch.event_time_ms.tolist(), strict=True):
            found.of_session.setdefault(session_of(head), []).append(len(found.records))
            found.of_place[record.partition, record.offset] = len(found.records)
            found.records.append(record)
            found.heads.append(head)
            found.time_ms.append(time_ms)
    return replace(found, unreadable=unreadable)


@dataclass(frozen=True, slots=True)
class SessionFacts:
    """What is known of a session of the captured events."""

    tenant: str
    session: str
    first_ms: int
    task: str | None
    """Equal for sessions that open with the same words; None where they say too little."""
    judged: Teaches | None
    """What analysts agree on."""
    found: bool
    """Whether a release in service found something in it, or held something of it back."""
    family: str | None
    """Of an attack, by the techniques that its finding names."""
    held_out: bool

    @property
    def learns(self) -> bool:
        """What was found and nobody judged is not believed to be benign."""
        return self.judged == "benign" or not self.found


def session_of(head: EventHead) -> Session:
    """The session that an event is of."""
    return head.tenant, head.session


def plain(text: str) -> str:
    """Text without what tells near-equal ones apart.

    >>> plain("Book room 12, for ANN!")
    'book room 0 for ann'
    """
    return _FIGURES.sub("0", _MARKS.sub(" ", text.casefold())).strip()
