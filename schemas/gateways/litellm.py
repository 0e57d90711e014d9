"""LiteLLM's StandardLoggingPayload (1.109): what its loggers write for every call that succeeded or failed."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

import msgspec

from schemas.event import ContentState
from schemas.gateways.bodies import (
    AnswerBody,
    Odd,
    ToolNames,
    answer_message,
    finish_reason_of,
    instructions,
    of_list,
    of_text,
    output_of,
    parse_message,
    read_request,
)
from schemas.gateways.call import (
    GatewayCall,
    Unreadable,
    amount_of,
    count_of,
    flag_of,
    is_time_ms,
    kind_of,
    text_of,
)
from schemas.gateways.nesting import embedded
from schemas.gateways.repair import decode


class _Metadata(msgspec.Struct, gc=False):
    user_api_key_hash: Any = None
    user_api_key_team_id: Any = None
    user_api_key_org_id: Any = None
    user_api_key_user_id: Any = None
    user_api_key_user_email: Any = None
    user_api_key_end_user_id: Any = None
    requester_ip_address: Any = None
    user_agent: Any = None
    litellm_content_truncated: Any = None
    cold_storage_object_key: Any = None


class _Parameters(msgspec.Struct, gc=False):
    tools: msgspec.Raw = msgspec.Raw(b"null")
    functions: msgspec.Raw = msgspec.Raw(b"null")
    system: msgspec.Raw = msgspec.Raw(b"null")
    instructions: msgspec.Raw = msgspec.Raw(b"null")
    previous_response_id: Any = None


class _Error(msgspec.Struct, gc=False):
    error_code: Any = None
    error_class: Any = None


class _StatusFields(msgspec.Struct, gc=False):
    guardrail_status: Any = None


class _Payload(msgspec.Struct, gc=False):
    litellm_call_id: Any = msgspec.UNSET
    call_type: Any = msgspec.UNSET
    startTime: Any = None  # noqa: N815
    endTime: Any = None  # noqa: N815
    completionStartTime: Any = None  # noqa: N815
    trace_id: Any = None
    session_id: Any = None
    stream: Any = None
    status: Any = None
    status_fields: _StatusFields | Odd = None
    custom_llm_provider: Any = None
    model: Any = None
    model_group: Any = None
    metadata: _Metadata | Odd = None
    response_cost: Any = None
    total_tokens: Any = None
    prompt_tokens: Any = None
    completion_tokens: Any = None
    end_user: Any = None
    requester_ip_address: Any = None
    user_agent: Any = None
    messages: list[msgspec.Raw] | dict[str, msgspec.Raw] | str | float | bool | None = None
    response: AnswerBody | Odd = None
    model_parameters: _Parameters | Odd = None
    error_information: _Error | Odd = None
    error_str: Any = None
    guardrail_information: Any = None


_PAYLOAD = msgspec.json.Decoder(_Payload)
_RAWS = msgspec.json.Decoder(list[msgspec.Raw])
_ANSWER = msgspec.json.Decoder(AnswerBody)
_NO_METADATA = _Metadata()
_NO_PARAMETERS = _Parameters()

OPERATIONS = {
    "completion": "chat",
    "responses": "chat",
    "anthropic_messages": "chat",
    "embedding": "embeddings",
    "text_completion": "text_completion",
}
"""LiteLLM's call types, without their `a` for asynchronous, in OpenTelemetry's words."""
_REFUSED = ("401", "ProxyException")
"""Code and class of the error when the proxy, not a provider, did not take the key."""
_ITEMS = ("responses", "aresponses")
_CHAT = ("acompletion", "completion")


class LiteLLM:
    """Format `litellm`."""

    name = "litellm"

    def __init__(self) -> None:
        self._tools = ToolNames()

    def sniff(self, value: bytes) -> bool:
        """Whether a LiteLLM call id, or call type and start, may be among the fields."""
        return b'"litellm_call_id"' in value or (b'"call_type"' in value and b'"startTime"' in value)

    def is_binary(self, value: bytes) -> bool:
        """Never."""
        return False

    def decode(self, value: bytes) -> list[GatewayCall]:
        """The call in `value`; raises as `GatewayFormat.decode`."""
        payload = decode(_PAYLOAD, value, "LiteLLM StandardLoggingPayload")
        unmarked = payload.call_type is msgspec.UNSET or payload.startTime is None
        if payload.litellm_call_id is msgspec.UNSET and unmarked:
            raise Unreadable("unknown_format", "$.litellm_call_id is absent: not a LiteLLM StandardLoggingPayload")
        return [self._call(payload)]

    def _call(self, payload: _Payload) -> GatewayCall:
        metadata = payload.metadata if isinstance(payload.metadata, _Metadata) else _NO_METADATA
        parameters = payload.model_parameters if isinstance(payload.model_parameters, _Parameters) else _NO_PARAMETERS
        start, end = _seconds(payload.startTime, "startTime"), _seconds(payload.endTime, "endTime")
        began = start if start is not None else end
        if began is None:
            raise Unreadable("schema", "$.startTime must be epoch seconds; got nothing, nor an endTime")
        failed = payload.status == "failure"
        call_type = text_of(payload.call_type)
        messages, state = _messages(payload.messages, call_type)
        messages = [*instructions(parameters.system, parameters.instructions), *messages] if messages else messages
        output, response = ([], None) if failed else _output(payload.response)
        call_id = text_of(payload.litellm_call_id)
        trace_id, session = text_of(payload.trace_id), text_of(payload.session_id)
        model = text_of(payload.model)
        key_hash = text_of(metadata.user_api_key_hash)
        if not messages and text_of(metadata.cold_storage_object_key):
            state = "external"
        elif state == "full" and metadata.litellm_content_truncated:
            state = "truncated"
        error = payload.error_information if isinstance(payload.error_information, _Error) else None
        refused = error is not None and (text_of(error.error_code), text_of(error.error_class)) == _REFUSED
        # Who guesses keys would make a tenant with each guess.
        own_key = None if refused else key_hash
        first = _seconds(payload.completionStartTime, "completionStartTime") if payload.stream is True else None
        return GatewayCall(
            gateway=self.name,
            identity=(call_id,) if call_id else None,
            parse=parse_message,
            messages=messages,
            output=output,
            session=session or trace_id,
            # With request_correlation_in_logs=False, the default, session_id is "" and trace_id holds the session's id.
            session_source="gateway" if session else "trace",
            tenant=text_of(metadata.user_api_key_team_id) or text_of(metadata.user_api_key_org_id) or own_key,
            event_time_ms=round(began * 1000),
            key_hash=key_hash,
            trace_id=trace_id,
            user=text_of(metadata.user_api_key_user_id) or text_of(metadata.user_api_key_user_email),
            end_user=text_of(payload.end_user) or text_of(metadata.user_api_key_end_user_id),
            ip=text_of(metadata.requester_ip_address) or text_of(payload.requester_ip_address),
            user_agent=text_of(metadata.user_agent) or text_of(payload.user_agent),
            provider=text_of(payload.custom_llm_provider),
            model_requested=text_of(payload.model_group) or model,
            model_served=(text_of(response.model) if response else None) or (None if failed else model),
            operation=operation_of(call_type),
            tools=self._tools.of(parameters.tools, parameters.functions),
            prompt_tokens=count_of(payload.prompt_tokens),
            completion_tokens=count_of(payload.completion_tokens),
            total_tokens=count_of(payload.total_tokens),
            cost_usd=amount_of(payload.response_cost),
            duration_ms=_milliseconds(start, end),
            ttft_ms=_milliseconds(start, first),
            stream=flag_of(payload.stream),
            status="failure" if failed else "success",
            finish_reason=finish_reason_of(response),
            error_code=text_of(error.error_code) if error else None,
            error_class=text_of(error.error_class) if error else None,
            guardrails=_guardrails(payload),
            content_state=state,
            history_complete=not parameters.previous_response_id,
        )


def operation_of(call_type: str | None) -> str | None:
    """LiteLLM's call type in OpenTelemetry's words; one that has none stays as it is.

    >>> operation_of("acompletion"), operation_of("anthropic_messages"), operation_of("arerank"), operation_of(None)
    ('chat', 'chat', 'arerank', None)
    """
    return OPERATIONS.get(call_type.removeprefix("a"), OPERATIONS.get(call_type, call_type)) if call_type else None


def _seconds(value: Any, field: str) -> float | None:
    """Epoch seconds of a time field: a number, or ISO text as some loggers write it, UTC unless it says otherwise."""
    if value is None:
        return None
    seconds = value
    if isinstance(value, str):
        try:
            when = datetime.fromisoformat(value)
        except ValueError:
            when = None
        seconds = None if when is None else (when if when.tzinfo else when.replace(tzinfo=UTC)).timestamp()
    if isinstance(seconds, (int, float)) and not isinstance(seconds, bool) and is_time_ms(seconds * 1000):
        return seconds
    raise Unreadable(
        "schema", f"$.{field} must be epoch seconds or an ISO 8601 text, from 1970 to 9999; got {kind_of(value)}"
    )


def _milliseconds(start: float | None, end: float | None) -> float | None:
    return None if start is None or end is None or end < start else round((end - start) * 1000, 3)


def _messages(messages: Any, call_type: str | None) -> tuple[list[bytes], ContentState]:
    """The request's messages, each as JSON, and what the envelope tells about their content."""
    if isinstance(messages, list):
        return of_list([bytes(raw) for raw in messages], items=call_type in _ITEMS, plain=call_type in _CHAT)
    if isinstance(messages, str):
        return _embedded(messages) if messages[:1] == "[" else of_text(messages)
    if isinstance(messages, dict):
        if "messages" in messages or "input" in messages:
            request = read_request(msgspec.json.encode(messages))
            return request.messages, request.state
        return ([msgspec.json.encode(messages)], "full") if messages else ([], "redacted")
    if messages is None:
        return [], "redacted"
    raise Unreadable("schema", f"$.messages must be a list, a text or null; got {kind_of(messages)}")


def _embedded(text: str) -> tuple[list[bytes], ContentState]:
    """Messages in a JSON text of their own; a text when they are none."""
    try:
        raws = [bytes(item) for item in _RAWS.decode(embedded(text))]
    except msgspec.DecodeError:
        raws = []
    return of_list(raws) if raws and all(item[:1] == b"{" for item in raws) else of_text(text)


def _output(response: Any) -> tuple[list[bytes], AnswerBody | None]:
    """The answer's messages, and the body they come from when it is an object."""
    if isinstance(response, AnswerBody):
        return output_of(response), response
    if not isinstance(response, str) or not response:
        return [], None
    if response[:1] == "{":
        try:
            body = _ANSWER.decode(embedded(response))
        except msgspec.DecodeError:
            body = AnswerBody()
        if output := output_of(body):
            return output, body
    return [answer_message(response)], None


def _guardrails(payload: _Payload) -> tuple[str, ...]:
    held = payload.guardrail_information
    if not held:
        fields = payload.status_fields
        status = text_of(fields.guardrail_status) if isinstance(fields, _StatusFields) else None
        return () if status in (None, "not_run", "success") else (f"guardrail:{status}",)
    verdicts = []
    for item in held if isinstance(held, list) else [held]:
        if isinstance(item, dict):
            name = text_of(item.get("guardrail_name")) or "guardrail"
            verdicts.append(f"{name}:{text_of(item.get('guardrail_status')) or 'unknown'}")
    return tuple(verdicts)
