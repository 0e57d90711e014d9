"""What was flagged, until it is old enough to be learned."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import orjson
from numpy.typing import NDArray

from stream.errors import StateError
from stream.record import StateChange
from stream.state.by_tenant import ByTenant, decode_arrays, earliest, encode_arrays
from stream.state.pending import Segments
from stream.state.rows import ROWS
from stream.state.table import Table, TenantKey
from stream.state.verdicts import Target

QUARANTINE_MAX = 12
"""Segments of a tenant that are held back at a time, the earliest: what comes while it is full is not remembered.

Were the latest kept, a topic told more than so often in `learning.quarantine_days` would push itself out for ever, and
never be learned."""
_VERSION = ROWS["quarantine"].version
_SEGMENT = np.dtype([("role", "i1"), ("owner", "<u8"), ("key", "<u4"), ("due_ms", "<i8")])
_UNWRITTEN = -1


@dataclass(slots=True)
class Flagged(ByTenant):
    """Segments (n) of events that are findings, in order within each tenant."""

    role: NDArray[np.int8]
    owner: NDArray[np.uint64]
    key: NDArray[np.uint32]
    vector: NDArray[np.int8]
    """(n, d)"""
    due_ms: NDArray[np.int64]
    """(n,) core time from which they may be learned."""
    number: NDArray[np.int64]
    """(n,) of the state row that holds them, negative before they have one."""

    @classmethod
    def none(cls, dim: int) -> "Flagged":
        """No segments."""
        return cls.of(Segments.none(dim), np.zeros(0, np.int64))

    @classmethod
    def of(cls, segments: Segments, due_ms: NDArray[np.int64]) -> "Flagged":
        """Segments that no state row holds yet."""
        number = np.full(len(segments.row), _UNWRITTEN, np.int64)
        return cls(segments.row, segments.role, segments.owner, segments.key, segments.vector, due_ms, number)


class Quarantine:
    """Flagged segments and the state rows that hold them, `QUARANTINE_MAX` segments a tenant.

    One row a tenant and batch that flagged something, written in that batch's transaction and tombstoned when all that
    it holds was learned. A row of which only a part was learned stays as it is: its reader leaves out what was due at
    the tenant's last learn point.
    """

    def __init__(self, dim: int) -> None:
        self._dim = dim
        self._held = Flagged.none(dim)
        self._loaded: list[Flagged] = []
        self._rows: dict[int, dict[int, tuple[int, bytes]]] = {}
        """Tenant's row -> number -> partition and key of a state row."""
        self._touched: set[int] = set()
        self._next: dict[int, int] = {}

    def add(self, flagged: Flagged) -> None:
        """Hold these back, as far as their tenants have room; `store` writes them."""
        self._merge()
        if len(flagged.row):
            self._touched.update(flagged.row.tolist())
            self._held = _bounded(self._held.joined(flagged))

    def release(self, rows: NDArray[np.int64], core_time_ms: NDArray[np.int64]) -> Flagged:
        """What tenants `rows` (t) may learn at core times (t); it is held back no longer."""
        self._merge()
        now = np.full(int(max(rows.max(initial=-1), self._held.row.max(initial=-1))) + 1, -1, np.int64)
        now[rows] = core_time_ms
        due = self._held.due_ms <= now[self._held.row]
        released = self._held.take(due)
        if len(released.row):
            self._touched.update(released.row.tolist())
            self._held = self._held.take(~due)
        return released

    def admit(self, row: int, target: Target, due_ms: int) -> None:
        """Let what a tenant's session, key or all of it has had flagged be due at `due_ms`, if it is not before."""
        self._merge()
        mine = self._flagged_of(row, target) & (self._held.due_ms > due_ms)
        if mine.any():
            self._held.due_ms[mine] = due_ms
            self._rewrite(row)

    def forget(self, row: int, target: Target) -> None:
        """Never let it be learned."""
        self._merge()
        mine = self._flagged_of(row, target)
        if mine.any():
            self._held = self._held.take(~mine)
            self._rewrite(row)

    def _flagged_of(self, row: int, target: Target) -> NDArray[np.bool_]:
        held = self._held
        mine: NDArray[np.bool_] = held.row == row
        if target.reach == "session":
            mine &= held.owner == np.uint64(target.number)
        elif target.reach == "key":
            mine &= held.key == np.uint32(target.number)
        return mine

    def _rewrite(self, row: int) -> None:
        """Let one new row hold all that is left of a tenant, so that it comes back in the order it has."""
        self._held.number[self._held.row == row] = _UNWRITTEN
        self._touched.add(row)

    def store(self, tenants: Table[TenantKey]) -> list[StateChange]:
        """Rows of what was added since the last call and is still held, tombstones of those that hold nothing more."""
        self._merge()
        changes: list[StateChange] = []
        tombstones: list[StateChange] = []
        touched = np.array(sorted(self._touched), np.int64)
        self._touched.clear()
        here = np.flatnonzero(np.isin(self._held.row, touched)) if len(touched) else touched
        for row in touched.tolist():
            mine = here[self._held.row[here] == row]
            new = mine[self._held.number[mine] == _UNWRITTEN]
            stored = self._rows.setdefault(row, {})
            if len(new):
                partition, tenant = tenants.key(row)
                number = self._next.get(partition, 0)
                self._next[partition] = number + 1
                key = orjson.dumps(["quarantine", tenant, f"{number:020d}"])
                changes.append(StateChange(partition, key, _encode(self._held.take(new))))
                stored[number] = (partition, key)
                self._held.number[new] = number
            for number in sorted(stored.keys() - set(self._held.number[mine].tolist())):
                partition, key = stored.pop(number)
                tombstones.append(StateChange(partition, key, None))
        return changes + tombstones

    def load(self, partition: int, row: int, ids: Sequence[str], value: bytes, learned_core_ms: int) -> None:
        """Take a stored row back; rows of a tenant must come in the order of their numbers.

        What was due at `learned_core_ms`, the tenant's last learn point, has been learned.
        """
        number = int(ids[-1])
        flagged = _decode(value, self._dim, f"quarantine row {list(ids)!r} in {partition}")
        flagged.row[:] = row
        flagged.number[:] = number
        self._loaded.append(flagged.take(flagged.due_ms > learned_core_ms))
        self._rows.setdefault(row, {})[number] = (partition, orjson.dumps(["quarantine", *ids]))
        self._next[partition] = max(self._next.get(partition, 0), number + 1)

    def forget_tenants(self, rows: NDArray[np.int64]) -> list[StateChange]:
        """Hold back nothing of these tenants any more: tombstones of its rows."""
        self._merge()
        theirs = np.isin(self._held.row, rows)
        if theirs.any():
            self._held = self._held.take(~theirs)
        self._touched.difference_update(rows.tolist())
        stored = [self._rows.pop(row, {}) for row in rows.tolist()]
        return [StateChange(*place, None) for of_tenant in stored for place in of_tenant.values()]

    def drop(self, partition: int, rows: NDArray[np.int64]) -> None:
        """Forget a partition, whose tenants have these rows."""
        self.forget_tenants(rows)
        self._next.pop(partition, None)

    def _merge(self) -> None:
        """Join what was loaded, all rows at once."""
        if self._loaded:
            self._held = _bounded(Flagged.concatenated([self._held, *self._loaded]))
            self._loaded = []


def _bounded(flagged: Flagged) -> Flagged:
    kept = earliest(flagged.row, QUARANTINE_MAX)
    return flagged if kept.all() else flagged.take(kept)


def _encode(flagged: Flagged) -> bytes:
    heads = np.empty(len(flagged.row), _SEGMENT)
    heads["role"], heads["owner"], heads["due_ms"] = flagged.role, flagged.owner, flagged.due_ms
    heads["key"] = flagged.key
    return encode_arrays(_VERSION, segments=heads, vectors=flagged.vector)


def _decode(value: bytes, dim: int, where: str) -> Flagged:
    stored = decode_arrays(value, _VERSION, where, segments=(_SEGMENT, (-1,)), vectors=(np.int8, (-1, dim)))
    heads, vectors = stored["segments"], stored["vectors"]
    n = len(heads)
    if len(vectors) != n:
        raise StateError(
            f"{where} must have a vector for each segment; got {len(vectors)} vectors of {n}. "
            "Rebuild the partition's state, see docs/runbook.md."
        )
    role, owner, due_ms = heads["role"].copy(), heads["owner"].astype(np.uint64), heads["due_ms"].astype(np.int64)
    key = heads["key"].astype(np.uint32)
    return Flagged(np.zeros(n, np.int64), role, owner, key, vectors, due_ms, np.zeros(n, np.int64))
