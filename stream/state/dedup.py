"""Which events a partition has seen before."""

import binascii
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass

import orjson

from stream.errors import StateError
from stream.state.rows import ROWS

_ID_BYTES = 16
_CONTENT_BYTES = 16
_ENTRY_BYTES = _ID_BYTES + _CONTENT_BYTES
_VERSION = ROWS["dedup"].version


@dataclass(slots=True)
class _Row:
    key: bytes
    first: int
    """Number of its first event in the partition."""
    ids: list[bytes]
    core_time_ms: int
    """The latest of its events'."""


class Dedup:
    """Event ids of one partition: its last `events_max` events or `window_ms`, whichever is less.

    An event is a duplicate when its id and its raw bytes are those of one seen; the same id with other bytes is not.
    Stored as one row a batch.

    Parameters
    ----------
    events_max
        Events that are remembered.
    window_ms
        Core time after which one is forgotten.
    """

    def __init__(self, events_max: int, window_ms: int) -> None:
        self._events_max = events_max
        self._window_ms = window_ms
        self._seen: dict[bytes, tuple[int, int, bytes]] = {}
        self._rows: deque[_Row] = deque()
        self._count = 0

    def check(
        self, ids: Sequence[bytes], contents: Sequence[bytes], core_time_ms: Sequence[int]
    ) -> tuple[list[bool], list[bool]]:
        """Which of a batch's events (n) are duplicates, and which repeat an id with other content.

        Parameters
        ----------
        ids
            First 16 bytes of each event id.
        contents
            First 16 bytes of the hash of each event's raw bytes.
        core_time_ms
            The partition's time at each.
        """
        duplicate, conflicting = [], []
        number = self._count
        for key, content, core in zip(ids, contents, core_time_ms, strict=True):
            seen = self._seen.get(key)
            known = seen is not None and number - seen[0] <= self._events_max and core - seen[1] <= self._window_ms
            same = known and seen is not None and seen[2] == content
            duplicate.append(same)
            conflicting.append(known and not same)
            self._seen[key] = (number, core, content)
            number += 1
        return duplicate, conflicting

    def commit(
        self, ids: Sequence[bytes], contents: Sequence[bytes], core_time_ms: Sequence[int]
    ) -> list[tuple[bytes, bytes | None]]:
        """State rows for a batch that `check` has seen: one for it, tombstones for those that are out of reach."""
        if not ids:
            return []
        first = self._count
        self._count += len(ids)
        key = orjson.dumps(["dedup", f"{first:020d}"])
        last = core_time_ms[-1]
        entries = b"".join(a + b for a, b in zip(ids, contents, strict=True))
        value = orjson.dumps(
            {"core": list(core_time_ms), "ids": binascii.b2a_base64(entries, newline=False).decode(), "v": _VERSION},
            option=orjson.OPT_SORT_KEYS,
        )
        self._rows.append(_Row(key, first, list(ids), last))
        changes: list[tuple[bytes, bytes | None]] = [(key, value)]
        while self._rows and self._out_of_reach(self._rows[0], last):
            row = self._rows.popleft()
            changes.append((row.key, None))
            for offset, name in enumerate(row.ids):
                seen = self._seen.get(name)
                if seen is not None and seen[0] <= row.first + offset:
                    del self._seen[name]
        return changes

    def load(self, ids: Sequence[str], value: bytes) -> None:
        """Take a stored row back; rows must come in the order of their numbers.

        Raises
        ------
        StateError
            When the value is not such a row.
        """
        try:
            stored = orjson.loads(value)
            raw, core, first = binascii.a2b_base64(stored["ids"]), stored["core"], int(ids[0])
            if stored["v"] != _VERSION or len(raw) != _ENTRY_BYTES * len(core) or not core:
                raise ValueError(f"version {stored['v']!r}, {len(raw)} bytes for {len(core)} events")
        except (ValueError, KeyError, TypeError) as error:
            raise StateError(
                f"dedup row {list(ids)!r} cannot be read: {error}. Rebuild the partition's state, see docs/runbook.md."
            ) from error
        entries = [raw[at : at + _ENTRY_BYTES] for at in range(0, len(raw), _ENTRY_BYTES)]
        for offset, (entry, core_time_ms) in enumerate(zip(entries, core, strict=True)):
            name, content = entry[:_ID_BYTES], entry[_ID_BYTES:]
            self._seen[name] = (first + offset, core_time_ms, content)
        key = orjson.dumps(["dedup", *ids])
        self._rows.append(_Row(key, first, [entry[:_ID_BYTES] for entry in entries], core[-1]))
        self._count = max(self._count, first + len(core))

    def _out_of_reach(self, row: _Row, core_time_ms: int) -> bool:
        last = row.first + len(row.ids) - 1
        return self._count - last > self._events_max or core_time_ms - row.core_time_ms > self._window_ms
