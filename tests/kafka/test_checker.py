"""The drills' checker finds what is wrong, and nothing where nothing is."""

from pathlib import Path

import pytest

from tests.drills.chaos.pipeline import Pipeline
from tests.drills.scenarios import kills_under_load, open_transaction

pytestmark = [pytest.mark.kafka, pytest.mark.timeout(2400)]

SEED = 5


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


# A restore that is right waits for the transaction to time out; for one that is wrong it must stay open, however long a
# take-over, a kill and a restart last.
@pytest.mark.parametrize(
    ("module", "timeout_ms"), [("tidegate.cli", 15_000), ("tests.drills.broken.stable_offset", 300_000)]
)
def test_a_restore_reads_past_a_transaction_that_is_open(
    kafka: str, sample_release: Path, tmp_path: Path, module: str, timeout_ms: int
) -> None:
    settings = {
        "TIDEGATE_KAFKA__SESSION_TIMEOUT_MS": "3000",
        "TIDEGATE_KAFKA__TRANSACTION_TIMEOUT_MS": str(timeout_ms),
    }
    pipeline = Pipeline(kafka, sample_release, tmp_path, settings=settings, modules={"score-2": module})
    ingest, score = open_transaction(pipeline, events=1_000, seed=SEED)
    assert ingest.faults == []
    assert pipeline.faults == []
    differ = [fault for fault in score.faults if "scores differ between the live run and its replay" in fault]
    assert bool(differ) == (module != "tidegate.cli"), score.faults
