"""What is counted: one small record a judged finding, whose last one counts, so that a replay counts nothing twice.

They outlive the rows that they were made of, for precision is counted by release, whenever it served: memory grows by
a record of less than 1 KiB for each finding that anybody ever judged, that is by people's work and not by traffic.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Literal, TypeAlias

import msgspec
import orjson

from schemas.label import Teaches
from stream.feedback.join import Row, rarest_signal, teaches

Judged = Literal["attack", "benign", "disputed"]
IN_SERVICE = b'["in-service"]'
"""Key of the release that scores now."""
_NO_SIGNAL = ""


class TalliedLabel(msgspec.Struct, frozen=True, kw_only=True):
    """A label, as far as it is counted."""

    analyst: str
    teaches: Teaches | None
    at_ms: int
    """When its verdict reached Kafka."""


class Tally(msgspec.Struct, frozen=True, kw_only=True, tag="tally"):
    """A judged finding."""

    uid: str
    tenant: str
    signal: str
    """The rarest of its signals; empty where it has no p-value."""
    release: str
    """That found it."""
    judged: Judged | None
    """None when no verdict on it teaches anything."""
    labels: list[TalliedLabel]
    drift_confirmed_ms: int | None
    """When a verdict said that the tenant's drift, which the finding is about, is its new normal."""


class ReleaseSeen(msgspec.Struct, frozen=True, kw_only=True, tag="release"):
    """A release that scores were made with."""

    release: str
    at_ms: int
    """Kafka's timestamp of such a score."""


class Asked(msgspec.Struct, frozen=True, kw_only=True, tag="asked"):
    """Requests that were made of a subject while a release was in service."""

    subject: str
    release: str | None
    request_ids: list[str]
    last: dict[str, object]
    """The last one, as it was sent."""


Counted: TypeAlias = Tally | ReleaseSeen | Asked
_COUNTED: msgspec.json.Decoder[Counted] = msgspec.json.Decoder(Counted)
_ENCODER = msgspec.json.Encoder()


def encode_counted(value: Counted) -> bytes:
    """`value` as JSON."""
    return _ENCODER.encode(value)


def decode_counted(value: bytes) -> Counted:
    """What `encode_counted` wrote."""
    return _COUNTED.decode(value)


def counted_key(value: Counted) -> bytes:
    """Key of the record that replaces an earlier `value`.

    >>> counted_key(ReleaseSeen(release="r-1", at_ms=7))
    b'["in-service"]'
    """
    if isinstance(value, Tally):
        return orjson.dumps(["finding", value.uid])
    return IN_SERVICE if isinstance(value, ReleaseSeen) else orjson.dumps(["asked", value.subject])


def tally_of(row: Row) -> Tally | None:
    """What is counted of `row`; None while the finding or any verdict is missing, or the finding is a canary's."""
    finding = row.finding
    if finding is None or not row.verdicts or finding.test:
        return None
    signal = rarest_signal(finding) or _NO_SIGNAL
    labels = [
        TalliedLabel(analyst=analyst, teaches=teaches(seen, finding), at_ms=seen.at_ms)
        for analyst, seen in sorted(row.verdicts.items())
    ]
    said = {label.teaches for label in labels} - {None}
    judged: Judged | None = "disputed" if len(said) > 1 else "attack" if "attack" in said else None
    judged = "benign" if judged is None and said else judged
    drifts = finding.entity_type == "tenant" and signal == "drift" and judged == "benign"
    confirmed = [label.at_ms for label in labels if label.teaches == "benign"] if drifts else []
    confirmed += [seen.at_ms for seen in row.verdicts.values() if seen.verdict.adopt and judged == "benign"]
    return Tally(
        uid=finding.uid,
        tenant=finding.tenant,
        signal=signal,
        release=finding.release,
        judged=judged,
        labels=labels,
        drift_confirmed_ms=max(confirmed, default=None),
    )


def later_release(known: ReleaseSeen | None, seen: ReleaseSeen) -> ReleaseSeen:
    """The release in service and since when, after `seen`; an old score read again changes nothing.

    >>> a, b = ReleaseSeen(release="a", at_ms=1), ReleaseSeen(release="b", at_ms=5)
    >>> later_release(a, b).release, later_release(b, a).release
    ('b', 'b')
    """
    if known is None or (seen.release != known.release and seen.at_ms > known.at_ms):
        return seen
    return known


class SignalCounts(msgspec.Struct, kw_only=True):
    """Judged findings of one tenant whose rarest signal is one."""

    attack: int = 0
    benign: int = 0
    disputed: int = 0

    @property
    def precision(self) -> float | None:
        """Share of attacks among those that nobody disputes; None while there is none."""
        judged = self.attack + self.benign
        return self.attack / judged if judged else None


def counts(tallies: Iterable[Tally], release: str | None = None) -> dict[tuple[str, str], SignalCounts]:
    """(Tenant, signal) -> what was judged of it, found by `release` or by any.

    >>> tally = Tally(uid="u", tenant="t", signal="novelty", release="r", judged="attack", labels=[],
    ...               drift_confirmed_ms=None)
    >>> counts([tally])["t", "novelty"].precision
    1.0
    """
    found: dict[tuple[str, str], SignalCounts] = {}
    for tally in tallies:
        if tally.judged is None or (release is not None and tally.release != release):
            continue
        each = found.setdefault((tally.tenant, tally.signal), SignalCounts())
        setattr(each, tally.judged, getattr(each, tally.judged) + 1)
    return found
