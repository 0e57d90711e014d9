"""Labelled conversations, one a line, and the gateway calls that they stand for.

The layout is that of public agent and dialogue corpora brought into one shape. Everything but the turns may be missing,
and what recorded agents leave behind (tool calls without name or arguments, results that are the text "None",
conversations without an answer) is data here, no error.
"""

from __future__ import annotations

import json
from hashlib import blake2b
from typing import Any, Literal

import msgspec
import orjson

from schemas.undecodable import UNDECODABLE

_MS_MAX = 2**53
TurnRole = Literal["system", "user", "assistant", "tool"]

_ROLES: dict[str, TurnRole] = {
    "system": "system",
    "developer": "system",
    "user": "user",
    "human": "user",
    "assistant": "assistant",
    "ai": "assistant",
    "gpt": "assistant",
    "tool": "tool",
    "function": "tool",
    "observation": "tool",
    "tool_result": "tool",
    "tool_response": "tool",
    "environment": "tool",
    "retrieval": "tool",
}
_BOM = b"\xef\xbb\xbf"


class ToolCall(msgspec.Struct, frozen=True):
    """A call that an assistant's turn makes."""

    name: str
    """Empty where the source recorded none."""
    arguments: str
    """JSON text; "{}" where the source recorded none."""


class Turn(msgspec.Struct, frozen=True):
    """One message of a conversation."""

    role: TurnRole
    text: str = ""
    tool_calls: tuple[ToolCall, ...] = ()
    payload: bool = False
    """Whether the message carries the attack; truth about the data, which no record may show."""


class CorpusSession(msgspec.Struct, frozen=True, kw_only=True):
    """One conversation of one tenant."""

    session: str
    turns: tuple[Turn, ...]
    source: str | None = None
    tenant: str | None = None
    """None for an attack that no tenant has met yet."""
    label: str | None = None
    """"benign" or "attack"; None where nobody judged."""
    attack_family: str | None = None
    task: str | None = None
    """Sessions of equal task are one base conversation: split data by it."""
    lang: str | None = None
    model: str | None = None
    license: str | None = None
    key: str | None = None
    """Which of its tenant's API keys the session used."""
    network: str | None = None
    """Any name of a network that the key is not used from as a rule; None: its own."""
    agent: str | None = None
    """Any name of a user agent that the key is not used with as a rule; None: its own."""
    tools: dict[str, tuple[str, ...]] = {}
    """Tools offered with every call: name to argument names."""
    start_ms: int | None = None
    """Start of the first call, in ms since the epoch."""
    calls_ms: tuple[int, ...] = ()
    """Start of each call, in ms since the epoch; empty where no time is known."""


class Call(msgspec.Struct, frozen=True):
    """One request and response: turns `[0, history)` were sent, turn `history` came back if `answered`."""

    index: int
    new: int
    """First turn that no call before had seen, as request or as response."""
    history: int
    answered: bool


def decode_session(line: bytes) -> CorpusSession:
    """The conversation in one line of a corpus file.

    Raises
    ------
    ValueError
        When the line is no JSON object with a list of `turns`.

    Examples
    --------
    >>> s = decode_session(b'{"turns": [{"role": "assistant", "tool_calls": [{"name": null, "args": null}]}]}')
    >>> s.turns[0].tool_calls
    (ToolCall(name='', arguments='{}'),)
    """
    try:
        raw = _object(line.removeprefix(_BOM))
        turns = tuple(_turn(turn) for turn in msgspec.convert(raw.get("turns"), list[Any]) if isinstance(turn, dict))
    except (*UNDECODABLE, ValueError) as error:
        raise ValueError(
            f"a corpus line must be a JSON object with a list of turns; got {line[:60]!r}: {error}"
        ) from error
    calls_ms = raw.get("calls_ms")
    return CorpusSession(
        session=_text(raw.get("session")) or blake2b(line, digest_size=8).hexdigest(),
        turns=turns,
        source=_text(raw.get("source")),
        tenant=_text(raw.get("tenant")),
        label=(_text(raw.get("label")) or "").strip().lower() or None,
        attack_family=_text(raw.get("attack_family")),
        task=_text(raw.get("task")),
        lang=_text(raw.get("lang")),
        model=_text(raw.get("model")),
        license=_text(raw.get("license")),
        key=_text(raw.get("key")),
        tools=_tools(raw.get("tools")),
        start_ms=raw.get("start_ms") if _is_time(raw.get("start_ms")) else None,
        calls_ms=tuple(filter(_is_time, calls_ms)) if isinstance(calls_ms, list) else (),
    )


def is_session(line: bytes) -> bool:
    """Whether `line` looks like a corpus line rather than a gateway's record.

    >>> is_session(b'{"turns": []}'), is_session(b'{"messages": []}'), is_session(b"turns")
    (True, False, False)
    """
    try:
        return isinstance(_object(line.removeprefix(_BOM)).get("turns"), list)
    except (*UNDECODABLE, ValueError):
        return False


def calls(session: CorpusSession) -> list[Call]:
    """The gateway calls of `session`: each assistant turn closes one; trailing messages close one without an answer.

    >>> [(c.new, c.history, c.answered) for c in calls(CorpusSession(session="s", turns=(
    ...     Turn("user", "hi"), Turn("assistant", "hello"), Turn("user", "bye"))))]
    [(0, 1, True), (2, 3, False)]
    """
    found: list[Call] = []
    new = 0
    for position, turn in enumerate(session.turns):
        if turn.role == "assistant":
            found.append(Call(len(found), new, position, True))
            new = position + 1
    if new < len(session.turns):
        found.append(Call(len(found), new, len(session.turns), False))
    return found


_LINE = msgspec.json.Decoder(dict[str, Any])


def _object(line: bytes) -> dict[str, Any]:
    """What a line holds, also as Python's `json` writes it: with NaN, and halves of surrogate pairs."""
    try:
        return _LINE.decode(line)
    except msgspec.DecodeError:
        raw = json.loads(line)
        if not isinstance(raw, dict):
            raise
        whole: dict[str, Any] = _without_halves(raw)
        return whole


def _without_halves(value: Any) -> Any:
    if isinstance(value, str):
        return value.encode("utf-16-le", "surrogatepass").decode("utf-16-le", "replace")
    if isinstance(value, dict):
        return {_without_halves(key): _without_halves(own) for key, own in value.items()}
    return [_without_halves(own) for own in value] if isinstance(value, list) else value


def _turn(raw: dict[str, Any]) -> Turn:
    role = _ROLES.get(str(raw.get("role")).lower(), "user")
    made = raw.get("tool_calls")
    return Turn(
        role=role,
        text=_content(raw.get("text")),
        tool_calls=tuple(_tool_call(call) for call in made if isinstance(call, dict)) if isinstance(made, list) else (),
        payload=raw.get("payload") is True,
    )


def _tool_call(raw: dict[str, Any]) -> ToolCall:
    return ToolCall(_text(raw.get("name")) or "", "{}" if raw.get("args") is None else _content(raw["args"]))


def _tools(raw: object) -> dict[str, tuple[str, ...]]:
    if not isinstance(raw, dict):
        return {}
    return {
        name: tuple(argument for argument in arguments if isinstance(argument, str))
        for name, arguments in raw.items()
        if isinstance(arguments, list)
    }


def _text(raw: object) -> str | None:
    """A name, also one that is a number."""
    if isinstance(raw, int) and not isinstance(raw, bool):
        return str(raw)
    return raw if isinstance(raw, str) and raw else None


def _is_time(raw: object) -> bool:
    return isinstance(raw, int) and 0 <= raw < _MS_MAX


def _content(raw: object) -> str:
    if raw is None:
        return ""
    if isinstance(raw, str):
        return raw
    try:
        return orjson.dumps(raw).decode()
    except orjson.JSONEncodeError:
        return msgspec.json.encode(raw).decode()  # an integer beyond 64 bits
