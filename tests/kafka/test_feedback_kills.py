"""The short form of the feedback drill; `python -m tests.drills.feedback_drill` runs the long one."""

from pathlib import Path

import pytest

from tests.drills.feedback_drill import FeedbackDrill

pytestmark = [pytest.mark.kafka, pytest.mark.timeout(400)]

SEED = 5


def test_a_killed_worker_loses_no_label_and_writes_none_that_the_inputs_do_not_give(kafka: str, tmp_path: Path) -> None:
    verdict = FeedbackDrill(kafka, tmp_path, SEED).run(findings=300, kills=4)
    assert verdict.faults == []
    assert verdict.figures["labels"] == verdict.figures["expected"] > 150
