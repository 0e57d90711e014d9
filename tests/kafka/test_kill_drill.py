"""The short form of the kill drill; `make chaos` runs the long one."""

from pathlib import Path

import pytest

from tests.drills.kill_drill import Drill

pytestmark = [pytest.mark.kafka, pytest.mark.timeout(600)]

SEED = 5


def test_killed_services_lose_nothing_and_double_nothing(kafka: str, sample_release: Path, tmp_path: Path) -> None:
    drill = Drill(kafka, sample_release, tmp_path, SEED)
    ingest, score = drill.run(events=4_000, kills=4)
    assert ingest.faults == []
    assert score.faults == []
    assert ingest.figures["events"] == score.figures["scores"] == 4_000
    assert score.figures["findings"] > 0


def test_the_checker_sees_offsets_that_were_committed_before_their_outputs(
    kafka: str, sample_release: Path, tmp_path: Path
) -> None:
    drill = Drill(kafka, sample_release, tmp_path, SEED, modules={"ingest": "tests.drills.broken"}, victims=("ingest",))
    ingest, _ = drill.run(events=4_000, kills=4)
    assert any("events are lost" in fault for fault in ingest.faults)
