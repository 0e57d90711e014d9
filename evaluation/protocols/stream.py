"""The protocol `stream`: two weeks of traffic as real clients send it, the second judged in time and learned from."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

from evaluation.arrivals import read_arrivals
from evaluation.corpus import Corpus
from evaluation.events import Events, events_of
from evaluation.features import Embedder
from evaluation.protocols.happenings import LEARN_DAYS
from evaluation.protocols.live import live
from evaluation.protocols.poisoners import Poisoners
from evaluation.protocols.two_weeks import lay_out
from evaluation.protocols.verdicts import PROTOCOL, Week, of_service, of_system, rows_of, run_of
from evaluation.report.facts import Absent, Cost, Counted, Facts, StreamRun
from evaluation.row import Row
from evaluation.systems.product import Product
from evaluation.systems.system import Follows, System
from stream.config import BudgetSettings, DecisionSettings, Settings
from stream.errors import UsageError
from stream.steps.drift import FROM_ORDINAL

TIDEGATE, BUDGETED = "tidegate", "tidegate@budget"
"""The product at its share of sessions, and with a budget of findings a day."""
BUDGET_SHARE = 0.05
"""Findings a day, of the sessions a day that were learned: what a run's budget is, since runs differ in size."""
_PAST = FROM_ORDINAL + 8 * 32
"""Events of a tenant before a change of it can show: eight windows of 32 once they count (`models.drift.Drift`)."""

Progress = Callable[[str], None]


def run_stream(
    corpus: Corpus,
    arrivals: Path,
    seed: int,
    events: int,
    settings: Settings,
    embedder: Embedder,
    systems: Sequence[System] = (),
    *,
    product: Product | None = None,
    progress: Progress = lambda _: None,
) -> tuple[list[Row], Facts]:
    """Two weeks, as the product and other systems see them.

    The product learns the first week as `train` does, then serves the second with learning on: once in mode `fpr`, once
    in mode `budget`. Other systems learn the first week's events and judge the second's, in turn and learning where
    they can (`Follows`).

    Parameters
    ----------
    arrivals
        The folder of arrival traces.
    events
        How many there shall be, in both weeks together.
    settings
        As of a service; of `decision` the share of sessions counts, the rest is what is compared.
    systems
        Beside the product; they are fitted here.
    product
        Its training, where systems among the others share it.
    progress
        Told what begins.

    Returns
    -------
    list[Row]
        One a system and session. Poison on its way is a control.
    Facts
        Days, drifts, poison, first findings and costs; what was left out.
    """
    progress(f"laying out two weeks of about {events:,} events")
    laid_out = lay_out(corpus, read_arrivals(arrivals), seed, events)
    if laid_out is None:
        reason = "there are not two benign sessions of tenants to learn from, and one to judge, of different tasks"
        return [], Facts(absent=[Absent(protocol=PROTOCOL, seed=seed, reason=reason)])
    learn = events_of(laid_out.learn, settings)
    product = product or Product(settings, embedder, progress=progress)
    at_share = replace(settings, decision=DecisionSettings(session_fpr=settings.decision.session_fpr))
    try:
        begun = time.perf_counter()
        product.fit(learn, seed, ())
        fitted = time.perf_counter() - begun
        progress("poisoners try their steps on the release")
        poisoners = Poisoners(product.release, at_share, embedder)
        laid_out = poisoners.held_back(laid_out)
        week = Week.of(laid_out, events_of([probe.session for probe in laid_out.probes], settings))
        rows, runs, costs = _served(week, learn, at_share, product, fitted, poisoners, progress)
    except UsageError as error:
        return [], Facts(absent=[Absent(protocol=PROTOCOL, seed=seed, reason=str(error))])
    for system in systems:
        progress(f"{system.name}: learning the first week, judging the second")
        begun = time.perf_counter()
        system.fit(learn, seed)
        fitted = time.perf_counter() - begun
        judged = system.follow(week.events) if isinstance(system, Follows) else system.judge(week.events)
        verdicts = of_system(week, judged, settings.decision.session_fpr)
        rows += rows_of(week, verdicts, system.name)
        runs.append(run_of(week, verdicts, learn, system.name, settings.decision.session_fpr))
        costs.append(Cost.of(PROTOCOL, seed, system.name, len(week.events), judged.seconds, fitted, judged.alone_ms))
    counted = {
        "events that were learned": len(learn),
        "events of the second week": len(week.events),
        "changes of tenants with too few events before for the product to tell": _too_young(week, learn),
        **laid_out.counts,
    }
    return rows, Facts(
        nominal=settings.decision.session_fpr,
        counts=[Counted(protocol=PROTOCOL, seed=seed, name=name, count=count) for name, count in counted.items()],
        costs=costs,
        streams=runs,
    )


def _served(
    week: Week,
    learn: Events,
    at_share: Settings,
    product: Product,
    fitted: float,
    poisoners: Poisoners,
    progress: Progress,
) -> tuple[list[Row], list[StreamRun], list[Cost]]:
    """What the product says, in both modes."""
    nominal = at_share.decision.session_fpr
    a_day = max(1.0, BUDGET_SHARE * len(week.laid_out.learn) / LEARN_DAYS)
    at_budget = replace(
        at_share,
        decision=DecisionSettings(mode="budget"),
        budget=BudgetSettings(a_day, at_share.budget.critical_reserve),
    )
    rows: list[Row] = []
    runs: list[StreamRun] = []
    costs: list[Cost] = []
    for name, own, budget in ((TIDEGATE, at_share, None), (BUDGETED, at_budget, a_day)):
        progress(f"{name}: {len(week.events):,} events, learning on")
        lived = live(week.events, product.release, own, poisoners.embedder)
        verdicts = of_service(week, lived)
        unpoisoned = None
        if budget is None:
            # Ablations judge what it said as it went, less a signal.
            product.keep(week.events, lived.said)
            progress("the same attacks without poison")
            unpoisoned = poisoners.unpoisoned(week.laid_out)
        rows += rows_of(week, verdicts, name)
        runs.append(
            run_of(
                week,
                verdicts,
                learn,
                name,
                nominal,
                budget=budget,
                over_budget=lived.decisions["over_budget"],
                unpoisoned=unpoisoned,
            )
        )
        taken = lived.said
        fit_seconds = fitted if budget is None else None
        costs.append(
            Cost.of(PROTOCOL, week.laid_out.seed, name, len(week.events), taken.seconds, fit_seconds, taken.alone_ms)
        )
    return rows, runs, costs


def _too_young(week: Week, learn: Events) -> int:
    """Drifts of tenants whose past is too short for a change of it to show, whatever it is."""
    young = 0
    for drift in week.laid_out.drifts:
        before = sum(head.tenant == drift.tenant for head in learn.heads)
        of_tenant = (head.tenant == drift.tenant for head in week.events.heads)
        before += sum(own and at < drift.at_ms for own, at in zip(of_tenant, week.time_ms.tolist(), strict=True))
        young += before < _PAST
    return young
