"""What every gateway decoder makes of a record: calls, with their messages still as the gateway wrote them."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, Literal, Protocol

import msgspec

from schemas.event import ContentState, Role, SessionSource, Status

_MAX_COUNT = 1 << 53
_MAX_TIME_MS = 253_402_300_800_000  # the year 10000
_KINDS = {str: "a text", bool: "a boolean", list: "a list", dict: "an object", type(None): "null"}


class Unreadable(ValueError):
    """A record that no event can be made of.

    Parameters
    ----------
    reason
        `undecodable`, `unknown_format`, `schema`, `too_deep` or `oversized`.
    message
        Which field, what was required, what came; never content.
    """

    def __init__(self, reason: str, message: str) -> None:
        super().__init__(message)
        self.reason = reason


class RawMessage(msgspec.Struct, frozen=True, gc=False):
    """A message in the normal form, not yet redacted; its parts are `schemas.event.Part` as mappings."""

    role: Role
    parts: list[dict[str, str]]
    content: ContentState = "full"


ParseMessage = Callable[[bytes], RawMessage]


Other = Literal["other_span", "outer_span", "other_request", "unanswered_request"]
"""A span of other software; a span of an agent or a tool, around calls of a model that have their own; a gateway's
request to another service than a model; one that reached no model."""


class Skipped(msgspec.Struct, frozen=True, gc=False):
    """What a record holds beside calls: counted, no event and no error."""

    count: int
    what: Other


class GatewayCall(msgspec.Struct, kw_only=True, gc=False):
    """One call, before identity, redaction and routing. Fields are as in `schemas.event.GatewayEvent`."""

    gateway: str
    identity: tuple[str, ...] | None
    """What names the call at its gateway; None: nothing but its bytes."""
    event_id: str | None = None
    """An id given as it is to be, of native records."""
    parse: ParseMessage
    """Reads one of `messages` and `output`."""
    messages: list[bytes]
    """JSON of each."""
    output: list[bytes]
    session: str | None
    session_source: SessionSource = "gateway"
    """Of `session`."""
    tenant: str | None
    event_time_ms: int
    key_hash: str | None = None
    trace_id: str | None = None
    user: str | None = None
    end_user: str | None = None
    ip: str | None = None
    user_agent: str | None = None
    provider: str | None = None
    model_requested: str | None = None
    model_served: str | None = None
    operation: str | None = None
    tools: tuple[str, ...] = ()
    prompt_tokens: int | None = None
    completion_tokens: int | None = None
    total_tokens: int | None = None
    cost_usd: float | None = None
    duration_ms: float | None = None
    ttft_ms: float | None = None
    stream: bool | None = None
    status: Status = "success"
    finish_reason: str | None = None
    error_code: str | None = None
    error_class: str | None = None
    guardrails: tuple[str, ...] = ()
    content_state: ContentState = "full"
    """As far as the envelope tells; messages may lower it."""
    history_complete: bool = True
    """Whether the gateway sends the whole history, should the content be full."""
    raw: bytes | None = None
    """The bytes that it was read from, where the record holds more than this call."""
    attributes: Mapping[str, Any] | None = None
    """What `ingest.tenant_field` names one of, where a record has attributes and no paths; `tenant` goes before it."""
    tenant_fallback: str | None = None
    """The tenant when neither `tenant` nor an attribute names one."""


Read = GatewayCall | Unreadable | Skipped
"""What a part of a record turns out to be; a part that cannot be read takes nothing from the others."""


class GatewayFormat(Protocol):
    """A gateway's record format."""

    @property
    def name(self) -> str:
        """As `--format` and `source.gateway` say it."""

    def sniff(self, value: bytes) -> bool:
        """Whether `value` may be of this format: cheap, and true whenever `decode` would succeed."""

    def is_binary(self, value: bytes) -> bool:
        """Whether `value` is not JSON, and `decode` takes it all the same."""

    def decode(self, value: bytes) -> Sequence[Read]:
        """What is in `value`, one JSON object of UTF-8 or what `is_binary` accepts: never nothing.

        Raises
        ------
        Unreadable
            `unknown_format` when it is another format's, else as the reason says.
        """


def text_of(value: Any) -> str | None:
    """A string that says something, or an integer as one; None for anything else.

    >>> text_of("u-1"), text_of(7), text_of(""), text_of(["u-1"]), text_of(True)
    ('u-1', '7', None, None, None)
    """
    if isinstance(value, str):
        return value or None
    if isinstance(value, int) and not isinstance(value, bool):
        return str(value)
    return None


def count_of(value: Any) -> int | None:
    """A number of tokens: a whole number, not negative, that a float could hold exactly; else None.

    >>> count_of(76), count_of(76.0), count_of(-1), count_of("76"), count_of(10**30)
    (76, 76, None, None, None)
    """
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        return None
    return int(value) if 0 <= value < _MAX_COUNT and value == int(value) else None


def amount_of(value: Any) -> float | None:
    """A finite number that is not negative; else None.

    >>> amount_of(0.25), amount_of(1), amount_of(-0.5), amount_of(float("inf"))
    (0.25, 1.0, None, None)
    """
    if isinstance(value, (int, float)) and not isinstance(value, bool) and 0 <= value < 1e300:
        return float(value)
    return None


def flag_of(value: Any) -> bool | None:
    """A boolean, else None."""
    return value if isinstance(value, bool) else None


def kind_of(value: Any) -> str:
    """What came, for a message: the kind in JSON's words, and a number itself, but never a text.

    >>> kind_of(-5), kind_of("hidden"), kind_of({}), kind_of(None)
    ('the number -5', 'a text', 'an object', 'null')
    """
    if isinstance(value, (int, float)) and not isinstance(value, bool):
        return f"the number {value:.15g}" if isinstance(value, float) else f"the number {value!r:.40}"
    return _KINDS.get(type(value), type(value).__name__)


def is_time_ms(value: float) -> bool:
    """Whether `value` ms since the epoch lies between 1970 and the year 10000."""
    return 0 <= value < _MAX_TIME_MS
