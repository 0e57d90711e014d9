"""Rows of JSON that end at a time: what stands in a partition by name."""

from collections.abc import Iterator, Sequence
from typing import Generic, Protocol, TypeVar

import msgspec
import orjson

from schemas.undecodable import UNDECODABLE
from stream.errors import StateError
from stream.record import StateChange

NEVER_ENDS_MS = 1 << 62


class Ends(Protocol):
    """What is stored."""

    @property
    def until_ms(self) -> int:
        """Core time at which it ends."""


S = TypeVar("S", bound=Ends)


class NamedRows(Generic[S]):
    """Values of every partition, each with a name, written when they change and gone when core time passes their end.

    Parameters
    ----------
    kind
        Of their rows.
    type
        A msgspec Struct.
    """

    def __init__(self, kind: str, type: type[S]) -> None:
        self._kind = kind
        self._type = type
        self._rows: dict[int, dict[str, S]] = {}
        self._ends: dict[int, int] = {}
        """Partition -> no row of it ends before."""
        self._changed: set[tuple[int, str]] = set()
        self._stored: set[tuple[int, str]] = set()

    def __bool__(self) -> bool:
        return bool(self._rows)

    def __iter__(self) -> Iterator[tuple[int, str, S]]:
        """All rows: partition, name and value."""
        for partition, rows in self._rows.items():
            for name, value in rows.items():
                yield partition, name, value

    def of(self, partition: int) -> dict[str, S]:
        """A copy of what a partition has, in order of its names."""
        return dict(sorted(self._rows.get(partition, {}).items()))

    def get(self, partition: int, name: str) -> S | None:
        """The value of this name."""
        return self._rows.get(partition, {}).get(name)

    def put(self, partition: int, name: str, value: S) -> None:
        """Store a value, in the place of an earlier one of its name."""
        self._take(partition, name, value)
        self._changed.add((partition, name))

    def remove(self, partition: int, name: str) -> S | None:
        """Forget a value, if there is one of this name."""
        rows = self._rows.get(partition, {})
        value = rows.pop(name, None)
        if value is not None:
            self._changed.add((partition, name))
        if not rows:
            self._rows.pop(partition, None)
            self._ends.pop(partition, None)
        return value

    def expire(self, partition: int, core_time_ms: int) -> bool:
        """Forget what has ended by now: whether there was any."""
        if core_time_ms < self._ends.get(partition, NEVER_ENDS_MS):
            return False
        for name, value in self.of(partition).items():
            if value.until_ms <= core_time_ms:
                self.remove(partition, name)
        left = self._rows.get(partition)
        if left:
            self._ends[partition] = min(value.until_ms for value in left.values())
        return True

    def changes(self) -> list[StateChange]:
        """State rows of what changed since the last call."""
        out = []
        for place in sorted(self._changed):
            partition, name = place
            key, value = orjson.dumps([self._kind, name]), self.get(partition, name)
            if value is not None:
                out.append(StateChange(partition, key, msgspec.json.encode(value)))
                self._stored.add(place)
            elif place in self._stored:
                out.append(StateChange(partition, key, None))
                self._stored.discard(place)
        self._changed.clear()
        return out

    def load(self, partition: int, ids: Sequence[str], value: bytes) -> None:
        """Take a stored row back.

        Raises
        ------
        StateError
            When the value is none of this kind.
        """
        try:
            row = msgspec.json.decode(value, type=self._type)
        except UNDECODABLE as error:
            raise StateError(
                f"{self._kind} row {list(ids)!r} in partition {partition} cannot be read: {error}. "
                "Rebuild the partition's state, see docs/runbook.md."
            ) from error
        self._take(partition, ids[0], row)
        self._stored.add((partition, ids[0]))

    def drop(self, partition: int) -> None:
        """Forget a partition."""
        self._rows.pop(partition, None)
        self._ends.pop(partition, None)
        self._changed = {place for place in self._changed if place[0] != partition}
        self._stored = {place for place in self._stored if place[0] != partition}

    def _take(self, partition: int, name: str, value: S) -> None:
        self._rows.setdefault(partition, {})[name] = value
        self._ends[partition] = min(self._ends.get(partition, NEVER_ENDS_MS), value.until_ms)
