"""What events will teach at their tenant's next learn point."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import orjson
from numpy.typing import NDArray

from models.novelty import Lesson
from stream.errors import StateError
from stream.record import StateChange
from stream.state.by_tenant import ByTenant, decode_arrays, encode_arrays, latest
from stream.state.rows import ROWS
from stream.state.table import Table, TenantKey

SEGMENTS_MAX = 24
"""Segments of a tenant that wait for its next learn point, the latest; with a full memory and quarantine they fill its
32 KiB."""
CLOSINGS_MAX = 40
"""Closed sessions that wait, the latest."""
_VERSION = ROWS["pending"].version
_SEGMENT = np.dtype([("role", "i1"), ("slot", "<i2"), ("owner", "<u8"), ("key", "<u4")])


@dataclass(slots=True)
class Segments(ByTenant):
    """Segments (n) heard and not yet learned, in order within each tenant."""

    role: NDArray[np.int8]
    slot: NDArray[np.int16]
    owner: NDArray[np.uint64]
    key: NDArray[np.uint32]
    vector: NDArray[np.int8]
    """(n, d)"""

    @classmethod
    def none(cls, dim: int) -> "Segments":
        """No segments."""
        return cls(
            np.zeros(0, np.int64),
            np.zeros(0, np.int8),
            np.zeros(0, np.int16),
            np.zeros(0, np.uint64),
            np.zeros(0, np.uint32),
            np.zeros((0, dim), np.int8),
        )

    def latest(self) -> "Segments":
        """Each tenant's last `SEGMENTS_MAX`."""
        kept = latest(self.row, SEGMENTS_MAX)
        return self if kept.all() else self.take(kept)

    def lesson(self, rows: NDArray[np.int64]) -> Lesson:
        """As the memories of `rows` (sorted) learn them."""
        return Lesson(np.searchsorted(rows, self.row), self.role, self.slot, self.vector, self.owner, self.key)


@dataclass(slots=True)
class Closings(ByTenant):
    """Sessions (n) that closed since their tenant's last learn point."""

    maxima: NDArray[np.float64]
    """(n, kinds), each signal's largest value in the session, NaN where it never had one."""
    stamp: NDArray[np.uint64]
    """(n,) of the release that measured them."""

    @classmethod
    def none(cls, kinds: int) -> "Closings":
        """No sessions."""
        return cls(np.zeros(0, np.int64), np.zeros((0, kinds)), np.zeros(0, np.uint64))

    @classmethod
    def under(cls, stamp: np.uint64, row: NDArray[np.int64], maxima: NDArray[np.float64]) -> "Closings":
        """Sessions that closed while the release of this stamp was in service."""
        return cls(row, maxima, np.full(len(row), stamp, np.uint64))

    def latest(self) -> "Closings":
        """Each tenant's last `CLOSINGS_MAX`."""
        kept = latest(self.row, CLOSINGS_MAX)
        return self if kept.all() else self.take(kept)


@dataclass(frozen=True, slots=True)
class _Row:
    """A row on the state topic."""

    partition: int
    key: bytes
    segments: int
    closings: int


class Pending:
    """Segments and closings that wait for a learn point, with the state rows that hold them.

    One row a tenant and batch is written in that batch's transaction and tombstoned by the learn point that uses it:
    learned rows, which are much larger, are written only there. A tenant's latest `SEGMENTS_MAX` segments and
    `CLOSINGS_MAX` closings wait, whatever fell between two of its learn points: so its state keeps its bound.
    """

    def __init__(self, dim: int, kinds: int) -> None:
        self._dim = dim
        self._kinds = kinds
        self._segments = Segments.none(dim)
        self._closings = Closings.none(kinds)
        self._loaded: list[tuple[Segments, Closings]] = []
        self._rows: dict[int, list[_Row]] = {}
        self._used: list[_Row] = []
        self._next: dict[int, int] = {}

    def take(self, rows: NDArray[np.int64]) -> tuple[Segments, Closings]:
        """What waits for these tenants; it waits no longer."""
        self._merge()
        for row in rows.tolist():
            self._used += self._rows.pop(row, [])
        mine, ours = np.isin(self._segments.row, rows), np.isin(self._closings.row, rows)
        taken = self._segments.take(mine), self._closings.take(ours)
        if mine.any():
            self._segments = self._segments.take(~mine)
        if ours.any():
            self._closings = self._closings.take(~ours)
        return taken

    def store(self, segments: Segments, closings: Closings, tenants: Table[TenantKey]) -> list[StateChange]:
        """Keep what a batch leaves waiting: its rows, and tombstones of those that were used or no longer count."""
        self._merge()
        segments, closings = segments.latest(), closings.latest()
        by_row, by_closing = np.argsort(segments.row, kind="stable"), np.argsort(closings.row, kind="stable")
        changes = []
        for row in np.unique(np.concatenate([segments.row, closings.row])).tolist():
            heard = by_row[slice(*np.searchsorted(segments.row[by_row], [row, row + 1]))]
            ended = by_closing[slice(*np.searchsorted(closings.row[by_closing], [row, row + 1]))]
            partition, tenant = tenants.key(row)
            number = self._next.get(partition, 0)
            self._next[partition] = number + 1
            key = orjson.dumps(["pending", tenant, f"{number:020d}"])
            changes.append(StateChange(partition, key, _encode(segments.take(heard), closings.take(ended))))
            self._rows.setdefault(row, []).append(_Row(partition, key, len(heard), len(ended)))
            self._used += _outdated(self._rows[row])
        changes += [StateChange(used.partition, used.key, None) for used in self._used]
        self._used = []
        self._segments = self._segments.joined(segments).latest()
        self._closings = self._closings.joined(closings).latest()
        return changes

    def load(self, partition: int, row: int, ids: Sequence[str], value: bytes) -> None:
        """Take a stored row back; rows of a tenant must come in the order of their numbers."""
        segments, closings = _decode(value, self._dim, self._kinds, f"pending row {list(ids)!r} in {partition}")
        segments.row[:] = row
        closings.row[:] = row
        self._loaded.append((segments, closings))
        stored = _Row(partition, orjson.dumps(["pending", *ids]), len(segments.row), len(closings.row))
        self._rows.setdefault(row, []).append(stored)
        self._next[partition] = max(self._next.get(partition, 0), int(ids[-1]) + 1)

    def forget_tenants(self, rows: NDArray[np.int64]) -> list[StateChange]:
        """Let nothing wait for these tenants any more: tombstones of its rows."""
        self.take(rows)
        tombstones = [StateChange(used.partition, used.key, None) for used in self._used]
        self._used = []
        return tombstones

    def drop(self, partition: int, rows: NDArray[np.int64]) -> None:
        """Forget a partition, whose tenants have these rows."""
        self.take(rows)
        self._used = [used for used in self._used if used.partition != partition]
        self._next.pop(partition, None)

    def _merge(self) -> None:
        """Join what was loaded, all rows at once."""
        if not self._loaded:
            return
        segments, closings = zip(*self._loaded, strict=True)
        self._loaded = []
        self._segments = Segments.concatenated([self._segments, *segments]).latest()
        self._closings = Closings.concatenated([self._closings, *closings]).latest()


def _outdated(rows: list[_Row]) -> list[_Row]:
    """Take from a tenant's rows, the oldest first, those that later ones have left nothing of."""
    out = []
    segments, closings = sum(row.segments for row in rows), sum(row.closings for row in rows)
    while (
        rows
        and segments - rows[0].segments >= SEGMENTS_MAX
        and (rows[0].closings == 0 or closings - rows[0].closings >= CLOSINGS_MAX)
    ):
        segments -= rows[0].segments
        closings -= rows[0].closings
        out.append(rows.pop(0))
    return out


def _encode(segments: Segments, closings: Closings) -> bytes:
    heads = np.empty(len(segments.row), _SEGMENT)
    heads["role"], heads["slot"], heads["owner"] = segments.role, segments.slot, segments.owner
    heads["key"] = segments.key
    # A repetition only strengthens its slot: its vector is not needed again.
    vectors = segments.vector[segments.slot < 0]
    return encode_arrays(
        _VERSION,
        maxima=closings.maxima.astype("<f4"),
        segments=heads,
        # They closed in one batch, which one release scored.
        stamp=closings.stamp[:1].astype("<u8"),
        vectors=vectors,
    )


def _decode(value: bytes, dim: int, kinds: int, where: str) -> tuple[Segments, Closings]:
    stored = decode_arrays(
        value,
        _VERSION,
        where,
        segments=(_SEGMENT, (-1,)),
        vectors=(np.int8, (-1, dim)),
        maxima=("<f4", (-1, kinds)),
        stamp=("<u8", (-1,)),
    )
    heads, vectors, maxima, stamp = stored["segments"], stored["vectors"], stored["maxima"], stored["stamp"]
    if len(vectors) != int((heads["slot"] < 0).sum()):
        raise StateError(
            f"{where} must have a vector for each new segment; got {len(vectors)} vectors of "
            f"{int((heads['slot'] < 0).sum())}. Rebuild the partition's state, see docs/runbook.md."
        )
    if len(stamp) != min(len(maxima), 1):
        raise StateError(
            f"{where} must name the release of its {len(maxima)} closed sessions; got {len(stamp)} stamps. "
            "Rebuild the partition's state, see docs/runbook.md."
        )
    every = np.zeros((len(heads), dim), np.int8)
    every[heads["slot"] < 0] = vectors
    segments = Segments(
        np.zeros(len(heads), np.int64),
        heads["role"].copy(),
        heads["slot"].astype(np.int16),
        heads["owner"].astype(np.uint64),
        heads["key"].astype(np.uint32),
        every,
    )
    row = np.zeros(len(maxima), np.int64)
    return segments, Closings(row, maxima.astype(np.float64), np.repeat(stamp.astype(np.uint64), len(maxima)))
