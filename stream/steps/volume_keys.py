"""Who calls: a tenant's keys, how much each calls in a window of time, and what each is used from."""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from hashlib import blake2b
from ipaddress import IPv6Address, ip_address

import numpy as np
from numpy.typing import NDArray

from stream.batch import EventBatch
from stream.state.table import Table, TenantKey
from stream.state.volume import KEY_COLUMNS, KEYS

WINDOW_MS = 600_000
"""Calls and tokens of a key are counted by ten minutes of core time."""
_COUNT_MAX = (1 << 31) - 1


@dataclass(slots=True)
class _Holds:
    """Spans (e) for which a key holds a slot within a batch."""

    of_event: NDArray[np.int64]
    """(n,)."""
    row: NDArray[np.int64]
    slot: NDArray[np.int64]
    carried: NDArray[np.bool_]
    """(e,) whether it held the slot before the batch."""
    lasting: NDArray[np.bool_]
    """(e,) whether it holds the slot after the batch."""


@dataclass(slots=True)
class KeyUse:
    """What the events (n) of a batch mean for their keys."""

    counts: NDArray[np.int64]
    """(n, 3) calls, tokens and failures of the event's key in its window, the event included."""
    new: NDArray[np.bool_]
    """(n, 3) whether the key is new to its tenant, the user agent and the network to the key. The first are not."""
    closed_event: NDArray[np.int64]
    """(w,) the event that opens a key's next window."""
    closed_counts: NDArray[np.int64]
    """(w, 3) what the window before came to."""
    after: dict[str, NDArray[np.generic]]
    """Column -> its values for `row`, `slot`."""
    row: NDArray[np.int64]
    slot: NDArray[np.int64]

    def store(self, tenants: Table[TenantKey]) -> None:
        """Write the slots back."""
        for column, values in self.after.items():
            tenants[column][self.row, self.slot] = values


def key_use(
    live: EventBatch, core_time_ms: NDArray[np.int64], tenant: NDArray[np.int64], tenants: Table[TenantKey]
) -> KeyUse:
    """What the events say of their keys; nothing is stored yet."""
    n, heads = len(live), live.heads
    key = np.fromiter((_hash64(head.key_hash or "") for head in heads), np.uint64, n)
    agent = np.fromiter((_hash32(head.user_agent or "") for head in heads), np.int64, n)
    network = np.fromiter((_network(head.ip or "") for head in heads), np.int64, n)
    seen = core_time_ms // 1000
    new = np.zeros((n, 3), np.bool_)
    holds, new[:, 0] = _hold(tenant, key, seen, tenants)
    order = np.argsort(holds.of_event, kind="stable")
    spans = len(holds.row)
    stored = {column.name: tenants[column.name][holds.row, holds.slot] for column in KEY_COLUMNS}
    tokens = np.clip(np.nan_to_num(live.prompt_tokens) + np.nan_to_num(live.completion_tokens), 0, 1e9)
    counts = np.stack([np.ones(n, np.int64), tokens.astype(np.int64), live.failed.astype(np.int64)], axis=1)
    window = core_time_ms // WINDOW_MS
    counted, closed_event, closed_counts = _windows(holds, order, window, counts, stored)
    after: dict[str, NDArray[np.generic]] = {}
    for at, column, values in ((1, "volume_key_agents", agent), (2, "volume_key_networks", network)):
        carried = np.where(holds.carried[:, None], stored[column], 0).astype(np.int64)
        new[:, at], after[column] = _last_two(holds.of_event[order], values[order], order, carried)
    last = order[np.searchsorted(holds.of_event[order], np.arange(spans), "right") - 1]
    after["volume_key"] = key[last]
    after["volume_key_seen"] = seen[last]
    after["volume_key_window"] = window[last]
    after["volume_key_counts"] = counted[last]
    kept = np.flatnonzero(holds.lasting)
    return KeyUse(
        counted,
        new,
        closed_event,
        closed_counts,
        {column: values[kept] for column, values in after.items()},
        holds.row[kept],
        holds.slot[kept],
    )


class _Placing:
    """Gives keys their slots."""

    def __init__(self, events: int) -> None:
        self.of_event = np.zeros(events, np.int64)
        self.new = np.zeros(events, np.bool_)
        self.row: list[int] = []
        self.slot: list[int] = []
        self.carried: list[bool] = []
        self.lasting: list[bool] = []

    def known(self, events: NDArray[np.int64], row: NDArray[np.int64], slot: NDArray[np.int64]) -> None:
        """Events of tenants all of whose keys have a slot."""
        codes, self.of_event[events] = np.unique(row * KEYS + slot, return_inverse=True)
        self.row, self.slot = (codes // KEYS).tolist(), (codes % KEYS).tolist()
        self.carried, self.lasting = [True] * len(codes), [True] * len(codes)

    def one_by_one(
        self, row: int, events: list[int], keys: list[int], seen: list[int], stored: list[int], last: list[int]
    ) -> None:
        """Events of a tenant, in order, with keys that take a slot, when none is free from the one seen longest ago."""
        slot_of = {key: slot for slot, key in enumerate(stored) if key}
        held: dict[int, int] = {}
        for event, key, now in zip(events, keys, seen, strict=True):
            slot = slot_of.get(key, -1)
            if slot < 0:
                slot = len(slot_of) if len(slot_of) < KEYS else last.index(min(last))
                self.new[event] = len(slot_of) > 0
                slot_of = {other: at for other, at in slot_of.items() if at != slot} | {key: slot}
                if slot in held:
                    self.lasting[held[slot]] = False
                held[slot] = self._begin(row, slot, carried=False)
            elif slot not in held:
                held[slot] = self._begin(row, slot, carried=True)
            last[slot] = now
            self.of_event[event] = held[slot]

    def _begin(self, row: int, slot: int, *, carried: bool) -> int:
        self.row.append(row)
        self.slot.append(slot)
        self.carried.append(carried)
        self.lasting.append(True)
        return len(self.row) - 1

    def done(self) -> _Holds:
        """The spans."""
        numbers = np.array([self.row, self.slot], np.int64).reshape(2, -1)
        flags = np.array([self.carried, self.lasting], np.bool_).reshape(2, -1)
        return _Holds(self.of_event, numbers[0], numbers[1], flags[0], flags[1])


def _hold(
    tenant: NDArray[np.int64], key: NDArray[np.uint64], seen: NDArray[np.int64], tenants: Table[TenantKey]
) -> tuple[_Holds, NDArray[np.bool_]]:
    """Which slot each event's key holds, and whether it is new (n,)."""
    stored = tenants["volume_key"][tenant] == key[:, None]
    slot = stored.argmax(axis=1)
    # Only tenants whom the batch brings a key that has no slot are gone through call by call.
    changing = np.unique(tenant[~stored[np.arange(len(tenant)), slot]])
    placing = _Placing(len(tenant))
    fast = np.flatnonzero(~np.isin(tenant, changing))
    placing.known(fast, tenant[fast], slot[fast])
    order = np.argsort(tenant, kind="stable")
    for row in changing.tolist():
        mine = order[slice(*np.searchsorted(tenant[order], [row, row + 1]))]
        before = tenants["volume_key"][row].tolist(), tenants["volume_key_seen"][row].tolist()
        placing.one_by_one(row, mine.tolist(), key[mine].tolist(), seen[mine].tolist(), *before)
    return placing.done(), placing.new


def _windows(
    holds: _Holds,
    order: NDArray[np.int64],
    window: NDArray[np.int64],
    counts: NDArray[np.int64],
    stored: dict[str, NDArray[np.generic]],
) -> tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.int64]]:
    """Counts (n, 3) so far in each event's window; events that open a later one, and what the one before came to."""
    span, number = holds.of_event[order], window[order]
    first = _changes(span)
    starts = np.flatnonzero(first | _changes(number))
    part = np.repeat(np.arange(len(starts)), np.diff(np.r_[starts, len(order)]))
    total = np.cumsum(counts[order], axis=0)
    total -= (total[starts] - counts[order][starts])[part]
    begins = first[starts]
    of_start = span[starts]
    goes_on = begins & holds.carried[of_start] & (stored["volume_key_window"][of_start] == number[starts])
    earlier = stored["volume_key_counts"][of_start].astype(np.int64)
    total += np.where(goes_on[:, None], earlier, 0)[part]
    out = np.empty_like(counts)
    out[order] = np.minimum(total, _COUNT_MAX)
    closes = np.flatnonzero(~begins | (holds.carried[of_start] & ~goes_on))
    before = np.where(begins[:, None], earlier, total[starts - 1])
    return out, order[starts[closes]], np.minimum(before[closes], _COUNT_MAX)


def _last_two(
    span: NDArray[np.int64], values: NDArray[np.int64], order: NDArray[np.int64], carried: NDArray[np.int64]
) -> tuple[NDArray[np.bool_], NDArray[np.int64]]:
    """Whether each event's value is none of the last two different ones of its span; those two after the last event.

    Of a row of values, equal neighbours taken together, an element is known where it equals the one before the last.

    Parameters
    ----------
    span, values
        (n,) in the order of spans, then of time; a value of 0 says nothing.
    order
        (n,) the events' own places.
    carried
        (e, 2) from before, the older first.
    """
    spans = len(carried)
    whose = np.r_[np.repeat(np.arange(spans), 2), span]
    what = np.r_[carried.ravel(), values]
    event = np.r_[np.full(2 * spans, -1), order]
    line = np.argsort(whose, kind="stable")
    line = line[what[line] != 0]
    whose, what, event = whose[line], what[line], event[line]
    distinct = _changes(whose) | _changes(what)
    whose, what, event = whose[distinct], what[distinct], event[distinct]
    again = np.zeros(len(what), np.bool_)
    again[2:] = (whose[2:] == whose[:-2]) & (what[2:] == what[:-2])
    only = _changes(whose)
    new = np.zeros(len(order), np.bool_)
    new[event[~again & ~only & (event >= 0)]] = True
    ends = np.searchsorted(whose, np.arange(spans), "right")
    begins = np.searchsorted(whose, np.arange(spans), "left")
    after = np.zeros((spans, 2), np.int64)
    for back in (1, 2):
        some = np.flatnonzero(ends - back >= begins)
        after[some, 2 - back] = what[ends[some] - back]
    return new, after


def _changes(values: NDArray[np.int64]) -> NDArray[np.bool_]:
    """Whether each element differs from the one before; the first does."""
    out = np.ones(len(values), np.bool_)
    out[1:] = values[1:] != values[:-1]
    return out


@lru_cache(maxsize=4096)
def _hash64(text: str) -> int:
    return int.from_bytes(blake2b(text.encode("utf-8", "surrogatepass"), digest_size=8).digest(), "big") or 1


@lru_cache(maxsize=4096)
def _hash32(text: str) -> int:
    """0 where there is no text."""
    return (_hash64(text) & 0xFFFFFFFF or 1) if text else 0


@lru_cache(maxsize=4096)
def _network(text: str) -> int:
    """Hash of the /24 of an IPv4 address, of the /48 of an IPv6 one, 0 where it is neither."""
    try:
        address = ip_address(text.partition(",")[0].strip())
    except ValueError:
        return 0
    if isinstance(address, IPv6Address):
        if address.ipv4_mapped is None:
            return _hash32(address.packed[:6].hex())
        address = address.ipv4_mapped
    return _hash32(address.packed[:3].hex())
