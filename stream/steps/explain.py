"""Why an event is anomalous: which signal, which segment, which feature, against what."""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from models.volume import SUB_FEATURES
from schemas.event_head import EventHead
from schemas.finding import Excerpt, SignalView
from stream.state.open_findings import Anomaly
from stream.state.schema import (
    FEATURES,
    KINDS,
    KNOWN_ATTACK,
    NOVELTY,
    PROVENANCE,
    ROLE_SURPRISE,
    SEQUENCE,
    SHARED,
    TOOL_KNOWN_ATTACK,
    TOOL_NOVELTY,
    VOLUME,
)
from stream.steps import volume_words
from stream.steps.content import CALL, ROLES, TOOL, USER, segmented
from stream.steps.drift import Moved
from stream.steps.score import ScoreInput, Scores
from stream.steps.score_record import significant
from stream.steps.scored import Scored

EXCERPTS_MAX = 3
FEATURES_NAMED = 3
DRIFT = "drift"
"""The signal, and the cause, of a finding of a tenant whose traffic has moved."""
CONTRIBUTES_P = 0.1
"""A signal this rare by itself is one of those that a finding names as its cause."""
_ROLES_OF = {
    NOVELTY: (USER,),
    TOOL_NOVELTY: (TOOL,),
    ROLE_SURPRISE: (TOOL,),
    PROVENANCE: (CALL, TOOL),
    KNOWN_ATTACK: (USER,),
    TOOL_KNOWN_ATTACK: (TOOL,),
}
"""Whose segments a signal speaks of."""
_KNOWN = (KNOWN_ATTACK, TOOL_KNOWN_ATTACK)
_TITLES = {
    NOVELTY: "Request unlike any that this tenant has made",
    TOOL_NOVELTY: "Tool result unlike any that this tenant's tools have given",
    SEQUENCE: "Session leaves the course that its tenant's sessions take",
    ROLE_SURPRISE: "Tool result speaks like a user or an operator",
    PROVENANCE: "Tool call does what a tool's result told the model",
    VOLUME: "Calls unlike the tenant's in time, number, size or origin",
    KNOWN_ATTACK: "Request like the text of known attacks",
    TOOL_KNOWN_ATTACK: "Tool result like the text of known attacks",
}
_TECHNIQUES = {
    NOVELTY: ("AML.T0051.000",),
    TOOL_NOVELTY: ("AML.T0051.001",),
    SEQUENCE: ("AML.T0053",),
    ROLE_SURPRISE: ("AML.T0051.001",),
    PROVENANCE: ("AML.T0051.001", "AML.T0053"),
    VOLUME: (),
    KNOWN_ATTACK: (),
    TOOL_KNOWN_ATTACK: ("AML.T0051.001",),
}
_TECHNIQUES_OF_VOLUME = {
    "prompt_tokens": "AML.T0029",
    "completion_tokens": "AML.T0034",
    "cost": "AML.T0034",
    "duration": "AML.T0029",
    "key_calls": "AML.T0034",
    "key_tokens": "AML.T0034",
    "argument_growth": "AML.T0086",
    "errors": "AML.T0029",
    "key_errors": "AML.T0012",
    "repeats": "AML.T0029",
}
"""Of the sub-feature that speaks; the others are about who calls, and when: `AML.T0012`."""
_TECHNIQUES_OF_CLASS = {
    "injection": "AML.T0051",
    "jailbreak": "AML.T0054",
    "exfiltration": "AML.T0057",
    "prompt_extraction": "AML.T0056",
    "abuse": "AML.T0054",
}
_PATTERNS = {
    NOVELTY: "distance of the strangest new segments of the request",
    TOOL_NOVELTY: "distance of the strangest new segments of the tools' results",
    ROLE_SURPRISE: "log-odds that a segment of a tool's result was written by a user or an operator",
    PROVENANCE: "such log-odds of a tool's result whose words the call repeats, and nobody else wrote",
}
_BASELINES = {True: "typical maximum of all tenants' sessions", False: "typical maximum of the tenant's sessions"}
_NEWCOMER = "; the release was not trained on the tenant, of which it takes more to be found"
_OBSERVATIONS = {
    NOVELTY: "Nearest Neighbour Analysis",
    TOOL_NOVELTY: "Nearest Neighbour Analysis",
    SEQUENCE: "Sequence Analysis",
    ROLE_SURPRISE: "Text Classification",
    PROVENANCE: "Information Flow Analysis",
    VOLUME: "Statistical Analysis",
    KNOWN_ATTACK: "Text Classification",
    TOOL_KNOWN_ATTACK: "Text Classification",
}


def anomaly(scored: Scored, event: int, at: int) -> Anomaly:
    """What a finding says of event `event` of the batch, the `at`-th of those scored."""
    batch, given, scores = scored.placed.batch, scored.given, scored.scores
    new, contents, suspicion = scored.new, scored.contents, scored.suspicion
    head = batch.heads[event]
    segments = np.flatnonzero(given.segment_event == at)
    leading = int(scores.leading[at])
    # What the signal that weighs most speaks of stands before all else, then the strangest; of one that speaks of no
    # text, what the rarest of those does that do, if it says anything.
    textual = min(_ROLES_OF, key=scores.p[at].__getitem__)
    shown_by = textual if leading not in _ROLES_OF and scores.p[at, textual] < 1 else leading
    off_cause = ~np.isin(given.segment_role[segments], _ROLES_OF.get(shown_by, ()))
    strangest = segments[np.lexsort((-_strangeness(shown_by, given, scores, segments), off_cause))][:EXCERPTS_MAX]
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
        entity=(int(batch.partition[event]), head.tenant, "session", head.session),
        event_id=head.event_id,
        traceparent=batch.traceparent[event],
        event_time_ms=int(batch.event_time_ms[event]),
        core_time_ms=int(scored.placed.core_time_ms[event]),
        p_combined=float(scores.p_combined[at]),
        title=_TITLES[leading],
        # What exceptions and verdicts go by: the rarest, as a finding's records tell it.
        cause=KINDS[int(np.argmin(scores.p[at]))],
        signals=_signals(at, scored),
        techniques=_techniques(at, given, scores, scored.classes),
        evidence=excerpts or _said_last(head),
        key_hash=head.key_hash,
        user=head.user,
        ip=head.ip,
        model=head.model_served or head.model_requested,
        tools=tools,
        session=head.session,
        turn=int(suspicion.turn[at]),
        # An anomaly is suspicious itself, whatever the operating point.
        suspicious_turn=int(suspicion.first_turn[at]) or int(suspicion.turn[at]),
        suspicious_ms=int(suspicion.first_ms[at]) or int(batch.event_time_ms[event]),
    )


def _said_last(head: EventHead) -> tuple[Excerpt, ...]:
    """What an event that says nothing new ends with."""
    messages = (*head.messages, *head.output)
    for at in range(len(messages) - 1, -1, -1):
        content = segmented(messages[at])
        if content.texts:
            role = ROLES[int(content.roles[0])]
            return (Excerpt(event_id=head.event_id, role=role, text=content.texts[0], message_index=at),)
    return ()


def drift_anomaly(scored: Scored, event: int, moved: Moved) -> Anomaly:
    """What a finding says of a tenant whose traffic has moved at event `event` of the batch."""
    batch = scored.placed.batch
    head, event_time_ms = batch.heads[event], int(batch.event_time_ms[event])
    drift = SignalView(
        name=DRIFT,
        value=round(moved.statistic, 6),
        baseline=round(moved.before, 6),
        baseline_pattern=f"mean of {moved.metric} over the tenant's windows until now",
        pattern=f"{moved.metric} is {moved.after:.4g} in the latest window; Page's statistic over its threshold",
        observation_type="Drift Detection",
    )
    return Anomaly(
        entity=(int(batch.partition[event]), head.tenant, "tenant", head.tenant),
        event_id=head.event_id,
        traceparent=batch.traceparent[event],
        event_time_ms=event_time_ms,
        core_time_ms=int(scored.placed.core_time_ms[event]),
        p_combined=1.0,
        title=f"What is normal for the tenant has moved: {moved.metric}",
        cause=drift.name,
        signals=(drift,),
        techniques=(),
        evidence=(),
        key_hash=None,
        user=None,
        ip=None,
        model=head.model_served or head.model_requested,
        tools=(),
    )


def _strangeness(kind: int, given: ScoreInput, scores: Scores, segments: NDArray[np.int64]) -> NDArray[np.float32]:
    """How much each of the `segments` (s) shows what a signal speaks of."""
    judged = given.segment_judged[segments]
    shown: NDArray[np.float32] = scores.distance[segments]
    if kind in (ROLE_SURPRISE, PROVENANCE):
        # A call stands before what it obeys.
        is_call = given.segment_role[segments] == CALL
        told = np.nan_to_num(judged[:, 0], nan=-np.inf)
        shown = np.where(is_call & (kind == PROVENANCE), np.float32(np.inf), told)
    elif kind in _KNOWN:
        shown = np.nan_to_num(judged[:, 1:].max(axis=1), nan=-np.inf)
    return shown


def _class_of(kind: int, at: int, given: ScoreInput) -> int:
    """The class of known attacks, by column, that the event's segments of that role are most like, -1 for none."""
    mine = (given.segment_event == at) & np.isin(given.segment_role, _ROLES_OF[kind])
    judged = given.segment_judged[mine, 1:]
    return int(judged.max(axis=0).argmax()) if judged.size else -1


def _techniques(at: int, given: ScoreInput, scores: Scores, classes: Sequence[str]) -> tuple[str, ...]:
    """ATLAS techniques that such an anomaly is a first sign of; signals that know no intent name no more."""
    causes = [kind for kind in _TECHNIQUES if scores.p[at, kind] <= CONTRIBUTES_P]
    found = [technique for kind in causes for technique in _TECHNIQUES[kind]]
    found += [
        _TECHNIQUES_OF_CLASS[classes[number]]
        for kind in _KNOWN
        if kind in causes and (number := _class_of(kind, at, given)) >= 0
    ]
    if VOLUME in causes:
        found.append(_TECHNIQUES_OF_VOLUME.get(SUB_FEATURES[int(scores.volume[at].argmax())], "AML.T0012"))
    return tuple(dict.fromkeys(found)) or ("AML.T0051",)


def _signals(at: int, scored: Scored) -> tuple[SignalView, ...]:
    out, scores = [], scored.scores
    for kind, name in enumerate(KINDS):
        value = float(scores.x[at, kind])
        if np.isnan(value):
            continue
        shared = bool(SHARED[kind])
        out.append(
            SignalView(
                name=name,
                value=round(value, 6),
                p=significant(float(scores.p[at, kind])),
                baseline=round(float(scores.location[at, kind]), 6),
                baseline_count=None if shared else int(scores.observations[at, kind]),
                baseline_pattern=_BASELINES[shared],
                pattern=_pattern(kind, at, scored) + (_NEWCOMER if scores.newcomer[at] and shared else ""),
                observation_type=_OBSERVATIONS[kind],
            )
        )
    return tuple(out)


def _pattern(kind: int, at: int, scored: Scored) -> str:
    if kind == SEQUENCE:
        return _features(at, scored.scores)
    if kind in _KNOWN:
        likest = f"log-odds of the class {scored.classes[_class_of(kind, at, scored.given)]}"
        return likest + (_less(at, scored.given) if kind == TOOL_KNOWN_ATTACK else "")
    if kind == VOLUME:
        said = volume_words.explain(scored.calls, at, scored.scores.volume[at])
        return "; ".join(f"{name}: {words}" for name, words in said) or "as usual"
    return _PATTERNS[kind] + (_less(at, scored.given) if kind == ROLE_SURPRISE else "")


def _less(at: int, given: ScoreInput) -> str:
    """What requests have taken from the log-odds of the tools' texts of an event."""
    covered = float(given.segment_covered[given.segment_event == at].max(initial=0))
    return f", less {covered:.2g} for what the user has handed over" if covered else ""


def _features(at: int, scores: Scores) -> str:
    error = scores.feature_error[at]
    worst = np.argsort(-error, kind="stable")[:FEATURES_NAMED]
    return "unexpected " + ", ".join(FEATURES[i] for i in worst.tolist() if error[i] > 0)
