"""What a release and stored state must agree on: signals, features, and the columns of tenants and sessions."""

from models.novelty import Novelty
from stream.batch import DIGEST_BYTES
from stream.state.table import Column, Family, SessionKey, Table, TenantKey

KINDS = ("novelty", "tool_novelty", "sequence")
"""Signals, in the order of every (.., kinds) array: how new is what users say, what tools answer, the session's course.

Users and tools are told apart because their distances are: what is ordinary among search results would be strange from
a user."""
RING = 64
"""Session maxima a tenant keeps for its own location and scale."""
RING_MAX = 24
"""Digests a session remembers for requests that do not resend what came before word for word."""
NEVER_MS = -(1 << 62)
TOOL_BUCKETS = 8
"""Tool names are hashed into this many counters of the sequence window."""
WINDOW = 8
"""Events of a session that are seen together."""
FEATURES = (
    "user_chars",
    "tool_chars",
    "output_chars",
    "argument_chars",
    "messages",
    "calls",
    "tool_results",
    "prompt_tokens",
    "completion_tokens",
    "duration_ms",
    "gap_ms",
    "failed",
    "finish_tool_calls",
    "finish_length",
    "tools_offered",
    "system",
    *(f"tool_bucket_{i}" for i in range(TOOL_BUCKETS)),
)
FEATURE_SCHEMA = "1." + str(len(FEATURES)) + "x" + str(WINDOW)
"""What a release's bank must have been trained on."""

STATE_SCHEMA = f"2.{len(KINDS)}.{len(FEATURES)}x{WINDOW}"
"""What stored rows look like; a release that differs cannot take over."""


def tenant_table(novelty: Novelty) -> Table[TenantKey]:
    """Tenants of every partition: counters change with each batch, what was learned only at learn points."""
    slots = novelty.slots
    kinds = len(KINDS)
    return Table(
        (
            Family("tenant", 1, (Column("ordinal", "<i8"), Column("sessions", "<i8"))),
            Family(
                "learned",
                2,
                (
                    Column("learned_at", "<i8"),
                    Column("learned_core_ms", "<i8"),
                    Column("location", "<f8", (kinds,)),
                    Column("scale", "<f8", (kinds,), 1),
                    Column("maxima_count", "<i8", (kinds,)),
                    Column("maxima", "<f4", (kinds, RING)),
                    Column("used", "<i4"),
                    Column("memory", "i1", (slots, novelty.dim), counted_by="used"),
                    Column("roles", "i1", (slots,), -1, counted_by="used"),
                    Column("weights", "<f4", (slots,), counted_by="used"),
                    Column("owners", "<u8", (slots,), counted_by="used"),
                ),
            ),
        )
    )


def session_table() -> Table[SessionKey]:
    """Open sessions of every partition."""
    return Table(
        (
            Family(
                "session",
                1,
                (
                    Column("session_ordinal", "<i8"),
                    Column("last_core_ms", "<i8"),
                    Column("last_event_ms", "<i8"),
                    Column("events", "<i8"),
                    Column("session_maxima", "<f8", (len(KINDS),), float("nan")),
                    Column("head_length", "<i4", (2,)),
                    Column("head_hash", "u1", (2, DIGEST_BYTES)),
                    Column("ring_used", "<i4"),
                    Column("ring", "u1", (RING_MAX, DIGEST_BYTES), counted_by="ring_used"),
                    Column("window_used", "<i4"),
                    Column("window", "i1", (WINDOW - 1, len(FEATURES)), counted_by="window_used"),
                ),
            ),
        )
    )
