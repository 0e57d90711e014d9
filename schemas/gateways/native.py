"""Native records: a GatewayEvent without what ingest fills in, for gateways that log to Tidegate by themselves."""

from __future__ import annotations

import re
from typing import Any, cast, get_args

import msgspec
import orjson

from schemas.event import ContentState, PartType, Role, SessionSource
from schemas.gateways import openai_chat
from schemas.gateways.call import (
    GatewayCall,
    RawMessage,
    Unreadable,
    amount_of,
    count_of,
    flag_of,
    is_time_ms,
    kind_of,
    text_of,
)
from schemas.gateways.repair import decode, loads

_EVENT_ID = re.compile("[0-9a-f]{64}")
_ROLES = get_args(Role)
_PART_TYPES = get_args(PartType)
_TEXT_FIELDS = ("text", "id", "name", "mime_type", "uri")


class _Record(msgspec.Struct, gc=False):
    event_time_ms: Any = msgspec.UNSET
    messages: list[msgspec.Raw] | dict[str, Any] | str | float | bool | None = None
    output: list[msgspec.Raw] | dict[str, Any] | str | float | bool | None = None
    event_id: Any = None
    tenant: Any = None
    session: Any = None
    session_source: Any = None
    key_hash: Any = None
    trace_id: Any = None
    span_id: Any = None
    user: Any = None
    end_user: Any = None
    ip: Any = None
    user_agent: Any = None
    provider: Any = None
    model_requested: Any = None
    model_served: Any = None
    operation: Any = None
    tools: Any = None
    prompt_tokens: Any = None
    completion_tokens: Any = None
    total_tokens: Any = None
    cost_usd: Any = None
    duration_ms: Any = None
    ttft_ms: Any = None
    stream: Any = None
    status: Any = None
    finish_reason: Any = None
    error_code: Any = None
    error_class: Any = None
    guardrails: Any = None
    content_state: Any = None
    history_complete: Any = None


_RECORD = msgspec.json.Decoder(_Record)


class Native:
    """Format `native`."""

    name = "native"

    def sniff(self, value: bytes) -> bool:
        """Whether an event time may be among the fields."""
        return b'"event_time_ms"' in value

    def is_binary(self, value: bytes) -> bool:
        """Never."""
        return False

    def decode(self, value: bytes) -> list[GatewayCall]:
        """The call in `value`; raises as `GatewayFormat.decode`."""
        record = decode(_RECORD, value, "native record")
        if record.event_time_ms is msgspec.UNSET:
            raise Unreadable("unknown_format", "$.event_time_ms is absent: not a native record")
        time_ms = record.event_time_ms
        if not isinstance(time_ms, (int, float)) or isinstance(time_ms, bool) or not is_time_ms(time_ms):
            raise Unreadable("schema", f"$.event_time_ms must be ms since the epoch; got {kind_of(time_ms)}")
        event_id, trace_id, span_id = text_of(record.event_id), text_of(record.trace_id), text_of(record.span_id)
        session = text_of(record.session)
        return [
            GatewayCall(
                gateway=self.name,
                identity=(event_id,) if event_id else (trace_id, span_id) if trace_id and span_id else None,
                event_id=event_id if event_id and _EVENT_ID.fullmatch(event_id) else None,
                parse=parse_message,
                messages=_raws(record.messages, "messages"),
                output=_raws(record.output, "output"),
                session=session or trace_id,
                session_source=_session_source(record.session_source) if session else "trace",
                tenant=text_of(record.tenant),
                event_time_ms=round(time_ms),
                key_hash=text_of(record.key_hash),
                trace_id=trace_id,
                user=text_of(record.user),
                end_user=text_of(record.end_user),
                ip=text_of(record.ip),
                user_agent=text_of(record.user_agent),
                provider=text_of(record.provider),
                model_requested=text_of(record.model_requested),
                model_served=text_of(record.model_served),
                operation=text_of(record.operation),
                tools=_names(record.tools),
                prompt_tokens=count_of(record.prompt_tokens),
                completion_tokens=count_of(record.completion_tokens),
                total_tokens=count_of(record.total_tokens),
                cost_usd=amount_of(record.cost_usd),
                duration_ms=amount_of(record.duration_ms),
                ttft_ms=amount_of(record.ttft_ms),
                stream=flag_of(record.stream),
                status="failure" if record.status == "failure" else "success",
                finish_reason=text_of(record.finish_reason),
                error_code=text_of(record.error_code),
                error_class=text_of(record.error_class),
                guardrails=_names(record.guardrails),
                content_state=_content_state(record),
                history_complete=record.history_complete is not False,
            )
        ]


def parse_message(raw: bytes) -> RawMessage:
    """The message in `raw`: `{role, parts}`, parts as OpenTelemetry has them too; else an OpenAI Chat message.

    Raises
    ------
    Unreadable
        `schema` for an unknown role or part, `undecodable` when it is no JSON.
    """
    value = loads(raw)
    if not isinstance(value, dict):
        raise Unreadable("schema", f"a message must be an object with role and parts; got {type(value).__name__}")
    parts = value.get("parts")
    if parts is None:
        return openai_chat.message_of(value)
    role = value.get("role")
    if role not in _ROLES:
        raise Unreadable("schema", f"a message's role must be one of {', '.join(_ROLES)}")
    if not isinstance(parts, list):
        raise Unreadable("schema", f"a message's parts must be a list; got {type(parts).__name__}")
    return RawMessage(cast(Role, role), [part for part in map(_part, parts) if len(part) > 1])


def _part(value: Any) -> dict[str, str]:
    if not isinstance(value, dict) or value.get("type") not in _PART_TYPES:
        raise Unreadable("schema", f"a part's type must be one of {', '.join(_PART_TYPES)}")
    part = {"type": str(value["type"])}
    if "content" in value and "text" not in value:
        value = {**value, "text": value["content"]}  # OpenTelemetry's name of it
    if "result" in value and "response" not in value:
        value = {**value, "response": value["result"]}
    for name in _TEXT_FIELDS:
        if (text := text_of(value.get(name))) is not None:
            part[name] = text
    if part["type"] == "tool_call":
        part.setdefault("name", "")
        part["arguments"] = _as_text(value.get("arguments")) or "{}"
    elif part["type"] == "tool_call_response":
        part["response"] = _as_text(value.get("response"))
    return part


def _as_text(value: Any) -> str:
    if isinstance(value, str):
        return value
    return "" if value is None else orjson.dumps(value, option=orjson.OPT_SORT_KEYS).decode()


def _raws(value: Any, field: str) -> list[bytes]:
    if value is None:
        return []
    if not isinstance(value, list):
        raise Unreadable("schema", f"$.{field} must be a list of messages; got {kind_of(value)}")
    return [bytes(raw) for raw in value]


def _names(value: Any) -> tuple[str, ...]:
    return tuple(name for name in map(text_of, value) if name) if isinstance(value, list) else ()


def _session_source(value: Any) -> SessionSource:
    return cast(SessionSource, value) if value in get_args(SessionSource) else "gateway"


def _content_state(record: _Record) -> ContentState:
    if record.content_state in get_args(ContentState):
        return cast(ContentState, record.content_state)
    return "full" if record.messages else "redacted"
