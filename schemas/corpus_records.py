"""Gateway records of a session's calls, as a real gateway would have logged them, and what is known about each.

What is known (label, family, which message carries the attack) goes to `Truth` alone; no record shows it.
"""

from __future__ import annotations

from collections import deque
from hashlib import blake2b, sha256
from typing import Any
from uuid import UUID

import msgspec
import orjson

from schemas.corpus import Call, CorpusSession, Turn
from schemas.corpus_timeline import completion_tokens, duration_ms, first_token_ms, prompt_tokens, unit

DEFAULT_MODEL = "gpt-4o-mini"
USD_PER_PROMPT_TOKEN = 2.5e-6
USD_PER_COMPLETION_TOKEN = 1e-5
_UNCORRELATED_TENANTS = 0.34
_USERS_PER_KEY = 12
_USER_AGENTS = (
    "OpenAI/Python 1.108.2",
    "OpenAI/JS 6.3.0",
    "langchain-openai/1.0.3",
    "acme-agent/2.7",
    "python-httpx/0.28.1",
)
_ELSEWHERE = ("192.0.2", "198.51.100")
"""Networks that no key is used from unless its session says so."""
_OTHER_AGENTS = ("Go-http-client/2.0", "curl/8.16.0", "node-fetch/3.3.2", "python-requests/2.32.5")


class Truth(msgspec.Struct, frozen=True, kw_only=True):
    """What is known about one record."""

    call_id: str
    """The record's id: `litellm_call_id` of LiteLLM's, `event_id` of a native one, a span's id, Kong's `request.id`."""
    event_id: str
    """The id that ingest gives the event, 64 hex digits."""
    tenant: str | None
    session: str
    """The corpus's name of the session."""
    gateway_session: str
    """The session's name in the record."""
    call_index: int
    label: str | None
    attack_family: str | None
    task: str | None
    source: str | None
    payload: tuple[int, ...]
    """Messages of the request that carry the attack, by position."""
    payload_new: bool
    """Whether this call is the first to send one of them."""


def litellm_truth(session: CorpusSession, call: Call) -> Truth:
    """What is known about `to_litellm`'s record of `call`."""
    call_id = litellm_call_id(session, call.index)
    event_id = sha256(orjson.dumps(["litellm", call_id])).hexdigest()
    return truth_of(session, call, call_id, event_id, litellm_session(session))


def native_truth(session: CorpusSession, call: Call) -> Truth:
    """What is known about `to_native`'s record of `call`."""
    event_id = native_event_id(session, call.index)
    return truth_of(session, call, event_id, event_id, session.session)


def truth_of(session: CorpusSession, call: Call, call_id: str, event_id: str, gateway_session: str) -> Truth:
    """What is known about a record of `call` that names it `call_id`, and its session `gateway_session`."""
    carriers = tuple(i for i, turn in enumerate(session.turns[: call.history]) if turn.payload)
    return Truth(
        call_id=call_id,
        event_id=event_id,
        tenant=session.tenant,
        session=session.session,
        gateway_session=gateway_session,
        call_index=call.index,
        label=session.label,
        attack_family=session.attack_family,
        task=session.task,
        source=session.source,
        payload=carriers,
        payload_new=any(i >= call.new for i in carriers),
    )


def litellm_call_id(session: CorpusSession, call_index: int) -> str:
    """The id of a call in LiteLLM's log: a UUID that depends on tenant, session and `call_index` alone."""
    return str(UUID(hex=hex_of("call", session.tenant, session.session, call_index, size=16), version=4))


def native_event_id(session: CorpusSession, call_index: int) -> str:
    """The id of a call in a native record, 64 hex digits."""
    return sha256("\x1f".join(("native", session.tenant or "", session.session, str(call_index))).encode()).hexdigest()


def litellm_session(session: CorpusSession) -> str:
    """The session's name in LiteLLM's log: opaque, for corpora write labels into theirs."""
    return "sess-" + hex_of("session", session.tenant, session.session, size=10)


def key_hash(session: CorpusSession) -> str:
    """Hash of the API key that `session` used, 64 hex digits."""
    return sha256(f"virtual key {session.tenant} {session.key or 'k1'}".encode()).hexdigest()


def to_litellm(session: CorpusSession, call: Call, start_ms: int) -> dict[str, Any]:
    """`call` as LiteLLM's StandardLoggingPayload.

    Some tenants run with `request_correlation_in_logs=False`: their `session_id` is "" and `trace_id` holds the
    session.

    Parameters
    ----------
    session
        Whose call it is.
    call
        One of `schemas.corpus.calls(session)`.
    start_ms
        When it started, in ms since the epoch.
    """
    call_id = litellm_call_id(session, call.index)
    response_id = "chatcmpl-" + hex_of("response", call_id, size=12)
    model = session.model or DEFAULT_MODEL
    name = litellm_session(session)
    correlated = unit("correlation", session.tenant) >= _UNCORRELATED_TENANTS
    first_token = (start_ms + first_token_ms(session, call)) / 1000
    end = (start_ms + duration_ms(session, call)) / 1000
    prompt, completion = prompt_tokens(session, call), completion_tokens(session, call)
    input_cost, output_cost = prompt * USD_PER_PROMPT_TOKEN, completion * USD_PER_COMPLETION_TOKEN
    cost = round(input_cost + output_cost, 8)
    caller = caller_of(session)
    usage = {"completion_tokens": completion, "prompt_tokens": prompt, "total_tokens": prompt + completion}
    parameters: dict[str, Any] = {"stream": True, "user": caller["end_user"]}
    if session.tools:
        parameters["tools"] = [tool_definition(name, arguments) for name, arguments in session.tools.items()]
    return {
        "id": response_id,
        "litellm_call_id": call_id,
        "trace_id": "trace-" + hex_of("trace", call_id, size=8) if correlated else name,
        "session_id": name if correlated else "",
        "call_type": "acompletion",
        "cache_hit": False,
        "stream": True,
        "status": "success",
        "status_fields": {"llm_api_status": "success", "guardrail_status": "not_run"},
        "custom_llm_provider": "openai",
        "startTime": start_ms / 1000,
        "endTime": end,
        "completionStartTime": first_token,
        "response_time": round(first_token - start_ms / 1000, 6),
        "model": model,
        "metadata": {
            "user_api_key_hash": caller["key_hash"],
            "user_api_key_alias": f"{session.tenant}-{session.key or 'k1'}",
            "user_api_key_team_id": session.tenant,
            "user_api_key_org_id": None,
            "user_api_key_project_id": None,
            "user_api_key_user_id": caller["user"],
            "user_api_key_team_alias": session.tenant,
            "user_api_key_end_user_id": caller["end_user"],
            "requester_ip_address": caller["ip"],
            "user_agent": caller["user_agent"],
            "applied_guardrails": [],
            "usage_object": usage,
        },
        "response_cost": cost,
        "cost_breakdown": {
            "input_cost": round(input_cost, 8),
            "output_cost": round(output_cost, 8),
            "total_cost": cost,
            "tool_usage_cost": 0.0,
        },
        **usage,
        "request_tags": ["prod"],
        "end_user": caller["end_user"],
        "requester_ip_address": caller["ip"],
        "user_agent": caller["user_agent"],
        "messages": chat_messages(session, call.history),
        "response": {
            "id": response_id,
            "created": int(first_token),
            "model": model,
            "object": "chat.completion",
            "system_fingerprint": None,
            "choices": [
                {"finish_reason": finish_reason(session, call), "index": 0, "message": chat_answer(session, call)}
            ],
            "usage": usage,
        },
        "model_parameters": parameters,
        "error_str": None,
        "error_information": {"error_code": "", "error_class": "", "error_message": ""},
        "guardrail_information": None,
    }


def to_native(session: CorpusSession, call: Call, start_ms: int) -> dict[str, Any]:
    """`call` as a native record: `schemas.event.GatewayEvent` without what ingest fills in.

    The session keeps the corpus's name, so that results join with the corpus.
    """
    caller = caller_of(session)
    prompt, completion = prompt_tokens(session, call), completion_tokens(session, call)
    record: dict[str, Any] = {
        "event_id": native_event_id(session, call.index),
        "tenant": session.tenant,
        "session": session.session,
        "session_source": "gateway",
        "key_hash": caller["key_hash"],
        "event_time_ms": start_ms,
        "messages": in_parts(session, call.history),
        "output": answer_in_parts(session, call),
        "history_complete": True,
        "user": caller["user"],
        "end_user": caller["end_user"],
        "ip": caller["ip"],
        "user_agent": caller["user_agent"],
        "provider": "openai",
        "model_requested": session.model or DEFAULT_MODEL,
        "model_served": session.model or DEFAULT_MODEL,
        "operation": "chat",
        "tools": list(session.tools),
        "prompt_tokens": prompt,
        "completion_tokens": completion,
        "total_tokens": prompt + completion,
        "cost_usd": round(prompt * USD_PER_PROMPT_TOKEN + completion * USD_PER_COMPLETION_TOKEN, 8),
        "duration_ms": float(duration_ms(session, call)),
        "ttft_ms": float(first_token_ms(session, call)),
        "stream": True,
        "status": "success",
        "finish_reason": finish_reason(session, call),
    }
    if session.tenant is None:
        del record["tenant"]
    return record


def caller_of(session: CorpusSession) -> dict[str, str]:
    """Who calls in `session`: `key_hash`, `user`, `end_user`, `ip`, `user_agent`."""
    key = (session.tenant, session.key or "k1")
    user = int(_USERS_PER_KEY * unit("end user", *key, session.session))
    network = "203.0.113" if session.network is None else _one_of(_ELSEWHERE, "network", session.network)
    agent = _one_of(_USER_AGENTS, "user agent", session.tenant)
    if session.agent is not None:
        agent = _one_of(_OTHER_AGENTS, "user agent", session.agent)
    return {
        "key_hash": key_hash(session),
        "user": "u-" + hex_of("user", *key, size=3),
        "end_user": "cust-" + hex_of("end user", *key, user, size=4),
        "ip": f"{network}.{1 + int(254 * unit('ip', *key))}",
        "user_agent": agent,
    }


def _one_of(names: tuple[str, ...], *of: object) -> str:
    return names[int(len(names) * unit(*of))]


def _call_ids(session: CorpusSession, history: int) -> list[list[str]]:
    """Ids by turn: of the calls that an assistant's turn makes, or of the one call that a tool's turn answers."""
    pending: deque[str] = deque()
    ids: list[list[str]] = []
    for position, turn in enumerate(session.turns[:history]):
        own = [_call_id(session, position, i) for i in range(len(turn.tool_calls))]
        if turn.role == "assistant":
            pending = deque(own)
        elif turn.role == "tool":
            own = [pending.popleft() if pending else _call_id(session, position, 0)]
        ids.append(own)
    return ids


def _call_id(session: CorpusSession, position: int, i: int) -> str:
    return "call_" + hex_of("tool call", session.tenant, session.session, position, i, size=12)


def chat_messages(session: CorpusSession, history: int) -> list[dict[str, Any]]:
    """The first `history` turns as OpenAI Chat's messages."""
    ids = _call_ids(session, history)
    messages: list[dict[str, Any]] = []
    for turn, own in zip(session.turns, ids, strict=False):
        if turn.role == "tool":
            messages.append({"role": "tool", "tool_call_id": own[0], "content": turn.text})
        elif turn.tool_calls:
            messages.append({"role": turn.role, "content": turn.text or None, "tool_calls": _chat_calls(turn, own)})
        else:
            messages.append({"role": turn.role, "content": turn.text})
    return messages


def chat_answer(session: CorpusSession, call: Call) -> dict[str, Any]:
    """What the model answered to `call`, as OpenAI Chat's message."""
    if not call.answered:
        return {"content": None, "role": "assistant", "tool_calls": None, "function_call": None}
    turn = session.turns[call.history]
    made = _chat_calls(turn, _call_ids(session, call.history + 1)[-1])
    return {"content": turn.text or None, "role": "assistant", "tool_calls": made or None, "function_call": None}


def _chat_calls(turn: Turn, ids: list[str]) -> list[dict[str, Any]]:
    return [
        {"id": own, "type": "function", "function": {"name": made.name, "arguments": made.arguments}}
        for own, made in zip(ids, turn.tool_calls, strict=True)
    ]


def in_parts(session: CorpusSession, history: int) -> list[dict[str, Any]]:
    """The first `history` turns as messages of role and parts."""
    ids = _call_ids(session, history)
    return [{"role": turn.role, "parts": _parts(turn, own)} for turn, own in zip(session.turns, ids, strict=False)]


def answer_in_parts(session: CorpusSession, call: Call) -> list[dict[str, Any]]:
    """What the model answered to `call`, as messages of role and parts: one, or none."""
    return in_parts(session, call.history + 1)[-1:] if call.answered else []


def _parts(turn: Turn, ids: list[str]) -> list[dict[str, Any]]:
    if turn.role == "tool":
        return [{"type": "tool_call_response", "id": ids[0], "response": turn.text}]
    text = [{"type": "text", "text": turn.text}] if turn.text else []
    return text + [
        {"type": "tool_call", "id": own, "name": made.name, "arguments": made.arguments}
        for own, made in zip(ids, turn.tool_calls, strict=True)
    ]


def finish_reason(session: CorpusSession, call: Call) -> str:
    """Why the model stopped, in OpenAI Chat's words."""
    return "tool_calls" if call.answered and session.turns[call.history].tool_calls else "stop"


def tool_definition(name: str, arguments: tuple[str, ...]) -> dict[str, Any]:
    """A tool as OpenAI Chat's clients offer it."""
    properties = {argument: {"type": "string"} for argument in arguments}
    return {
        "type": "function",
        "function": {"name": name, "parameters": {"type": "object", "properties": properties}},
    }


def hex_of(*names: object, size: int) -> str:
    """`size` bytes of a hash over `names`, as hexadecimal."""
    return blake2b("\x1f".join(map(str, names)).encode(), digest_size=size).hexdigest()
