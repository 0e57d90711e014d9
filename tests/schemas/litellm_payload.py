"""StandardLoggingPayloads for tests: one of a success, changed as a test needs it."""

from __future__ import annotations

import json
from typing import Any

from schemas.gateways.call import GatewayCall
from schemas.gateways.litellm import LiteLLM

START = 1795304819.828039


def payload(**changes: Any) -> dict[str, Any]:
    """A success as LiteLLM 1.109 logs it; `changes` replace top-level fields, `...` removes one."""
    whole = {
        "id": "chatcmpl-f0201289",
        "litellm_call_id": "93567992-478b-43f4-9540-4e23fd20be15",
        "trace_id": "trace-9a11",
        "session_id": "sess-7f2c",
        "call_type": "acompletion",
        "cache_hit": False,
        "stream": True,
        "status": "success",
        "status_fields": {"llm_api_status": "success", "guardrail_status": "not_run"},
        "custom_llm_provider": "openai",
        "startTime": START,
        "endTime": START + 4.5,
        "completionStartTime": START + 3.25,
        "response_time": 3.25,
        "model": "gpt-4o",
        "metadata": {
            "user_api_key_hash": "88dc28d0f030c55e",
            "user_api_key_team_id": "team-42",
            "user_api_key_org_id": "org-acme",
            "user_api_key_user_id": "u-1007",
            "user_api_key_end_user_id": "cust-889",
            "requester_ip_address": "203.0.113.24",
            "user_agent": "acme-bot/1.4",
        },
        "response_cost": 0.00025,
        "total_tokens": 82,
        "prompt_tokens": 76,
        "completion_tokens": 6,
        "end_user": "cust-889",
        "model_group": "",
        "messages": [{"role": "system", "content": "You help."}, {"role": "user", "content": "Hello there."}],
        "response": {
            "id": "chatcmpl-f0201289",
            "model": "gpt-4o-2024-08-06",
            "object": "chat.completion",
            "choices": [
                {
                    "finish_reason": "stop",
                    "index": 0,
                    "message": {"content": "Good day.", "role": "assistant", "tool_calls": None, "function_call": None},
                }
            ],
        },
        "model_parameters": {"tools": [{"type": "function", "function": {"name": "search_crm", "parameters": {}}}]},
        "error_information": {"error_code": "", "error_class": ""},
        "guardrail_information": None,
    }
    whole.update(changes)
    return {name: value for name, value in whole.items() if value is not ...}


def written(**changes: Any) -> bytes:
    """The payload as LiteLLM's loggers write it, with Python's own encoder."""
    return json.dumps(payload(**changes)).encode()


def decoded(**changes: Any) -> GatewayCall:
    """The one call in the payload."""
    (call,) = LiteLLM().decode(written(**changes))
    return call


def texts(raws: list[bytes], call: GatewayCall) -> list[str]:
    """Text of each message's first part, "" where it has none."""
    messages = [call.parse(raw) for raw in raws]
    return [message.parts[0].get("text", "") if message.parts else "" for message in messages]
