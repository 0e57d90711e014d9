"""Since when a session is suspicious, whichever batches its events come in."""

from __future__ import annotations

from random import Random

import numpy as np
import pytest

from stream.state.schema import NEVER_MS, session_table
from stream.state.table import SessionKey, Table
from stream.steps.sessions import Suspicion, find_runs, find_suspicion, running_highest

QUIET_MS = 1_000
Told = tuple[int, int, int]
"""Turn, and turn and event time of the first suspicious one."""


class Sessions:
    """The step with its state, as the core drives it."""

    def __init__(self) -> None:
        self.table: Table[SessionKey] = session_table()

    def take(self, *events: tuple[str, int, bool], late_ms: int = 0) -> list[Told]:
        """What is known of events (session, core time, suspicious), told `late_ms` after they happened."""
        keys: list[SessionKey] = [(0, "team", session) for session, _, _ in events]
        core = np.array([core_ms for _, core_ms, _ in events], np.int64)
        suspicious = np.array([strange for _, _, strange in events], np.bool_)
        runs = find_runs(keys, core, np.full(len(events), core[-1]), self.table, QUIET_MS)
        found = find_suspicion(suspicious, core - late_ms, runs, self.table)
        for run, key in enumerate(runs.keys):
            row = self.table.find([key])
            if row[0] < 0:
                row = self.table.create([key])
            last = runs.last[run]
            self.table["last_core_ms"][row] = core[last]
            self.table["events"][row] = found.turn[last]
            self.table["suspicious_turn"][row] = found.first_turn[last]
            self.table["suspicious_ms"][row] = found.first_ms[last]
            if runs.ended_ms[run] != NEVER_MS:
                self.table.remove([key])
        return _told(found)


def _told(found: Suspicion) -> list[Told]:
    columns = (found.turn.tolist(), found.first_turn.tolist(), found.first_ms.tolist())
    return list(zip(*columns, strict=True))


def test_the_first_suspicious_event_is_named_from_then_on() -> None:
    events = [("s", 1, False), ("s", 2, True), ("s", 3, False), ("s", 4, True)]
    expected = [(1, 0, 0), (2, 2, 2), (3, 2, 2), (4, 2, 2)]
    assert Sessions().take(*events) == expected
    alone = Sessions()
    assert [told for event in events for told in alone.take(event)] == expected


def test_a_session_does_not_make_another_suspicious() -> None:
    assert Sessions().take(("s", 1, True), ("t", 1, False), ("s", 2, False)) == [(1, 1, 1), (1, 0, 0), (2, 1, 1)]


def test_the_time_named_is_that_of_the_event_and_not_of_the_core() -> None:
    assert Sessions().take(("s", 500, True), ("s", 700, False), late_ms=300) == [(1, 1, 200), (2, 1, 200)]


def test_a_session_that_goes_on_after_quiet_is_above_suspicion_again() -> None:
    events = [("s", 1, True), ("s", QUIET_MS, False), ("s", 2 * QUIET_MS, False), ("s", 2 * QUIET_MS + 1, True)]
    expected = [(1, 1, 1), (2, 1, 1), (1, 0, 0), (2, 2, 2 * QUIET_MS + 1)]
    assert Sessions().take(*events) == expected
    alone = Sessions()
    assert [told for event in events for told in alone.take(event)] == expected


@pytest.mark.parametrize("seed", range(20))
def test_what_is_known_does_not_depend_on_how_a_stream_is_cut(seed: int) -> None:
    random = Random(seed)
    core_ms, events = 0, []
    for _ in range(200):
        core_ms += random.choice([0, 1, 50, QUIET_MS // 4])
        events.append((f"s{random.randrange(5)}", core_ms, random.random() < 0.2))
    expected = _one_after_another(events)
    cut = Sessions()
    told: list[Told] = []
    while len(told) < len(events):
        told += cut.take(*events[len(told) : len(told) + random.choice([1, 2, 9, 60])])
    assert told == expected


def _one_after_another(events: list[tuple[str, int, bool]]) -> list[Told]:
    """The same, written as the sentences that define it."""
    held: dict[str, tuple[int, Told]] = {}
    out = []
    for session, core_ms, suspicious in events:
        last_ms, (turn, first, first_ms) = held.get(session, (NEVER_MS, (0, 0, 0)))
        if core_ms - last_ms >= QUIET_MS:
            turn, first, first_ms = 0, 0, 0
        turn += 1
        if suspicious and not first:
            first, first_ms = turn, core_ms
        held[session] = (core_ms, (turn, first, first_ms))
        out.append((turn, first, first_ms))
    return out


def test_running_highest_is_that_of_each_run_one_value_after_another() -> None:
    rng = np.random.default_rng(8)
    run = rng.integers(40, size=500)
    values = np.where(rng.random(500) < 0.4, np.nan, rng.normal(size=500).round(1))
    before = np.where(rng.random(40) < 0.5, np.nan, rng.normal(size=40))
    held, expected = before.copy(), []
    for value, number in zip(values.tolist(), run.tolist(), strict=True):
        held[number] = np.fmax(held[number], value)
        expected.append(held[number])
    assert np.isnan(expected).any()
    assert np.array_equal(running_highest(values, run, before[run]), expected, equal_nan=True)
    assert running_highest(values[:0], run[:0], before[:0]).tolist() == []
