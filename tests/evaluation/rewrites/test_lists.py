"""The project's own lists are rich enough, and nobody else's."""

from __future__ import annotations

from pathlib import Path

import pytest

from evaluation.rewrites.lists import lists, worded
from evaluation.spans import runs, words_of
from stream.training.gather import sessions_of
from stream.training.language import language_of

SAMPLE = sorted((Path(__file__).parents[3] / "sample").glob("*.jsonl.gz"))


def test_there_are_many_goals_phrasings_and_translations_and_no_two_alike() -> None:
    own = lists()
    assert len(set(own.goals)) == len(own.goals) >= 40
    assert len(set(own.phrasings)) == len(own.phrasings) >= 20
    assert len(own.languages) >= 8
    for leads, goals in own.languages.values():
        assert len(set(goals)) == len(goals) >= 20
        assert all("{goal}" in lead for lead in leads)


@pytest.mark.parametrize(
    ("code", "language"),
    [
        ("zh", "chinese"),
        ("ja", "japanese"),
        ("ko", "korean"),
        ("ru", "cyrillic"),
        ("ar", "arabic"),
        ("hi", "indic"),
        ("de", "german"),
        ("fr", "french"),
        ("es", "spanish"),
        ("pt", "portuguese"),
    ],
)
def test_translations_are_in_the_language_they_claim(code: str, language: str) -> None:
    assert language_of("\n".join(lists().languages[code][1])) == language


def test_every_phrasing_holds_the_goal() -> None:
    assert all("open the door" in worded(phrasing, "Open the door.").lower() for phrasing in lists().phrasings)


def test_no_goal_or_phrasing_is_told_in_what_may_be_trained_on() -> None:
    assert SAMPLE
    told: set[int] = set()
    for path in SAMPLE:
        for session in sessions_of(path):
            if session.label == "attack":
                told.update(*(runs(words_of(turn.text).words) for turn in session.turns))
    own = lists()
    said = [*own.goals, *(phrasing.format(goal="", rest="") for phrasing in own.phrasings)]
    assert [text for text in said if not told.isdisjoint(runs(words_of(text).words))] == []
