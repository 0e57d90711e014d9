"""From what was said of events to rows and facts: small weeks whose figures can be counted by hand."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import msgspec
import numpy as np
import pytest

from evaluation.drifts import Drift, Poisoning
from evaluation.events import events_of
from evaluation.protocols.happenings import LEARN_DAYS
from evaluation.protocols.live import Found, Lived
from evaluation.protocols.two_weeks import TwoWeeks
from evaluation.protocols.verdicts import Verdicts, Week, of_service, of_system, rows_of, run_of
from evaluation.report.facts import Day, DriftEvent, FirstFinding, PoisonEvent, StreamRun
from evaluation.systems.product import Said
from evaluation.systems.system import Judged
from evaluation.trial import Label, Probe
from schemas.corpus_timeline import UNDATED_START_MS
from stream.config import Settings
from stream.state.schema import KINDS
from tests.evaluation.talk import attack, session

_DAY_MS = 86_400_000
_HOUR_MS = _DAY_MS // 24
EVENTS_EACH = 3


def at(day: float) -> int:
    return UNDATED_START_MS + round(day * _DAY_MS)


def probe(number: int, day: float, label: Label = "benign", family: str = "", tenant: str = "t") -> Probe:
    own = session(tenant, number)
    if label == "attack":
        # Its second call is the first that has to do with the attack.
        turns = tuple(msgspec.structs.replace(turn, payload=turn.role == "tool") for turn in own.turns)
        own = msgspec.structs.replace(own, turns=turns)
    own = msgspec.structs.replace(own, start_ms=at(day), calls_ms=tuple(at(day) + i * _HOUR_MS for i in range(3)))
    return Probe(own, label, family, f"{tenant}/{number}")


def week(probes: Sequence[Probe], drifts: Sequence[Drift] = (), poisonings: Sequence[Poisoning] = ()) -> Week:
    laid_out = TwoWeeks(3, (), probes, drifts, poisonings, {})
    return Week.of(laid_out, events_of([probe.session for probe in probes], Settings()))


def row(of: Week, number: int, turn: int) -> int:
    """Of an event, by the number of its probe."""
    (found,) = np.flatnonzero((of.events.session == number) & (of.events.turn == turn))
    return int(found)


def found(
    of: Week, number: int, turns: Sequence[int], entity: Literal["session", "key", "tenant"] = "session"
) -> Found:
    rows = [row(of, number, turn) for turn in turns]
    tenant = str(of.laid_out.probes[number].session.tenant)
    cause = "models" if entity == "tenant" else ""
    return Found(tenant, entity, int(of.time_ms[rows[0]]), rows, cause)


def said(of: Week, findings: list[Found]) -> Verdicts:
    n, kinds = len(of.events), len(KINDS)
    level = np.linspace(0, 1, n)
    by_signal = Said(np.ones((n, kinds)), np.ones((n, kinds), np.bool_), np.zeros(n, np.bool_), [], 1.0, [])
    return of_service(of, Lived(level, np.exp(-level), by_signal, ["volume"] * n, findings))


def run(of: Week, verdicts: Verdicts, budget: float | None = None) -> StreamRun:
    learn = events_of([msgspec.structs.replace(session("t", 900), start_ms=at(2))], Settings())
    return run_of(of, verdicts, learn, "tidegate", 0.01, budget=budget, over_budget=4, unpoisoned={"tokens": 2})


def test_a_finding_about_a_key_is_found_for_each_session_that_it_names() -> None:
    own = week([probe(0, 8), probe(1, 8.01, "attack", "f"), probe(2, 8.02)])
    about_key = Found("t", "key", at(8), [row(own, 0, 1), row(own, 1, 2)])
    rows = rows_of(own, said(own, [about_key, found(own, 1, [1])]), "tidegate")
    assert [r.flagged for r in rows] == [True, True, False]
    assert [r.first_finding_turn for r in rows] == [1, 1, None]
    assert [(r.label, r.family, r.task, r.events) for r in rows] == [
        ("benign", "", "t/0", 3),
        ("attack", "f", "t/1", 3),
        ("benign", "", "t/2", 3),
    ]
    # The strangest event of each, by a level that rises event by event.
    assert [r.score for r in rows] == pytest.approx(
        [max(np.linspace(0, 1, 9)[own.events.session == i]) for i in range(3)]
    )


def test_a_finding_of_drift_flags_no_session() -> None:
    own = week([probe(0, 8), probe(1, 8.01)])
    rows = rows_of(own, said(own, [found(own, 0, [0], "tenant")]), "tidegate")
    assert not any(r.flagged for r in rows)


def test_days_count_what_was_opened_on_them_and_what_of_it_was_an_attack_or_drift() -> None:
    own = week([probe(0, 8), probe(1, 8.5, "attack", "f"), probe(2, 9)])
    findings = [found(own, 0, [0, 1]), found(own, 1, [0]), found(own, 2, [0], "tenant"), found(own, 2, [1])]
    days = run(own, said(own, findings), budget=2.5).days
    assert len(days) == 2 * LEARN_DAYS
    assert days[2] == Day(day=2, events=3, sessions=1, findings=0, attacks=0)
    assert days[8] == Day(day=8, events=6, sessions=2, findings=2, attacks=1, budget=2.5)
    assert days[9] == Day(day=9, events=3, sessions=1, findings=2, attacks=0, drifts=1, budget=2.5)


def test_turns_and_time_to_a_first_finding_count_from_the_first_call_of_the_attack() -> None:
    own = week([probe(0, 8, "attack", "late"), probe(1, 9, "attack", "early"), probe(2, 10, "attack", "missed")])
    # The tools' results, which carry it, are first sent with the second call.
    verdicts = said(own, [found(own, 0, [2]), found(own, 1, [0])])
    assert run(own, verdicts).first_findings == [
        FirstFinding(family="late", turns=2, after_ms=_HOUR_MS),
        FirstFinding(family="early", turns=1, after_ms=0),
    ]


def test_a_scraper_is_one_attack_however_many_its_sessions() -> None:
    family = "behaviour.scraping"
    probes = [
        Probe(p.session, "attack", family, "t/scraper") for p in (probe(n, 8 + n / 24, "benign") for n in range(3))
    ]
    own = week(probes)
    verdicts = said(own, [found(own, 1, [2]), found(own, 2, [0])])
    ((first),) = run(own, verdicts).first_findings
    # Nine events of three sessions that overlap, an hour apart: the last but one event of all is found first.
    assert first.family == family
    assert first.after_ms == min(int(own.time_ms[f.events[0]]) for f in verdicts.findings) - int(own.time_ms[0])


def test_drift_is_reported_as_drift_as_attack_as_both_or_not() -> None:
    probes = [probe(n, 8 + n / 10, tenant=tenant) for tenant in ("told", "taken", "both", "neither") for n in range(20)]
    probes.sort(key=lambda p: p.session.start_ms or 0)
    drifts = [Drift(tenant, "model", at(9)) for tenant in ("told", "taken", "both", "neither")]
    own = week(probes, drifts)
    numbers = {(p.session.tenant, p.session.session): i for i, p in enumerate(probes)}
    told = [found(own, numbers[t, f"{t}-12"], [0], "tenant") for t in ("told", "both")]
    early = [found(own, numbers["neither", "neither-3"], [0], "tenant")]
    taken = [found(own, numbers[t, f"{t}-{n}"], [0]) for t in ("taken", "both") for n in range(12, 17)]
    made = run(own, said(own, [*told, *early, *taken]))
    # Five of ten sessions where one in a hundred is usual; a fifth of a day passes from day 9 to the twelfth session.
    hours = _DAY_MS // 5
    told_so = DriftEvent(
        tenant="told", what="model", day=9, reported="drift", after_ms=hours, moved="models", sessions=10, flagged=0
    )
    assert made.drifts == [
        told_so,
        DriftEvent(tenant="taken", what="model", day=9, reported="attack", sessions=10, flagged=5),
        msgspec.structs.replace(told_so, tenant="both", reported="both", flagged=5),
        DriftEvent(tenant="neither", what="model", day=9, reported="nothing", sessions=10, flagged=0),
    ]
    # What was said before the change was false; until then four tenants were watched for two days each.
    assert (made.false_drifts, made.tenant_days) == (1, 8.0)


def test_poison_says_what_was_seen_of_it_and_what_it_has_cost() -> None:
    probes = [probe(0, 8, "control", "poison.tokens"), probe(1, 9, "control"), probe(2, 12, "attack", "f+poisoned")]
    names = [p.session.session for p in probes]
    own = week(probes, poisonings=[Poisoning("t", "tokens", tuple(names[:2]), tuple(names[2:]))])
    made = run(own, said(own, [found(own, 1, [0])]))
    assert made.poisonings == [
        PoisonEvent(tenant="t", what="tokens", steps=2, steps_flagged=1, attacks=1, found=0, found_unpoisoned=2)
    ]
    # A tenant that is led on is not one that has not changed.
    assert (made.false_drifts, made.tenant_days, made.over_budget) == (0, 0.0, 4)


def test_another_systems_flagged_sessions_are_its_findings() -> None:
    own = week([probe(0, 8), probe(1, 8.5, "attack", "f")])
    judged = Judged(np.array([1.0, 9.0]), np.array([0.5, 0.001]), np.array([-1, 2]), ["", "x"], 0.1)
    verdicts = of_system(own, judged, 0.01)
    rows = rows_of(own, verdicts, "length")
    assert [(r.flagged, r.first_finding_turn, r.score, r.signal) for r in rows] == [
        (False, None, 1.0, ""),
        (True, 2, 9.0, "x"),
    ]
    assert [(d.findings, d.attacks) for d in run(own, verdicts).days[8:9]] == [(1, 1)]


def test_a_foreign_attack_counts_from_its_first_call() -> None:
    stranger = msgspec.structs.replace(attack(0), tenant="t", start_ms=at(8))
    own = week([Probe(stranger, "attack", "jailbreak.made", "t/a")])
    (first,) = run(own, said(own, [found(own, 0, [0])])).first_findings
    assert (first.turns, first.after_ms) == (1, 0)
