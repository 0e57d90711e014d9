"""The drills' checker finds what is wrong, and nothing where nothing is."""

from pathlib import Path

import pytest

from tests.drills.chaos.pipeline import Pipeline
from tests.drills.scenarios import kills_under_load, open_transaction

pytestmark = [pytest.mark.kafka, pytest.mark.timeout(900)]

SEED = 5
SHORT = {
    "TIDEGATE_KAFKA__SESSION_TIMEOUT_MS": "3000",
    # Longer than a take-over, a kill and a restart.
    "TIDEGATE_KAFKA__TRANSACTION_TIMEOUT_MS": "15000",
}


def test_offsets_that_are_committed_before_their_outputs_lose_events(
    kafka: str, sample_release: Path, tmp_path: Path
) -> None:
    pipeline = Pipeline(kafka, sample_release, tmp_path, modules={"ingest": "tests.drills.broken.offsets_first"})
    ingest, _ = kills_under_load(pipeline, "ingest-1", events=2_000, kills=4, seed=SEED)
    assert any("events are lost" in fault for fault in ingest.faults)


def test_state_outside_of_the_transaction_scores_events_with_what_they_taught(
    kafka: str, sample_release: Path, tmp_path: Path
) -> None:
    pipeline = Pipeline(kafka, sample_release, tmp_path, modules={"score": "tests.drills.broken.state_outside"})
    ingest, score = kills_under_load(pipeline, "score-1", events=2_000, kills=4, seed=SEED)
    assert ingest.faults == []
    assert any("scores differ between the live run and its replay" in fault for fault in score.faults)


@pytest.mark.parametrize("module", ["tidegate.cli", "tests.drills.broken.stable_offset"])
def test_a_restore_reads_past_a_transaction_that_is_open(
    kafka: str, sample_release: Path, tmp_path: Path, module: str
) -> None:
    pipeline = Pipeline(kafka, sample_release, tmp_path, settings=SHORT, modules={"score-2": module})
    ingest, score = open_transaction(pipeline, events=1_000, seed=SEED)
    assert ingest.faults == []
    assert pipeline.faults == []
    differ = [fault for fault in score.faults if "scores differ between the live run and its replay" in fault]
    assert bool(differ) == (module != "tidegate.cli"), score.faults
