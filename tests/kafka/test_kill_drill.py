"""The short form of the kill drill; `make chaos` runs the long one."""

from pathlib import Path

import pytest

from sample.records import TRAIN
from tests.drills.kill_drill import Drill
from tidegate.demo.process import environment, run

pytestmark = [pytest.mark.kafka, pytest.mark.timeout(600)]

SEED = 5


@pytest.fixture(scope="module")
def release(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("release")
    train = ["train", "--input", str(TRAIN), "--format", "corpus", "--seed", "7", "--out", str(out / "release")]
    run(train, environment(), out / "train.log")
    return out / "release"


def test_killed_services_lose_nothing_and_double_nothing(kafka: str, release: Path, tmp_path: Path) -> None:
    drill = Drill(kafka, release, tmp_path, SEED)
    ingest, score = drill.run(events=4_000, kills=4)
    assert ingest.faults == []
    assert score.faults == []
    assert ingest.figures["events"] == score.figures["scores"] == 4_000
    assert score.figures["findings"] > 0


def test_the_checker_sees_offsets_that_were_committed_before_their_outputs(
    kafka: str, release: Path, tmp_path: Path
) -> None:
    drill = Drill(kafka, release, tmp_path, SEED, modules={"ingest": "tests.drills.broken"}, victims=("ingest",))
    ingest, _ = drill.run(events=4_000, kills=4)
    assert any("events are lost" in fault for fault in ingest.faults)
