"""OTLP traces, JSON and protobuf, as plain spans.

JSON has its traps: 64-bit integers are strings or numbers, ids are hexadecimal (base64 where a plain protobuf writer
made it), enumerations are numbers or names, and some writers keep protobuf's field names.
"""

from __future__ import annotations

import binascii
from base64 import b64decode
from collections.abc import Callable, Iterator
from typing import Any

import msgspec
import orjson
from google.protobuf.message import DecodeError
from opentelemetry.proto.common.v1.common_pb2 import AnyValue
from opentelemetry.proto.trace.v1.trace_pb2 import Span as ProtobufSpan
from opentelemetry.proto.trace.v1.trace_pb2 import TracesData

from schemas.gateways.call import Unreadable, is_time_ms, kind_of
from schemas.gateways.nesting import EMBEDDED_DEPTH_MAX
from schemas.gateways.repair import decode

Attributes = dict[str, Any]
CLIENT = 3
"""The kind of a span that calls another service."""
_ERROR = 2
_INT_CHARS_MAX = 24
_INT64 = 1 << 63
_KINDS = {f"SPAN_KIND_{name}": number for number, name in enumerate(("UNSPECIFIED", "INTERNAL", "SERVER", "CLIENT"))}
_STATUSES = {"STATUS_CODE_UNSET": 0, "STATUS_CODE_OK": 1, "STATUS_CODE_ERROR": _ERROR}


class Span(msgspec.Struct, gc=False):
    """A span of either encoding."""

    raw: bytes
    """Its own bytes."""
    trace_id: str
    """32 hexadecimal digits."""
    span_id: str
    """16 hexadecimal digits."""
    kind: int
    start_ns: int
    end_ns: int
    attributes: Attributes
    """Values as Python has them, arrays and lists of pairs too."""
    resource: Attributes
    events: list[tuple[str, Attributes]]
    failed: bool


class _Value(msgspec.Struct, gc=False, rename="camel"):
    string_value: str | None = None
    int_value: int | float | str | None = None
    double_value: float | str | None = None
    bool_value: Any = None
    array_value: _Array | None = None
    kvlist_value: _Pairs | None = None
    bytes_value: Any = None


class _Attribute(msgspec.Struct, gc=False):
    key: str
    value: _Value | None = None


class _Array(msgspec.Struct, gc=False):
    values: list[_Value | None] | None = None


class _Pairs(msgspec.Struct, gc=False):
    values: list[_Attribute] | None = None


class _Event(msgspec.Struct, gc=False):
    name: str = ""
    attributes: list[_Attribute] | None = None


class _Status(msgspec.Struct, gc=False):
    code: int | str | None = None


class _Span(msgspec.Struct, gc=False, rename="camel"):
    trace_id: str = ""
    span_id: str = ""
    kind: int | str | None = None
    start_time_unix_nano: int | float | str | None = None
    end_time_unix_nano: int | float | str | None = None
    attributes: list[_Attribute] | None = None
    events: list[_Event] | None = None
    status: _Status | None = None


class _Resource(msgspec.Struct, gc=False):
    attributes: list[_Attribute] | None = None


class _ScopeSpans(msgspec.Struct, gc=False):
    spans: list[msgspec.Raw] | None = None


class _ResourceSpans(msgspec.Struct, gc=False, rename="camel"):
    resource: _Resource | None = None
    scope_spans: list[_ScopeSpans] | None = None
    instrumentation_library_spans: list[_ScopeSpans] | None = None
    """As OTLP before 0.16 called them."""


class _Traces(msgspec.Struct, gc=False, rename="camel"):
    resource_spans: list[_ResourceSpans] | msgspec.UnsetType | None = msgspec.UNSET


_TRACES = msgspec.json.Decoder(_Traces)
_SPAN = msgspec.json.Decoder(_Span)

Wanted = Callable[[bytes], bool]


def spans_of_json(value: bytes, wanted: Wanted) -> Iterator[Span | Unreadable | None]:
    """The spans in `value`, each a span or why it is none; None for one that `wanted` says no to, from its JSON.

    Raises
    ------
    Unreadable
        `unknown_format` when `value` has no resource spans, else as the reason says.
    """
    if b'"resource_spans"' in value:
        value = _in_camel_case(value)
    traces = decode(_TRACES, value, "OTLP traces")
    if traces.resource_spans is msgspec.UNSET:
        raise Unreadable("unknown_format", "$.resourceSpans is absent: not OTLP traces")
    for of_resource in traces.resource_spans or ():
        resource = of_resource.resource
        held = _attributes(resource.attributes) if resource is not None else {}
        for scope in (*(of_resource.scope_spans or ()), *(of_resource.instrumentation_library_spans or ())):
            for raw in scope.spans or ():
                yield _read(bytes(raw), held) if wanted(bytes(raw)) else None


def _read(raw: bytes, resource: Attributes) -> Span | Unreadable:
    try:
        span = decode(_SPAN, raw, "span")
        code = span.status.code if span.status is not None else None
        return Span(
            raw,
            _id(span.trace_id, 16, "traceId"),
            _id(span.span_id, 8, "spanId"),
            _KINDS.get(span.kind, 0) if isinstance(span.kind, str) else span.kind or 0,
            *_times(_integer(span.start_time_unix_nano), _integer(span.end_time_unix_nano)),
            _attributes(span.attributes),
            resource,
            [(event.name, _attributes(event.attributes)) for event in span.events or ()],
            (_STATUSES.get(code) if isinstance(code, str) else code) == _ERROR,
        )
    except Unreadable as error:
        return error


def _in_camel_case(value: bytes) -> bytes:
    """`value` with OTLP's names for protobuf's; keys of attributes are values and stay as they are."""
    return msgspec.json.encode(_renamed(decode(_ANY, value, "OTLP traces")))


_ANY: msgspec.json.Decoder[Any] = msgspec.json.Decoder(Any)


def _renamed(value: Any) -> Any:
    if isinstance(value, list):
        return [_renamed(item) for item in value]
    if isinstance(value, dict):
        return {_camel(name): _renamed(item) for name, item in value.items()}
    return value


def _camel(name: str) -> str:
    first, *others = name.split("_")
    return first + "".join(map(str.capitalize, others))


def _attributes(pairs: list[_Attribute] | None, depth: int = 0) -> Attributes:
    return {pair.key: _value(pair.value, depth) for pair in pairs or ()}


def _value(value: _Value | None, depth: int) -> Any:
    if value is None:
        return None
    if value.string_value is not None:
        return value.string_value
    if value.int_value is not None:
        return _integer(value.int_value)
    if value.double_value is not None:
        return _number(value.double_value)
    if value.array_value is None and value.kvlist_value is None:
        return value.bytes_value if value.bool_value is None else value.bool_value
    if depth == EMBEDDED_DEPTH_MAX:
        raise Unreadable("too_deep", f"an attribute must nest at most {EMBEDDED_DEPTH_MAX} deep")
    if value.array_value is not None:
        return [_value(item, depth + 1) for item in value.array_value.values or ()]
    return _attributes(value.kvlist_value.values if value.kvlist_value is not None else None, depth + 1)


def _integer(value: float | str | None) -> int | None:
    """A 64-bit integer, which JSON may hold as a text; None for what is none."""
    if value is None or (isinstance(value, str) and len(value) > _INT_CHARS_MAX):
        return None
    try:
        number = int(value)
    except (ValueError, OverflowError):
        return None
    return number if -_INT64 <= number < _INT64 else None


def _number(value: float | str) -> float | None:
    """A double, which JSON holds as a text when it is infinite or none."""
    try:
        return float(value)
    except ValueError:
        return None


def _id(text: str, size: int, field: str) -> str:
    """`size` bytes as lower-case hexadecimal."""
    try:
        data = bytes.fromhex(text) if len(text) == 2 * size else b64decode(text, validate=True)
    except (ValueError, binascii.Error):
        data = b""
    return _known_id(data, size, field)


def _known_id(data: bytes, size: int, field: str) -> str:
    if len(data) != size or not any(data):
        raise Unreadable("schema", f"a span's {field} must be {2 * size} hexadecimal digits, not all 0")
    return data.hex()


def _times(start_ns: int | None, end_ns: int | None) -> tuple[int, int]:
    """Start and end; either stands in for one that is missing."""
    start = start_ns or end_ns
    if not start or not is_time_ms(start / 1e6):
        raise Unreadable("schema", f"a span's startTimeUnixNano must be ns since 1970; got {kind_of(start_ns)}")
    return start, end_ns or 0


def spans_of_protobuf(value: bytes, wanted: Wanted) -> Iterator[Span | Unreadable | None]:
    """As `spans_of_json`, of an `ExportTraceServiceRequest` or `TracesData`, which are the same on the wire.

    Raises
    ------
    Unreadable
        `undecodable`.
    """
    try:
        traces = TracesData.FromString(value)
    except DecodeError as error:
        raise Unreadable("undecodable", f"the record must be OTLP protobuf: {error}") from error
    for of_resource in traces.resource_spans:
        held = _mapping(of_resource.resource.attributes)
        for scope in of_resource.scope_spans:
            for span in scope.spans:
                yield _of_protobuf(span, held, wanted)


def _of_protobuf(span: ProtobufSpan, resource: Attributes, wanted: Wanted) -> Span | Unreadable | None:
    raw = span.SerializeToString(deterministic=True)
    try:
        trace_id, span_id = _known_id(span.trace_id, 16, "trace_id"), _known_id(span.span_id, 8, "span_id")
        if not wanted(raw):
            return None
        return Span(
            raw,
            trace_id,
            span_id,
            span.kind,
            *_times(span.start_time_unix_nano, span.end_time_unix_nano),
            _mapping(span.attributes),
            resource,
            [(event.name, _mapping(event.attributes)) for event in span.events],
            span.status.code == _ERROR,
        )
    except Unreadable as error:
        return error


def _mapping(pairs: Any) -> Attributes:
    return {pair.key: _plain(pair.value) for pair in pairs}


def _plain(value: AnyValue) -> Any:
    kind = value.WhichOneof("value")
    if kind is None:
        return None
    if kind == "array_value":
        return [_plain(item) for item in value.array_value.values]
    if kind == "kvlist_value":
        return _mapping(value.kvlist_value.values)
    held = getattr(value, kind)
    return held.decode(errors="replace") if isinstance(held, bytes) else held


def is_protobuf(value: bytes) -> bool:
    r"""Whether `value` is no JSON and begins as OTLP traces do, with resource spans; a line's end does so too.

    >>> is_protobuf(bytes.fromhex("0a00")), is_protobuf(b'\n{"resourceSpans": []}'), is_protobuf(b"{}")
    (True, False, False)
    """
    if value[:1] != b"\n":
        return False
    if value.lstrip(b"\n\r\t ")[:1] not in (b"{", b"["):
        return True
    try:
        orjson.loads(value)
    except orjson.JSONDecodeError:
        return _parses(value)
    return False


def _parses(value: bytes) -> bool:
    try:
        return any(scope.spans for held in TracesData.FromString(value).resource_spans for scope in held.scope_spans)
    except DecodeError:
        return False
