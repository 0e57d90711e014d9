"""Messages are read once, and records that would hurt a decoder never reach it."""

import json
import tracemalloc

import pytest

from schemas.gateways import native, openai_chat
from schemas.gateways.call import Unreadable
from schemas.gateways.detect import Auto
from stream.errors import DecodeError
from stream.steps.decode_gateway import MessageCache, check_structure, decode_record
from stream.steps.redact import Redactor
from tests.schemas.litellm_payload import written
from tests.schemas.otlp_record import otlp, otlp_protobuf, span

PARSE = openai_chat.parse_message


def user(text: str) -> bytes:
    return json.dumps({"role": "user", "content": text}).encode()


def cache(bytes_max: int = 1 << 20) -> MessageCache:
    return MessageCache(Redactor("standard"), bytes_max)


def test_a_message_seen_before_is_not_read_again() -> None:
    messages = cache()
    history = [user(f"message {i}") for i in range(10)]
    for length in range(1, 11):
        messages.ready(history[:length], PARSE)
    assert messages.misses == 10
    assert messages.ready(history, PARSE)[3] is messages.ready(history, PARSE)[3]


def test_a_remembered_message_keeps_its_redaction_and_counts() -> None:
    messages = cache()
    first, again = (messages.ready([user("to ann@example.org")], PARSE)[0] for _ in range(2))
    assert first == again
    assert dict(again.counts) == {"email": 1}
    assert json.loads(again.json) == {
        "digest": again.digest,
        "parts": [{"text": "to [EMAIL]", "type": "text"}],
        "role": "user",
    }


def test_the_same_bytes_may_mean_another_message_in_another_dialect() -> None:
    raw = b'{"role":"user","parts":[{"type":"text","text":"hi"}]}'
    messages = cache()
    (chat,) = messages.ready([raw], openai_chat.parse_message)
    (own,) = messages.ready([raw], native.parse_message)
    assert (chat.empty, own.empty) == (True, False)
    assert messages.ready([raw], openai_chat.parse_message) == [chat]


def test_what_is_forgotten_is_read_again_with_the_same_result() -> None:
    small, large = cache(20_000), cache()
    raws = [user(f"message {i} to ann@example.org") for i in range(200)] * 2
    assert small.ready(raws, PARSE) == large.ready(raws, PARSE)
    assert small.misses > large.misses == 200
    assert small.entries < 50


def test_a_message_in_use_outlives_the_ones_that_nobody_asks_for() -> None:
    messages = cache(100_000)
    kept = user("the system prompt")
    messages.ready([kept], PARSE)
    for i in range(1_000):
        messages.ready([kept, user(f"message {i}")], PARSE)
    assert messages.misses == 1_001


def test_memory_levels_off() -> None:
    messages = cache(1 << 20)
    tracemalloc.start()
    try:
        for i in range(5_000):
            messages.ready([user(f"message {i} " + "x" * 500)], PARSE)
        held, _ = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert held < 1.5 * (1 << 20)


def test_a_huge_message_is_read_and_not_kept() -> None:
    messages = cache()
    messages.ready([user("x" * 300_000)], PARSE)
    assert messages.entries == 0


def test_an_unreadable_message_is_told_every_time() -> None:
    messages = cache()
    for _ in range(2):
        with pytest.raises(Unreadable):
            messages.ready([b"{broken"], PARSE)


def test_names_of_files_and_addresses_are_redacted_and_those_of_tools_are_not() -> None:
    raw = json.dumps(
        {
            "role": "assistant",
            "content": [
                {"type": "file", "file": {"file_id": "f", "filename": "ann@example.org.pdf"}},
                {"type": "image_url", "image_url": {"url": "https://bob:s3cr3t@x.example/i.png"}},
            ],
            "tool_calls": [{"id": "1", "function": {"name": "mail_ann", "arguments": '{"to": "ann@example.org"}'}}],
        }
    ).encode()
    (message,) = cache().ready([raw], PARSE)
    parts = json.loads(message.json)["parts"]
    assert parts[0]["name"] == "[EMAIL]"
    assert parts[1]["uri"] == "https://bob:[PASSWORD]@x.example/i.png"
    assert (parts[2]["name"], parts[2]["arguments"]) == ("mail_ann", '{"to":"[EMAIL]"}')


def nested(depth: int) -> bytes:
    return b"[" * depth + b"]" * depth


@pytest.mark.parametrize("limit", [4, 64])
def test_nesting_up_to_the_limit_passes_and_one_more_does_not(limit: int) -> None:
    check_structure(nested(limit), limit)
    with pytest.raises(DecodeError, match=rf"at most {limit} deep \(ingest.depth_max\); got {limit + 1}") as caught:
        check_structure(nested(limit + 1), limit)
    assert caught.value.reason == "too_deep"
    with pytest.raises(DecodeError):
        check_structure(b'{"a":' * (limit + 1) + b"1" + b"}" * (limit + 1), limit)


def test_width_is_no_depth() -> None:
    check_structure(b"[" + b"[],{}," * 10_000 + b"[]]", 4)


def test_brackets_in_strings_nest_nothing() -> None:
    for text in ("[" * 1_000, '"[' * 1_000, "\\[" * 1_000, '\\"{' * 1_000, "]" * 9 + "[" * 1_000):
        check_structure(json.dumps({"a": text}).encode(), 4)


def test_a_flood_of_brackets_is_cheap_to_refuse() -> None:
    with pytest.raises(DecodeError):
        check_structure(b"[" * (8 << 20), 64)


def test_an_array_holds_several_records_each_with_its_own_bytes() -> None:
    one, two = written(), written(litellm_call_id="other")
    calls = decode_record(b" [" + one + b", " + two + b"]\n", Auto(), 64).calls
    assert [raw for raw, _ in calls] == [one, two]
    assert [call.identity for _, call in calls] == [("93567992-478b-43f4-9540-4e23fd20be15",), ("other",)]


@pytest.mark.parametrize("value", [b"[]", b" [ ]\n"])
def test_an_array_of_nothing_is_refused_so_that_no_record_vanishes(value: bytes) -> None:
    with pytest.raises(DecodeError, match="the record's array must hold at least one record; got none") as caught:
        decode_record(value, Auto(), 64)
    assert caught.value.reason == "schema"


@pytest.mark.parametrize(
    ("value", "reason"),
    [
        (b"\xff\xfe{\x00}\x00", "undecodable"),
        (written()[:-5], "undecodable"),
        (written().replace(b"Hello", b"\xc3\x28"), "undecodable"),
        (b"[" + written(), "undecodable"),
        (b" \n", "undecodable"),
        (b"\n\x05", "undecodable"),
        (b"\nhello", "undecodable"),
    ],
)
def test_what_cannot_be_read_says_why(value: bytes, reason: str) -> None:
    with pytest.raises(DecodeError) as caught:
        decode_record(value, Auto(), 64)
    assert caught.value.reason == reason


def test_one_of_many_that_cannot_be_read_takes_nothing_from_the_others() -> None:
    decoded = decode_record(b"[" + written() + b", 1, {}, " + written(startTime="noon") + b"]", Auto(), 64)
    assert len(decoded.calls) == 1
    assert [error.reason for error in decoded.unreadable] == ["unknown_format", "unknown_format", "schema"]


def test_what_is_no_call_is_counted_by_what_it_is() -> None:
    kong = b'{"started_at": 1, "request": {"id": "r"}}'
    decoded = decode_record(b"[" + kong + b"," + kong + b"," + kong[:-1] + b', "ai": {}}]', Auto(), 64)
    assert (decoded.calls, decoded.unreadable) == ([], [])
    assert decoded.skipped == {"other_request": 2, "unanswered_request": 1}


def test_protobuf_is_no_json_however_many_brackets_its_content_has() -> None:
    record = otlp_protobuf(otlp(span(**{"gen_ai.input.messages": "brackets " + "{[" * 200})))
    ((raw, call),) = decode_record(record, Auto(), 4).calls
    assert (len(call.messages), call.gateway) == (1, "otel")
    assert raw in record
