"""Labels for tests: what an analyst said of a finding about a session."""

from __future__ import annotations

from hashlib import sha256
from typing import Any

from schemas.label import Label, LabelledSegment
from schemas.verdict import BENIGN, TRUE_POSITIVE


def label(
    finding: str,
    analyst: str,
    *,
    attack: bool | None,
    texts: tuple[str, ...] = (),
    session: str | None = None,
    time: int = 100,
    verified: bool = False,
    **changed: Any,
) -> Label:
    """The label of `analyst` on a finding; `attack` None teaches nothing."""
    fields: dict[str, Any] = {
        "finding_uid": sha256(finding.encode()).hexdigest()[:32],
        "analyst": analyst,
        "identity": "verified" if verified else "unverified",
        "verdict_id": 7 if attack is None else TRUE_POSITIVE if attack else BENIGN,
        "verdict_time": time,
        "scope": "session",
        "teaches": None if attack is None else "attack" if attack else "benign",
        "disputed": False,
        "tenant": "team-0",
        "entity_type": "session",
        "entity": session or finding,
        "session": session,
        "key_hash": None,
        "title": "",
        "techniques": ["AML.T0051"],
        "signals": {},
        "p": {},
        "p_combined": None,
        "release": "r",
        "revision": 1,
        "first_seen_ms": 0,
        "last_seen_ms": 0,
        "events": [],
        "events_told": 0,
        "segments": [LabelledSegment(event_id="", role="user", text=text, message_index=0) for text in texts],
    }
    return Label(**{**fields, **changed})


def texts_of(each: Label) -> list[str]:
    """What the finding had shown."""
    return [segment.text for segment in each.segments]
