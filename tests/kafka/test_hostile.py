"""Batches that unpack to far more than they weigh, on a real broker."""

from __future__ import annotations

import orjson
import pytest
from confluent_kafka import Producer

from tests.kafka.harness import EVENTS, Cluster
from tests.kafka.test_ingest import call, ingest

pytestmark = pytest.mark.kafka

BOMB = b"0" * (48 << 20)
"""2 KB as zstd writes it: the topic takes it, since a topic's limit is of what is stored."""


@pytest.fixture
def cluster(kafka: str, topic_prefix: str) -> Cluster:
    made = Cluster(kafka, topic_prefix)
    made.create(EVENTS)
    made.create("raw", partitions=1)
    made.create("plain", partitions=1, compression_type="uncompressed")
    return made


def send(cluster: Cluster, topic: str, *values: bytes) -> list[str]:
    """Each in a batch of its own; what the broker refused."""
    refused: list[str] = []
    producer = Producer(
        {"bootstrap.servers": cluster.servers, "compression.type": "zstd", "message.max.bytes": 100_000_000,
         "queue.buffering.max.kbytes": 200_000}
    )  # fmt: skip
    for value in values:
        producer.produce(
            cluster.prefix + topic, value, partition=0,
            on_delivery=lambda error, _: refused.append(error.name()) if error else None,
        )  # fmt: skip
        assert producer.flush(180) == 0
    return refused


def test_a_record_that_unpacks_beyond_the_limit_is_a_dead_letter_and_the_next_one_is_read(cluster: Cluster) -> None:
    assert send(cluster, "raw", orjson.dumps(call(1)), BOMB, orjson.dumps(call(2))) == []
    code, log = ingest(cluster)
    assert code == 0, log
    assert len(cluster.values(EVENTS)) == 2
    (letter,) = cluster.values("raw.dlq")
    assert (letter["bytes"], letter["offset"]) == (len(BOMB), 1)


def test_a_topic_that_stores_what_is_sent_unpacked_does_not_take_it(cluster: Cluster) -> None:
    assert send(cluster, "plain", BOMB, orjson.dumps(call(1))) == ["MSG_SIZE_TOO_LARGE"]
