"""OpenTelemetry's GenAI spans (semantic conventions 1.41, and what came before) in OTLP, as the Collector exports them.

A record holds many spans, most of them of other software. A span is a call when it says that a model was asked; spans
of agents, workflows and tools are not, since the calls within them have spans of their own, with the same content.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import msgspec
import orjson

from schemas.event import ContentState
from schemas.gateways.bodies import ToolNames
from schemas.gateways.call import GatewayCall, Read, Skipped, Unreadable, amount_of, count_of, text_of
from schemas.gateways.litellm import operation_of
from schemas.gateways.nesting import CALLS_MAX, embedded
from schemas.gateways.otel_messages import (
    DETAILS,
    Raws,
    of_attribute,
    of_events,
    of_numbered,
    parse_message,
    system_message,
)
from schemas.gateways.otlp import CLIENT, Attributes, Span, is_protobuf, spans_of_json, spans_of_protobuf

_NO_MODEL = frozenset(
    ("execute_tool", "create_agent", "invoke_workflow", "plan", "retrieval", "search_memory", "update_memory")
)
_AGENT = "invoke_agent"
_MARKS = (
    "gen_ai.operation.name",
    "gen_ai.request.model",
    "gen_ai.response.model",
    "gen_ai.provider.name",
    "gen_ai.system",
    "gen_ai.input.messages",
    "gen_ai.output.messages",
)
_TENANT = ("litellm.team.id", "metadata.user_api_key_team_id")
_SESSION = (
    "gen_ai.conversation.id",
    "session.id",
    "langfuse.session.id",
    "traceloop.association.properties.session_id",
)
_KEY_HASH = ("litellm.api_key.hash", "metadata.user_api_key_hash")
_USER = (
    "litellm.user.id",
    "user.id",
    "enduser.id",
    "metadata.user_api_key_user_id",
    "metadata.user_api_key_user_email",
)
_END_USER = ("litellm.end_user.id", "metadata.user_api_key_end_user_id", "llm.user")
_IP = ("client.address", "litellm.requester.ip_address", "metadata.requester_ip_address", "http.client_ip")
_USER_AGENT = ("user_agent.original", "metadata.user_agent", "http.user_agent")
_PROVIDER = ("gen_ai.provider.name", "gen_ai.system")
_PROMPT_TOKENS = ("gen_ai.usage.input_tokens", "gen_ai.usage.prompt_tokens", "llm.usage.prompt_tokens")
_COMPLETION_TOKENS = ("gen_ai.usage.output_tokens", "gen_ai.usage.completion_tokens", "llm.usage.completion_tokens")
_TOTAL_TOKENS = ("gen_ai.usage.total_tokens", "llm.usage.total_tokens")
_COST = ("litellm.cost.total", "gen_ai.cost.total_cost", "gen_ai.usage.cost")
_STREAM = ("gen_ai.request.stream", "gen_ai.request.is_stream", "llm.is_streaming")
_HTTP_STATUS = ("http.response.status_code", "http.status_code", "error.code")
_INPUT, _OUTPUT = "gen_ai.input.messages", "gen_ai.output.messages"


class OTelGenAI:
    """Format `otel`."""

    name = "otel"

    def __init__(self) -> None:
        self._tools = ToolNames()

    def is_binary(self, value: bytes) -> bool:
        """Whether `value` is OTLP protobuf."""
        return is_protobuf(value)

    def sniff(self, value: bytes) -> bool:
        """Whether resource spans may be among the fields, or `value` is protobuf."""
        return b'"resourceSpans"' in value or b'"resource_spans"' in value or is_protobuf(value)

    def decode(self, value: bytes) -> list[Read]:
        """The calls in `value`, JSON or protobuf, spans that cannot be read, and how many others there are."""
        read: list[Read] = []
        others = within = 0
        for span in (spans_of_protobuf if is_protobuf(value) else spans_of_json)(value, _may_be_genai):
            if isinstance(span, Unreadable):
                read.append(span)
            elif span is None or not _is_genai(span):
                others += 1
            elif not _asks_a_model(span):
                within += 1
            else:
                try:
                    read.append(self._call(span))
                except Unreadable as error:
                    read.append(error)
            if len(read) > CALLS_MAX:
                raise Unreadable("oversized", f"the record must hold at most {CALLS_MAX} calls; got more")
        if others:
            read.append(Skipped(others, "other_span"))
        if within:
            read.append(Skipped(within, "outer_span"))
        if not read:
            raise Unreadable("schema", "$.resourceSpans must hold at least one span; got none")
        return read

    def _call(self, span: Span) -> GatewayCall:
        held = span.attributes
        for name, attributes in span.events:
            if name == DETAILS:
                held = {**attributes, **held}
        messages, output, state, finish_reason = _content(held, span.events)
        session = _text(held, _SESSION)
        prompt, completion = _count(held, _PROMPT_TOKENS), _count(held, _COMPLETION_TOKENS)
        total = _count(held, _TOTAL_TOKENS)
        if total is None and prompt is not None and completion is not None:
            total = prompt + completion
        error_code, error_class = _error(held, span.events)
        failed = span.failed or text_of(held.get("error.type")) is not None
        ttft_s = amount_of(held.get("gen_ai.response.time_to_first_chunk"))
        return GatewayCall(
            gateway=self.name,
            identity=(span.trace_id, span.span_id),
            parse=parse_message,
            messages=messages,
            output=[] if failed else output,
            session=session or span.trace_id,
            session_source="gateway" if session else "trace",
            tenant=_text(held, _TENANT),
            event_time_ms=span.start_ns // 1_000_000,
            key_hash=_text(held, _KEY_HASH),
            trace_id=span.trace_id,
            user=_text(held, _USER),
            end_user=_text(held, _END_USER),
            ip=_text(held, _IP),
            user_agent=_text(held, _USER_AGENT),
            provider=_text(held, _PROVIDER),
            model_requested=text_of(held.get("gen_ai.request.model")),
            model_served=text_of(held.get("gen_ai.response.model")),
            operation=operation_of(text_of(held.get("gen_ai.operation.name"))),
            tools=self._tool_names(held),
            prompt_tokens=prompt,
            completion_tokens=completion,
            total_tokens=total,
            cost_usd=next((amount for name in _COST if (amount := amount_of(held.get(name))) is not None), None),
            duration_ms=round((span.end_ns - span.start_ns) / 1e6, 3) if span.end_ns >= span.start_ns else None,
            ttft_ms=None if ttft_s is None else round(ttft_s * 1000, 3),
            stream=next((flag for name in _STREAM if (flag := _flag(held.get(name))) is not None), None),
            status="failure" if failed else "success",
            finish_reason=_finish_reason(held.get("gen_ai.response.finish_reasons")) or finish_reason,
            error_code=error_code if failed else None,
            error_class=error_class if failed else None,
            content_state=state,
            raw=span.raw,
            attributes={**span.resource, **span.attributes},
            tenant_fallback=text_of(span.resource.get("service.name")),
        )

    def _tool_names(self, held: Attributes) -> tuple[str, ...]:
        offered = held.get("gen_ai.tool.definitions")
        if isinstance(offered, str) and offered[:1] == "[":
            try:
                return self._tools.of(msgspec.Raw(embedded(offered)))
            except Unreadable as error:
                if error.reason == "too_deep":
                    raise
                return ()  # cut off
        if isinstance(offered, list):
            return self._tools.of(msgspec.Raw(orjson.dumps(offered)))
        numbered = (held.get(f"llm.request.functions.{number}.name") for number in range(len(held)))
        return tuple(name for name in map(text_of, numbered) if name)


def _may_be_genai(raw: bytes) -> bool:
    """By its bytes; escapes may spell anything."""
    return b"gen_ai" in raw or b"\\u" in raw


def _is_genai(span: Span) -> bool:
    names = (*span.attributes, *(name for name, _ in span.events))
    return any(name.startswith("gen_ai.") for name in names)


def _asks_a_model(span: Span) -> bool:
    operation = text_of(span.attributes.get("gen_ai.operation.name"))
    if operation == _AGENT:
        return span.kind == CLIENT  # elsewhere: nobody sees the calls within
    if operation in _NO_MODEL:
        return False
    numbered = ("gen_ai.prompt.", "gen_ai.completion.")
    return (
        any(mark in span.attributes for mark in _MARKS)
        or any(name.startswith("gen_ai.") for name, _ in span.events)
        or any(name.startswith(numbered) for name in span.attributes)
    )


def _content(held: Attributes, events: list[tuple[str, Attributes]]) -> tuple[Raws, Raws, ContentState, str | None]:
    """Messages, answers, how much of them there is, and the reason to stop that comes with them."""
    messages, state = of_attribute(held.get(_INPUT), "user")
    output, of_output = of_attribute(held.get(_OUTPUT), "assistant")
    finish_reason = None
    if not messages or not output:
        for older, older_output, reason in _older(held, events):
            messages, output = messages or older, output or older_output
            finish_reason = finish_reason or reason
    system = system_message(held.get("gen_ai.system_instructions"))
    if system and not (messages and _says_the_same(messages[0], system)):
        messages = [*system, *messages]
    if messages:
        state = "full" if state == "redacted" else state
    elif held.get(f"{_INPUT}_ref") is not None:
        state = "external"
    return messages, output, "truncated" if state == "full" and of_output == "truncated" else state, finish_reason


def _older(held: Attributes, events: list[tuple[str, Attributes]]) -> Iterable[tuple[Raws, Raws, str | None]]:
    yield of_events(events)
    yield *of_numbered(held), None
    prompt, completion = held.get("gen_ai.prompt"), held.get("gen_ai.completion")
    yield of_attribute(prompt, "user")[0], of_attribute(completion, "assistant")[0], None


def _says_the_same(first: bytes, system: Raws) -> bool:
    """Whether the instructions also lead the messages."""
    if b"system" not in first and b"developer" not in first:
        return False
    try:
        said, instructed = parse_message(first), parse_message(system[0])
    except Unreadable:
        return False
    return said.role in ("system", "developer") and said.parts == instructed.parts


def _text(held: Attributes, names: Iterable[str]) -> str | None:
    """The first of the attributes `names` that says something."""
    return next((text for name in names if (text := text_of(held.get(name))) is not None), None)


def _count(held: Attributes, names: Iterable[str]) -> int | None:
    return next((count for name in names if (count := count_of(held.get(name))) is not None), None)


def _flag(value: Any) -> bool | None:
    """A boolean; LiteLLM writes it as Python's text."""
    if isinstance(value, bool):
        return value
    return {"True": True, "true": True, "False": False, "false": False}.get(value) if isinstance(value, str) else None


def _finish_reason(value: Any) -> str | None:
    """The first reason of an array, or of an array's JSON."""
    if isinstance(value, str) and value[:1] == "[":
        try:
            value = orjson.loads(embedded(value))
        except orjson.JSONDecodeError:
            return None
    if isinstance(value, list):
        return next(filter(None, map(text_of, value)), None)
    return text_of(value)


def _error(held: Attributes, events: list[tuple[str, Attributes]]) -> tuple[str | None, str | None]:
    """Code and class of the error."""
    raised = next((attributes for name, attributes in events if name == "exception"), {})
    kind = text_of(held.get("error.type")) or text_of(raised.get("exception.type"))
    code = _text(held, _HTTP_STATUS)
    if code is None and kind is not None and kind.isdecimal():
        code = kind
    return code, kind
