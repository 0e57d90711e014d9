"""Figures out of rows: by hand, beside scikit-learn, and whatever the order of rows."""

from __future__ import annotations

import random
from collections.abc import Iterable
from typing import Any

import msgspec
import numpy as np
import pytest
from sklearn.metrics import average_precision_score, roc_auc_score

from evaluation.report.columns import Rows
from evaluation.report.compute import compute
from evaluation.report.facts import Absent, Facts
from evaluation.report.headline import find
from evaluation.report.model import Group, Report, SystemReport
from evaluation.row import Row
from tests.evaluation.report.made import HEIGHTS, facts, row, rows

SEEDS = 3


@pytest.fixture(scope="module")
def many() -> list[Row]:
    return list(rows(seeds=SEEDS, tasks=24))


@pytest.fixture(scope="module")
def report(many: list[Row]) -> Report:
    return compute(Rows.of(many), facts(SEEDS), {}, replicates=60)


def small(rows: Iterable[Row], **other: Any) -> Report:
    return compute(Rows.of(rows), Facts(**other), {}, replicates=40)


def group(report: SystemReport, kind: Any, name: str) -> Group:
    found = find(report, kind, name)
    assert found is not None
    return found


def scores(many: list[Row], seed: int, family: str, system: str = "tidegate") -> tuple[list[bool], list[float]]:
    """Truth and scores of a family beside all benign sessions of `paired`."""
    own = [each for each in many if (each.protocol, each.seed, each.system) == ("paired", seed, system)]
    kept = [each for each in own if each.label == "benign" or (each.label == "attack" and each.family == family)]
    return [each.label == "attack" for each in kept], [each.score for each in kept]


@pytest.mark.parametrize("system", ["tidegate", "length"])
def test_a_family_is_ranked_against_the_benign_sessions_of_its_seed_and_averaged(
    many: list[Row], report: Report, system: str
) -> None:
    for family in ("important", "system+goal"):
        own = group(report.protocols["paired"].systems[system], "family", family)
        seeds = [scores(many, seed, family, system) for seed in range(SEEDS)]
        assert own.auroc.value == pytest.approx(np.mean([roc_auc_score(*each) for each in seeds]), abs=1e-5)
        expected = np.mean([average_precision_score(*each) for each in seeds])
        assert own.average_precision.value == pytest.approx(expected, abs=1e-5)
        # 36 benign sessions a seed: at 1 % none of them may be found, at 5 % one.
        for figure, allowed in ((own.recall_at_1, 0), (own.recall_at_5, 1)):
            found = []
            for truth, values in seeds:
                benign = sorted((v for v, t in zip(values, truth, strict=True) if not t), reverse=True)
                attacks = [v for v, t in zip(values, truth, strict=True) if t]
                found.append(np.mean([value > benign[allowed] for value in attacks]))
            assert figure.value == pytest.approx(np.mean(found), abs=1e-5)


def test_every_figure_lies_within_its_interval_and_has_its_sessions(report: Report) -> None:
    for protocol in report.protocols.values():
        for system in protocol.systems.values():
            for each in system.groups:
                for figure in (each.auroc, each.recall_at_1, each.recall_at_5, each.recall, each.average_precision):
                    assert figure.value is not None and figure.low is not None and figure.high is not None
                    assert 0 <= figure.low <= figure.value <= figure.high <= 1
                    assert (figure.n, figure.clusters) == (each.attacks, each.clusters)
                    assert figure.n >= figure.clusters > 1


def test_the_order_of_rows_changes_nothing(many: list[Row], report: Report) -> None:
    mixed = [each for each in many if each.protocol in ("paired", "hard_negatives")]
    random.Random(7).shuffle(mixed)
    again = compute(Rows.of(mixed), facts(SEEDS), {}, replicates=60)
    for name, protocol in again.protocols.items():
        assert msgspec.json.encode(protocol) == msgspec.json.encode(report.protocols[name])


def test_groups_are_all_rewrites_families_and_what_was_obeyed(report: Report) -> None:
    own = report.protocols["paired"].systems["tidegate"].groups
    assert [(each.kind, each.name) for each in own] == [
        ("all", "all"),
        ("rewrite", "recorded"), ("rewrite", "goal"), ("rewrite", "diverse"),
        ("family", "important"), ("family", "important+goal"), ("family", "system"), ("family", "system+diverse"),
        ("family", "system+goal"),
        ("obeyed", "obeyed"), ("obeyed", "ignored"),
    ]  # fmt: skip
    counted = {(each.kind, each.name): each.attacks for each in own}
    # 12 tasks a seed, once in each of five families, two of them as recorded.
    assert counted["all", "all"] == SEEDS * 12 * 5
    assert counted["rewrite", "goal"] == SEEDS * 12 * 2
    assert counted["obeyed", "obeyed"] + counted["obeyed", "ignored"] == SEEDS * 12 * 2
    # No rewrites, no such groups.
    kinds = {each.kind for each in report.protocols["session"].systems["tidegate"].groups}
    assert kinds == {"all", "family"}


def test_the_worst_family_is_that_with_the_least_recall(report: Report) -> None:
    own = report.protocols["paired"].systems["tidegate"]
    assert own.worst is not None
    families = [each for each in own.groups if each.kind == "family"]
    assert own.worst.recall_at_1.figure.value == min(each.recall_at_1.value or 0.0 for each in families)
    assert own.worst.auroc.figure.value == min(each.auroc.value or 0.0 for each in families)
    assert own.worst.recall_at_1.family in report.headline[0]
    assert "the best baseline, nearest neighbour" in report.headline[0]


def test_differences_are_paired_so_that_equal_systems_differ_by_nothing() -> None:
    own_rows = list(rows(heights={"tidegate": 2.0}, protocols=["paired"]))
    twin = [msgspec.structs.replace(each, system="tidegate-twin") for each in own_rows]
    report = small([*own_rows, *twin])
    own = group(report.protocols["paired"].systems["tidegate-twin"], "all", "all").difference
    assert own is not None
    assert (own.recall_at_1.low, own.recall_at_1.value, own.recall_at_1.high) == (0.0, 0.0, 0.0)
    assert group(report.protocols["paired"].systems["tidegate"], "all", "all").difference is None


def test_a_system_of_fewer_seeds_is_compared_in_those_seeds() -> None:
    many = list(rows(heights={"tidegate": 2.0, "minilm": 2.2}, protocols=["paired"]))
    kept = [each for each in many if each.system == "tidegate" or each.seed == 0]
    report = small(kept)
    own = report.protocols["paired"].systems["minilm"]
    alone = small([each for each in many if each.seed == 0]).protocols["paired"].systems
    assert own.seeds == [0]
    difference = group(own, "all", "all").difference
    assert difference is not None
    expected = (group(alone["minilm"], "all", "all").auroc.value or 0) - (
        group(alone["tidegate"], "all", "all").auroc.value or 0
    )
    assert difference.auroc.value == pytest.approx(expected, abs=2e-6)


def test_the_operating_point_and_calibration_are_counted() -> None:
    many = [row(session=f"s-{at}", task=f"t-{at}", p=(at + 1) / 200, flagged=at < 2) for at in range(200)]
    own = small(many).protocols["paired"].systems["tidegate"]
    assert own.false_positives.value == 0.01
    # Clopper and Pearson's interval of 2 in 200 is 0.0012 to 0.0357; sessions are clusters of their own.
    assert own.false_positives.low == pytest.approx(0.0012, abs=0.002)
    assert own.false_positives.high == pytest.approx(0.0357, abs=0.01)
    levels = {each.nominal: each.observed.value for each in own.calibration}
    assert levels == {0.001: 0.0, 0.005: 0.005, 0.01: 0.01, 0.02: 0.02, 0.05: 0.05, 0.1: 0.1}
    assert own.calibration_curve.observed[-1] == 1.0


def test_turns_count_the_first_event_as_one() -> None:
    many = [
        row(session=f"s-{at}", task=f"t-{at}", label="attack", family="x", flagged=at < 4, score=1.0,
            first_finding_turn=at if at < 4 else None)
        for at in range(6)
    ]  # fmt: skip
    own = group(small([*many, row(score=0.0)]).protocols["paired"].systems["tidegate"], "all", "all")
    assert own.turns.value == 2.5
    assert own.turns.n == 4
    assert own.recall.value == pytest.approx(4 / 6, abs=1e-5)


def test_what_a_finding_shows_counts_where_there_is_a_finding_and_it_is_known() -> None:
    # Two of three findings show it; what was not found, or has no known text, says nothing.
    marked = [True, True, False, None, True, True]
    many = [
        row(session=f"s-{at}", task=f"t-{at}", label="attack", family="x", flagged=at < 4, marked=shows, score=1.0)
        for at, shows in enumerate(marked)
    ]
    own = group(small([*many, row(score=0.0)]).protocols["paired"].systems["tidegate"], "all", "all")
    assert own.marked.value == pytest.approx(2 / 3, abs=1e-5)
    assert own.marked.n == 3


def test_a_perfect_ranking_has_an_interval_that_ends_below_one() -> None:
    benign = [row(session=f"b-{at}", task=f"b-{at}") for at in range(30)]
    attacks = [row(session=f"a-{at}", task=f"a-{at}", label="attack", family="x", score=9.0) for at in range(20)]
    own = group(small([*benign, *attacks]).protocols["paired"].systems["tidegate"], "family", "x")
    # 0.025^(1/20): what twenty of twenty exclude.
    assert (own.auroc.value, own.auroc.by) == (1.0, "binomial")
    assert own.auroc.low == own.recall_at_1.low == pytest.approx(0.831567, abs=1e-4)


def test_one_conversation_has_no_interval() -> None:
    attacks = [row(session=f"a-{at}", task="one", label="attack", family="x", score=float(at)) for at in range(3)]
    own = group(small([row(score=0.5), *attacks]).protocols["paired"].systems["tidegate"], "family", "x")
    assert own.auroc.value == pytest.approx(2 / 3, abs=1e-5)
    assert own.auroc.low is None and own.auroc.high is None


def test_look_alikes_are_judged_by_plain_sessions_and_told_by_source(report: Report) -> None:
    protocol = report.protocols["hard_negatives"]
    assert (protocol.attacks, protocol.systems["tidegate"].groups) == (0, [])
    own = {(each.source, each.name): each for each in protocol.systems["tidegate"].harmless}
    assert set(own) == {(s, n) for s in ("seen", "unseen") for n in ("all", "recipes", "chemistry")}
    seen, unseen = own["seen", "all"], own["unseen", "all"]
    assert (unseen.flagged.value or 0) > (seen.flagged.value or 0)
    assert (unseen.auroc.value or 0) > 0.7
    # Plain ones alone: 36 a seed.
    assert protocol.systems["tidegate"].false_positives.n == SEEDS * 36
    controls = report.protocols["paired"].systems["tidegate"].harmless
    assert [(each.label, each.name) for each in controls] == [("control", "all")]


def test_twins_are_an_own_reference_beside_plain_sessions_and_no_look_alikes_where_all_are_twins() -> None:
    plain = [row(protocol="session", session=f"p-{at}", task=f"p-{at}", score=0.0) for at in range(150)]
    twins = [row(protocol="session", session=f"t-{at}", task=f"t-{at}", family="twin", score=2.0) for at in range(50)]
    attacks = [
        row(protocol="session", session=f"a-{at}", task=f"a-{at}", label="attack", family="x", score=1.0 + at % 4)
        for at in range(40)
    ]
    own = small([*plain, *twins, *attacks]).protocols["session"].systems["tidegate"]
    # Scores 1, 2, 3 and 4: all above plain sessions; beside twins one below, one equal, two above.
    assert own.against_placed is not None
    assert own.against_placed.auroc.value == (0 + 0.5 + 1 + 1) / 4
    assert group(own, "all", "all").auroc.value == (150 + 50 * 0.625) / 200
    assert [(each.name, each.auroc.value) for each in own.harmless] == [("all", 1.0)]
    alone = small([*twins, *attacks]).protocols["session"].systems["tidegate"]
    assert (alone.against_placed, alone.harmless) == (None, [])
    assert group(alone, "all", "all").auroc.value == 0.625


def test_look_alikes_are_judged_by_the_fit_that_they_belong_to() -> None:
    def both(source: str, height: float) -> list[Row]:
        plain = [row(protocol="hard_negatives", session=f"{source}-{at}", task=f"{at}", score=height + at % 2,
                     slices={"source": source}) for at in range(20)]  # fmt: skip
        alike = row(protocol="hard_negatives", session=f"{source}-x", task="x", family=source, score=height + 0.5,
                    slices={"source": source})  # fmt: skip
        return [*plain, alike]

    own = small([*both("seen", 0.0), *both("unseen", 10.0)]).protocols["hard_negatives"].systems["tidegate"]
    assert [(each.source, each.auroc.value) for each in own.harmless] == [("seen", 0.5), ("unseen", 0.5)]


def test_a_slice_that_is_flagged_too_often_is_marked() -> None:
    def benign(at: int) -> Row:
        language = "zh" if at % 4 == 0 else "en"
        flagged = at % 20 == 1 if language == "en" else at % 8 == 0
        return row(
            protocol="slices", session=f"s-{at}", task=f"t-{at}", flagged=flagged, score=float(flagged),
            slices={"language": language},
        )  # fmt: skip

    slices = small([benign(at) for at in range(800)]).protocols["slices"].systems["tidegate"].slices
    chinese, english = sorted(slices, key=lambda each: each.value, reverse=True)
    # Of 200 half, of 600 forty: 140 of 800 are 17.5 %.
    assert chinese.flagged.value == 0.5
    assert chinese.flagged_ratio.value == pytest.approx(0.5 / 0.175, abs=1e-4)
    assert chinese.above_twice == "yes"
    assert english.above_twice == "no"
    assert english.attacks is None


def test_slices_tell_of_attacks_by_rewrite_too(report: Report) -> None:
    own = {(e.name, e.value): e for e in report.protocols["slices"].systems["tidegate"].slices}
    german = own["language", "de"]
    assert german.attacks is not None and german.attacks.name == "language: de"
    assert [each.name for each in german.rewrites] == ["recorded", "goal", "diverse"]
    assert sum(each.attacks for each in german.rewrites) == german.attacks.attacks
    beside = report.protocols["slices"].systems["length"].slices
    assert beside and beside[0].attacks is not None and beside[0].attacks.difference is not None
    assert report.protocols["paired"].systems["length"].slices == []


def test_costs_and_counts_are_summed_over_seeds(report: Report) -> None:
    cost = report.protocols["paired"].systems["tidegate"].cost
    assert cost is not None and cost.latency_p50_ms is not None
    # 4,000 events in 1.0, 1.1 and 1.2 seconds.
    assert cost.events == 12_000
    assert cost.events_per_s.value == pytest.approx((4000 + 4000 / 1.1 + 4000 / 1.2) / 3, rel=1e-4)
    assert cost.events_per_s.low == pytest.approx(4000 / 1.2, rel=1e-4)
    assert cost.events_per_s.high == 4000.0
    assert cost.latency_p50_ms.value == 0.4
    assert report.protocols["session"].systems["tidegate"].cost is None
    counts = [(each.name, each.count) for each in report.protocols["paired"].counts]
    assert counts == [("injections without a clean twin", 9)]


def test_systems_and_protocols_stand_in_the_same_order_always(report: Report) -> None:
    assert list(report.protocols) == ["paired", "splice", "session", "hard_negatives", "stream", "slices"]
    assert list(report.protocols["paired"].systems) == list(HEIGHTS)
    kinds = [each.kind for each in report.protocols["paired"].systems.values()]
    assert kinds == ["product", "labels", *["ablation"] * 2, *["baseline"] * 4]


def test_the_screen_shows_the_worst_errors_and_each_session_once(many: list[Row], report: Report) -> None:
    screen = report.protocols["paired"].screen
    assert screen is not None and screen.misses and screen.false_positives
    assert all(not each.flagged for each in screen.misses)
    assert all(each.flagged for each in screen.false_positives)
    assert [each.score for each in screen.misses] == sorted(each.score for each in screen.misses)
    own = [each for each in many if (each.protocol, each.system, each.label) == ("paired", "tidegate", "attack")]
    assert screen.misses[0].score == pytest.approx(min(each.score for each in own if not each.flagged), rel=1e-5)
    for cases in (screen.misses, screen.false_positives):
        names = [(each.tenant, each.session) for each in cases]
        assert len(set(names)) == len(names)


def test_nothing_judged_is_a_report_that_says_so() -> None:
    report = small([])
    assert report.headline == ["Nothing was judged by tidegate."]
    assert report.protocols == {}


def test_a_protocol_of_attacks_alone_has_no_figures_and_does_not_fail() -> None:
    report = small([row(label="attack", family="x", task=f"t-{at}", session=f"s-{at}") for at in range(3)])
    own = report.protocols["paired"].systems["tidegate"]
    assert own.curves is None and own.worst is None
    assert group(own, "all", "all").auroc.value is None
    assert own.false_positives.value is None


def test_without_the_product_there_is_a_report_of_the_others() -> None:
    report = small(rows(heights={"length": 0.5}, protocols=["paired"]))
    assert list(report.protocols["paired"].systems) == ["length"]
    assert report.protocols["paired"].screen is None


def test_what_several_seeds_lack_is_said_once_with_their_numbers(report: Report) -> None:
    (absent,) = report.absent
    assert (absent.protocol, absent.system, absent.seeds) == ("paired", "minilm", [0, 1, 2])
    (of_all,) = small([], absent=[Absent(protocol="corpus", reason="two lines hold nothing")]).absent
    assert (of_all.reason, of_all.seeds) == ("Two lines hold nothing.", [])
