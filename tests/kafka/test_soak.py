"""The soak's machinery in seconds; `make soak` runs it for as long as asked, and judges memory too."""

import json
import re
from pathlib import Path

import pytest
from confluent_kafka import Producer

from sample.records import LIVE
from tests.drills.soak.__main__ import finish, keep_samples
from tests.drills.soak.judge import judge
from tests.drills.soak.plan import Plan
from tests.drills.soak.sessions import patterns
from tests.drills.soak.soak import EVENTS, Broker, Soak

pytestmark = [pytest.mark.kafka, pytest.mark.timeout(2400)]

PLAN = Plan(minutes=0.15, disturbed=((1.0, "promote"), (3.0, "kill")))


def test_a_soak_sees_every_event_through_a_switch_and_a_kill_and_notices_one_that_is_lost(
    kafka: str, sample_release: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # A scorer with a name that stood still for longer would be fenced for good.
    monkeypatch.setenv("TIDEGATE_KAFKA__TRANSACTION_TIMEOUT_MS", "120000")
    done: list[str] = []
    soak = Soak(Broker(kafka), sample_release, tmp_path, PLAN, patterns([LIVE]), 60.0, seed=2, say=done.append)
    soak.run(lambda _: None)
    figures, faults = judge(soak)
    # In seconds nothing has warmed up, and what ends early has no last day.
    assert [fault for fault in faults if "memory" not in fault and "looked at" not in fault] == []
    assert done == ["promote", "kill"] == [what for _, what in soak.marks]
    assert figures["events_scored"] == figures["checked_scores"] == soak.sent - soak.poison > 100
    assert figures["checked_dead_letters"] == soak.poison > 0
    assert {"ingest", "score-a", "score-b"} <= soak.samples[-1].processes.keys()
    assert max(sample.state_bytes for sample in soak.samples) > 0
    assert figures["latency_p50_ms_median"] > 0

    keep_samples(soak)
    finish(soak, figures, faults)
    summary = json.loads((tmp_path / "summary.json").read_text())
    assert summary["events_scored"] == figures["events_scored"]
    assert summary["state_topic_mb_end"] is None
    assert len((tmp_path / "samples.jsonl").read_text().splitlines()) == len(soak.samples)
    page = (tmp_path / "report.html").read_text()
    assert (tmp_path / "soak.png").read_bytes().startswith(b"\x89PNG")
    assert not re.search(r"(src|href)=['\"]?https?:", page)

    producer = Producer({"bootstrap.servers": kafka})
    headers: dict[str, str | bytes | None] = {"tg-source": f"{soak.raw}/0/{soak.sent + 9}"}
    producer.produce(soak.prefix + EVENTS, b'{"event_id": "nobody scores this"}', partition=0, headers=headers)
    assert producer.flush(10) == 0
    assert "1 events have no score" in judge(soak)[1]
