"""What a session's user has handed over counts from then on, for that session, however its events are cut."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from numpy.typing import NDArray

from models.delegation import COVERED_MAX
from stream.state.schema import NEVER_MS, session_table
from stream.state.table import SessionKey
from stream.steps.content import Content, segmented
from stream.steps.delegation import covered, store_covered
from stream.steps.sessions import NewContent, find_runs
from tests.stream.steps.test_content import user

Event = tuple[str, int, tuple[float, ...]]
"""Session, core time, and what each message that it brings covers."""
EVENTS: list[Event] = [
    ("a", 0, (0.0,)), ("b", 1, (0.5,)), ("a", 2, (0.0, 1.25, 0.0)), ("a", 3, (0.25,)),
    ("b", 4, ()), ("c", 5, (0.0,)), ("b", 6, (0.0, 2.0)), ("a", 7, (0.0,)),
]  # fmt: skip
QUIET_MS = 1_000


class Sessions:
    """The step with its state, as the core drives it."""

    def __init__(self) -> None:
        self.table = session_table()

    def take(self, events: list[Event], *, known: bool = True) -> list[float]:
        """What is covered where each message stands."""
        keys: list[SessionKey] = [(0, "team", session) for session, _, _ in events]
        core = np.array([time for _, time, _ in events], np.int64)
        runs = find_runs(keys, core, np.full(len(events), core[-1]), self.table, QUIET_MS)
        said = [(i, j, covers) for i, event in enumerate(events) for j, covers in enumerate(event[2])]
        contents: list[Content] = [replace(segmented(user("x")), covers=covers) for _, _, covers in said]
        at, place = (np.array([row[column] for row in said], np.int64) for column in (0, 1))
        new = NewContent(at, place, np.ones(len(at), np.bool_))
        found = covered(runs, new, contents, self.table, known=known)
        for run, key in enumerate(runs.keys):
            if runs.ended_ms[run] != NEVER_MS:
                self.table.remove([key] if key in self.table else [])
                continue
            row = self.table.find([key])
            row = self.table.create([key]) if row[0] < 0 else row
            self.table["last_core_ms"][row] = core[runs.last[run]]
            store_covered(self.table, row, found.code[[run]])
        return [float(value) for value in found.odds]

    def held(self, session: str) -> NDArray[np.int16]:
        """What the session's row holds."""
        held: NDArray[np.int16] = self.table["covered"][self.table.find([(0, "team", session)])]
        return held


def test_the_most_that_a_session_has_handed_over_stays_and_is_nobody_else_s() -> None:
    # By hand: the running maximum of each session's own messages in EVENTS, in the order of the events.
    assert Sessions().take(EVENTS) == [0.0, 0.5, 0.0, 1.25, 1.25, 1.25, 0.0, 0.5, 2.0, 1.25]


@pytest.mark.parametrize("size", range(1, len(EVENTS)))
def test_it_does_not_depend_on_how_events_are_cut(size: int) -> None:
    sessions = Sessions()
    parts = [value for at in range(0, len(EVENTS), size) for value in sessions.take(EVENTS[at : at + size])]
    assert parts == Sessions().take(EVENTS)


def test_a_session_that_has_closed_begins_anew() -> None:
    events: list[Event] = [("a", 0, (2.0,)), ("a", QUIET_MS, (0.0,)), ("a", QUIET_MS + 1, (0.5,))]
    assert Sessions().take(events) == [2.0, 0.0, 0.5]


def test_what_another_release_was_told_counts_for_nothing_where_none_is_told_and_is_not_kept() -> None:
    sessions = Sessions()
    sessions.take([("a", 0, (2.0,))])
    assert sessions.take([("a", 1, (2.0,))], known=False) == [0.0]
    assert sessions.take([("a", 2, (0.0,))]) == [0.0]


def test_no_row_covers_more_than_a_request_may() -> None:
    sessions = Sessions()
    sessions.take([("a", 0, (0.0,))])
    store_covered(sessions.table, sessions.table.find([(0, "team", "a")]), np.array([32_767], np.int16))
    assert sessions.take([("a", 1, (0.0,))]) == [COVERED_MAX]
    assert sessions.take([("a", 2, (90.0,))]) == [COVERED_MAX]
    assert sessions.held("a").tolist() == [COVERED_MAX * 64]
