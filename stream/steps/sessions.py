"""Which events belong to one session, where one ends, and what of a request is new."""

from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass
from hashlib import blake2b

import numpy as np
from numpy.typing import NDArray

from stream.batch import DIGEST_BYTES, EventBatch
from stream.state.schema import NEVER_MS, RING_MAX
from stream.state.table import SessionKey, Table


@dataclass(slots=True)
class Runs:
    """Sessions of a batch, cut where quiet ended one: k runs over n events."""

    of_event: NDArray[np.int64]
    """(n,) the run of each event."""
    position: NDArray[np.int64]
    """(n,) among the run's events in this batch."""
    previous: NDArray[np.int64]
    """(n,) the event before it in its run, -1 when that was in an earlier batch, or never."""
    order: NDArray[np.int64]
    """(n,) events by run, then in order."""
    keys: list[SessionKey]
    """(k,) partition, tenant, session."""
    row: NDArray[np.int64]
    """(k,) the state row that a run goes on from, or -1."""
    last: NDArray[np.int64]
    """(k,) its last event here."""
    ended_ms: NDArray[np.int64]
    """(k,) core time at which quiet closed it, `NEVER_MS` while it is open or ends later."""
    replaced: NDArray[np.int64]
    """State rows that had closed before their session's first event here."""
    replaced_ms: NDArray[np.int64]
    """Core time at which each of those closed."""


def find_runs(
    keys: Sequence[SessionKey],
    core_time_ms: NDArray[np.int64],
    core_end_ms: NDArray[np.int64],
    table: Table[SessionKey],
    quiet_ms: int,
) -> Runs:
    """Cut sessions into runs.

    A session closes `quiet_ms` of core time after its last event, before the event that passes this time; one that
    goes on later starts anew.

    Parameters
    ----------
    keys
        (n,) partition, tenant and session of each event.
    core_time_ms
        (n,) the partition's time at each event, itself included.
    core_end_ms
        (n,) the partition's time at the end of the batch.
    table
        Open sessions.
    """
    n = len(keys)
    local: dict[SessionKey, int] = {}
    session = np.fromiter((local.setdefault(key, len(local)) for key in keys), np.int64, n)
    names = list(local)
    rows = table.find(names)
    known = rows >= 0
    last_core = np.full(len(names), NEVER_MS, np.int64)
    last_core[known] = table["last_core_ms"][rows[known]]
    order = np.argsort(session, kind="stable")
    ordered, core = session[order], core_time_ms[order]
    first = np.r_[True, ordered[1:] != ordered[:-1]] if n else np.zeros(0, bool)
    before = np.where(first, last_core[ordered], np.r_[np.int64(NEVER_MS), core[:-1]] if n else core)
    fresh = core - before >= quiet_ms
    boundary = first | fresh
    run = np.cumsum(boundary) - 1
    starts = np.flatnonzero(boundary)
    ends = np.r_[starts[1:], n] - 1 if n else starts
    row = np.where(first & ~fresh, rows[ordered], -1)[starts]
    ended = np.full(len(starts), NEVER_MS, np.int64)
    # The run before a boundary inside its session ended there; the last one of a session only if time has passed.
    inner = np.r_[~first[starts[1:]], False] if n else np.zeros(0, bool)
    due = core[ends] + quiet_ms
    closed = inner | (due <= core_end_ms[order][ends])
    ended[closed] = due[closed]
    stale = np.flatnonzero(first & fresh & known[ordered])
    of_event = np.empty(n, np.int64)
    of_event[order] = run
    position = np.empty(n, np.int64)
    position[order] = np.arange(n) - starts[run] if n else 0
    previous = np.empty(n, np.int64)
    previous[order] = np.where(boundary, -1, np.r_[-1, order[:-1]] if n else 0)
    return Runs(
        of_event=of_event,
        position=position,
        previous=previous,
        order=order,
        keys=[names[i] for i in ordered[starts]],
        row=row,
        last=order[ends] if n else starts,
        ended_ms=ended,
        replaced=rows[ordered[stale]],
        replaced_ms=before[stale] + quiet_ms,
    )


def running_highest(
    values: NDArray[np.float64], run: NDArray[np.int64], before: NDArray[np.float64]
) -> NDArray[np.float64]:
    """Highest (n,) of each run so far, NaN where it has no value yet.

    Parameters
    ----------
    values
        (n,) in order, NaN for none.
    run
        (n,) that they belong to.
    before
        (n,) the highest of their runs before all of them, NaN for none.

    >>> running_highest(np.array([3.0, 1.0, np.nan, 5.0]), np.array([7, 2, 2, 7]), np.array([4.0, np.nan, np.nan, 4.0]))
    array([4., 1., 1., 5.])
    """
    known = np.fmax(values, before)
    # One zero, whichever sign stands beside it in a batch.
    levels, rank = np.unique(np.where(np.isnan(known), -np.inf, known + 0.0), return_inverse=True)
    order = np.argsort(run, kind="stable")
    # Each run stands so far above the one before that a running maximum starts anew with it.
    far = run[order] * len(levels)
    rank[order] = np.maximum.accumulate(rank[order] + far) - far
    highest: NDArray[np.float64] = levels[rank]
    return np.where(np.isneginf(highest), np.nan, highest)


@dataclass(frozen=True, slots=True)
class Suspicion:
    """Since when the sessions of events (n) are suspicious."""

    turn: NDArray[np.int64]
    """(n,) number of each event in its session, from 1."""
    first_turn: NDArray[np.int64]
    """(n,) of the session's first suspicious event up to this one, 0 when there was none."""
    first_ms: NDArray[np.int64]
    """(n,) its event time."""


def find_suspicion(
    suspicious: NDArray[np.bool_], event_time_ms: NDArray[np.int64], runs: Runs, table: Table[SessionKey]
) -> Suspicion:
    """Since when each session has had a `suspicious` (n,) event."""
    n, k = len(suspicious), len(runs.keys)
    goes_on = runs.row >= 0
    before = np.where(goes_on, table["events"][runs.row], 0)
    turn = before[runs.of_event] + runs.position + 1
    stored_turn = np.where(goes_on, table["suspicious_turn"][runs.row], 0).astype(np.int64)
    stored_ms = np.where(goes_on, table["suspicious_ms"][runs.row], 0)
    # Events of a run stand in order: the least position is the first.
    first = np.full(k, n, np.int64)
    at = np.flatnonzero(suspicious)
    position = np.full(k, np.iinfo(np.int64).max)
    np.minimum.at(position, runs.of_event[at], runs.position[at])
    leads = at[runs.position[at] == position[runs.of_event[at]]]
    first[runs.of_event[leads]] = leads
    known = stored_turn > 0
    of_run = np.where(known | (first == n), -1, first)
    mine = of_run[runs.of_event]
    here = (mine >= 0) & (runs.position >= runs.position[mine])
    return Suspicion(
        turn,
        np.where(known[runs.of_event], stored_turn[runs.of_event], np.where(here, turn[mine], 0)),
        np.where(known[runs.of_event], stored_ms[runs.of_event], np.where(here, event_time_ms[mine], 0)),
    )


@dataclass(slots=True)
class Heads:
    """What a session has shown so far, by digest; plain values, so that it can be stored."""

    length: list[int]
    """Messages of its last request, and of that request with its response."""
    hash: list[bytes]
    """BLAKE2b-128 of their digests."""
    ring: deque[bytes]
    """Its latest distinct messages."""


@dataclass(slots=True)
class NewContent:
    """New messages (m) of a batch, event by event in order, each event's in the order it sent them."""

    event: NDArray[np.int64]
    """(m,) the event of each."""
    message: NDArray[np.int64]
    """(m,) its position among the event's request and response messages."""
    unseen: NDArray[np.bool_]
    """(m,) whether the session had not said it before; the others are repetitions, which still count as calls."""


def find_new_content(batch: EventBatch, runs: Runs, table: Table[SessionKey]) -> tuple[NewContent, list[Heads]]:
    """What each request adds to what its session has shown, and every run's heads afterwards.

    A gateway resends the whole history: where a request starts with the digests of the one before (with or without
    the response), only what follows is new. Where it does not, because a client cut, edited or branched its history,
    all that the session's latest `RING_MAX` messages do not hold is.
    """
    heads = _load_heads(runs, table)
    # Within a batch the digests themselves are compared; across batches, their hash.
    shown: list[tuple[bytes, bytes] | None] = [None] * len(heads)
    events: list[int] = []
    positions: list[int] = []
    unseen: list[bool] = []
    run_of = runs.of_event.tolist()
    width = DIGEST_BYTES
    for i, digests in enumerate(batch.digests):
        if not digests:
            continue
        run = run_of[i]
        head, before = heads[run], shown[run]
        known = _known_prefix(digests, before) if before is not None else _stored_prefix(digests, head)
        ring = head.ring
        continued = known >= 0
        for j in range(max(known, 0), len(digests) // width):
            digest = digests[j * width : (j + 1) * width]
            new = digest not in ring
            if new:
                ring.append(digest)
            if new or continued:
                events.append(i)
                positions.append(j)
                unseen.append(new)
        shown[run] = (digests[: len(batch.heads[i].messages) * width], digests)
    for head, last in zip(heads, shown, strict=True):
        if last is not None:
            head.length = [len(digests) // width for digests in last]
            head.hash = [_hash(digests) for digests in last]
    return (
        NewContent(np.array(events, np.int64), np.array(positions, np.int64), np.array(unseen, np.bool_)),
        heads,
    )


def store_heads(table: Table[SessionKey], rows: NDArray[np.int64], heads: Sequence[Heads]) -> None:
    """Write heads (r) to their state rows (r)."""
    for row, head in zip(rows.tolist(), heads, strict=True):
        table["head_length"][row] = head.length
        table["head_hash"][row] = np.frombuffer(b"".join(head.hash), np.uint8).reshape(2, DIGEST_BYTES)
        ring = np.frombuffer(b"".join(head.ring), np.uint8).reshape(-1, DIGEST_BYTES)
        table["ring_used"][row] = len(ring)
        table["ring"][row, : len(ring)] = ring


def _load_heads(runs: Runs, table: Table[SessionKey]) -> list[Heads]:
    lengths, hashes, used, rings = table["head_length"], table["head_hash"], table["ring_used"], table["ring"]
    heads = []
    for row in runs.row.tolist():
        if row < 0:
            heads.append(Heads([0, 0], [bytes(DIGEST_BYTES)] * 2, deque(maxlen=RING_MAX)))
            continue
        raw = rings[row, : int(used[row])].tobytes()
        ring = deque((raw[at : at + DIGEST_BYTES] for at in range(0, len(raw), DIGEST_BYTES)), maxlen=RING_MAX)
        heads.append(Heads(lengths[row].tolist(), [hashes[row, 0].tobytes(), hashes[row, 1].tobytes()], ring))
    return heads


def _known_prefix(digests: bytes, before: tuple[bytes, bytes]) -> int:
    """Messages known at the start of `digests`, -1 when it does not go on from either head."""
    for head in (before[1], before[0]):
        if head and digests.startswith(head):
            return len(head) // DIGEST_BYTES
    return -1


def _stored_prefix(digests: bytes, head: Heads) -> int:
    for length, expected in zip(reversed(head.length), reversed(head.hash), strict=True):
        size = length * DIGEST_BYTES
        if length and len(digests) >= size and _hash(digests[:size]) == expected:
            return length
    return -1


def _hash(digests: bytes) -> bytes:
    return blake2b(digests, digest_size=DIGEST_BYTES).digest()
