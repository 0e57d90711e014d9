"""Anthropic Messages: what their messages and answers hold that OpenAI's do not.

A user's message may hold the results of several tools, and text after them. Elsewhere each result is a message of its
own; so it is here, or the same conversation would have other digests behind another gateway.
"""

from __future__ import annotations

from typing import Any

import msgspec

from schemas.gateways.call import RawMessage, text_of
from schemas.gateways.parts import checked, tool_result
from schemas.undecodable import UNDECODABLE

MARK = b'"tool_result"'
"""In the JSON of every message that has to be split; content cannot write it, since its quotes are escaped."""


class _Message(msgspec.Struct, gc=False):
    role: Any = None
    content: list[msgspec.Raw] | dict[str, Any] | str | float | bool | None = None


class _Block(msgspec.Struct, gc=False):
    type: Any = None


_MESSAGE = msgspec.json.Decoder(_Message)
_BLOCK = msgspec.json.Decoder(_Block)


def split(raw: bytes) -> list[bytes]:
    """The message `raw`, each result of a tool as a message of its own, in order.

    >>> split(b'{"role":"user","content":[{"type":"tool_result","tool_use_id":"t"},{"type":"text","text":"go on"}]}')
    [b'{"type":"tool_result","tool_use_id":"t"}', b'{"role":"user","content":[{"type":"text","text":"go on"}]}']
    """
    if MARK not in raw:
        return [raw]
    try:
        message = _MESSAGE.decode(raw)
    except UNDECODABLE:
        return [raw]
    if message.role != "user" or not isinstance(message.content, list):
        return [raw]
    messages: list[bytes] = []
    others: list[bytes] = []
    for block in map(bytes, message.content):
        if MARK in block and is_result(block):
            if others:
                messages.append(_user(others))
                others = []
            messages.append(block)
        else:
            others.append(block)
    if not messages:
        return [raw]
    return [*messages, _user(others)] if others else messages


def is_result(block: bytes) -> bool:
    """Whether the JSON `block` is a tool's result."""
    try:
        return bool(_BLOCK.decode(block).type == "tool_result")
    except UNDECODABLE:
        return False


def result_message(block: dict[str, Any]) -> RawMessage:
    """A tool's message of a decoded block `tool_result`, which may hold a text or blocks, and be an error."""
    named = {"tool_call_id": text_of(block.get("tool_use_id")) or text_of(block.get("tool_call_id"))}
    return checked("tool", tool_result(named, block.get("content")))


def _user(blocks: list[bytes]) -> bytes:
    return b'{"role":"user","content":[%b]}' % b",".join(blocks)
