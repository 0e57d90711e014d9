"""Anomalous events -> the records of their session's finding: Create, Updates with counts, Close after quiet."""

import math
from typing import Literal

from schemas.finding import FindingView, encode_finding
from stream.record import OutRecord
from stream.state.open_findings import Anomaly, Entity, OpenFinding, OpenFindings
from stream.steps.route import partition_of_key
from stream.steps.score_record import significant

CRITICAL_P = 1e-5
"""At or below it a finding is critical."""
Source = tuple[str, int, int]
"""Topic, partition and offset of the input that causes a record."""


class FindingWriter:
    """Writes what the open findings become.

    Parameters
    ----------
    findings
        Those that are open.
    release
        That scores.
    partitions
        Of the findings topic.
    test_tenant
        Whose findings are marked as a test; empty where nobody's are.
    """

    def __init__(self, findings: OpenFindings, release: str, partitions: int, test_tenant: str = "") -> None:
        self._findings = findings
        self._release = release
        self._partitions = partitions
        self._test_tenant = test_tenant

    def serve(self, release: str) -> None:
        """Go on with this release's name."""
        self._release = release

    def flag(self, anomaly: Anomaly, source: Source) -> tuple[str, OutRecord]:
        """The finding that the anomaly opens or updates, and its record."""
        finding, activity = self._findings.flag(anomaly)
        body = self._render(anomaly.entity, finding, activity, anomaly.event_time_ms)
        record = self._placed(finding.uid, body, source, anomaly.event_id, anomaly.traceparent)
        return finding.uid, record

    def close(self, entity: Entity, due_ms: int, source: Source) -> OutRecord:
        """The last record of a finding whose session stayed quiet; it carries the opening event's id."""
        finding = self._findings.close(entity)
        traceparent = finding.traceparent.encode("latin-1") if finding.traceparent else None
        body = self._render(entity, finding, 3, due_ms)
        return self._placed(finding.uid, body, source, finding.opening_event_id, traceparent)

    def _placed(self, uid: str, body: bytes, source: Source, event_id: str, traceparent: bytes | None) -> OutRecord:
        key = uid.encode()
        return OutRecord(partition_of_key(key, self._partitions), key, body, source, event_id, traceparent)

    def _render(self, entity: Entity, finding: OpenFinding, activity: Literal[1, 2, 3], time_ms: int) -> bytes:
        view = FindingView(
            tenant=entity[1],
            entity_type=entity[2],
            entity=entity[3],
            session=finding.session,
            uid=finding.uid,
            revision=finding.revision,
            activity=activity,
            time_ms=time_ms,
            created_ms=finding.created_ms,
            first_seen_ms=finding.first_ms,
            last_seen_ms=finding.last_ms,
            count=finding.count,
            severity_id=severity(finding.p_combined),
            confidence_score=confidence(finding.p_combined),
            title=finding.title,
            desc=_description(entity, finding),
            release=self._release,
            score=significant(max(0.0, -math.log10(finding.p_combined))),
            p_combined=significant(finding.p_combined),
            event_ids=finding.event_ids,
            signals=finding.signals,
            techniques=finding.techniques,
            excerpts=finding.evidence,
            key_hash=finding.key_hash,
            user=finding.user,
            ip=finding.ip,
            tools=finding.tools,
            models=finding.models,
            turn=finding.turn or None,
            suspicious_turn=finding.suspicious_turn or None,
            suspicious_ms=finding.suspicious_ms or None,
            related=finding.related,
            is_test=entity[1] == self._test_tenant,
        )
        return encode_finding(view)


def _description(entity: Entity, finding: OpenFinding) -> str:
    events = f"{finding.count} anomalous event{'s' if finding.count > 1 else ''}"
    if entity[2] == "tenant":
        return f"{events} of the tenant: what is normal for it has moved."
    return f"{events}; the strangest is expected in {finding.p_combined:.2g} of the tenant's sessions."


def severity(p_combined: float) -> Literal[2, 3, 4, 5]:
    """OCSF severity: how rare a benign session like this is. Low below 1 in 1,000, then by decades up to Critical.

    >>> [severity(p) for p in (0.01, 0.001, 1e-4, 1e-6)]
    [2, 3, 4, 5]
    """
    if p_combined > 1e-3:
        return 2
    if p_combined > 1e-4:
        return 3
    return 4 if p_combined > CRITICAL_P else 5


def confidence(p_combined: float) -> int:
    """0 to 100: the share of decades, up to six, by which the event is rarer than any benign one.

    >>> confidence(0.01), confidence(1e-7)
    (33, 100)
    """
    return min(100, round(-math.log10(p_combined) / 6 * 100))
