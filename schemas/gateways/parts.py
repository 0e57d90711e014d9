"""Pieces of content, as OpenAI, Anthropic and OpenTelemetry write them, as parts of the normal form.

What is not known stays visible as text, so that nothing goes unscored for being new.
"""

from __future__ import annotations

from hashlib import sha256
from typing import Any

import orjson

from schemas.event import ContentState, Role
from schemas.gateways.call import RawMessage, Unreadable, text_of

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
    "observation": "tool",
    "tool_response": "tool",
    "tool_result": "tool",
    "environment": "tool",
    "retrieval": "tool",
}
_AUDIO = {"wav": "audio/wav", "mp3": "audio/mpeg"}
_TEXT_KINDS = (None, "text", "refusal", "input_text", "output_text", "summary_text", "reasoning_text")
_TEXT_NAMES = ("text", "refusal", "input_text", "output_text")
_REFERENCES = ("image_url", "input_image", "video_url", "image", "file", "input_file", "document")
Parts = list[dict[str, str]]


def role_of(named: Any) -> Role:
    """The role called `named`; a user's when it is unknown, since whoever it is may be an attacker.

    >>> role_of("developer"), role_of("Model"), role_of("wizard"), role_of(None)
    ('developer', 'assistant', 'user', 'user')
    """
    return (_ROLES.get(named) or _ROLES.get(named.lower(), "user")) if isinstance(named, str) else "user"


def checked(role: Role, parts: Parts) -> RawMessage:
    """A message of `parts`, without what a gateway cut out or off, which is not content."""
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


def texts(text: Any) -> Parts:
    """One text part; none of what is no text, or empty."""
    return [{"type": "text", "text": text}] if isinstance(text, str) and text else []


def json_text(value: Any) -> str:
    """`value` as JSON with sorted keys.

    Raises
    ------
    Unreadable
        `too_deep`, beyond what `ingest.depth_max` lets pass by default.
    """
    try:
        return orjson.dumps(value, option=orjson.OPT_SORT_KEYS).decode()
    except orjson.JSONEncodeError as error:  # numbers were seen to when it was read
        raise Unreadable("too_deep", "JSON nests deeper than can be written") from error


def content(held: Any) -> Parts:
    """Parts of a message's content: a text, a piece, or pieces."""
    if isinstance(held, str):
        return texts(held)
    if isinstance(held, dict):
        return _piece(held)
    if isinstance(held, list):
        return [part for piece in held for part in (_piece(piece) if isinstance(piece, dict) else content(piece))]
    return [] if held is None else texts(json_text(held))


def _piece(piece: dict[str, Any]) -> Parts:
    """Parts of one piece of a content array."""
    kind = piece.get("type")
    if kind is None or kind in _TEXT_KINDS:
        for name in _TEXT_NAMES:
            if isinstance(piece.get(name), str):
                return texts(piece[name])
    if kind in _REFERENCES:
        return _reference(piece, str(kind))
    if kind == "input_audio" and isinstance(piece.get("input_audio"), dict):
        audio = piece["input_audio"]
        form = str(audio.get("format") or "wav")
        return [blob(str(audio.get("data") or ""), _AUDIO.get(form, f"audio/{form}"))]
    if kind in ("thinking", "reasoning") and isinstance(thought := piece.get("thinking", piece.get("text")), str):
        return [{"type": "reasoning", "text": thought}]
    if kind == "redacted_thinking":
        return [{"type": "reasoning"}]  # ciphertext for the provider alone
    if isinstance(kind, str) and kind.endswith("tool_use"):  # server_tool_use and mcp_tool_use too
        return [tool_call(text_of(piece.get("id")), text_of(piece.get("name")), piece.get("input"))]
    if isinstance(kind, str) and kind.endswith("tool_result"):
        return tool_result({"tool_call_id": piece.get("tool_use_id")}, piece.get("content"))
    if kind == "search_result" and isinstance(piece.get("content"), list):
        return [*texts(piece.get("title")), *texts(piece.get("source")), *content(piece["content"])]
    return texts(json_text(piece))


def _reference(piece: dict[str, Any], kind: str) -> Parts:
    """An image, a video or a file: where it lies, or what it is when it was sent along."""
    held = piece.get(kind, piece.get("image_url", piece.get("source", piece)))
    if isinstance(held, str):
        held = {"url": held}
    if not isinstance(held, dict):
        return texts(json_text(piece))
    if kind == "document" and held.get("type") in ("text", "content"):
        # A document that the model reads as text is text.
        return [*texts(piece.get("title")), *content(held.get("data", held.get("content")))]
    sent = held.get("file_data") or held.get("data")
    where = held.get("url") or held.get("file_url") or sent or held.get("file_id")
    if not isinstance(where, str):
        return texts(json_text(piece))
    sent_along, by_id = where is sent, where is held.get("file_id")
    mime = text_of(held.get("media_type") or held.get("mime_type") or held.get("format"))
    name = text_of(held.get("filename") or held.get("name"))
    if where.startswith("data:"):
        head, _, body = where.partition(",")
        part: dict[str, str] = blob(body, head[5:].split(";")[0] or mime or "application/octet-stream")
    elif sent_along:
        part = blob(where, mime or "application/octet-stream")
    elif by_id:
        part = {"type": "file", "uri": where}
    else:
        part = {"type": "uri", "uri": where}
    if mime and "mime_type" not in part:
        part["mime_type"] = mime
    if name:
        part["name"] = name
    return [part]


def blob(data: str, mime: str) -> dict[str, str]:
    """Bytes sent along are named, not kept: by the digest of their text and its length."""
    text = data.encode()
    return {"type": "blob", "mime_type": mime, "uri": f"sha256:{sha256(text).hexdigest()};bytes={len(text)}"}


def tool_call(call_id: str | None, name: str | None, arguments: Any) -> dict[str, str]:
    """A call of a tool; arguments that are no text are written as JSON."""
    if not isinstance(arguments, str):
        arguments = "{}" if arguments is None else json_text(arguments)
    part = {"type": "tool_call", "name": name or "", "arguments": arguments or "{}"}
    if call_id:
        part["id"] = call_id
    return part


def tool_result(message: dict[str, Any], held: Any) -> Parts:
    """A tool's answer `held`: its text in one part, what is no text in parts of its own.

    `message` names the call, by `tool_call_id` or `id`, and the tool.
    """
    parts = content(held)
    text = "\n".join(part["text"] for part in parts if part["type"] == "text")
    result = {"type": "tool_call_response", "response": text}
    if (call_id := text_of(message.get("tool_call_id") or message.get("id"))) is not None:
        result["id"] = call_id
    if (name := text_of(message.get("name"))) is not None:
        result["name"] = name
    return [result, *(part for part in parts if part["type"] != "text")]
