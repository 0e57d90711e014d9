"""The short form of the feedback drill; `python -m tests.drills.feedback_drill` runs the long one."""

import json
from pathlib import Path

import pytest

from tests.drills.feedback_drill import FeedbackDrill, check
from tests.drills.feedback_traffic import LABELS, send, uid_of

pytestmark = [pytest.mark.kafka, pytest.mark.timeout(1200)]

SEED = 5
_SAME = ("verdict_id", "verdict_time", "teaches", "disputed", "title", "revision", "tenant", "p", "events_told")
_ANY = {**dict.fromkeys(_SAME, 0), "events": [], "segments": []}


def test_a_killed_worker_loses_no_label_and_writes_none_that_the_inputs_do_not_give(kafka: str, tmp_path: Path) -> None:
    drill = FeedbackDrill(kafka, tmp_path, SEED)
    verdict = drill.run(findings=300, kills=4)
    assert verdict.faults == []
    assert verdict.figures["labels"] == verdict.figures["expected"] > 150
    # The checker sees a label that no input gives.
    key = json.dumps([uid_of(1), "nobody"]).encode()
    send(kafka, drill.prefix, [(LABELS, 0, key, _ANY)], partitions=2)
    assert any("came from nowhere" in fault for fault in check(kafka, drill.prefix).faults)
