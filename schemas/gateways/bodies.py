"""What clients send and models answer, as gateways log it: bodies of OpenAI Chat, OpenAI Responses, Anthropic Messages.

A body shows by its fields which it is; a body that none of them knows is kept visible as text.
"""

from __future__ import annotations

from typing import Any

import msgspec

from schemas.event import ContentState
from schemas.gateways import anthropic_messages, openai_responses, sse
from schemas.gateways.call import RawMessage, Unreadable, text_of
from schemas.gateways.nesting import embedded
from schemas.gateways.openai_chat import bare_text, message_of
from schemas.gateways.parts import REDACTED
from schemas.gateways.repair import decode, loads

NULL = b"null"
Odd = str | float | bool | list[Any] | None
"""What may stand where an object belongs."""
_TOOLS_MAX = 512
_TOOLS_BYTES_MAX = 65_536


class _Choice(msgspec.Struct, gc=False):
    finish_reason: Any = None
    message: msgspec.Raw = msgspec.Raw(NULL)
    text: Any = None


class _Usage(msgspec.Struct, gc=False):
    prompt_tokens: Any = None
    completion_tokens: Any = None
    input_tokens: Any = None
    output_tokens: Any = None
    total_tokens: Any = None


class _Error(msgspec.Struct, gc=False):
    type: Any = None
    code: Any = None


class _Incomplete(msgspec.Struct, gc=False):
    reason: Any = None


class AnswerBody(msgspec.Struct, gc=False):
    """A model's answer, in any of the dialects."""

    model: Any = None
    choices: list[_Choice | Odd] | dict[str, Any] | str | float | bool | None = None
    text: Any = None
    output: list[msgspec.Raw] | dict[str, Any] | str | float | bool | None = None
    """Of Responses."""
    content: msgspec.Raw = msgspec.Raw(NULL)
    """Of Anthropic."""
    stop_reason: Any = None
    status: Any = None
    incomplete_details: _Incomplete | Odd = None
    usage: _Usage | Odd = None
    error: _Error | Odd = None


class _RequestBody(msgspec.Struct, gc=False):
    model: Any = None
    messages: msgspec.Raw = msgspec.Raw(NULL)
    input: msgspec.Raw = msgspec.Raw(NULL)
    prompt: msgspec.Raw = msgspec.Raw(NULL)
    instructions: msgspec.Raw = msgspec.Raw(NULL)
    system: msgspec.Raw = msgspec.Raw(NULL)
    tools: msgspec.Raw = msgspec.Raw(NULL)
    functions: msgspec.Raw = msgspec.Raw(NULL)
    stream: Any = None
    user: Any = None
    safety_identifier: Any = None
    metadata: Any = None
    previous_response_id: Any = None
    conversation: Any = None


class Request(msgspec.Struct, frozen=True, gc=False):
    """What a request's body says."""

    messages: list[bytes]
    state: ContentState = "full"
    model: str | None = None
    tools: bytes = NULL
    """JSON of what it offers; `ToolNames` reads it."""
    stream: bool | None = None
    end_user: str | None = None
    conversation: str | None = None
    history_complete: bool = True
    """False when the provider keeps the rest of the conversation."""


class Answer(msgspec.Struct, frozen=True, gc=False):
    """What an answer's body says."""

    output: list[bytes]
    body: AnswerBody | None = None
    state: ContentState = "full"


_REQUEST = msgspec.json.Decoder(_RequestBody)
_ANSWER = msgspec.json.Decoder(AnswerBody)
_RAWS = msgspec.json.Decoder(list[msgspec.Raw])


class ToolNames:
    """Names of tools by the JSON that offers them: an application offers the same few sets over and over."""

    def __init__(self) -> None:
        self._known: dict[bytes, tuple[str, ...]] = {}

    def of(self, *raws: bytes) -> tuple[str, ...]:
        """Names in the first of `raws` that is not null; raises `Unreadable` when it is no JSON."""
        raw = next((raw for raw in map(bytes, raws) if raw != NULL), NULL)
        if raw == NULL:
            return ()
        names = self._known.get(raw)
        if names is None:
            names = _tool_names(loads(raw))
            if len(raw) <= _TOOLS_BYTES_MAX:
                if len(self._known) >= _TOOLS_MAX:
                    self._known.clear()
                self._known[raw] = names
        return names


def _tool_names(tools: Any) -> tuple[str, ...]:
    names = []
    for tool in tools if isinstance(tools, list) else ():
        if isinstance(tool, dict):
            function = tool.get("function")
            name = text_of(function.get("name") if isinstance(function, dict) else tool.get("name") or tool.get("type"))
            if name:
                names.append(name)
    return tuple(names)


def parse_message(raw: bytes) -> RawMessage:
    """The message in `raw`, of any dialect: JSON of a message, an item, the items of a turn, or a bare text.

    Raises
    ------
    Unreadable
        When it is no JSON.
    """
    value = loads(raw)
    if isinstance(value, list) and value and all(isinstance(item, dict) for item in value):
        return openai_responses.turn_message(value)
    if not isinstance(value, dict):
        return bare_text(value)
    kind = value.get("type")
    if "role" not in value and isinstance(kind, str):
        if kind == "tool_result":
            return anthropic_messages.result_message(value)
        if openai_responses.is_item(kind):
            return openai_responses.item_message(value)
    return message_of(value)


def read_request(raw: bytes) -> Request:
    """What the request's body `raw` says: a JSON value, or a text with one inside.

    Raises
    ------
    Unreadable
        `too_deep`.
    """
    if raw[:1] == b'"':
        text = str(loads(raw))
        if text[:1] not in ("{", "["):
            return Request(*of_text(text))
        raw = embedded(text)
    if raw == NULL:
        return Request([], "redacted")
    try:
        body = decode(_REQUEST, raw, "request")
    except Unreadable as error:
        if error.reason == "too_deep":
            raise
        # Cut off somewhere, or no object: what there is, is scored.
        return Request([msgspec.json.encode(raw.decode(errors="replace"))], "truncated", history_complete=False)
    messages, state = _conversation(body, raw)
    conversation = body.conversation.get("id") if isinstance(body.conversation, dict) else body.conversation
    user = body.user or body.safety_identifier
    if not user and isinstance(body.metadata, dict):
        user = body.metadata.get("user_id")  # Anthropic's
    return Request(
        messages,
        state,
        text_of(body.model),
        bytes(body.tools if bytes(body.tools) != NULL else body.functions),
        body.stream if isinstance(body.stream, bool) else None,
        text_of(user),
        text_of(conversation),
        not (body.previous_response_id or conversation or b'"item_reference"' in raw),
    )


def _conversation(body: _RequestBody, raw: bytes) -> tuple[list[bytes], ContentState]:
    messages = instructions(body.system, body.instructions)
    known = False
    for field in (body.messages, body.input, body.prompt):
        if (held := bytes(field)) != NULL:
            more, state = of_input(held, items=field is body.input)
            if state != "full":
                return [*messages, *more], state
            messages += more
            known = True
    if not known and raw not in (b"{}", NULL):
        messages.append(b'{"role":"user","content":%b}' % raw)
    return messages, "full" if messages else "redacted"


def instructions(*raws: msgspec.Raw) -> list[bytes]:
    """System prompts that are fields of their own, as messages."""
    held = [bytes(raw) for raw in raws]
    return [b'{"role":"system","content":%b}' % raw for raw in held if raw not in (NULL, b'""', b"[]")]


def of_input(raw: bytes, *, items: bool = False) -> tuple[list[bytes], ContentState]:
    """The messages in `messages`, `input` or `prompt`: a text, or a list of messages, items or texts."""
    if raw[:1] == b'"':
        return of_text(str(loads(raw)))
    if raw[:1] != b"[":
        return [raw], "full"
    return of_list([bytes(item) for item in _RAWS.decode(raw)], items=items)


def of_list(raws: list[bytes], *, items: bool = False, plain: bool = False) -> tuple[list[bytes], ContentState]:
    """As `of_input`, of a list's elements: messages split and items joined, so that every dialect has the same turns.

    `items` says that they are of OpenAI Responses; calls in them show it too. `plain` says that they are OpenAI Chat's,
    and saves the look.
    """
    if not raws:
        return [], "redacted"
    if all(raw[:1] not in (b"{", b'"') for raw in raws):
        return [b"[%b]" % b",".join(raws)], "full"  # tokens
    if plain:
        return raws, "full"
    if items or any(openai_responses.MARK in raw for raw in raws):
        return openai_responses.turns(raws), "full"
    return [message for raw in raws for message in anthropic_messages.split(raw)], "full"


def of_text(text: str) -> tuple[list[bytes], ContentState]:
    """A user's message of `text`."""
    if text in ("", REDACTED):
        return [], "redacted"
    return [msgspec.json.encode({"role": "user", "content": text})], "full"


def read_answer(raw: bytes) -> Answer:
    """What the answer's body `raw` says: a JSON value, or a text that holds one, a stream of events, or just an answer.

    Raises
    ------
    Unreadable
        `too_deep`.
    """
    if raw[:1] == b'"':
        text = str(loads(raw))
        if text.lstrip()[:1] not in ("{", "["):
            return _streamed(text) if sse.is_stream(text) else Answer([answer_message(text)] if text else [])
        raw = embedded(text.strip())
    if raw == NULL:
        return Answer([], state="redacted")
    if raw[:1] == b"[":
        return _assembled(*sse.assemble(_listed(raw)))
    try:
        body = decode(_ANSWER, raw, "answer")
    except Unreadable as error:
        if error.reason == "too_deep":
            raise
        return Answer([answer_message(raw.decode(errors="replace"))], state="truncated")
    return Answer(output_of(body), body)


def _streamed(text: str) -> Answer:
    body, complete = sse.assemble(sse.chunks(text))
    # Without an event of a known dialect it only looked like a stream.
    return _assembled(body, complete) if body else Answer([answer_message(text)])


def _listed(raw: bytes) -> list[Any]:
    events = loads(raw)
    return events if isinstance(events, list) else []


def _assembled(body: sse.Body, complete: bool) -> Answer:
    read = decode(_ANSWER, msgspec.json.encode(body), "answer")
    return Answer(output_of(read), read, "full" if complete else "truncated")


def output_of(body: AnswerBody) -> list[bytes]:
    """The messages that an answer holds."""
    messages: list[bytes] = []
    for choice in body.choices if isinstance(body.choices, list) else ():
        if not isinstance(choice, _Choice):
            continue
        raw = bytes(choice.message)
        if raw != NULL:
            messages.append(raw)
        elif isinstance(choice.text, str) and choice.text:
            messages.append(answer_message(choice.text))
    if not messages and isinstance(body.output, list):
        messages = openai_responses.turns([bytes(item) for item in body.output])
    if not messages and bytes(body.content)[:1] in (b"[", b'"') and bytes(body.content) not in (b"[]", b'""'):
        messages = [b'{"role":"assistant","content":%b}' % bytes(body.content)]
    if not messages and isinstance(body.text, str) and body.text:
        messages.append(answer_message(body.text))
    return messages


def answer_message(text: str) -> bytes:
    """JSON of an assistant's message of `text`."""
    return msgspec.json.encode({"role": "assistant", "content": text})


def finish_reason_of(body: AnswerBody | None) -> str | None:
    """Why the model stopped, in the words of its dialect."""
    if body is None:
        return None
    for choice in body.choices if isinstance(body.choices, list) else ():
        if isinstance(choice, _Choice) and (reason := text_of(choice.finish_reason)):
            return reason
    incomplete = body.incomplete_details
    reason = text_of(incomplete.reason) if isinstance(incomplete, _Incomplete) else None
    return text_of(body.stop_reason) or reason or (text_of(body.status) if isinstance(body.output, list) else None)


def usage_of(body: AnswerBody | None) -> tuple[Any, Any, Any]:
    """Tokens of the prompt, of the completion, and both, as they came."""
    usage = body.usage if body is not None else None
    if not isinstance(usage, _Usage):
        return None, None, None
    prompt = usage.input_tokens if usage.prompt_tokens is None else usage.prompt_tokens
    completion = usage.output_tokens if usage.completion_tokens is None else usage.completion_tokens
    return prompt, completion, usage.total_tokens


def error_of(body: AnswerBody | None) -> tuple[str | None, str | None]:
    """Code and class of the error that came instead of an answer."""
    error = body.error if body is not None else None
    return (text_of(error.code), text_of(error.type)) if isinstance(error, _Error) else (None, None)
