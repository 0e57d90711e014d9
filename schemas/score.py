"""Score v1: what the scorer says of every event, on `genai.anomaly.scores.v1`."""

from __future__ import annotations

from typing import Literal

import msgspec

Decision = Literal["none", "finding", "suppressed", "over_budget", "warmup", "duplicate"]
Learned = Literal["yes", "quarantined", "capped", "no"]


class Score(msgspec.Struct, frozen=True, kw_only=True):
    """Signals, p-values and decision of one event."""

    event_id: str
    tenant: str
    session: str
    event_time_ms: int
    """As the core used it: an event dated too far ahead of its ingest time is moved back, and `clamped`."""
    ordinal: int
    """The event's number among its tenant's, from 1; duplicates are not counted and carry the last one."""
    release: str
    signals: dict[str, float]
    """Higher is stranger; a signal that had nothing to look at is absent."""
    p: dict[str, float]
    """P-value of each kind of signal."""
    p_combined: float | None
    """Of all that count together; of a tenant's first sessions larger where the release was not trained on it."""
    decision: Decision
    finding_uid: str | None
    """The open finding that the event belongs to."""
    learned: Learned
    late: bool
    partition: int
    """Of the event on the events topic."""
    offset: int
    clamped: bool = False
