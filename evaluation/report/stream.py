"""The stream's days, drifts and first findings, out of what the protocol left beside its rows."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence

import numpy as np

from evaluation.report.facts import Day, DriftEvent, FirstFinding, PoisonEvent, StreamRun
from evaluation.report.figure import median, over_seeds, rounded
from evaluation.report.model import Drifts, Figure, First, Poisoning, StreamDay, StreamReport
from evaluation.report.part import KINDS, kind_of

SETTLED_AFTER = 3
"""Days with a budget that are let pass before it is judged."""
_HOUR_MS = 3_600_000


def streams(runs: Sequence[StreamRun]) -> dict[str, StreamReport]:
    """Every system's two weeks, the product's first."""
    by_system: dict[str, list[StreamRun]] = defaultdict(list)
    for run in runs:
        by_system[run.system].append(run)
    systems = sorted(by_system, key=lambda name: (KINDS.index(kind_of(name)), name))
    return {system: _stream(sorted(by_system[system], key=lambda run: run.seed)) for system in systems}


def budgeted(stream: Mapping[str, StreamReport]) -> str | None:
    """The first system that had a budget to keep; None where nobody had."""
    return next((name for name, each in stream.items() if each.budget_used.value is not None), None)


def _stream(runs: list[StreamRun]) -> StreamReport:
    days = [day for run in runs for day in run.days]
    findings = [sum(day.findings - day.drifts for day in run.days) for run in runs]
    attacks = [sum(day.attacks for day in run.days) for run in runs]
    precision = [hit / of for hit, of in zip(attacks, findings, strict=True) if of]
    drifts = [drift for run in runs for drift in run.drifts]
    firsts = [first for run in runs for first in run.first_findings]
    return StreamReport(
        seeds=[run.seed for run in runs],
        days=[_day(number, [day for day in days if day.day == number]) for number in sorted({day.day for day in days})],
        budget_used=budget_used(runs),
        precision=over_seeds(precision, n=sum(findings)),
        drifts=list(_drifts(drifts)),
        false_drifts=over_seeds(
            [run.false_drifts / run.tenant_days for run in runs if run.tenant_days > 0],
            n=sum(run.false_drifts for run in runs),
        ),
        poisonings=list(_poisonings([poisoned for run in runs for poisoned in run.poisonings])),
        over_budget=over_seeds([float(run.over_budget) for run in runs], n=sum(run.over_budget for run in runs)),
        first=list(_firsts(firsts)),
    )


def budget_used(runs: Sequence[StreamRun]) -> Figure:
    """Findings by what was to be found, after the days that a budget takes to settle."""
    used, count = [], 0
    for run in runs:
        settled = sorted((day for day in run.days if day.budget is not None), key=lambda day: day.day)[SETTLED_AFTER:]
        budget = sum(day.budget or 0.0 for day in settled)
        count += sum(day.findings for day in settled)
        if budget:
            used.append(sum(day.findings for day in settled) / budget)
    return over_seeds(used, n=count)


def _day(number: int, days: list[Day]) -> StreamDay:
    budgets = [day.budget for day in days if day.budget is not None]

    def counted(values: list[int]) -> Figure:
        return over_seeds([float(value) for value in values], n=sum(values))

    return StreamDay(
        day=number,
        events=sum(day.events for day in days) / len(days),
        budget=rounded(sum(budgets) / len(budgets)) if budgets else None,
        findings=counted([day.findings for day in days]),
        attacks=counted([day.attacks for day in days]),
        drifts=counted([day.drifts for day in days]),
    )


def _drifts(events: list[DriftEvent]) -> Iterator[Drifts]:
    for what in sorted({event.what for event in events}):
        own = [event for event in events if event.what == what]
        after = [event.after_ms / _HOUR_MS for event in own if event.after_ms is not None]
        sessions = sum(event.sessions for event in own)
        counts = {said: sum(event.reported == said for event in own) for said in ("drift", "attack", "both", "nothing")}
        yield Drifts(
            what=what,
            events=len(own),
            **counts,
            median_hours=rounded(float(np.median(after))) if after else None,
            flagged=rounded(sum(event.flagged for event in own) / sessions) if sessions else None,
        )


def _poisonings(events: list[PoisonEvent]) -> Iterator[Poisoning]:
    for what in sorted({event.what for event in events}):
        own = [event for event in events if event.what == what]
        beside = [event.found_unpoisoned for event in own if event.found_unpoisoned is not None]
        yield Poisoning(
            what=what,
            events=len(own),
            steps=sum(event.steps for event in own),
            steps_flagged=sum(event.steps_flagged for event in own),
            attacks=sum(event.attacks for event in own),
            found=sum(event.found for event in own),
            found_unpoisoned=sum(beside) if len(beside) == len(own) else None,
        )


def _firsts(found: list[FirstFinding]) -> Iterator[First]:
    for family in sorted({first.family for first in found}):
        own = [first for first in found if first.family == family]
        yield First(
            family=family,
            found=len(own),
            turns=median(np.array([first.turns for first in own], np.float64)),
            hours=median(np.array([first.after_ms / _HOUR_MS for first in own], np.float64)),
        )
