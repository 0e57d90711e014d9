"""A message's digest: by it a session recognises the history that a gateway sends again with every call."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from hashlib import blake2b

import orjson

from schemas.event import Part


def message_digest(role: str, parts: Sequence[Part]) -> str:
    """Digest of a message, 32 hex digits of blake2b.

    Tool call ids are left out, since gateways renew them; reasoning is left out, since clients do not send it back.
    So an answer has one digest as `output` and as history in the next call.

    >>> message_digest("user", [Part("text", text="hi")])
    'b2aef0f47595ae23b153b9b4284c53cf'
    >>> call = Part("tool_call", id="call_1", name="f", arguments="{}")
    >>> again = Part("tool_call", id="call_2", name="f", arguments="{}")
    >>> message_digest("assistant", [call]) == message_digest("assistant", [Part("reasoning", text="hm"), again])
    True
    """
    return plain_digest(role, [plain(part) for part in parts])


def plain(part: Part) -> dict[str, str]:
    """The fields of a part that have a value, as its JSON shows them."""
    fields: dict[str, str] = {"type": part.type}
    for name in part.__struct_fields__[1:]:
        value = getattr(part, name)
        if value is not None:
            fields[name] = value
    return fields


def plain_digest(role: str, parts: Sequence[Mapping[str, str]]) -> str:
    """As `message_digest`, of parts that are mappings of their JSON fields."""
    told = [
        {name: value for name, value in part.items() if name != "id"} if "id" in part else part
        for part in parts
        if part["type"] != "reasoning"
    ]
    return blake2b(orjson.dumps([role, told], option=orjson.OPT_SORT_KEYS), digest_size=16).hexdigest()
