"""Every record becomes an event or a dead letter with the right reason, and the stream goes on."""

import hashlib
import json
from pathlib import Path
from typing import Any

import orjson
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from schemas.dead_letter import REASONS
from schemas.event import GatewayEvent, decode_event
from stream.record import OutRecord, Record
from stream.steps.ingest import IngestStep
from stream.steps.route import Router, partition_of
from tests.schemas.litellm_payload import payload, written
from tests.schemas.otlp_record import TRACE_ID, otlp, otlp_protobuf, span

TRACE = b"00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"
EXAMPLES = Path(__file__).parents[3] / "schemas/examples/events.v1"


def step(**settings_: Any) -> IngestStep:
    return IngestStep(Router(8), **settings_)


def record(value: bytes | None, offset: int = 5, **changes: Any) -> Record:
    return Record("gateway.raw", 2, offset, 1795304830000, b"k", value, **changes)


def one(value: bytes, **settings_: Any) -> GatewayEvent:
    outcome = step(**settings_).step([record(value)])
    assert outcome.dead_letters == []
    (out,) = outcome.events
    return decode_event(out.value)


def refused(value: bytes | None, **settings_: Any) -> tuple[str, str]:
    outcome = step(**settings_).step([record(value)])
    assert outcome.events == []
    (letter,) = outcome.dead_letters
    assert letter.record.value == value
    return letter.reason, letter.message


def test_a_record_becomes_an_event_with_its_source() -> None:
    event = one(written())
    assert event.source.gateway == "litellm"
    assert event.source.raw_sha256 == hashlib.sha256(written()).hexdigest()
    assert (event.source.topic, event.source.partition, event.source.offset) == ("gateway.raw", 2, 5)
    assert (event.tenant, event.session, event.event_time_ms) == ("team-42", "sess-7f2c", 1795304819828)
    assert [message.role for message in event.messages] == ["system", "user"]
    assert event.output[0].parts[0].text == "Good day."
    assert (event.content_state, event.history_complete, event.redaction.counts) == ("full", True, {})


def test_an_event_lies_where_its_tenant_does() -> None:
    (out,) = step().step([record(written(), headers=(("traceparent", TRACE),))]).events
    assert (out.key, out.partition) == (b'["team-42"]', partition_of("team-42", None, 8))
    assert (out.source, out.traceparent) == (("gateway.raw", 2, 5), TRACE)
    assert out.event_id == decode_event(out.value).event_id


def test_a_split_tenant_is_keyed_by_shard() -> None:
    (out,) = IngestStep(Router(8, {"team-42": 4})).step([record(written())]).events
    tenant, shard = json.loads(out.key)
    assert (tenant, out.partition) == ("team-42", partition_of("team-42", shard, 8))


def test_fields_without_a_value_are_absent_but_for_the_key() -> None:
    (out,) = step().step([record(written(metadata=None, end_user=None, stream=None))]).events
    value = orjson.loads(out.value)
    assert None not in [item for name, item in value.items() if name != "key_hash"]
    assert value["key_hash"] is None
    assert out.value == orjson.dumps(value, option=orjson.OPT_SORT_KEYS)


def test_what_was_redacted_is_counted_over_messages_answer_and_ids() -> None:
    messages = [
        {"role": "user", "content": "ann@example.org"},
        {"role": "user", "content": "bob@example.org 555-123-4567"},
    ]
    event = one(written(messages=messages, end_user="ann@example.org", session_id="ann@example.org"))
    assert event.redaction.policy == "standard"
    assert event.redaction.counts == {"email": 4, "phone": 1}
    digest = hashlib.sha256(b"ann@example.org").hexdigest()[:12]
    assert (event.end_user, event.session) == (f"[EMAIL:{digest}]", f"[EMAIL:{digest}]")


def test_no_address_is_left_anywhere_in_an_event() -> None:
    mail = "ann.secret@example.org"
    (out,) = (
        step()
        .step(
            [
                record(
                    written(
                        session_id="",
                        trace_id=mail,
                        end_user=mail,
                        user_agent=mail,
                        metadata={"user_api_key_user_email": mail, "user_api_key_team_id": "t"},
                        messages=[
                            {"role": "system", "content": mail},
                            {"role": "user", "content": [{"type": "text", "text": mail}]},
                            {
                                "role": "assistant",
                                "content": None,
                                "tool_calls": [{"function": {"name": "f", "arguments": f'"{mail}"'}}],
                            },
                            {"role": "tool", "tool_call_id": "1", "content": json.dumps({"mail": mail})},
                        ],
                        response=mail,
                    )
                )
            ]
        )
        .events
    )
    assert b"secret" not in out.value


def test_the_policy_is_told_and_obeyed() -> None:
    event = one(written(messages="ann@example.org"), policy="none")
    assert event.redaction.policy == "none"
    assert event.messages[0].parts[0].text == "ann@example.org"


def test_history_and_answer_share_digests_over_a_conversation() -> None:
    turns: list[dict[str, Any]] = [{"role": "user", "content": "mail ann@example.org"}]
    answer = {
        "role": "assistant",
        "content": None,
        "tool_calls": [
            {"id": "call_1", "type": "function", "function": {"name": "mail", "arguments": '{"to": "ann@example.org"}'}}
        ],
    }
    ingest = step()

    def event(messages: list[dict[str, Any]], **changes: Any) -> GatewayEvent:
        return decode_event(ingest.step([record(written(messages=messages, **changes))]).events[0].value)

    first = event(turns, response={"choices": [{"message": {**answer, "function_call": None, "audio": None}}]})
    second = event([*turns, {**answer, "content": ""}, {"role": "tool", "tool_call_id": "call_1", "content": "sent"}])
    assert first.messages[0].digest == second.messages[0].digest
    assert first.output[0].digest == second.messages[1].digest


@pytest.mark.parametrize("batch", [1, 3, 50])
def test_events_do_not_depend_on_batches_or_on_what_was_seen_before(batch: int) -> None:
    history = [{"role": "user", "content": f"message {i} ann@example.org"} for i in range(10)]
    records = [
        record(written(messages=history[: i % 10 + 1], litellm_call_id=f"c{i}"), offset=i)
        if i % 7
        else record(b"broken", offset=i)
        for i in range(50)
    ]
    ingest = step(cache_bytes=4_000)
    events: list[OutRecord] = []
    letters = []
    for start in range(0, 50, batch):
        outcome = ingest.step(records[start : start + batch])
        events += outcome.events
        letters += outcome.dead_letters
    alone = [step().step([item]) for item in records]
    assert events == [event for outcome in alone for event in outcome.events]
    assert letters == [letter for outcome in alone for letter in outcome.dead_letters]


@pytest.mark.parametrize(
    ("value", "reason"),
    [
        (None, "undecodable"),
        (b"", "undecodable"),
        (b"not json", "undecodable"),
        (b"\x80\x81", "undecodable"),
        (b"\x00\x01\x02", "undecodable"),
        (written()[:-1], "undecodable"),
        (written() + b"}", "undecodable"),
        (written().replace(b"Hello", b"\xff"), "undecodable"),
        (written().replace(b'"gpt-4o"', b"nul"), "undecodable"),
        (b"{}", "unknown_format"),
        (b'{"some": "record"}', "unknown_format"),
        (b'"text"', "unknown_format"),
        (written(startTime="soon"), "schema"),
        (written(startTime=None, endTime=None), "schema"),
        (written(messages=5), "schema"),
        (b"[]", "schema"),
        (b'{"event_time_ms": "x", "messages": []}', "schema"),
        (b'{"event_time_ms": 1, "messages": [{"role": "robot", "parts": []}]}', "schema"),
        (b"[" * 65 + b"]" * 65, "too_deep"),
        (b'{"a":' * 100_000 + b"1" + b"}" * 100_000, "too_deep"),
    ],
)
def test_a_record_that_cannot_be_read_is_a_dead_letter(value: bytes | None, reason: str) -> None:
    assert refused(value)[0] == reason


def test_a_wrong_format_is_a_matter_of_schema_only_when_it_is_that_format() -> None:
    assert refused(b'{"event_time_ms": 1, "messages": []}', format="litellm")[0] == "unknown_format"
    assert refused(written(), format="native")[0] == "unknown_format"


def test_a_dead_letter_says_where_and_what_without_quoting_content() -> None:
    reason, message = refused(written(startTime="the user's secret"))
    assert reason == "schema"
    required = "$.startTime must be epoch seconds or an ISO 8601 text, from 1970 to 9999"
    assert message == f"gateway.raw[2]@5: {required}; got a text"
    assert "secret" not in refused(b'{"litellm_call_id": secret}')[1]


def test_stage_and_exception_are_told_in_connects_words() -> None:
    (letter,) = step().step([record(b"broken")]).dead_letters
    assert (letter.stage, letter.exception_class) == ("VALUE_CONVERTER", "stream.errors.DecodeError")
    (letter,) = step(tenant_default="").step([record(written(metadata=None))]).dead_letters
    assert (letter.stage, letter.reason) == ("TRANSFORMATION", "no_tenant")


def test_records_and_events_beyond_the_limit_are_oversized() -> None:
    value = written(messages="x" * 5_000)
    assert one(value, bytes_max=len(value)).messages
    reason, message = refused(value, bytes_max=len(value) - 1)
    assert reason == "oversized"
    assert f"at most {len(value) - 1} bytes (ingest.bytes_max); got {len(value)}" in message
    # Control characters take two bytes escaped once and six when they were written raw in a tool's arguments.
    growing = b'{"event_time_ms":1,"messages":[%b]}' % b",".join([b'{"role":"user","parts":[]}'] * 1_000)
    reason, message = refused(growing, bytes_max=len(growing) + 10)
    assert reason == "oversized" and "the event must be at most" in message


def test_a_record_of_eight_mebibytes_passes() -> None:
    value = written(messages="x " * ((8 << 20) // 2 - 2_000))
    assert len(value) < 8 << 20
    assert len(one(value).messages) == 1


def test_a_native_record_without_messages_is_an_event() -> None:
    event = one(b'{"event_time_ms": 1, "prompt_tokens": 76}')
    assert (event.messages, event.content_state, event.prompt_tokens) == ([], "redacted", 76)


@pytest.mark.parametrize(
    "absent", [{"messages": None}, {"messages": [], "response": {}}, {"messages": "redacted-by-litellm"}]
)
def test_absent_content_is_no_error(absent: dict[str, Any]) -> None:
    event = one(written(**absent))
    assert event.content_state == "redacted"
    assert not event.history_complete
    assert event.prompt_tokens == 76


def test_redacted_messages_keep_their_roles_and_nothing_else() -> None:
    redacted = "redacted-by-litellm"
    answer = {"choices": [{"message": {"role": "assistant", "content": redacted, "reasoning_content": redacted}}]}
    event = one(written(messages=[{"role": "user", "content": redacted}], response=answer))
    assert [(message.role, message.parts) for message in event.messages] == [("user", [])]
    assert (event.output, event.content_state, event.history_complete) == ([], "redacted", False)


def test_an_empty_answer_is_no_output() -> None:
    assert one(written(response={"choices": [{"message": {"role": "assistant", "content": None}}]})).output == []


def test_numbers_and_texts_that_strict_json_lacks_still_give_an_event() -> None:
    event = one(
        written(response_cost=float("nan"), prompt_tokens=10**50, messages=[{"role": "user", "content": "a\udc00b"}])
    )
    assert (event.cost_usd, event.prompt_tokens) == (None, None)
    assert event.messages[0].parts[0].text == "a\ufffdb"
    assert (
        event.source.raw_sha256
        == hashlib.sha256(
            written(
                response_cost=float("nan"), prompt_tokens=10**50, messages=[{"role": "user", "content": "a\udc00b"}]
            )
        ).hexdigest()
    )


def test_a_lone_surrogate_that_only_a_message_holds_gives_an_event() -> None:
    event = one(written(messages=[{"role": "tool", "tool_call_id": "\ud800", "content": "\ud800"}]))
    assert event.messages[0].parts[0].response == "\ufffd"


def test_duplicate_keys_give_an_event_of_the_last_ones() -> None:
    assert one(written()[:-1] + b',"session_id":"last"}').session == "last"


def test_an_array_of_records_gives_an_event_each() -> None:
    other = written(litellm_call_id="other")
    outcome = step().step([record(b"[" + written() + b"," + other + b"]")])
    assert len({event.event_id for event in outcome.events}) == 2
    assert refused(b"[]")[0] == "schema"


def test_what_can_be_read_of_a_record_becomes_events_and_the_rest_one_dead_letter_of_the_whole_record() -> None:
    value = b"[" + written() + b",{}," + written(startTime="noon") + b"]"
    outcome = step().step([record(value)])
    assert [event.event_id for event in outcome.events] == [step().step([record(written())]).events[0].event_id]
    (letter,) = outcome.dead_letters
    assert (letter.record, letter.reason) == (record(value), "unknown_format")
    assert letter.message.startswith(
        "gateway.raw[2]@5: 2 of 3 calls in the record cannot be read, the first: the record is of no known format"
    )


def test_a_span_that_cannot_be_read_takes_nothing_from_the_others_in_either_encoding() -> None:
    good = {**span(**{"litellm.team.id": "t"}), "spanId": "00000000000000aa"}
    bad = {**span(**{"gen_ai.input.messages": "[" * 80}), "spanId": "00000000000000bb"}
    http = {**span(), "attributes": [], "spanId": "00000000000000cc"}
    for value in (json.dumps(otlp(bad, http, good)).encode(), otlp_protobuf(otlp(bad, http, good))):
        outcome = step().step([record(value, headers=(("traceparent", TRACE),))])
        (event,) = outcome.events
        assert event.event_id == hashlib.sha256(orjson.dumps(["otel", TRACE_ID, "00000000000000aa"])).hexdigest()
        assert (event.source, event.traceparent) == (("gateway.raw", 2, 5), TRACE)
        (letter,) = outcome.dead_letters
        assert (letter.reason, letter.record.value) == ("too_deep", value)
        assert "1 of 2 calls in the record cannot be read, the first: JSON in a text must nest" in letter.message
        assert outcome.skipped == {"other_span": 1}


def test_a_dead_letter_sent_again_gives_its_good_part_the_same_ids() -> None:
    value = otlp_protobuf(otlp({**span(), "traceId": ""}, {**span(), "spanId": "00000000000000bb"}))
    ids = [[event.event_id for event in step().step([record(value, offset)]).events] for offset in (5, 9)]
    assert ids[0] == ids[1] and len(ids[0]) == 1


def test_every_span_of_a_record_has_its_own_hash() -> None:
    spans = [{**span(), "spanId": f"{number:016x}"} for number in (1, 2)]
    for value in (json.dumps(otlp(*spans)).encode(), otlp_protobuf(otlp(*spans))):
        events = [decode_event(out.value) for out in step().step([record(value)]).events]
        assert len({event.source.raw_sha256 for event in events}) == 2


def test_a_record_without_a_call_is_counted_and_neither_event_nor_dead_letter() -> None:
    value = json.dumps(otlp({**span(), "attributes": []})).encode()
    outcome = step().step([record(value), record(value)])
    assert (outcome.events, outcome.dead_letters) == ([], [])
    assert outcome.skipped == {"other_span": 2}


@pytest.mark.parametrize(
    ("attributes", "settings_", "tenant"),
    [
        ({"litellm.team.id": "team", "tenant.id": "acme"}, {"tenant_field": "tenant.id"}, "team"),
        ({"tenant.id": "acme"}, {"tenant_field": "tenant.id"}, "acme"),
        ({}, {"tenant_field": "deployment.name"}, "prod"),
        ({}, {"tenant_field": "tenant.id"}, "gateway"),
        ({}, {}, "gateway"),
        ({"service.name": ""}, {"tenant_field": "service.name"}, "gateway"),
    ],
)
def test_a_spans_tenant_is_its_team_else_the_attribute_that_is_set_else_the_service(
    attributes: dict[str, str], settings_: dict[str, str], tenant: str
) -> None:
    value = otlp_protobuf(otlp(span(**attributes), deployment__name="prod"))
    assert one(value, **settings_).tenant == tenant


def test_a_span_without_any_tenant_is_unassigned_or_refused() -> None:
    bare = otlp(span())
    del bare["resourceSpans"][0]["resource"]
    value = json.dumps(bare).encode()
    assert one(value).tenant == "unassigned"
    assert refused(value, tenant_default="")[0] == "no_tenant"


def test_kongs_tenant_may_be_at_a_path() -> None:
    entry = {
        "started_at": 1,
        "request": {"id": "r"},
        "workspace": "w",
        "service": {"name": "s"},
        "ai": {"proxy": {"usage": {}}},
    }
    value = json.dumps(entry).encode()
    assert one(value).tenant == "w"
    assert one(value, tenant_field="service.name").tenant == "s"


def test_an_address_is_the_clients_or_none() -> None:
    def ip(text: str) -> str | None:
        return one(written(metadata={"requester_ip_address": text})).ip

    assert ip("203.0.113.24") == "203.0.113.24"
    assert ip("203.0.113.24, 10.0.0.1") == "203.0.113.24"
    assert ip("2001:DB8::1") == "2001:db8::1"
    assert ip("unknown") is None


def test_tenants_of_any_name_are_kept_apart() -> None:
    names = ['a","b', "a", "münchen", "\u202e", " ", "a/b", "x" * 512]
    records = [record(written(metadata={"user_api_key_team_id": name})) for name in names]
    outs = step().step(records).events
    assert [decode_event(out.value).tenant for out in outs] == names
    assert len({out.key for out in outs}) == len(names)


def test_identifiers_of_any_length_stay_short_and_apart() -> None:
    def out(end: str) -> OutRecord:
        long = "ü" * 1_000_000 + end
        native = {
            **dict.fromkeys(("tenant", "session", "key_hash", "trace_id", "user", "end_user", "user_agent"), long),
            **dict.fromkeys(("provider", "model_requested", "model_served", "operation", "finish_reason"), long),
            **dict.fromkeys(("error_code", "error_class", "ip"), long),
            "tools": [long] * 2,
            "guardrails": ["g"] * 500,
            "event_time_ms": 1,
            "messages": [],
        }
        (event,) = step(format="native", bytes_max=1 << 26).step([record(orjson.dumps(native))]).events
        return event

    one, other = (orjson.loads(out(end).value) for end in "ab")
    same = {name for name, value in one.items() if value == other[name]}
    assert same == {
        *("content_state", "event_time_ms", "guardrails", "messages", "redaction", "session_source", "status")
    }
    for name in set(one) - same - {"source"}:
        for text in one[name] if name == "tools" else [one[name]]:
            assert len(text.encode()) <= (256 if name == "tools" else 512)
    assert one["session"].startswith("üü") and one["session"][-33] == "…"
    assert (len(one["guardrails"]), "ip" in one) == (128, False)
    assert len(out("a").key) < 600


def test_an_address_that_clipping_would_cut_is_still_redacted() -> None:
    event = one(written(end_user="x " * 250 + "ann.secret@example.org", session_id="s" * 2_000_000))
    assert event.end_user is not None and event.end_user.startswith("[EMAIL:")
    assert len(event.session.encode()) == 512


def test_what_was_clipped_stays_as_it_is_when_it_comes_again() -> None:
    (first,) = step().step([record(written(session_id="sess-" * 200))]).events
    (again,) = step(format="native").step([record(first.value)]).events
    assert decode_event(again.value).session == decode_event(first.value).session


@pytest.mark.parametrize("trace", [b"", b"00-ab", TRACE + b"-" + b"x" * 2_000_000, TRACE.upper(), b"ff" + TRACE[2:]])
def test_a_trace_that_is_not_in_w3cs_form_is_dropped(trace: bytes) -> None:
    (out,) = step().step([record(written(), headers=(("traceparent", trace),))]).events
    assert out.traceparent is None


def test_a_normalised_event_fed_as_native_keeps_id_tenant_session_and_content() -> None:
    (out,) = step().step([record(written(messages=[{"role": "user", "content": "ann@example.org"}]))]).events
    (again,) = step(format="native").step([record(out.value)]).events
    first, second = decode_event(out.value), decode_event(again.value)
    assert (second.event_id, second.tenant, second.session) == (first.event_id, first.tenant, first.session)
    assert (second.messages, second.output, second.tools) == (first.messages, first.output, first.tools)
    assert (second.cost_usd, second.duration_ms, second.content_state) == (first.cost_usd, first.duration_ms, "full")


def test_the_litellm_examples_give_the_published_events() -> None:
    failure = {
        "status": "failure",
        "session_id": "",
        "response": {},
        "stream": None,
        "completionStartTime": None,
        "metadata": dict.fromkeys(payload()["metadata"]),
        "error_information": {"error_code": "429", "error_class": "RateLimitError"},
        "model_parameters": {},
    }
    redacted = {"messages": [{"role": "user", "content": "redacted-by-litellm"}], "response": None}
    for name, changes in (("litellm-success", {}), ("litellm-failure", failure), ("litellm-redacted", redacted)):
        (out,) = step().step([record(written(**changes))]).events
        assert orjson.loads(out.value) == orjson.loads((EXAMPLES / f"{name}.json").read_bytes())


BROKEN = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(st.characters(), max_size=8),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(st.sampled_from(["role", "content", "parts", "type", "text", "choices"]), inner, max_size=3)
    ),
    max_leaves=8,
)


@settings(max_examples=300, deadline=None)
@given(field=st.sampled_from(sorted(payload())), odd=BROKEN)
def test_no_litellm_field_of_any_value_stops_the_stream(field: str, odd: Any) -> None:
    outcome = step().step([record(written(**{field: odd}))])
    assert len(outcome.events) + len(outcome.dead_letters) == 1
    for event in outcome.events:
        decode_event(event.value)
    for letter in outcome.dead_letters:
        assert letter.reason in ("schema", "unknown_format")


@settings(max_examples=300, deadline=None)
@given(value=st.binary(max_size=60), at=st.integers(0, 1_500))
def test_no_bytes_stop_the_stream(value: bytes, at: int) -> None:
    whole = written()
    for broken in (value, whole[:at] + value + whole[at:]):
        outcome = step().step([record(broken)])
        assert len(outcome.events) + len(outcome.dead_letters) <= 1 or broken.lstrip()[:1] == b"["
        assert all(letter.reason in REASONS for letter in outcome.dead_letters)
