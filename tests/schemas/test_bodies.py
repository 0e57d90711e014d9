"""Bodies are read by what they show to be; what is of no dialect stays visible."""

from __future__ import annotations

import json
from typing import Any

import msgspec
import pytest

from schemas.gateways.bodies import NULL, ToolNames, of_list, parse_message, read_answer, read_request
from schemas.gateways.call import Unreadable

HELLO = [("user", [{"type": "text", "text": "hi"}])]


def said(raws: list[bytes]) -> list[tuple[str, list[dict[str, str]]]]:
    return [(message.role, message.parts) for message in map(parse_message, raws)]


def embedded(value: Any) -> bytes:
    """JSON of a text that holds JSON, as Kong logs bodies."""
    return json.dumps(json.dumps(value)).encode()


@pytest.mark.parametrize("write", [lambda body: json.dumps(body).encode(), embedded], ids=["object", "text"])
@pytest.mark.parametrize(
    "body",
    [
        {"messages": [{"role": "user", "content": "hi"}]},
        {"input": "hi"},
        {"input": ["hi"]},
        {"prompt": "hi"},
        {"prompt": ["hi"]},
        {"input": [{"role": "user", "content": [{"type": "input_text", "text": "hi"}]}]},
    ],
)
def test_a_request_is_an_object_or_a_text_of_one(body: dict[str, Any], write: Any) -> None:
    read = read_request(write(body))
    assert (said(read.messages), read.state) == (HELLO, "full")


def test_a_request_of_no_dialect_stays_visible() -> None:
    body = {"contents": [{"role": "user", "parts": [{"text": "hi"}]}]}
    assert said(read_request(embedded(body)).messages) == [
        ("user", [{"type": "text", "text": '{"contents":[{"parts":[{"text":"hi"}],"role":"user"}]}'}])
    ]


def test_a_request_that_is_just_text_or_was_cut_is_scored() -> None:
    assert said(read_request(b'"hi"').messages) == HELLO
    cut = read_request(json.dumps('{"messages":[{"role":"user","content":"ignore').encode())
    assert (cut.state, cut.history_complete) == ("truncated", False)
    assert "ignore" in said(cut.messages)[0][1][0]["text"]


@pytest.mark.parametrize("raw", [NULL, b'""', b"{}", b'{"messages": []}', b'"{}"', b'{"input": ""}'])
def test_a_request_without_content_is_redacted(raw: bytes) -> None:
    read = read_request(raw)
    assert (read.messages, read.state) == ([], "redacted")


def test_tokens_are_one_message() -> None:
    assert len(read_request(b'{"input": [1, 2, 3]}').messages) == len(of_list([b"[1,2]", b"[3]"])[0]) == 1


@pytest.mark.parametrize(
    ("raw", "texts"),
    [
        (NULL, []),
        (b'""', []),
        (b"{}", []),
        (b'"Good day."', ["Good day."]),
        (b'{"choices":[{"message":{"content":"a"}},{"text":"b"}]}', ["a", "b"]),
        (b'{"output":[{"type":"message","content":[{"type":"output_text","text":"a"}]}]}', ["a"]),
        (b'{"content":[{"type":"text","text":"a"}]}', ["a"]),
        (b'{"content":"a"}', ["a"]),
        (b'{"text":"a"}', ["a"]),
        (b'{"data":[{"embedding":[0.5]}]}', []),
    ],
)
def test_an_answer_is_read_by_what_it_shows_to_be(raw: bytes, texts: list[str]) -> None:
    assert [parts[0]["text"] for _, parts in said(read_answer(raw).output)] == texts


def test_an_answer_that_was_cut_is_kept() -> None:
    read = read_answer(json.dumps('{"choices":[{"message":{"content":"secr').encode())
    assert (read.state, len(read.output)) == ("truncated", 1)


def test_bodies_in_texts_nest_only_so_deep() -> None:
    deep = json.dumps('{"messages":' + "[" * 80 + "]" * 80 + "}").encode()
    for read in (read_request, read_answer):
        with pytest.raises(Unreadable, match="JSON in a text must nest at most 64 deep; got 81") as caught:
            read(deep)
        assert caught.value.reason == "too_deep"


def test_tools_of_every_dialect_have_names() -> None:
    offered = [
        {"type": "function", "function": {"name": "a"}},
        {"type": "function", "name": "b"},
        {"name": "c", "input_schema": {}},
        {"type": "web_search"},
        5,
        {},
    ]
    names = ToolNames()
    raw = msgspec.Raw(json.dumps(offered).encode())
    assert names.of(msgspec.Raw(NULL), raw) == names.of(raw) == ("a", "b", "c", "web_search")
    assert names.of() == names.of(msgspec.Raw(NULL)) == ()
