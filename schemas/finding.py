"""Findings: what the core knows of one, turned into an OCSF Detection Finding."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from hashlib import sha256
from ipaddress import ip_address
from typing import Any, Literal

import orjson

from schemas import ocsf
from schemas.atlas import ATLAS_VERSION, TECHNIQUES
from schemas.safe_text import safe_text

RELATED_MAX = 100
"""Event ids that a finding lists; `related_events_count` counts all."""
EXCERPT_MAX = 400
"""Characters of one excerpt."""
NAME_MAX = 256
TEXT_MAX = 1_000

_ACTIVITIES: dict[int, Literal["Create", "Update", "Close"]] = {1: "Create", 2: "Update", 3: "Close"}
_SEVERITIES = {1: "Informational", 2: "Low", 3: "Medium", 4: "High", 5: "Critical", 6: "Fatal"}


@dataclass(frozen=True, slots=True, kw_only=True)
class SignalView:
    """What one signal contributes: its number, how rare that is, and against what."""

    name: str
    value: float
    p: float | None = None
    baseline: float | None = None
    """The value that is normal here."""
    baseline_count: int | None = None
    """Observations behind the baseline."""
    baseline_pattern: str | None = None
    """What the baseline is, in words: `median of the tenant's sessions`."""
    pattern: str | None = None
    """What was observed, in words: which feature, which segment."""
    observation_type: str | None = None
    """OCSF's word for the analysis: `Sequence Analysis`."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Excerpt:
    """A piece of redacted traffic that shows what was strange."""

    event_id: str
    role: str
    text: str
    message_index: int
    tool: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class FindingView:
    """Everything a finding says, as plain values. Every time is event time, so that a replay writes the same bytes."""

    tenant: str
    entity_type: Literal["session", "key", "tenant"]
    entity: str
    uid: str
    """As `finding_uid` gives it."""
    revision: int
    activity: Literal[1, 2, 3]
    """1 Create, 2 Update, 3 Close."""
    time_ms: int
    created_ms: int
    """Event time of the opening event; a late event may bring an earlier `first_seen_ms`, never this."""
    first_seen_ms: int
    last_seen_ms: int
    count: int
    severity_id: Literal[1, 2, 3, 4, 5, 6]
    confidence_score: int
    """0 to 100."""
    title: str
    desc: str
    release: str
    score: float
    p_combined: float | None = None
    event_ids: Sequence[str] = ()
    """Oldest first; the opening event's is the first."""
    session: str | None = None
    signals: Sequence[SignalView] = ()
    techniques: Sequence[str] = ()
    """ATLAS ids, of `schemas.atlas.TECHNIQUES`."""
    excerpts: Sequence[Excerpt] = ()
    key_hash: str | None = None
    user: str | None = None
    ip: str | None = None
    tools: Sequence[str] = ()
    models: Sequence[str] = ()
    turn: int | None = None
    """Number of the opening event in its session, from 1."""
    suspicious_turn: int | None = None
    """Of the session's first event that was at all suspicious, which may have come before the one that opened it."""
    suspicious_ms: int | None = None
    """Its event time."""
    related: Sequence[str] = ()
    """Uids of other open findings of the same key."""
    is_test: bool = False


def finding_uid(tenant: str, entity_type: str, entity: str, opening_event_id: str) -> str:
    """`finding_info.uid`, 32 hex digits: the same in every revision.

    >>> finding_uid("team-42", "session", "s1", "00" * 32)
    '14ffa1364911728a58339df960ab8835'
    """
    return sha256(orjson.dumps([tenant, entity_type, entity, opening_event_id])).hexdigest()[:32]


def revision_uid(uid: str, revision: int) -> str:
    """`metadata.uid`, 64 hex digits: a record's own.

    >>> revision_uid("0" * 32, 1)
    '95c3d3795a23dd0060fffd1d288546eca7f538bc584c65a7191e8201e09ae139'
    """
    return sha256(orjson.dumps([uid, revision])).hexdigest()


def build_finding(view: FindingView) -> dict[str, Any]:
    """The Detection Finding of `view`, ready for orjson.

    Raises
    ------
    KeyError
        For a technique that `schemas.atlas` does not know.
    """
    return ocsf.plain(_finding(view))


def encode_finding(view: FindingView) -> bytes:
    """The Detection Finding of `view` as JSON with sorted keys."""
    return orjson.dumps(build_finding(view), option=orjson.OPT_SORT_KEYS)


def _finding(view: FindingView) -> ocsf.Finding:
    activity = _ACTIVITIES[view.activity]
    confidence_id: Literal[1, 2, 3] = 1 if view.confidence_score < 34 else 2 if view.confidence_score < 67 else 3
    title = safe_text(view.title, NAME_MAX)
    closed = view.activity == 3
    return ocsf.Finding(
        activity_id=view.activity,
        activity_name=activity,
        category_uid=2,
        category_name="Findings",
        class_uid=2004,
        class_name="Detection Finding",
        type_uid=_type_uid(view.activity),
        type_name=f"Detection Finding: {activity}",
        time=view.time_ms,
        start_time=view.first_seen_ms,
        end_time=view.last_seen_ms,
        severity_id=view.severity_id,
        severity=_SEVERITIES[view.severity_id],
        status_id=4 if closed else 1,
        status="Resolved" if closed else "New",
        confidence_id=confidence_id,
        confidence=("Low", "Medium", "High")[confidence_id - 1],
        confidence_score=view.confidence_score,
        is_alert=not closed,
        count=view.count,
        message=safe_text(f"{view.entity_type} {view.entity} of {view.tenant}: {title}", TEXT_MAX),
        metadata=_metadata(view),
        finding_info=_finding_info(view, title),
        anomaly_analyses=[_analysis(view, signal) for signal in view.signals],
        evidences=[_evidence(excerpt) for excerpt in view.excerpts],
        observables=_observables(view),
        unmapped=ocsf.Unmapped(
            entity=safe_text(view.entity, NAME_MAX),
            entity_type=view.entity_type,
            release=view.release,
            score=_finite(view.score),
            p_combined=view.p_combined,
            signals={signal.name: _finite(signal.value) for signal in view.signals},
            p={signal.name: signal.p for signal in view.signals if signal.p is not None},
            turn=view.turn,
            first_suspicious_turn=view.suspicious_turn,
            first_suspicious_time=view.suspicious_ms,
            related_findings=list(view.related),
            test=view.is_test,
        ),
    )


def _type_uid(activity: int) -> Literal[200401, 200402, 200403]:
    return 200401 if activity == 1 else 200402 if activity == 2 else 200403


def _metadata(view: FindingView) -> ocsf.Metadata:
    owasp = sorted({label for uid in view.techniques for label in TECHNIQUES[uid].owasp})
    labels = [f"owasp:{label}" for label in owasp]
    return ocsf.Metadata(
        version=ocsf.OCSF_VERSION,
        product=ocsf.Product(name="tidegate", vendor_name="Tidegate"),
        uid=revision_uid(view.uid, view.revision),
        sequence=view.revision,
        tenant_uid=view.tenant,
        correlation_uid=None if view.session is None else safe_text(view.session, NAME_MAX),
        event_code=f"genai.{view.entity_type}.anomaly",
        labels=[*labels, "test"] if view.is_test else labels,
        log_name="genai.anomaly.findings.v1",
        original_event_uid=view.event_ids[0] if view.event_ids else None,
    )


def _finding_info(view: FindingView, title: str) -> ocsf.FindingInfo:
    ids = view.event_ids
    if len(ids) > RELATED_MAX:
        # The opening event stays: uid is derived from it.
        ids = [ids[0], *ids[1 - RELATED_MAX :]]
    owasp = sorted({label for uid in view.techniques for label in TECHNIQUES[uid].owasp})
    return ocsf.FindingInfo(
        uid=view.uid,
        title=title,
        desc=safe_text(view.desc, TEXT_MAX),
        analytic=ocsf.Analytic(
            type_id=4, type="Learning (ML/DL)", name="tidegate", uid=view.release, version=view.release
        ),
        created_time=view.created_ms,
        first_seen_time=view.first_seen_ms,
        last_seen_time=view.last_seen_ms,
        modified_time=view.time_ms,
        types=["GenAI Gateway Anomaly"],
        attacks=[_attack(uid) for uid in view.techniques],
        data_sources=["genai.gateway.events.v1"],
        related_analytics=[
            ocsf.Analytic(type_id=4, type="Learning (ML/DL)", name=signal.name) for signal in view.signals
        ],
        related_events=[ocsf.RelatedEvent(uid=uid, type="genai.gateway.events.v1") for uid in ids],
        related_events_count=max(view.count, len(view.event_ids)),
        tags=[ocsf.Tag(name="owasp_llm", values=owasp)] if owasp else [],
    )


def _attack(uid: str) -> ocsf.Attack:
    technique = TECHNIQUES[uid]
    parent = TECHNIQUES[technique.parent] if technique.parent else technique
    return ocsf.Attack(
        version=ATLAS_VERSION,
        tactic=ocsf.Named(uid=technique.tactic_uid, name=technique.tactic),
        technique=ocsf.Named(
            uid=parent.uid, name=parent.name, src_url=f"https://atlas.mitre.org/techniques/{parent.uid}"
        ),
        sub_technique=ocsf.Named(uid=technique.uid, name=technique.name) if technique.parent else None,
    )


def _analysis(view: FindingView, signal: SignalView) -> ocsf.AnomalyAnalysis:
    rarity = None if signal.p is None else f"p={signal.p:.3g}"
    pattern = "; ".join(part for part in (rarity, signal.pattern) if part)
    baselines = []
    if signal.baseline is not None:
        baselines.append(
            ocsf.Observed(
                observation_parameter=signal.name,
                observation_type=signal.observation_type,
                observed_pattern=safe_text(signal.baseline_pattern, TEXT_MAX) if signal.baseline_pattern else None,
                observations=[ocsf.Observation(value=f"{signal.baseline:.6g}", count=signal.baseline_count)],
            )
        )
    return ocsf.AnomalyAnalysis(
        analysis_targets=[ocsf.AnalysisTarget(name=safe_text(view.entity, NAME_MAX), type=view.entity_type)],
        anomalies=[
            ocsf.Observed(
                observation_parameter=signal.name,
                observation_type=signal.observation_type,
                observed_pattern=safe_text(pattern, TEXT_MAX) if pattern else None,
                observations=[ocsf.Observation(value=f"{signal.value:.6g}")],
            )
        ],
        baselines=baselines,
    )


def _evidence(excerpt: Excerpt) -> ocsf.Evidence:
    return ocsf.Evidence(
        name=f"message {excerpt.message_index} ({excerpt.role})",
        uid=excerpt.event_id,
        data=ocsf.EvidenceData(
            untrusted=True,
            role=excerpt.role,
            excerpt=safe_text(excerpt.text, EXCERPT_MAX),
            message_index=excerpt.message_index,
            tool=safe_text(excerpt.tool, NAME_MAX) if excerpt.tool else None,
        ),
    )


def _observables(view: FindingView) -> list[ocsf.Observable]:
    found = [
        ("key_hash", 19, "User Credential ID", view.key_hash),
        ("user", 4, "User Name", view.user),
        ("src_endpoint.ip", 2, "IP Address", view.ip if view.ip and _is_ip(view.ip) else None),
        *(("tool", 99, "genai.tool", tool) for tool in view.tools),
        *(("model", 99, "genai.model", model) for model in view.models),
    ]
    return [
        ocsf.Observable(name=name, type_id=type_id, type=caption, value=safe_text(value, NAME_MAX))
        for name, type_id, caption, value in found
        if value
    ]


def _is_ip(text: str) -> bool:
    try:
        ip_address(text)
    except ValueError:
        return False
    return True


def _finite(value: float) -> float:
    """JSON has no infinity; a signal that left the scale shows the scale's end."""
    return value if math.isfinite(value) else math.copysign(1.7976931348623157e308, value)
