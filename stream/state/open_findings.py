"""Findings that are not closed: what each has gathered, and when quiet closes it."""

import heapq
from bisect import bisect_left, insort
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Literal, get_args

import msgspec
import orjson

from schemas.finding import Excerpt, SignalView, finding_uid
from schemas.undecodable import UNDECODABLE
from stream.errors import StateError
from stream.record import StateChange

EVENT_IDS_MAX = 100
"""Events a finding names; its count goes on."""
EVIDENCE_MAX = 5
NAMES_MAX = 32
"""Tools, and models, that a finding lists: a caller chooses how many there are."""
NAME_CHARS_MAX = 128

RELATED_MAX = 16
"""Other open findings of the same key that a finding names, the latest."""

EntityType = Literal["session", "key", "tenant"]
Entity = tuple[int, str, EntityType, str]
"""Partition, tenant, type, and what names it there: a session, a key's hash, the tenant."""


@dataclass(frozen=True, slots=True)
class Anomaly:
    """An event at or beyond the operating point, with what explains it."""

    entity: Entity
    event_id: str
    traceparent: bytes | None
    event_time_ms: int
    core_time_ms: int
    p_combined: float
    title: str
    signals: tuple[SignalView, ...]
    techniques: tuple[str, ...]
    evidence: tuple[Excerpt, ...]
    key_hash: str | None
    user: str | None
    ip: str | None
    model: str | None
    tools: tuple[str, ...]
    session: str | None = None
    turn: int = 0
    """Number of the event in its session, from 1."""
    suspicious_turn: int = 0
    """Of the first event of the session that was at all suspicious."""
    suspicious_ms: int = 0
    """Its event time."""
    cause: str = ""
    """Its rarest signal."""


class OpenFinding(msgspec.Struct):
    """What a finding that is not closed has gathered; as it is stored."""

    uid: str
    opening_event_id: str
    revision: int
    count: int
    created_ms: int
    first_ms: int
    last_ms: int
    last_core_ms: int
    p_combined: float
    title: str
    signals: list[SignalView]
    techniques: list[str]
    evidence: list[Excerpt]
    event_ids: list[str]
    key_hash: str | None
    user: str | None
    ip: str | None
    models: list[str]
    tools: list[str]
    traceparent: str | None
    session: str | None = None
    turn: int = 0
    """Of the event that opened it."""
    suspicious_turn: int = 0
    suspicious_ms: int = 0
    related: list[str] = []
    """Uids of other findings of the same key that were open when this one was last written."""
    muted_ms: int = 0
    """No record is written of it before this core time: it is snoozed."""
    v: int = 4

    @property
    def cause(self) -> str:
        """The rarest signal of its strangest event."""
        return min(self.signals, key=lambda signal: 1.0 if signal.p is None else signal.p).name if self.signals else ""

    def closes_ms(self, quiet_ms: int) -> int:
        """Core time at which quiet will have closed it."""
        return max(self.last_core_ms + quiet_ms, self.muted_ms)


@dataclass(slots=True)
class OpenFindings:
    """One open finding per entity, of every partition.

    Parameters
    ----------
    quiet_ms
        Core time without a further anomaly after which a finding is closed.
    """

    quiet_ms: int
    _open: dict[Entity, OpenFinding] = field(default_factory=dict)
    _timers: dict[int, list[tuple[int, Entity]]] = field(default_factory=dict)
    _changed: set[Entity] = field(default_factory=set)
    _stored: set[Entity] = field(default_factory=set)
    _of_key: dict[tuple[int, str, str], list[tuple[int, str]]] = field(default_factory=dict)
    """Partition, tenant and key -> when its open findings were created, and their uids, sorted."""

    def __contains__(self, entity: Entity) -> bool:
        return entity in self._open

    def due(self, partition: int, core_time_ms: int) -> list[tuple[int, Entity]]:
        """Findings of a partition that close at or before this time: (due, entity), in that order."""
        heap = self._timers.get(partition, [])
        out: set[tuple[int, Entity]] = set()
        while heap and heap[0][0] <= core_time_ms:
            _, entity = heapq.heappop(heap)
            finding = self._open.get(entity)
            if finding is None:
                continue
            actual = finding.closes_ms(self.quiet_ms)
            if actual <= core_time_ms:
                out.add((actual, entity))
            else:
                heapq.heappush(heap, (actual, entity))
        return sorted(out)

    def next_due_ms(self, partition: int) -> int | None:
        """When the next timer of a partition has to be looked at."""
        heap = self._timers.get(partition)
        return heap[0][0] if heap else None

    def close(self, entity: Entity) -> OpenFinding:
        """Close an open finding after its quiet time: its last revision."""
        finding = self._open.pop(entity)
        self._relate(entity, finding)
        self._unlist(entity, finding)
        self._changed.add(entity)
        finding.revision += 1
        return finding

    def flag(self, anomaly: Anomaly) -> tuple[OpenFinding, Literal[1, 2]]:
        """Open a finding for the anomaly's entity (1), or update the one that is open (2)."""
        entity = anomaly.entity
        finding = self._open.get(entity)
        activity: Literal[1, 2] = 2
        if finding is None:
            activity = 1
            finding = self._open[entity] = _opened(anomaly)
            self._list(entity, finding)
            heapq.heappush(self._timers.setdefault(entity[0], []), (anomaly.core_time_ms + self.quiet_ms, entity))
        else:
            _updated(finding, anomaly)
            finding.revision += 1
        self._relate(entity, finding)
        self._changed.add(entity)
        return finding, activity

    def count(self, anomaly: Anomaly, muted_ms: int) -> None:
        """Let the open finding of the anomaly's entity take it in, but say nothing of itself until `muted_ms`."""
        finding = self._open[anomaly.entity]
        _updated(finding, anomaly)
        finding.muted_ms = max(finding.muted_ms, muted_ms)
        self._changed.add(anomaly.entity)

    def mute(self, partition: int, until_ms: int, chosen: Callable[[str, OpenFinding], bool]) -> None:
        """Let a partition's open findings that are `chosen`, by tenant and finding, say nothing until this time."""
        for entity, finding in self._open.items():
            if entity[0] == partition and finding.muted_ms < until_ms and chosen(entity[1], finding):
                finding.muted_ms = until_ms
                self._changed.add(entity)

    def unmute(self, partition: int, core_time_ms: int, chosen: Callable[[str, OpenFinding], bool]) -> None:
        """Let them speak again from now on."""
        for entity, finding in self._open.items():
            if entity[0] == partition and finding.muted_ms > core_time_ms and chosen(entity[1], finding):
                finding.muted_ms = core_time_ms
                self._changed.add(entity)
                due = finding.closes_ms(self.quiet_ms), entity
                heapq.heappush(self._timers.setdefault(partition, []), due)

    def _relate(self, entity: Entity, finding: OpenFinding) -> None:
        """Note which other findings of its key are open."""
        latest = self._of_key.get((entity[0], entity[1], finding.key_hash or ""), [])[-RELATED_MAX - 1 :]
        finding.related = [uid for _, uid in latest if uid != finding.uid][-RELATED_MAX:]

    def _list(self, entity: Entity, finding: OpenFinding) -> None:
        if finding.key_hash:
            insort(self._of_key.setdefault((*entity[:2], finding.key_hash), []), (finding.created_ms, finding.uid))

    def _unlist(self, entity: Entity, finding: OpenFinding) -> None:
        place = (*entity[:2], finding.key_hash or "")
        others = self._of_key.get(place, [])
        at = bisect_left(others, (finding.created_ms, finding.uid))
        del others[at : at + 1]
        if not others:
            self._of_key.pop(place, None)

    def changes(self) -> list[StateChange]:
        """State rows of the findings that changed since the last call."""
        out = []
        for entity in sorted(self._changed):
            finding = self._open.get(entity)
            key = orjson.dumps(["finding", *entity[1:]])
            if finding is not None:
                out.append(StateChange(entity[0], key, msgspec.json.encode(finding)))
                self._stored.add(entity)
            elif entity in self._stored:
                out.append(StateChange(entity[0], key, None))
                self._stored.discard(entity)
        self._changed.clear()
        return out

    def load(self, partition: int, ids: Sequence[str], value: bytes) -> None:
        """Take a stored row back.

        Raises
        ------
        StateError
            When the value is not an open finding.
        """
        try:
            finding = msgspec.json.decode(value, type=OpenFinding)
        except UNDECODABLE as error:
            raise StateError(
                f"open finding {list(ids)!r} in partition {partition} cannot be read: {error}. "
                "Rebuild the partition's state, see docs/runbook.md."
            ) from error
        entity = _entity(partition, ids)
        self._open[entity] = finding
        self._list(entity, finding)
        self._stored.add(entity)
        heapq.heappush(self._timers.setdefault(partition, []), (finding.closes_ms(self.quiet_ms), entity))

    def drop(self, partition: int) -> None:
        """Forget a partition."""
        for entity in [entity for entity in self._open if entity[0] == partition]:
            self._unlist(entity, self._open.pop(entity))
        self._changed = {entity for entity in self._changed if entity[0] != partition}
        self._stored = {entity for entity in self._stored if entity[0] != partition}
        self._timers.pop(partition, None)


def _entity(partition: int, ids: Sequence[str]) -> Entity:
    for kind in get_args(EntityType):
        if ids[1] == kind:
            return partition, ids[0], kind, ids[2]
    raise StateError(
        f"open finding {list(ids)!r} in partition {partition} must be about one of {', '.join(get_args(EntityType))}. "
        "Rebuild the partition's state, see docs/runbook.md."
    )


def _opened(anomaly: Anomaly) -> OpenFinding:
    return OpenFinding(
        uid=finding_uid(*anomaly.entity[1:], anomaly.event_id),
        opening_event_id=anomaly.event_id,
        revision=1,
        count=1,
        created_ms=anomaly.event_time_ms,
        first_ms=anomaly.event_time_ms,
        last_ms=anomaly.event_time_ms,
        last_core_ms=anomaly.core_time_ms,
        p_combined=anomaly.p_combined,
        title=anomaly.title,
        signals=list(anomaly.signals),
        techniques=list(anomaly.techniques),
        evidence=list(anomaly.evidence[:EVIDENCE_MAX]),
        event_ids=[anomaly.event_id],
        key_hash=anomaly.key_hash,
        user=anomaly.user,
        ip=anomaly.ip,
        models=_names([], [anomaly.model] if anomaly.model else []),
        tools=_names([], anomaly.tools),
        traceparent=anomaly.traceparent.decode("latin-1") if anomaly.traceparent else None,
        session=anomaly.session,
        turn=anomaly.turn,
        suspicious_turn=anomaly.suspicious_turn,
        suspicious_ms=anomaly.suspicious_ms,
    )


def _updated(finding: OpenFinding, anomaly: Anomaly) -> None:
    """The strangest event speaks for the finding; its evidence comes first."""
    finding.count += 1
    finding.first_ms = min(finding.first_ms, anomaly.event_time_ms)
    finding.last_ms = max(finding.last_ms, anomaly.event_time_ms)
    finding.last_core_ms = anomaly.core_time_ms
    if anomaly.p_combined < finding.p_combined:
        finding.p_combined = anomaly.p_combined
        finding.title = anomaly.title
        finding.signals = list(anomaly.signals)
        finding.evidence = [*anomaly.evidence, *finding.evidence][:EVIDENCE_MAX]
    else:
        finding.evidence = [*finding.evidence, *anomaly.evidence][:EVIDENCE_MAX]
    finding.techniques += [uid for uid in anomaly.techniques if uid not in finding.techniques]
    # The opening event stays, since the uid is derived from it, and so does the one that this revision is about.
    if len(finding.event_ids) == EVENT_IDS_MAX:
        del finding.event_ids[1]
    finding.event_ids.append(anomaly.event_id)
    finding.models = _names(finding.models, [anomaly.model] if anomaly.model else [])
    finding.tools = _names(finding.tools, anomaly.tools)


def _names(known: Sequence[str], more: Sequence[str]) -> list[str]:
    """Distinct names in the order they came, so many and so long that a finding stays small.

    >>> _names(["search"], ["pay", "search"])
    ['search', 'pay']
    """
    return list(dict.fromkeys([*known, *(name[:NAME_CHARS_MAX] for name in more)]))[:NAMES_MAX]
