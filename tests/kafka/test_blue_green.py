"""A release of another embedder: a second group, warmed as a shadow by the same events, then the one that reports.

The steps are those of docs/runbook.md, "Another embedder: blue and green".
"""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
from confluent_kafka import Producer

from models.embedder import PACKAGED, StaticEmbedder
from stream.record import Record
from stream.steps.ingest import IngestStep
from stream.steps.route import Router
from tests.drills.checker import read
from tests.drills.traffic import raw_records
from tests.stream.releases import write
from tidegate.demo.process import CommandError, environment, run

pytestmark = [pytest.mark.kafka, pytest.mark.timeout(900)]
EVENTS, SCORES = "genai.gateway.events.v1", "genai.anomaly.scores.v1"
FINDINGS, JOURNAL = "genai.anomaly.findings.v1", "genai.anomaly.journal.v1"
PARTITIONS = 2
BEFORE, AFTER = 400, 200


def other_weights(folder: Path) -> Path:
    """The packaged embedder cut to fewer tokens: another space."""
    shutil.copytree(PACKAGED, folder)
    manifest = json.loads((folder / "manifest.json").read_bytes())
    (folder / "manifest.json").write_text(json.dumps(manifest | {"tokens_max": 128}))
    return folder


def fill(servers: str, topic: str, low: int, high: int) -> None:
    step = IngestStep(Router(PARTITIONS), format="litellm")
    raw = [Record("raw", 0, at, 1_800_000_000_000 + at, None, value) for at, value in enumerate(raw_records(high))]
    producer = Producer({"bootstrap.servers": servers})
    for event in step.step(raw[low:]).events:
        producer.produce(topic, event.value, event.key, event.partition)
    assert producer.flush(180) == 0


def values(servers: str, topic: str) -> list[dict[str, Any]]:
    return [json.loads(message.value() or b"{}") for message in read(servers, topic)]


def test_green_is_warmed_as_a_shadow_and_then_reports_from_where_it_stands(
    kafka: str, topic_prefix: str, tmp_path: Path
) -> None:
    weights = other_weights(tmp_path / "weights")
    write(tmp_path / "blue", StaticEmbedder.load().space_id)
    write(tmp_path / "green", StaticEmbedder.load(weights).space_id)
    settings = environment(
        KAFKA_BOOTSTRAP_SERVERS=kafka,
        TIDEGATE_TOPICS__PREFIX=topic_prefix,
        TIDEGATE_TOPICS__PARTITIONS=str(PARTITIONS),
        # A release that has learned nothing finds something that way.
        TIDEGATE_DECISION__SESSION_FPR="0.5",
        TIDEGATE_LEARNING__GRACE_SESSIONS="0",
    )
    theirs = settings | {"TIDEGATE_EMBEDDER__PATH": str(weights)}
    green = f"{topic_prefix}green."
    run(["topics", "create"], settings, tmp_path / "topics.log")
    run(["topics", "create", "--output-prefix", green], settings, tmp_path / "topics.log")
    serve_blue = ["score", "--release", str(tmp_path / "blue"), "--group-id", f"{topic_prefix}blue", "--until-end"]
    serve_green = ["score", "--release", str(tmp_path / "green"), "--group-id", f"{topic_prefix}green", "--until-end"]
    serve_green += ["--output-prefix", green]

    fill(kafka, topic_prefix + EVENTS, 0, BEFORE)
    run(serve_blue, settings, tmp_path / "blue.log")
    with pytest.raises(CommandError, match="ended with 5"):
        # Where blue's state lies a scorer of another space has no place.
        run([*serve_green[:-2], "--release", str(tmp_path / "green")], theirs, tmp_path / "wrong.log")
    run([*serve_green, "--shadow"], theirs, tmp_path / "shadow.log")
    shadowed = values(kafka, green + SCORES)
    assert len(shadowed) == BEFORE
    assert values(kafka, green + FINDINGS) == []

    fill(kafka, topic_prefix + EVENTS, BEFORE, BEFORE + AFTER)
    run(serve_blue, settings, tmp_path / "blue.log")
    run(serve_green, theirs, tmp_path / "green.log")
    scores = values(kafka, green + SCORES)
    blue = values(kafka, topic_prefix + SCORES)
    assert sorted(score["event_id"] for score in scores) == sorted(score["event_id"] for score in blue)
    assert len({score["event_id"] for score in scores}) == len(scores) == BEFORE + AFTER
    # It goes on counting where the shadow stopped: its tenants are not new to it.
    ordinals: dict[str, list[int]] = {}
    for score in scores:
        ordinals.setdefault(score["tenant"], []).append(score["ordinal"])
    assert all(sorted(own) == list(range(min(own), min(own) + len(own))) for own in ordinals.values())
    # What it opened as a shadow it updates and closes as well; all that begins now begins with a Create.
    opened_before = {score["finding_uid"] for score in shadowed} - {None}
    first: dict[str, str] = {}
    for finding in values(kafka, green + FINDINGS):
        first.setdefault(finding["finding_info"]["uid"], finding["activity_name"])
    assert "Create" in first.values()
    assert {uid for uid, activity in first.items() if activity != "Create"} <= opened_before
    assert {uid for uid, activity in first.items() if activity == "Create"}.isdisjoint(opened_before)
