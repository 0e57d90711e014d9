"""OTLP's two encodings give the same spans, with JSON's traps seen to."""

from __future__ import annotations

import json
from base64 import b64encode
from typing import Any

import pytest

from schemas.gateways.call import Unreadable
from schemas.gateways.otlp import Span, is_protobuf, spans_of_json, spans_of_protobuf
from tests.schemas.otlp_record import SPAN_ID, START_NS, TRACE_ID, otlp, otlp_protobuf, span, written


def of_json(record: dict[str, Any]) -> list[Span | Unreadable | None]:
    return list(spans_of_json(written(record), lambda raw: True))


def one(**changes: Any) -> Span:
    """The span with `changes` to its JSON."""
    (read,) = of_json(otlp({**span(), **changes}))
    assert isinstance(read, Span), read
    return read


def refused(**changes: Any) -> tuple[str, str]:
    (read,) = of_json(otlp({**span(), **changes}))
    assert isinstance(read, Unreadable)
    return read.reason, str(read)


def value_of(value: Any) -> Any:
    return one(attributes=[{"key": "a", "value": value}]).attributes["a"]


def test_both_encodings_give_the_same_spans() -> None:
    held = {"a": [1, -2, 0.5, True, "x"], "b": {"c": {"d": ["e"]}}, "f": -(2**63), "g": ""}
    record = otlp(span(events=[("e", {"k": 1})], **held), span(), deployment__environment__name="prod")
    json_spans = of_json(record)
    protobuf_spans = list(spans_of_protobuf(otlp_protobuf(record), lambda raw: True))
    assert len(json_spans) == len(protobuf_spans) == 2
    for one_way, other in zip(json_spans, protobuf_spans, strict=True):
        assert isinstance(one_way, Span) and isinstance(other, Span)
        for name in Span.__struct_fields__:
            if name != "raw":
                assert getattr(one_way, name) == getattr(other, name), name
    assert isinstance(json_spans[0], Span)
    assert {name: json_spans[0].attributes[name] for name in held} == held
    assert json_spans[0].resource == {"service.name": "gateway", "deployment.environment.name": "prod"}


@pytest.mark.parametrize(("written_as", "number"), [("1876", 1876), (1876, 1876), (1876.0, 1876), ("-7", -7)])
def test_a_64_bit_integer_is_a_text_or_a_number(written_as: Any, number: int) -> None:
    assert value_of({"intValue": written_as}) == number
    assert one(startTimeUnixNano=START_NS).start_ns == one(startTimeUnixNano=str(START_NS)).start_ns == START_NS


@pytest.mark.parametrize("huge", ["9" * 30, "9" * 10_000, 2**70, "1e400", "ten", ""])
def test_an_integer_beyond_64_bits_is_none(huge: Any) -> None:
    assert value_of({"intValue": huge}) is None


@pytest.mark.parametrize(("text", "number"), [("Infinity", float("inf")), ("-Infinity", float("-inf")), ("0.5", 0.5)])
def test_a_double_may_be_a_text(text: str, number: float) -> None:
    assert value_of({"doubleValue": text}) == number


@pytest.mark.parametrize("value", [None, {}, {"doubleValue": "many"}, {"unknownValue": 1}])
def test_a_value_that_says_nothing_is_none(value: Any) -> None:
    assert value_of(value) is None


def test_values_that_are_empty_are_not_absent() -> None:
    empty = [{"stringValue": ""}, {"intValue": 0}, {"boolValue": False}, {"arrayValue": {}}, {"kvlistValue": {}}]
    assert [value_of(value) for value in empty] == ["", 0, False, [], {}]
    assert value_of({"bytesValue": "aGk="}) == "aGk="


def test_ids_are_hexadecimal_of_either_case_or_base64() -> None:
    ids = {"traceId": TRACE_ID.upper(), "spanId": SPAN_ID.upper()}
    base64 = {name: b64encode(bytes.fromhex(held)).decode() for name, held in ids.items()}
    for written_as in (ids, base64):
        assert (one(**written_as).trace_id, one(**written_as).span_id) == (TRACE_ID, SPAN_ID)


@pytest.mark.parametrize("wrong", ["", "0" * 32, "xyz", "0af7", TRACE_ID + "00", "☃" * 32])
def test_a_span_without_an_id_is_refused(wrong: str) -> None:
    assert refused(traceId=wrong) == ("schema", "a span's traceId must be 32 hexadecimal digits, not all 0")


def test_protobuf_without_an_id_is_refused_too() -> None:
    record = otlp({**span(), "traceId": "", "spanId": SPAN_ID})
    (read,) = spans_of_protobuf(otlp_protobuf(record), lambda raw: True)
    assert isinstance(read, Unreadable)
    assert str(read) == "a span's trace_id must be 32 hexadecimal digits, not all 0"


@pytest.mark.parametrize("start", ["0", None, "soon", "9" * 22, -5, True])
def test_a_span_that_never_started_is_refused(start: Any) -> None:
    reason, message = refused(startTimeUnixNano=start, endTimeUnixNano=None)
    assert reason == "schema"
    assert message.startswith(("a span's startTimeUnixNano must be ns since 1970; got ", "Expected"))


def test_an_end_stands_in_for_a_missing_start() -> None:
    assert one(startTimeUnixNano="0").start_ns == START_NS + 1_631_526_000


@pytest.mark.parametrize("code", [2, "STATUS_CODE_ERROR"])
def test_enumerations_are_numbers_or_names(code: Any) -> None:
    failed = one(status={"code": code}, kind="SPAN_KIND_CLIENT")
    assert (failed.failed, failed.kind) == (True, 3)
    assert not one(status={"code": "STATUS_CODE_OK"}).failed
    assert one(kind="SPAN_KIND_ODD").kind == 0


def test_protobufs_own_field_names_are_read_and_keys_of_attributes_are_left_alone() -> None:
    record = {
        "resource_spans": [
            {
                "scope_spans": [
                    {
                        "spans": [
                            {
                                "trace_id": TRACE_ID,
                                "span_id": SPAN_ID,
                                "start_time_unix_nano": str(START_NS),
                                "attributes": [
                                    {"key": "tool_call", "value": {"string_value": "string_value"}},
                                    {"key": "n", "value": {"kvlist_value": {"values": [{"key": "a_b", "value": {}}]}}},
                                ],
                            }
                        ]
                    }
                ]
            }
        ]
    }
    (read,) = of_json(record)
    assert isinstance(read, Span)
    assert read.attributes == {"tool_call": "string_value", "n": {"a_b": None}}


def test_spans_of_the_oldest_releases_are_found() -> None:
    record = otlp(span())
    held = record["resourceSpans"][0]
    held["instrumentationLibrarySpans"] = held.pop("scopeSpans")
    assert len(of_json(record)) == 1


def test_a_span_that_is_not_wanted_is_not_read() -> None:
    record = otlp(span(a="yes"), {"traceId": 5})
    read = list(spans_of_json(written(record), lambda raw: b"yes" in raw))
    assert [type(item).__name__ for item in read] == ["Span", "NoneType"]


def test_a_bad_span_takes_nothing_from_the_others() -> None:
    read = of_json(otlp(span(), {**span(), "attributes": "many"}, span()))
    assert [type(item).__name__ for item in read] == ["Span", "Unreadable", "Span"]
    assert str(read[1]) == "Expected `array | null`, got `str` - at `$.attributes`: not a span"


@pytest.mark.parametrize(
    ("value", "reason"),
    [
        (b"{}", "unknown_format"),
        (b'{"resourceLogs": []}', "unknown_format"),
        (b'{"resourceSpans": 5}', "schema"),
        (b'{"resourceSpans": [5]}', "schema"),
        (b'{"resourceSpans": [', "undecodable"),
    ],
)
def test_what_is_no_otlp_says_why(value: bytes, reason: str) -> None:
    with pytest.raises(Unreadable) as caught:
        list(spans_of_json(value, lambda raw: True))
    assert caught.value.reason == reason


def test_attributes_nest_only_so_deep() -> None:
    value: dict[str, Any] = {"stringValue": "x"}
    for _ in range(65):
        value = {"arrayValue": {"values": [value]}}
    assert refused(attributes=[{"key": "a", "value": value}]) == ("too_deep", "an attribute must nest at most 64 deep")


def test_cut_protobuf_is_undecodable() -> None:
    with pytest.raises(Unreadable, match="the record must be OTLP protobuf") as caught:
        list(spans_of_protobuf(otlp_protobuf(otlp(span()))[:-3], lambda raw: True))
    assert caught.value.reason == "undecodable"


def test_json_after_a_lines_end_is_no_protobuf_nor_is_protobuf_of_123_bytes_json() -> None:
    """0x0a is protobuf's first byte and a line's end, 0x7b its length of 123 and a brace."""
    record = written(otlp(span()))
    assert not is_protobuf(b"\n" + record) and not is_protobuf(b"\n\n [" + record + b"]")
    for padding in range(200):
        encoded = otlp_protobuf(otlp({**span(), "name": "x" * padding, "attributes": [], "events": []}))
        if encoded[:2] == b"\n{":
            break
    assert encoded[:2] == b"\n{"
    assert is_protobuf(encoded)
    assert not is_protobuf(json.dumps({"a": 1}).encode())
