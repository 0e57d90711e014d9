"""Sessions as the gateway events that they are, read once for all systems."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import orjson
from numpy.typing import NDArray

from schemas.corpus import CorpusSession
from schemas.corpus_records import to_native
from schemas.corpus_timeline import timeline
from schemas.event_head import EventHead, MessageHead
from stream.config import Settings
from stream.record import Record
from stream.steps.decode import decode
from stream.training.gather import ingest_step

_AT_ONCE = 2000
SAMPLE_CHARS = 32_768
"""Of one event's new text that a system other than the product reads: enough for any, and bounded."""


@dataclass(frozen=True, slots=True)
class Events:
    """Events (n) of sessions (s), in the order of time; those of one session in its own order."""

    records: list[Record]
    """(n,) as on the events topic; offsets count them."""
    session: NDArray[np.int64]
    """(n,) rows of `sessions`."""
    turn: NDArray[np.int64]
    """(n,) number of the event in its session, from 0."""
    sessions: Sequence[CorpusSession]
    heads: list[EventHead]

    def __len__(self) -> int:
        return len(self.records)


def events_of(sessions: Sequence[CorpusSession], settings: Settings) -> Events:
    """The events of `sessions`, through the ingest step: redacted, routed, and read as the scorer reads them.

    Parameters
    ----------
    sessions
        With `start_ms`, in the order of time.
    """
    ingest = ingest_step(settings, "native")
    row = {(session.tenant, session.session): at for at, session in enumerate(sessions)}
    records: list[Record] = []
    rows: list[int] = []
    turns: list[int] = []
    for timed in timeline(sessions):
        native = orjson.dumps(to_native(timed.session, timed.call, timed.time_ms))
        raw = Record("corpus", 0, len(records), timed.time_ms, None, native)
        for event in ingest.step([raw]).events:
            records.append(Record("corpus", event.partition, len(records), timed.time_ms, event.key, event.value))
            rows.append(row[timed.session.tenant, timed.session.session])
            turns.append(timed.call.index)
    heads: list[EventHead] = []
    for low in range(0, len(records), _AT_ONCE):
        batch, dead = decode(records[low : low + _AT_ONCE], settings.core.future_ms)
        if dead:
            raise ValueError(f"every event must be readable; {dead[0].reason} at {dead[0].record.offset}. A bug.")
        heads += batch.heads
    return Events(records, np.array(rows, np.int64), np.array(turns, np.int64), sessions, heads)


def new_messages(events: Events) -> list[list[MessageHead]]:
    """Of each event (n) the request's messages that its session has not sent before, and the answer."""
    seen: dict[int, set[str]] = {}
    out: list[list[MessageHead]] = []
    for session, head in zip(events.session.tolist(), events.heads, strict=True):
        known = seen.setdefault(session, set())
        fresh = [m for m in (*head.messages, *head.output) if m.digest not in known]
        known.update(m.digest for m in fresh)
        out.append(fresh)
    return out
