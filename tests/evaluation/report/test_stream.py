"""The stream's facts as figures."""

from __future__ import annotations

import pytest

from evaluation.report.facts import Day, DriftEvent, FirstFinding, StreamRun
from evaluation.report.stream import budget_used, budgeted, streams
from tests.evaluation.report.made import facts


def day(number: int, findings: int, budget: float | None = 10.0, attacks: int = 0, drifts: int = 0) -> Day:
    return Day(day=number, events=100, sessions=20, findings=findings, attacks=attacks, drifts=drifts, budget=budget)


def run(*days: Day, seed: int = 0) -> StreamRun:
    return StreamRun(seed=seed, system="tidegate", days=list(days))


def test_the_budget_is_judged_after_its_first_three_days() -> None:
    learned = [day(number, 50, budget=None) for number in range(4)]
    settling = [day(number, 40) for number in (4, 5, 6)]
    figure = budget_used([run(*learned, *settling, day(7, 12), day(8, 10)), run(*settling, day(7, 9), seed=1)])
    # 22 of 20, and 9 of 10.
    assert (figure.low, figure.value, figure.high) == (0.9, 1.0, 1.1)
    assert (figure.n, figure.by) == (31, "seeds")


def test_a_stream_without_a_budget_has_none_to_judge() -> None:
    assert budget_used([run(day(0, 3, budget=None))]).value is None


def test_days_are_means_of_seeds_and_precision_leaves_drift_aside() -> None:
    (own,) = streams([run(day(0, 6, attacks=2, drifts=2)), run(day(0, 2, attacks=2), seed=1)]).values()
    assert own.days[0].findings.value == 4.0
    assert (own.days[0].findings.low, own.days[0].findings.high) == (2.0, 6.0)
    # 2 of 4, and 2 of 2.
    assert own.precision.value == 0.75


def test_drifts_are_counted_by_how_they_were_reported() -> None:
    def drift(reported: str, after_ms: int | None, flagged: int) -> DriftEvent:
        return DriftEvent(
            tenant="t", what="model", day=5, reported=reported, after_ms=after_ms, sessions=10, flagged=flagged  # type: ignore[arg-type]
        )  # fmt: skip

    drifts = [drift("drift", 3_600_000, 0), drift("both", 7_200_000, 3), drift("nothing", None, 0)]
    (own,) = streams([StreamRun(seed=0, system="tidegate", drifts=drifts)]).values()
    (model,) = own.drifts
    assert (model.events, model.drift, model.both, model.attack, model.nothing) == (3, 1, 1, 0, 1)
    assert model.median_hours == 1.5
    assert model.flagged == pytest.approx(0.1)


def test_first_findings_are_medians_with_order_statistics() -> None:
    found = [FirstFinding(family="loop", turns=turns, after_ms=turns * 3_600_000) for turns in range(1, 12)]
    (own,) = streams([StreamRun(seed=0, system="tidegate", first_findings=found)]).values()
    (loop,) = own.first
    assert (loop.found, loop.turns.value, loop.hours.value) == (11, 6.0, 6.0)
    # Of eleven the second and the tenth: 98.8 %; the third and the ninth are 93.5 %.
    assert (loop.turns.low, loop.turns.high) == (2.0, 10.0)


def test_the_product_stands_first_and_poisoners_are_summed() -> None:
    made = streams(facts(2).streams)
    assert list(made) == ["tidegate", "tidegate@budget", "tidegate-novelty", "ecod"]
    (own,) = made["tidegate"].poisonings
    assert (own.events, own.steps, own.steps_flagged, own.attacks, own.found, own.found_unpoisoned) == (
        2,
        60,
        2,
        10,
        6,
        10,
    )
    assert made["tidegate"].false_drifts.value == 0.025
    assert (budgeted(made), budgeted({"tidegate": made["tidegate"]})) == ("tidegate@budget", None)
