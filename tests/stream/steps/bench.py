"""The least of a core that drives the steps of one signal: partitions' time, sessions, waves, learn points."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from models.drift import Drift
from models.volume import SUB_FEATURES, Volume
from stream.batch import EventBatch
from stream.record import Record
from stream.state.drift import learned_columns, tenant_columns
from stream.state.schema import NEVER_MS
from stream.state.table import Column, Family, SessionKey, Table, TenantKey
from stream.state.volume import LEARNED_COLUMNS, SESSION_COLUMNS, TENANT_COLUMNS
from stream.steps.content import SYSTEM, USER
from stream.steps.decode import decode
from stream.steps.drift import DriftStep, Moved
from stream.steps.learn_points import is_learn_point, waves
from stream.steps.sessions import Runs, find_runs
from stream.steps.volume import VolumeInput, VolumeStep, tool_calls

QUIET_MS = 1_800_000


def tenants_table(*more: Family) -> Table[TenantKey]:
    return Table((Family("tenant", (Column("ordinal", "<i8"),)), *more), capacity=4)


def sessions_table(columns: Sequence[Column] = ()) -> Table[SessionKey]:
    own = (Column("last_core_ms", "<i8"), Column("last_event_ms", "<i8"))
    return Table((Family("session", (*own, *columns)),), capacity=4)


@dataclass
class Placed:
    """A batch with its place in time and state."""

    live: EventBatch
    core_time_ms: NDArray[np.int64]
    runs: Runs
    tenant: NDArray[np.int64]
    ordinal: NDArray[np.int64]
    before: NDArray[np.int64]

    def waves(self) -> list[NDArray[np.int64]]:
        number = waves(self.ordinal, self.before)
        return [np.flatnonzero(number == i) for i in range(int(number.max(initial=-1)) + 1)]


@dataclass
class Bench:
    """Partitions' time and the tables, without any signal."""

    tenants: Table[TenantKey]
    sessions: Table[SessionKey]
    core_time_ms: dict[int, int] = field(default_factory=dict)
    quiet_ms: int = QUIET_MS

    def place(self, records: Sequence[Record]) -> Placed:
        """Events of `records`, of which those that cannot be read are left out."""
        live, _ = decode(records, 300_000)
        core = np.empty(len(live), np.int64)
        for number in np.unique(live.partition).tolist():
            mine = np.flatnonzero(live.partition == number)
            core[mine] = np.maximum(
                np.maximum.accumulate(live.event_time_ms[mine]), self.core_time_ms.get(number, NEVER_MS)
            )
            self.core_time_ms[number] = int(core[mine[-1]])
        end = np.array([self.core_time_ms[p] for p in live.partition.tolist()], np.int64)
        keys = [(p, h.tenant, h.session) for p, h in zip(live.partition.tolist(), live.heads, strict=True)]
        runs = find_runs(keys, core, end, self.sessions, self.quiet_ms)
        names = list(dict.fromkeys(key[:2] for key in keys))
        self.tenants.create([name for name in names if name not in self.tenants])
        tenant = self.tenants.find([key[:2] for key in keys])
        before = self.tenants["ordinal"][tenant].astype(np.int64)
        ordinal = before.copy()
        for row in np.unique(tenant).tolist():
            mine = np.flatnonzero(tenant == row)
            ordinal[mine] += np.arange(1, len(mine) + 1)
        return Placed(live, core, runs, tenant, ordinal, before)

    def keep(self, placed: Placed) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """Write ordinals and sessions; the runs that are still open, and their rows."""
        self.tenants["ordinal"][placed.tenant] = placed.ordinal
        self.tenants.mark("tenant", np.unique(placed.tenant))
        runs, table = placed.runs, self.sessions
        final = {key: i for i, key in enumerate(runs.keys)}
        table.remove([key for key, i in final.items() if runs.ended_ms[i] != NEVER_MS and key in table])
        stay = [(key, i) for key, i in final.items() if runs.ended_ms[i] == NEVER_MS]
        table.create([key for key, _ in stay if key not in table])
        rows = table.find([key for key, _ in stay])
        run = np.array([i for _, i in stay], np.int64)
        table["last_core_ms"][rows] = placed.core_time_ms[runs.last[run]]
        table["last_event_ms"][rows] = placed.live.event_time_ms[runs.last[run]]
        table.mark("session", rows)
        return run, rows


class VolumeBench(Bench):
    """Runs the volume signal alone."""

    def __init__(self, model: Volume, quiet_ms: int = QUIET_MS) -> None:
        super().__init__(
            tenants_table(Family("volume", TENANT_COLUMNS), Family("learned", LEARNED_COLUMNS)),
            sessions_table(SESSION_COLUMNS),
            quiet_ms=quiet_ms,
        )
        self.volume = VolumeStep(model)
        self.rows: dict[int, list[tuple[bytes, bytes | None]]] = {}
        self.given: VolumeInput | None = None

    def step(self, records: Sequence[Record]) -> tuple[NDArray[np.float64], NDArray[np.float32]]:
        """Values (n,) and sub-features (n, J) of the readable ones."""
        placed = self.place(records)
        given = self.volume.observe(
            placed.live,
            placed.runs,
            placed.core_time_ms,
            placed.tenant,
            tool_calls(placed.live),
            self.sessions,
            self.tenants,
        )
        self.given = given
        values = np.zeros(len(placed.live))
        features = np.zeros((len(placed.live), len(SUB_FEATURES)), np.float32)
        learns = is_learn_point(placed.ordinal)
        for here in placed.waves():
            values[here], features[here] = self.volume.score(given, here, np.zeros(len(here), np.bool_), self.tenants)
            due = here[learns[here]]
            if len(due):
                self.volume.learn(given, due, self.tenants)
                self.tenants.mark("learned", placed.tenant[due])
        run, rows = self.keep(placed)
        self.tenants.mark("volume", self.volume.store(given, self.tenants, self.sessions, run, rows))
        for change in [*self.tenants.changes(), *self.sessions.changes()]:
            self.rows.setdefault(change.partition, []).append((change.key, change.value))
        return values, features

    def all(self, records: Sequence[Record], size: int) -> tuple[NDArray[np.float64], NDArray[np.float32]]:
        """The same in batches of `size`."""
        parts = [self.step(records[low : low + size]) for low in range(0, len(records), size)]
        return np.concatenate([value for value, _ in parts]), np.concatenate([features for _, features in parts])


class DriftBench(Bench):
    """Runs the drift signal alone, beside signals whose p-values are those given, or of the event's number of tokens.

    A segment is what a request's last message says, and its system prompt; a vector is what its bytes hash to.
    """

    def __init__(self, signals: Sequence[str] = ("novelty", "volume"), quiet_ms: int = QUIET_MS) -> None:
        k = len(signals)
        super().__init__(
            tenants_table(Family("drift", tenant_columns(k)), Family("learned", learned_columns(k))),
            sessions_table(),
            quiet_ms=quiet_ms,
        )
        self.signals = k
        self.drift = DriftStep(signals)
        self.rows: dict[int, list[tuple[bytes, bytes | None]]] = {}

    @property
    def model(self) -> Drift:
        return self.drift.model

    def step(self, records: Sequence[Record]) -> list[tuple[int, str, Moved]]:
        """What moved: the offset of the event that showed it, its tenant, and what."""
        placed = self.place(records)
        live, learns = placed.live, is_learn_point(placed.ordinal)
        given = self.drift.observe(live, placed.tenant, tool_calls(live), *_segments(live))
        tokens = np.nan_to_num(live.completion_tokens)[:, None]
        p = np.where(tokens % 5 == 0, np.nan, 1 / (1 + tokens % (7 + np.arange(self.signals))))
        out: list[Moved] = []
        for here in placed.waves():
            self.drift.hear(given, here, p[here])
            due = here[learns[here]]
            if len(due):
                out += self.drift.learn(given, due, placed.ordinal, self.tenants)
                self.tenants.mark("learned", placed.tenant[due])
        self.keep(placed)
        self.tenants.mark("drift", self.drift.store(given, self.tenants))
        for change in [*self.tenants.changes(), *self.sessions.changes()]:
            self.rows.setdefault(change.partition, []).append((change.key, change.value))
        return [(int(live.offset[moved.event]), live.heads[moved.event].tenant, moved) for moved in out]

    def all(self, records: Sequence[Record], size: int) -> list[tuple[int, str, Moved]]:
        """The same in batches of `size`."""
        return [moved for low in range(0, len(records), size) for moved in self.step(records[low : low + size])]


def _segments(live: EventBatch) -> tuple[NDArray[np.int64], NDArray[np.int8], NDArray[np.int8]]:
    event: list[int] = []
    role: list[int] = []
    vector: list[NDArray[np.int8]] = []
    for i, head in enumerate(live.heads):
        for message in head.messages:
            if message.role == "system" or message is head.messages[-1]:
                event.append(i)
                role.append(SYSTEM if message.role == "system" else USER)
                seed = int.from_bytes(message.digest.encode()[:8], "big")
                vector.append(np.random.default_rng(seed).integers(-20, 21, 32).astype(np.int8))
    return np.array(event, np.int64), np.array(role, np.int8), np.array(vector, np.int8).reshape(-1, 32)
