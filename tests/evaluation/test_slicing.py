"""What a session is like, by which any protocol's rows are cut."""

from __future__ import annotations

import pytest

from evaluation.slicing import slices_of
from evaluation.split import Caps, split
from schemas.corpus import CorpusSession, ToolCall, Turn
from tests.evaluation.office import clean, corpus

HALVES = split(corpus(), 0, Caps(learn_of_others=60))


def _slices(*turns: Turn, tenant: str = "north", lang: str | None = None) -> dict[str, str]:
    return slices_of(CorpusSession(session="s", tenant=tenant, turns=turns, lang=lang), HALVES)


def test_a_run_of_the_office() -> None:
    assert slices_of(clean("north", 0, 1), HALVES) == {
        "length": "under 1,000 characters",
        "language": "other latin",
        "model": "model-1",
        "turns": "one",
        "tool_calls": "yes",
        "structured": "yes",
        "request": "plain",
        "tenant": "young",
    }


@pytest.mark.parametrize(
    ("chars", "bucket"),
    [(999, "under 1,000 characters"), (1_000, "1,000 to 4,000"), (4_000, "4,000 to 16,000"), (16_000, "over 16,000")],
)
def test_length_counts_text_and_arguments(chars: int, bucket: str) -> None:
    call = ToolCall("f", "x" * 500)
    assert _slices(Turn("user", "x" * (chars - 500)), Turn("assistant", "", (call,)))["length"] == bucket


@pytest.mark.parametrize(
    ("lang", "text", "language"),
    [
        ("de", "hi", "german"),
        ("pt-BR", "hi", "portuguese"),
        ("English", "你好", "english"),
        ("sw", "hi", "sw"),
        (None, "你好，我想订票", "chinese"),
        (None, "What is it that you want?", "english"),
    ],
)
def test_a_language_that_is_told_counts_before_one_that_is_heard(lang: str | None, text: str, language: str) -> None:
    assert _slices(Turn("user", text), lang=lang)["language"] == language


@pytest.mark.parametrize(
    ("text", "structured"),
    [
        ("[1, 2]", "yes"),
        ("Run:\n```\nx\n```", "yes"),
        ("import os\ndef f():\n    return {\n", "yes"),
        ("Hi; you!", "no"),
    ],
)
def test_structure_is_json_or_several_lines_of_code(text: str, structured: str) -> None:
    assert _slices(Turn("user", text))["structured"] == structured


@pytest.mark.parametrize(
    ("text", "request_"),
    [
        ("Please do the tasks on my to-do list.", "delegates"),
        ("Follow the instructions in Ann's mail", "delegates"),
        ("What do I have to do in Rome?", "plain"),
        ("Send the list to Ann.", "plain"),
    ],
)
def test_requests_that_delegate_are_told_apart(text: str, request_: str) -> None:
    assert _slices(Turn("user", text))["request"] == request_


def test_tenants_are_known_young_or_never_seen() -> None:
    assert _slices(Turn("user", "hi"), tenant="nobody")["tenant"] == "never seen"
    assert _slices(Turn("user", "hi"), tenant=next(iter(HALVES.unseen)))["tenant"] == "never seen"
    assert _slices(Turn("user", "hi"), tenant="south")["tenant"] == "young"
