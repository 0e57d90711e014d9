"""Corpus lines: what is tolerated, and which calls they stand for."""

import orjson
import pytest

from schemas.corpus import CorpusSession, ToolCall, Turn, calls, decode_session, is_session


def line(*turns: dict[str, object], **fields: object) -> bytes:
    return orjson.dumps({"session": "s", "turns": list(turns), **fields})


def test_each_assistant_turn_closes_one_call_and_every_call_carries_the_whole_history() -> None:
    session = CorpusSession(
        session="s",
        turns=(
            Turn("system", "be kind"),
            Turn("user", "weather?"),
            Turn("assistant", "", (ToolCall("weather", "{}"),)),
            Turn("tool", "sunny"),
            Turn("assistant", "Sunny."),
        ),
    )
    assert [(c.new, c.history, c.answered) for c in calls(session)] == [(0, 2, True), (3, 4, True)]


def test_trailing_messages_close_one_call_without_an_answer() -> None:
    session = CorpusSession(session="s", turns=(Turn("user", "a"), Turn("assistant", "b"), Turn("user", "c")))
    assert [(c.new, c.history, c.answered) for c in calls(session)] == [(0, 1, True), (2, 3, False)]


def test_session_without_an_assistant_turn_is_one_call_without_an_answer() -> None:
    session = CorpusSession(session="s", turns=(Turn("system", "a"), Turn("user", "b")))
    assert [(c.new, c.history, c.answered) for c in calls(session)] == [(0, 2, False)]


def test_session_without_turns_makes_no_call() -> None:
    assert calls(decode_session(b'{"turns": []}')) == []


def test_two_assistant_turns_in_a_row_close_a_call_each() -> None:
    session = CorpusSession(session="s", turns=(Turn("user", "a"), Turn("assistant", "b"), Turn("assistant", "c")))
    assert [(c.new, c.history) for c in calls(session)] == [(0, 1), (2, 2)]


def test_tool_call_without_name_or_arguments_is_kept_empty() -> None:
    session = decode_session(line({"role": "assistant", "text": "", "tool_calls": [{"name": None, "args": None}]}))
    assert session.turns[0].tool_calls == (ToolCall("", "{}"),)


def test_result_that_is_the_text_none_stays_text() -> None:
    session = decode_session(line({"role": "tool", "text": "None"}, {"role": "tool", "text": None}))
    assert [turn.text for turn in session.turns] == ["None", ""]


def test_arguments_that_are_text_already_stay_as_they_are() -> None:
    session = decode_session(line({"role": "assistant", "tool_calls": [{"name": "f", "args": "{'x': 1"}]}))
    assert session.turns[0].tool_calls == (ToolCall("f", "{'x': 1"),)


def test_missing_fields_are_none_and_a_nameless_session_is_named_by_its_content() -> None:
    session = decode_session(b'{"turns": [{"role": "user", "text": "hi"}]}')
    other = decode_session(b'{"turns": [{"role": "user", "text": "ho"}]}')
    assert (session.tenant, session.label, session.task, session.lang, session.model) == (None,) * 5
    assert session.session
    assert session.session != other.session


def test_names_that_are_numbers_are_names() -> None:
    session = decode_session(b'{"session": 12, "tenant": 5, "task": 0, "source": true, "turns": []}')
    assert (session.session, session.tenant, session.task, session.source) == ("12", "5", "0", None)


def test_what_python_s_json_writes_is_read() -> None:
    # Half of a surrogate pair has no character; two halves of one are the character.
    written = b'\xef\xbb\xbf{"score": NaN, "turns": [{"role": "user", "text": "a\\ud83d b \\ud83d\\ude00"}]}'
    assert decode_session(written).turns == (Turn("user", "a\ufffd b \U0001f600"),)
    assert is_session(written)
    with pytest.raises(ValueError, match="a corpus line must be a JSON object"):
        decode_session(b"[NaN]")


def test_a_label_is_read_in_any_case() -> None:
    assert decode_session(b'{"label": " Benign", "turns": []}').label == "benign"


@pytest.mark.parametrize("role", ["tool", "observation", "tool_result", "environment"])
def test_what_a_tool_returns_goes_by_several_names(role: str) -> None:
    assert decode_session(line({"role": role, "text": "x"})).turns[0].role == "tool"


def test_payload_counts_only_when_it_is_true() -> None:
    session = decode_session(line({"role": "user", "text": "a", "payload": True}, {"role": "user", "payload": "no"}))
    assert [turn.payload for turn in session.turns] == [True, False]


def test_numbers_that_no_64_bits_hold_are_kept_in_arguments_and_are_no_times() -> None:
    large = 2**64
    session = decode_session(
        b'{"turns": [{"role": "assistant", "tool_calls": [{"name": "f", "args": {"n": %d}}]}], "start_ms": %d, '
        b'"calls_ms": [%d, 5]}' % (large, large, large)
    )
    assert session.turns[0].tool_calls == (ToolCall("f", f'{{"n":{large}}}'),)
    assert (session.start_ms, session.calls_ms) == (None, (5,))


@pytest.mark.parametrize(
    "bad",
    [b"", b"[]", b"{", b'{"turns": 3}', b'{"messages": []}', b"[" * 5000, b'{"turns": [{"text": "\xff"}]}'],
)
def test_what_is_no_session_is_refused_with_what_was_required(bad: bytes) -> None:
    with pytest.raises(ValueError, match="a corpus line must be a JSON object with a list of turns; got"):
        decode_session(bad)


@pytest.mark.parametrize("other", [b'{"litellm_call_id": "x", "messages": []}', b'{"turns": "no"}', b"not json"])
def test_gateway_records_do_not_look_like_sessions(other: bytes) -> None:
    assert not is_session(other)
