"""Messages as OpenTelemetry's GenAI conventions have them: `{role, parts}`, and the ways before them.

Before semantic conventions 1.37 content was events of a span, one a message; before those, one event with all of it;
OpenLLMetry numbers attributes instead. All of them come out as JSON of messages.
"""

from __future__ import annotations

import re
from typing import Any

import msgspec
import orjson

from schemas.event import ContentState
from schemas.gateways import openai_chat
from schemas.gateways.call import RawMessage, Unreadable, text_of
from schemas.gateways.nesting import embedded
from schemas.gateways.parts import Parts, blob, checked, content, json_text, role_of, tool_call, tool_result
from schemas.gateways.repair import loads, repair
from schemas.undecodable import UNDECODABLE

Attributes = dict[str, Any]
Raws = list[bytes]
DETAILS = "gen_ai.client.inference.operation.details"
"""The event that holds what would else be the span's attributes."""
_RAWS = msgspec.json.Decoder(list[msgspec.Raw])
_MESSAGE_EVENT = re.compile(r"gen_ai\.(system|user|assistant|tool)\.message")
_NUMBERED = re.compile(r"gen_ai\.(prompt|completion)\.(\d{1,6})\.(?:tool_calls\.(\d{1,6})\.)?(\w{1,64})")
_EVENT_BODY = "gen_ai.event.content"
_EVENT_FIELDS = ("role", "content", "tool_calls", "id", "tool_call_id", "name", "parts")


def parse_message(raw: bytes) -> RawMessage:
    """The message in `raw`: `{role, parts}`, an OpenAI Chat message, or a bare text.

    Raises
    ------
    Unreadable
        `undecodable` when it is no JSON.
    """
    message = loads(raw)
    if not isinstance(message, dict):
        return openai_chat.bare_text(message)
    pieces = message.get("parts")
    if not isinstance(pieces, list):
        return openai_chat.message_of(message)
    role = role_of(message.get("role"))
    parts = [part for piece in pieces for part in _part(piece)]
    if role == "tool" and not any(part["type"] == "tool_call_response" for part in parts):
        # LiteLLM keeps the call's id on the message.
        return checked(role, tool_result(message, [_content_of(piece) for piece in pieces]))
    return checked(role, parts + openai_chat.calls(message))


def _part(piece: Any) -> Parts:
    if not isinstance(piece, dict):
        return content(piece)
    kind = piece.get("type")
    if kind == "text":
        return content(_content_of(piece))
    if kind in ("reasoning", "thinking"):
        return [{"type": "reasoning", "text": part["text"]} for part in content(_content_of(piece)) if "text" in part]
    if kind in ("tool_call", "server_tool_call"):
        arguments = piece.get("arguments", piece.get("server_tool_call"))
        return [tool_call(text_of(piece.get("id")), text_of(piece.get("name")), arguments)]
    if kind in ("tool_call_response", "server_tool_call_response"):
        return _response(piece)
    if kind == "blob" and isinstance(piece.get("content"), str):
        return [blob(piece["content"], _mime(piece) or "application/octet-stream")]
    where = piece.get("uri") if kind == "uri" else piece.get("file_id") if kind == "file" else None
    if isinstance(where, str):
        mime = _mime(piece)
        return [{"type": str(kind), "uri": where, **({"mime_type": mime} if mime else {})}]
    return content(piece)


def _content_of(piece: Any) -> Any:
    """A text's content, by OpenTelemetry's name of it or by OpenAI's; other pieces as they are."""
    if not isinstance(piece, dict) or piece.get("type") not in ("text", "reasoning", "thinking"):
        return piece
    return piece.get("content", piece.get("text", piece.get("thinking")))


def _response(piece: dict[str, Any]) -> Parts:
    """What a tool gave back: `response`, or as some write it `result`; an object is its JSON."""
    names = ("response", "result", "server_tool_call_response", "content")
    held = next((piece[name] for name in names if piece.get(name) is not None), None)
    named = {"id": piece.get("id"), "name": piece.get("name")}
    if isinstance(held, list) and held and all(isinstance(item, dict) and "type" in item for item in held):
        return tool_result(named, [_content_of(item) for item in held])
    return tool_result(named, held if held is None or isinstance(held, str) else json_text(held))


def _mime(piece: dict[str, Any]) -> str | None:
    return text_of(piece.get("mime_type")) or text_of(piece.get("modality"))


def of_attribute(held: Any, role: str) -> tuple[Raws, ContentState]:
    """Messages in an attribute: a JSON text, or structured.

    A text that an exporter's limit cut is no JSON: what there is of it becomes one message of `role`.

    Raises
    ------
    Unreadable
        `too_deep`.
    """
    if held is None or held in ("", []):
        return [], "redacted"
    if isinstance(held, str):
        if held[:1] not in ("[", "{"):
            return [_message(role, held)], "full"
        raw = embedded(held)
        try:
            return _split(raw), "full"
        except UNDECODABLE:
            pass
        try:
            return _split(repair(raw)), "full"
        except (*UNDECODABLE, Unreadable):
            return [_message(role, held)], "truncated"
    return [orjson.dumps(item) for item in (held if isinstance(held, list) else [held])], "full"


def _split(raw: bytes) -> Raws:
    if raw[:1] == b"{":
        msgspec.json.decode(raw)
        return [raw]
    return [bytes(item) for item in _RAWS.decode(raw)]


def _message(role: str, text: str) -> bytes:
    return msgspec.json.encode({"role": role, "content": text})


def system_message(held: Any) -> Raws:
    """The system instructions, a list of parts (LiteLLM: of messages) or a text, as one message or more."""
    raws, _ = of_attribute(held, "system")
    if any(b'"role"' in raw for raw in raws):
        return raws
    return [b'{"role":"system","parts":[%b]}' % b",".join(raws)] if raws else []


def of_events(events: list[tuple[str, Attributes]]) -> tuple[Raws, Raws, str | None]:
    """Messages, answers and the reason to stop that older conventions keep in a span's events."""
    messages: Raws = []
    output: Raws = []
    finish_reason: str | None = None
    for name, attributes in events:
        if found := _MESSAGE_EVENT.fullmatch(name):
            messages.append(orjson.dumps({"role": found[1], **_body(attributes)}))
        elif name == "gen_ai.choice":
            body = _body(attributes)
            said = _loaded(body.get("message", attributes.get("message")))
            finish_reason = finish_reason or text_of(body.get("finish_reason", attributes.get("finish_reason")))
            whole = said if isinstance(said, dict) else body if said is None else {"content": said}
            output.append(orjson.dumps({"role": "assistant", **whole}))
        elif name == "gen_ai.content.prompt":
            messages += of_attribute(attributes.get("gen_ai.prompt"), "user")[0]
        elif name == "gen_ai.content.completion":
            output += of_attribute(attributes.get("gen_ai.completion"), "assistant")[0]
    return messages, output, finish_reason


def _body(attributes: Attributes) -> dict[str, Any]:
    """An event's body: its JSON in one attribute, or its fields as attributes."""
    body = _loaded(attributes.get(_EVENT_BODY))
    if body is not None:
        return body if isinstance(body, dict) else {"content": body}
    fields = {name: attributes[name] for name in _EVENT_FIELDS if name in attributes}
    fields |= {name: attributes[f"gen_ai.{name}"] for name in _EVENT_FIELDS if f"gen_ai.{name}" in attributes}
    for name in ("tool_calls", "parts"):
        if name in fields:
            fields[name] = _loaded(fields[name])
    return fields


def _loaded(held: Any) -> Any:
    """The value of a JSON text; a text that is none stays one."""
    if not isinstance(held, str) or held[:1] not in ("{", "["):
        return held
    try:
        return loads(embedded(held))
    except Unreadable as error:
        if error.reason == "too_deep":
            raise
        return held


def of_numbered(attributes: Attributes) -> tuple[Raws, Raws]:
    """Messages and answers of attributes such as `gen_ai.prompt.0.content` and `….tool_calls.0.name`."""
    found: dict[str, dict[int, dict[str, Any]]] = {"prompt": {}, "completion": {}}
    for name, held in attributes.items():
        if not (match := _NUMBERED.fullmatch(name)):
            continue
        message = found[match[1]].setdefault(int(match[2]), {"role": "user" if match[1] == "prompt" else "assistant"})
        if match[3] is None:
            message[match[4]] = _loaded(held) if match[4] == "content" else held
        else:
            message.setdefault("calls", {}).setdefault(int(match[3]), {})[match[4]] = held
    return _ordered(found["prompt"]), _ordered(found["completion"])


def _ordered(messages: dict[int, dict[str, Any]]) -> Raws:
    raws = []
    for _, message in sorted(messages.items()):
        calls = message.pop("calls", None)
        if calls:
            message["tool_calls"] = [call for _, call in sorted(calls.items())]
        raws.append(orjson.dumps(message))
    return raws
