"""What the scorer reads of the events topic: columns, or dead letters that say enough to be sent again."""

from typing import Any

import orjson
import pytest

from stream.record import DeadLetter, Record
from stream.steps.decode import decode
from tests.stream.streams import START_MS, event

TRACE = b"00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"


def record(**changes: Any) -> Record:
    return Record("events", 3, 77, START_MS, b"k", orjson.dumps(event(1, START_MS) | changes))


def refused(record: Record) -> DeadLetter:
    batch, (letter,) = decode([record], 0)
    assert len(batch) == 0
    return letter


@pytest.mark.parametrize("field", ["tenant", "session", "key_hash", "user", "ip", "model_requested", "model_served"])
def test_an_identifier_too_long_for_what_repeats_it_is_refused(field: str) -> None:
    batch, dead = decode([record(**{field: "x" * 1_024})], 0)
    assert (len(batch), dead) == (1, [])
    letter = refused(record(**{field: "x" * 1_025}))
    assert letter.reason == "schema"
    assert letter.message == (
        f"events[3]@77: $.{field} must be at most 1024 characters; got 1025. See schemas/examples/events.v1/."
    )


def test_a_dead_letter_speaks_connects_words_and_names_its_event() -> None:
    letter = refused(record(tenant="x" * 2_000_000))
    assert (letter.stage, letter.exception_class) == ("VALUE_CONVERTER", "builtins.ValueError")
    assert letter.event_id == event(1, START_MS)["event_id"]
    assert refused(record(event_id="x" * 2_000_000)).event_id is None
    assert refused(Record("events", 3, 77, START_MS, None, b"{")).exception_class == "msgspec.DecodeError"


@pytest.mark.parametrize(("trace", "kept"), [(TRACE, TRACE), (b"x" * 2_000_000, None), (b"00-1", None), (None, None)])
def test_only_a_trace_in_w3cs_form_is_passed_on(trace: bytes | None, kept: bytes | None) -> None:
    value = record().value
    batch, _ = decode([Record("events", 3, 77, START_MS, b"k", value, (("traceparent", trace),))], 0)
    assert batch.traceparent == [kept]
