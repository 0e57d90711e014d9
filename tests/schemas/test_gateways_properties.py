"""Whatever comes, a decoder gives calls whose messages can be read, or says why not: it raises `Unreadable` alone."""

from __future__ import annotations

import json
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from schemas.gateways.bodies import read_answer, read_request
from schemas.gateways.call import GatewayCall, Skipped, Unreadable
from schemas.gateways.detect import NAMES, format_of
from schemas.gateways.sse import assemble
from tests.schemas.otlp_record import otlp_protobuf

# Thousands of inputs: traced, they take far longer, and smaller tests cover the same code.
pytestmark = pytest.mark.no_cover

PAYLOADS = [
    path.read_bytes()
    for path in sorted((Path(__file__).parent / "payloads").glob("*.json"))
    if "event" not in path.name
]
REASONS = ("undecodable", "unknown_format", "schema", "too_deep")
OTEL = json.loads(next(payload for payload in PAYLOADS if b"resourceSpans" in payload))

scalars = (
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats()
    | st.text(st.characters(), max_size=8)
    | st.sampled_from(["[{", '{"a":', "data: {}\n\n", "tool", "assistant", "function_call", "message", "tool_result"])
)
names = st.sampled_from(
    """role content parts type text tool_calls function name arguments id index delta choices output input call_id
    messages system model message usage error event_time_ms response item output_index tool_use_id source data url
    key value values stringValue intValue arrayValue kvlistValue summary""".split()
) | st.text(max_size=4)
anything = st.recursive(
    scalars, lambda inner: st.lists(inner, max_size=4) | st.dictionaries(names, inner, max_size=5), max_leaves=25
)


def outcome(decode: Callable[[bytes], Any], value: bytes) -> None:
    """Decode `value` and read all of its messages; only `Unreadable` may come of it."""
    reason, read = "", []
    try:
        read = decode(value)
    except Unreadable as error:
        reason = error.reason
    assert reason in REASONS if reason else read, "never nothing"
    for part in read:
        if isinstance(part, GatewayCall):
            messages(part)
        else:
            assert isinstance(part, (Unreadable, Skipped))


def messages(call: GatewayCall) -> None:
    for raw in [*call.messages, *call.output]:
        try:
            assert call.parse(raw).role in ("system", "developer", "user", "assistant", "tool")
        except Unreadable:
            continue


def places(value: Any, path: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    """Every place in `value`."""
    items: Any = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    return [path, *(place for key, held in items for place in places(held, (*path, key)))]


def replaced(value: Any, path: tuple[Any, ...], by: Any) -> Any:
    """`value` with what is at `path` replaced."""
    if not path:
        return by
    copy = dict(value) if isinstance(value, dict) else list(value)
    copy[path[0]] = replaced(value[path[0]], path[1:], by)
    return copy


@pytest.mark.parametrize("name", NAMES)
@given(data=st.data())
@settings(max_examples=60, deadline=None)
def test_a_payload_with_anything_anywhere_is_read_or_refused(name: str, data: st.DataObject) -> None:
    value = json.loads(data.draw(st.sampled_from(PAYLOADS)))
    for _ in range(data.draw(st.integers(1, 3))):
        value = replaced(value, data.draw(st.sampled_from(places(value))), data.draw(anything))
    outcome(format_of(name).decode, json.dumps(value).encode())


@pytest.mark.parametrize("name", NAMES)
@given(value=st.binary(max_size=200) | st.text(max_size=100).map(str.encode))
@settings(max_examples=100, deadline=None)
def test_any_bytes_are_read_or_refused(name: str, value: bytes) -> None:
    outcome(format_of(name).decode, value)


@given(data=st.data())
@settings(max_examples=60, deadline=None)
def test_protobuf_with_any_byte_changed_is_read_or_refused(data: st.DataObject) -> None:
    value = bytearray(otlp_protobuf(OTEL))
    for _ in range(data.draw(st.integers(1, 4))):
        value[data.draw(st.integers(0, len(value) - 1))] = data.draw(st.integers(0, 255))
    outcome(format_of("auto").decode, bytes(value[: data.draw(st.integers(0, len(value)))] or value))


@given(anything)
@settings(max_examples=80, deadline=None)
def test_any_body_is_read_or_refused(body: Any) -> None:
    for raw in (json.dumps(body).encode(), json.dumps(json.dumps(body)).encode()):
        for read in (read_request, read_answer):
            try:
                read(raw)
            except Unreadable:
                continue


@given(st.lists(anything, max_size=5))
@settings(max_examples=60, deadline=None)
def test_any_events_are_put_together(events: list[Any]) -> None:
    text = "".join(f"data: {json.dumps(event)}\n\n" for event in events)
    kind: dict[str, Any]
    for kind in ({"choices": []}, {"type": "message_start"}, {"type": "response.created"}):
        body, _ = assemble([kind, *events])
        assert isinstance(body, dict)
        stream = json.dumps(f"data: {json.dumps(kind)}\n\n{text}").encode()
        with suppress(Unreadable):
            read_answer(stream)


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize(
    "value",
    [
        b"[" * 100_000,
        b'{"a":' * 100_000,
        b'{"resourceSpans":' + b"[" * 5_000 + b"]" * 5_000 + b"}",
        b'{"started_at":1,"request":{},"ai":{"proxy":{"payload":' + b"[" * 5_000 + b"]" * 5_000 + b"}}}",
        b'{"started_at":1,"request":{},"ai":' + b'{"a":' * 900 + b"1" + b"}" * 900 + b"}",
        b'{"litellm_call_id":1,"startTime":1,"messages":[' + b"[" * 900 + b"]" * 900 + b"]}",
        b'{"event_time_ms":1,"messages":[{"role":"user","content":' + b"[" * 900 + b"]" * 900 + b"}]}",
        b'{"started_at":1' + b"0" * 5_000 + b',"request":{},"ai":{"proxy":{"usage":{}}}}',
        b'{"started_at":1,"started_at":2,"request":{},"request":{"id":"r"},"ai":{},"ai":{"proxy":{"usage":{}}}}',
        b"\n" + b"\x7b" * 200,
        b"\n\xff\xff\xff\xff\x0f" + b"\n" * 100,
    ],
)
def test_depth_size_and_repetition_are_read_or_refused(name: str, value: bytes) -> None:
    outcome(format_of(name).decode, value)
