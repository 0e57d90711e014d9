"""Events, tenants and sessions have ids that nobody can forge or mix up."""

import hashlib
import json
from typing import Any

import pytest

from schemas.gateways import native
from schemas.gateways.call import GatewayCall
from stream.errors import DecodeError
from stream.steps.decode_gateway import MessageCache, ReadyMessage
from stream.steps.identify import Tenants, event_id, session_of
from stream.steps.redact import Redactor
from tests.schemas.litellm_payload import decoded, payload, written

CACHE = MessageCache(Redactor("standard"))


def ready(call: GatewayCall) -> list[ReadyMessage]:
    return CACHE.ready(call.messages, call.parse)


def test_an_event_id_is_a_hash_of_gateway_kind_and_call_id() -> None:
    expected = hashlib.sha256(b'["litellm","93567992-478b-43f4-9540-4e23fd20be15"]').hexdigest()
    assert event_id(decoded(), "00" * 32) == expected


def test_a_gateways_own_id_that_repeats_across_users_counts_nothing() -> None:
    assert event_id(decoded(id="a"), "") == event_id(decoded(id="b"), "")
    assert event_id(decoded(litellm_call_id="x"), "") != event_id(decoded(litellm_call_id="y"), "")


def test_trace_and_span_name_a_call_without_id() -> None:
    (call,) = native.Native().decode(b'{"event_time_ms": 1, "messages": [], "trace_id": "t", "span_id": "s"}')
    assert event_id(call, "00" * 32) == hashlib.sha256(b'["native","t","s"]').hexdigest()


def test_a_call_that_nothing_names_is_named_by_its_bytes() -> None:
    assert event_id(decoded(litellm_call_id=None), "ab" * 32) == "ab" * 32


def test_a_native_event_keeps_its_id() -> None:
    (call,) = native.Native().decode(json.dumps({"event_time_ms": 1, "messages": [], "event_id": "cd" * 32}).encode())
    assert event_id(call, "ab" * 32) == "cd" * 32


def test_a_derived_session_survives_a_growing_history() -> None:
    first = decoded(session_id="", trace_id="")
    grown = [
        *payload()["messages"],
        {"role": "assistant", "content": "Good day."},
        {"role": "user", "content": "More."},
    ]
    second = decoded(session_id="", trace_id="", messages=grown)
    name, source = session_of(first, "t", ready(first))
    assert source == "derived" and len(name) == 32
    assert session_of(second, "t", ready(second)) == (name, source)


@pytest.mark.parametrize(
    "changes",
    [
        {"messages": [{"role": "system", "content": "You harm."}, {"role": "user", "content": "Hello there."}]},
        {"messages": [{"role": "system", "content": "You help."}, {"role": "user", "content": "Bye."}]},
        {"metadata": {"user_api_key_hash": "other"}},
    ],
)
def test_another_key_prompt_or_first_message_is_another_session(changes: dict[str, Any]) -> None:
    one, other = decoded(session_id="", trace_id=""), decoded(session_id="", trace_id="", **changes)
    assert session_of(one, "t", ready(one)) != session_of(other, "t", ready(other))


def test_another_tenant_is_another_session() -> None:
    call = decoded(session_id="", trace_id="")
    assert session_of(call, "a", ready(call)) != session_of(call, "b", ready(call))


def test_a_named_session_is_kept_with_its_source() -> None:
    assert session_of(decoded(), "t", []) == ("sess-7f2c", "gateway")
    assert session_of(decoded(session_id=""), "t", []) == ("trace-9a11", "trace")


@pytest.mark.parametrize(
    ("field", "tenant"),
    [
        ("", "team-42"),
        ("metadata.user_api_key_org_id", "org-acme"),
        ("model", "gpt-4o"),
        ("total_tokens", "82"),
        ("metadata.user_api_key_org_id.deeper", "team-42"),
        ("metadata", "team-42"),
        ("nowhere.at.all", "team-42"),
    ],
)
def test_a_configured_field_names_the_tenant_and_the_gateways_order_follows(field: str, tenant: str) -> None:
    assert Tenants(field).tenant_of(decoded(), written()) == tenant


def test_a_configured_field_is_found_in_a_record_that_had_to_be_repaired() -> None:
    assert Tenants("model").tenant_of(decoded(), written(response_cost=float("nan"))) == "gpt-4o"


def test_no_tenant_gives_the_default() -> None:
    assert Tenants().tenant_of(decoded(metadata=None), written(metadata=None)) == "unassigned"
    assert Tenants("model_id", "other").tenant_of(decoded(metadata=None), written(metadata=None)) == "other"


@pytest.mark.parametrize(("field", "where"), [("", "the gateway's own fields"), ("metadata.x", r"metadata\.x")])
def test_without_a_default_a_call_that_names_no_tenant_is_refused(field: str, where: str) -> None:
    with pytest.raises(DecodeError, match=rf"{where} must name a tenant") as caught:
        Tenants(field, "").tenant_of(decoded(metadata=None), written(metadata=None))
    assert caught.value.reason == "no_tenant"
