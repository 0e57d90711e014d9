"""What a replay wrote, read once into columns: the scores as arrays, of the findings where each stands in its file."""

from __future__ import annotations

from array import array
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
from numpy.typing import NDArray

from stream.sinks.file import FINDINGS, SCORES, SUMMARY
from stream.sources.lines import read_lines

UNFLAGGED = ("none", "duplicate")
"""Decisions about events that are within what is normal, or no try of their own."""
CLOSE = 3
_LINE_BYTES_MAX = 64 * 2**20


@dataclass(slots=True)
class Signal:
    """One signal over all events (n), NaN where it had nothing to look at."""

    value: NDArray[np.float64]
    p: NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class Brief:
    """A finding as its last revision has it, as far as tables and pictures need it."""

    uid: str
    tenant: str
    severity_id: int
    p_combined: float
    created_ms: int
    closed: bool
    revision: int
    place: tuple[int, int]
    """Where the revision stands in the file: its first byte, and how many there are."""


@dataclass(slots=True)
class Run:
    """One replay: events (n) in the order of its scores, findings by uid."""

    tenants: list[str]
    """Names, by number."""
    decisions: list[str]
    """Names, by number."""
    sessions: list[int]
    """Tenant of each session (k)."""
    time_ms: NDArray[np.int64]
    tenant: NDArray[np.int32]
    session: NDArray[np.int32]
    decision: NDArray[np.int32]
    p_combined: NDArray[np.float64]
    """NaN for duplicates."""
    signals: dict[str, Signal]
    """In the order in which they first appeared, whatever their names are."""
    late: int
    clamped: int
    findings: list[Brief]
    """The gravest first."""
    summary: dict[str, Any]

    @property
    def flagged(self) -> NDArray[np.bool_]:
        """Events (n) beyond the operating point, whatever became of them."""
        usual = [number for number, name in enumerate(self.decisions) if name in UNFLAGGED]
        return ~np.isin(self.decision, usual)

    def session_minima(self, p: NDArray[np.float64]) -> NDArray[np.float64]:
        """Smallest p (k) of each session, NaN where no event of it has one."""
        minima = np.full(len(self.sessions), np.inf)
        known = ~np.isnan(p)
        np.minimum.at(minima, self.session[known], p[known])
        return np.where(np.isfinite(minima), minima, np.nan)

    def flagged_sessions(self) -> NDArray[np.bool_]:
        """Sessions (k) with a flagged event."""
        return np.bincount(self.session[self.flagged], minlength=len(self.sessions)) > 0


class _Score(msgspec.Struct):
    tenant: str
    session: str
    event_time_ms: int
    decision: str
    signals: dict[str, float]
    p: dict[str, float]
    p_combined: float | None
    late: bool
    clamped: bool = False


class _Metadata(msgspec.Struct):
    tenant_uid: str
    sequence: int


class _Info(msgspec.Struct):
    uid: str
    created_time: int


class _Unmapped(msgspec.Struct):
    p_combined: float | None = None


class _Finding(msgspec.Struct):
    activity_id: int
    severity_id: int
    metadata: _Metadata
    finding_info: _Info
    unmapped: _Unmapped


_SCORE = msgspec.json.Decoder(_Score)
_FINDING = msgspec.json.Decoder(_Finding)


def gather(out: Path) -> Run:
    """Everything that a report shows of the replay in folder `out`, but for the texts of its findings.

    Memory: some 40 bytes an event and 16 a signal of it, one small object a session and a finding.
    """
    columns = _Columns()
    for line in read_lines(out / SCORES, _LINE_BYTES_MAX):
        columns.add(_SCORE.decode(line))
    summary: dict[str, Any] = msgspec.json.decode((out / SUMMARY).read_bytes())
    return columns.run(_briefs(out / FINDINGS), summary)


def read_findings(out: Path, briefs: Sequence[Brief]) -> Iterator[dict[str, Any]]:
    """The records of some findings, whole."""
    with (out / FINDINGS).open("rb") as file:
        for brief in briefs:
            start, length = brief.place
            file.seek(start)
            yield msgspec.json.decode(file.read(length))


def _briefs(path: Path) -> list[Brief]:
    last: dict[str, Brief] = {}
    start = 0
    with path.open("rb") as file:
        for line in file:
            brief = _brief(_FINDING.decode(line), (start, len(line)))
            if brief.uid not in last or last[brief.uid].revision <= brief.revision:
                last[brief.uid] = brief
            start += len(line)
    return sorted(last.values(), key=lambda each: (-each.severity_id, each.p_combined, each.created_ms, each.uid))


def _brief(finding: _Finding, place: tuple[int, int]) -> Brief:
    p = finding.unmapped.p_combined
    return Brief(
        uid=finding.finding_info.uid,
        tenant=finding.metadata.tenant_uid,
        severity_id=finding.severity_id,
        p_combined=1.0 if p is None else p,
        created_ms=finding.finding_info.created_time,
        closed=finding.activity_id == CLOSE,
        revision=finding.metadata.sequence,
        place=place,
    )


@dataclass(slots=True)
class _Numbered:
    """Names, each with the number in whose turn it came."""

    numbers: dict[Any, int] = field(default_factory=dict)

    def of(self, name: Any) -> int:
        return self.numbers.setdefault(name, len(self.numbers))


@dataclass(slots=True)
class _Columns:
    """Scores as they come, packed."""

    time_ms: array[int] = field(default_factory=lambda: array("q"))
    tenant: array[int] = field(default_factory=lambda: array("i"))
    session: array[int] = field(default_factory=lambda: array("i"))
    decision: array[int] = field(default_factory=lambda: array("i"))
    p_combined: array[float] = field(default_factory=lambda: array("d"))
    signals: dict[str, tuple[array[float], array[float]]] = field(default_factory=dict)
    tenants: _Numbered = field(default_factory=_Numbered)
    decisions: _Numbered = field(default_factory=_Numbered)
    sessions: _Numbered = field(default_factory=_Numbered)
    counts: Counter[str] = field(default_factory=Counter)

    def add(self, score: _Score) -> None:
        events = len(self.time_ms)
        tenant = self.tenants.of(score.tenant)
        self.time_ms.append(score.event_time_ms)
        self.tenant.append(tenant)
        self.session.append(self.sessions.of((tenant, score.session)))
        self.decision.append(self.decisions.of(score.decision))
        self.p_combined.append(np.nan if score.p_combined is None else score.p_combined)
        for name, value in score.signals.items():
            values, p = self.signals.setdefault(name, (array("d"), array("d")))
            _pad(values, events)
            _pad(p, events)
            values.append(value)
            p.append(score.p.get(name, np.nan))
        self.counts.update(late=score.late, clamped=score.clamped)

    def run(self, findings: list[Brief], summary: dict[str, Any]) -> Run:
        events = len(self.time_ms)
        for columns in self.signals.values():
            for column in columns:
                _pad(column, events)
        return Run(
            tenants=list(self.tenants.numbers),
            decisions=list(self.decisions.numbers),
            sessions=[tenant for tenant, _ in self.sessions.numbers],
            time_ms=np.frombuffer(self.time_ms, np.int64) if events else np.zeros(0, np.int64),
            tenant=_ints(self.tenant),
            session=_ints(self.session),
            decision=_ints(self.decision),
            p_combined=_floats(self.p_combined),
            signals={name: Signal(_floats(values), _floats(p)) for name, (values, p) in self.signals.items()},
            late=self.counts["late"],
            clamped=self.counts["clamped"],
            findings=findings,
            summary=summary,
        )


def _pad(column: array[float], length: int) -> None:
    """Fill a column up with NaN."""
    if missing := length - len(column):
        column.frombytes(np.full(missing, np.nan).tobytes())


def _floats(column: array[float]) -> NDArray[np.float64]:
    return np.frombuffer(column, np.float64) if column else np.zeros(0)


def _ints(column: array[int]) -> NDArray[np.int32]:
    return np.frombuffer(column, np.int32) if column else np.zeros(0, np.int32)
