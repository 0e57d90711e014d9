"""Tenants that change, and poison in small steps."""

from __future__ import annotations

import pytest

from evaluation.arrivals import rng
from evaluation.behaviour import Material
from evaluation.drifts import DRIFTS, POISONS, sentences
from schemas.corpus import CorpusSession, calls
from schemas.corpus_timeline import prompt_tokens
from tests.evaluation.talk import ORDERS, attack, session

OWN = session("t", 1)
MATERIAL = Material.of([session("t", number) for number in range(2, 9)])


def changed(what: str, one: CorpusSession = OWN) -> CorpusSession:
    return DRIFTS[what](one, "t", MATERIAL, 0)


def test_another_model_and_nothing_else() -> None:
    assert changed("model").model != OWN.model
    assert changed("model").turns == OWN.turns


@pytest.mark.parametrize("system", [True, False])
def test_another_prompt_of_the_tenants_own_comes_before_all_else(system: bool) -> None:
    first, second = (changed("prompt", session("t", number, system=system)) for number in (1, 2))
    assert first.turns[0] == second.turns[0] != OWN.turns[0]
    assert first.turns[0].role == "system"
    assert [turn for turn in first.turns if turn.role != "system"] == [t for t in OWN.turns if t.role != "system"]


def test_users_say_twice_as_much() -> None:
    more, own = (prompt_tokens(s, calls(s)[0]) for s in (changed("usage"), OWN))
    assert 1.6 < more / own < 2.4


@pytest.mark.parametrize("what", POISONS)
def test_each_step_goes_a_little_further(what: str) -> None:
    strange = attack(1)
    sizes = []
    for level in (0.1, 0.5, 1.0):
        step = POISONS[what](OWN, MATERIAL, level, strange, rng(0, what))
        assert step is not None
        assert step.label == "benign"
        sizes.append(sum(len(turn.text) + sum(len(c.arguments) for c in turn.tool_calls) for turn in step.turns))
    assert sizes == sorted(set(sizes))
    assert sizes[0] > sum(len(turn.text) + sum(len(c.arguments) for c in turn.tool_calls) for turn in OWN.turns)


def test_poison_by_words_never_says_more_than_half_of_the_attack_at_once() -> None:
    strange = attack(1)
    assert sentences(strange)[: len(ORDERS)] == list(ORDERS)
    step = POISONS["words"](OWN, MATERIAL, 1.0, strange, rng(0))
    assert step is not None
    said = "\n".join(turn.text for turn in step.turns)
    assert 1 <= sum(order in said for order in ORDERS) <= len(sentences(strange)) / 2


def test_what_cannot_be_poisoned_is_none() -> None:
    plain = session("t", 1, tools=False)
    assert POISONS["arguments"](plain, MATERIAL, 0.5, None, rng(0)) is None
    assert POISONS["words"](plain, MATERIAL, 0.5, None, rng(0)) is None
