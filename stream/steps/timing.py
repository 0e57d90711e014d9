"""Partitions' time: what is late, what was seen before, which sessions quiet has closed and before which event."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from stream.batch import EventBatch
from stream.config import Settings
from stream.inputs import Outcome
from stream.record import StateChange
from stream.state.partition import Partition
from stream.state.schema import KINDS, NEVER_MS
from stream.state.store import State
from stream.state.table import SessionKey
from stream.steps.score import Closing
from stream.steps.sessions import Runs


@dataclass(slots=True)
class Timed:
    """A batch (n) with its partitions' time."""

    batch: EventBatch
    core_time_ms: NDArray[np.int64]
    late: NDArray[np.bool_]
    live: NDArray[np.int64]
    """Events that are no duplicates."""
    of_partition: dict[int, NDArray[np.int64]]
    """Partition -> its events, in order."""

    def fired_by(self, partition: int, due_ms: int) -> int:
        """The event before which a timer of this due time fires; past the last one when none passes it here."""
        mine = self.of_partition[partition]
        at = int(np.searchsorted(self.core_time_ms[mine], due_ms))
        return int(mine[at]) if at < len(mine) else int(mine[-1]) + 1


def timed(batch: EventBatch, state: State, settings: Settings, outcome: Outcome) -> Timed:
    """Move each partition's time on by a batch, and tell late events and duplicates."""
    n = len(batch)
    core = np.empty(n, np.int64)
    late = np.zeros(n, bool)
    duplicate = np.zeros(n, bool)
    of_partition: dict[int, NDArray[np.int64]] = {}
    for number in np.unique(batch.partition).tolist():
        held = state.held(number)
        mine = np.flatnonzero(batch.partition == number)
        of_partition[number] = mine
        times = batch.event_time_ms[mine]
        core[mine] = np.maximum(np.maximum.accumulate(times), held.core_time_ms)
        late[mine] = times < core[mine] - settings.core.lateness_ms
        held.core_time_ms = int(core[mine[-1]])
        ids = [bytes.fromhex(batch.heads[i].event_id[:32]) for i in mine.tolist()]
        contents = [bytes.fromhex(batch.heads[i].source.raw_sha256[:32]) for i in mine.tolist()]
        times_list = core[mine].tolist()
        duplicate[mine], conflicting = held.dedup.check(ids, contents, times_list)
        rows = held.dedup.commit(ids, contents, times_list)
        outcome.changes += [StateChange(number, key, value) for key, value in rows]
        outcome.counts["conflicting_ids"] = outcome.counts.get("conflicting_ids", 0) + sum(conflicting)
    return Timed(batch, core, late, np.flatnonzero(~duplicate), of_partition)


def quiet_sessions(
    state: State, held: Partition, core_time_ms: int, quiet_ms: int, touched: set[SessionKey]
) -> list[tuple[int, SessionKey, int]]:
    """Open sessions without an event in this batch that quiet has closed: (due, key, row), by due, then key."""
    looked_at = [key for key in held.due_sessions(core_time_ms) if key in state.sessions]
    rows = state.sessions.find(looked_at).tolist()
    out = []
    for key, row in zip(looked_at, rows, strict=True):
        due = int(state.sessions["last_core_ms"][row]) + quiet_ms
        if due > core_time_ms or key in touched:
            held.watch(max(due, core_time_ms + 1), key)
        else:
            out.append((due, key, row))
    return sorted(out)


def closing(timed: Timed, runs: Runs, state: State, quiet_ms: int) -> Closing:
    """Sessions that close within the batch, each with the event before which it does."""
    touched = set(runs.keys)
    closed: list[tuple[int, SessionKey, int, int]] = []
    for number in timed.of_partition:
        held = state.partitions[number]
        for due, key, row in quiet_sessions(state, held, held.core_time_ms, quiet_ms, touched):
            closed.append((due, key, -1, row))
    for due, row in zip(runs.replaced_ms.tolist(), runs.replaced.tolist(), strict=True):
        closed.append((due, state.sessions.key(row), -1, row))
    ended = np.flatnonzero(runs.ended_ms != NEVER_MS).tolist()
    closed += [(int(runs.ended_ms[run]), runs.keys[run], run, -1) for run in ended]
    closed.sort(key=lambda item: item[:3])
    row_of = np.array([row for *_, row in closed], np.int64)
    maxima = np.full((len(closed), len(KINDS)), np.nan)
    maxima[row_of >= 0] = state.session_maxima(row_of[row_of >= 0])
    state.sessions.remove([key for _, key, run, _ in closed if run < 0 and key not in touched])
    before = [int(np.searchsorted(timed.live, timed.fired_by(key[0], due))) for due, key, _, _ in closed]
    return Closing(
        state.tenants.find([key[:2] for _, key, _, _ in closed]),
        np.array(before, np.int64),
        np.array([run for _, _, run, _ in closed], np.int64),
        maxima,
    )
