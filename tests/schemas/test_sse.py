"""Streams of three dialects come out as the bodies that would have been sent whole."""

from __future__ import annotations

import json
from typing import Any

import pytest

from schemas.gateways.bodies import error_of, finish_reason_of, parse_message, read_answer, usage_of
from schemas.gateways.call import Unreadable
from schemas.gateways.sse import assemble, chunks, is_stream

Said = list[tuple[str, list[dict[str, str]]]]


def stream(*events: Any, end: str = "\n", done: bool = False) -> str:
    """Server-sent events, each named by its type as OpenAI and Anthropic name them."""
    lines = []
    for event in events:
        name = [f"event: {event['type']}"] if isinstance(event, dict) and "type" in event else []
        lines += [*name, f"data: {json.dumps(event)}", ""]
    return end.join([*lines, *(["data: [DONE]", ""] if done else []), ""])


def answer(text: str) -> tuple[Said, str]:
    """What the stream says, and how much of it came."""
    read = read_answer(json.dumps(text).encode())
    return [(message.role, message.parts) for message in map(parse_message, read.output)], read.state


def chunk(delta: dict[str, Any], finish: str | None = None, index: int = 0, **fields: Any) -> dict[str, Any]:
    return {"model": "m", "choices": [{"index": index, "delta": delta, "finish_reason": finish}], **fields}


def call(index: int | None, arguments: str, **head: Any) -> dict[str, Any]:
    function = {"arguments": arguments, **({"name": head.pop("name")} if "name" in head else {})}
    return {"tool_calls": [{**({} if index is None else {"index": index}), **head, "function": function}]}


CHAT = (
    chunk({"role": "assistant", "content": ""}),
    chunk({"content": "Let me "}),
    chunk({"content": "see."}),
    chunk(call(0, "", id="a", name="f")),
    chunk(call(1, "", id="b", name="g")),
    chunk(call(0, '{"x":')),
    chunk(call(1, "{}")),
    chunk(call(0, "1}")),
    chunk({}, "tool_calls"),
    {"model": "m", "choices": [], "usage": {"prompt_tokens": 7, "completion_tokens": 3, "total_tokens": 10}},
)
CHAT_SAID: Said = [
    (
        "assistant",
        [
            {"type": "text", "text": "Let me see."},
            {"type": "tool_call", "name": "f", "arguments": '{"x":1}', "id": "a"},
            {"type": "tool_call", "name": "g", "arguments": "{}", "id": "b"},
        ],
    )
]


@pytest.mark.parametrize("end", ["\n", "\r\n", "\r"])
def test_chat_comes_in_pieces_and_its_calls_interleaved(end: str) -> None:
    text = stream(*CHAT, end=end, done=True)
    assert answer(text) == (CHAT_SAID, "full")
    read = read_answer(json.dumps(text).encode())
    assert read.body is not None
    assert (read.body.model, finish_reason_of(read.body), usage_of(read.body)) == ("m", "tool_calls", (7, 3, 10))


def test_chunks_may_be_a_list_instead() -> None:
    read = read_answer(json.dumps(CHAT).encode())
    assert [(message.role, message.parts) for message in map(parse_message, read.output)] == CHAT_SAID


def test_calls_without_an_index_are_told_apart_by_their_ids() -> None:
    events = (
        chunk(call(None, "{", id="a", name="f")),
        chunk(call(None, "}")),
        chunk(call(None, "{}", id="b", name="f")),
    )
    ((_, parts),) = answer(stream(*events))[0]
    assert [(part["id"], part["name"], part["arguments"]) for part in parts] == [("a", "f", "{}"), ("b", "f", "{}")]


def test_a_name_that_comes_with_every_piece_is_one_name_and_one_in_pieces_is_joined() -> None:
    again = (chunk(call(0, "{", id="a", name="find")), chunk(call(0, "}", name="find")))
    pieces = (chunk(call(0, "{", id="a", name="fi")), chunk(call(0, "}", name="nd")))
    for events in (again, pieces):
        assert answer(stream(*events))[0][0][1][0]["name"] == "find"


def test_choices_stay_apart_and_reasoning_is_reasoning() -> None:
    events = (chunk({"content": "b"}, index=1), chunk({"reasoning_content": "hm"}), chunk({"content": "a"}))
    assert answer(stream(*events))[0] == [
        ("assistant", [{"type": "reasoning", "text": "hm"}, {"type": "text", "text": "a"}]),
        ("assistant", [{"type": "text", "text": "b"}]),
    ]


def test_old_completions_and_the_old_function_call_are_read() -> None:
    assert answer(stream({"choices": [{"text": "a"}]}, {"choices": [{"text": "b"}]}))[0][0][1][0]["text"] == "ab"
    events = (chunk({"function_call": {"name": "f", "arguments": "{"}}), chunk({"function_call": {"arguments": "}"}}))
    assert answer(stream(*events))[0][0][1] == [{"type": "tool_call", "name": "f", "arguments": "{}"}]


def block(index: int, kind: str, **delta: Any) -> dict[str, Any]:
    return {"type": "content_block_delta", "index": index, "delta": {"type": kind, **delta}}


ANTHROPIC: tuple[dict[str, Any], ...] = (
    {"type": "message_start", "message": {"role": "assistant", "model": "c", "usage": {"input_tokens": 7}}},
    {"type": "content_block_start", "index": 0, "content_block": {"type": "thinking", "thinking": ""}},
    block(0, "thinking_delta", thinking="hm"),
    block(0, "signature_delta", signature="xyz"),
    {"type": "content_block_start", "index": 1, "content_block": {"type": "text", "text": ""}},
    {"type": "ping"},
    block(1, "text_delta", text="Let me "),
    block(1, "text_delta", text="see."),
    {"type": "content_block_stop", "index": 1},
    {"type": "content_block_start", "index": 2, "content_block": {"type": "tool_use", "id": "t", "name": "f"}},
    block(2, "input_json_delta", partial_json=""),
    block(2, "input_json_delta", partial_json='{"x": '),
    block(2, "input_json_delta", partial_json="1}"),
    {"type": "message_delta", "delta": {"stop_reason": "tool_use"}, "usage": {"output_tokens": 3}},
    {"type": "message_stop"},
)  # fmt: skip


def test_anthropic_comes_in_blocks() -> None:
    text = stream(*ANTHROPIC)
    assert answer(text) == (
        [
            (
                "assistant",
                [
                    {"type": "reasoning", "text": "hm"},
                    {"type": "text", "text": "Let me see."},
                    {"type": "tool_call", "name": "f", "arguments": '{"x": 1}', "id": "t"},
                ],
            )
        ],
        "full",
    )
    read = read_answer(json.dumps(text).encode())
    assert read.body is not None
    assert (read.body.model, finish_reason_of(read.body), usage_of(read.body)) == ("c", "tool_use", (7, 3, None))


def test_a_call_without_arguments_has_empty_ones() -> None:
    start = {"type": "content_block_start", "index": 0, "content_block": {"type": "tool_use", "name": "f", "input": {}}}
    assert answer(stream(start))[0][0][1] == [{"type": "tool_call", "name": "f", "arguments": "{}"}]


@pytest.mark.parametrize("cut", [7, 8, 10, 13])
def test_a_stream_that_was_cut_gives_what_had_come(cut: int) -> None:
    said, state = answer(stream(*ANTHROPIC[:cut]))
    assert state == "truncated"
    assert said[0][1][1]["text"] in ("Let me ", "Let me see.")


def test_a_stream_cut_within_an_event_is_truncated() -> None:
    said, state = answer(stream(*CHAT)[:-150])
    assert (said[0][1][0], state) == ({"type": "text", "text": "Let me see."}, "truncated")


ITEM = {"type": "message", "role": "assistant", "content": [{"type": "output_text", "text": "Let me see."}]}
MADE = {"type": "function_call", "call_id": "c", "name": "f", "arguments": '{"x":1}'}
RESPONSES: tuple[dict[str, Any], ...] = (
    {"type": "response.created", "response": {"model": "m", "output": []}},
    {"type": "response.output_item.added", "output_index": 0, "item": {**ITEM, "content": []}},
    {"type": "response.output_text.delta", "output_index": 0, "content_index": 0, "delta": "Let me "},
    {"type": "response.output_text.delta", "output_index": 0, "content_index": 0, "delta": "see."},
    {"type": "response.output_item.done", "output_index": 0, "item": ITEM},
    {"type": "response.output_item.added", "output_index": 1, "item": {**MADE, "arguments": ""}},
    {"type": "response.function_call_arguments.delta", "output_index": 1, "delta": '{"x":'},
    {"type": "response.function_call_arguments.delta", "output_index": 1, "delta": "1}"},
    {"type": "response.output_item.done", "output_index": 1, "item": MADE},
)
RESPONSES_SAID: Said = [
    (
        "assistant",
        [
            {"type": "text", "text": "Let me see."},
            {"type": "tool_call", "name": "f", "arguments": '{"x":1}', "id": "c"},
        ],
    )
]


def test_responses_end_with_the_whole() -> None:
    whole = {"type": "response.completed", "response": {"model": "m", "status": "completed", "output": [ITEM, MADE]}}
    assert answer(stream(*RESPONSES, whole)) == (RESPONSES_SAID, "full")
    assert answer(stream(whole)) == (RESPONSES_SAID, "full")


def test_a_whole_that_some_proxies_empty_is_put_together_from_the_items() -> None:
    whole = {"type": "response.completed", "response": {"model": "m", "status": "completed", "output": []}}
    assert answer(stream(*RESPONSES, whole)) == (RESPONSES_SAID, "full")


@pytest.mark.parametrize("cut", [8, 9])
def test_responses_that_were_cut_give_their_items_and_deltas(cut: int) -> None:
    assert answer(stream(*RESPONSES[:cut])) == (RESPONSES_SAID, "truncated")


def test_deltas_alone_are_enough() -> None:
    said, state = answer(stream(*RESPONSES[2:4]))
    assert (said, state) == ([("assistant", [{"type": "text", "text": "Let me see."}])], "truncated")


def test_an_error_within_a_stream_is_told() -> None:
    error = {"type": "error", "error": {"type": "overloaded_error", "message": "busy"}}
    for events in ((error,), (*ANTHROPIC[:8], error), ({"error": {"type": "overloaded_error"}},)):
        read = read_answer(json.dumps(stream(*events)).encode())
        assert (error_of(read.body), read.state) == ((None, "overloaded_error"), "truncated")


def test_lines_end_where_the_standard_says_and_not_where_python_does() -> None:
    text = "a\u2028b\u0085c\x0bd"
    event = json.dumps(chunk({"content": text}), ensure_ascii=False)
    assert answer(f"data: {event}\n\n")[0][0][1][0]["text"] == text


def test_data_in_several_lines_comments_and_other_fields_are_read() -> None:
    text = ': ping\nid: 1\nretry: 5\ndata: {"choices":\ndata: [{"delta": {"content": "x"}}]}\n\n'
    assert answer(text)[0][0][1] == [{"type": "text", "text": "x"}]
    assert list(chunks('data: {"a": 1}\n\ndata:\n\ndata: [DONE]\n\n')) == [{"a": 1}]


@pytest.mark.parametrize(
    "text", ["data: hello", "event: party at nine", ": )", "data: 1\n\n", "data:image/png;base64,xx"]
)
def test_an_answer_that_only_looks_like_a_stream_stays_an_answer(text: str) -> None:
    assert is_stream(text)
    assert answer(text)[0] == [("assistant", [{"type": "text", "text": text}])]


def test_no_event_nests_too_deep() -> None:
    with pytest.raises(Unreadable, match="JSON in a text must nest at most 64 deep; got 70"):
        answer("data: " + "[" * 70 + "]" * 70 + "\n\n")


@pytest.mark.parametrize(
    "event",
    [
        {"choices": None},
        {"choices": [None, {"delta": 5}, {"index": "x", "delta": {"tool_calls": [5, {"function": None}]}}]},
        {"choices": [{"delta": {"content": [{"type": "text", "text": "x"}]}}]},
        {"type": "content_block_delta", "index": "x", "delta": {"text": 5}},
        {"type": "content_block_start", "content_block": 5},
        {"type": "message_start", "message": 5},
        {"type": "message_delta", "delta": 5, "usage": 5},
        {"type": "response.completed", "response": 5},
        {"type": "response.output_item.added", "item": 5, "output_index": {}},
        {"type": "response.completed", "response": {"output": 5}},
    ],
)
def test_odd_events_break_nothing(event: dict[str, Any]) -> None:
    for events in ([event], [event, event], [*CHAT[:2], event], [*ANTHROPIC[:3], event], [*RESPONSES[:3], event]):
        body, _ = assemble(events)
        read = read_answer(json.dumps(body).encode())
        for raw in read.output:
            parse_message(raw)
