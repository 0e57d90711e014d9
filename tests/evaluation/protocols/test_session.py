"""`session`: whole foreign sessions on tenants, beside their own and harmless ones that are as foreign."""

from __future__ import annotations

from collections import Counter
from functools import cache

import msgspec

from evaluation.protocols.session import session
from evaluation.split import Caps, split
from evaluation.trial import Nothing, Trial
from tests.evaluation.office import corpus

CORPUS = corpus()
HALVES = split(CORPUS, 0, Caps(benign=5))


@cache
def _trial() -> Trial:
    made = session(CORPUS, HALVES)
    assert isinstance(made, Trial)
    return made


def test_each_attack_stands_on_a_learned_tenant_with_a_twin_beside_it() -> None:
    count = Counter((probe.label, probe.family) for probe in _trial().probes)
    assert count["benign", "twin"] == len(CORPUS.foreign) == 24
    assert sum(each for (label, _), each in count.items() if label == "attack") == 24
    # Five of each tenant that is learned.
    assert count["benign", ""] == 5 * len(HALVES.learned)
    assert {probe.session.tenant for probe in _trial().probes} <= set(HALVES.learned)


def test_a_twin_has_the_attack_s_shape_and_length() -> None:
    shapes = {
        label: Counter(
            tuple(t.role for t in p.session.turns if t.role != "system")
            for p in _trial().probes
            if p.label == label and p.family
        )
        for label in ("attack", "benign")
    }
    assert shapes["attack"] == shapes["benign"] == {("user", "assistant"): 24}
    sizes = {
        label: sum(
            len(t.text)
            for p in _trial().probes
            if p.label == label and p.family
            for t in p.session.turns
            if t.role == "user"
        )
        for label in ("attack", "benign")
    }
    assert 0.75 * sizes["attack"] <= sizes["benign"] <= sizes["attack"]


def test_a_tenant_s_own_attacks_without_a_task_are_judged_where_they_are_if_nobody_learned_their_opening() -> None:
    untasked = [msgspec.structs.replace(s, task=None) for s in CORPUS.sessions if s.label == "benign"]
    learned = next(s for s in split(corpus(untasked), 0).learn if s.tenant == "north")
    own = msgspec.structs.replace(CORPUS.foreign[0], tenant="north", session="own")
    known = msgspec.structs.replace(learned, session="known", label="attack", start_ms=None)
    made = corpus([*untasked, own, known])
    trial = session(made, split(made, 0))
    assert isinstance(trial, Trial)
    assert trial.figures["placed"] == 1


def test_a_corpus_without_attacks_has_nothing_for_it() -> None:
    bare = corpus([s for s in CORPUS.sessions if s.label == "benign"])
    made = session(bare, split(bare, 0))
    assert isinstance(made, Nothing)
    assert made.protocol == "session"
