"""What a soak's memory is compared with."""

import pytest

from tests.drills.soak.judge import memory
from tests.drills.soak.plan import DAYS, Plan
from tests.drills.soak.sample import ProcessSample, Sample

PLAN = Plan(minutes=8.0)


def samples(*megabytes_a_day: float) -> list[Sample]:
    """Ten a day; the ninth of every day is a burst's, three times as high."""
    return [
        _sample(PLAN.day_s * (day + tenth / 10), megabytes * (3.0 if tenth == 8 else 1.0))
        for day, megabytes in enumerate(megabytes_a_day)
        for tenth in range(10)
    ]


def _sample(after_s: float, megabytes: float) -> Sample:
    process = ProcessSample(int(megabytes * 1e6), 20, 40)
    return Sample(after_s, dict.fromkeys(("ingest", "score-a", "score-b"), process), 0, 0, 0.0, 0.0, 0, 0.0)


def test_what_grows_during_the_warm_up_is_no_growth() -> None:
    figures, faults = memory(samples(100, 200, 300, 301, 302, 303, 304, 305), PLAN)
    assert faults == []
    assert figures["memory_growth_max"] == pytest.approx(305 / 300 - 1)


def test_a_process_that_grows_by_more_than_five_percent_afterwards_is_named() -> None:
    told = samples(100, 200, 300, 305, 310, 315, 320, 325)
    for sample in told:
        sample.processes["ingest"] = ProcessSample(90_000_000, 20, 40)
    figures, faults = memory(told, PLAN)
    assert [fault.split()[0] for fault in faults] == ["score-a", "score-b"]
    assert "8.3% more memory" in faults[0]
    assert figures["ingest_memory_growth"] == 0.0


def test_a_soak_that_was_cut_short_does_not_pass() -> None:
    _, faults = memory(samples(*[100.0] * (DAYS - 1)), PLAN)
    assert len(faults) == 3
    assert "not looked at" in faults[0]
