"""A gateway's days: rush hours and quiet nights, bursts, new sessions and tenants all the time, bad records."""

from __future__ import annotations

import heapq
import itertools
import math
import random
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from tests.drills.soak.sessions import Pattern
from tests.drills.traffic import POISON

DAY_S = 86_400.0
_ATTACKS = 0.03
"""Of the sessions."""
_NEWCOMERS = 0.1
"""Sessions of tenants that came in the last two days."""
_TENANTS_A_DAY = 6
_TENANT_DAYS = 2.0
_DUPLICATES, _LATEST_DUPLICATE_S = 0.01, 3_600.0
_POISON = 0.005
_BURSTS = ((10.5, 0.25, 3.0), (15.0, 0.1, 5.0), (22.0, 0.25, 4.0))
"""Hour, length in hours, and how many times as much."""


def rhythm(hour: float) -> float:
    """How much comes at an hour of the day, beside the day's mean without bursts.

    >>> rhythm(3) < 0.4 < 1.5 < rhythm(11), rhythm(10.6) > 4
    (True, True)
    """
    # The lowest at three in the morning; a second, smaller wave makes noon a little quieter than what is around it.
    level = 1.0 - 0.75 * math.cos((hour - 3.0) / 24.0 * math.tau) + 0.15 * math.cos((hour - 10.0) / 12.0 * math.tau)
    for begin, length, factor in _BURSTS:
        if begin <= hour % 24.0 < begin + length:
            level *= factor
    return level


@dataclass(frozen=True, slots=True)
class Record:
    """What to send, and when."""

    at_s: float
    """Event time since the beginning, seconds."""
    value: bytes
    event_id: str | None
    """None: poison."""
    tenant: str | None
    """A newcomer's; None: one of the sample's."""


class Load:
    """Records of a number of days, the same for the same seed.

    Parameters
    ----------
    known
        What sessions are made of.
    events_a_day
        How many, about.
    begin_s
        Epoch seconds of the first event.
    """

    def __init__(self, known: Sequence[Pattern], events_a_day: float, begin_s: float, seed: int) -> None:
        self._benign = [pattern for pattern in known if not pattern.attack]
        self._attacks = [pattern for pattern in known if pattern.attack]
        calls = sum(len(pattern.calls) for pattern in self._benign) / len(self._benign)
        day = sum(rhythm(minute / 60) for minute in range(1_440)) / 1_440
        self._sessions_a_second = events_a_day / calls / DAY_S / day
        self._begin_s = begin_s
        self._chance = random.Random(seed)

    def records(self, days: float) -> Iterator[Record]:
        """In the order of `at_s`; the last sessions are cut off at the end."""
        waiting: list[tuple[float, int, Record]] = []
        order = itertools.count()
        for number, begin_s in enumerate(self._beginnings(days * DAY_S)):
            while waiting and waiting[0][0] <= begin_s:
                yield heapq.heappop(waiting)[2]
            for record in self._session(number, begin_s):
                heapq.heappush(waiting, (record.at_s, next(order), record))
        while waiting and waiting[0][0] <= days * DAY_S:
            yield heapq.heappop(waiting)[2]

    def _session(self, number: int, begin_s: float) -> Iterator[Record]:
        chance = self._chance
        pattern = chance.choice(self._attacks if chance.random() < _ATTACKS else self._benign)
        tenant = None
        if chance.random() < _NEWCOMERS:
            born = chance.uniform(begin_s / DAY_S - _TENANT_DAYS, begin_s / DAY_S)
            tenant = f"newcomer {math.floor(born * _TENANTS_A_DAY)}"
        for sent in pattern.session(number, self._begin_s + begin_s, tenant):
            at_s = sent.time_s - self._begin_s
            yield Record(at_s, sent.value, sent.event_id, tenant)
            if chance.random() < _DUPLICATES:
                yield Record(at_s + chance.uniform(0, _LATEST_DUPLICATE_S), sent.value, sent.event_id, tenant)
            if chance.random() < _POISON:
                yield Record(at_s, chance.choice(POISON), None, None)

    def _beginnings(self, end_s: float) -> Iterator[float]:
        """When sessions begin: a Poisson process with the day's rhythm, by thinning."""
        highest = max(rhythm(minute / 60) for minute in range(1_440)) * 1.01
        at_s = 0.0
        while True:
            at_s += self._chance.expovariate(self._sessions_a_second * highest)
            if at_s > end_s:
                return
            if self._chance.random() * highest < rhythm(at_s / 3_600 % 24):
                yield at_s
