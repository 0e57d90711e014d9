"""The second week as the product meets it in service: in the order of time, learning as it goes."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from itertools import pairwise
from typing import Literal

import numpy as np
import orjson
from numpy.typing import NDArray

from evaluation.events import Events
from evaluation.systems.product import Said
from evaluation.systems.system import ALONE
from models.tail import probability
from stream.config import Settings
from stream.core import Core
from stream.inputs import InputBatch, Outcome
from stream.record import OutRecord
from stream.release import Release
from stream.state.schema import KINDS
from stream.steps.content import Embeds
from stream.steps.scored import Scored

_AT_ONCE = 2000
ALONE_SHARE = 0.1
"""The last events, `ALONE` and no more than that share, of which each is a batch of its own: how long one takes is told
by them. What is said of an event does not hang on its batch."""
_CLOSE = 3


@dataclass(slots=True)
class Found:
    """A finding, all its revisions."""

    tenant: str
    entity: Literal["session", "key", "tenant"]
    """What kind of thing it is about; about a tenant it says drift."""
    created_ms: int
    """Event time."""
    events: list[int]
    """Rows of the events that it is about, in the order in which they came to it."""
    cause: str = ""
    """Of a finding of drift, what has moved."""


@dataclass(slots=True)
class Lived:
    """What was said of events (n)."""

    level: NDArray[np.float64]
    """(n,) negative logarithm of the combined p-value, without its floor."""
    p: NDArray[np.float64]
    """(n,)"""
    said: Said
    """By signal; it shows nothing, and its seconds are what all would take in batches, by those that came so. The last
    events are each a batch of their own."""
    signal: list[str]
    """(n,) the signal with the least p-value; empty where none said anything."""
    findings: list[Found] = field(default_factory=list)
    """In the order in which they were opened."""
    decisions: Counter[str] = field(default_factory=Counter)
    """Events by decision."""


def live(events: Events, release: Release, settings: Settings, embedder: Embeds) -> Lived:
    """Let a scorer go on from `release` through the events, with `settings`.

    Raises
    ------
    StateError
        When the release and the settings do not fit.
    """
    n, kinds = len(events), len(KINDS)
    said = Said(np.ones((n, kinds)), np.zeros((n, kinds), np.bool_), np.zeros(n, np.bool_), [], 0.0, [])
    lived = Lived(np.zeros(n), np.ones(n), said, [""] * n)
    seconds = watched = 0.0

    def watch(scored: Scored, _: Outcome) -> None:
        nonlocal watched
        begun = time.perf_counter()
        at = scored.live.offset
        scores = scored.scores
        said.p[at], said.eligible[at], said.newcomer[at] = scores.p, scores.eligible, scores.newcomer
        lived.level[at] = release.calibration.surprise(scores.p, scores.eligible, scores.newcomer)[1]
        counted = np.where(scores.eligible, scores.p, 1.0)
        for row, kind, least in zip(at.tolist(), counted.argmin(axis=1), counted.min(axis=1), strict=True):
            lived.signal[row] = KINDS[kind] if least < 1 else ""
        # To watch is no part of the service.
        watched += time.perf_counter() - begun

    core = Core(settings, release, embedder, watch=watch)
    row_of = {head.event_id: row for row, head in enumerate(events.heads)}
    open_findings: dict[str, Found] = {}
    alone_ms: list[float] = []
    alone = n - min(ALONE, int(ALONE_SHARE * n))
    bounds = [*range(0, alone, _AT_ONCE), *range(alone, n), n]
    for low, high in pairwise(bounds):
        begun, watched = time.perf_counter(), 0.0
        outcome = core.step(InputBatch(events.records[low:high]))
        took = time.perf_counter() - begun - watched
        if low < alone:
            seconds += took
        else:
            alone_ms.append(1000 * took)
        lived.decisions.update(_decisions(outcome.scores))
        for record in outcome.findings:
            _take(record, row_of, open_findings, lived.findings)
    lived.p = probability(lived.level)
    lived.said = replace(said, seconds=seconds * n / max(alone, 1), alone_ms=alone_ms)
    # A step writes partition by partition.
    lived.findings.sort(key=lambda finding: (finding.created_ms, finding.events[0]))
    return lived


def _decisions(scores: Sequence[OutRecord]) -> list[str]:
    return [orjson.loads(score.value)["decision"] for score in scores]


def _take(record: OutRecord, row_of: dict[str, int], known: dict[str, Found], findings: list[Found]) -> None:
    """Take a revision in. Its last event is the one that it was written for."""
    said = orjson.loads(record.value)
    if said["activity_id"] == _CLOSE:
        return
    info = said["finding_info"]
    row = row_of[info["related_events"][-1]["uid"]]
    if info["uid"] not in known:
        tenant, entity = said["metadata"]["tenant_uid"], said["unmapped"]["entity_type"]
        cause = info["title"].rpartition(": ")[2] if entity == "tenant" else ""
        known[info["uid"]] = Found(tenant, entity, int(info["created_time"]), [], cause)
        findings.append(known[info["uid"]])
    known[info["uid"]].events.append(row)
