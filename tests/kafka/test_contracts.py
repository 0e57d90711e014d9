"""The contracts of sources and sinks, on the real broker."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import orjson
import pytest
from confluent_kafka import Producer

from stream.inputs import Outcome
from stream.runtime.changelog import Changelog, JournalTopic
from stream.runtime.scorer import ScoreTopics
from stream.sinks.kafka import DeadLetterTopic, KafkaWriter, OutputTopic
from stream.sources.kafka import TopicSource
from tests.contracts.test_sources_sinks import (
    VALUES,
    Held,
    brings_each_record_once_in_order,
    holds_all_once_in_order,
    stays_exhausted,
)
from tests.kafka.harness import FINDINGS, JOURNAL, SCORES, STATE, Cluster, headers_of

pytestmark = pytest.mark.kafka


@pytest.mark.parametrize("contract", [brings_each_record_once_in_order, stays_exhausted])
def test_a_topic_is_a_source(contract: object, kafka: str, topic_prefix: str, tmp_path: Path) -> None:
    cluster = Cluster(kafka, topic_prefix)
    cluster.create("t", message_timestamp_after_max_ms=str(1 << 60))
    producer = Producer({"bootstrap.servers": kafka, "transactional.id": f"{topic_prefix}t"})
    producer.init_transactions(180)
    for i, value in enumerate(VALUES):
        # A marker behind each record, and here and there one that nobody may see.
        producer.begin_transaction()
        producer.produce(f"{topic_prefix}t", value, partition=1, timestamp=1_788_220_800_000 + i)
        producer.commit_transaction(180)
        if i % 5 == 0:
            producer.begin_transaction()
            producer.produce(f"{topic_prefix}t", b"ghost", partition=1)
            producer.flush(180)
            producer.abort_transaction(180)
    end = cluster.ends("t")[1]

    def make(folder: Path) -> TopicSource:
        return TopicSource({"bootstrap.servers": kafka}, f"{topic_prefix}t", {0: (0, 0), 1: (0, end)})

    assert callable(contract)
    contract(make, tmp_path)


def test_a_range_of_a_topic_is_read_from_its_first_to_before_its_last_offset(kafka: str, topic_prefix: str) -> None:
    cluster = Cluster(kafka, topic_prefix)
    cluster.create("t")
    producer = Producer({"bootstrap.servers": kafka, "enable.idempotence": True})
    for i in range(20):
        producer.produce(f"{topic_prefix}t", str(i), partition=i % 2)
    producer.flush()
    source = TopicSource({"bootstrap.servers": kafka}, f"{topic_prefix}t", {0: (2, 5), 1: (7, 10)})
    records = []
    while not source.exhausted:
        records += source.poll(3)
    source.close()
    values = {partition: [r.value for r in records if r.partition == partition] for partition in (0, 1)}
    assert values == {0: [b"4", b"6", b"8"], 1: [b"15", b"17", b"19"]}


def test_output_topics_are_a_sink(kafka: str, topic_prefix: str, tmp_path: Path) -> None:
    made = 0

    def write(folder: Path, outcomes: Sequence[Outcome]) -> Held:
        nonlocal made
        made += 1
        cluster = Cluster(kafka, f"{topic_prefix}{made}.")
        cluster.create(SCORES, FINDINGS, STATE, JOURNAL, "dlq")
        name = cluster.prefix.__add__
        topics = ScoreTopics(
            OutputTopic(name(SCORES), "scores.v1", "r"),
            OutputTopic(name(FINDINGS), "findings.v1", "r"),
            DeadLetterTopic(name("dlq"), 2, 1_000_000, "raw", connector="tidegate.score", step="stream.core.Core"),
            Changelog(name(STATE)),
            JournalTopic(name(JOURNAL)),
        )
        writer = KafkaWriter({"bootstrap.servers": kafka}, 10)
        for outcome in outcomes:
            topics.write_outputs(writer, outcome)
        assert writer.producer.flush(180) == 0
        assert writer.failures == []
        letters = []
        for message in cluster.read("dlq"):
            headers = headers_of(message)
            letters.append((int(headers["__connect.errors.offset"]), headers["tg-reason"].decode()))
        scores, findings = ([m.value() or b"" for m in cluster.read(topic)] for topic in (SCORES, FINDINGS))
        assert all(orjson.loads(value) for value in scores)
        return scores, findings, letters

    holds_all_once_in_order(write, tmp_path)
