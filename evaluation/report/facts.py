"""What protocols leave beside their rows: counts, costs, and the stream's days. The file `facts.json`."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Literal

import msgspec
import numpy as np
import orjson

from stream.runtime.report.page import put

FACTS = "facts.json"


class Counted(msgspec.Struct, frozen=True, kw_only=True):
    """Something that was counted while a trial was made, such as injections without a clean twin."""

    protocol: str
    seed: int
    name: str
    """In words: it is printed as it stands."""
    count: int


class Cost(msgspec.Struct, frozen=True, kw_only=True):
    """What one system took for one trial."""

    protocol: str
    seed: int
    system: str
    events: int
    """Judged."""
    seconds: float
    """For judging them, without the making of the events; one thread."""
    fit_seconds: float | None = None
    """None where the fit was another protocol's."""
    latency_p50_ms: float | None = None
    """Of one event judged by itself, the median of some; None where there was none."""
    latency_p99_ms: float | None = None
    """The 99th percentile, likewise."""

    @classmethod
    def of(
        cls,
        protocol: str,
        seed: int,
        system: str,
        events: int,
        seconds: float,
        fit_seconds: float | None,
        alone_ms: Sequence[float],
    ) -> Cost:
        """With the quantiles of what single events took."""
        p50, p99 = (float(q) for q in np.quantile(alone_ms, (0.5, 0.99))) if alone_ms else (None, None)
        return cls(
            protocol=protocol,
            seed=seed,
            system=system,
            events=events,
            seconds=seconds,
            fit_seconds=fit_seconds,
            latency_p50_ms=p50,
            latency_p99_ms=p99,
        )


class Absent(msgspec.Struct, frozen=True, kw_only=True):
    """A protocol, or a system in it, that had nothing to do."""

    protocol: str
    reason: str
    seed: int | None = None
    """None: of all."""
    system: str = ""
    """Empty: the whole protocol."""


class Day(msgspec.Struct, frozen=True, kw_only=True):
    """One day of the stream."""

    day: int
    """From 0, the first that was learned."""
    events: int
    sessions: int
    findings: int
    """Opened on that day, of whatever entity."""
    attacks: int
    """Of them those on an attack's session, or on the entity that an attack is about."""
    drifts: int = 0
    """Of them those that say drift."""
    budget: float | None = None
    """Findings that were to be opened; None on days when it did not bind, such as those that were learned."""


class DriftEvent(msgspec.Struct, frozen=True, kw_only=True):
    """A tenant that changes something harmless, and what was said of it."""

    tenant: str
    what: str
    """Such as `model`, `prompt`, `usage`."""
    day: int
    reported: Literal["drift", "attack", "both", "nothing"]
    """As drift of the tenant; as attacks, where more of its sessions were found than before; both; neither."""
    after_ms: int | None = None
    """From the change to the finding of drift."""
    moved: str = ""
    """What that finding says has moved, in the product's own words; a change may show in more than one way."""
    sessions: int = 0
    """Of the tenant after the change."""
    flagged: int = 0
    """Of them as attacks."""


class FirstFinding(msgspec.Struct, frozen=True, kw_only=True):
    """One attack that was found."""

    family: str
    turns: int
    """Events of it up to the first one found, that one included."""
    after_ms: int
    """From its first event to that one, event time."""


class PoisonEvent(msgspec.Struct, frozen=True, kw_only=True):
    """Somebody who moved a tenant's normal in small steps, then attacked."""

    tenant: str
    what: str
    """What was raised: such as `tokens`, `arguments`, `words`."""
    steps: int
    """Sessions that did it."""
    steps_flagged: int
    attacks: int
    """Sessions at the end, for which it was done."""
    found: int
    found_unpoisoned: int | None = None
    """Of the same attacks, had the steps not been; None where that was not run."""


class StreamRun(msgspec.Struct, frozen=True, kw_only=True):
    """One system's two weeks."""

    seed: int
    system: str
    days: list[Day] = []
    drifts: list[DriftEvent] = []
    first_findings: list[FirstFinding] = []
    poisonings: list[PoisonEvent] = []
    false_drifts: int = 0
    """Findings of drift about tenants that have not changed, or not yet, nor are poisoned."""
    tenant_days: float = 0.0
    """Over which these are counted: days of such tenants."""
    over_budget: int = 0
    """Events at or beyond the operating point for which the budget had no room."""


class Facts(msgspec.Struct, frozen=True, kw_only=True):
    """All of a run's facts."""

    version: Literal[1] = 1
    nominal: float = 0.01
    """The operating point: the share of benign sessions that may be flagged."""
    embedder: str = ""
    release: str = ""
    """Given instead of one trained for each seed."""
    counts: list[Counted] = []
    costs: list[Cost] = []
    absent: list[Absent] = []
    streams: list[StreamRun] = []


def read_facts(folder: Path) -> Facts:
    """Facts of a finished run; none where it left none.

    Raises
    ------
    ValueError
        When the file is not what `Facts` says.
    """
    path = folder / FACTS
    if not path.exists():
        return Facts()
    try:
        return msgspec.json.decode(path.read_bytes(), type=Facts)
    except msgspec.DecodeError as error:
        raise ValueError(f"{path} must be the facts of an evaluation; {error}. Evaluate again.") from None


def write_facts(facts: Facts, folder: Path) -> None:
    """Write them, whole or not at all.

    Raises
    ------
    OSError
        When the folder cannot be written.
    """
    options = orjson.OPT_INDENT_2 | orjson.OPT_APPEND_NEWLINE
    put(folder / FACTS, orjson.dumps(msgspec.to_builtins(facts), option=options))
