"""What goes into the core in one step, and what comes out."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from stream.record import DeadLetter, JournalEntry, OutRecord, Record, StateChange

FLAGS = ("clamped", "conflicting_ids", "late", "no_content")
"""Counts of what is odd about events, whatever their decision: dated too far ahead, an id seen with other content,
behind the partition's time, neither messages nor output."""


@dataclass(frozen=True, slots=True)
class Applied:
    """A control, as it takes effect in one partition before the records of the same step."""

    partition: int
    kind: str
    """`start`, `config`, `control` or `tick`, as the journal names it."""
    value: Mapping[str, Any]
    control_offset: int | None = None


@dataclass(frozen=True, slots=True)
class InputBatch:
    """Controls, then records: in offset order within each partition, partitions in any mixture."""

    records: Sequence[Record]
    controls: Sequence[Applied] = ()
    next_offsets: Mapping[int, int] = field(default_factory=dict)
    """Partition -> the offset that will be committed with this step; its last record's + 1 where it is not named."""
    topic: str = "genai.gateway.events.v1"
    """The input topic, which a tick's effects name as their source."""


@dataclass(slots=True)
class Outcome:
    """What a step says should happen: all of it, or nothing."""

    scores: list[OutRecord] = field(default_factory=list)
    findings: list[OutRecord] = field(default_factory=list)
    dead_letters: list[DeadLetter] = field(default_factory=list)
    changes: list[StateChange] = field(default_factory=list)
    journal: list[JournalEntry] = field(default_factory=list)
    counts: dict[str, int] = field(default_factory=dict)
    """For metrics: decisions by name, `FLAGS`, `embedding_cache_hits`, `embedding_cache_misses`, `rare_<signal>`."""
