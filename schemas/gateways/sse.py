"""Streamed answers, made whole: server-sent events of OpenAI Chat, OpenAI Responses and Anthropic Messages.

A gateway that logs a streamed call may log the stream as its client saw it. What its events would have been as one
body is put together here; a stream that was cut gives what had come until then.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from typing import Any, Protocol

from schemas.gateways.call import Unreadable
from schemas.gateways.nesting import embedded
from schemas.gateways.parts import json_text
from schemas.gateways.repair import loads

_LINE_END = re.compile("\r\n|\n|\r")
"""Not `str.splitlines`: it would cut at U+2028 and others that JSON holds as they are."""
_STREAM = re.compile(r"\s*(?:data|event|id|retry)?:")

Body = dict[str, Any]


def is_stream(text: str) -> bool:
    """Whether `text` begins as a stream of events does.

    >>> is_stream('data: {}'), is_stream(': ping'), is_stream('{"data": 1}')
    (True, True, False)
    """
    return _STREAM.match(text) is not None


def chunks(text: str) -> Iterator[Any]:
    """The JSON of each event's data; None for an event whose data is no JSON.

    Raises
    ------
    Unreadable
        `too_deep`.
    """
    data: list[str] = []
    for line in (*_LINE_END.split(text), ""):
        if line.startswith("data:"):
            data.append(line[5:].removeprefix(" "))
        elif not line and data:
            whole = "\n".join(data)
            data = []
            if whole.strip() not in ("[DONE]", ""):
                yield _loaded(whole)


def _loaded(data: str) -> Any:
    try:
        return loads(embedded(data))
    except Unreadable as error:
        if error.reason == "too_deep":
            raise
        return None


def assemble(events: Iterable[Any]) -> tuple[Body, bool]:
    """The body that `events` amount to, in the dialect of the first one that shows it, and whether all of it came.

    >>> assemble([{"choices": [{"delta": {"content": part}}]} for part in ("Good ", "day.")])[0]["choices"]
    [{'index': 0, 'finish_reason': None, 'message': {'role': 'assistant', 'content': 'Good day.'}}]
    """
    assembly: _Assembly | None = None
    complete = True
    for event in events:
        if not isinstance(event, dict):
            complete = False
            continue
        if assembly is None:
            assembly = _assembly_of(event)
        if assembly is None or (isinstance(event.get("error"), dict) and "choices" not in event):
            if isinstance(event.get("error"), dict):
                return {**(assembly.body() if assembly else {}), "error": event["error"]}, False
            continue
        assembly.add(event)
    if assembly is None:
        return {}, False
    return assembly.body(), complete and assembly.complete


class _Assembly(Protocol):
    complete: bool

    def add(self, event: Body) -> None:
        """Take one more event."""

    def body(self) -> Body:
        """What they amount to so far."""


def _assembly_of(event: Body) -> _Assembly | None:
    kind = event.get("type")
    if "choices" in event:
        return _Chat()
    if isinstance(kind, str):
        if kind.startswith("response."):
            return _Responses()
        if kind.startswith(("message_", "content_block_")):
            return _Anthropic()
    return None


class _Texts:
    """Texts by field, each in pieces."""

    def __init__(self) -> None:
        self._pieces: dict[Any, list[str]] = {}

    def add(self, field: Any, piece: Any) -> None:
        if isinstance(piece, str) and piece:
            self._pieces.setdefault(field, []).append(piece)

    def whole(self) -> dict[Any, str]:
        return {field: "".join(pieces) for field, pieces in self._pieces.items()}


class _Call:
    """A tool call of OpenAI Chat's."""

    def __init__(self) -> None:
        self.id: Any = None
        self.name = ""
        self.arguments: list[str] = []

    def add(self, call_id: Any, function: Any) -> None:
        self.id = self.id or call_id
        if not isinstance(function, dict):
            return
        name, arguments = function.get("name"), function.get("arguments")
        if isinstance(name, str) and name != self.name:  # some send it with every piece
            self.name += name
        if arguments is not None:
            self.arguments.append(arguments if isinstance(arguments, str) else json_text(arguments))

    def function(self) -> Body:
        return {"name": self.name, "arguments": "".join(self.arguments)}


class _Choice:
    """One choice of OpenAI Chat's."""

    def __init__(self) -> None:
        self.texts = _Texts()
        self.pieces: list[Any] = []
        self.calls: dict[Any, _Call] = {}
        self.function: _Call | None = None
        self.finish_reason: Any = None

    def add(self, choice: Body) -> None:
        self.finish_reason = choice.get("finish_reason") or self.finish_reason
        self.texts.add("content", choice.get("text"))
        delta = choice.get("delta", choice.get("message"))
        if not isinstance(delta, dict):
            return
        for field in ("content", "reasoning_content", "reasoning", "refusal"):
            self.texts.add(field, delta.get(field))
        if isinstance(delta.get("content"), list):
            self.pieces += delta["content"]
        for call in delta["tool_calls"] if isinstance(delta.get("tool_calls"), list) else ():
            if isinstance(call, dict):
                self._call_of(call).add(call.get("id"), call.get("function"))
        if isinstance(delta.get("function_call"), dict):
            self.function = self.function or _Call()
            self.function.add(None, delta["function_call"])

    def _call_of(self, call: Body) -> _Call:
        """By index; without one, a new id begins a new call."""
        index = call.get("index")
        if not isinstance(index, int):
            index = f"id {call['id']}" if call.get("id") else next(reversed(self.calls), 0)
        return self.calls.setdefault(index, _Call())

    def message(self) -> Body:
        message: Body = {"role": "assistant", "content": None, **self.texts.whole()}
        if self.pieces:
            message["content"] = [*([message["content"]] if message["content"] else []), *self.pieces]
        if self.calls:
            message["tool_calls"] = [
                {"id": call.id, "type": "function", "function": call.function()} for call in self.calls.values()
            ]
        if self.function:
            message["function_call"] = self.function.function()
        return message


class _Chat:
    """OpenAI Chat, and the older completions."""

    complete = True

    def __init__(self) -> None:
        self._choices: dict[int, _Choice] = {}
        self._model: Any = None
        self._usage: Any = None

    def add(self, event: Body) -> None:
        self._model = self._model or event.get("model")
        self._usage = event.get("usage") or self._usage
        for choice in event["choices"] if isinstance(event.get("choices"), list) else ():
            if isinstance(choice, dict):
                index = choice.get("index")
                self._choices.setdefault(index if isinstance(index, int) else 0, _Choice()).add(choice)

    def body(self) -> Body:
        choices = [
            {"index": index, "finish_reason": choice.finish_reason, "message": choice.message()}
            for index, choice in sorted(self._choices.items())
        ]
        return {"model": self._model, "choices": choices, "usage": self._usage}


class _Anthropic:
    """Anthropic Messages: `message_start`, blocks with deltas, `message_delta`, `message_stop`."""

    _DELTAS = (("text", "text"), ("thinking", "thinking"), ("partial_json", "input"))

    def __init__(self) -> None:
        self.complete = False
        self._message: Body = {}
        self._usage: Body = {}
        self._blocks: dict[int, Body] = {}
        self._texts: dict[int, _Texts] = {}

    def add(self, event: Body) -> None:
        kind = event["type"] if isinstance(event.get("type"), str) else ""
        if kind == "message_stop":
            self.complete = True
        elif kind == "message_start" and isinstance(event.get("message"), dict):
            self._message = event["message"]
            self._count(self._message.get("usage"))
        elif kind == "message_delta":
            if isinstance(event.get("delta"), dict):
                self._message = {**self._message, **event["delta"]}
            self._count(event.get("usage"))
        elif kind.startswith("content_block_"):
            self._block(event)

    def _count(self, usage: Any) -> None:
        if isinstance(usage, dict):
            self._usage.update({name: count for name, count in usage.items() if count is not None})

    def _block(self, event: Body) -> None:
        index = event["index"] if isinstance(event.get("index"), int) else 0
        block, delta = event.get("content_block"), event.get("delta")
        if isinstance(block, dict):
            self._blocks[index] = block
        if isinstance(delta, dict):
            held = self._texts.setdefault(index, _Texts())
            for given, field in self._DELTAS:
                held.add(field, delta.get(given))

    def body(self) -> Body:
        content = []
        for index in sorted({*self._blocks, *self._texts}):
            written = self._texts[index].whole() if index in self._texts else {}
            block = self._blocks.get(index) or {"type": "thinking" if "thinking" in written else "text"}
            begun = {field: text for field, text in block.items() if field in written and isinstance(text, str)}
            content.append({**block, **{field: begun.get(field, "") + text for field, text in written.items()}})
        return {**self._message, "type": "message", "content": content, "usage": self._usage}


class _Responses:
    """OpenAI Responses: the last event holds the whole; without it, its items and what their deltas say."""

    _FINAL = ("response.completed", "response.incomplete", "response.failed", "response.done")
    _FIELDS = (
        ("response.output_text.delta", "text"),
        ("response.refusal.delta", "text"),
        ("response.function_call_arguments.delta", "arguments"),
        ("response.custom_tool_call_input.delta", "input"),
        ("response.mcp_call_arguments.delta", "arguments"),
    )

    def __init__(self) -> None:
        self.complete = False
        self._response: Body = {}
        self._items: dict[int, Body] = {}
        self._done: set[int] = set()
        self._texts: dict[int, _Texts] = {}

    def add(self, event: Body) -> None:
        kind, index = event.get("type"), event.get("output_index")
        if isinstance(event.get("response"), dict):
            self._response = event["response"]
            self.complete = self.complete or kind in self._FINAL
        index = index if isinstance(index, int) else 0
        if isinstance(event.get("item"), dict):
            self._items[index] = event["item"]
            if kind == "response.output_item.done":
                self._done.add(index)
        for delta, field in self._FIELDS:
            if kind == delta:
                self._texts.setdefault(index, _Texts()).add(field, event.get("delta"))

    def body(self) -> Body:
        if self._response.get("output"):
            return self._response
        output = []
        for index in sorted({*self._items, *self._texts}):
            item = self._items.get(index) or {"type": "message", "role": "assistant"}
            written = self._texts[index].whole() if index in self._texts and index not in self._done else {}
            if "text" in written:
                item = {**item, "content": [{"type": "output_text", "text": written.pop("text")}]}
            output.append({**item, **written})
        return {**self._response, "output": output}
