"""Native records: an event without what ingest fills in."""

import json
from typing import Any

import pytest

from schemas.gateways.call import GatewayCall, Unreadable
from schemas.gateways.native import Native


def record(**changes: Any) -> dict[str, Any]:
    whole: dict[str, Any] = {
        "event_time_ms": 1795304819828,
        "tenant": "team-42",
        "session": "s1",
        "key_hash": "88dc",
        "messages": [{"role": "user", "parts": [{"type": "text", "text": "hi"}]}],
        "output": [{"role": "assistant", "parts": [{"type": "text", "text": "hello"}]}],
        "tools": ["search"],
        "prompt_tokens": 7,
        "stream": False,
    }
    whole.update(changes)
    return {name: value for name, value in whole.items() if value is not ...}


def decoded(**changes: Any) -> GatewayCall:
    (call,) = Native().decode(json.dumps(record(**changes)).encode())
    return call


def test_fields_are_taken_as_they_are() -> None:
    call = decoded()
    assert (call.tenant, call.session, call.session_source, call.key_hash) == ("team-42", "s1", "gateway", "88dc")
    assert (call.event_time_ms, call.prompt_tokens, call.stream, call.tools) == (1795304819828, 7, False, ("search",))
    assert call.parse(call.output[0]).parts == [{"type": "text", "text": "hello"}]
    assert (call.content_state, call.history_complete) == ("full", True)


def test_time_and_messages_suffice() -> None:
    (call,) = Native().decode(b'{"event_time_ms": 0, "messages": []}')
    assert (call.event_time_ms, call.messages, call.output, call.tenant, call.session) == (0, [], [], None, None)
    assert call.content_state == "redacted"


def test_an_event_id_of_64_hex_digits_is_kept_and_another_one_named() -> None:
    assert decoded(event_id="ab" * 32).event_id == "ab" * 32
    named = decoded(event_id="req-1")
    assert (named.event_id, named.identity) == (None, ("req-1",))


def test_trace_and_span_name_a_call_that_has_no_id() -> None:
    assert decoded(trace_id="t", span_id="s").identity == ("t", "s")
    assert decoded(trace_id="t").identity is None
    assert decoded().identity is None


def test_without_a_session_the_trace_is_it() -> None:
    call = decoded(session=..., trace_id="t")
    assert (call.session, call.session_source) == ("t", "trace")


def test_opentelemetrys_names_of_parts_are_understood() -> None:
    parts = [
        {"type": "text", "content": "a"},
        {"type": "tool_call", "id": "c", "name": "f", "arguments": {"b": 1, "a": 2}},
        {"type": "tool_call_response", "id": "c", "result": {"rows": 1}},
        {"type": "tool_call_response", "id": "d", "response": None},
        {"type": "blob", "mime_type": "image/png", "content": ""},
    ]
    call = decoded(messages=[{"role": "assistant", "parts": parts}])
    assert call.parse(call.messages[0]).parts == [
        {"type": "text", "text": "a"},
        {"type": "tool_call", "id": "c", "name": "f", "arguments": '{"a":2,"b":1}'},
        {"type": "tool_call_response", "id": "c", "response": '{"rows":1}'},
        {"type": "tool_call_response", "id": "d", "response": ""},
        {"type": "blob", "mime_type": "image/png"},
    ]


def test_an_openai_chat_message_will_do() -> None:
    call = decoded(messages=[{"role": "user", "content": "hi"}])
    assert call.parse(call.messages[0]).parts == [{"type": "text", "text": "hi"}]


def test_empty_parts_are_no_parts() -> None:
    call = decoded(messages=[{"role": "user", "parts": [{"type": "text", "text": ""}, {"type": "text"}]}])
    assert call.parse(call.messages[0]).parts == []


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"event_time_ms": "now"}, r"\$\.event_time_ms must be ms"),
        ({"event_time_ms": None}, r"\$\.event_time_ms must be ms"),
        ({"event_time_ms": -1}, r"\$\.event_time_ms must be ms"),
        ({"event_time_ms": 1e20}, r"\$\.event_time_ms must be ms"),
        ({"messages": "hi"}, r"\$\.messages must be a list of messages; got a text"),
        ({"messages": {}}, r"\$\.messages must be a list of messages; got an object"),
        ({"output": 5}, r"\$\.output must be a list of messages; got the number 5$"),
    ],
)
def test_a_wrong_field_is_named(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(Unreadable, match=message) as caught:
        decoded(**changes)
    assert caught.value.reason == "schema"


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ("hi", "must be an object"),
        ({"role": "robot", "parts": []}, "role must be one of"),
        ({"role": "user", "parts": {}}, "parts must be a list"),
        ({"role": "user", "parts": ["hi"]}, "type must be one of"),
        ({"role": "user", "parts": [{"type": "smell"}]}, "type must be one of"),
        ({"role": ["user"], "parts": []}, "role must be one of"),
        ({"role": "user", "parts": [{"type": ["text"]}]}, "type must be one of"),
    ],
)
def test_a_wrong_message_is_told(wrong: Any, message: str) -> None:
    call = decoded(messages=[wrong])
    with pytest.raises(Unreadable, match=message):
        call.parse(call.messages[0])


@pytest.mark.parametrize("absent", [..., None])
def test_absent_messages_are_no_error(absent: Any) -> None:
    call = decoded(messages=absent)
    assert (call.messages, call.content_state) == ([], "redacted")


def test_no_event_time_means_another_format() -> None:
    with pytest.raises(Unreadable) as caught:
        Native().decode(b'{"messages": []}')
    assert caught.value.reason == "unknown_format"


def test_optional_fields_of_odd_types_become_none() -> None:
    call = decoded(user=5, ip=[], stream="yes", cost_usd=float("nan"), tools="x", status="odd", content_state="odd")
    assert (call.user, call.ip, call.stream, call.cost_usd, call.tools) == ("5", None, None, None, ())
    assert (call.status, call.content_state) == ("success", "full")


def test_what_the_gateway_says_of_its_content_stands() -> None:
    call = decoded(content_state="truncated", history_complete=False, status="failure")
    assert (call.content_state, call.history_complete, call.status) == ("truncated", False, "failure")


def test_a_record_that_had_to_be_repaired_is_read_or_refused_like_any_other() -> None:
    (call,) = Native().decode(b'{"event_time_ms": 1, "messages": [], "cost_usd": NaN, "user": "a\\ud800"}')
    assert (call.cost_usd, call.user) == (None, "a\ufffd")
    for value in (b"[]", b"[NaN]"):
        with pytest.raises(Unreadable, match="not a native record") as caught:
            Native().decode(value)
        assert caught.value.reason == "schema"
