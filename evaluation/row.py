"""One judged session by one system: a line of `sessions.jsonl`."""

from __future__ import annotations

from collections.abc import Mapping

import msgspec

from evaluation.trial import Label


class Row(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=False):
    """Everything that a figure of the report is computed from."""

    protocol: str
    seed: int
    system: str
    tenant: str
    session: str
    family: str
    task: str
    """What the bootstrap draws: `Probe.cluster`."""
    label: Label
    score: float
    flagged: bool
    """At the nominal operating point."""
    first_finding_turn: int | None
    """From 0."""
    p: float
    """The share of benign sessions that the system expects to be as strange."""
    obeyed: bool | None
    signal: str
    events: int
    marked: bool | None = None
    """Whether what the system shows first of its strangest event is text that the attack has placed; None where that is
    not known, and of systems that show nothing."""
    slices: Mapping[str, str]
