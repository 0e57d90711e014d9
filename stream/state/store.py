"""All that a scorer knows of its partitions, as one thing to restore, to drop and to write."""

from collections.abc import Iterable

import msgspec
import numpy as np
import orjson
from numpy.typing import NDArray

from models.novelty import Novelty
from schemas.undecodable import UNDECODABLE
from stream.config import Settings
from stream.errors import StateError
from stream.record import StateChange
from stream.state.dedup import Dedup
from stream.state.identity import stamp_of
from stream.state.open_findings import OpenFindings
from stream.state.partition import CURSOR_KEY, Cursor, Partition
from stream.state.pending import Pending
from stream.state.quarantine import Quarantine
from stream.state.rows import REBUILD, RowError, named, opened
from stream.state.rules import Rules
from stream.state.schema import KINDS, OF_RELEASE, session_table, tenant_table
from stream.state.verdicts import Verdicts

_OF_TENANT = ("tenant", "volume", "drift", "learned")
_NAMED = ("finding", "rule", "verdict", "pending", "quarantine", "dedup")
"""Kinds of rows that are not a table's: tenants come before what waits for them, or is held back from them."""


class State:
    """Tenants, sessions, what waits to be learned or is held back, open findings, rules, verdicts and cursors.

    All of it of every partition held.

    Parameters
    ----------
    settings
        Bounds of deduplication, and the quiet that closes sessions and findings.
    novelty
        Whose memory the tenants' rows hold.
    release
        Name of the release in service.
    """

    def __init__(self, settings: Settings, novelty: Novelty, release: str) -> None:
        self._settings = settings
        self.release = release
        """Name of the release that new partitions start with: the one in service."""
        self.tenants = tenant_table(novelty)
        self.sessions = session_table()
        self.pending = Pending(novelty.dim, len(KINDS))
        self.quarantine = Quarantine(novelty.dim)
        self.findings = OpenFindings(settings.findings.quiet_ms)
        self.rules = Rules()
        self.verdicts = Verdicts()
        self.partitions: dict[int, Partition] = {}
        self._touched: set[int] = set()

    def held(self, number: int) -> Partition:
        """The partition, new if it has had no input yet; its cursor will be written."""
        self._touched.add(number)
        held = self.partitions.get(number)
        if held is None:
            dedup = self._settings.dedup
            held = self.partitions[number] = Partition(
                number, Dedup(dedup.events_max, dedup.window_ms), release=self.release
            )
        return held

    @property
    def stamp(self) -> np.uint64:
        """By which rows know the release in service."""
        return stamp_of(self.release)

    def session_maxima(self, rows: NDArray[np.int64]) -> NDArray[np.float64]:
        """A copy of sessions' maxima (r, kinds), without what another release than the one in service measured."""
        maxima: NDArray[np.float64] = self.sessions["session_maxima"][rows]
        foreign = np.flatnonzero(self.sessions["session_stamp"][rows] != self.stamp)
        maxima[foreign[:, None], OF_RELEASE] = np.nan
        return maxima

    def expire(self, partition: int) -> None:
        """Forget the rules and verdicts that have ended by the partition's time."""
        if self.rules or self.verdicts:
            core_time_ms = self.partitions[partition].core_time_ms
            self.rules.expire(partition, core_time_ms)
            self.verdicts.expire(partition, core_time_ms)

    def forget_tenants(self, partition: int, rows: NDArray[np.int64]) -> list[StateChange]:
        """Forget a partition's tenants of these rows, with their sessions: tombstones of what waits or is held back.

        Open findings stay until quiet closes them, rules and verdicts until they end.
        """
        keys = {self.tenants.key(row) for row in rows.tolist()}
        tombstones = [*self.pending.forget_tenants(rows), *self.quarantine.forget_tenants(rows)]
        sessions = map(self.sessions.key, self.sessions.rows(partition).tolist())
        self.sessions.remove([key for key in sessions if key[:2] in keys])
        self.tenants.remove(sorted(keys))
        return tombstones

    def next_timer_ms(self, partition: int) -> int | None:
        """Core time at which the partition's next timer may be due."""
        held = self.partitions.get(partition)
        if held is None:
            return None
        due = [timer[0] for timer in held.session_timers[:1]]
        finding = self.findings.next_due_ms(partition)
        return min([*due, finding] if finding is not None else due, default=None)

    def memory_bytes(self) -> int:
        """Bytes that tenants and sessions take in memory."""
        return len(self.tenants) * self.tenants.bytes_per_row() + len(self.sessions) * self.sessions.bytes_per_row()

    def changes(self) -> list[StateChange]:
        """Rows that changed since the last call, each partition's cursor last."""
        for number in self._touched:
            self.expire(number)
        out = [
            *self.quarantine.store(self.tenants),
            *self.tenants.changes(),
            *self.sessions.changes(),
            *self.findings.changes(),
        ]
        out += [*self.rules.changes(), *self.verdicts.changes()]
        out += [
            StateChange(number, CURSOR_KEY, msgspec.json.encode(self.partitions[number].cursor()))
            for number in sorted(self._touched)
        ]
        self._touched.clear()
        return out

    def drop(self, partition: int) -> None:
        """Forget a partition: it was revoked, or its state ran ahead of a commit that failed."""
        rows = self.tenants.rows(partition)
        self.pending.drop(partition, rows)
        self.quarantine.drop(partition, rows)
        self.tenants.drop(partition)
        self.sessions.drop(partition)
        self.findings.drop(partition)
        self.rules.drop(partition)
        self.verdicts.drop(partition)
        self.partitions.pop(partition, None)
        self._touched.discard(partition)

    def restore(self, partition: int, rows: Iterable[tuple[bytes, bytes | None]]) -> None:
        """Take a partition's state from its rows, in the order of the topic: the last value of a key counts.

        Raises
        ------
        StateError
            When a row cannot be read.
        """
        self.drop(partition)
        latest: dict[bytes, bytes] = {}
        for key, value in rows:
            if value is None:
                latest.pop(key, None)
            else:
                latest[key] = value
        if CURSOR_KEY not in latest:
            if latest:
                raise StateError(f"state of partition {partition} has {len(latest)} rows and no cursor. {REBUILD}")
            return
        try:
            self._restore(partition, latest)
        except StateError:
            # Half of a state is none.
            self.drop(partition)
            raise

    def _restore(self, partition: int, latest: dict[bytes, bytes]) -> None:
        held = self.held(partition)
        self._touched.discard(partition)
        of_kind: dict[str, list[tuple[list[str], bytes]]] = {}
        while latest:
            key, value = latest.popitem()
            kind, ids = named(key, partition)
            of_kind.setdefault(kind, []).append((ids, opened(kind, key, partition, value)))
        held.take(_cursor(of_kind["cursor"][0][1], partition))
        for kind in _OF_TENANT:
            self.tenants.load(partition, kind, of_kind.pop(kind, []))
        sessions = sorted(of_kind.pop("session", []), key=lambda row: row[0])
        # In this order: loading makes the columns longer.
        loaded = self.sessions.load(partition, "session", sessions)
        due = self.sessions["last_core_ms"][loaded]
        for (ids, _), due_ms in zip(sessions, (due + self._settings.core.session_quiet_ms).tolist(), strict=True):
            held.watch(due_ms, (partition, ids[0], ids[1]))
        for kind in _NAMED:
            # Numbered rows (dedup, pending, quarantine) come in the order of their numbers.
            for ids, value in sorted(of_kind.pop(kind, []), key=lambda row: row[0]):
                try:
                    self._load(held, kind, ids, value)
                except StateError as error:
                    raise RowError(str(error), orjson.dumps([kind, *ids])) from error

    def _load(self, held: Partition, kind: str, ids: list[str], value: bytes) -> None:
        if kind == "finding":
            self.findings.load(held.number, ids, value)
        elif kind == "rule":
            self.rules.load(held.number, ids, value)
        elif kind == "verdict":
            self.verdicts.load(held.number, ids, value)
        elif kind == "dedup":
            held.dedup.load(ids, value)
        else:
            row = int(self.tenants.find([(held.number, ids[0])])[0])
            if row < 0:
                raise StateError(f"{kind} row {ids!r} in partition {held.number} has no tenant. {REBUILD}")
            if kind == "pending":
                self.pending.load(held.number, row, ids, value)
            else:
                self.quarantine.load(held.number, row, ids, value, int(self.tenants["learned_core_ms"][row]))


def _cursor(value: bytes, partition: int) -> Cursor:
    try:
        return msgspec.json.decode(value, type=Cursor)
    except UNDECODABLE as error:
        raise RowError(f"cursor of partition {partition} cannot be read: {error}. {REBUILD}", CURSOR_KEY) from error
