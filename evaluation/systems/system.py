"""What every judged system is: learn benign events, then judge others."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol, runtime_checkable

import numpy as np
from numpy.typing import NDArray

from evaluation.events import Events
from schemas.corpus import CorpusSession

ALONE = 300
"""Events that are judged once more, each by itself, as how long one takes is told by them."""


@dataclass(frozen=True, slots=True)
class Judged:
    """Sessions (s) of the events that were judged, in their order."""

    score: NDArray[np.float64]
    """(s,) higher is stranger, unsaturated, on one scale over tenants."""
    p: NDArray[np.float64]
    """(s,) the share of benign sessions that the system expects to be as strange; flagged at or below the nominal."""
    first_turn: NDArray[np.int64]
    """(s,) number of the first event, from 0, at or beyond the operating point; -1 where there is none."""
    signal: Sequence[str]
    """(s,) what said so at the strangest event; empty where a system has no parts."""
    seconds: float
    """What judging took, without the making of the events."""
    shown: Sequence[str] = ()
    """(s,) the text that a finding of the strangest event would show first; empty for systems that show none."""
    alone_ms: Sequence[float] = ()
    """What some of the events took, each judged by itself (`ALONE` of them, or all where there are fewer)."""


class System(Protocol):
    """One system; `fit` before `judge`, anew for every trial."""

    name: str

    def fit(self, learn: Events, seed: int, attacks: Sequence[CorpusSession] = ()) -> None:
        """Learn, and calibrate on sessions of it that were held out from learning, by task."""

    def judge(self, events: Events) -> Judged:
        """Judge each session as if it were the first after those that were learned."""


@runtime_checkable
class Follows(Protocol):
    """A system that learns as it goes: `follow` in place of `judge` where events come in time."""

    def follow(self, events: Events) -> Judged:
        """Judge each event in turn, and learn from it as in service."""


def evenly(count: int, most: int) -> NDArray[np.int64]:
    """Places of at most `most` of `count`, evenly spread.

    >>> evenly(10, 4).tolist(), evenly(3, 4).tolist()
    ([0, 2, 5, 7], [0, 1, 2])
    """
    chosen = min(count, most)
    return np.arange(chosen) * count // max(chosen, 1)
