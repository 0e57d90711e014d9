"""What a system has said of the second week, in one shape for all systems: as rows, and as facts."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray
from scipy.stats import binomtest

from evaluation.arrivals import DAYS
from evaluation.drifts import Drift
from evaluation.events import Events
from evaluation.protocols.happenings import LEARN_DAYS
from evaluation.protocols.live import Found, Lived
from evaluation.protocols.two_weeks import TwoWeeks
from evaluation.report.facts import Day, DriftEvent, FirstFinding, PoisonEvent, StreamRun
from evaluation.row import Row
from evaluation.systems.sessions import judged_by_strangest
from evaluation.systems.system import Judged
from evaluation.trial import Probe
from schemas.corpus import calls
from schemas.corpus_timeline import UNDATED_START_MS

PROTOCOL = "stream"
_DAY_MS = 86_400_000
_MORE_FLAGGED_P = 0.05
"""That a tenant which has changed is found as often as others: below it it was taken for an attack."""


_REPORTED: dict[tuple[bool, bool], Literal["drift", "attack", "both", "nothing"]] = {
    (True, True): "both",
    (True, False): "drift",
    (False, True): "attack",
    (False, False): "nothing",
}


@dataclass(frozen=True, slots=True)
class Week:
    """The second week: what it was, and its events (n) of sessions (s) that are those of its probes."""

    laid_out: TwoWeeks
    events: Events
    time_ms: NDArray[np.int64]
    """(n,)"""

    @classmethod
    def of(cls, laid_out: TwoWeeks, events: Events) -> Week:
        """With the events of `laid_out.probes`, in their order."""
        return cls(laid_out, events, np.array([record.timestamp_ms for record in events.records], np.int64))


@dataclass(frozen=True, slots=True)
class Verdicts:
    """What a system has said of sessions (s)."""

    judged: Judged
    first: NDArray[np.int64]
    """(s,) row of the first event that a finding is about which is not one of drift, -1 where there is none."""
    findings: Sequence[Found]


def of_service(week: Week, lived: Lived) -> Verdicts:
    """Of the product: a session is flagged when a finding is about one of its events, whatever entity it names."""
    events = week.events
    first = np.full(len(events.sessions), -1, np.int64)
    for finding in lived.findings:
        if finding.entity == "tenant":
            continue
        for row in finding.events:
            session = events.session[row]
            first[session] = row if first[session] < 0 else min(first[session], row)
    judged = judged_by_strangest(events, lived.level, lived.p, -1.0, lived.signal, lived.said.seconds)
    return Verdicts(judged, first, lived.findings)


def of_system(week: Week, judged: Judged, nominal: float) -> Verdicts:
    """Of any other system: each session that it flags is a finding."""
    events = week.events
    row_of = {at: row for row, at in enumerate(zip(events.session.tolist(), events.turn.tolist(), strict=True))}
    flagged = (judged.p <= nominal) & (judged.first_turn >= 0)
    first = np.array(
        [
            row_of[session, turn] if said else -1
            for session, (turn, said) in enumerate(zip(judged.first_turn.tolist(), flagged.tolist(), strict=True))
        ],
        np.int64,
    )
    findings = [
        Found(str(events.sessions[events.session[row]].tenant), "session", int(week.time_ms[row]), [row])
        for row in sorted(first[first >= 0].tolist())
    ]
    return Verdicts(judged, first, findings)


def rows_of(week: Week, verdicts: Verdicts, system: str) -> list[Row]:
    """A row for each session; of a scraper each request is one."""
    events, judged = week.events, verdicts.judged
    counts = np.bincount(events.session, minlength=len(events.sessions)).tolist()
    return [
        Row(
            protocol=PROTOCOL,
            seed=week.laid_out.seed,
            system=system,
            tenant=str(probe.session.tenant),
            session=probe.session.session,
            family=probe.family,
            task=probe.cluster,
            label=probe.label,
            score=float(judged.score[at]),
            flagged=first >= 0,
            first_finding_turn=int(events.turn[first]) if first >= 0 else None,
            p=float(judged.p[at]),
            obeyed=probe.obeyed,
            signal=judged.signal[at],
            events=counts[at],
            slices=probe.slices,
        )
        for at, (probe, first) in enumerate(zip(week.laid_out.probes, verdicts.first.tolist(), strict=True))
    ]


def run_of(
    week: Week,
    verdicts: Verdicts,
    learn: Events,
    system: str,
    nominal: float,
    *,
    budget: float | None = None,
    over_budget: int = 0,
    unpoisoned: Mapping[str, int] | None = None,
) -> StreamRun:
    """What else there is to say of a system's second week.

    Parameters
    ----------
    budget
        Findings a day that were to be opened.
    over_budget
        Events for which it had no room.
    unpoisoned
        Way of poisoning -> attacks found where there was none.
    """
    false, tenant_days = _false_drifts(week, verdicts)
    return StreamRun(
        seed=week.laid_out.seed,
        system=system,
        days=_days(week, verdicts, learn, budget),
        drifts=[_drift_event(week, verdicts, drift, nominal) for drift in week.laid_out.drifts],
        first_findings=_first_findings(week, verdicts),
        poisonings=_poisonings(week, verdicts, unpoisoned or {}),
        false_drifts=false,
        tenant_days=tenant_days,
        over_budget=over_budget,
    )


def _days(week: Week, verdicts: Verdicts, learn: Events, budget: float | None) -> list[Day]:
    """Each day's events, sessions that begin, and findings that are opened."""
    attack = np.array([probe.label == "attack" for probe in week.laid_out.probes])
    opened = np.array([_day(finding.created_ms) for finding in verdicts.findings], np.int64)
    drift = np.array([finding.entity == "tenant" for finding in verdicts.findings], np.bool_)
    hit = np.array([attack[week.events.session[f.events]].any() for f in verdicts.findings], np.bool_) & ~drift
    made = [0] * 3
    days: list[Day] = []
    for number in range(DAYS):
        events, sessions = 0, 0
        for part in (learn, week.events):
            own = np.array([_day(record.timestamp_ms) for record in part.records], np.int64) == number
            # What begins late in a week ends in the next.
            events += int(own.sum())
            sessions += int((own & (part.turn == 0)).sum())
        made = [int(((opened == number) & which).sum()) for which in (np.ones(len(opened), np.bool_), hit, drift)]
        bound = budget if number >= LEARN_DAYS else None
        days.append(
            Day(
                day=number,
                events=events,
                sessions=sessions,
                findings=made[0],
                attacks=made[1],
                drifts=made[2],
                budget=bound,
            )
        )
    return days


def _drift_event(week: Week, verdicts: Verdicts, drift: Drift, nominal: float) -> DriftEvent:
    mine = [
        (at, probe)
        for at, probe in enumerate(week.laid_out.probes)
        if probe.session.tenant == drift.tenant and probe.label == "benign"
    ]
    after = [at for at, probe in mine if (probe.session.start_ms or 0) >= drift.at_ms]
    before = [at for at, probe in mine if (probe.session.start_ms or 0) < drift.at_ms]
    flagged = int((verdicts.first[after] >= 0).sum())
    usual = max(float((verdicts.first[before] >= 0).mean()) if before else 0.0, nominal)
    as_attack = bool(after) and binomtest(flagged, len(after), min(usual, 1.0), "greater").pvalue < _MORE_FLAGGED_P
    told = [
        (int(week.time_ms[row]), finding.cause)
        for finding in verdicts.findings
        if finding.entity == "tenant" and finding.tenant == drift.tenant
        for row in finding.events
        if week.time_ms[row] >= drift.at_ms
    ]
    told_ms, moved = min(told, default=(None, ""))
    return DriftEvent(
        tenant=drift.tenant,
        what=drift.what,
        day=_day(drift.at_ms),
        reported=_REPORTED[told_ms is not None, as_attack],
        after_ms=None if told_ms is None else told_ms - drift.at_ms,
        moved=moved,
        sessions=len(after),
        flagged=flagged,
    )


def _false_drifts(week: Week, verdicts: Verdicts) -> tuple[int, float]:
    """Findings of drift about tenants as they always were, and how long those were watched, in days."""
    laid_out = week.laid_out
    poisoned = {poisoning.tenant for poisoning in laid_out.poisonings}
    changes = {drift.tenant: drift.at_ms for drift in laid_out.drifts}
    end_ms = UNDATED_START_MS + DAYS * _DAY_MS
    until = {
        tenant: changes.get(tenant, end_ms)
        for tenant in {str(probe.session.tenant) for probe in laid_out.probes} - poisoned
    }
    false = sum(
        finding.entity == "tenant" and finding.created_ms < until.get(finding.tenant, 0)
        for finding in verdicts.findings
    )
    begins_ms = UNDATED_START_MS + LEARN_DAYS * _DAY_MS
    return false, sum(ms - begins_ms for ms in until.values()) / _DAY_MS


def _first_findings(week: Week, verdicts: Verdicts) -> list[FirstFinding]:
    """Of each attack that was found, from its first event on; of a scraper from its first request on."""
    attacks: dict[str, list[int]] = {}
    for at, probe in enumerate(week.laid_out.probes):
        if probe.label == "attack":
            # What shares a conversation is one attack where it is one campaign, and each its own elsewhere.
            name = probe.cluster if probe.family.endswith("scraping") else f"{probe.session.tenant}/{at}"
            attacks.setdefault(name, []).append(at)
    found: list[FirstFinding] = []
    for own in attacks.values():
        rows = np.flatnonzero(np.isin(week.events.session, own))
        begins = rows[
            [week.events.turn[row] >= _begins(week.laid_out.probes[week.events.session[row]]) for row in rows]
        ]
        firsts = verdicts.first[own]
        if not len(begins) or not (firsts >= 0).any():
            continue
        first = max(int(firsts[firsts >= 0].min()), int(begins[0]))
        found.append(
            FirstFinding(
                family=week.laid_out.probes[own[0]].family,
                turns=int(np.searchsorted(begins, first, "right")),
                after_ms=int(week.time_ms[first] - week.time_ms[begins[0]]),
            )
        )
    return found


def _begins(probe: Probe) -> int:
    """The session's first call that has to do with its attack."""
    marked = next((at for at, turn in enumerate(probe.session.turns) if turn.payload), 0)
    return next((call.index for call in calls(probe.session) if call.history >= marked), 0)


def _poisonings(week: Week, verdicts: Verdicts, unpoisoned: Mapping[str, int]) -> list[PoisonEvent]:
    at = {(probe.session.tenant, probe.session.session): i for i, probe in enumerate(week.laid_out.probes)}
    events = []
    for poisoning in week.laid_out.poisonings:
        steps, attacks = (
            verdicts.first[[at[poisoning.tenant, name] for name in names]] >= 0
            for names in (poisoning.steps, poisoning.attacks)
        )
        events.append(
            PoisonEvent(
                tenant=poisoning.tenant,
                what=poisoning.what,
                steps=len(steps),
                steps_flagged=int(steps.sum()),
                attacks=len(attacks),
                found=int(attacks.sum()),
                found_unpoisoned=unpoisoned.get(poisoning.what),
            )
        )
    return events


def _day(time_ms: int) -> int:
    return (time_ms - UNDATED_START_MS) // _DAY_MS
