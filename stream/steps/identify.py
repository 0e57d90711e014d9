"""Who an event belongs to: its id, its tenant, its session.

Ids are hashes of JSON arrays, so that no value can pose as two. A gateway's own `id` is not used: it repeats across
users, and an attacker could be deduplicated away with it.
"""

from __future__ import annotations

from collections.abc import Sequence
from hashlib import sha256
from typing import Any

import msgspec
import orjson

from schemas.event import SessionSource
from schemas.gateways.call import GatewayCall, text_of
from schemas.gateways.repair import repair
from stream.errors import DecodeError
from stream.steps.decode_gateway import ReadyMessage


def event_id(call: GatewayCall, raw_sha256: str) -> str:
    """Id of the event, 64 hex digits: of what its gateway calls it, else of its bytes.

    A native record's own id of 64 hex digits is kept.
    """
    if call.event_id is not None:
        return call.event_id
    if call.identity is None:
        return raw_sha256
    return sha256(orjson.dumps([call.gateway, *call.identity])).hexdigest()


def session_of(call: GatewayCall, tenant: str, messages: Sequence[ReadyMessage]) -> tuple[str, SessionSource]:
    """The session, and where its name comes from.

    The gateway's; else the trace's; else derived, 32 hex digits of a hash over tenant, key, system prompt and first
    user message: a conversation whose history is sent with every call keeps these.
    """
    if call.session is not None:
        return call.session, call.session_source
    system = next((message.digest for message in messages if message.role in ("system", "developer")), None)
    user = next((message.digest for message in messages if message.role == "user"), None)
    name = orjson.dumps([tenant, call.key_hash, system, user])
    return sha256(name).hexdigest()[:32], "derived"


class Tenants:
    """Which tenant a call belongs to.

    Parameters
    ----------
    field
        `ingest.tenant_field`: path of the tenant in a record, dots between names, or the attribute of a span or its
        resource; empty: the gateway's own order.
    default
        `ingest.tenant_default`: tenant of a call that names none; empty: such a call is refused.
    """

    def __init__(self, field: str = "", default: str = "unassigned") -> None:
        self._field = field
        self._default = default
        self._depth = len(field.split("."))
        self._decoder = _reader(field.split(".")) if field else None

    def tenant_of(self, call: GatewayCall, raw: bytes) -> str:
        """The tenant of `call`, which was read from `raw`.

        Raises
        ------
        DecodeError
            `no_tenant` when nothing names one and there is no default.
        """
        if call.attributes is not None:
            tenant = call.tenant or text_of(call.attributes.get(self._field)) or call.tenant_fallback or self._default
        else:
            named = self._at_field(self._decoder, raw) if self._decoder else None
            tenant = named or call.tenant or self._default
        if not tenant:
            where = self._field or "the gateway's own fields"
            raise DecodeError(
                "no_tenant", f"{where} must name a tenant, since ingest.tenant_default is empty; got none"
            )
        return tenant

    def _at_field(self, decoder: msgspec.json.Decoder[Any], raw: bytes) -> str | None:
        try:
            value: Any = decoder.decode(raw)
        except msgspec.ValidationError:
            return None
        except msgspec.DecodeError:
            return self._at_field(decoder, repair(raw))
        for index in range(self._depth):
            value = getattr(value, f"f{index}", None)
        return text_of(value)


def _reader(names: list[str]) -> msgspec.json.Decoder[Any]:
    """A decoder of nothing but the field at path `names`."""
    kind: Any = Any
    for index in reversed(range(len(names))):
        name = f"f{index}"
        field = (name, kind if index == len(names) - 1 else kind | None, None)
        kind = msgspec.defstruct(f"At{index}", [field], rename={name: names[index]})
    return msgspec.json.Decoder(kind)
