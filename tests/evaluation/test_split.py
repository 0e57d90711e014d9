"""No conversation lies in both halves, whoever holds it, and some sources nobody learns."""

from __future__ import annotations

import msgspec

from evaluation.split import Caps, base_of, source_groups, split
from tests.evaluation.office import chat, clean, corpus


def test_no_conversation_is_in_both_halves_whichever_tenant_holds_it() -> None:
    made = corpus()
    # The tasks of two tenants are the same ones.
    for seed in range(5):
        halves = split(made, seed)
        tested = {base_of(s) for own in halves.test.values() for s in own}
        assert tested.isdisjoint(halves.learn_bases)
        assert {base_of(s) for s in halves.learn} <= halves.learn_bases
        assert len({base_of(s) for s in halves.learn if s.tenant == "north"}) == 4


def test_halves_are_the_same_for_a_seed_and_others_for_another() -> None:
    made = corpus()
    assert split(made, 1) == split(made, 1)
    assert split(made, 1).learn_bases != split(made, 2).learn_bases


def test_whole_sources_are_left_out_in_turn_and_never_those_with_injections() -> None:
    made = corpus()
    left_out = [set(split(made, seed).unseen) for seed in range(6)]
    # Four sources could be; one of four is a quarter. `talk` has two of seven tenants.
    assert set().union(*left_out) == {"east", "west", "far", "near", "old"}
    assert all(own in ({"east", "west"}, {"far"}, {"near"}, {"old"}) for own in left_out)
    for seed, own in enumerate(left_out):
        assert own.isdisjoint(split(made, seed).learned)
        assert own.isdisjoint(split(made, seed).test)


def test_sources_that_share_a_tenant_are_one() -> None:
    made = corpus([chat("a", 0, "one"), chat("b", 0, "two"), chat("b", 1, "one"), chat("c", 0, "three")])
    assert source_groups(made) == [["a", "b"], ["c"]]


def test_learning_is_capped_and_takes_as_many_tasks_as_there_are() -> None:
    halves = split(corpus(), 0, Caps(learn_of_tasks=4, learn_of_others=3, learn_of_young=2))
    of_north = [s for s in halves.learn if s.tenant == "north"]
    assert len({base_of(s) for s in of_north}) == len(of_north) == 4
    assert max(count for tenant, count in halves.learned.items() if tenant not in ("north", "south")) == 3


def test_conversations_without_a_task_are_told_apart_by_their_opening() -> None:
    one, other = chat("a", 0, "one"), chat("b", 0, "one")
    assert base_of(one) != base_of(other)
    again = chat("a", 0, "two")
    assert base_of(again) == base_of(one)
    assert base_of(clean("north", 3, 0)) == base_of(clean("south", 3, 1))


def test_an_attack_is_judged_unless_its_task_is_learned() -> None:
    made = corpus()
    halves = split(made, 0)
    judged = [s for s in made.placed["north"] if halves.tests(s)]
    # Four of eight tasks, two templates and four goals each.
    assert len(judged) == 4 * 2 * 4


def test_one_of_the_sources_that_are_left_out_has_tools_that_return_something() -> None:
    sessions = [chat(tenant, run, f"of {tenant}") for tenant in ("a", "b", "c", "tools") for run in (0, 1)]
    made = [
        s if s.tenant == "tools" else msgspec.structs.replace(s, turns=[t for t in s.turns if t.role != "tool"])
        for s in sessions
    ]
    for seed in range(4):
        assert "tools" in split(corpus(made), seed).unseen
