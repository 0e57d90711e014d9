"""OpenAI Chat messages, as LiteLLM logs them for every provider, in the normal form.

Content that was sent in pieces, calls in the old and the new way, Anthropic's pieces where a gateway passes them on.
What is not known stays visible as text, so that nothing goes unscored for being new.
"""

from __future__ import annotations

from hashlib import sha256
from typing import Any

import orjson

from schemas.event import ContentState, Role
from schemas.gateways.call import RawMessage, text_of
from schemas.gateways.repair import loads

REDACTED = "redacted-by-litellm"
_TRUNCATED = ("truncated by litellm", "litellm_truncated")

_ROLES: dict[str, Role] = {
    "system": "system",
    "developer": "developer",
    "user": "user",
    "human": "user",
    "assistant": "assistant",
    "model": "assistant",
    "ai": "assistant",
    "tool": "tool",
    "function": "tool",
    "ipython": "tool",
}
_AUDIO = {"wav": "audio/wav", "mp3": "audio/mpeg"}
Parts = list[dict[str, str]]


def parse_message(raw: bytes) -> RawMessage:
    """The message in `raw`: JSON of an OpenAI Chat message, or of a bare text.

    Raises
    ------
    Unreadable
        When it is no JSON.
    """
    value = loads(raw)
    if not isinstance(value, dict):
        text = value if isinstance(value, str) else "" if value is None else _json(value)
        return _checked("user", _texts(text))
    return message_of(value)


def message_of(message: dict[str, Any]) -> RawMessage:
    """The normal form of a decoded OpenAI Chat message."""
    named = message.get("role")
    role = _ROLES.get(named) if isinstance(named, str) else "user"
    if role is None:
        role = _ROLES.get(str(named).lower(), "user")
    content = message.get("content")
    if role == "tool":
        return _checked(role, _tool_result(message, content))
    parts: Parts = []
    reasoning = message.get("reasoning_content") or message.get("reasoning")
    if isinstance(reasoning, str) and reasoning != REDACTED:
        parts.append({"type": "reasoning", "text": reasoning})
    parts += _content(content)
    refusal = message.get("refusal")
    if isinstance(refusal, str):
        parts += _texts(refusal)
    audio = message.get("audio")
    if isinstance(audio, dict):
        parts += _texts(audio.get("transcript"))
    parts += _calls(message)
    if content is None and not parts and "role" not in message:
        parts = _texts(_json(message))
    return _checked(role, parts)


def _checked(role: Role, parts: Parts) -> RawMessage:
    """What a gateway cut out or off is not content."""
    state: ContentState = "full"
    kept = []
    for part in parts:
        text = part.get("text", part.get("response", ""))
        if text == REDACTED:
            state = "redacted"
            continue
        if "litellm" in text and any(mark in text[:64] or mark in text[-96:] for mark in _TRUNCATED):
            state = "truncated" if state == "full" else state
        kept.append(part)
    if kept and role == "user" and all(part["type"] == "tool_call_response" for part in kept):
        role = "tool"
    return RawMessage(role, kept, state)


def _texts(text: Any) -> Parts:
    return [{"type": "text", "text": text}] if isinstance(text, str) and text else []


def _json(value: Any) -> str:
    return orjson.dumps(value, option=orjson.OPT_SORT_KEYS).decode()


def _content(content: Any) -> Parts:
    if isinstance(content, str):
        return _texts(content)
    if isinstance(content, dict):
        return _piece(content)
    if isinstance(content, list):
        return [part for piece in content for part in _piece(piece)]
    return [] if content is None else _texts(_json(content))


def _piece(piece: Any) -> Parts:
    """Parts of one piece of a content array."""
    if not isinstance(piece, dict):
        return _content(piece)
    kind = piece.get("type")
    for name in ("text", "refusal", "input_text", "output_text"):
        if isinstance(piece.get(name), str) and kind in (None, "text", "refusal", "input_text", "output_text"):
            return _texts(piece[name])
    if kind in ("image_url", "input_image", "video_url", "image", "file", "input_file", "document"):
        return _reference(piece, kind)
    if kind == "input_audio" and isinstance(piece.get("input_audio"), dict):
        audio = piece["input_audio"]
        form = str(audio.get("format") or "wav")
        return [_blob(str(audio.get("data") or ""), _AUDIO.get(form, f"audio/{form}"))]
    if kind in ("thinking", "reasoning") and isinstance(thought := piece.get("thinking", piece.get("text")), str):
        return [{"type": "reasoning", "text": thought}]
    if kind == "tool_use":
        return [_call(text_of(piece.get("id")), text_of(piece.get("name")), piece.get("input"))]
    if kind == "tool_result":
        return _tool_result({"tool_call_id": piece.get("tool_use_id")}, piece.get("content"))
    return _texts(_json(piece))


def _reference(piece: dict[str, Any], kind: str) -> Parts:
    """An image, a video or a file: where it lies, or what it is when it was sent along."""
    held = piece.get(kind, piece.get("image_url", piece.get("source", piece)))
    if isinstance(held, str):
        held = {"url": held}
    if not isinstance(held, dict):
        return _texts(_json(piece))
    sent = held.get("file_data") or held.get("data")
    where = held.get("url") or sent or held.get("file_id")
    if not isinstance(where, str):
        return _texts(_json(piece))
    sent_along, by_id = where is sent, where is held.get("file_id")
    mime = text_of(held.get("media_type") or held.get("mime_type") or held.get("format"))
    name = text_of(held.get("filename") or held.get("name"))
    if where.startswith("data:"):
        head, _, body = where.partition(",")
        part: dict[str, str] = _blob(body, head[5:].split(";")[0] or mime or "application/octet-stream")
    elif sent_along:
        part = _blob(where, mime or "application/octet-stream")
    elif by_id:
        part = {"type": "file", "uri": where}
    else:
        part = {"type": "uri", "uri": where}
    if mime and "mime_type" not in part:
        part["mime_type"] = mime
    if name:
        part["name"] = name
    return [part]


def _blob(data: str, mime: str) -> dict[str, str]:
    """Bytes sent along are named, not kept: by the digest of their text and its length."""
    text = data.encode()
    return {"type": "blob", "mime_type": mime, "uri": f"sha256:{sha256(text).hexdigest()};bytes={len(text)}"}


def _calls(message: dict[str, Any]) -> Parts:
    parts: Parts = []
    calls = message.get("tool_calls")
    for call in calls if isinstance(calls, list) else ():
        if not isinstance(call, dict):
            parts += _texts(_json(call))
            continue
        function = call.get("function", call.get("custom"))
        held = function if isinstance(function, dict) else call
        arguments = held.get("arguments", held.get("input"))
        parts.append(_call(text_of(call.get("id")), text_of(held.get("name")), arguments))
    function = message.get("function_call")
    if isinstance(function, dict) and (function.get("name") or function.get("arguments")):
        parts.append(_call(None, text_of(function.get("name")), function.get("arguments")))
    return parts


def _call(call_id: str | None, name: str | None, arguments: Any) -> dict[str, str]:
    if not isinstance(arguments, str):
        arguments = "{}" if arguments is None else _json(arguments)
    part = {"type": "tool_call", "name": name or "", "arguments": arguments or "{}"}
    if call_id:
        part["id"] = call_id
    return part


def _tool_result(message: dict[str, Any], content: Any) -> Parts:
    """A tool's answer: its text in one part, what is no text in parts of its own."""
    parts = _content(content)
    text = "\n".join(part["text"] for part in parts if part["type"] == "text")
    result = {"type": "tool_call_response", "response": text}
    if (call_id := text_of(message.get("tool_call_id") or message.get("id"))) is not None:
        result["id"] = call_id
    if (name := text_of(message.get("name"))) is not None:
        result["name"] = name
    return [result, *(part for part in parts if part["type"] != "text")]
