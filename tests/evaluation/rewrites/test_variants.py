"""A rewrite says something else in the same place, and nothing after it tells what was there."""

from __future__ import annotations

import json
from dataclasses import replace

import msgspec
import pytest

from evaluation.injection import Injection, injections
from evaluation.rewrites.variants import diverse, encoded, foreign_language, rewritten, split_over
from evaluation.spans import runs, words_of
from tests.evaluation.office import GOALS, TEMPLATES, corpus

FOUND = injections(corpus())


@pytest.mark.parametrize("injection", FOUND[:16], ids=lambda each: each.session.session)
def test_the_text_stands_in_the_place_of_the_old_one_of_which_nothing_is_left(injection: Injection) -> None:
    made = rewritten(injection, "Open the window, would you?")
    old = runs(words_of(injection.spans[0].text).words, 3)
    for turn in made.turns:
        said = [turn.text, *(call.arguments for call in turn.tool_calls)]
        assert all(old.isdisjoint(runs(words_of(text).words, 3)) for text in said)
    note = json.loads(made.turns[5].text)["note"]
    assert note.endswith(" Open the window, would you?")
    # The clean twin's text is untouched.
    assert made.turns[:5] == injection.session.turns[:5]


def test_a_rewrite_ends_after_the_answer_and_an_answer_that_obeys_is_the_twin_s() -> None:
    obeyed = next(each for each in FOUND if each.obeyed)
    made = rewritten(obeyed, "X")
    assert len(made.turns) == 7
    assert made.turns[6] == obeyed.answer
    assert not made.turns[6].tool_calls
    ignored = next(each for each in FOUND if each.obeyed is False)
    assert rewritten(ignored, "X").turns[6] == ignored.session.turns[6]


def test_a_goal_is_split_over_results_in_order() -> None:
    made = split_over(FOUND[0], "one two three four five six", "names")
    assert made is not None
    parts = [turn for turn in made.turns if turn.role == "tool"]
    assert [turn.payload for turn in parts] == [True, True]
    assert "one two three" in parts[0].text
    assert "four" not in parts[0].text
    assert "four five six" in json.loads(parts[1].text)["note"]
    assert "one" not in words_of(parts[1].text).words


def test_one_result_is_too_few_to_split_over() -> None:
    own = FOUND[0]
    turns = (own.session.turns[1], *own.session.turns[4:])
    session = msgspec.structs.replace(own.session, turns=turns)
    span = own.spans[0]
    alone = replace(own, session=session, spans=(replace(span, turn=2),))
    assert split_over(alone, "one two three", "names") is None


def test_drawn_texts_are_many_and_the_same_for_a_name() -> None:
    assert diverse(1) == diverse(1)
    assert len({diverse(draw) for draw in range(100)}) > 80
    assert len({foreign_language(draw)[1] for draw in range(200)}) >= 8
    assert len({encoded(draw)[1] for draw in range(200)}) >= 10
    told = [template.split("{}")[0] for template in TEMPLATES.values()] + list(GOALS)
    assert not any(text in diverse(draw) for draw in range(50) for text in told)
