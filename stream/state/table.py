"""Rows of arrays: the scorer's state, behind the one interface that the core sees."""

import binascii
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any, Generic, TypeVar, cast

import numpy as np
import orjson
from numpy.typing import NDArray

from stream.errors import StateError
from stream.record import StateChange
from stream.state.rows import ROWS, RowError

TenantKey = tuple[int, str]
"""Partition and tenant."""
SessionKey = tuple[int, str, str]
"""Partition, tenant and session."""
_DECODED_AT_ONCE = 1_000
_FREE = -1
"""Partition of a row that is not in use."""
K = TypeVar("K", bound=tuple[Any, ...])
"""A row's key: its partition first, then what names it there."""


@dataclass(frozen=True, slots=True)
class Column:
    """One field of every row.

    Parameters
    ----------
    name
        How the core asks for it.
    dtype
        Its numpy type.
    shape
        Of one row's value.
    initial
        What a new row holds.
    counted_by
        A ragged column: only as many leading entries as this column of the same family says are stored.
    """

    name: str
    dtype: str
    shape: tuple[int, ...] = ()
    initial: float = 0
    counted_by: str | None = None


@dataclass(frozen=True, slots=True)
class Family:
    """Columns that change, and so are written, together: one row of the state topic."""

    kind: str
    columns: tuple[Column, ...]


class Table(Generic[K]):
    """Rows by key, columns as arrays, written by family when marked.

    Memory is one array a column, grown by doubling; freed rows are used again. No method takes one row where the
    hot path could bring many.

    Parameters
    ----------
    families
        What is stored, and what changes together.
    capacity
        Rows to start with.
    """

    def __init__(self, families: Sequence[Family], capacity: int = 256) -> None:
        self._families = {family.kind: family for family in families}
        self._columns: dict[str, NDArray[Any]] = {}
        self._initial: dict[str, float] = {}
        for family in families:
            for column in family.columns:
                self._columns[column.name] = np.full((capacity, *column.shape), column.initial, dtype=column.dtype)
                self._initial[column.name] = column.initial
        self._index: dict[K, int] = {}
        self._keys: list[K | None] = [None] * capacity
        self._partition = np.full(capacity, _FREE, np.int64)
        self._free: list[int] = list(range(capacity - 1, -1, -1))
        self._dirty: dict[str, set[int]] = {kind: set() for kind in self._families}
        self._stored: dict[str, set[K]] = {kind: set() for kind in self._families}
        self._removed: set[K] = set()

    def __len__(self) -> int:
        return len(self._index)

    @property
    def columns(self) -> tuple[str, ...]:
        """Names of all columns."""
        return tuple(self._columns)

    def __contains__(self, key: K) -> bool:
        return key in self._index

    def __getitem__(self, column: str) -> NDArray[Any]:
        """The whole column, to be gathered from and scattered to by row."""
        return self._columns[column]

    def find(self, keys: Sequence[K]) -> NDArray[np.int64]:
        """Rows (n,) of `keys`, -1 for those that have none."""
        get = self._index.get
        return np.fromiter((get(key, -1) for key in keys), np.int64, len(keys))

    def create(self, keys: Sequence[K]) -> NDArray[np.int64]:
        """Rows (n,) for `keys`, none of which has one, at their initial values."""
        while len(self._free) < len(keys):
            self._grow()
        rows = np.fromiter((self._free.pop() for _ in keys), np.int64, len(keys))
        for key, row in zip(keys, rows.tolist(), strict=True):
            self._index[key] = row
            self._keys[row] = key
            self._partition[row] = key[0]
        for name, column in self._columns.items():
            column[rows] = self._initial[name]
        return rows

    def remove(self, keys: Iterable[K]) -> None:
        """Forget these rows; the next `changes` writes their tombstones."""
        for key in keys:
            row = self._forget(key)
            self._removed.add(key)
            for dirty in self._dirty.values():
                dirty.discard(row)

    def key(self, row: int) -> K:
        """The key of a row in use."""
        key = self._keys[row]
        if key is None:
            raise StateError(f"state row {row} is not in use")
        return key

    def keys(self) -> list[K]:
        """Every key, in order of creation."""
        return list(self._index)

    def rows(self, partition: int) -> NDArray[np.int64]:
        """Rows (r) of a partition, in no particular order."""
        return np.flatnonzero(self._partition == partition)

    def mark(self, kind: str, rows: NDArray[np.int64]) -> None:
        """Say that this family of these rows changed."""
        self._dirty[kind].update(rows.tolist())

    def drop(self, partition: int) -> None:
        """Forget a partition without a trace: it is another instance's, or will be restored."""
        rows = self.rows(partition).tolist()
        for row in rows:
            self._forget(self.key(row))
        for dirty in self._dirty.values():
            dirty.difference_update(rows)
        self._removed = {key for key in self._removed if key[0] != partition}
        for stored in self._stored.values():
            stored.difference_update([key for key in stored if key[0] == partition])

    def changes(self) -> list[StateChange]:
        """What changed since the last call, a record a row and family, tombstones last; in a fixed order."""
        out: list[StateChange] = []
        written: dict[str, set[K]] = {}
        for kind, dirty in self._dirty.items():
            family = self._families[kind]
            rows = sorted(dirty, key=lambda row: self.key(row))
            out += [
                StateChange(key[0], orjson.dumps([kind, *key[1:]]), value)
                for key, value in zip(map(self.key, rows), self._encode(family, np.array(rows, np.int64)), strict=True)
            ]
            written[kind] = set(map(self.key, rows))
            self._stored[kind] |= written[kind]
            dirty.clear()
        for key in sorted(self._removed):
            for kind, stored in self._stored.items():
                # A row that came back at once has its new value, or else the old one must go.
                if key in stored and key not in written[kind]:
                    stored.discard(key)
                    out.append(StateChange(key[0], orjson.dumps([kind, *key[1:]]), None))
        self._removed.clear()
        return out

    def load(self, partition: int, kind: str, stored: Sequence[tuple[Sequence[str], bytes]]) -> NDArray[np.int64]:
        """Take stored rows (n) back, ids and value of each: their row numbers.

        Raises
        ------
        RowError
            When a value is not a row of this family.
        """
        keys = [cast(K, (partition, *ids)) for ids, _ in stored]
        rows = self.find(keys)
        absent = np.flatnonzero(rows < 0).tolist()
        rows[absent] = self.create([keys[i] for i in absent])
        for at in range(0, len(keys), _DECODED_AT_ONCE):
            part = slice(at, at + _DECODED_AT_ONCE)
            self._decode(self._families[kind], rows[part], keys[part], [value for _, value in stored[part]])
        self._stored[kind].update(keys)
        return rows

    def bytes_per_row(self) -> int:
        """Bytes of memory that one row takes in the arrays."""
        return sum(int(column[:1].nbytes) for column in self._columns.values())

    def _forget(self, key: K) -> int:
        row = self._index.pop(key)
        self._keys[row] = None
        self._partition[row] = _FREE
        self._free.append(row)
        return row

    def _grow(self) -> None:
        old = len(self._keys)
        self._partition = np.concatenate([self._partition, np.full(old, _FREE, np.int64)])
        for name, column in self._columns.items():
            more = np.full((old, *column.shape[1:]), self._initial[name], dtype=column.dtype)
            self._columns[name] = np.concatenate([column, more])
        self._keys += [None] * old
        self._free[:0] = range(2 * old - 1, old - 1, -1)

    def _encode(self, family: Family, rows: NDArray[np.int64]) -> list[bytes]:
        if len(rows) == 0:
            return []
        fixed = [column for column in family.columns if column.counted_by is None]
        packed = np.concatenate(
            [np.ascontiguousarray(self._columns[c.name][rows]).reshape(len(rows), -1).view(np.uint8) for c in fixed],
            axis=1,
        )
        ragged = [column for column in family.columns if column.counted_by is not None]
        prefix = b'{"row":"'
        suffix = b'","v":%d}' % ROWS[family.kind].version
        values = []
        for i, row in enumerate(rows.tolist()):
            body = packed[i].tobytes()
            for column in ragged:
                assert column.counted_by is not None
                count = int(self._columns[column.counted_by][row])
                body += self._columns[column.name][row, :count].tobytes()
            values.append(prefix + binascii.b2a_base64(body, newline=False) + suffix)
        return values

    def _decode(self, family: Family, rows: NDArray[np.int64], keys: Sequence[K], values: Sequence[bytes]) -> None:
        bodies = [_body(family.kind, key, value) for key, value in zip(keys, values, strict=True)]
        sizes = np.fromiter(map(len, bodies), np.int64, len(bodies))
        fixed = [column for column in family.columns if column.counted_by is None]
        widths = [self._columns[column.name][:1].nbytes for column in fixed]
        at = sum(widths)
        self._check(family, keys, sizes >= at, sizes)
        packed = np.frombuffer(b"".join([body[:at] for body in bodies]), np.uint8).reshape(len(bodies), at)
        begins = np.cumsum([0, *widths[:-1]])
        for column, begin, width in zip(fixed, begins.tolist(), widths, strict=True):
            target = self._columns[column.name]
            part = np.ascontiguousarray(packed[:, begin : begin + width]).view(target.dtype)
            target[rows] = part.reshape(len(rows), *column.shape)
        read = np.full(len(rows), at, np.int64)
        for column in family.columns:
            if column.counted_by is None:
                continue
            target = self._columns[column.name]
            count = self._columns[column.counted_by][rows].astype(np.int64)
            size = count * target[:1, :1].nbytes
            self._check(family, keys, (count >= 0) & (count <= column.shape[0]) & (read + size <= sizes), sizes)
            places = zip(bodies, read.tolist(), (read + size).tolist(), strict=True)
            data = b"".join([body[begin:end] for body, begin, end in places])
            filled = np.full((len(rows), *column.shape), self._initial[column.name], target.dtype)
            filled[np.arange(column.shape[0]) < count[:, None]] = np.frombuffer(data, target.dtype).reshape(
                -1, *column.shape[1:]
            )
            target[rows] = filled
            read += size
        self._check(family, keys, read == sizes, sizes)

    def _check(self, family: Family, keys: Sequence[K], good: NDArray[np.bool_], sizes: NDArray[np.int64]) -> None:
        if not good.all():
            first = int(np.argmin(good))
            raise _refused(family.kind, keys[first], f"is {sizes[first]} bytes, which its columns do not come to")


def _body(kind: str, key: tuple[Any, ...], value: bytes) -> bytes:
    """The bytes of a row's columns."""
    try:
        return binascii.a2b_base64(orjson.loads(value)["row"], strict_mode=True)
    except (ValueError, KeyError, TypeError) as error:
        raise _refused(kind, key, f"must be JSON with base64 `row`; got {value[:80]!r}") from error


def _refused(kind: str, key: tuple[Any, ...], why: str) -> RowError:
    ids = list(key[1:])
    return RowError(
        f"state of {kind} {ids!r} in partition {key[0]} {why}. Rebuild the partition's state by replaying its events, "
        "see docs/runbook.md.",
        orjson.dumps([kind, *ids]),
    )
