"""Which releases the partitions have served, as the journal tells it."""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Iterable, Mapping
from contextlib import closing
from dataclasses import dataclass, replace
from typing import Any

import msgspec

from schemas.journal import Journal
from schemas.undecodable import UNDECODABLE
from stream.record import Record
from stream.runtime.topic_reader import Bounds, TopicReader

_LOG = logging.getLogger(__name__)
_DECODER = msgspec.json.Decoder(Journal)
_IDS = ("space_id", "feature_schema", "state_schema")
_AT_ONCE = 2_000
_FIRST_TAIL = 2_000
_FURTHER = 16
"""A journal is kept for ever and tells mostly of ticks: it is read from its end, each time so many times as much."""


@dataclass(frozen=True, slots=True)
class Served:
    """A release that a partition took up."""

    partition: int
    release: str
    before_offset: int
    """Of the events: the first that it scored."""
    time_ms: int
    """When the journal's record was written."""
    kind: str
    """Of the journal's entry."""
    control_offset: int | None
    """Of the control that asked for it; None: it was given at start."""
    ids: tuple[str, str, str] | None
    """What must be equal for another release to follow it hot."""
    manifest_sha256: str | None = None
    uri: str | None = None


@dataclass(frozen=True, slots=True)
class Refused:
    """A release that a partition was asked to serve, and did not."""

    partition: int
    release: str
    control_offset: int | None
    why: str


@dataclass(frozen=True, slots=True)
class History:
    """What a partition's journal tells, back to when another release was served."""

    served: list[Served]
    """Releases that it took up, two different ones where there were, the one in service last."""
    answered: int
    """Offset of the last control for a release that it followed or refused; -1 where it tells of none."""


def histories(reader: TopicReader, topic: str) -> dict[int, History]:
    """Partition -> what its journal tells.

    Raises
    ------
    EnvironmentFault
        When there is no such journal, or no broker answers.
    """
    bounds = reader.bounds(topic)
    found: dict[int, History] = {}
    tail = _FIRST_TAIL
    while wanted := {p: bound for p, bound in bounds.items() if p not in found}:
        starts = {p: max(bound.start, bound.end - tail) for p, bound in wanted.items()}
        cut = {p: replace(bound, start=starts[p]) for p, bound in wanted.items()}
        found |= {
            partition: history
            for partition, history in _read(reader, topic, cut).items()
            if starts[partition] == bounds[partition].start or len({each.release for each in history.served}) > 1
        }
        tail *= _FURTHER
    return dict(sorted(found.items()))


def last_served(
    reader: TopicReader, topic: str, release: str, found: Mapping[int, History] | None = None
) -> Served | None:
    """When a partition last took up `release`, however long ago; None where none ever did.

    Parameters
    ----------
    found
        What `histories` told, to be looked through first.
    """
    known = [each for history in (found or {}).values() for each in history.served]
    bounds = reader.bounds(topic)
    ends = {partition: bound.end for partition, bound in bounds.items()}
    tail = _FIRST_TAIL
    while True:
        if named := [each for each in known if each.release == release]:
            return max(named, key=lambda each: each.time_ms)
        starts = {p: max(bound.start, bounds[p].end - tail) for p, bound in bounds.items()}
        cut = {p: replace(bounds[p], start=starts[p], end=end) for p, end in ends.items() if starts[p] < end}
        if not cut:
            return None
        known = [each for history in _read(reader, topic, cut).values() for each in history.served]
        ends = starts
        tail *= _FURTHER


def awaited(found: Mapping[int, History], control_offset: int, time_ms: int) -> bool:
    """Whether a partition that serves has neither followed nor refused a control for a release, of that time.

    >>> once = Served(0, "a", 0, 5, "start", None, None)
    >>> [awaited({0: History([once], answered)}, 3, 9) for answered in (2, 3)]
    [True, False]
    """
    return any(
        history.served and history.answered < control_offset and history.served[-1].time_ms <= time_ms
        for history in found.values()
    )


def mostly_served(found: Mapping[int, History]) -> Served | None:
    """The release in service: that of the most partitions, of as many the one taken up last; None where nothing is.

    >>> def history(release, time_ms):
    ...     return History([Served(0, release, 0, time_ms, "control", None, None)], -1)
    >>> said = mostly_served({0: history("a", 1), 1: history("b", 2), 2: history("a", 3)})
    >>> said.release, mostly_served({0: history("a", 1), 1: history("b", 2)}).release, mostly_served({})
    ('a', 'b', None)
    """
    serving = in_service(found)
    count = Counter(each.release for each in serving.values())
    return max(serving.values(), key=lambda each: (count[each.release], each.time_ms), default=None)


def _read(reader: TopicReader, topic: str, bounds: Mapping[int, Bounds]) -> dict[int, History]:
    """What the journals tell within `bounds`, of all partitions at once: somebody is waiting."""
    told: dict[int, list[Served | Refused]] = {partition: [] for partition in bounds}
    with closing(reader.source(topic, bounds)) as source:
        while not source.exhausted:
            for record in source.poll(_AT_ONCE):
                entry = read_entry(record)
                if entry is not None:
                    told[record.partition].append(entry)
    return {partition: _history(entries) for partition, entries in told.items()}


def in_service(found: Mapping[int, History]) -> dict[int, Served]:
    """Partition -> what it serves; one that has never scored is left out."""
    return {partition: history.served[-1] for partition, history in found.items() if history.served}


def before(found: Mapping[int, History]) -> tuple[Served, Served] | None:
    """The release that was taken up last, in any partition, and what that partition served before it.

    >>> def served(release, time_ms):
    ...     return Served(0, release, 0, time_ms, "control", None, None)
    >>> switched, not_yet = History([served("a", 1), served("b", 9)], 3), History([served("a", 1)], -1)
    >>> [each.release for each in before({0: switched, 1: not_yet})]
    ['b', 'a']
    """
    pairs = [
        (history.served[-1], former)
        for history in found.values()
        for former in reversed(history.served)
        if former.release != history.served[-1].release
    ]
    # Of each partition the first pair is the latest; older pairs lose against it.
    return max(pairs, key=lambda pair: (pair[0].time_ms, pair[1].time_ms), default=None)


def read_entry(record: Record) -> Served | Refused | None:
    """What a record of the journal says about a release; None where it is about something else."""
    if record.value is None or b'"release"' not in record.value:
        return None
    try:
        entry = _DECODER.decode(record.value)
    except UNDECODABLE as error:
        _LOG.warning("%s[%d]@%d is no journal entry: %s", record.topic, record.partition, record.offset, error)
        return None
    said = _switch(entry)
    if said is None:
        return None
    if "refused" in entry.value or entry.value.get("ignored"):
        why = str(entry.value.get("refused", "its scorer could make nothing of that control"))
        return Refused(entry.partition, str(said["release"]), entry.control_offset, why)
    ids = None
    if all(name in said for name in _IDS):
        space, features, state = (str(said[name]) for name in _IDS)
        ids = space, features, state
    return Served(
        entry.partition,
        str(said["release"]),
        entry.before_offset,
        record.timestamp_ms,
        entry.kind,
        entry.control_offset,
        ids,
        said.get("manifest_sha256"),
        said.get("uri"),
    )


def _switch(entry: Journal) -> Mapping[str, Any] | None:
    """The part of an entry that names a release: a start's own value, or a control's, or that within one."""
    if entry.kind == "start":
        return entry.value if "release" in entry.value else None
    if entry.kind != "control" or entry.value.get("kind") != "release":
        return None
    within = entry.value.get("value")
    said = within if isinstance(within, dict) else entry.value
    return said if "release" in said else None


def _history(entries: Iterable[Served | Refused]) -> History:
    served: list[Served] = []
    answered = -1
    for entry in entries:
        if entry.control_offset is not None:
            answered = max(answered, entry.control_offset)
        # One that is taken up again while it is served changes nothing.
        if isinstance(entry, Served) and not (served and served[-1].release == entry.release):
            served.append(entry)
    return History(served, answered)
