"""Label v1: a verdict joined with its finding and evidence, on the compacted `genai.feedback.labels.v1`."""

from __future__ import annotations

from typing import Literal

import msgspec
import orjson

from schemas.verdict import Scope

Teaches = Literal["attack", "benign"]


class LabelledEvent(msgspec.Struct, frozen=True, kw_only=True):
    """An event that the finding is about, and where it lies."""

    event_id: str
    partition: int
    """On the events topic."""
    offset: int
    event_time_ms: int
    session: str
    signals: dict[str, float]
    p: dict[str, float]
    p_combined: float | None
    release: str
    """That scored it."""


class LabelledSegment(msgspec.Struct, frozen=True, kw_only=True):
    """A redacted excerpt that the finding showed; absent where `feedback.segments` is `none`."""

    event_id: str
    role: str
    text: str
    message_index: int


class Label(msgspec.Struct, frozen=True, kw_only=True):
    """What one analyst's latest verdict teaches; its key is `label_key`, and the last record of a key counts."""

    finding_uid: str
    analyst: str
    identity: Literal["verified", "unverified"]
    """Whether a signature proved the analyst's name; else the topic's write permission is all that vouches for it."""
    verdict_id: int
    verdict_time: int
    scope: Scope
    teaches: Teaches | None
    """None for verdicts that nothing is trained on."""
    disputed: bool
    """Another analyst's latest verdict on the finding teaches the opposite."""
    tenant: str
    entity_type: Literal["session", "key", "tenant"]
    entity: str
    session: str | None
    key_hash: str | None
    title: str
    techniques: list[str]
    """ATLAS ids of the finding."""
    signals: dict[str, float]
    """Of the finding's strangest event."""
    p: dict[str, float]
    p_combined: float | None
    release: str
    """That found it."""
    revision: int
    """Of the finding, as it was joined."""
    first_seen_ms: int
    last_seen_ms: int
    events: list[LabelledEvent]
    """In the order of partition and offset; those that the scores topic has told of so far."""
    events_told: int
    """Events that the finding lists: when all of them are in `events`, the join is complete."""
    segments: list[LabelledSegment]
    adopt: bool = False


def label_key(finding_uid: str, analyst: str) -> bytes:
    """Key of a label's record.

    >>> label_key("00" * 16, "ada")
    b'["00000000000000000000000000000000","ada"]'
    """
    return orjson.dumps([finding_uid, analyst])
