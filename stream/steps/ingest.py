"""The ingest step: gateway records in; normalised, redacted, routed events and dead letters out."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from hashlib import sha256
from ipaddress import ip_address
from typing import Any

import orjson

from schemas.event import ContentState
from schemas.gateways.call import GatewayCall, Unreadable
from schemas.gateways.detect import format_of
from stream.errors import DecodeError
from stream.record import DeadLetter, OutRecord, Record
from stream.steps.decode_gateway import MessageCache, ReadyMessage, decode_record
from stream.steps.identify import Tenants, event_id, session_of
from stream.steps.redact import Redactor
from stream.steps.route import Router

_DECODING = "VALUE_CONVERTER"
_IDENTIFYING = "TRANSFORMATION"
"""Stages in Kafka Connect's words."""

_ID_BYTES = 512
_NAME_BYTES = 256
_NAMES_MAX = 128
"""Limits of identifiers, and of names in a list: what is derived from an event (keys, scores, findings) repeats them
and has to fit topics whose records are far smaller than a gateway's."""
_HASH_CHARS = 32

_WORST: dict[ContentState, int] = {"full": 0, "truncated": 1, "redacted": 2, "external": 3}


@dataclass(slots=True)
class IngestOutcome:
    """What became of a batch of records, each list in the records' order."""

    events: list[OutRecord] = field(default_factory=list)
    dead_letters: list[DeadLetter] = field(default_factory=list)
    skipped: dict[str, int] = field(default_factory=dict)
    """What is no call of a model, counted by what it is: `schemas.gateways.call.Other`."""


class IngestStep:
    """Turns gateway records into events.

    Parameters
    ----------
    router
        Places events.
    format
        One of `schemas.gateways.detect.NAMES`.
    policy
        `redaction.policy`.
    depth_max, bytes_max
        `ingest.depth_max` and `ingest.bytes_max`: deepest nesting, and bytes of the largest record and event.
    tenant_field, tenant_default
        `ingest.tenant_field` and `ingest.tenant_default`.
    cache_bytes
        Memory for messages seen before.
    """

    def __init__(
        self,
        router: Router,
        *,
        format: str = "auto",
        policy: str = "standard",
        depth_max: int = 64,
        bytes_max: int = 8 << 20,
        tenant_field: str = "",
        tenant_default: str = "unassigned",
        cache_bytes: int = 64 << 20,
    ) -> None:
        self._router = router
        self._format = format_of(format)
        self._redactor = Redactor(policy)
        self._messages = MessageCache(self._redactor, cache_bytes)
        self._tenants = Tenants(tenant_field, tenant_default)
        self._depth_max = depth_max
        self._bytes_max = bytes_max
        # Sessions come and go all the time: whatever the bound is, it is reached.
        self._identifier = lru_cache(maxsize=16_384)(self._redact_identifier)

    def step(self, records: Sequence[Record]) -> IngestOutcome:
        """Events and dead letters of `records`; the same ones however the records fall into batches."""
        outcome = IngestOutcome()
        for record in records:
            try:
                self._read(record, outcome)
            except DecodeError as error:
                stage = _IDENTIFYING if error.reason == "no_tenant" else _DECODING
                kind = type(error)
                message = f"{record.position}: {error}"
                outcome.dead_letters.append(
                    DeadLetter(record, error.reason, message, stage, f"{kind.__module__}.{kind.__qualname__}")
                )
        return outcome

    def _read(self, record: Record, outcome: IngestOutcome) -> None:
        """Append the events of `record`, which may be many.

        What can be read of it becomes events. The rest is one dead letter, the whole record, that tells the first
        reason: sent again, its good part has the same event ids and counts as duplicates.
        """
        value = record.value
        if not value:
            raise DecodeError("undecodable", "the record must hold JSON or OTLP; got no value")
        if len(value) > self._bytes_max:
            raise DecodeError(
                "oversized", f"the record must be at most {self._bytes_max} bytes (ingest.bytes_max); got {len(value)}"
            )
        decoded = decode_record(value, self._format, self._depth_max)
        refused = decoded.unreadable
        parts = len(decoded.calls) + len(refused)
        for raw, call in decoded.calls:
            try:
                outcome.events.append(self._event(record, raw, call))
            except DecodeError as error:
                refused.append(error)
        for what, count in decoded.skipped.items():
            outcome.skipped[what] = outcome.skipped.get(what, 0) + count
        if refused:
            first = refused[0]
            raise (
                first
                if parts == 1
                else DecodeError(
                    first.reason, f"{len(refused)} of {parts} calls in the record cannot be read, the first: {first}"
                )
            )

    def _event(self, record: Record, raw: bytes, call: GatewayCall) -> OutRecord:
        tenant = _clipped(self._tenants.tenant_of(call, raw))
        raw_sha256 = sha256(raw).hexdigest()
        identity = event_id(call, raw_sha256)
        try:
            messages = self._messages.ready(call.messages, call.parse)
            output = self._messages.ready(call.output, call.parse)
        except Unreadable as error:
            raise DecodeError(error.reason, str(error)) from error
        counts: dict[str, int] = {}
        session, session_source = session_of(call, tenant, messages)
        if session_source != "derived":
            session = self._id(session, counts) or session
        value = _encode(
            call,
            record,
            event_id=identity,
            tenant=tenant,
            session=session,
            session_source=session_source,
            raw_sha256=raw_sha256,
            messages=messages,
            output=output,
            policy=self._redactor.policy,
            counts=counts,
            trace_id=self._id(call.trace_id, counts),
            user=self._id(call.user, counts),
            end_user=self._id(call.end_user, counts),
            user_agent=self._id(call.user_agent, counts),
        )
        if len(value) > self._bytes_max:
            raise DecodeError(
                "oversized", f"the event must be at most {self._bytes_max} bytes (ingest.bytes_max); got {len(value)}"
            )
        key, partition = self._router.route(tenant, session)
        source = (record.topic, record.partition, record.offset)
        return OutRecord(partition, key, value, source, identity, record.traceparent)

    def _id(self, text: str | None, counts: dict[str, int]) -> str | None:
        if text is None:
            return None
        # Long ones are not remembered: there is room for many identifiers, not for many megabytes.
        redacted, kind = self._identifier(text) if len(text) <= _ID_BYTES else self._redact_identifier(text)
        if kind:
            counts[kind] = counts.get(kind, 0) + 1
        return redacted

    def _redact_identifier(self, text: str) -> tuple[str, str]:
        counts: dict[str, int] = {}
        # Redacted first: an address cut in two would no longer be found.
        return _clipped(self._redactor.identifier(text, counts)), next(iter(counts), "")


def _encode(
    call: GatewayCall,
    record: Record,
    *,
    event_id: str,
    tenant: str,
    session: str,
    session_source: str,
    raw_sha256: str,
    messages: list[ReadyMessage],
    output: list[ReadyMessage],
    policy: str,
    counts: dict[str, int],
    trace_id: str | None,
    user: str | None,
    end_user: str | None,
    user_agent: str | None,
) -> bytes:
    """The event's JSON: fields without a value are left out, but for `key_hash`."""
    state = call.content_state
    for message in messages + output if messages or output else ():
        for kind, count in message.counts:
            counts[kind] = counts.get(kind, 0) + count
        if _WORST[message.content] > _WORST[state]:
            state = message.content
    answered = [message.json for message in output if not message.empty]
    event: dict[str, Any] = {
        "completion_tokens": call.completion_tokens,
        "content_state": state,
        "cost_usd": call.cost_usd,
        "duration_ms": call.duration_ms,
        "end_user": end_user,
        "error_class": _clip(call.error_class),
        "error_code": _clip(call.error_code),
        "event_id": event_id,
        "event_time_ms": call.event_time_ms,
        "finish_reason": _clip(call.finish_reason),
        "guardrails": _names(call.guardrails) or None,
        "history_complete": (call.history_complete and state == "full" and bool(messages)) or None,
        "ip": _address(call.ip[:_ID_BYTES]) if call.ip else None,
        "messages": orjson.Fragment(b"[%b]" % b",".join([message.json for message in messages])),
        "model_requested": _clip(call.model_requested),
        "model_served": _clip(call.model_served),
        "operation": _clip(call.operation),
        "output": orjson.Fragment(b"[%b]" % b",".join(answered)) if answered else None,
        "prompt_tokens": call.prompt_tokens,
        "provider": _clip(call.provider),
        "redaction": {"counts": counts, "policy": policy},
        "session": session,
        "session_source": session_source,
        "source": {
            "gateway": call.gateway,
            "offset": record.offset,
            "partition": record.partition,
            "raw_sha256": raw_sha256,
            "topic": record.topic,
        },
        "status": call.status,
        "stream": call.stream,
        "tenant": tenant,
        "tools": _names(call.tools) or None,
        "total_tokens": call.total_tokens,
        "trace_id": trace_id,
        "ttft_ms": call.ttft_ms,
        "user": user,
        "user_agent": user_agent,
    }
    event = {name: value for name, value in event.items() if value is not None}
    event["key_hash"] = _clip(call.key_hash)
    return orjson.dumps(event, option=orjson.OPT_SORT_KEYS)


def _clipped(text: str, bytes_max: int = _ID_BYTES) -> str:
    """`text`, or when it is longer than `bytes_max` its beginning and a hash, so that different ones stay different."""
    if len(text) * 4 <= bytes_max or len(data := text.encode()) <= bytes_max:
        return text
    kept = data[: bytes_max - _HASH_CHARS - len("…".encode())].decode(errors="ignore")
    return f"{kept}…{sha256(data).hexdigest()[:_HASH_CHARS]}"


def _clip(text: str | None) -> str | None:
    return None if text is None else _clipped(text)


def _names(names: tuple[str, ...]) -> tuple[str, ...]:
    return tuple(_clipped(name, _NAME_BYTES) for name in names[:_NAMES_MAX])


@lru_cache(maxsize=65_536)
def _address(text: str) -> str | None:
    """The client's address: the first of those that proxies passed on; None when it is none."""
    first = text.split(",", maxsplit=1)[0].strip()
    try:
        return str(ip_address(first))
    except ValueError:
        return None
