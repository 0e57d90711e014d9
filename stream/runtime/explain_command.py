"""`tidegate explain`: why one event was scored as it was, and what would have been normal."""

from __future__ import annotations

import argparse
import logging
from collections.abc import Iterator
from contextlib import ExitStack
from typing import Any

import orjson

from schemas.finding import EXCERPT_MAX
from schemas.safe_text import safe_text
from stream.config import Settings
from stream.errors import UsageError
from stream.runtime.explain_found import Said, said_in_folder, said_on_topics
from stream.runtime.explain_text import render

_LOG = logging.getLogger(__name__)
_NAME_CHARS = 256


def run(settings: Settings, arguments: argparse.Namespace) -> int:
    """Explain an event: by its finding if that tells of it, else by a replay up to it.

    Raises
    ------
    UsageError
        When the event is not there, or nothing says more of it and no release is given to replay with.
    TidegateError
        With the exit code that says what is wrong.
    """
    with ExitStack() as stack:
        said = _said(settings, arguments, stack)
        told = None if arguments.replay else _by_finding(said, settings)
        if told is None and arguments.release is not None and (arguments.input or arguments.topic):
            told = _by_replay(settings, arguments, said, stack)
        if told is None:
            told = _by_score(said, settings)
    if told is None:
        raise UsageError(_missing(arguments))
    if arguments.json:
        print(orjson.dumps(told, option=orjson.OPT_SORT_KEYS).decode())
    else:
        render(told)
    return 0


def _missing(arguments: argparse.Namespace) -> str:
    where = arguments.topic or ", ".join(str(path) for path in arguments.input or ()) or arguments.replayed
    event = f"event {safe_text(arguments.event_id, _NAME_CHARS)!r}"
    if arguments.release is None:
        return f"{event} has no score beside {where}. Give --release R to replay up to it, or correct the id."
    return f"{event} is not in {where}. Give the id of a score or of a finding's related event, or widen the range."


def _said(settings: Settings, arguments: argparse.Namespace, stack: ExitStack) -> Said:
    """What was already written about the event."""
    if arguments.replayed is not None:
        return said_in_folder(arguments.replayed, arguments.event_id)
    if arguments.topic is None:
        return Said()
    from stream.runtime.replay_input import beside
    from stream.runtime.topic_reader import TopicReader

    reader = TopicReader(settings, "explain")
    stack.callback(reader.close)
    names = (beside(arguments.topic, settings, name) for name in (settings.topics.scores, settings.topics.findings))
    scores, findings = names
    return said_on_topics(reader, scores, findings, arguments.event_id)


# -- by records --------------------------------------------------------------------------------------------------------


def _by_score(said: Said, settings: Settings) -> dict[str, Any] | None:
    """What the score alone tells: no baseline, no segment."""
    score = said.score
    if score is None:
        return None
    return {
        **_scored(score, said),
        "told_by": "score",
        "why": why(score, settings.decision.session_fpr, settings.learning.grace_sessions),
        "signals": _ranked(
            {"name": name, "value": value, "p": score["p"].get(name)} for name, value in score["signals"].items()
        ),
        "segments": [],
        "features": [],
        "note": "Segments, features and baselines are known to a replay only: give an input and --release.",
    }


def _by_finding(said: Said, settings: Settings) -> dict[str, Any] | None:
    """What the finding tells, if it speaks for this event."""
    told, own = _by_score(said, settings), said.own
    if told is None or own is None:
        return None
    return {
        **told,
        "told_by": "finding",
        "title": own["finding_info"]["title"],
        "techniques": [_technique(attack) for attack in own["finding_info"].get("attacks", [])],
        "turn": own["unmapped"].get("turn") if own["activity_id"] == 1 else None,
        "signals": _ranked(_analysed(own)),
        "segments": [
            {
                "role": evidence["data"]["role"],
                "message_index": evidence["data"]["message_index"],
                "text": safe_text(evidence["data"]["excerpt"], EXCERPT_MAX),
                "strangest": rank == 0,
            }
            for rank, evidence in enumerate(
                each for each in own.get("evidences", []) if each["uid"] == told["event_id"]
            )
        ],
        "observables": [[each["name"], each["value"]] for each in own.get("observables", [])],
        "note": "The finding keeps the strangest segments only: --replay shows every one, and every feature.",
    }


def _analysed(finding: dict[str, Any]) -> Iterator[dict[str, Any]]:
    about = finding["unmapped"]
    for analysis in finding.get("anomaly_analyses", []):
        observed = analysis["anomalies"][0]
        name = observed["observation_parameter"]
        usual = next(iter(analysis.get("baselines", [])), None)
        first = usual["observations"][0] if usual else {}
        yield {
            "name": name,
            "value": about["signals"].get(name),
            "p": about["p"].get(name),
            "baseline": float(first["value"]) if usual else None,
            "baseline_count": first.get("count"),
            "baseline_pattern": usual.get("observed_pattern") if usual else None,
            "pattern": observed.get("observed_pattern", "").partition("; ")[2],
        }


def _technique(attack: dict[str, Any]) -> str:
    return str((attack.get("sub_technique") or attack["technique"])["uid"])


# -- by replay ---------------------------------------------------------------------------------------------------------


def _by_replay(
    settings: Settings, arguments: argparse.Namespace, said: Said, stack: ExitStack
) -> dict[str, Any] | None:
    """What a replay up to the event tells; None when it does not come by."""
    from stream.core import Core
    from stream.runtime.explain_watch import Seen, Unwritten, Watcher
    from stream.runtime.replay_input import prepare

    until = None
    if arguments.topic is not None and said.score is not None:
        # No other partition has a say in it.
        until = said.score["partition"], said.score["offset"]
    prepared = prepare(settings, arguments, stack, until)
    sink = Unwritten(arguments.event_id)
    release = prepared.release

    def core(of: Settings) -> Core:
        watcher = Watcher(arguments.event_id, of)
        return Core(of, release, prepared.embedder, watch=watcher)

    replay = prepared.replay(core, sink)
    _LOG.info("replaying up to the event")
    try:
        replay.run(prepared.input.sources(False)[0])
    except Seen as seen:
        return _watched(seen, said)
    if sink.repeated is not None:
        raise UsageError(
            f"event {safe_text(arguments.event_id, _NAME_CHARS)!r} at {sink.repeated} is a duplicate of one before "
            "what is replayed: begin earlier, without --from-state or with an earlier --from-offset."
        )
    return None


def _watched(seen: Any, said: Said) -> dict[str, Any]:
    watched = seen.watched
    explained = watched.explained
    note = ""
    if said.score is not None and _numbers(said.score) != _numbers(watched.score):
        note = (
            f"The replay differs from the score that release {said.score['release']} wrote: "
            "another release, configuration, state or beginning."
        )
    measured: dict[str, float] = {}
    for segment in watched.segments:
        for name, value in segment.measures.items():
            measured[f"{segment.role} {name}"] = max(measured.get(f"{segment.role} {name}", 0.0), value)
    return {
        **_scored(watched.score, said),
        "told_by": "replay",
        "why": why(watched.score, watched.session_fpr, watched.grace_sessions, newcomer=watched.newcomer),
        # What a finding would say: of an event within what is normal it would be wrong.
        "title": explained.title if watched.score["decision"] != "none" else None,
        "techniques": list(explained.techniques) if watched.score["decision"] != "none" else [],
        "turn": watched.turn,
        "signals": _ranked(
            {
                name: getattr(signal, name)
                for name in ("name", "value", "p", "baseline", "baseline_count", "baseline_pattern", "pattern")
            }
            for signal in explained.signals
        ),
        "segments": [
            {
                "role": segment.role,
                "message_index": segment.message_index,
                "text": safe_text(segment.text, EXCERPT_MAX),
                "measures": {name: round(value, 6) for name, value in segment.measures.items()},
                "strangest": any(
                    0 < value == measured[f"{segment.role} {name}"] for name, value in segment.measures.items()
                ),
                "normal": segment.normal
                and {
                    "text": safe_text(segment.normal.text, EXCERPT_MAX),
                    "distance": round(segment.normal.distance, 6),
                    "event_id": segment.normal.event_id,
                },
            }
            for segment in watched.segments
        ],
        "features": [{"name": name, "share": round(share, 4)} for name, share in watched.features],
        "observables": [
            [name, safe_text(value, _NAME_CHARS)]
            for name, value in (
                ("key_hash", explained.key_hash), ("user", explained.user), ("src_endpoint.ip", explained.ip),
                ("model", explained.model), *(("tool", tool) for tool in explained.tools),
            )
            if value
        ],
        "note": note,
    }  # fmt: skip


def _numbers(score: dict[str, Any]) -> tuple[Any, ...]:
    return score["signals"], score["p"], score["p_combined"]


# -- both --------------------------------------------------------------------------------------------------------------


def _scored(score: dict[str, Any], said: Said) -> dict[str, Any]:
    """What the score says of the event, and its finding, if it has one."""
    told = {
        name: score.get(name)
        for name in (
            "event_id", "event_time_ms", "partition", "offset", "ordinal", "release", "decision", "p_combined",
            "learned", "late", "clamped", "finding_uid",
        )
    }  # fmt: skip
    told |= {name: safe_text(score[name], _NAME_CHARS) for name in ("tenant", "session")}
    finding = said.finding
    if finding is not None:
        told["finding"] = {
            "uid": finding["finding_info"]["uid"],
            "severity": finding["severity"],
            "events": finding["count"],
            "entity_type": finding["unmapped"]["entity_type"],
            "entity": finding["unmapped"]["entity"],
            "state": finding["status"],
        }
    return told


def why(score: dict[str, Any], session_fpr: float, grace_sessions: int, *, newcomer: bool = False) -> str:
    """The decision as a sentence, and another where the tenant is one on which the release was not trained.

    >>> why({"decision": "none", "p_combined": 0.2}, 0.01, 20)
    'p 0.2 is above the operating point, 0.01 of sessions (decision.session_fpr): no finding.'
    """
    p, decision = score["p_combined"], score["decision"]
    more = " It takes more in a tenant's first sessions where the release was not trained on it." if newcomer else ""
    beyond = f"p {p:.2g} is at or below the operating point, {session_fpr:g} of sessions (decision.session_fpr)"
    if decision == "none":
        return (
            f"p {p:.2g} is above the operating point, {session_fpr:g} of sessions (decision.session_fpr): no finding."
            f"{more}"
        )
    if p > session_fpr:
        # Another operating point than today's, a budget's perhaps, has decided.
        beyond = f"p {p:.2g} was beyond the operating point of its time"
    ends = {
        "finding": "it is part of a finding.",
        "warmup": f"but its tenant's first {grace_sessions} sessions (learning.grace_sessions) decide nothing.",
        "suppressed": "but an exception, a suppression or a snooze keeps it from being found.",
        "over_budget": "but the alert budget had no room for it.",
    }
    return f"{beyond}: {ends.get(decision, decision)}{more}"


def _ranked(signals: Any) -> list[dict[str, Any]]:
    """The rarest first."""
    return sorted(signals, key=lambda each: (2.0 if each["p"] is None else each["p"], each["name"]))
