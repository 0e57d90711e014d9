"""What goes into the core in one step, and what comes out."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import msgspec

from schemas.control import Control, ReleaseSwitch, RuleChange, VerdictEffect
from stream.record import DeadLetter, JournalEntry, OutRecord, Record, StateChange

IGNORED = "ignored"
"""Key that the journal adds to a control which took no effect, so that it takes none in a replay either."""
CONTROLS_IGNORED = "controls_ignored"
"""Count of them, each partition's."""
FLAGS = ("clamped", "conflicting_ids", "late", "no_content", "unfamiliar")
"""Counts of what is odd about events, whatever their decision: dated too far ahead, an id seen with other content,
behind the partition's time, neither messages nor output, of a session unlike its tenant's."""


@dataclass(frozen=True, slots=True)
class Applied:
    """A control, as it takes effect in one partition before the records of the same step."""

    partition: int
    kind: str
    """`start`, `config`, `control` or `tick`, as the journal names it."""
    value: Mapping[str, Any]
    """Of a control from its topic, all of it (`schemas.control.Control`), whatever it says; of a switch of releases by
    a restart, `kind` and the release's name and ids."""
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
    """For metrics: decisions by name, `FLAGS`, `embedding_cache_hits`, `embedding_cache_misses`, `rare_<signal>`,
    `controls_ignored`."""

    def count(self, more: Mapping[str, int]) -> None:
        """Add to `counts`."""
        for name, number in more.items():
            self.counts[name] = self.counts.get(name, 0) + number


_VALUES: dict[str, type[ReleaseSwitch | RuleChange | VerdictEffect]] = {
    "release": ReleaseSwitch,
    "exception": RuleChange,
    "verdict": VerdictEffect,
}


def effect_of(value: Mapping[str, Any]) -> ReleaseSwitch | RuleChange | VerdictEffect | None:
    """What a control from its topic asks for; None where that is nothing which could take effect.

    >>> effect_of({"kind": "exception", "value": {"remove": "x-1"}, "time_ms": 0, "issuer": "ada"})
    RuleChange(rule=None, remove='x-1')
    >>> effect_of({"kind": "exception", "value": {"remove": 1}}) is None
    True
    """
    if IGNORED in value:
        return None
    try:
        control = msgspec.convert(value, Control)
        effect = msgspec.convert(control.value, _VALUES[control.kind])
    except msgspec.ValidationError:
        return None
    if isinstance(effect, VerdictEffect) and effect.rule is not None and effect.rule.tenant != effect.tenant:
        # A verdict on one tenant's finding does not reach another's.
        return None
    return effect


def release_named(kind: str, value: Mapping[str, Any], control_offset: int | None) -> str | None:
    """The release that a start, a restart or a control puts into service, if it does.

    >>> release_named("control", {"kind": "release", "release": "r-1"}, None)
    'r-1'
    >>> release_named("control", {"kind": "release", "release": "r-1"}, 7) is None
    True
    """
    if kind == "control" and (control_offset is not None or "value" in value):
        effect = effect_of(value)
        return effect.release if isinstance(effect, ReleaseSwitch) else None
    named = value.get("release")
    return str(named) if named is not None else None
