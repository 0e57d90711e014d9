"""OpenAI Chat messages, as LiteLLM logs them for every provider, in the normal form.

Content that was sent in pieces, calls in the old and the new way, Anthropic's pieces where a gateway passes them on.
"""

from __future__ import annotations

from typing import Any

from schemas.gateways.call import RawMessage, text_of
from schemas.gateways.parts import REDACTED, Parts, checked, content, json_text, role_of, texts, tool_call, tool_result
from schemas.gateways.repair import loads


def parse_message(raw: bytes) -> RawMessage:
    """The message in `raw`: JSON of an OpenAI Chat message, or of a bare text.

    Raises
    ------
    Unreadable
        When it is no JSON.
    """
    value = loads(raw)
    return message_of(value) if isinstance(value, dict) else bare_text(value)


def bare_text(value: Any) -> RawMessage:
    """A user's message of a decoded JSON value that is no object: its text, or its JSON."""
    return checked("user", texts(value if isinstance(value, str) else "" if value is None else json_text(value)))


def message_of(message: dict[str, Any]) -> RawMessage:
    """The normal form of a decoded OpenAI Chat message."""
    role = role_of(message.get("role"))
    held = message.get("content")
    if role == "tool":
        return checked(role, tool_result(message, held))
    parts: Parts = []
    reasoning = message.get("reasoning_content") or message.get("reasoning")
    if isinstance(reasoning, str) and reasoning != REDACTED:
        parts.append({"type": "reasoning", "text": reasoning})
    parts += content(held)
    refusal = message.get("refusal")
    if isinstance(refusal, str):
        parts += texts(refusal)
    audio = message.get("audio")
    if isinstance(audio, dict):
        parts += texts(audio.get("transcript"))
    parts += calls(message)
    if held is None and not parts and "role" not in message:
        parts = texts(json_text(message))
    return checked(role, parts)


def calls(message: dict[str, Any]) -> Parts:
    """The calls that a message makes, in `tool_calls` and in the old `function_call`."""
    parts: Parts = []
    made = message.get("tool_calls")
    for call in made if isinstance(made, list) else ():
        if not isinstance(call, dict):
            parts += texts(json_text(call))
            continue
        function = call.get("function", call.get("custom"))
        held = function if isinstance(function, dict) else call
        arguments = held.get("arguments", held.get("input"))
        parts.append(tool_call(text_of(call.get("id")), text_of(held.get("name")), arguments))
    function = message.get("function_call")
    if isinstance(function, dict) and (function.get("name") or function.get("arguments")):
        parts.append(tool_call(None, text_of(function.get("name")), function.get("arguments")))
    return parts
