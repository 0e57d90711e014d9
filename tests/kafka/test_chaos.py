"""The short form of the chaos drill; `make chaos` runs the long one."""

from pathlib import Path

import pytest

from tests.drills.chaos.drill import drill

pytestmark = [pytest.mark.kafka, pytest.mark.timeout(2400)]

SEED = 5


@pytest.mark.parametrize(
    ("protocol", "acts"),
    [
        ("classic", ["kill", "join", "transaction-coordinator", "kill", "cut", "zombie", "kill"]),
        ("consumer", ["kill", "join", "slow-disk", "leave", "kill"]),
    ],
)
def test_whatever_dies_nothing_is_lost_and_nothing_comes_twice(
    sample_release: Path, tmp_path: Path, protocol: str, acts: list[str]
) -> None:
    done: list[str] = []
    outcome = drill(sample_release, tmp_path, protocol, acts, 4_000, SEED, lambda act, *_: done.append(act.act))
    assert outcome.faults == []
    assert done == acts
    figures = outcome.figures()
    assert figures["ingest_raw"] == figures["ingest_events"] == figures["score_scores"] > 4_000
    assert figures["ingest_dead_letters"] == figures["ingest_poison"] > 0
    assert figures["score_findings"] > 0
