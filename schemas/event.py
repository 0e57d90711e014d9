"""GatewayEvent v1: one call of a gateway, normalised and redacted, as it lies on `genai.gateway.events.v1`."""

from __future__ import annotations

from typing import Annotated, Literal

import msgspec

Role = Literal["system", "developer", "user", "assistant", "tool"]
PartType = Literal["text", "tool_call", "tool_call_response", "reasoning", "blob", "file", "uri"]
SessionSource = Literal["gateway", "trace", "derived"]
ContentState = Literal["full", "redacted", "truncated", "external"]
Status = Literal["success", "failure"]
Hex32 = Annotated[str, msgspec.Meta(pattern="^[0-9a-f]{32}$", max_length=32)]
Hex64 = Annotated[str, msgspec.Meta(pattern="^[0-9a-f]{64}$", max_length=64)]


class Part(msgspec.Struct, frozen=True, omit_defaults=True):
    """One piece of a message."""

    type: PartType
    text: str | None = None
    """Of `text` and `reasoning`."""
    id: str | None = None
    """The gateway's id of a tool call, on the call and on its response."""
    name: str | None = None
    """The tool's or the file's."""
    arguments: str | None = None
    """JSON text with sorted keys; as it came when it was no JSON."""
    response: str | None = None
    """What the tool gave back."""
    mime_type: str | None = None
    uri: str | None = None
    """Where a blob lies; a blob sent inline is named by its digest, `sha256:…`, and its size, `;bytes=…`."""


class Message(msgspec.Struct, frozen=True):
    """One message; equal `digest` means equal role and parts, but for tool call ids and reasoning."""

    role: Role
    digest: Hex32
    parts: list[Part]


class EventSource(msgspec.Struct, frozen=True):
    """Where the event came from."""

    gateway: str
    raw_sha256: Hex64
    topic: str
    partition: int
    offset: int


class Redaction(msgspec.Struct, frozen=True):
    """What redaction replaced, counted by kind over all messages and ids of the event."""

    policy: str
    counts: dict[str, int] = {}


class GatewayEvent(msgspec.Struct, frozen=True, omit_defaults=True, kw_only=True):
    """One call of a gateway.

    Fields without a value are absent from the JSON, but for `key_hash`, which is null.
    """

    event_id: Hex64
    tenant: str
    session: str
    session_source: SessionSource
    key_hash: str | None
    event_time_ms: int
    """When the request started, in ms since the epoch."""
    source: EventSource
    messages: list[Message]
    """The request's, in order, the whole history where the gateway sends it."""
    redaction: Redaction
    output: list[Message] = []
    """What the model answered; empty when it failed or the content is absent."""
    history_complete: bool = False
    content_state: ContentState = "full"
    trace_id: str | None = None
    user: str | None = None
    end_user: str | None = None
    ip: str | None = None
    user_agent: str | None = None
    provider: str | None = None
    model_requested: str | None = None
    model_served: str | None = None
    operation: str | None = None
    tools: list[str] = []
    """Names of the tools offered."""
    prompt_tokens: int | None = None
    completion_tokens: int | None = None
    total_tokens: int | None = None
    cost_usd: float | None = None
    duration_ms: float | None = None
    ttft_ms: float | None = None
    """Time to the first token."""
    stream: bool | None = None
    status: Status = "success"
    finish_reason: str | None = None
    error_code: str | None = None
    error_class: str | None = None
    guardrails: list[str] = []
    """Verdicts of the gateway's guardrails, `name:status`."""


_EVENT: msgspec.json.Decoder[GatewayEvent] = msgspec.json.Decoder(GatewayEvent)


def decode_event(value: bytes) -> GatewayEvent:
    """The event in `value`; the scorer reads less of it, by `schemas.event_head`.

    Raises
    ------
    msgspec.DecodeError
        When it is not JSON (or, as its subclass ValidationError, not a GatewayEvent).
    """
    return _EVENT.decode(value)
