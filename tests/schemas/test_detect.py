"""Each record is read as what it is."""

import json

import pytest

from schemas.gateways.call import Unreadable
from schemas.gateways.detect import FORMATS, NAMES, Auto, format_of
from tests.schemas.litellm_payload import payload, written

NATIVE = b'{"event_time_ms": 1, "messages": []}'


def test_litellm_and_native_records_may_be_mixed() -> None:
    auto = Auto()
    assert [auto.decode(value)[0].gateway for value in (written(), NATIVE, written())] == [
        "litellm",
        "native",
        "litellm",
    ]


def test_a_marker_in_content_or_in_a_nested_field_does_not_mislead() -> None:
    native = {"event_time_ms": 1, "messages": [{"role": "user", "content": '{"litellm_call_id": 1}'}]}
    nested = {**native, "extra": {"litellm_call_id": "x", "call_type": "y", "startTime": 1}}
    for record in (native, nested):
        assert Auto().decode(json.dumps(record).encode())[0].gateway == "native"
    litellm = payload(messages=[{"role": "user", "content": "x", "event_time_ms": 5}])
    assert Auto().decode(json.dumps(litellm).encode())[0].gateway == "litellm"


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
    assert NAMES == ("auto", "litellm", "native")
    assert [known().sniff(value) for known, value in zip(FORMATS, (written(), NATIVE), strict=True)] == [True, True]
    assert [format_of(name).name for name in NAMES] == list(NAMES)
    assert Auto().sniff(NATIVE) and not Auto().sniff(b"{}")


def test_an_unknown_format_is_refused_with_the_known_ones() -> None:
    with pytest.raises(ValueError, match="must be one of auto, litellm, native; got 'xml'"):
        format_of("xml")
