"""A session's calls as Kong's `kafka-log` plugin writes them, with bodies of any dialect, streamed or not."""

from __future__ import annotations

from collections.abc import Iterator
from hashlib import sha256
from typing import Any, Literal

import orjson

from schemas.corpus import Call, CorpusSession
from schemas.corpus_records import (
    DEFAULT_MODEL,
    USD_PER_COMPLETION_TOKEN,
    USD_PER_PROMPT_TOKEN,
    Truth,
    caller_of,
    chat_answer,
    chat_messages,
    finish_reason,
    hex_of,
    litellm_session,
    tool_definition,
    truth_of,
)
from schemas.corpus_timeline import completion_tokens, duration_ms, first_token_ms, prompt_tokens

Dialect = Literal["chat", "responses", "anthropic"]
Json = dict[str, Any]
_PIECE = 24
"""Characters of a streamed piece."""
_PATHS = {"chat": "/v1/chat/completions", "responses": "/v1/responses", "anthropic": "/v1/messages"}


def kong_truth(session: CorpusSession, call: Call) -> Truth:
    """What is known about `to_kong`'s entry of `call`."""
    request_id = _request_id(session, call)
    event_id = sha256(orjson.dumps(["kong", request_id])).hexdigest()
    return truth_of(session, call, request_id, event_id, litellm_session(session))


def to_kong(
    session: CorpusSession, call: Call, start_ms: int, dialect: Dialect = "chat", *, streamed: bool = False
) -> Json:
    """`call` as Kong's log entry, with payloads.

    Parameters
    ----------
    session, call, start_ms
        As of `schemas.corpus_records.to_litellm`.
    dialect
        Of the bodies.
    streamed
        Whether the response is the text of a stream of events.
    """
    caller = caller_of(session)
    model = session.model or DEFAULT_MODEL
    prompt, completion = prompt_tokens(session, call), completion_tokens(session, call)
    request, response, events = _BODIES[dialect](session, call, model)
    request = {"model": model, **request, "stream": streamed}
    body = _stream(events) if streamed else orjson.dumps(response).decode()
    latency = duration_ms(session, call)
    return {
        "workspace": session.tenant,
        "workspace_name": session.tenant,
        "client_ip": caller["ip"],
        "started_at": start_ms,
        "latencies": {"request": latency, "kong": 1, "proxy": latency - 1},
        "request": {
            "id": _request_id(session, call),
            "method": "POST",
            "uri": _PATHS[dialect],
            "headers": {
                "user-agent": caller["user_agent"],
                "content-type": "application/json",
                "x-session-id": litellm_session(session),
            },
        },
        "response": {
            "status": 200,
            "headers": {"content-type": "text/event-stream" if streamed else "application/json"},
        },
        "upstream_status": "200",
        "authenticated_entity": {"id": caller["key_hash"]},
        "consumer": {"id": hex_of("consumer", caller["user"], size=8), "username": caller["user"]},
        "ai": {
            "proxy": {
                "meta": {
                    "request_model": model,
                    "response_model": model,
                    "provider_name": "openai",
                    "llm_latency": latency - 1,
                },
                "usage": {
                    "prompt_tokens": prompt,
                    "completion_tokens": completion,
                    "total_tokens": prompt + completion,
                    "time_to_first_token": first_token_ms(session, call),
                    "cost": round(prompt * USD_PER_PROMPT_TOKEN + completion * USD_PER_COMPLETION_TOKEN, 8),
                },
                "payload": {"request": orjson.dumps(request).decode(), "response": body},
            }
        },
    }


def _request_id(session: CorpusSession, call: Call) -> str:
    return hex_of("kong request", session.tenant, session.session, call.index, size=16)


Bodies = tuple[Json, Json, Iterator[tuple[str | None, Json]]]
"""Request, response, and the response as events, each with its name."""


def _chat(session: CorpusSession, call: Call, model: str) -> Bodies:
    answer, reason = chat_answer(session, call), finish_reason(session, call)
    request: Json = {
        "messages": chat_messages(session, call.history),
        "user": caller_of(session)["end_user"],
    }
    if session.tools:
        request["tools"] = [tool_definition(name, arguments) for name, arguments in session.tools.items()]
    response = {
        "object": "chat.completion",
        "model": model,
        "choices": [{"index": 0, "message": answer, "finish_reason": reason}],
    }
    return request, response, _chat_events(model, answer, reason)


def _chat_events(model: str, answer: Json, reason: str) -> Iterator[tuple[str | None, Json]]:
    def chunk(delta: Json, finish: str | None = None) -> tuple[None, Json]:
        choice = {"index": 0, "delta": delta, "finish_reason": finish}
        return None, {"object": "chat.completion.chunk", "model": model, "choices": [choice]}

    yield chunk({"role": "assistant", "content": ""})
    for piece in _pieces(answer["content"] or ""):
        yield chunk({"content": piece})
    for index, made in enumerate(answer["tool_calls"] or ()):
        head = {"name": made["function"]["name"], "arguments": ""}
        yield chunk({"tool_calls": [{"index": index, "id": made["id"], "type": "function", "function": head}]})
        for piece in _pieces(made["function"]["arguments"]):
            yield chunk({"tool_calls": [{"index": index, "function": {"arguments": piece}}]})
    yield chunk({}, reason)


def _responses(session: CorpusSession, call: Call, model: str) -> Bodies:
    messages = chat_messages(session, call.history)
    leads = bool(messages) and messages[0]["role"] == "system"
    request: Json = {
        "input": [item for message in messages[leads:] for item in _items(message)],
        "safety_identifier": caller_of(session)["end_user"],
    }
    if leads:
        request["instructions"] = messages[0]["content"]
    if session.tools:
        offered = [tool_definition(name, arguments)["function"] for name, arguments in session.tools.items()]
        request["tools"] = [{"type": "function", **tool} for tool in offered]
    response = {
        "object": "response",
        "status": "completed",
        "model": model,
        "output": _items(chat_answer(session, call), output=True),
    }
    return request, response, _responses_events(response)


def _items(message: Json, *, output: bool = False) -> list[Json]:
    """A Chat message as items of Responses."""
    if message["role"] == "tool":
        return [{"type": "function_call_output", "call_id": message["tool_call_id"], "output": message["content"]}]
    items: list[Json] = [{"type": "reasoning", "summary": []}] if output else []
    if message["content"] or not message.get("tool_calls"):
        kind = "output_text" if message["role"] == "assistant" else "input_text"
        held = [{"type": kind, "text": message["content"] or ""}]
        items.append({"type": "message", "role": message["role"], "content": held})
    made = message.get("tool_calls") or ()
    return items + [{"type": "function_call", "call_id": call["id"], **call["function"]} for call in made]


def _responses_events(response: Json) -> Iterator[tuple[str | None, Json]]:
    begun = {**response, "status": "in_progress", "output": []}
    yield "response.created", {"type": "response.created", "response": begun}
    for index, item in enumerate(response["output"]):
        yield _named("response.output_item.added", output_index=index, item={**item, "content": [], "arguments": ""})
        for part in item.get("content", ()):
            for piece in _pieces(part["text"]):
                yield _named("response.output_text.delta", output_index=index, content_index=0, delta=piece)
        for piece in _pieces(item.get("arguments", "")):
            yield _named("response.function_call_arguments.delta", output_index=index, delta=piece)
        yield _named("response.output_item.done", output_index=index, item=item)
    yield _named("response.completed", response=response)


def _anthropic(session: CorpusSession, call: Call, model: str) -> Bodies:
    messages = chat_messages(session, call.history)
    leads = bool(messages) and messages[0]["role"] == "system"
    request: Json = {"max_tokens": 1024, "metadata": {"user_id": caller_of(session)["end_user"]}, "messages": []}
    for message in messages[leads:]:
        role = "assistant" if message["role"] == "assistant" else "user"
        held = request["messages"]
        if role == "user" and held and held[-1]["role"] == "user" and message["role"] == "tool":
            held[-1]["content"] += _blocks(message)
        else:
            held.append({"role": role, "content": _blocks(message)})
    if leads:
        request["system"] = [{"type": "text", "text": messages[0]["content"]}]
    if session.tools:
        offered = [tool_definition(name, arguments)["function"] for name, arguments in session.tools.items()]
        request["tools"] = [{"name": tool["name"], "input_schema": tool["parameters"]} for tool in offered]
    response = {
        "type": "message",
        "role": "assistant",
        "model": model,
        "content": _blocks(chat_answer(session, call)),
        "stop_reason": "tool_use" if finish_reason(session, call) == "tool_calls" else "end_turn",
    }
    return request, response, _anthropic_events(response)


def _blocks(message: Json) -> list[Json]:
    """A Chat message as blocks of Anthropic's."""
    if message["role"] == "tool":
        return [{"type": "tool_result", "tool_use_id": message["tool_call_id"], "content": message["content"]}]
    blocks: list[Json] = [{"type": "text", "text": message["content"]}] if message["content"] else []
    for made in message.get("tool_calls") or ():
        function = made["function"]
        held = orjson.loads(function["arguments"])
        blocks.append({"type": "tool_use", "id": made["id"], "name": function["name"], "input": held})
    return blocks


def _anthropic_events(response: Json) -> Iterator[tuple[str | None, Json]]:
    yield _named("message_start", message={**response, "content": [], "stop_reason": None})
    for index, block in enumerate(response["content"]):
        field, kind = ("text", "text_delta") if block["type"] == "text" else ("partial_json", "input_json_delta")
        begun = {**block, "text": ""} if block["type"] == "text" else {**block, "input": {}}
        yield _named("content_block_start", index=index, content_block=begun)
        for piece in _pieces(block.get("text") or orjson.dumps(block.get("input")).decode()):
            yield _named("content_block_delta", index=index, delta={"type": kind, field: piece})
        yield _named("content_block_stop", index=index)
    yield _named("message_delta", delta={"stop_reason": response["stop_reason"]}, usage={"output_tokens": 1})
    yield _named("message_stop")


def _named(kind: str, **fields: Any) -> tuple[str, Json]:
    return kind, {"type": kind, **fields}


def _pieces(text: str) -> list[str]:
    return [text[at : at + _PIECE] for at in range(0, len(text), _PIECE)]


def _stream(events: Iterator[tuple[str | None, Json]]) -> str:
    """Server-sent events, as a client reads them."""
    lines = [
        (f"event: {name}\n" if name else "") + f"data: {orjson.dumps(event).decode()}\n\n" for name, event in events
    ]
    return "".join(lines) + ("" if lines[-1].startswith("event:") else "data: [DONE]\n\n")


_BODIES = {"chat": _chat, "responses": _responses, "anthropic": _anthropic}
