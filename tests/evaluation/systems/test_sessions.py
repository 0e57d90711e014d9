"""A session is as strange as its strangest event."""

from __future__ import annotations

import numpy as np
import pytest

from evaluation.events import Events
from evaluation.systems.sessions import judged_by_strangest
from schemas.corpus import CorpusSession


def events(session: list[int], turn: list[int], sessions: int) -> Events:
    made = [CorpusSession(session=f"s{i}", turns=()) for i in range(sessions)]
    return Events([], np.array(session, np.int64), np.array(turn, np.int64), made, [])


def test_the_first_of_equally_strange_events_speaks_for_a_session() -> None:
    score, p = np.array([2.0, 2.0, 5.0, 2.0]), np.array([0.2, 0.2, 0.05, 0.2])
    said = judged_by_strangest(events([0, 1, 1, 0], [0, 0, 1, 1], 2), score, p, 0.1, ["a", "b", "c", "d"], 1.5)
    assert said.score.tolist() == [2, 5]
    assert said.signal == ["a", "c"]
    assert said.first_turn.tolist() == [-1, 1]
    assert said.seconds == 1.5


def test_the_first_flagged_event_is_told_though_a_later_one_is_stranger() -> None:
    score, p = np.array([1.0, 7.0, 9.0]), np.array([0.5, 0.01, 0.001])
    assert judged_by_strangest(events([0, 0, 0], [0, 1, 2], 1), score, p, 0.01, [], 0).first_turn.tolist() == [1]


def test_a_session_without_events_is_as_ordinary_as_can_be() -> None:
    said = judged_by_strangest(events([1], [0], 2), np.array([-3.0]), np.array([1.0]), 0.01, [], 0)
    assert said.score.tolist() == [-3, -3]
    assert said.p.tolist() == [1, 1]
    nothing = judged_by_strangest(events([], [], 2), np.zeros(0), np.zeros(0), 0.01, [], 0)
    assert nothing.p.tolist() == [1, 1]
    assert nothing.first_turn.tolist() == [-1, -1]


@pytest.mark.parametrize("order", [[0, 1, 2], [2, 0, 1]])
def test_sessions_may_be_interleaved(order: list[int]) -> None:
    score = np.array([3.0, 1.0, 2.0])
    rows = np.array([0, 1, 0])
    said = judged_by_strangest(events(rows[order].tolist(), [0, 0, 1], 2), score[order], np.ones(3), 0.01, [], 0)
    assert said.score.tolist() == [3, 1]
