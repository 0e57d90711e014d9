"""Findings, evidence and verdicts as the join sees them."""

from __future__ import annotations

from typing import Any

from stream.feedback.inputs import EvidenceSeen, FindingSeen, VerdictSeen, evidence_seen, finding_seen, verdict_of
from tests.drills.feedback_traffic import compact
from tests.drills.feedback_traffic import finding as finding_record
from tests.drills.feedback_traffic import score as score_record
from tests.drills.feedback_traffic import verdict as verdict_record


def finding(number: int = 1, revision: int = 1, at_ms: int = 0, **about: Any) -> FindingSeen:
    return finding_seen(compact(finding_record(number, revision, **about)[3]), at_ms)


def evidence(number: int = 1, place: int = 0, partition: int = 0) -> EvidenceSeen:
    found = evidence_seen(compact(score_record(number, place, partition)[3]), 0)
    assert found is not None
    return found


def verdict(
    analyst: str, verdict_id: int, time_ms: int = 0, number: int = 1, at_ms: int = 0, **more: Any
) -> VerdictSeen:
    said, _ = verdict_of(compact(verdict_record(number, analyst, verdict_id, time_ms, **more)[3]))
    return VerdictSeen(verdict=said, identity="unverified", at_ms=at_ms)
