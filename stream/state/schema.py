"""What a release and stored state must agree on: signals, features, and the columns of tenants and sessions."""

import numpy as np

from models.novelty import Novelty
from models.provenance import PASSAGES, SAID_BITS, WORDS
from stream.batch import DIGEST_BYTES
from stream.state import drift, volume
from stream.state.table import Column, Family, SessionKey, Table, TenantKey

SCALE_OF = {
    "novelty": "tenant",
    "tool_novelty": "tenant",
    "sequence": "tenant",
    "role_surprise": "raised",
    "provenance": "population",
    "volume": "tenant",
    "known_attack": "raised",
    "tool_known_attack": "raised",
}
"""Signals and what each is judged against (`models.signal.SCALES`)."""
KINDS = tuple(SCALE_OF)
"""In the order of every (.., kinds) array: how new is what users say, what tools answer, the session's course; whether
a tool's result speaks like a user; whether the model does what it said; how much, how often, when and from where it is
called; whether what users say, and what tools answer, is like the text of known attacks.

Users and tools are told apart because what they say is: what is ordinary among search results would be strange from a
user."""
NOVELTY, TOOL_NOVELTY, SEQUENCE, ROLE_SURPRISE, PROVENANCE, VOLUME, KNOWN_ATTACK, TOOL_KNOWN_ATTACK = range(len(KINDS))
SHARED = np.array([scale != "tenant" for scale in SCALE_OF.values()])
"""(kinds,) which decide from a tenant's first event on."""
REMEMBERED = [kind for kind, scale in enumerate(SCALE_OF.values()) if scale != "population"]
"""Kinds of which a tenant's session maxima are kept."""
OF_RELEASE = [SEQUENCE, ROLE_SURPRISE, VOLUME, KNOWN_ATTACK, TOOL_KNOWN_ATTACK]
"""Kinds whose values are a release's models': session maxima that one release measured tell nothing of another's. What
is left of `REMEMBERED` is distances in the embedding space, which releases that switch have in common."""
WEIGHTS = {
    "novelty": 0.35,
    "tool_novelty": 0.2,
    "sequence": 0.4,
    "role_surprise": 1.25,
    "provenance": 0.6,
    "volume": 1.1,
    "known_attack": 0.85,
    "tool_known_attack": 0.4,
}
"""Of signals' surprises beside each other: what is often strange for no reason counts less than what hardly ever is
(docs/decisions/0012, 0034, 0036, 0037, 0040, 0041, 0042, 0045, 0047, 0048, 0050)."""
WEIGHTS_WITHOUT_EXAMPLES = WEIGHTS | {
    "novelty": 0.85,
    "role_surprise": 1.0,
    "volume": 1.0,
    "known_attack": 1.0,
    "tool_known_attack": 1.0,
}
"""Where nothing was written down of attacks, that something is off topic says more, and so does what is labelled."""
LIMITS = {"novelty": 8.0}
"""Surprises above which a signal says no more, where attacks were written down: another language than a tenant's is
further out than any attack, and is none (docs/decisions/0042)."""
GROUP_OF = {
    "novelty": "what users say",
    "known_attack": "what users say",
    "tool_novelty": "what tools answer",
    "role_surprise": "what tools answer",
    "tool_known_attack": "what tools answer",
    "sequence": "how it is called",
    "volume": "how it is called",
}
"""What signals speak of: two that find the same thing strange bear each other out, more than two that find a little
strange in two things. Provenance is alone: it sees what a tool's answer made the model do (docs/decisions/0036)."""
ATOMS = {"provenance": 0.0, "known_attack": 0.0, "tool_known_attack": 0.0}
"""Signals whose least value means that there was nothing, in many sessions."""
STAMP = "release_stamp"
"""Column that tells under which release a tenant's maxima were measured; of a warm row it is the release that holds it,
and so no part of it."""
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

STATE_SCHEMA = f"3.{len(KINDS)}.{len(FEATURES)}x{WINDOW}"
"""What stored rows mean; a release that differs cannot take over. The first number rises where rows of before cannot be
read on: how they are written has versions of its own (`stream.state.rows`)."""


def tenant_table(novelty: Novelty) -> Table[TenantKey]:
    """Tenants of every partition: counters change with each batch, what was learned only at learn points."""
    slots = novelty.slots
    kinds = len(KINDS)
    return Table(
        (
            Family("tenant", (Column("ordinal", "<i8"), Column("sessions", "<i8"))),
            Family("volume", volume.TENANT_COLUMNS),
            Family("drift", drift.tenant_columns(kinds)),
            Family(
                "learned",
                (
                    Column(STAMP, "<u8"),
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
                    Column("keys", "<u4", (slots,), counted_by="used"),
                    *volume.LEARNED_COLUMNS,
                    *drift.learned_columns(kinds),
                ),
            ),
        )
    )


def warm_columns(tenants: Table[TenantKey]) -> tuple[str, ...]:
    """Columns of a release's warm rows."""
    return tuple(name for name in tenants.columns if name != STAMP)


def session_table() -> Table[SessionKey]:
    """Open sessions of every partition."""
    return Table(
        (
            Family(
                "session",
                (
                    Column("covered", "<i2"),
                    Column("session_ordinal", "<i8"),
                    Column("last_core_ms", "<i8"),
                    Column("last_event_ms", "<i8"),
                    Column("events", "<i8"),
                    Column("session_maxima", "<f8", (len(KINDS),), float("nan")),
                    Column("session_stamp", "<u8"),
                    Column("suspicious_turn", "<i4"),
                    Column("suspicious_ms", "<i8"),
                    Column("head_length", "<i4", (2,)),
                    Column("head_hash", "u1", (2, DIGEST_BYTES)),
                    Column("ring_used", "<i4"),
                    Column("ring", "u1", (RING_MAX, DIGEST_BYTES), counted_by="ring_used"),
                    Column("window_used", "<i4"),
                    Column("window", "i1", (WINDOW - 1, len(FEATURES)), counted_by="window_used"),
                    Column("told_count", "<i8"),
                    Column("told_used", "<i4"),
                    Column("told_hash", "<u4", (PASSAGES, WORDS), counted_by="told_used"),
                    Column("told_weight", "u1", (PASSAGES, WORDS), counted_by="told_used"),
                    Column("told_role", "<i2", (PASSAGES,), counted_by="told_used"),
                    Column("said_used", "<i4"),
                    Column("said", "u1", (SAID_BITS // 8,), counted_by="said_used"),
                    *volume.SESSION_COLUMNS,
                ),
            ),
        )
    )
