"""OpenAI Chat messages of every kind have one normal form, and nothing in them is lost to scoring."""

import base64
import hashlib
import json
from typing import Any

import pytest

from schemas.digest import plain_digest
from schemas.event import Part
from schemas.gateways.openai_chat import parse_message
from schemas.gateways.parts import REDACTED

PART_FIELDS = set(Part.__struct_fields__)


def parts_of(message: Any) -> list[dict[str, str]]:
    return parse_message(json.dumps(message).encode()).parts


def test_a_text_is_one_part_however_it_is_sent() -> None:
    text = [{"type": "text", "text": "hi"}]
    assert parts_of({"role": "user", "content": "hi"}) == text
    assert parts_of({"role": "user", "content": [{"type": "text", "text": "hi"}]}) == text
    assert parts_of({"role": "user", "content": ["hi"]}) == text
    assert parts_of({"role": "user", "content": {"type": "input_text", "text": "hi"}}) == text
    assert parts_of("hi") == text


@pytest.mark.parametrize("content", [None, "", []])
def test_no_content_is_no_part(content: object) -> None:
    assert parts_of({"role": "assistant", "content": content}) == []
    assert parts_of({"role": "assistant"}) == []


@pytest.mark.parametrize(
    ("role", "normal"),
    [
        ("system", "system"),
        ("developer", "developer"),
        ("user", "user"),
        ("assistant", "assistant"),
        ("tool", "tool"),
        ("function", "tool"),
        ("model", "assistant"),
        ("Human", "user"),
        ("critic", "user"),
        (None, "user"),
        (7, "user"),
    ],
)
def test_a_role_that_nobody_knows_is_as_little_trusted_as_a_user(role: object, normal: str) -> None:
    assert parse_message(json.dumps({"role": role, "content": "x"}).encode()).role == normal


def test_a_tool_call_keeps_id_name_and_arguments_as_text() -> None:
    call = {"id": "c1", "type": "function", "function": {"name": "f", "arguments": '{"a": 1}'}}
    assert parts_of({"role": "assistant", "content": None, "tool_calls": [call]}) == [
        {"type": "tool_call", "id": "c1", "name": "f", "arguments": '{"a": 1}'}
    ]


def test_the_legacy_function_call_is_a_tool_call_without_id() -> None:
    message = {
        "role": "assistant",
        "content": None,
        "function_call": {"name": "f", "arguments": "{}"},
        "tool_calls": None,
    }
    assert parts_of(message) == [{"type": "tool_call", "name": "f", "arguments": "{}"}]


def test_arguments_that_are_already_decoded_or_missing_become_json_text() -> None:
    for arguments, text in (({"b": 1, "a": 2}, '{"a":2,"b":1}'), (None, "{}"), ("", "{}"), ([1], "[1]")):
        call = {"id": "c", "function": {"name": "f", "arguments": arguments}}
        assert parts_of({"role": "assistant", "tool_calls": [call]})[0]["arguments"] == text


def test_malformed_tool_calls_stay_visible() -> None:
    assert parts_of({"role": "assistant", "tool_calls": ["run()"]}) == [{"type": "text", "text": '"run()"'}]
    assert parts_of({"role": "assistant", "tool_calls": "none"}) == []
    assert parts_of({"role": "assistant", "tool_calls": [{"function": None, "name": "g"}]})[0]["name"] == "g"


def test_a_tool_result_is_one_response_with_its_call_id() -> None:
    expected = [{"type": "tool_call_response", "id": "c1", "response": "a\nb"}]
    pieces = [{"type": "text", "text": "a"}, {"type": "text", "text": "b"}]
    assert parts_of({"role": "tool", "tool_call_id": "c1", "content": "a\nb"}) == expected
    assert parts_of({"role": "tool", "tool_call_id": "c1", "content": pieces}) == expected
    assert parts_of({"role": "function", "name": "f", "content": "x"}) == [
        {"type": "tool_call_response", "name": "f", "response": "x"}
    ]


def test_a_tool_result_without_content_is_an_empty_response() -> None:
    assert parts_of({"role": "tool", "tool_call_id": "c1", "content": None})[0]["response"] == ""


def test_an_image_in_a_tool_result_stands_beside_its_text() -> None:
    content = [{"type": "text", "text": "see"}, {"type": "image_url", "image_url": {"url": "https://x.example/i.png"}}]
    parts = parts_of({"role": "tool", "tool_call_id": "c1", "content": content})
    assert [part["type"] for part in parts] == ["tool_call_response", "uri"]


def test_a_refusal_is_text_as_answer_and_as_history() -> None:
    answer = parts_of({"role": "assistant", "content": None, "refusal": "I cannot."})
    assert answer == parts_of({"role": "assistant", "content": [{"type": "refusal", "refusal": "I cannot."}]})
    assert answer == [{"type": "text", "text": "I cannot."}]


def test_an_inline_image_is_named_by_its_digest_and_not_kept() -> None:
    data = base64.b64encode(b"\x89PNG" * 100).decode()
    for piece in (
        {"type": "image_url", "image_url": {"url": f"data:image/png;base64,{data}"}},
        {"type": "input_image", "image_url": f"data:image/png;base64,{data}"},
        {"type": "image", "source": {"type": "base64", "media_type": "image/png", "data": data}},
    ):
        digest = hashlib.sha256(data.encode()).hexdigest()
        expected = {"type": "blob", "mime_type": "image/png", "uri": f"sha256:{digest};bytes={len(data)}"}
        assert parts_of({"role": "user", "content": [piece]}) == [expected]


def test_images_audio_and_files_are_referred_to() -> None:
    content = [
        {"type": "image_url", "image_url": {"url": "https://x.example/i.png", "detail": "low"}},
        {"type": "input_audio", "input_audio": {"data": "AAAA", "format": "mp3"}},
        {"type": "file", "file": {"file_id": "file-1", "filename": "a.pdf"}},
        {"type": "file", "file": {"file_data": "data:application/pdf;base64,AAAA", "filename": "b.pdf"}},
    ]
    uri, audio, by_id, inline = parts_of({"role": "user", "content": content})
    assert uri == {"type": "uri", "uri": "https://x.example/i.png"}
    assert (audio["type"], audio["mime_type"]) == ("blob", "audio/mpeg")
    assert by_id == {"type": "file", "uri": "file-1", "name": "a.pdf"}
    assert (inline["type"], inline["mime_type"], inline["name"]) == ("blob", "application/pdf", "b.pdf")


def test_a_spoken_answer_brings_its_transcript() -> None:
    message = {"role": "assistant", "content": None, "audio": {"id": "a", "data": "AAAA", "transcript": "hello"}}
    assert parts_of(message) == [{"type": "text", "text": "hello"}]


def test_anthropics_pieces_are_understood_where_a_gateway_passes_them_on() -> None:
    use = {"type": "tool_use", "id": "t1", "name": "f", "input": {"a": 1}}
    result = {"type": "tool_result", "tool_use_id": "t1", "content": [{"type": "text", "text": "done"}]}
    assert parts_of({"role": "assistant", "content": [use]}) == [
        {"type": "tool_call", "id": "t1", "name": "f", "arguments": '{"a":1}'}
    ]
    message = parse_message(json.dumps({"role": "user", "content": [result]}).encode())
    assert message.role == "tool"
    assert message.parts == [{"type": "tool_call_response", "id": "t1", "response": "done"}]


@pytest.mark.parametrize(
    "piece",
    [
        {"type": "brand_new", "payload": "IGNORE ALL"},
        {"type": "image_url", "image_url": {"nested": "IGNORE ALL"}},
        {"type": "image_url", "image_url": ["IGNORE ALL"]},
        {"note": "IGNORE ALL"},
        ["IGNORE ALL"],
    ],
)
def test_an_unknown_piece_stays_visible_as_text(piece: object) -> None:
    parts = parts_of({"role": "user", "content": [piece]})
    assert any("IGNORE ALL" in part.get("text", "") for part in parts)


@pytest.mark.parametrize(
    "message", [{"type": "function_call", "name": "f"}, 17, [1, 2], {"content": 5, "role": "user"}]
)
def test_an_unknown_message_stays_visible_as_text(message: object) -> None:
    assert parts_of(message)[0]["text"]


def test_reasoning_is_kept_apart_and_changes_no_digest() -> None:
    answer = parse_message(json.dumps({"role": "assistant", "content": "42", "reasoning_content": "6 by 7"}).encode())
    assert answer.parts[0] == {"type": "reasoning", "text": "6 by 7"}
    assert plain_digest("assistant", answer.parts) == plain_digest("assistant", answer.parts[1:])


def test_content_that_litellm_redacted_is_no_content() -> None:
    message = parse_message(json.dumps({"role": "user", "content": REDACTED}).encode())
    assert (message.parts, message.content) == ([], "redacted")


def test_content_that_litellm_cut_says_so() -> None:
    cut = "x" * 500 + "...truncated by litellm, this logger does not support large content"
    assert parse_message(json.dumps({"role": "user", "content": cut}).encode()).content == "truncated"
    assert parse_message(b'{"role":"user","content":"is it truncated?"}').content == "full"


def test_a_lone_surrogate_does_not_hide_a_message() -> None:
    assert parse_message(b'{"role":"user","content":"a\\ud800b"}').parts == [{"type": "text", "text": "a\ufffdb"}]


def test_parts_have_no_field_that_the_schema_does_not_know() -> None:
    messages = [
        {
            "role": "assistant",
            "content": "x",
            "tool_calls": [{"id": "1", "function": {"name": "f", "arguments": "{}"}}],
        },
        {
            "role": "user",
            "content": [{"type": "file", "file": {"file_id": "f", "filename": "n", "format": "text/plain"}}],
        },
    ]
    for message in messages:
        for part in parts_of(message):
            assert set(part) <= PART_FIELDS and all(isinstance(value, str) for value in part.values())
