"""A dead letter is its source, with Connect's headers, and fits its topic."""

import hashlib
import json

from schemas.dead_letter import MESSAGE_MAX, REASONS, RawHeaders, headers, payload


def of(source: RawHeaders = (), message: str = "no", event_id: str | None = None) -> RawHeaders:
    return headers(
        source,
        topic="raw",
        partition=3,
        offset=9,
        reason="schema",
        message=message,
        connector="tidegate.score",
        step="stream.core.Core",
        stage="VALUE_CONVERTER",
        exception_class="stream.errors.DecodeError",
        event_id=event_id,
    )


def body(value: bytes | None, mode: str = "raw", message_bytes_max: int = 10_000) -> bytes | None:
    return payload(
        value,
        key=b"k",
        headers=of(),
        mode=mode,  # type: ignore[arg-type]
        message_bytes_max=message_bytes_max,
        topic="raw",
        partition=3,
        offset=9,
    )


def test_the_sources_headers_pass_through_unchanged_and_first() -> None:
    source: RawHeaders = (("traceparent", b"00-1"), ("empty", None), ("traceparent", b"00-2"))
    assert of(source)[:3] == source


def test_connects_error_headers_say_where_and_why() -> None:
    added = dict(of())
    assert added["__connect.errors.topic"] == b"raw"
    assert added["__connect.errors.partition"] == b"3"
    assert added["__connect.errors.offset"] == b"9"
    assert added["__connect.errors.connector.name"] == b"tidegate.score"
    assert added["__connect.errors.class.name"] == b"stream.core.Core"
    assert added["__connect.errors.stage"] == b"VALUE_CONVERTER"
    assert added["__connect.errors.exception.class.name"] == b"stream.errors.DecodeError"
    assert added["__connect.errors.exception.message"] == b"no"
    assert added["tg-reason"] == b"schema"
    assert added["tg-source"] == b"raw/3/9"


def test_a_dead_letter_says_what_it_is_even_where_its_source_was_an_event() -> None:
    source: RawHeaders = (("tg-schema", b"events.v1"), ("tg-event-id", b"ab"), ("tg-source", b"gateway/0/1"))
    added = dict(of(source))
    assert (added["tg-schema"], added["tg-event-id"], added["tg-source"]) == (b"dead_letters.v1", b"ab", b"raw/3/9")
    assert dict(of(event_id="cd"))["tg-event-id"] == b"cd"
    assert "tg-event-id" not in dict(of())


def test_a_message_of_any_length_and_content_fits_a_header() -> None:
    assert dict(of(message="\ud800" + "ü" * 5_000))["__connect.errors.exception.message"] == b"?" + "ü".encode() * (
        MESSAGE_MAX - 1
    )


def test_a_record_that_fits_passes_unchanged() -> None:
    assert body(b"\xff\x00not json") == b"\xff\x00not json"
    assert body(None) is None


def test_a_record_that_does_not_fit_becomes_a_reference() -> None:
    value = b"x" * 20_000
    written = body(value)
    assert written is not None
    assert json.loads(written) == {
        "sha256": hashlib.sha256(value).hexdigest(),
        "bytes": 20_000,
        "topic": "raw",
        "partition": 3,
        "offset": 9,
    }


def test_by_configuration_every_dead_letter_is_a_reference() -> None:
    written = body(b"small", mode="reference")
    assert written is not None and json.loads(written)["bytes"] == 5


def test_reasons_are_those_of_the_interface() -> None:
    assert set(REASONS) == {
        "undecodable", "unknown_format", "schema", "oversized", "too_deep", "no_tenant", "signature", "unknown_analyst"
    }  # fmt: skip
