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

TenantKey = tuple[int, str]
"""Partition and tenant."""
SessionKey = tuple[int, str, str]
"""Partition, tenant and session."""
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
    version: int
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

    def load(self, partition: int, kind: str, ids: Sequence[str], value: bytes) -> int:
        """Take a stored row back; its row number.

        Raises
        ------
        StateError
            When the value is not a row of this family and version.
        """
        key = cast(K, (partition, *ids))
        rows = self.find([key])
        if rows[0] < 0:
            rows = self.create([key])
        self._decode(self._families[kind], int(rows[0]), key, value)
        self._stored[kind].add(key)
        return int(rows[0])

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
        suffix = b'","v":%d}' % family.version
        values = []
        for i, row in enumerate(rows.tolist()):
            body = packed[i].tobytes()
            for column in ragged:
                assert column.counted_by is not None
                count = int(self._columns[column.counted_by][row])
                body += self._columns[column.name][row, :count].tobytes()
            values.append(prefix + binascii.b2a_base64(body, newline=False) + suffix)
        return values

    def _decode(self, family: Family, row: int, key: K, value: bytes) -> None:
        where = f"state of {family.kind} {list(key[1:])!r} in partition {key[0]}"
        remedy = "Rebuild the partition's state by replaying its events, see docs/runbook.md."
        try:
            stored = orjson.loads(value)
            version, body = stored["v"], binascii.a2b_base64(stored["row"], strict_mode=True)
        except (ValueError, KeyError, TypeError) as error:
            raise StateError(f"{where} must be JSON with `v` and base64 `row`; got {value[:80]!r}. {remedy}") from error
        if version != family.version:
            raise StateError(f"{where} must have version {family.version}; got {version!r}. {remedy}")
        at = 0
        for column in sorted(family.columns, key=lambda c: c.counted_by is not None):
            target = self._columns[column.name]
            shape = column.shape
            if column.counted_by is not None:
                shape = (int(self._columns[column.counted_by][row]), *shape[1:])
            size = int(np.prod(shape, dtype=np.int64)) * target.dtype.itemsize
            if not 0 <= size <= target[row].nbytes or at + size > len(body):
                raise StateError(f"{where} is {len(body)} bytes, too few for column {column.name}. {remedy}")
            part = np.frombuffer(body, target.dtype, count=size // target.dtype.itemsize, offset=at).reshape(shape)
            if column.counted_by is None:
                target[row] = part
            else:
                target[row] = self._initial[column.name]
                target[row, : shape[0]] = part
            at += size
        if at != len(body):
            raise StateError(f"{where} is {len(body)} bytes where {at} are expected. {remedy}")
