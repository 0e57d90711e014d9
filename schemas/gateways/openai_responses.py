"""OpenAI Responses: items in, items out.

What a model says in one turn is several items: reasoning, calls, a message. Elsewhere it is one message; so it is here,
or the same conversation would have other digests behind another gateway.
"""

from __future__ import annotations

from typing import Any

import msgspec

from schemas.gateways.call import RawMessage, text_of
from schemas.gateways.openai_chat import message_of as chat_message_of
from schemas.gateways.parts import Parts, blob, checked, content, json_text, role_of, texts, tool_call, tool_result
from schemas.undecodable import UNDECODABLE

MARK = b'"call_id"'
"""In the JSON of every call and output; other dialects call it otherwise."""
_OWN = ("id", "type", "status", "call_id", "name", "output", "outputs", "results", "result", "error", "created_by")
"""Fields of a call's item that are no arguments."""
_KINDS = (
    "reasoning",
    "item_reference",
    "compaction",
    "mcp_list_tools",
    "mcp_approval_request",
    "mcp_approval_response",
)


_NAMED = ("function_call", "custom_tool_call", "mcp_call")
"""Calls of the client's tools; the type of another one is its tool's name."""


class _Item(msgspec.Struct, gc=False):
    role: Any = None
    type: Any = None


_ITEM = msgspec.json.Decoder(_Item)
_NO_ITEM = _Item()


def is_item(kind: Any) -> bool:
    """Whether `kind` is the type of an item that is no message.

    >>> is_item("function_call"), is_item("function_call_output"), is_item("message"), is_item(None)
    (True, True, False, False)
    """
    return isinstance(kind, str) and (kind.endswith(("_call", "_call_output")) or kind in _KINDS)


def turns(items: list[bytes]) -> list[bytes]:
    """`items` as messages: the JSON of one, or of a list of those that make up one turn of the model.

    A turn has at most one text. Where a turn of calls alone follows one of a text alone, nothing tells them apart.

    >>> turns([b'{"role":"user"}', b'{"type":"reasoning"}', b'{"type":"function_call"}'])
    [b'{"role":"user"}', b'[{"type":"reasoning"},{"type":"function_call"}]']
    """
    messages: list[bytes] = []
    turn: list[bytes] = []
    says = False
    for item in items:
        head = _head(item)
        is_text = head.role == "assistant"
        if not is_text and (head.role is not None or not _is_models(head.type)):
            _close(turn, messages)
            messages.append(item)
            says = False
            continue
        if is_text and says:
            _close(turn, messages)
        says = is_text or (says and bool(turn))
        turn.append(item)
    _close(turn, messages)
    return messages


def _close(turn: list[bytes], messages: list[bytes]) -> None:
    if turn:
        messages.append(turn[0] if len(turn) == 1 else b"[%b]" % b",".join(turn))
        turn.clear()


def _head(item: bytes) -> _Item:
    try:
        return _ITEM.decode(item)
    except UNDECODABLE:
        return _NO_ITEM


def _is_models(kind: Any) -> bool:
    return is_item(kind) and not kind.endswith("_output") and kind != "mcp_approval_response"


def turn_message(items: list[Any]) -> RawMessage:
    """The model's message of the decoded `items` of one turn."""
    return checked("assistant", [part for item in items for part in _parts(item)])


def item_message(item: dict[str, Any]) -> RawMessage:
    """The message of one decoded item that is no message itself."""
    kind = str(item.get("type"))
    if kind.endswith("_call_output"):
        return checked("tool", tool_result({"tool_call_id": item.get("call_id")}, _output(item.get("output"))))
    if kind == "mcp_approval_response":
        return checked("user", texts(json_text(item)))
    return checked("assistant", _parts(item))


def _parts(item: Any) -> Parts:
    """Parts of one item of the model's."""
    if not isinstance(item, dict):
        return content(item)
    kind = item.get("type")
    if not is_item(kind):
        return chat_message_of({**item, "role": role_of(item.get("role") or "assistant")}).parts
    if kind == "reasoning":
        thoughts = [*content(item.get("summary")), *content(item.get("content"))]
        return [{"type": "reasoning", "text": part["text"]} for part in thoughts if "text" in part]
    if kind in ("item_reference", "compaction"):
        return []  # what the provider keeps, or can read alone
    if kind in ("mcp_list_tools", "mcp_approval_response"):
        return texts(json_text(item))
    return _call(item, str(kind))


def _call(item: dict[str, Any], kind: str) -> Parts:
    """A call, and what came of it where the provider ran the tool itself."""
    arguments = item.get("arguments", item.get("input"))
    if arguments is None:
        arguments = {name: held for name, held in item.items() if name not in _OWN}
    call_id = text_of(item.get("call_id")) or text_of(item.get("id"))
    name = text_of(item.get("name")) or ("" if kind in _NAMED else kind.removesuffix("_call"))
    parts: Parts = [tool_call(call_id, name, arguments)]
    if kind == "image_generation_call":
        return [*parts, blob(str(item["result"]), "image/png")] if item.get("result") else parts
    given = [item[field] for field in ("output", "outputs", "results", "error") if item.get(field)]
    if given:
        parts += tool_result({"tool_call_id": call_id}, _output(given[0] if len(given) == 1 else given))
    return parts


def _output(held: Any) -> Any:
    """A tool's output as a message's content; a picture of a screen is a picture."""
    if isinstance(held, dict) and held.get("type") == "computer_screenshot":
        return [{**held, "type": "input_image"}]
    return held
