"""Payloads as real gateways wrote them (and their own validators accepted) are read whole.

Each payload's event lies beside it, checked by hand: every field of the payload that an event has a place for.
"""

from pathlib import Path
from typing import Any

import orjson
import pytest

from stream.record import Record
from stream.steps.ingest import IngestStep
from stream.steps.route import Router

PAYLOADS = Path(__file__).parent / "payloads"
NAMES = sorted(path.name.removesuffix(".json") for path in PAYLOADS.glob("*.json") if "event" not in path.name)
OURS = ("event_id", "source", "redaction", "history_complete", "content_state")


def event_of(name: str, format: str) -> dict[str, Any]:
    value = (PAYLOADS / f"{name}.json").read_bytes()
    outcome = IngestStep(Router(8), format=format).step([Record("raw", 0, 0, 0, None, value)])
    assert (outcome.dead_letters, outcome.skipped) == ([], {})
    (event,) = outcome.events
    return dict(orjson.loads(event.value))


def test_there_are_payloads_of_every_gateway() -> None:
    assert {name.split("_")[0] for name in NAMES} == {"kong", "litellm", "otel"}


@pytest.mark.parametrize("name", NAMES)
def test_a_payload_is_read_whole(name: str) -> None:
    event = event_of(name, "auto")
    assert (event["history_complete"], event["content_state"]) == (True, "full")
    for message in (*event["messages"], *event.get("output", ())):
        del message["digest"]
    wanted = orjson.loads((PAYLOADS / f"{name}.event.json").read_bytes())
    assert {field: value for field, value in event.items() if field not in OURS} == wanted


@pytest.mark.parametrize("name", NAMES)
def test_a_payload_is_recognised_as_what_it_is(name: str) -> None:
    gateway = name.split("_", maxsplit=1)[0]
    assert event_of(name, "auto") == event_of(name, gateway)
    assert event_of(name, "auto")["source"]["gateway"] == gateway
