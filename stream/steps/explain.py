"""Why an event is anomalous: which signal, which segment, which feature, against what."""

from collections.abc import Sequence

import numpy as np

from schemas.finding import Excerpt, SignalView
from stream.batch import EventBatch
from stream.state.open_findings import Anomaly
from stream.state.schema import FEATURES, KINDS
from stream.steps.content import ROLES, Content
from stream.steps.report import significant
from stream.steps.score import HEARD, NOVELTY, SEQUENCE, TOOL_NOVELTY, ScoreInput, Scores
from stream.steps.sessions import NewContent

EXCERPTS_MAX = 3
FEATURES_NAMED = 3
CONTRIBUTES_P = 0.1
"""A signal this rare by itself is one of those that a finding names as its cause."""
_HEARD_BY = {kind: role for role, kind in HEARD.items()}
_TITLES = {
    NOVELTY: "Request unlike any that this tenant has made",
    TOOL_NOVELTY: "Tool result unlike any that this tenant's tools have given",
    SEQUENCE: "Session leaves the course that its tenant's sessions take",
}
_TECHNIQUES = {NOVELTY: "AML.T0051.000", TOOL_NOVELTY: "AML.T0051.001", SEQUENCE: "AML.T0053"}
_PATTERNS = {
    NOVELTY: "distance of the strangest new segments of the request",
    TOOL_NOVELTY: "distance of the strangest new segments of the tools' results",
}


def anomaly(
    batch: EventBatch,
    event: int,
    at: int,
    core_time_ms: int,
    given: ScoreInput,
    scores: Scores,
    new: NewContent,
    contents: Sequence[Content],
) -> Anomaly:
    """What a finding says of event `event` of the batch, the `at`-th of those scored."""
    head = batch.heads[event]
    segments = np.flatnonzero(given.segment_event == at)
    cause = int(np.argmin(scores.p[at]))
    # What the signal that caused it heard stands before all else, then the strangest.
    off_cause = given.segment_role[segments] != _HEARD_BY.get(cause, -1)
    strangest = segments[np.lexsort((-scores.distance[segments], off_cause))][:EXCERPTS_MAX]
    mine = np.flatnonzero(new.event == at)
    texts = [(text, int(new.message[i])) for i in mine[new.unseen[mine]].tolist() for text in contents[i].texts]
    first = int(segments[0]) if len(segments) else 0
    tools = tuple(dict.fromkeys(name for i in mine.tolist() for name in contents[i].calls if name))
    excerpts = tuple(
        Excerpt(
            event_id=head.event_id,
            role=ROLES[int(given.segment_role[i])],
            text=texts[i - first][0],
            message_index=texts[i - first][1],
        )
        for i in strangest.tolist()
    )
    return Anomaly(
        entity=(int(batch.partition[event]), head.tenant, head.session),
        event_id=head.event_id,
        traceparent=batch.traceparent[event],
        event_time_ms=int(batch.event_time_ms[event]),
        core_time_ms=core_time_ms,
        p_combined=float(scores.p_combined[at]),
        title=_TITLES[cause],
        signals=_signals(at, scores),
        techniques=_techniques(at, scores),
        evidence=excerpts,
        key_hash=head.key_hash,
        user=head.user,
        ip=head.ip,
        model=head.model_served or head.model_requested,
        tools=tools,
    )


def _techniques(at: int, scores: Scores) -> tuple[str, ...]:
    """ATLAS techniques that such an anomaly is a first sign of; signals that know no intent name no more."""
    found = [technique for kind, technique in _TECHNIQUES.items() if scores.p[at, kind] <= CONTRIBUTES_P]
    return tuple(found) or ("AML.T0051",)


def _signals(at: int, scores: Scores) -> tuple[SignalView, ...]:
    out = []
    for kind, name in enumerate(KINDS):
        value = float(scores.x[at, kind])
        if np.isnan(value):
            continue
        out.append(
            SignalView(
                name=name,
                value=round(value, 6),
                p=significant(float(scores.p[at, kind])),
                baseline=round(float(scores.location[at, kind]), 6),
                baseline_count=int(scores.observations[at, kind]),
                baseline_pattern="typical maximum of the tenant's sessions",
                pattern=_features(at, scores) if kind == SEQUENCE else _PATTERNS[kind],
                observation_type="Sequence Analysis" if kind == SEQUENCE else "Nearest Neighbour Analysis",
            )
        )
    return tuple(out)


def _features(at: int, scores: Scores) -> str:
    error = scores.feature_error[at]
    worst = np.argsort(-error, kind="stable")[:FEATURES_NAMED]
    return "unexpected " + ", ".join(FEATURES[i] for i in worst.tolist() if error[i] > 0)
