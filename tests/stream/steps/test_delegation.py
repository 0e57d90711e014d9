"""What a session's user has handed over counts from then on, for that session, however its events are cut."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from stream.state.schema import NEVER_MS, session_table
from stream.state.table import SessionKey
from stream.steps.content import Content, segmented
from stream.steps.delegation import covered, store_covered
from stream.steps.sessions import NewContent, find_runs
from tests.stream.steps.test_content import user

Event = tuple[str, int, float]
"""Session, core time, and what the message that it brings covers; -1 for an event without one."""
EVENTS: list[Event] = [
    ("a", 0, 0.0), ("b", 1, 0.5), ("a", 2, 1.25), ("a", 3, 0.25),
    ("b", 4, -1), ("c", 5, 0.0), ("b", 6, 2.0), ("a", 7, -1),
]  # fmt: skip
QUIET_MS = 1_000


class Sessions:
    """The step with its state, as the core drives it."""

    def __init__(self) -> None:
        self.table = session_table()

    def take(self, events: list[Event]) -> list[float]:
        keys: list[SessionKey] = [(0, "team", session) for session, _, _ in events]
        core = np.array([time for _, time, _ in events], np.int64)
        runs = find_runs(keys, core, np.full(len(events), core[-1]), self.table, QUIET_MS)
        brings = [i for i, (_, _, covers) in enumerate(events) if covers >= 0]
        contents: list[Content] = [replace(segmented(user("x")), covers=events[i][2]) for i in brings]
        at = np.array(brings, np.int64)
        new = NewContent(at, np.zeros(len(at), np.int64), np.ones(len(at), np.bool_))
        found = covered(runs, new, contents, self.table)
        for run, key in enumerate(runs.keys):
            if runs.ended_ms[run] != NEVER_MS:
                self.table.remove([key] if key in self.table else [])
                continue
            row = self.table.find([key])
            row = self.table.create([key]) if row[0] < 0 else row
            self.table["last_core_ms"][row] = core[runs.last[run]]
            store_covered(self.table, row, found.code[[run]])
        return [float(value) for value in found.odds]


def test_the_most_that_a_session_has_handed_over_stays_and_is_nobody_else_s() -> None:
    # By hand: the running maximum of each session's own column of EVENTS.
    assert Sessions().take(EVENTS) == [0.0, 0.5, 1.25, 1.25, 0.5, 0.0, 2.0, 1.25]


@pytest.mark.parametrize("size", range(1, len(EVENTS)))
def test_it_does_not_depend_on_how_events_are_cut(size: int) -> None:
    sessions = Sessions()
    parts = [value for at in range(0, len(EVENTS), size) for value in sessions.take(EVENTS[at : at + size])]
    assert parts == Sessions().take(EVENTS)


def test_a_session_that_has_closed_begins_anew() -> None:
    sessions = Sessions()
    assert sessions.take([("a", 0, 2.0), ("a", QUIET_MS, -1), ("a", QUIET_MS + 1, 0.5)]) == [2.0, 0.0, 0.5]
