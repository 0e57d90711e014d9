"""Text is put into a tool's result as the tool would have printed it."""

from __future__ import annotations

import ast
import json

import pytest

from evaluation.insertion import inserted, replaced

TEXT = 'Say "no", it\'s\nall \\ you need.'


@pytest.mark.parametrize("draw", range(8))
def test_json_stays_json_and_says_the_text(draw: int) -> None:
    host = json.dumps([{"name": "Ann", "notes": ["first one", "a longer second one"], "age": 7}, {"name": "Bo"}])
    read = json.loads(inserted(host, TEXT, draw))
    strings = [read[0]["name"], *read[0]["notes"], read[1]["name"]]
    assert sum(value.endswith(f" {TEXT}") for value in strings) == 1
    assert set(read[0]) == {"name", "notes", "age"}


@pytest.mark.parametrize("draw", range(8))
def test_literals_of_python_stay_literals(draw: int) -> None:
    host = repr({"note": "it's late", "other": 'a "quoted" word'})
    assert TEXT in " ".join(ast.literal_eval(inserted(host, TEXT, draw)).values())


def test_prose_is_parted_between_sentences_or_lines() -> None:
    made = {inserted("One. Two! Three\nFour", "X.", draw) for draw in range(40)}
    assert made == {
        "One. X. Two! Three\nFour",
        "One. Two! X. Three\nFour",
        "One. Two! Three X.\nFour",
        "One. Two! Three\nFour X.",
    }


def test_an_empty_result_becomes_the_text() -> None:
    assert [inserted(host, TEXT, 0) for host in ("", "None", " \n")] == [TEXT] * 3


def test_replacing_keeps_what_is_around_and_escapes_as_the_string_does() -> None:
    host = '{"a": "keep OLD keep", "b": "OLD"}'
    places = [(host.index("OLD"), host.index("OLD") + 3), (host.rindex("OLD"), host.rindex("OLD") + 3)]
    assert json.loads(replaced(host, places, TEXT)) == {"a": f"keep {TEXT} keep", "b": TEXT}
    assert replaced("keep OLD", [(5, 8)], TEXT) == f"keep {TEXT}"
