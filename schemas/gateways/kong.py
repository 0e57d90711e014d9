"""Kong's `kafka-log` entries with what its AI plugins add (`ai.proxy`, before 3.11 `ai.<plugin>`).

Bodies are there when the AI plugin logs payloads (`config.logging.log_payloads`). An entry without `ai` is a request to
another service of the same Kong: counted, no event.
"""

from __future__ import annotations

import re
from typing import Any

import msgspec

from schemas.event import ContentState
from schemas.gateways.bodies import (
    NULL,
    Answer,
    Odd,
    Request,
    ToolNames,
    error_of,
    finish_reason_of,
    parse_message,
    read_answer,
    read_request,
    usage_of,
)
from schemas.gateways.call import (
    GatewayCall,
    Read,
    Skipped,
    Unreadable,
    amount_of,
    count_of,
    is_time_ms,
    kind_of,
    text_of,
)
from schemas.gateways.repair import decode

_PROXIES = ("proxy", "ai-proxy", "ai-proxy-advanced")
"""The plugins that forward a client's call, by every name that one of them has had; an entry has one such call."""
_SESSION_HEADERS = ("x-session-id", "x-conversation-id", "x-litellm-session-id")
_UNKNOWN = "UNSPECIFIED"
_TRACEPARENT = re.compile("[0-9a-f]{2}-([0-9a-f]{32})-")


class _Meta(msgspec.Struct, gc=False):
    request_model: Any = None
    response_model: Any = None
    provider_name: Any = None
    llm_latency: Any = None
    time_to_first_token: Any = None


class _Usage(msgspec.Struct, gc=False):
    prompt_tokens: Any = None
    prompt_token: Any = None
    completion_tokens: Any = None
    completion_token: Any = None
    total_tokens: Any = None
    cost: Any = None
    time_to_first_token: Any = None


class _Payload(msgspec.Struct, gc=False):
    request: msgspec.Raw = msgspec.Raw(NULL)
    response: msgspec.Raw = msgspec.Raw(NULL)


class _Plugin(msgspec.Struct, gc=False):
    meta: _Meta | Odd = None
    usage: _Usage | Odd = None
    payload: _Payload | Odd = None


class _Request(msgspec.Struct, gc=False):
    id: Any = None
    headers: dict[str, Any] | Odd = None


class _Response(msgspec.Struct, gc=False):
    status: Any = None
    headers: dict[str, Any] | Odd = None


class _Consumer(msgspec.Struct, gc=False):
    id: Any = None
    username: Any = None
    custom_id: Any = None


class _Named(msgspec.Struct, gc=False):
    id: Any = None


class _Latencies(msgspec.Struct, gc=False):
    request: Any = None


class _Entry(msgspec.Struct, gc=False):
    ai: dict[str, msgspec.Raw] | Odd = None
    started_at: Any = msgspec.UNSET
    latencies: _Latencies | Odd = None
    client_ip: Any = None
    workspace: Any = None
    workspace_name: Any = None
    request: _Request | Odd = None
    response: _Response | Odd = None
    upstream_status: Any = None
    consumer: _Consumer | Odd = None
    authenticated_entity: _Named | Odd = None
    credential: _Named | Odd = None
    trace_id: Any = None


_ENTRY = msgspec.json.Decoder(_Entry)
_PLUGIN = msgspec.json.Decoder(_Plugin)
_PAYLOADS: msgspec.json.Decoder[_Payload | Odd] = msgspec.json.Decoder(_Payload | Odd)
_NO_META, _NO_USAGE, _NO_PAYLOAD = _Meta(), _Usage(), _Payload()
_NOBODY = _Consumer()


class Kong:
    """Format `kong`."""

    name = "kong"

    def __init__(self) -> None:
        self._tools = ToolNames()

    def is_binary(self, value: bytes) -> bool:
        """Never."""
        return False

    def sniff(self, value: bytes) -> bool:
        """Whether Kong's start of a request may be among the fields."""
        return b'"started_at"' in value

    def decode(self, value: bytes) -> list[Read]:
        """The calls in `value`, of the proxy and of plugins that ask a model themselves."""
        entry = decode(_ENTRY, value, "Kong log entry")
        if entry.started_at is msgspec.UNSET or not isinstance(entry.request, _Request):
            raise Unreadable("unknown_format", "$.started_at or $.request is absent: not a Kong log entry")
        if entry.ai is None:
            return [Skipped(1, "other_request")]
        if not isinstance(entry.ai, dict):
            raise Unreadable("schema", f"$.ai must be an object of AI plugins; got {kind_of(entry.ai)}")
        plugins = _plugins(entry.ai)
        if not plugins:
            return [Skipped(1, "unanswered_request")]
        started = entry.started_at
        if not isinstance(started, (int, float)) or isinstance(started, bool) or not is_time_ms(started):
            raise Unreadable("schema", f"$.started_at must be ms since the epoch; got {kind_of(started)}")
        return [self._call(entry, entry.request, name, plugin) for name, plugin in plugins]

    def _call(self, entry: _Entry, sent: _Request, plugin_name: str, plugin: _Plugin) -> GatewayCall:
        meta = plugin.meta if isinstance(plugin.meta, _Meta) else _NO_META
        usage = plugin.usage if isinstance(plugin.usage, _Usage) else _NO_USAGE
        payload = plugin.payload if isinstance(plugin.payload, _Payload) else _NO_PAYLOAD
        request, answer = read_request(bytes(payload.request)), read_answer(bytes(payload.response))
        headers = _headers(sent.headers)
        session = next(filter(None, (headers.get(name) for name in _SESSION_HEADERS)), None) or request.conversation
        consumer = entry.consumer if isinstance(entry.consumer, _Consumer) else _NOBODY
        status = entry.response.status if isinstance(entry.response, _Response) else entry.upstream_status
        error_code, error_class = error_of(answer.body)
        failed = _is_error(status) or error_code is not None or error_class is not None
        prompt, completion, total = usage_of(answer.body)
        request_id, latencies = text_of(sent.id), entry.latencies
        own = () if plugin_name in _PROXIES else (plugin_name,)
        response_model = text_of(meta.response_model) or (text_of(answer.body.model) if answer.body else None)
        return GatewayCall(
            gateway=self.name,
            identity=(request_id, *own) if request_id else None,
            parse=parse_message,
            messages=request.messages,
            output=[] if failed else answer.output,
            session=session,
            tenant=text_of(entry.workspace) or text_of(entry.workspace_name),
            event_time_ms=round(entry.started_at),
            key_hash=_id_of(entry.authenticated_entity) or _id_of(entry.credential) or _id_of(consumer),
            trace_id=_trace_id(entry, headers),
            user=text_of(consumer.username) or text_of(consumer.custom_id) or text_of(consumer.id),
            end_user=request.end_user,
            ip=text_of(entry.client_ip),
            user_agent=headers.get("user-agent"),
            provider=_known(meta.provider_name),
            model_requested=_known(meta.request_model) or request.model,
            model_served=None if failed else response_model,
            operation="chat",
            tools=self._tools.of(msgspec.Raw(request.tools)),
            prompt_tokens=_count(usage.prompt_tokens, usage.prompt_token, prompt),
            completion_tokens=_count(usage.completion_tokens, usage.completion_token, completion),
            total_tokens=_count(usage.total_tokens, total),
            cost_usd=amount_of(usage.cost),
            duration_ms=_amount(latencies.request if isinstance(latencies, _Latencies) else None, meta.llm_latency),
            ttft_ms=_amount(usage.time_to_first_token, meta.time_to_first_token),
            stream=request.stream,
            status="failure" if failed else "success",
            finish_reason=finish_reason_of(answer.body),
            error_code=error_code or (text_of(status) if failed else None),
            error_class=error_class,
            content_state=_state(request, answer),
            history_complete=request.history_complete,
        )


def _plugins(ai: dict[str, msgspec.Raw]) -> list[tuple[str, _Plugin]]:
    """The plugins that asked a model, the proxy first; in older releases the request's body lies beside them."""
    beside = decode(_PAYLOADS, bytes(ai["payload"]), "Kong payload") if "payload" in ai else None
    shared = beside.request if isinstance(beside, _Payload) else msgspec.Raw(NULL)
    found: list[tuple[str, _Plugin]] = []
    for name in (*(name for name in _PROXIES if name in ai), *sorted(set(ai) - {*_PROXIES, "payload"})):
        if bytes(ai[name])[:1] != b"{" or (found and name in _PROXIES):
            continue
        plugin = decode(_PLUGIN, bytes(ai[name]), "log entry of a Kong AI plugin")
        if plugin.meta is None and plugin.usage is None and plugin.payload is None:
            continue
        if name in _PROXIES:
            payload = plugin.payload if isinstance(plugin.payload, _Payload) else _Payload()
            if bytes(payload.request) == NULL:
                plugin.payload = _Payload(shared, payload.response)
        found.append((name, plugin))
    return found


def _headers(held: Any) -> dict[str, str]:
    """A request's headers; of one that was sent several times the first."""
    headers = {}
    for name, value in held.items() if isinstance(held, dict) else ():
        first = value[0] if isinstance(value, list) and value else value
        if (text := text_of(first)) is not None:
            headers[name.lower()] = text
    return headers


def _trace_id(entry: _Entry, headers: dict[str, str]) -> str | None:
    named = entry.trace_id
    if isinstance(named, dict):
        named = named.get("w3c") or next(iter(named.values()), None)
    if (text := text_of(named)) is not None:
        return text
    parent = _TRACEPARENT.match(headers.get("traceparent", ""))
    return parent[1] if parent else None


def _id_of(named: Any) -> str | None:
    return text_of(named.id) if isinstance(named, (_Named, _Consumer)) else None


def _is_error(status: Any) -> bool:
    return isinstance(status, (int, float)) and not isinstance(status, bool) and status >= 400


def _known(name: Any) -> str | None:
    text = text_of(name)
    return None if text == _UNKNOWN else text


def _count(*values: Any) -> int | None:
    """The first that is a number of tokens."""
    return next((count for count in map(count_of, values) if count is not None), None)


def _amount(*values: Any) -> float | None:
    return next((amount for amount in map(amount_of, values) if amount is not None), None)


def _state(request: Request, answer: Answer) -> ContentState:
    """The request's; a truncated answer lowers it."""
    return "truncated" if answer.state == "truncated" and request.state == "full" else request.state
