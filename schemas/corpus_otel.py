"""A session's calls as OpenTelemetry's Collector exports them to Kafka: OTLP, JSON or protobuf, many spans a record."""

from __future__ import annotations

from base64 import b64encode
from collections.abc import Sequence
from hashlib import sha256
from typing import Any

import orjson
from google.protobuf.json_format import ParseDict
from opentelemetry.proto.trace.v1.trace_pb2 import TracesData

from schemas.corpus import Call, CorpusSession
from schemas.corpus_records import (
    DEFAULT_MODEL,
    USD_PER_COMPLETION_TOKEN,
    USD_PER_PROMPT_TOKEN,
    Truth,
    answer_in_parts,
    caller_of,
    finish_reason,
    hex_of,
    in_parts,
    litellm_session,
    tool_definition,
    truth_of,
)
from schemas.corpus_timeline import completion_tokens, duration_ms, first_token_ms, prompt_tokens

_SERVER, _CLIENT = 2, 3
_IDS = ("traceId", "spanId", "parentSpanId")


def otel_truth(session: CorpusSession, call: Call) -> Truth:
    """What is known about `to_otel`'s span of `call`."""
    trace_id, span_id = _ids(session, call)
    event_id = sha256(orjson.dumps(["otel", trace_id, span_id])).hexdigest()
    return truth_of(session, call, span_id, event_id, litellm_session(session))


def to_otel(session: CorpusSession, call: Call, start_ms: int) -> dict[str, Any]:
    """`call` in OTLP-JSON: its GenAI span, as semantic conventions 1.41 and LiteLLM name things, in the server's.

    Parameters are `schemas.corpus_records.to_litellm`'s.
    """
    trace_id, span_id = _ids(session, call)
    server_id = hex_of("server span", trace_id, span_id, size=8)
    caller = caller_of(session)
    end_ms = start_ms + duration_ms(session, call)
    http = {"http.request.method": "POST", "url.path": "/v1/chat/completions", "client.address": caller["ip"]}
    genai = {
        **_genai(session, call),
        "user.id": caller["user"],
        "client.address": caller["ip"],
        "user_agent.original": caller["user_agent"],
        "litellm.team.id": session.tenant,
        "litellm.end_user.id": caller["end_user"],
        "litellm.api_key.hash": caller["key_hash"],
    }
    spans = [
        _span(trace_id, server_id, None, "POST /v1/chat/completions", _SERVER, start_ms, end_ms + 1, http),
        _span(trace_id, span_id, server_id, f"chat {_model(session)}", _CLIENT, start_ms, end_ms, genai),
    ]
    resource = {"attributes": _pairs({"service.name": "litellm-proxy", "telemetry.sdk.language": "python"})}
    scope = {"scope": {"name": "litellm"}, "spans": spans}
    return {"resourceSpans": [{"resource": resource, "scopeSpans": [scope]}]}


def otlp_batch(records: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """One record with the spans of `records`, as the Collector's batch processor makes them."""
    return {"resourceSpans": [held for record in records for held in record["resourceSpans"]]}


def otlp_protobuf(record: dict[str, Any]) -> bytes:
    """OTLP-JSON as OTLP protobuf; the same spans, by the generated classes."""
    return ParseDict(_with_base64_ids(record), TracesData()).SerializeToString()


def _with_base64_ids(value: Any) -> Any:
    """Protobuf's own JSON has ids in base64, where OTLP's has them in hexadecimal."""
    if isinstance(value, list):
        return [_with_base64_ids(item) for item in value]
    if not isinstance(value, dict):
        return value
    ids = {name: b64encode(bytes.fromhex(value[name])).decode() for name in _IDS if name in value}
    return {**{name: _with_base64_ids(held) for name, held in value.items()}, **ids}


def _ids(session: CorpusSession, call: Call) -> tuple[str, str]:
    """Trace and span: a session is one trace."""
    name = (session.tenant, session.session)
    return hex_of("otel trace", *name, size=16), hex_of("otel span", *name, call.index, size=8)


def _model(session: CorpusSession) -> str:
    return session.model or DEFAULT_MODEL


def _genai(session: CorpusSession, call: Call) -> dict[str, Any]:
    prompt, completion = prompt_tokens(session, call), completion_tokens(session, call)
    messages = [_message(message) for message in in_parts(session, call.history)]
    leads = bool(messages) and messages[0]["role"] == "system"
    reason = finish_reason(session, call)
    answer = [{**_message(message), "finish_reason": reason} for message in answer_in_parts(session, call)]
    attributes: dict[str, Any] = {
        "gen_ai.operation.name": "chat",
        "gen_ai.provider.name": "openai",
        "gen_ai.conversation.id": litellm_session(session),
        "gen_ai.request.model": _model(session),
        "gen_ai.request.stream": True,
        "gen_ai.response.model": _model(session),
        "gen_ai.response.id": "chatcmpl-" + hex_of("otel response", *_ids(session, call), size=12),
        "gen_ai.response.finish_reasons": [reason],
        "gen_ai.response.time_to_first_chunk": first_token_ms(session, call) / 1000,
        "gen_ai.usage.input_tokens": prompt,
        "gen_ai.usage.output_tokens": completion,
        "gen_ai.input.messages": _json(messages[1:] if leads else messages),
        "gen_ai.output.messages": _json(answer),
        "litellm.cost.total": round(prompt * USD_PER_PROMPT_TOKEN + completion * USD_PER_COMPLETION_TOKEN, 8),
    }
    if leads:
        attributes["gen_ai.system_instructions"] = _json(messages[0]["parts"])
    if session.tools:
        offered = [tool_definition(name, arguments)["function"] for name, arguments in session.tools.items()]
        attributes["gen_ai.tool.definitions"] = _json([{"type": "function", **tool} for tool in offered])
    return attributes


def _message(message: dict[str, Any]) -> dict[str, Any]:
    return {"role": message["role"], "parts": [_part(part) for part in message["parts"]]}


def _part(part: dict[str, Any]) -> dict[str, Any]:
    """OpenTelemetry calls a text `content`."""
    return {"type": "text", "content": part["text"]} if part["type"] == "text" else part


def _span(
    trace_id: str,
    span_id: str,
    parent_id: str | None,
    name: str,
    kind: int,
    start_ms: int,
    end_ms: int,
    attributes: dict[str, Any],
) -> dict[str, Any]:
    span = {
        "traceId": trace_id,
        "spanId": span_id,
        "name": name,
        "kind": kind,
        "startTimeUnixNano": str(start_ms * 1_000_000),
        "endTimeUnixNano": str(end_ms * 1_000_000),
        "attributes": _pairs(attributes),
        "status": {},
    }
    return span if parent_id is None else {**span, "parentSpanId": parent_id}


def _pairs(attributes: dict[str, Any]) -> list[dict[str, Any]]:
    return [{"key": name, "value": any_value(value)} for name, value in attributes.items() if value is not None]


def any_value(value: Any) -> dict[str, Any]:
    """`value` as OTLP-JSON's AnyValue.

    >>> any_value(7), any_value([True, "a"])
    ({'intValue': '7'}, {'arrayValue': {'values': [{'boolValue': True}, {'stringValue': 'a'}]}})
    """
    if isinstance(value, bool):
        return {"boolValue": value}
    if isinstance(value, int):
        return {"intValue": str(value)}
    if isinstance(value, float):
        return {"doubleValue": value}
    if isinstance(value, list):
        return {"arrayValue": {"values": [any_value(item) for item in value]}}
    if isinstance(value, dict):
        return {"kvlistValue": {"values": _pairs(value)}}
    return {"stringValue": value}


def _json(value: Any) -> str:
    return orjson.dumps(value).decode()
