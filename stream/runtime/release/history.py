"""Which releases the partitions have served, as the journal tells it."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import msgspec

from schemas.journal import Journal
from stream.record import Record
from stream.runtime.topic_reader import TopicReader

_LOG = logging.getLogger(__name__)
_DECODER = msgspec.json.Decoder(Journal)
_IDS = ("space_id", "feature_schema", "state_schema")
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


def histories(reader: TopicReader, topic: str) -> dict[int, list[Served]]:
    """Partition -> the releases that it served last, two different ones where there were, the one in service last.

    Raises
    ------
    EnvironmentFault
        When there is no such journal, or no broker answers.
    """
    found = {}
    for partition, bounds in sorted(reader.bounds(topic).items()):
        tail = _FIRST_TAIL
        while True:
            start = max(bounds.start, bounds.end - tail)
            taken = list(_taken_up(reader.read(topic, partition, start, bounds.end)))
            if start == bounds.start or len({each.release for each in taken}) > 1:
                break
            tail *= _FURTHER
        found[partition] = taken
    return found


def in_service(found: Mapping[int, Sequence[Served]]) -> dict[int, Served]:
    """Partition -> what it serves; one that has never scored is left out."""
    return {partition: taken[-1] for partition, taken in found.items() if taken}


def before(found: Mapping[int, Sequence[Served]]) -> tuple[Served, Served] | None:
    """The release that was taken up last, in any partition, and what that partition served before it.

    >>> def served(release, time_ms):
    ...     return Served(0, release, 0, time_ms, "control", None, None)
    >>> half_switched = {0: [served("a", 1), served("b", 9)], 1: [served("a", 1)]}
    >>> [each.release for each in before(half_switched)]
    ['b', 'a']
    """
    pairs = [
        (taken[-1], former)
        for taken in found.values()
        for former in reversed(taken)
        if former.release != taken[-1].release
    ]
    # Of each partition the first pair is the latest; older pairs lose against it.
    return max(pairs, key=lambda pair: (pair[0].time_ms, pair[1].time_ms), default=None)


def read_entry(record: Record) -> Served | Refused | None:
    """What a record of the journal says about a release; None where it is about something else."""
    if record.value is None or b'"release"' not in record.value:
        return None
    try:
        entry = _DECODER.decode(record.value)
    except msgspec.DecodeError as error:
        _LOG.warning("%s[%d]@%d is no journal entry: %s", record.topic, record.partition, record.offset, error)
        return None
    said = _switch(entry)
    if said is None:
        return None
    why = entry.value.get("refused")
    if why is not None:
        return Refused(entry.partition, str(said["release"]), entry.control_offset, str(why))
    ids = tuple(str(said[name]) for name in _IDS) if all(name in said for name in _IDS) else None
    return Served(
        entry.partition,
        str(said["release"]),
        entry.before_offset,
        record.timestamp_ms,
        entry.kind,
        entry.control_offset,
        ids,  # type: ignore[arg-type]
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


def _taken_up(batches: Iterator[Sequence[Record]]) -> Iterator[Served]:
    """The releases taken up, one that is taken up again while it is served left out."""
    last = ""
    for records in batches:
        for record in records:
            entry = read_entry(record)
            if isinstance(entry, Served) and entry.release != last:
                last = entry.release
                yield entry
