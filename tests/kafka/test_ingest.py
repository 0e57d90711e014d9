"""`tidegate ingest` as a process, on a real broker."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from typing import Any

import pytest
from confluent_kafka import Producer

from stream.steps.route import partition_of
from tests.kafka.harness import EVENTS, PARTITIONS, ROOT, Cluster, headers_of

pytestmark = pytest.mark.kafka


@pytest.fixture
def cluster(kafka: str, topic_prefix: str) -> Cluster:
    made = Cluster(kafka, topic_prefix)
    made.create(EVENTS)
    made.create("raw")
    return made


def ingest(cluster: Cluster, *arguments: str, source: str = "raw") -> tuple[int, str]:
    """Exit code and stderr of an ingest that stops at the end."""
    command = [sys.executable, "-m", "tidegate.cli", "ingest", "--source-topic", f"{cluster.prefix}{source}"]
    command += ["--bootstrap-servers", cluster.servers, "--topic-prefix", cluster.prefix, "--group-id", cluster.group]
    environment = {"PATH": "/usr/bin:/bin", "TIDEGATE_TOPICS__PARTITIONS": str(PARTITIONS)}
    done = subprocess.run(
        [*command, "--until-end", *arguments],
        cwd=ROOT,
        env=environment,
        capture_output=True,
        text=True,
        timeout=240,
        check=False,
    )
    return done.returncode, done.stderr


def call(number: int, tenant: str = "team-1", content: str = "hello") -> dict[str, Any]:
    """A LiteLLM record."""
    return {
        "id": f"chatcmpl-{number % 3}",
        "litellm_call_id": f"call-{number}",
        "call_type": "acompletion",
        "status": "success",
        "startTime": 1_788_220_800.0 + number,
        "endTime": 1_788_220_801.0 + number,
        "model": "m",
        "messages": [{"role": "user", "content": content}],
        "response": {"choices": [{"message": {"role": "assistant", "content": "hi"}, "finish_reason": "stop"}]},
        "metadata": {"user_api_key_team_id": tenant},
    }


def send(
    cluster: Cluster, values: list[bytes | str], headers: list[tuple[str, str | bytes | None]] | None = None
) -> None:
    producer = Producer(
        {"bootstrap.servers": cluster.servers, "enable.idempotence": True, "message.max.bytes": 9_000_000}
    )
    for number, value in enumerate(values):
        producer.produce(f"{cluster.prefix}raw", value, f"k{number}", number % PARTITIONS, headers=headers)
    assert producer.flush(180) == 0


TRACE = b"00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"


def test_every_record_becomes_one_event_on_its_tenants_partition_with_the_ingest_time(cluster: Cluster) -> None:
    before_ms = int(time.time() * 1000)
    send(cluster, [json.dumps(call(i, f"team-{i % 5}")) for i in range(60)], [("traceparent", TRACE)])
    code, errors = ingest(cluster)
    assert code == 0, errors
    events = cluster.read(EVENTS)
    bodies = [json.loads(event.value() or b"") for event in events]
    assert len({body["event_id"] for body in bodies}) == len(bodies) == 60
    for event, body in zip(events, bodies, strict=True):
        assert event.partition() == partition_of(body["tenant"], None, PARTITIONS)
        assert event.key() == json.dumps([body["tenant"]]).encode()
        assert before_ms <= event.timestamp()[1] <= time.time() * 1000
        headers = headers_of(event)
        assert headers["tg-schema"] == b"events.v1"
        assert headers["tg-event-id"].decode() == body["event_id"]
        source = body["source"]
        assert headers["tg-source"].decode() == f"{source['topic']}/{source['partition']}/{source['offset']}"
        assert headers["traceparent"] == TRACE
    assert cluster.committed("raw") == cluster.ends("raw")


def test_a_later_run_takes_only_what_is_new(cluster: Cluster) -> None:
    send(cluster, [json.dumps(call(i)) for i in range(10)])
    assert ingest(cluster)[0] == 0
    send(cluster, [json.dumps(call(i)) for i in range(10, 15)])
    assert ingest(cluster)[0] == 0
    assert len(cluster.read(EVENTS)) == 15


def test_what_cannot_be_read_becomes_a_dead_letter_and_the_stream_goes_on(cluster: Cluster) -> None:
    bad: list[bytes | str] = [b"\xff\xfe", "[" * 500, '{"neither": "format"}', json.dumps(call(1))]
    send(cluster, bad, [("mine", b"kept")])
    assert ingest(cluster)[0] == 0
    assert len(cluster.read(EVENTS)) == 1
    letters = cluster.read("raw.dlq")
    reasons = {letter.key(): headers_of(letter)["tg-reason"] for letter in letters}
    assert reasons == {b"k0": b"undecodable", b"k1": b"too_deep", b"k2": b"unknown_format"}
    assert {letter.key(): letter.value() for letter in letters}[b"k2"] == b'{"neither": "format"}'
    assert all(headers_of(letter)["mine"] == b"kept" for letter in letters)


def test_an_oversized_record_is_passed_on_whole_since_dead_letters_may_be_larger(cluster: Cluster) -> None:
    cluster.create("big", max_message_bytes="8900000")
    producer = Producer({"bootstrap.servers": cluster.servers, "message.max.bytes": 9_000_000})
    record = json.dumps(call(1, content="x" * 8_500_000))
    producer.produce(f"{cluster.prefix}big", record, "k", 0)
    assert producer.flush(180) == 0
    assert ingest(cluster, source="big")[0] == 0
    (letter,) = cluster.read("big.dlq")
    assert headers_of(letter)["tg-reason"] == b"oversized"
    assert letter.value() == record.encode()


def test_a_record_too_large_even_for_the_dead_letter_topic_leaves_a_reference(cluster: Cluster) -> None:
    cluster.create("raw.dlq", max_message_bytes="20000")
    send(cluster, ['{"neither": "' + "x" * 50_000 + '"}'])
    assert ingest(cluster)[0] == 0
    (letter,) = cluster.read("raw.dlq")
    reference = json.loads(letter.value() or b"")
    assert (reference["topic"], reference["offset"]) == (f"{cluster.prefix}raw", 0)
    assert reference["bytes"] > 50_000


def test_a_missing_source_is_exit_3_with_a_remedy(cluster: Cluster) -> None:
    code, errors = ingest(cluster, source="nothing")
    assert code == 3
    assert f"topic {cluster.prefix}nothing does not exist" in errors
    assert "tidegate topics create" in errors


def test_an_unreachable_broker_is_exit_3(cluster: Cluster) -> None:
    nowhere = Cluster(cluster.servers, cluster.prefix)
    nowhere.servers = "127.0.0.1:1"
    code, errors = ingest(nowhere)
    assert code == 3
    assert "no broker answers" in errors
    assert "Traceback" not in errors
