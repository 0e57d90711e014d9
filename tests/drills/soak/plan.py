"""When what happens in a soak: days of equal length, two to warm up, one to measure, the last one to compare."""

from __future__ import annotations

from dataclasses import dataclass

DAYS = 8
WARM_DAYS = 2
"""A quarter: sessions, findings, duplicates and caches have reached their bounds by then."""
DISTURBANCES = (
    (0.55, "outage"),
    (1.3, "join"),
    (1.7, "leave"),
    (3.2, "promote"),
    (3.6, "join"),
    (4.4, "leave"),
    (4.8, "kill"),
    (5.5, "rollback"),
)
"""Day, counted from 0, and what is done. The warm-up has a backlog, with batches as large as they get, and a rebalance,
for which a scorer takes room once; what comes between the two days that are compared must not add to it."""


@dataclass(frozen=True, slots=True)
class Plan:
    """A soak's length, laid out in days.

    Parameters
    ----------
    minutes
        Of the traffic, by the clock.
    disturbed
        Day, counted from 0, and what is done.
    """

    minutes: float
    disturbed: tuple[tuple[float, str], ...] = DISTURBANCES

    @property
    def seconds(self) -> float:
        """Of the traffic, by the clock."""
        return self.minutes * 60

    @property
    def day_s(self) -> float:
        """Seconds by the clock that a day takes."""
        return self.seconds / DAYS

    @property
    def speed(self) -> float:
        """How many times faster than the clock events' time is."""
        return 86_400 / self.day_s

    def day_of(self, after_s: float) -> int:
        """Number of the day, from 0, so many seconds by the clock after the first record.

        >>> plan = Plan(minutes=20)
        >>> plan.day_s, plan.speed, plan.day_of(299.0), plan.day_of(301.0)
        (150.0, 576.0, 1, 2)
        """
        return int(after_s // self.day_s)

    def disturbances(self) -> list[tuple[float, str]]:
        """Seconds after the first record, and what is done then."""
        return [(day * self.day_s, what) for day, what in self.disturbed]
