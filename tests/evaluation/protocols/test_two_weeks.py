"""Two weeks: nothing is used twice, what is learned is not judged, and all that can happen does."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace
from functools import cache
from pathlib import Path

import msgspec
import pytest

from evaluation.arrivals import DAY_S, DAYS, Arrivals, read_arrivals
from evaluation.behaviour import BEHAVIOURS, FAMILY, SCRAPES
from evaluation.corpus import Corpus
from evaluation.drifts import DRIFTS, POISONS
from evaluation.placing import named
from evaluation.protocols.happenings import LEARN_DAYS, POISONED, events_in
from evaluation.protocols.two_weeks import TwoWeeks, lay_out
from evaluation.split import base_of
from schemas.corpus import CorpusSession
from schemas.corpus_timeline import UNDATED_START_MS
from tests.evaluation.talk import attack, corpus, session

TENANTS = 12


@cache
def talk() -> Corpus:
    return corpus(160, tenants=TENANTS)


@cache
def weeks(seed: int = 0, events: int = 4000) -> TwoWeeks:
    made = lay_out(talk(), Arrivals([]), seed, events)
    assert made is not None
    return made


def day(one: CorpusSession) -> float:
    assert one.start_ms is not None
    return (one.start_ms - UNDATED_START_MS) / 1000 / DAY_S


def test_about_as_many_events_as_wanted_in_the_order_of_time() -> None:
    learned, judged = events_in(weeks().learn), events_in(probe.session for probe in weeks().probes)
    assert learned + judged == pytest.approx(4000, rel=0.1)
    # Tenants that call at any time do so as often in both weeks.
    benign = events_in(probe.session for probe in weeks().probes if probe.label == "benign")
    assert learned == pytest.approx(benign, rel=0.1)
    assert all(0 <= day(one) < LEARN_DAYS for one in weeks().learn)
    assert all(LEARN_DAYS <= day(probe.session) < DAYS + 0.1 for probe in weeks().probes)
    for times in ([day(one) for one in weeks().learn], [day(probe.session) for probe in weeks().probes]):
        assert times == sorted(times)


def test_no_session_is_used_twice_and_no_task_is_learned_and_judged() -> None:
    sessions = [*weeks().learn, *(probe.session for probe in weeks().probes)]
    names = Counter((one.tenant, one.session) for one in sessions)
    assert max(names.values()) == 1
    of_tasks = {base_of(one) for one in weeks().learn if one.task}
    assert of_tasks
    assert not of_tasks & {base_of(probe.session) for probe in weeks().probes if probe.session.task}


def test_what_the_daily_traffic_says_is_the_corpus_word_for_word_but_for_what_changes() -> None:
    known = {named(one).session: one.turns for one in talk().sessions}
    assert all(known[one.session] == one.turns for one in weeks().learn)
    same = [p for p in weeks().probes if p.label == "benign" and p.slices.get("drift") in (None, "model")]
    assert all(known[probe.session.session] == probe.session.turns for probe in same)


def test_every_behaviour_family_drift_and_poison_is_there() -> None:
    families = Counter(probe.family for probe in weeks().probes if probe.label == "attack")
    assert {FAMILY + what for what in BEHAVIOURS} <= families.keys()
    assert families[FAMILY + "scraping"] % SCRAPES == 0
    assert {"jailbreak.made", "direct.made", "indirect.made"} <= families.keys()
    assert {drift.what for drift in weeks().drifts} == set(DRIFTS)
    assert {poisoning.what for poisoning in weeks().poisonings} == set(POISONS)
    assert {f for f in families if f.endswith(POISONED)} == {
        f"{FAMILY}token_flood{POISONED}",
        f"{FAMILY}exfiltration_fast{POISONED}",
        next(f"{f}{POISONED}" for f in ("jailbreak.made", "direct.made") if f"{f}{POISONED}" in families),
    }
    assert weeks().counts == {"tenants with another one's arrivals, hours later": TENANTS - 1}
    # Some per cent of the sessions are attacks, scrapers aside.
    attacks = [p for p in weeks().probes if p.label == "attack" and p.family != FAMILY + "scraping"]
    assert 0.02 < len(attacks) / len(weeks().probes) < 0.1


def test_tenants_that_change_are_others_than_those_that_are_poisoned_and_some_stay() -> None:
    drifting, poisoned = ({one.tenant for one in part} for part in (weeks().drifts, weeks().poisonings))
    assert not drifting & poisoned
    assert len(drifting | poisoned) <= TENANTS * 2 / 3


def test_a_change_begins_when_it_does_and_goes_on() -> None:
    for drift in weeks().drifts:
        own = [p for p in weeks().probes if p.session.tenant == drift.tenant and p.label == "benign"]
        for probe in own:
            assert probe.session.start_ms is not None
            assert probe.slices == ({"drift": drift.what} if probe.session.start_ms >= drift.at_ms else {})
        assert 0 < sum(bool(probe.slices) for probe in own) < len(own)


def test_poison_comes_before_what_it_prepares_and_is_a_control() -> None:
    at = {(probe.session.tenant, probe.session.session): probe for probe in weeks().probes}
    for poisoning in weeks().poisonings:
        steps = [at[poisoning.tenant, name] for name in poisoning.steps]
        made = [at[poisoning.tenant, name] for name in poisoning.attacks]
        assert {probe.label for probe in steps} == {"control"}
        assert {probe.label for probe in made} == {"attack"}
        assert [day(p.session) for p in steps] == sorted(day(p.session) for p in steps)
        assert max(day(p.session) for p in steps) < min(day(p.session) for p in made)


def test_another_seed_is_another_layout_and_the_same_seed_the_same() -> None:
    again = lay_out(talk(), Arrivals([]), 0, 4000)
    assert again == weeks()
    assert [one.session for one in weeks(1).learn] != [one.session for one in weeks().learn]


def test_sessions_come_from_several_keys_and_now_and_then_from_elsewhere() -> None:
    benign = [*weeks().learn, *(probe.session for probe in weeks().probes if probe.label == "benign")]
    assert {one.key for one in benign} == {"k1", "k2", "k3"}
    # 1.5 % from another network, with an error of three binomial standard deviations.
    away = sum(one.network is not None for one in benign)
    assert abs(away - 0.015 * len(benign)) < 3 * (0.015 * len(benign)) ** 0.5


def test_attacks_of_a_tenant_of_whom_nothing_else_is_known_strike_others() -> None:
    talk_of = talk()
    strangers = [msgspec.structs.replace(one, tenant="stranger") for one in talk_of.foreign]
    assert strangers
    others = [one for one in talk_of.sessions if one not in talk_of.foreign]
    made = lay_out(replace(talk_of, sessions=(*others, *strangers)), Arrivals([]), 0, 4000)
    assert made is not None
    struck = {probe.session.tenant for probe in made.probes if probe.family in {s.attack_family for s in strangers}}
    assert struck
    assert struck <= talk_of.benign.keys()


def test_a_corpus_of_few_tenants_without_tools_tasks_or_attacks_has_less_to_show() -> None:
    benign = tuple(session(f"t{t}", n, tools=False) for t in range(2) for n in range(40))
    made = lay_out(Corpus(benign, ("made",) * len(benign), {}), Arrivals([]), 0, 100_000)
    assert made is not None
    left_out = {name for name, count in made.counts.items() if count}
    assert f"{FAMILY}tool_loop left out for want of sessions to make it of" in left_out
    assert "poisoners by arguments left out for want of sessions" in left_out
    assert {p.family for p in made.probes if p.label == "attack"} <= {f"{FAMILY}{what}" for what in BEHAVIOURS}


def test_a_corpus_with_nothing_to_learn_has_no_two_weeks(tmp_path: Path) -> None:
    strangers = tuple(attack(n) for n in range(3))
    assert lay_out(Corpus(strangers, ("made",) * 3, {}), read_arrivals(tmp_path), 0, 100) is None
