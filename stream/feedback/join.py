"""The join: a finding's row, what a record changes in it, and the labels that follow.

Every rule here is a maximum or a union, so that labels do not depend on the order in which records came, nor on how
often each of them came: what is delivered at least once, and days late, gives the same labels. The one exception: of
more than `ANALYSTS_MAX` analysts on a finding those count whose verdicts are joined first, so that no label which was
sent is ever taken back.
"""

from __future__ import annotations

import msgspec
import orjson

from schemas.control import VerdictEffect
from schemas.label import Label, LabelledEvent, Teaches, label_key
from schemas.verdict import ATTACKS, HARMLESS
from stream.feedback.inputs import EvidenceSeen, FindingSeen, Input, VerdictSeen

EVENTS_MAX = 300
"""Events that a row holds beside those that its finding lists: the latest, which a later revision may list."""
EVENTS_FIRST = 20
"""And the earliest: one of them opened the finding, and stays listed."""

ANALYSTS_MAX = 64
"""Analysts whose verdicts a row holds: without signatures a name costs nothing."""


class Row(msgspec.Struct, frozen=True, kw_only=True):
    """All that is known of a finding uid."""

    finding: FindingSeen | None = None
    """Its latest revision; None while only scores or verdicts have come."""
    events: dict[str, LabelledEvent] = {}
    """Event id -> its score."""
    verdicts: dict[str, VerdictSeen] = {}
    """Analyst -> his or her latest."""
    effect: VerdictEffect | None = None
    """The last one that was sent."""
    touched_ms: int = 0
    """The latest time that any of its records speaks of, or came at."""


_ROW = msgspec.json.Decoder(Row)
_ENCODER = msgspec.json.Encoder()


def encode_row(row: Row) -> bytes:
    """`row` as JSON, as the table holds it."""
    return _ENCODER.encode(row)


def decode_row(value: bytes) -> Row:
    """What `encode_row` wrote."""
    return _ROW.decode(value)


def joined(row: Row, value: Input) -> Row | None:
    """`row` with what `value` says; the same row when it says nothing new, None when the row is to be forgotten.

    >>> from stream.feedback.inputs import Forget
    >>> joined(Row(touched_ms=8), Forget(uid="u", before_ms=8)), joined(Row(touched_ms=7), Forget(uid="u", before_ms=8))
    (Row(finding=None, events={}, verdicts={}, effect=None, touched_ms=8), None)
    """
    if isinstance(value, FindingSeen):
        touched = max(row.touched_ms, value.at_ms, value.last_seen_ms)
        if row.finding is not None and row.finding.revision >= value.revision:
            return row
        return msgspec.structs.replace(row, finding=value, events=_kept(row.events, value), touched_ms=touched)
    if isinstance(value, EvidenceSeen):
        known = row.events.get(value.event.event_id)
        if known is not None and (known.partition, known.offset) <= (value.event.partition, value.event.offset):
            return row
        events = _kept({**row.events, value.event.event_id: value.event}, row.finding)
        touched = max(row.touched_ms, value.at_ms, value.event.event_time_ms)
        return row if events == row.events else msgspec.structs.replace(row, events=events, touched_ms=touched)
    if isinstance(value, VerdictSeen):
        if beyond(row, value):
            return row
        latest = row.verdicts.get(value.verdict.analyst)
        if latest is not None and latest.rank >= value.rank:
            return row
        verdicts = {**row.verdicts, value.verdict.analyst: value}
        return msgspec.structs.replace(row, verdicts=verdicts, touched_ms=max(row.touched_ms, value.at_ms))
    return None if row.touched_ms < value.before_ms else row


def beyond(row: Row, value: Input) -> bool:
    """Whether `value` is a verdict of one analyst more than `row` holds, and is dropped."""
    if not isinstance(value, VerdictSeen):
        return False
    return value.verdict.analyst not in row.verdicts and len(row.verdicts) >= ANALYSTS_MAX


def _kept(events: dict[str, LabelledEvent], finding: FindingSeen | None) -> dict[str, LabelledEvent]:
    if len(events) <= EVENTS_FIRST + EVENTS_MAX:
        return events
    ordered = sorted(events.values(), key=lambda event: (event.event_time_ms, event.partition, event.offset))
    kept = {event.event_id for event in (*ordered[:EVENTS_FIRST], *ordered[-EVENTS_MAX:])}
    kept |= set(finding.event_ids) if finding is not None else set()
    return {event_id: event for event_id, event in events.items() if event_id in kept}


def teaches(seen: VerdictSeen, finding: FindingSeen) -> Teaches | None:
    """What is learned from a verdict; nothing from one on a canary, which is nobody's traffic."""
    if finding.test:
        return None
    number = seen.verdict.verdict_id
    return "attack" if number in ATTACKS else "benign" if number in HARMLESS else None


def labels(row: Row, *, segments: bool) -> dict[bytes, bytes]:
    """Key -> value of the labels that `row` gives: one an analyst, JSON with sorted keys; none without a finding.

    Parameters
    ----------
    segments
        Whether labels carry the redacted excerpts that the finding showed.
    """
    finding = row.finding
    if finding is None:
        return {}
    told = [row.events[event_id] for event_id in dict.fromkeys(finding.event_ids) if event_id in row.events]
    told.sort(key=lambda event: (event.partition, event.offset))
    taught = {analyst: teaches(seen, finding) for analyst, seen in row.verdicts.items()}
    found = {}
    for analyst, seen in sorted(row.verdicts.items()):
        verdict, teaching = seen.verdict, taught[analyst]
        label = Label(
            finding_uid=finding.uid,
            analyst=analyst,
            identity=seen.identity,
            verdict_id=verdict.verdict_id,
            verdict_time=verdict.time,
            scope=verdict.scope,
            teaches=teaching,
            disputed=teaching is not None and bool({*taught.values()} - {teaching, None}),
            tenant=finding.tenant,
            entity_type=finding.entity_type,
            entity=finding.entity,
            session=finding.session,
            key_hash=finding.key_hash,
            title=finding.title,
            techniques=finding.techniques,
            signals=finding.signals,
            p=finding.p,
            p_combined=finding.p_combined,
            release=finding.release,
            revision=finding.revision,
            first_seen_ms=finding.first_seen_ms,
            last_seen_ms=finding.last_seen_ms,
            events=told,
            events_told=len(set(finding.event_ids)),
            segments=finding.segments if segments else [],
            adopt=verdict.adopt,
        )
        plain = orjson.dumps(msgspec.to_builtins(label), option=orjson.OPT_SORT_KEYS)
        found[label_key(finding.uid, analyst)] = plain
    return found


def rarest_signal(finding: FindingSeen) -> str | None:
    """The signal that the finding is mostly about: of the smallest p-value, by name where two are equal.

    None where it has no p-value at all.
    """
    return min(finding.p, key=lambda name: (finding.p[name], name), default=None)
