"""Harmless text comes from whom nobody learned, is foreign to its host, and as long as asked."""

from __future__ import annotations

from evaluation.harmless import Harmless
from evaluation.split import Split, split
from schemas.corpus import CorpusSession
from tests.evaluation.office import clean, corpus

HOST = clean("north", 0, 0)


def _halves(*, unlearned: bool = True) -> Split:
    made = corpus()
    if not unlearned:
        # One source alone is more than a third of all tenants.
        made = corpus([s for s in made.sessions if s.source in ("office", "talk", "asked")])
    return split(made, 0)


def _say(own: CorpusSession, role: str, text: str) -> bool:
    said = "\n".join(turn.text for turn in own.turns if turn.role == role)
    return text.partition("\n")[0] in said


def test_unseen_text_is_of_tenants_that_are_not_learned() -> None:
    halves = _halves()
    sessions = [s for own in halves.unseen.values() for s in own]
    for draw in range(10):
        for role in ("user", "tool"):
            text = Harmless(halves).unseen(role, 60, HOST, draw)
            assert any(_say(s, role, text) for s in sessions)


def test_foreign_text_is_of_no_tenant_that_shares_the_host_s_tasks() -> None:
    halves = _halves()
    own = [s for tenant in ("north", "south") for s in halves.test[tenant]]
    for draw in range(20):
        assert not any(_say(s, "tool", Harmless(halves).foreign("tool", 60, HOST, draw)) for s in own)


def test_without_a_source_that_could_be_left_out_unlearned_sessions_of_others_serve() -> None:
    halves = _halves(unlearned=False)
    harmless = Harmless(halves)
    text = harmless.unseen("tool", 60, HOST, 0)
    assert any(_say(s, "tool", text) for tenant in ("east", "west") for s in halves.test[tenant])
    session = harmless.session(HOST, 0)
    assert session is not None
    assert session in halves.test["east"] + halves.test["west"]
    assert harmless.of_learned == 2


def test_text_is_as_long_as_asked_whether_that_is_less_than_a_message_or_more() -> None:
    harmless = Harmless(_halves())
    for chars in (40, 300, 900):
        # A cut between words or sentences takes away a quarter at the most.
        assert 0.7 * chars <= len(harmless.unseen("user", chars, HOST, chars)) <= chars


def test_where_nobody_else_says_anything_there_is_no_text() -> None:
    made = corpus([clean("north", task, run) for task in range(4) for run in range(2)])
    harmless = Harmless(split(made, 0))
    assert harmless.foreign("tool", 50, HOST) == harmless.unseen("user", 50, HOST) == ""
    assert harmless.session(HOST) is None
