"""The operating point of a detector is measured on sessions that it has not learned from."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from numpy.typing import NDArray

from evaluation.events import Events, events_of
from evaluation.features import FeatureReader, Features
from evaluation.systems.calibrated import Calibrated, with_reading_ms
from evaluation.systems.system import ALONE
from schemas.corpus import CorpusSession, Turn
from stream.config import Settings
from stream.steps.content import USER
from tests.doubles import WordEmbedder

START_MS = 1_795_000_000_000


class Memory:
    """Scores 0 what it has learned, and else how long it is."""

    def fit(self, learn: Features, seed: int) -> None:
        self.known = set(learn.chars[:, USER].tolist())

    def score(self, events: Features) -> NDArray[np.float64]:
        said = events.chars[:, USER]
        return np.where(np.isin(said, list(self.known)), 0, said).astype(np.float64)


def saying(lengths: list[int], *, tasks: int | None = None) -> Events:
    """Sessions of one message each, so many characters long."""
    sessions = [
        CorpusSession(
            session=f"s{i}",
            tenant="team",
            turns=(Turn("user", "x" * length),),
            start_ms=START_MS + 60_000 * i,
            task=None if tasks is None else f"t{i % tasks}",
        )
        for i, length in enumerate(lengths)
    ]
    return events_of(sessions, Settings())


def made(nominal: float = 0.1, *, learns: bool = True) -> Calibrated:
    return Calibrated("memory", Memory, FeatureReader(WordEmbedder()), nominal, learns=learns)


def test_p_is_the_share_of_held_out_sessions_that_are_as_strange() -> None:
    """Conformal: (1 + those at or above) / (1 + all); of 19 sessions of 1 to 19 characters none knows another."""
    system = made()
    system.fit(saying(list(range(1, 20))), 0)
    said = system.judge(saying([30, 119, 1]))
    assert said.score.tolist() == [30, 119, 0]
    assert said.p.tolist() == [1 / 20, 1 / 20, 1]
    assert said.first_turn.tolist() == [0, 0, -1]
    assert said.signal == ["", "", ""]


def test_events_are_judged_by_themselves_too_with_their_share_of_the_reading() -> None:
    system = made()
    system.fit(saying([10, 20]), 0)
    events = saying([30, 119, 1])
    said = system.judge(events)
    assert len(said.alone_ms) == 3
    assert min(said.alone_ms) > 0
    assert len(system.judge(saying([30] * (ALONE + 1))).alone_ms) == ALONE
    # 0.3 s of reading for three events, and 2 ms of scoring.
    read = replace(FeatureReader(WordEmbedder())(events), seconds=0.3)
    assert with_reading_ms([0.002], read) == pytest.approx([102])


def test_sessions_of_one_task_are_held_out_together() -> None:
    """Of a task all sessions say the same: apart, each is known from another, scores 0, and 5 is stranger than all."""
    lengths = [10 + i % 10 for i in range(40)]
    together, apart = made(), made()
    together.fit(saying(lengths, tasks=10), 0)
    apart.fit(saying(lengths), 0)
    assert together.judge(saying([5])).p.tolist() == [1]
    assert apart.judge(saying([5])).p.tolist() == [1 / 41]


def test_what_learns_nothing_is_calibrated_on_all_it_is_shown() -> None:
    system = made(learns=False)
    system.fit(saying(list(range(1, 20))), 0)
    assert system.judge(saying([1000, 3])).p.tolist() == [1 / 20, 1]


def test_few_sessions_flag_nothing() -> None:
    system = made(nominal=0.01)
    system.fit(saying(list(range(1, 20))), 0)
    assert system.judge(saying([1000])).first_turn.tolist() == [-1]
