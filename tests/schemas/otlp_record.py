"""OTLP records for tests: spans with the attributes that a test needs."""

from __future__ import annotations

import json
from typing import Any

from schemas.corpus_otel import any_value, otlp_protobuf
from schemas.gateways.call import GatewayCall
from schemas.gateways.otel_genai import OTelGenAI

__all__ = ["SPAN_ID", "START_NS", "TRACE_ID", "call", "calls", "otlp", "otlp_protobuf", "said", "span", "written"]

TRACE_ID = "0af7651916cd43dd8448eb211c80319c"
SPAN_ID = "b9c7c989f97918e1"
START_NS = 1795304550198481000


def pairs(attributes: dict[str, Any]) -> list[dict[str, Any]]:
    """Attributes as OTLP-JSON has them."""
    return [{"key": name, "value": any_value(value)} for name, value in attributes.items()]


def span(*, events: Any = (), **attributes: Any) -> dict[str, Any]:
    """A chat's span; `attributes` are added, `...` removes one."""
    held = {"gen_ai.operation.name": "chat", "gen_ai.request.model": "gpt-4o", **attributes}
    return {
        "traceId": TRACE_ID,
        "spanId": SPAN_ID,
        "name": "chat gpt-4o",
        "kind": 3,
        "startTimeUnixNano": str(START_NS),
        "endTimeUnixNano": str(START_NS + 1_631_526_000),
        "attributes": pairs({name: value for name, value in held.items() if value is not ...}),
        "events": [{"name": name, "attributes": pairs(fields)} for name, fields in events],
        "status": {},
    }


def otlp(*spans: dict[str, Any], **resource: Any) -> dict[str, Any]:
    """A record of `spans`, all of one resource."""
    held = {"service.name": "gateway", **{name.replace("__", "."): value for name, value in resource.items()}}
    return {"resourceSpans": [{"resource": {"attributes": pairs(held)}, "scopeSpans": [{"spans": list(spans)}]}]}


def written(record: dict[str, Any]) -> bytes:
    """The record as JSON."""
    return json.dumps(record).encode()


def calls(value: bytes) -> list[GatewayCall]:
    """The calls in a record."""
    return [part for part in OTelGenAI().decode(value) if isinstance(part, GatewayCall)]


def call(**attributes: Any) -> GatewayCall:
    """The call of a span with `attributes`, read from JSON; protobuf gives the same, or this fails."""
    record = otlp(span(**attributes))
    (of_json,) = calls(written(record))
    (of_protobuf,) = calls(otlp_protobuf(record))
    for name in GatewayCall.__struct_fields__:
        if name != "raw":
            assert getattr(of_json, name) == getattr(of_protobuf, name), name
    return of_json


def said(call: GatewayCall) -> list[tuple[str, list[dict[str, str]]]]:
    """Role and parts of each of the call's messages and answers."""
    return [(message.role, message.parts) for message in map(call.parse, [*call.messages, *call.output])]
