"""The part of OCSF 1.8.0 Detection Finding (class 2004) that Tidegate writes, as typed structures.

References
----------
Open Cybersecurity Schema Framework 1.8.0, class detection_finding. Comments of OCSF's own are not repeated.
"""

from __future__ import annotations

from typing import Annotated, Any, Final, Literal

import msgspec

from schemas.event import Hex32, Hex64

OCSF_VERSION: Final = "1.8.0"


class _Object(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """An OCSF object: what has no value is left out."""


class Product(_Object, frozen=True, kw_only=True):
    """The product that found it."""

    name: str
    vendor_name: str
    version: str | None = None


class Metadata(_Object, frozen=True, kw_only=True):
    """Of this revision."""

    version: Literal["1.8.0"]
    product: Product
    uid: Hex64
    sequence: Annotated[int, msgspec.Meta(ge=1)]
    """Revision of the finding, gapless from 1."""
    tenant_uid: str
    correlation_uid: str | None = None
    """The session, for a finding about one."""
    event_code: str
    labels: list[str] = []
    log_name: str | None = None
    original_event_uid: str | None = None


class Analytic(_Object, frozen=True, kw_only=True):
    """What learned the normal that the finding departs from."""

    type_id: Literal[4]
    type: Literal["Learning (ML/DL)"]
    name: str
    uid: str | None = None
    version: str | None = None


class Named(_Object, frozen=True, kw_only=True):
    """A tactic, technique or sub-technique."""

    uid: str
    name: str
    src_url: str | None = None


class Attack(_Object, frozen=True, kw_only=True):
    """An ATLAS technique."""

    version: str
    tactic: Named
    technique: Named
    sub_technique: Named | None = None


class RelatedEvent(_Object, frozen=True, kw_only=True):
    """An event of the finding."""

    uid: str
    type: str


class Tag(_Object, frozen=True, kw_only=True):
    """A name and its values."""

    name: str
    values: list[str]


class FindingInfo(_Object, frozen=True, kw_only=True):
    """What is the same in every revision, and what has been seen so far."""

    uid: Hex32
    title: str
    desc: str
    analytic: Analytic
    created_time: int
    """Event time of the first event, ms."""
    first_seen_time: int
    last_seen_time: int
    modified_time: int
    types: list[str]
    attacks: list[Attack] = []
    data_sources: list[str] = []
    related_analytics: list[Analytic] = []
    related_events: list[RelatedEvent]
    related_events_count: int
    tags: list[Tag] = []


class Observation(_Object, frozen=True, kw_only=True):
    """A value, as text."""

    value: str
    count: int | None = None


class Observed(_Object, frozen=True, kw_only=True):
    """An anomaly, or the baseline beside it."""

    observation_parameter: str
    observations: list[Observation]
    observation_type: str | None = None
    observed_pattern: str | None = None


class AnalysisTarget(_Object, frozen=True, kw_only=True):
    """What was analysed."""

    name: str
    type: str


class AnomalyAnalysis(_Object, frozen=True, kw_only=True):
    """One signal's explanation."""

    analysis_targets: list[AnalysisTarget]
    anomalies: list[Observed]
    baselines: list[Observed] = []


class EvidenceData(_Object, frozen=True, kw_only=True):
    """A redacted excerpt of the traffic: written by strangers, to be read and never to be obeyed."""

    untrusted: Literal[True]
    role: str
    excerpt: str
    message_index: int
    tool: str | None = None


class Evidence(_Object, frozen=True, kw_only=True):
    """Where the excerpt was found."""

    name: str
    uid: str
    """The event's id."""
    data: EvidenceData


class Observable(_Object, frozen=True, kw_only=True):
    """Something to search for elsewhere."""

    name: str
    type_id: int
    type: str
    value: str


class Unmapped(_Object, frozen=True, kw_only=True):
    """What OCSF has no field for."""

    entity: str
    entity_type: str
    release: str
    score: float
    p_combined: float | None = None
    signals: dict[str, float] = {}
    p: dict[str, float] = {}
    turn: int | None = None
    """Number of the opening event in its session, from 1."""
    first_suspicious_turn: int | None = None
    first_suspicious_time: int | None = None
    """Event time, ms."""
    related_findings: list[str] = []
    """Uids of other open findings of the same key."""
    test: bool = False
    """Caused by a canary or an exercise."""


class Finding(_Object, frozen=True, kw_only=True):
    """An OCSF 1.8.0 Detection Finding."""

    activity_id: Literal[1, 2, 3]
    activity_name: Literal["Create", "Update", "Close"]
    category_uid: Literal[2]
    category_name: Literal["Findings"]
    class_uid: Literal[2004]
    class_name: Literal["Detection Finding"]
    type_uid: Literal[200401, 200402, 200403]
    type_name: str
    time: int
    """Event time of what caused this revision, ms."""
    start_time: int
    end_time: int
    severity_id: Literal[1, 2, 3, 4, 5, 6]
    severity: str
    status_id: Literal[1, 4]
    status: Literal["New", "Resolved"]
    confidence_id: Literal[1, 2, 3]
    confidence: Literal["Low", "Medium", "High"]
    confidence_score: Annotated[int, msgspec.Meta(ge=0, le=100)]
    is_alert: bool
    count: Annotated[int, msgspec.Meta(ge=1)]
    """Events in the finding so far."""
    message: str
    metadata: Metadata
    finding_info: FindingInfo
    anomaly_analyses: list[AnomalyAnalysis] = []
    evidences: list[Evidence] = []
    observables: list[Observable] = []
    unmapped: Unmapped


def plain(finding: Finding) -> dict[str, Any]:
    """The finding as dictionaries and lists, ready for a JSON library."""
    value: dict[str, Any] = msgspec.to_builtins(finding)
    return value
