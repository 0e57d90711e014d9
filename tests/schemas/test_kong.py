"""Kong's log entries, with payloads as texts or objects, of releases that nest them differently."""

from __future__ import annotations

import copy
import json
from pathlib import Path
from typing import Any

import pytest

from schemas.gateways.call import GatewayCall, Skipped, Unreadable
from schemas.gateways.kong import Kong

ENTRY: dict[str, Any] = json.loads((Path(__file__).parent / "payloads/kong_chat.json").read_bytes())


def decode(entry: Any) -> list[GatewayCall]:
    return [part for part in Kong().decode(json.dumps(entry).encode()) if isinstance(part, GatewayCall)]


def decoded(**changes: Any) -> GatewayCall:
    """The call in the entry; `changes` replace top-level fields, `...` removes one."""
    entry = {name: value for name, value in {**ENTRY, **changes}.items() if value is not ...}
    (call,) = decode(entry)
    return call


def proxy(**changes: Any) -> GatewayCall:
    """The call in the entry, `changes` to what the proxy says."""
    return decoded(ai={"proxy": {**ENTRY["ai"]["proxy"], **changes}})


def said(call: GatewayCall) -> list[tuple[str, list[dict[str, str]]]]:
    return [(message.role, message.parts) for message in map(call.parse, [*call.messages, *call.output])]


def test_an_entry_gives_every_field() -> None:
    call = decoded()
    assert call.identity == ("9ec9264afbbbad5fe5c64877d92eeb04",)
    assert (call.tenant, call.key_hash) == (ENTRY["workspace"], ENTRY["authenticated_entity"]["id"])
    assert (call.user, call.end_user, call.ip, call.user_agent) == (
        "svc-support-bot",
        "cust-889",
        "203.0.113.24",
        "acme-bot/1.4",
    )
    assert (call.session, call.session_source, call.trace_id) == (
        "sess-7f2c",
        "gateway",
        "0af7651916cd43dd8448eb211c80319c",
    )
    assert (call.event_time_ms, call.duration_ms, call.ttft_ms, call.stream) == (1795304819828, 1631.0, 412.0, False)
    assert (call.provider, call.model_requested, call.model_served) == ("openai", "gpt-4o", "gpt-4o-2024-08-06")
    assert (call.prompt_tokens, call.completion_tokens, call.total_tokens, call.cost_usd) == (76, 6, 82, 0.00025)
    assert (call.status, call.finish_reason, call.tools) == ("success", "tool_calls", ("search_crm",))
    assert (call.content_state, call.history_complete) == ("full", True)
    assert [role for role, _ in said(call)] == ["system", "user", "assistant"]


@pytest.mark.parametrize("name", ["ai-proxy", "ai-proxy-advanced"])
def test_releases_before_nest_by_the_plugins_name(name: str) -> None:
    assert decoded(ai={name: ENTRY["ai"]["proxy"]}) == decoded()


def test_the_first_releases_have_the_request_beside_the_plugins_and_tokens_in_the_singular() -> None:
    plugin = copy.deepcopy(ENTRY["ai"]["proxy"])
    request = plugin["payload"].pop("request")
    plugin["usage"] = {"prompt_token": 76, "completion_token": 6, "total_tokens": 82}
    call = decoded(ai={"payload": {"request": request}, "ai-proxy": plugin})
    assert said(call) == said(decoded())
    assert (call.prompt_tokens, call.completion_tokens) == (76, 6)


def test_payloads_may_be_objects() -> None:
    payload = {name: json.loads(text) for name, text in ENTRY["ai"]["proxy"]["payload"].items()}
    assert said(proxy(payload=payload)) == said(decoded())
    assert proxy(payload=payload).tools == ("search_crm",)


def test_a_streamed_response_is_put_together() -> None:
    chunks = [
        {"choices": [{"index": 0, "delta": {"role": "assistant", "content": "Good "}}]},
        {"choices": [{"index": 0, "delta": {"content": "day."}, "finish_reason": "stop"}]},
    ]
    text = "".join(f"data: {json.dumps(chunk)}\n\n" for chunk in chunks) + "data: [DONE]\n\n"
    request = ENTRY["ai"]["proxy"]["payload"]["request"].replace('"stream":false', '"stream":true')
    call = proxy(payload={"request": request, "response": text})
    assert said(call)[2:] == [("assistant", [{"type": "text", "text": "Good day."}])]
    assert (call.stream, call.finish_reason, call.content_state) == (True, "stop", "full")
    cut = proxy(payload={"request": request, "response": text[:-60]})
    assert (said(cut)[2:], cut.content_state) == ([("assistant", [{"type": "text", "text": "Good "}])], "truncated")


@pytest.mark.parametrize("payload", [..., None, {}, "hidden", {"request": None, "response": None}])
def test_payloads_are_absent_unless_kong_is_told_to_log_them(payload: Any) -> None:
    held = {name: value for name, value in ENTRY["ai"]["proxy"].items() if name != "payload"}
    call = decoded(ai={"proxy": held if payload is ... else {**held, "payload": payload}})
    assert (call.content_state, call.messages, call.output) == ("redacted", [], [])
    assert (call.prompt_tokens, call.model_served) == (76, "gpt-4o-2024-08-06")


def test_other_plugins_that_ask_a_model_are_calls_of_their_own() -> None:
    other = {"meta": {"request_model": "small"}, "usage": {"total_tokens": 5}}
    calls = decode(
        {**ENTRY, "ai": {"ai-request-transformer": other, **ENTRY["ai"], "ai-semantic-cache": {"cache": {}}}}
    )
    assert [call.identity for call in calls] == [
        (ENTRY["request"]["id"],),
        (ENTRY["request"]["id"], "ai-request-transformer"),
    ]
    assert calls[1].model_requested == "small"


def test_an_error_is_a_failure_with_its_status() -> None:
    call = decoded(response={"status": 429})
    assert (call.status, call.error_code, call.output, call.model_served) == ("failure", "429", [], None)
    body = {"error": {"type": "rate_limit_error", "code": "slow_down", "message": "slow"}}
    told = proxy(payload={"request": "hi", "response": body})
    assert (told.status, told.error_code, told.error_class) == ("failure", "slow_down", "rate_limit_error")


def test_headers_may_be_lists_or_odd() -> None:
    headers = {"User-Agent": ["a", "b"], "x-conversation-id": "c", "traceparent": "00-xyz", "empty": []}
    call = decoded(request={"id": "r", "headers": headers})
    assert (call.user_agent, call.session, call.trace_id) == ("a", "c", None)
    assert decoded(request={"id": "r", "headers": {}}, trace_id={"w3c": "0af7"}).trace_id == "0af7"
    odd: Any
    for odd in (None, [], "none", 5):
        assert decoded(request={"id": "r", "headers": odd}).user_agent is None


def test_without_a_sessions_name_it_is_left_to_ingest() -> None:
    assert decoded(request={"id": "r"}).session is None


def test_the_caller_may_be_unknown() -> None:
    call = decoded(consumer=..., authenticated_entity=..., client_ip=..., workspace=...)
    assert (call.user, call.key_hash, call.ip, call.tenant) == (None, None, None, "default")
    assert decoded(authenticated_entity=...).key_hash == ENTRY["consumer"]["id"]
    assert decoded(consumer={"custom_id": "u"}).user == "u"


def test_names_that_kong_does_not_know_are_absent() -> None:
    meta = {"provider_name": "UNSPECIFIED", "request_model": "UNSPECIFIED", "llm_latency": 5}
    call = decoded(ai={"proxy": {**ENTRY["ai"]["proxy"], "meta": meta}}, latencies=...)
    assert (call.provider, call.model_requested, call.duration_ms) == (None, "gpt-4o", 5.0)
    assert call.model_served == "gpt-4o-2024-08-06"


def test_usage_of_the_body_stands_in_for_kongs() -> None:
    body = {"choices": [], "usage": {"prompt_tokens": 1, "completion_tokens": 2, "total_tokens": 3}}
    call = proxy(usage={}, payload={"request": "hi", "response": body})
    assert (call.prompt_tokens, call.completion_tokens, call.total_tokens) == (1, 2, 3)


def test_requests_to_other_services_are_counted() -> None:
    entry = {name: value for name, value in ENTRY.items() if name != "ai"}
    assert Kong().decode(json.dumps(entry).encode()) == [Skipped(1, "other_request")]
    entry["ai"] = {"ai-prompt-guard": {}, "proxy": "off"}
    assert Kong().decode(json.dumps(entry).encode()) == [Skipped(1, "unanswered_request")]


@pytest.mark.parametrize(
    ("changes", "reason", "message"),
    [
        ({"started_at": ...}, "unknown_format", "$.started_at or $.request is absent: not a Kong log entry"),
        ({"request": "GET /"}, "unknown_format", "$.started_at or $.request is absent: not a Kong log entry"),
        ({"started_at": "noon"}, "schema", "$.started_at must be ms since the epoch; got a text"),
        ({"started_at": -1}, "schema", "$.started_at must be ms since the epoch; got the number -1"),
        ({"ai": "x"}, "schema", "$.ai must be an object of AI plugins; got a text"),
    ],
)
def test_what_is_no_entry_says_why(changes: dict[str, Any], reason: str, message: str) -> None:
    with pytest.raises(Unreadable) as caught:
        decoded(**changes)
    assert (caught.value.reason, str(caught.value)) == (reason, message)
