"""LiteLLM's StandardLoggingPayload is read with all its odd corners."""

import json
from typing import Any

import pytest

from schemas.digest import plain_digest
from schemas.gateways.call import Unreadable
from schemas.gateways.litellm import LiteLLM
from tests.schemas.litellm_payload import START, decoded, payload, texts, written


def test_a_success_gives_every_field() -> None:
    call = decoded()
    assert call.identity == ("93567992-478b-43f4-9540-4e23fd20be15",)
    assert (call.tenant, call.key_hash, call.user, call.end_user) == (
        "team-42",
        "88dc28d0f030c55e",
        "u-1007",
        "cust-889",
    )
    assert (call.ip, call.user_agent, call.provider) == ("203.0.113.24", "acme-bot/1.4", "openai")
    assert (call.model_requested, call.model_served, call.operation) == ("gpt-4o", "gpt-4o-2024-08-06", "chat")
    assert (call.prompt_tokens, call.completion_tokens, call.total_tokens, call.cost_usd) == (76, 6, 82, 0.00025)
    assert (call.stream, call.status, call.finish_reason) == (True, "success", "stop")
    assert (call.error_code, call.error_class, call.guardrails, call.tools) == (None, None, (), ("search_crm",))
    assert (call.content_state, call.history_complete) == ("full", True)
    assert texts(call.messages, call) == ["You help.", "Hello there."]
    assert texts(call.output, call) == ["Good day."]


def test_times_are_epoch_seconds_and_an_event_happens_when_its_request_starts() -> None:
    call = decoded()
    assert (call.event_time_ms, call.duration_ms, call.ttft_ms) == (1795304819828, 4500.0, 3250.0)
    assert decoded(startTime=1795304819).event_time_ms == 1795304819000
    assert decoded(startTime="2026-11-21T23:46:59.828+00:00").event_time_ms == 1795304819828
    assert decoded(startTime="2026-11-21T23:46:59.828").event_time_ms == 1795304819828


def test_without_a_start_the_end_counts_and_no_duration_is_known() -> None:
    call = decoded(startTime=None)
    assert (call.event_time_ms, call.duration_ms, call.ttft_ms) == (1795304824328, None, None)


@pytest.mark.parametrize(
    ("start", "got"),
    [
        ("yesterday", "a text"),
        ("0001-01-01", "a text"),
        (-5, "the number -5"),
        (1e30, "the number 1e+30"),
        (True, "a boolean"),
        ([], "a list"),
        ({}, "an object"),
        (1795304819828039, "the number 1795304819828039"),
    ],
)
def test_a_start_that_is_no_time_is_refused(start: Any, got: str) -> None:
    with pytest.raises(Unreadable) as caught:
        decoded(startTime=start)
    required = "$.startTime must be epoch seconds or an ISO 8601 text, from 1970 to 9999"
    assert (caught.value.reason, str(caught.value)) == ("schema", f"{required}; got {got}")


def test_a_record_without_any_time_is_refused() -> None:
    with pytest.raises(Unreadable, match="nor an endTime"):
        decoded(startTime=None, endTime=...)


@pytest.mark.parametrize("stream", [None, False])
def test_a_call_that_did_not_stream_has_no_time_to_first_token(stream: bool | None) -> None:
    call = decoded(stream=stream)
    assert (call.stream, call.ttft_ms) == (stream, None)


def test_an_end_before_the_start_gives_no_duration() -> None:
    assert decoded(endTime=START - 1).duration_ms is None


def test_a_session_id_is_the_gateways() -> None:
    call = decoded()
    assert (call.session, call.session_source, call.trace_id) == ("sess-7f2c", "gateway", "trace-9a11")


@pytest.mark.parametrize("empty", ["", None, ...])
def test_without_request_correlation_trace_id_holds_the_session(empty: Any) -> None:
    call = decoded(session_id=empty)
    assert (call.session, call.session_source) == ("trace-9a11", "trace")


@pytest.mark.parametrize("empty", ["", None, ...])
def test_with_neither_session_nor_trace_there_is_no_session(empty: Any) -> None:
    assert decoded(session_id="", trace_id=empty).session is None


@pytest.mark.parametrize(
    ("missing", "tenant"),
    [
        ({}, "team-42"),
        ({"user_api_key_team_id": None}, "org-acme"),
        ({"user_api_key_team_id": "", "user_api_key_org_id": None}, "88dc28d0f030c55e"),
        ({"user_api_key_team_id": None, "user_api_key_org_id": None, "user_api_key_hash": None}, None),
    ],
)
def test_the_tenant_is_team_else_org_else_key(missing: dict[str, Any], tenant: str | None) -> None:
    assert decoded(metadata={**payload()["metadata"], **missing}).tenant == tenant


@pytest.mark.parametrize(("error_class", "is_tenant"), [("ProxyException", False), ("AuthenticationError", True)])
def test_a_key_is_no_tenant_when_the_proxy_refused_it_and_one_when_a_provider_refused_the_proxys(
    error_class: str, is_tenant: bool
) -> None:
    call = decoded(
        status="failure",
        error_information={"error_code": "401", "error_class": error_class},
        metadata={"user_api_key_hash": "88dc28d0f030c55ed4ab77ed8faf0981"},
    )
    assert call.key_hash == "88dc28d0f030c55ed4ab77ed8faf0981"
    assert call.tenant == (call.key_hash if is_tenant else None)


@pytest.mark.parametrize("metadata", [None, ..., {}, [], "none", 7, False])
def test_metadata_may_be_anything_or_nothing(metadata: Any) -> None:
    call = decoded(metadata=metadata)
    assert (call.tenant, call.user, call.key_hash, call.end_user) == (None, None, None, "cust-889")


def test_all_metadata_may_be_null() -> None:
    call = decoded(metadata=dict.fromkeys(payload()["metadata"]), requester_ip_address="203.0.113.9", user_agent="x")
    assert (call.tenant, call.ip, call.user_agent) == (None, "203.0.113.9", "x")


def test_a_users_mail_address_stands_in_for_a_missing_id() -> None:
    assert decoded(metadata={"user_api_key_user_email": "a@b.example"}).user == "a@b.example"


@pytest.mark.parametrize("response", [{}, None, "", ..., "litellm.RateLimitError: rate limited", {"error": "x"}])
def test_a_failure_has_no_output_whatever_its_response_holds(response: Any) -> None:
    call = decoded(
        status="failure", response=response, error_information={"error_code": "429", "error_class": "RateLimitError"}
    )
    assert (call.status, call.output, call.error_code, call.error_class) == ("failure", [], "429", "RateLimitError")
    assert (call.model_served, call.finish_reason) == (None, None)
    assert texts(call.messages, call) == ["You help.", "Hello there."]


@pytest.mark.parametrize("information", [None, ..., {}, "boom", []])
def test_error_information_may_be_anything(information: Any) -> None:
    call = decoded(status="failure", error_information=information)
    assert (call.status, call.error_code, call.error_class) == ("failure", None, None)


def test_an_error_code_may_be_a_number() -> None:
    assert decoded(status="failure", error_information={"error_code": 500}).error_code == "500"


def test_a_response_may_be_a_text() -> None:
    call = decoded(response="Good day.")
    assert texts(call.output, call) == ["Good day."]
    assert call.model_served == "gpt-4o"


def test_a_response_may_be_json_in_a_text() -> None:
    call = decoded(response=json.dumps(payload()["response"]))
    assert texts(call.output, call) == ["Good day."]
    assert (call.model_served, call.finish_reason) == ("gpt-4o-2024-08-06", "stop")


@pytest.mark.parametrize("text", ['{"answer": 42}', "{not json", '{"choices": "many"}'])
def test_an_answer_that_happens_to_be_json_stays_an_answer(text: str) -> None:
    call = decoded(response=text)
    assert texts(call.output, call) == [text]


@pytest.mark.parametrize("response", [{}, None, "", [], 5, {"choices": None}, {"choices": []}, {"choices": [None, 1]}])
def test_a_success_may_lack_an_answer(response: Any) -> None:
    assert decoded(response=response).output == []


def test_every_choice_is_an_answer_and_old_completions_answer_in_text() -> None:
    choices = [{"message": {"role": "assistant", "content": "a"}}, {"text": "b", "finish_reason": "length"}]
    call = decoded(response={"choices": choices})
    assert texts(call.output, call) == ["a", "b"]
    assert call.finish_reason == "length"


def test_null_content_beside_tool_calls_is_read() -> None:
    message = {
        "role": "assistant",
        "content": None,
        "tool_calls": [{"id": "c1", "type": "function", "function": {"name": "f", "arguments": '{"q":1}'}}],
    }
    call = decoded(response={"choices": [{"finish_reason": "tool_calls", "message": message}]})
    assert call.parse(call.output[0]).parts == [{"type": "tool_call", "id": "c1", "name": "f", "arguments": '{"q":1}'}]


@pytest.mark.parametrize(
    "messages", [None, ..., [], {}, "", "redacted-by-litellm", [{"role": "user", "content": "redacted-by-litellm"}]]
)
def test_absent_content_is_no_error(messages: Any) -> None:
    call = decoded(messages=messages, response=None)
    parsed = [call.parse(raw) for raw in call.messages]
    assert [part for message in parsed for part in message.parts] == []
    assert "redacted" in (call.content_state, *(message.content for message in parsed))


def test_content_in_cold_storage_is_external() -> None:
    call = decoded(messages=None, metadata={"cold_storage_object_key": "s3/key"})
    assert call.content_state == "external"


def test_content_that_a_logger_cut_is_truncated() -> None:
    assert decoded(metadata={"litellm_content_truncated": {"messages": True}}).content_state == "truncated"


def test_messages_may_be_a_text_or_json_in_a_text_or_wrapped() -> None:
    for messages in (
        "Hello there.",
        json.dumps([{"role": "user", "content": "Hello there."}]),
        {"messages": [{"role": "user", "content": "Hello there."}]},
        {"role": "user", "content": "Hello there."},
        {"input": "Hello there."},
        ["Hello there."],
    ):
        call = decoded(messages=messages)
        assert texts(call.messages, call) == ["Hello there."]


def test_a_text_that_only_looks_like_a_list_stays_a_text() -> None:
    call = decoded(messages="[1] see the footnote")
    assert texts(call.messages, call) == ["[1] see the footnote"]


@pytest.mark.parametrize(("messages", "got"), [(5, "the number 5"), (True, "a boolean")])
def test_messages_that_are_no_messages_are_refused(messages: Any, got: str) -> None:
    with pytest.raises(Unreadable, match=rf"\$\.messages must be a list, a text or null; got {got}$") as caught:
        decoded(messages=messages)
    assert caught.value.reason == "schema"


@pytest.mark.parametrize(
    ("information", "verdicts"),
    [
        (None, ()),
        ([], ()),
        ({"guardrail_name": "pii", "guardrail_status": "success"}, ("pii:success",)),
        ([{"guardrail_name": "a", "guardrail_status": "blocked"}, {}, "x"], ("a:blocked", "guardrail:unknown")),
    ],
)
def test_guardrails_give_their_verdicts(information: Any, verdicts: tuple[str, ...]) -> None:
    assert decoded(guardrail_information=information).guardrails == verdicts


def test_a_guardrail_that_intervened_shows_in_the_status_alone() -> None:
    fields = {"guardrail_status": "guardrail_intervened"}
    assert decoded(status_fields=fields).guardrails == ("guardrail:guardrail_intervened",)


@pytest.mark.parametrize("parameters", [None, ..., {}, "x", {"tools": None}, {"tools": "x"}, {"tools": [1, {}, None]}])
def test_tools_may_be_absent_or_odd(parameters: Any) -> None:
    assert decoded(model_parameters=parameters).tools == ()


def test_tools_are_named_in_every_dialect() -> None:
    tools = [{"type": "function", "function": {"name": "a"}}, {"name": "b", "input_schema": {}}, {"type": "web_search"}]
    assert decoded(model_parameters={"tools": tools}).tools == ("a", "b", "web_search")
    assert decoded(model_parameters={"functions": [{"name": "c"}]}).tools == ("c",)


@pytest.mark.parametrize(
    ("call_type", "operation"),
    [
        ("acompletion", "chat"),
        ("completion", "chat"),
        ("aresponses", "chat"),
        ("anthropic_messages", "chat"),
        ("aembedding", "embeddings"),
        ("atext_completion", "text_completion"),
        ("amoderation", "amoderation"),
        ("", None),
        (None, None),
    ],
)
def test_call_types_are_told_in_opentelemetrys_words_where_there_are_any(call_type: Any, operation: str | None) -> None:
    assert decoded(call_type=call_type).operation == operation


def test_numbers_of_odd_types_become_none() -> None:
    call = decoded(prompt_tokens="76", completion_tokens=-1, total_tokens=10**30, response_cost="free")
    assert (call.prompt_tokens, call.completion_tokens, call.total_tokens, call.cost_usd) == (None,) * 4


def test_numbers_that_python_writes_and_json_lacks_become_none() -> None:
    call = decoded(response_cost=float("nan"), completion_tokens=float("inf"))
    assert (call.cost_usd, call.completion_tokens, call.prompt_tokens) == (None, None, 76)


def test_a_lone_surrogate_hides_nothing() -> None:
    call = decoded(messages=[{"role": "user", "content": "a\ud800b"}], model="gpt\udfff")
    assert texts(call.messages, call) == ["a\ufffdb"]
    assert call.model_requested == "gpt\ufffd"


def test_the_last_of_duplicate_keys_counts_as_everywhere_in_python() -> None:
    value = written()[:-1] + b', "session_id": "other", "metadata": {"user_api_key_team_id": "t2"}}'
    (call,) = LiteLLM().decode(value)
    assert (call.session, call.tenant, call.key_hash) == ("other", "t2", None)


def test_an_answer_has_one_digest_as_output_and_as_history() -> None:
    answers: list[tuple[dict[str, Any], dict[str, Any]]] = [
        (
            {"content": "Good day.", "role": "assistant", "tool_calls": None, "function_call": None, "annotations": []},
            {"role": "assistant", "content": "Good day."},
        ),
        (
            {"content": "Good day.", "role": "assistant", "reasoning_content": "hm", "provider_specific_fields": {}},
            {"role": "assistant", "content": [{"type": "text", "text": "Good day."}]},
        ),
        (
            {
                "content": None,
                "role": "assistant",
                "tool_calls": [{"id": "1", "function": {"name": "f", "arguments": "{}"}}],
            },
            {
                "role": "assistant",
                "content": "",
                "tool_calls": [{"id": "2", "function": {"name": "f", "arguments": ""}}],
            },
        ),
        (
            {"content": None, "role": "assistant", "refusal": "No."},
            {"role": "assistant", "content": [{"type": "refusal", "refusal": "No."}]},
        ),
    ]
    for answer, history in answers:
        call = decoded(messages=[history], response={"choices": [{"message": answer}]})
        then, now = call.parse(call.messages[0]), call.parse(call.output[0])
        assert plain_digest(then.role, then.parts) == plain_digest(now.role, now.parts)


def test_another_record_is_of_unknown_format() -> None:
    with pytest.raises(Unreadable) as caught:
        LiteLLM().decode(b'{"hello": "world"}')
    assert caught.value.reason == "unknown_format"


def test_a_payload_without_call_id_is_known_by_type_and_start() -> None:
    assert decoded(litellm_call_id=...).identity is None
    assert decoded(litellm_call_id=None).identity is None


def test_what_is_no_object_is_refused_by_schema() -> None:
    for value in (b"[]", b'"litellm_call_id"', b"7", b"[NaN]"):
        with pytest.raises(Unreadable) as caught:
            LiteLLM().decode(value)
        assert caught.value.reason == "schema"


@pytest.mark.parametrize("value", [b"", b"{", b'{"litellm_call_id": "a",}', b'{"litellm_call_id": tru}'])
def test_what_is_no_json_is_undecodable(value: bytes) -> None:
    with pytest.raises(Unreadable) as caught:
        LiteLLM().decode(value)
    assert caught.value.reason == "undecodable"


@pytest.mark.parametrize("field", sorted(payload()))
@pytest.mark.parametrize("odd", [None, 0, -1.5, "", "x", True, [], {}, [{}], {"a": [1]}])
def test_any_field_may_be_of_any_type_and_either_is_read_or_refused_by_name(field: str, odd: Any) -> None:
    refused: Unreadable | None = None
    try:
        call = decoded(**{field: odd})
        for raw in call.messages + call.output:
            call.parse(raw)
    except Unreadable as error:
        refused = error
    assert refused is None or (refused.reason == "schema" and f"$.{field}" in str(refused))


def test_many_sets_of_tools_do_not_grow_without_bound() -> None:
    known = LiteLLM()
    for number in range(2_000):
        known.decode(written(model_parameters={"tools": [{"name": f"t{number}"}]}))
    assert len(known._tools._known) <= 512
