"""The stream, whole: a release trained on the first week meets the second, and other systems see the same."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from functools import cache
from pathlib import Path

import numpy as np
import pytest

from evaluation.arrivals import Arrivals
from evaluation.corpus import Corpus
from evaluation.events import Events, events_of
from evaluation.protocols.live import live
from evaluation.protocols.poisoners import Poisoners
from evaluation.protocols.stream import BUDGETED, TIDEGATE, run_stream
from evaluation.protocols.two_weeks import lay_out
from evaluation.protocols.verdicts import Week, of_service
from evaluation.report.facts import Facts
from evaluation.row import Row
from evaluation.systems.product import Product, Without, said_alone
from evaluation.systems.system import Judged, System
from schemas.corpus import CorpusSession
from stream.record import Record
from tests.evaluation.systems.small import QUICK, SETTINGS, embedder
from tests.evaluation.talk import attack, corpus

EVENTS = 360
NOTHING = "tidegate-nothing"
"""Ablated is no signal."""
TALK = corpus(100, tenants=5)


class Length:
    """Whatever is longer than what was learned; as it follows, what it has met counts as learned."""

    name = "length"

    def __init__(self) -> None:
        self.learned = 0
        self.followed = False

    def fit(self, learn: Events, seed: int, attacks: Sequence[CorpusSession] = ()) -> None:
        self.learned = max(map(_size, learn.records))

    def judge(self, events: Events) -> Judged:
        raise AssertionError("a system that follows is not asked to judge")

    def follow(self, events: Events) -> Judged:
        score = np.zeros(len(events.sessions))
        first = np.full(len(score), -1, np.int64)
        for record, session, turn in zip(events.records, events.session, events.turn, strict=True):
            size = _size(record)
            score[session] = max(score[session], size)
            if size > self.learned and first[session] < 0:
                first[session] = turn
            self.learned = max(self.learned, size)
        self.followed = True
        return Judged(score, np.where(first >= 0, 0.001, 1.0), first, [""] * len(score), 0.5)


def _size(record: Record) -> int:
    return len(record.value or b"")


@cache
def product() -> Product:
    return Product(SETTINGS, embedder(), effort=QUICK)


@cache
def shown() -> tuple[list[Row], Facts, Length]:
    length = Length()
    systems: list[System] = [length, Without(NOTHING, product(), ())]
    rows, facts = run_stream(TALK, Path("nowhere"), 1, EVENTS, SETTINGS, embedder(), systems, product=product())
    return rows, facts, length


def test_every_system_has_a_row_for_each_session_and_all_say_the_same_of_what_it_was() -> None:
    rows, _, _ = shown()
    by_system = {name: [row for row in rows if row.system == name] for name in (TIDEGATE, BUDGETED, "length", NOTHING)}
    assert sum(map(len, by_system.values())) == len(rows)
    truths = [
        [(row.tenant, row.session, row.label, row.family, row.task, row.events) for row in own]
        for own in by_system.values()
    ]
    assert truths[0] == truths[1] == truths[2] == truths[3]
    assert {row.label for row in rows} == {"benign", "attack", "control"}
    assert all(row.protocol == "stream" and row.seed == 1 for row in rows)
    assert all(row.flagged == (row.first_finding_turn is not None) for row in rows)


def test_who_is_flagged_lies_at_the_operating_point_and_the_score_knows_no_floor() -> None:
    rows = [row for row in shown()[0] if row.system == TIDEGATE]
    assert any(row.flagged for row in rows)
    assert all(row.p <= SETTINGS.decision.session_fpr for row in rows if row.flagged)
    # A score is the negative logarithm of p, where p has not reached its floor of 1e-300.
    assert [row.score for row in rows] == pytest.approx([-np.log(row.p) for row in rows], abs=1e-6)
    assert all(row.signal for row in rows if row.flagged)


def test_days_add_up_to_the_events_and_sessions_and_a_budget_binds_in_the_second_week_alone() -> None:
    rows, facts, _ = shown()
    counts = {counted.name: counted.count for counted in facts.counts}
    for run in facts.streams:
        learned = counts["events that were learned"]
        assert sum(day.events for day in run.days) == learned + counts["events of the second week"]
        assert sum(day.sessions for day in run.days[7:]) == len([r for r in rows if r.system == run.system])
        assert all(day.findings == day.attacks == day.drifts == 0 for day in run.days[:7])
    budgets = {run.system: [day.budget for day in run.days] for run in facts.streams}
    assert set(budgets[TIDEGATE]) == set(budgets["length"]) == {None}
    assert budgets[BUDGETED][:7] == [None] * 7
    assert all(budget is not None and budget >= 1 for budget in budgets[BUDGETED][7:])


def test_findings_of_the_product_are_counted_as_they_were_opened() -> None:
    rows, facts, _ = shown()
    run = next(run for run in facts.streams if run.system == TIDEGATE)
    opened = sum(day.findings - day.drifts for day in run.days)
    # A finding is about one session, as long as the session does not fall quiet in between.
    assert opened >= sum(row.flagged for row in rows if row.system == TIDEGATE)
    assert sum(day.attacks for day in run.days) >= sum(
        row.flagged for row in rows if row.system == TIDEGATE and row.label == "attack"
    )
    families = Counter(first.family for first in run.first_findings)
    assert sum(families.values()) > 0


def test_a_system_that_follows_is_let_learn_as_it_goes() -> None:
    rows, facts, length = shown()
    assert length.followed
    cost = next(cost for cost in facts.costs if cost.system == "length")
    assert (cost.seconds, cost.protocol) == (0.5, "stream")
    assert {cost.system for cost in facts.costs} == {TIDEGATE, BUDGETED, "length", NOTHING}
    assert any(row.flagged for row in rows if row.system == "length")


def test_an_ablation_is_of_what_the_product_said_as_it_went() -> None:
    """Without nothing it ranks sessions as the product does that has lived through the week."""
    rows, _, _ = shown()
    own, ablation = ([row for row in rows if row.system == name] for name in (TIDEGATE, NOTHING))
    assert [row.score for row in ablation] == pytest.approx([row.score for row in own], abs=1e-9)


def test_how_long_an_event_takes_is_told_by_the_last_ones_alone() -> None:
    _, facts, _ = shown()
    counts = {counted.name: counted.count for counted in facts.counts}
    for name in (TIDEGATE, BUDGETED):
        cost = next(cost for cost in facts.costs if cost.system == name)
        assert cost.latency_p50_ms is not None
        assert cost.latency_p99_ms is not None
        assert 0 < cost.latency_p50_ms <= cost.latency_p99_ms
        week = counts["events of the second week"]
        # An ablation takes what the product took, and as many events.
        assert cost.events == week
    product_s, ablation_s = (next(c.seconds for c in facts.costs if c.system == name) for name in (TIDEGATE, NOTHING))
    assert product_s <= ablation_s < product_s + 5


def test_the_same_attacks_are_looked_for_without_the_poison() -> None:
    _, facts, _ = shown()
    run, budgeted = (next(run for run in facts.streams if run.system == name) for name in (TIDEGATE, BUDGETED))
    assert run.poisonings
    assert all(p.found_unpoisoned is not None and p.found_unpoisoned <= p.attacks for p in run.poisonings)
    assert all(p.found_unpoisoned is None for p in budgeted.poisonings)


def test_a_tenant_by_itself_is_found_as_it_is_beside_others() -> None:
    """So poisoners may try their steps on their tenant alone."""
    shown()
    laid_out = lay_out(TALK, Arrivals([]), 1, EVENTS)
    assert laid_out is not None and laid_out.poisonings
    week = Week.of(laid_out, events_of([probe.session for probe in laid_out.probes], SETTINGS))
    first = of_service(week, live(week.events, product().release, SETTINGS, embedder())).first
    poisoners = Poisoners(product().release, SETTINGS, embedder())
    for tenant in {str(probe.session.tenant) for probe in laid_out.probes}:
        beside = {
            probe.session.session
            for probe, row in zip(laid_out.probes, first.tolist(), strict=True)
            if row >= 0 and probe.session.tenant == tenant
        }
        assert poisoners._flagged(laid_out, tenant) == beside


def test_results_are_those_of_the_core_whatever_it_was_shown_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    shown()
    release = product().release
    laid_out = lay_out(TALK, Arrivals([]), 1, EVENTS)
    assert laid_out is not None
    events = events_of([probe.session for probe in laid_out.probes], SETTINGS)
    at_once = live(events, release, SETTINGS, embedder())
    monkeypatch.setattr("evaluation.protocols.live._AT_ONCE", 17)
    in_parts = live(events, release, SETTINGS, embedder())
    assert at_once.level.tolist() == in_parts.level.tolist()
    assert at_once.said.p.tolist() == in_parts.said.p.tolist()
    # A session that comes after others is not met as if it were the first.
    assert at_once.said.p.tolist() != said_alone(events, release, SETTINGS, embedder()).p.tolist()
    assert at_once.findings == in_parts.findings
    assert sum(at_once.decisions.values()) == len(events)


def test_changes_of_tenants_that_nothing_can_be_told_of_are_counted() -> None:
    _, facts, _ = shown()
    counts = {counted.name: counted.count for counted in facts.counts}
    # No tenant of so few events has a past of 512.
    changes = counts["changes of tenants with too few events before for the product to tell"]
    assert changes == len(facts.streams[0].drifts) > 0


def test_a_corpus_without_two_benign_sessions_says_so() -> None:
    strangers = Corpus(tuple(attack(n) for n in range(3)), ("made",) * 3, {})
    rows, facts = run_stream(strangers, Path("nowhere"), 0, 100, SETTINGS, embedder())
    assert rows == []
    (absent,) = facts.absent
    assert "benign" in absent.reason
