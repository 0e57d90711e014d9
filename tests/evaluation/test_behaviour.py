"""Attacks of behaviour: what each changes in a real session, and what it leaves alone."""

from __future__ import annotations

import msgspec
import numpy as np
import orjson
import pytest

from evaluation.arrivals import rng
from evaluation.behaviour import (
    ASKED,
    BEHAVIOURS,
    FAMILY,
    FAST_CHARS,
    FLOOD_TIMES,
    LEAKS,
    LOOPS,
    SCRAPE_MS,
    SCRAPES,
    SLOW_CHARS,
    Material,
)
from schemas.corpus import CorpusSession, ToolCall, Turn, calls
from schemas.corpus_records import to_native
from tests.evaluation.talk import session

OWN = msgspec.structs.replace(session("t", 1), start_ms=1_000_000, key="k1")
MATERIAL = Material.of([session("t", number) for number in range(2, 9)])


def made(what: str, of: CorpusSession = OWN) -> list[CorpusSession]:
    return BEHAVIOURS[what](of, MATERIAL, rng(0, what))


def characters(one: CorpusSession) -> list[int]:
    """Of the arguments of each call."""
    return [len(call.arguments) for turn in one.turns for call in turn.tool_calls]


@pytest.mark.parametrize("what", BEHAVIOURS)
def test_every_attack_says_what_it_is_where_no_system_looks_and_keeps_tenant_and_key(what: str) -> None:
    attacks = made(what)
    assert attacks
    for one in attacks:
        assert (one.tenant, one.key, one.label, one.attack_family) == ("t", "k1", "attack", FAMILY + what)
        assert any(turn.payload for turn in one.turns)
        shown = orjson.dumps([to_native(one, call, 0) for call in calls(one)]).decode()
        assert not any(word in shown for word in ("payload", "attack", "behaviour", what))
    assert len({one.session for one in attacks} | {OWN.session}) == len(attacks) + 1
    assert attacks == made(what)


def test_a_stolen_key_says_the_same_from_elsewhere() -> None:
    (one,) = made("stolen_key")
    assert [turn.text for turn in one.turns] == [turn.text for turn in OWN.turns]
    before, after = (to_native(s, calls(s)[0], 0) for s in (OWN, one))
    assert before["key_hash"] == after["key_hash"]
    assert before["user_agent"] != after["user_agent"]
    assert before["ip"] != after["ip"]


def test_a_flood_has_ten_times_the_text_in_request_and_answers() -> None:
    (one,) = made("token_flood")

    def said(of: CorpusSession, call: int) -> tuple[int, int]:
        until = calls(of)[call].history
        return sum(len(turn.text) for turn in of.turns[:until]), len(of.turns[until].text)

    (own, _), (flooded, _) = said(OWN, 0), said(one, 0)
    assert flooded / own == pytest.approx(FLOOD_TIMES, rel=0.01)
    (_, own), (_, flooded) = said(OWN, -1), said(one, -1)
    assert flooded / own == pytest.approx(FLOOD_TIMES, rel=0.05)


def test_a_loop_makes_one_call_again_and_again_and_is_told_the_same() -> None:
    (one,) = made("tool_loop")
    assert len(calls(one)) == len(calls(OWN)) + LOOPS
    repeated = [turn for turn in one.turns if turn.payload and turn.role == "assistant"]
    assert len(repeated) == LOOPS
    assert len(set(repeated)) == 1


@pytest.mark.parametrize(("what", "chars"), [("exfiltration_fast", FAST_CHARS), ("exfiltration_slow", SLOW_CHARS)])
def test_each_call_of_an_exfiltration_carries_out_so_much(what: str, chars: int) -> None:
    (one,) = made(what)
    own = characters(OWN)
    longer = characters(one)[len(own) : len(own) + LEAKS]
    # The text, and the space before it, at the end of the last argument that is text.
    assert longer == [own[-1] + chars + 1] * LEAKS
    carried = [orjson.loads(c.arguments)["query"] for t in one.turns if t.payload for c in t.tool_calls]
    assert len(set(carried)) == LEAKS


def test_questions_about_the_prompt_come_after_the_session_one_by_one() -> None:
    (one,) = made("prompt_extraction")
    assert one.turns[: len(OWN.turns)] == OWN.turns
    asked = [turn.text for turn in one.turns if turn.payload]
    assert len(set(asked)) == len(asked) == ASKED == len(calls(one)) - len(calls(OWN))


def test_a_scraper_asks_with_one_word_changed_every_few_seconds() -> None:
    requests = made("scraping")
    assert len(requests) == SCRAPES
    assert np.diff([one.start_ms or 0 for one in requests]).tolist() == [SCRAPE_MS] * (SCRAPES - 1)
    texts = [next(turn.text for turn in one.turns if turn.payload).split() for one in requests]
    different = [sum(a != b for a, b in zip(texts[0], text, strict=True)) for text in texts[1:]]
    assert max(different) == 1


def test_without_tool_calls_there_is_no_loop_and_nothing_to_carry_out() -> None:
    plain = session("t", 1, tools=False)
    assert [what for what in BEHAVIOURS if not made(what, plain)] == [
        "tool_loop",
        "exfiltration_fast",
        "exfiltration_slow",
    ]


def test_odd_sessions_are_left_out_or_survived() -> None:
    silent = CorpusSession(session="s", tenant="t", turns=(Turn("assistant", "", (ToolCall("", "{}"),)),))
    odd = CorpusSession(
        session="s", tenant="t", turns=(Turn("user", "x"), Turn("assistant", "", (ToolCall("f", "[1"),)), Turn("tool"))
    )
    for what in BEHAVIOURS:
        for one in (silent, odd):
            assert all(calls(attack) for attack in BEHAVIOURS[what](one, Material((), ()), rng(0)))
