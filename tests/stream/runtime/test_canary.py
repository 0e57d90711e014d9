"""The canary on a real broker: what it sends, what it takes for an answer, and what it says when none comes."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import threading
import time
from argparse import Namespace
from collections.abc import Iterator
from contextlib import contextmanager
from hashlib import sha256
from pathlib import Path
from random import Random
from threading import Event

import orjson
import pytest
from confluent_kafka import Producer
from prometheus_client import generate_latest

from schemas.finding import FindingView, encode_finding, finding_uid
from stream.config import FindingsSettings, IngestSettings, KafkaSettings, LearningSettings, Settings, TopicsSettings
from stream.errors import CheckFailed, UsageError
from stream.runtime import canary
from stream.runtime.canary import Canary
from stream.runtime.canary_traffic import CanaryTraffic, attack_event, litellm_records, session_name
from stream.runtime.metrics import CanaryMetrics
from tests.kafka.harness import FINDINGS, PARTITIONS, PATIENCE_S, ROOT, Cluster
from tidegate.demo.process import Service, environment, run

SENT_MS = 1_795_000_000_000


def settings_for(cluster: Cluster) -> Settings:
    return Settings(
        kafka=KafkaSettings(bootstrap_servers=cluster.servers),
        topics=TopicsSettings(prefix=cluster.prefix, partitions=PARTITIONS),
        learning=LearningSettings(grace_sessions=2),
    )


@pytest.fixture
def cluster(kafka: str, topic_prefix: str) -> Cluster:
    made = Cluster(kafka, topic_prefix)
    made.create(FINDINGS, "raw")
    return made


@contextmanager
def answering(cluster: Cluster, entity_of_answer: str | None = None, *, names_attack: bool = True) -> Iterator[None]:
    """A scorer as far as the canary can see: every attack on the raw topic gets a finding that names its event."""
    stop = threading.Event()

    def answer() -> None:
        producer, done = Producer({"bootstrap.servers": cluster.servers}), set[str]()
        while not stop.wait(0.1):
            for record in cluster.values("raw"):
                if record["litellm_call_id"] in done or "must first" not in json.dumps(record["messages"]):
                    continue
                done.add(record["litellm_call_id"])
                named = record["litellm_call_id"] if names_attack else "another"
                session = entity_of_answer or record["session_id"] or record["trace_id"]
                producer.produce(cluster.prefix + FINDINGS, finding(session, named), partition=1)
                producer.flush(PATIENCE_S)

    thread = threading.Thread(target=answer)
    thread.start()
    try:
        yield
    finally:
        stop.set()
        thread.join()


def finding(session: str, call_id: str) -> bytes:
    event_id = sha256(orjson.dumps(["litellm", call_id])).hexdigest()
    view = FindingView(
        tenant="tidegate-canary",
        entity_type="session",
        entity=session,
        uid=finding_uid("tidegate-canary", "session", session, event_id),
        revision=1,
        activity=1,
        time_ms=SENT_MS,
        created_ms=SENT_MS,
        first_seen_ms=SENT_MS,
        last_seen_ms=SENT_MS,
        count=1,
        severity_id=3,
        confidence_score=50,
        title="t",
        desc="d",
        release="r",
        score=3.0,
        event_ids=(event_id,),
        is_test=True,
    )
    return encode_finding(view)


def test_what_is_sent_is_read_as_the_canarys_tenant_and_only_the_attack_is_called_one() -> None:
    traffic = CanaryTraffic("tidegate-canary", Random(5))
    for session in (traffic.benign(), traffic.attack()):
        records = litellm_records(session, SENT_MS)
        assert [record["startTime"] for record in records] == [SENT_MS / 1000 - 1.5, SENT_MS / 1000]
        assert all(record["metadata"]["user_api_key_team_id"] == "tidegate-canary" for record in records)
        assert all(session_name(session) in (record["session_id"], record["trace_id"]) for record in records)
    assert attack_event(session) == sha256(orjson.dumps(["litellm", records[-1]["litellm_call_id"]])).hexdigest()
    assert records[-1]["messages"][-1]["role"] == "tool"
    assert "must" in records[-1]["messages"][-1]["content"]


def test_the_tenant_stands_where_ingest_looks_for_it() -> None:
    [*_, record] = litellm_records(CanaryTraffic("c", Random(5)).benign(), SENT_MS, "metadata.spend.owner")
    assert record["metadata"]["spend"]["owner"] == "c"


def test_no_two_attacks_are_alike() -> None:
    traffic = CanaryTraffic("c", Random(5))
    texts = [litellm_records(traffic.attack(), SENT_MS)[-1]["messages"][-1]["content"] for _ in range(50)]
    assert len(set(texts)) == 50


@pytest.mark.kafka
def test_a_finding_that_names_the_attack_is_the_answer(cluster: Cluster) -> None:
    metrics, began = CanaryMetrics(), time.monotonic()
    bird = Canary(settings_for(cluster), f"{cluster.prefix}raw", metrics, Event(), timeout_s=PATIENCE_S)
    with answering(cluster):
        found = bird.once()
    bird.close()
    assert found.marked
    assert 0 < found.seconds < PATIENCE_S
    assert re.fullmatch(r"found in [\d.]+ s: finding [0-9a-f]{32}, Medium, ", str(found))
    exported = generate_latest(metrics.registry).decode()
    assert 'tidegate_canary_attacks_total{result="found"} 1.0' in exported
    age = float(re.findall(r"^tidegate_canary_age_seconds (\S+)", exported, re.MULTILINE)[0])
    # It counts from when the finding was seen, not from the beginning.
    assert 0 <= age <= time.monotonic() - began - found.seconds
    # Benign sessions: two of grace, five more, three before the attack; two calls each.
    assert len(cluster.values("raw")) == 2 * (2 + 5 + 3 + 1)


@pytest.mark.kafka
@pytest.mark.parametrize(("entity", "names_attack"), [("another", True), (None, False)])
def test_a_finding_about_something_else_is_no_answer(cluster: Cluster, entity: str | None, names_attack: bool) -> None:
    bird = Canary(settings_for(cluster), f"{cluster.prefix}raw", CanaryMetrics(), Event(), timeout_s=2)
    missing = r"canary sess-\w+: no finding on .* in 2 s"
    with answering(cluster, entity, names_attack=names_attack), pytest.raises(CheckFailed, match=missing):
        bird.once()
    bird.close()


@pytest.mark.kafka
def test_a_service_counts_what_is_missed_and_its_age_grows(cluster: Cluster) -> None:
    metrics, stopping = CanaryMetrics(), Event()
    bird = Canary(settings_for(cluster), f"{cluster.prefix}raw", metrics, stopping, timeout_s=0.5)
    serving = threading.Thread(target=bird.serve, args=(60.0,))
    serving.start()
    until = time.monotonic() + PATIENCE_S
    while b'result="missed"} 1.0' not in (exported := generate_latest(metrics.registry)):
        assert time.monotonic() < until, exported
        time.sleep(0.1)
    stopping.set()
    serving.join(PATIENCE_S)
    bird.close()
    assert float(re.findall(r"^tidegate_canary_age_seconds (\S+)", exported.decode(), re.MULTILINE)[0]) > 0.5


def test_without_a_test_tenant_there_is_no_canary() -> None:
    settings = Settings(findings=FindingsSettings(test_tenant=""), ingest=IngestSettings())
    with pytest.raises(UsageError, match=r"findings\.test_tenant must name the canary's tenant; got ''"):
        canary.run(settings, Namespace(source_topic="raw", once=True, timeout=1.0, interval=1.0))


@pytest.mark.kafka
def test_once_exits_with_4_when_nothing_scores(cluster: Cluster) -> None:
    command = [sys.executable, "-m", "tidegate.cli", "canary", "--source-topic", f"{cluster.prefix}raw", "--once"]
    command += ["--timeout", "1", "--bootstrap-servers", cluster.servers, "--topic-prefix", cluster.prefix]
    environ = {"PATH": os.environ["PATH"], "TIDEGATE_TOPICS__PARTITIONS": str(PARTITIONS)}
    done = subprocess.run(command, cwd=ROOT, env=environ, capture_output=True, text=True, timeout=240, check=False)
    assert done.returncode == 4, done.stderr
    assert "no finding on" in done.stderr
    assert "TidegateCanaryNotFound" in done.stderr


@pytest.mark.kafka
@pytest.mark.timeout(1800)
def test_the_canary_is_found_by_the_services_themselves_and_its_finding_is_marked(
    kafka: str, topic_prefix: str, sample_release: Path, tmp_path: Path
) -> None:
    raw, cluster = f"{topic_prefix}litellm.raw", Cluster(kafka, topic_prefix)
    setting = environment(
        KAFKA_BOOTSTRAP_SERVERS=kafka, TIDEGATE_TOPICS__PREFIX=topic_prefix, TIDEGATE_TOPICS__PARTITIONS="2"
    )
    run(["topics", "create", "--source-topic", raw], setting, tmp_path / "topics.log")
    ingest = ["ingest", "--source-topic", raw, "--format", "litellm", "--group-id", f"{topic_prefix}ingest"]
    score = ["score", "--release", str(sample_release), "--group-id", f"{topic_prefix}score"]
    with (
        Service(ingest, setting, tmp_path / "ingest.log") as ingesting,
        Service(score, setting, tmp_path / "score.log") as scoring,
    ):
        ingesting.ready(240)
        scoring.ready(240)
        run(["canary", "--source-topic", raw, "--once", "--timeout", "180"], setting, tmp_path / "canary.log")
    said = (tmp_path / "canary.log").read_text()
    assert said.startswith("found in ")
    [first, *_] = [f for f in cluster.values(FINDINGS) if f["finding_info"]["uid"] in said]
    assert first["metadata"]["tenant_uid"] == "tidegate-canary"
    assert first["unmapped"]["test"] is True
