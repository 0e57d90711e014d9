"""Each record is read as what it is."""

import json
from pathlib import Path

import pytest

from schemas.gateways.call import GatewayCall, Skipped, Unreadable
from schemas.gateways.detect import FORMATS, NAMES, Auto, format_of
from tests.schemas.litellm_payload import payload, written
from tests.schemas.otlp_record import otlp, otlp_protobuf, span

NATIVE = b'{"event_time_ms": 1, "messages": []}'
PAYLOADS = Path(__file__).parent / "payloads"


def gateways(value: bytes) -> list[str]:
    """Gateway of each call in `value`."""
    return [part.gateway for part in Auto().decode(value) if isinstance(part, GatewayCall)]


def test_litellm_and_native_records_may_be_mixed() -> None:
    assert [gateways(value) for value in (written(), NATIVE, written())] == [["litellm"], ["native"], ["litellm"]]


def test_a_marker_in_content_or_in_a_nested_field_does_not_mislead() -> None:
    native = {"event_time_ms": 1, "messages": [{"role": "user", "content": '{"litellm_call_id": 1}'}]}
    nested = {**native, "extra": {"litellm_call_id": "x", "call_type": "y", "startTime": 1}}
    for record in (native, nested):
        assert gateways(json.dumps(record).encode()) == ["native"]
    litellm = payload(messages=[{"role": "user", "content": "x", "event_time_ms": 5}])
    assert gateways(json.dumps(litellm).encode()) == ["litellm"]


def test_protobuf_is_told_from_json() -> None:
    record = otlp(span())
    for value in (otlp_protobuf(record), json.dumps(record).encode(), b"\n" + json.dumps(record).encode()):
        assert gateways(value) == ["otel"]
    assert gateways(b"\n " + written()) == ["litellm"]


MARKS = {
    "litellm_call_id": "x",
    "call_type": "y",
    "startTime": 1,
    "resourceSpans": [],
    "started_at": 1,
    "request": {"id": "r"},
    "ai": {},
    "event_time_ms": 1,
}


def test_no_content_picks_the_decoder() -> None:
    """Marks of every format in each place that a caller's content gets to."""
    said = json.dumps(MARKS)
    nested = {**MARKS, "role": "user", "content": said}
    litellm = payload(messages=[nested], metadata={"requester_metadata": MARKS, **MARKS}, response={**MARKS})
    kong = json.loads((PAYLOADS / "kong_chat.json").read_bytes())
    kong["ai"]["proxy"]["payload"] = {"request": {**MARKS, "messages": [nested]}, "response": MARKS}
    kong["request"]["headers"] |= dict.fromkeys(MARKS, said)
    native = {"event_time_ms": 1, "messages": [nested], "user": said}
    otel = otlp(span(**{"gen_ai.input.messages": [nested], **dict.fromkeys(MARKS, said)}))
    for gateway, record in (("litellm", litellm), ("kong", kong), ("native", native), ("otel", otel)):
        assert gateways(json.dumps(record).encode()) == [gateway]
    assert gateways(otlp_protobuf(otel)) == ["otel"]


def test_a_format_that_would_skip_a_record_yields_to_one_that_reads_it() -> None:
    other = otlp({**span(), "attributes": []})
    kong = json.loads((PAYLOADS / "kong_chat.json").read_bytes())
    assert gateways(json.dumps({**other, **kong}).encode()) == ["kong"]
    assert gateways(json.dumps({**other, "event_time_ms": 1}).encode()) == ["native"]
    assert Auto().decode(json.dumps(other).encode()) == [Skipped(1, "other_span")]


@pytest.mark.parametrize(
    ("value", "reason"),
    [
        (b"{}", "unknown_format"),
        (b'{"hello": 1}', "unknown_format"),
        (b"17", "unknown_format"),
        (b'"litellm_call_id"', "schema"),
        (b"null", "unknown_format"),
        (b'{"a": NaN}', "unknown_format"),
        (b"", "undecodable"),
        (b"{", "undecodable"),
        (b"hello", "undecodable"),
        (b'{"event_time_ms": "5"}', "schema"),
        (b'{"litellm_call_id": "x"}', "schema"),
    ],
)
def test_what_is_of_no_known_format_says_why(value: bytes, reason: str) -> None:
    with pytest.raises(Unreadable) as caught:
        Auto().decode(value)
    assert caught.value.reason == reason


def test_every_format_has_a_name_and_sniffs_its_own() -> None:
    assert NAMES == ("auto", "litellm", "otel", "kong", "native")
    own = (written(), (PAYLOADS / "otel_genai.json").read_bytes(), (PAYLOADS / "kong_chat.json").read_bytes(), NATIVE)
    for known, value in zip(FORMATS, own, strict=True):
        assert [other.name for other in FORMATS if other().sniff(value)] == [known.name]
    assert [format_of(name).name for name in NAMES] == list(NAMES)
    assert Auto().sniff(NATIVE) and not Auto().sniff(b"{}")


def test_an_unknown_format_is_refused_with_the_known_ones() -> None:
    with pytest.raises(ValueError, match="must be one of auto, litellm, otel, kong, native; got 'xml'"):
        format_of("xml")
