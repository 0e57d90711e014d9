"""The same session, logged by each gateway in each dialect, gives the same events."""

from __future__ import annotations

from itertools import pairwise
from typing import Any

import orjson
import pytest

from sample.records import LIVE
from schemas.corpus import CorpusSession, ToolCall, Turn, calls, decode_session
from schemas.corpus_kong import Dialect, kong_truth, to_kong
from schemas.corpus_otel import otel_truth, otlp_batch, otlp_protobuf, to_otel
from schemas.corpus_records import Truth, litellm_truth, to_litellm, to_native
from stream.record import Record
from stream.sources.lines import read_lines
from stream.steps.ingest import IngestStep
from stream.steps.route import Router

START_MS = 1_800_000_000_000
OWN = {"event_id", "source", "trace_id", "session_source", "finish_reason", "stream"}
"""Fields that gateways and dialects name in their own words."""
WRITTEN = CorpusSession(
    session="bank/task_1",
    tenant="bank",
    key="k2",
    tools={"read": ("path",), "send": ("to", "text")},
    turns=(
        Turn("system", "You help."),
        Turn("user", "Pay the bill, ann@example.org."),
        Turn("assistant", "Let me see.", (ToolCall("read", '{"path":"a","n":1.5}'), ToolCall("read", '{"path": "b"}'))),
        Turn("tool", "10 EUR"),
        Turn("tool", ""),
        Turn("user", "And now?"),
        Turn("assistant", "Done: “ü”\u2028."),
        Turn("user", "Thanks"),
    ),
)


def told_apart(session: CorpusSession) -> bool:
    """Whether items of Responses tell its turns apart: not where a turn of calls alone follows one of a text alone."""
    return not any(
        one.role == other.role == "assistant" and not one.tool_calls and not other.text
        for one, other in pairwise(session.turns)
    )


SESSIONS = [WRITTEN, *[decode_session(line) for line in read_lines(LIVE) if line.strip()][::20]]


def events(values: list[bytes]) -> list[dict[str, Any]]:
    outcome = IngestStep(Router(8)).step([Record("raw", 0, at, 0, None, value) for at, value in enumerate(values)])
    assert outcome.dead_letters == []
    return [orjson.loads(event.value) for event in outcome.events]


def compared(event: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in event.items() if name not in OWN}


def litellm(session: CorpusSession) -> list[bytes]:
    return [orjson.dumps(to_litellm(session, call, START_MS + call.index)) for call in calls(session)]


def otel(session: CorpusSession) -> list[dict[str, Any]]:
    return [to_otel(session, call, START_MS + call.index) for call in calls(session)]


def test_there_are_sessions_with_tools_and_attacks() -> None:
    assert len(SESSIONS) > 20
    assert sum(map(told_apart, SESSIONS)) > 15
    assert any(session.tools for session in SESSIONS) and any(session.label == "attack" for session in SESSIONS)


def test_opentelemetry_gives_litellms_events_in_both_encodings_one_span_a_record_or_all() -> None:
    for session in SESSIONS:
        wanted = [compared(event) for event in events(litellm(session))]
        records = otel(session)
        batch = otlp_batch(records)
        for values in (list(map(orjson.dumps, records)), [orjson.dumps(batch)], [otlp_protobuf(batch)]):
            assert [compared(event) for event in events(values)] == wanted


@pytest.mark.parametrize("streamed", [False, True])
@pytest.mark.parametrize("dialect", ["chat", "responses", "anthropic"])
def test_kong_gives_litellms_events_in_every_dialect_streamed_or_not(dialect: Dialect, streamed: bool) -> None:
    for session in filter(told_apart, SESSIONS) if dialect == "responses" else SESSIONS:
        made = [to_kong(session, call, START_MS + call.index, dialect, streamed=streamed) for call in calls(session)]
        wanted = [compared(event) for event in events(litellm(session))]
        assert [compared(event) for event in events(list(map(orjson.dumps, made)))] == wanted
        assert [compared(event) for event in events([orjson.dumps(made)])] == wanted


def test_native_records_give_the_same_messages() -> None:
    for session in SESSIONS:
        native = [orjson.dumps(to_native(session, call, START_MS + call.index)) for call in calls(session)]
        for one, other in zip(events(litellm(session)), events(native), strict=True):
            assert (one["messages"], one.get("output")) == (other["messages"], other.get("output"))


def litellm_of(dialect: Dialect, session: CorpusSession) -> list[bytes]:
    """LiteLLM's records of calls to its `/v1/responses` or `/v1/messages`, with bodies as these have them."""
    records = []
    for call in calls(session):
        record = to_litellm(session, call, START_MS + call.index)
        payload = to_kong(session, call, START_MS, dialect)["ai"]["proxy"]["payload"]
        request, response = orjson.loads(payload["request"]), orjson.loads(payload["response"])
        record["call_type"] = "aresponses" if dialect == "responses" else "anthropic_messages"
        record["messages"] = request.get("messages", request.get("input"))
        record["response"] = response
        record["model_parameters"] = {
            name: request[name] for name in ("tools", "system", "instructions") if name in request
        }
        records.append(orjson.dumps(record))
    return records


@pytest.mark.parametrize("dialect", ["responses", "anthropic"])
def test_litellm_gives_the_same_events_for_its_other_call_types(dialect: Dialect) -> None:
    for session in filter(told_apart, SESSIONS) if dialect == "responses" else SESSIONS:
        wanted = [compared(event) for event in events(litellm(session))]
        assert [compared(event) for event in events(litellm_of(dialect, session))] == wanted


def test_what_is_known_of_a_record_names_its_event() -> None:
    for session in SESSIONS[:5]:
        for call in calls(session):
            for record, truth in (
                (to_litellm(session, call, START_MS), litellm_truth(session, call)),
                (to_otel(session, call, START_MS), otel_truth(session, call)),
                (to_kong(session, call, START_MS), kong_truth(session, call)),
            ):
                (event,) = events([orjson.dumps(record)])
                known: Truth = truth
                assert (event["event_id"], event["session"], event["tenant"]) == (
                    known.event_id,
                    known.gateway_session,
                    known.tenant,
                )


@pytest.mark.parametrize("make", [to_otel, to_kong])
def test_no_record_shows_label_family_task_or_payload(make: Any) -> None:
    for session in SESSIONS:
        for call in calls(session):
            keys = orjson.dumps(make(session, call, 0)).decode()
            assert session.session not in keys
            assert not session.attack_family or session.attack_family not in keys
