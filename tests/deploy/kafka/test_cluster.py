"""Brokers that come and go one by one; acknowledged records stay."""

import time
from collections.abc import Iterator

import pytest
from confluent_kafka import Consumer, Producer, TopicPartition
from confluent_kafka.admin import AdminClient, NewTopic  # type: ignore[attr-defined]

from deploy.kafka.cluster import LocalCluster
from stream.errors import RetriableError
from stream.runtime.restore import ends_of

pytestmark = [pytest.mark.kafka, pytest.mark.timeout(900)]


@pytest.fixture(scope="module")
def cluster() -> Iterator[LocalCluster]:
    with LocalCluster() as started:
        yield started


def clients(cluster: LocalCluster) -> dict[str, str | int | float | bool]:
    return {"bootstrap.servers": cluster.bootstrap_servers, "log_level": 0}


def filled(cluster: LocalCluster, topic: str) -> Producer:
    """A producer, after one record on each of a new topic's three partitions."""
    admin = AdminClient(clients(cluster))
    admin.create_topics([NewTopic(topic, 3, -1)])[topic].result(180)
    producer = Producer({**clients(cluster), "acks": "all"})
    for partition in range(3):
        producer.produce(topic, f"before {partition}", partition=partition)
    assert producer.flush(180) == 0
    return producer


def test_what_is_acknowledged_outlives_any_one_broker(cluster: LocalCluster) -> None:
    producer = filled(cluster, "held")
    cluster.kill(2)
    assert cluster.running == [1, 3]
    for partition in range(3):
        producer.produce("held", f"without {partition}", partition=partition)
    assert producer.flush(180) == 0
    cluster.start(2, 240)
    assert cluster.running == [1, 2, 3]
    consumer = Consumer({**clients(cluster), "group.id": "reader"})
    consumer.assign([TopicPartition("held", partition, 0) for partition in range(3)])
    values = sorted(message.value() or b"" for message in consumer.consume(6, 180))
    consumer.close()
    assert values == sorted(f"{when} {number}".encode() for when in ("before", "without") for number in range(3))


def test_an_end_that_no_leader_tells_is_asked_for_again_and_never_taken_for_an_empty_partition(
    cluster: LocalCluster,
) -> None:
    filled(cluster, "asked")
    places = [("asked", partition) for partition in range(3)]
    admin = AdminClient(clients(cluster))
    assert ends_of(admin, places, 60.0) == dict.fromkeys(places, 1)
    # One of the three partitions is led by it, and the others take nine seconds to notice.
    cluster.kill(3)
    refusals, deadline = 0, time.monotonic() + 300
    while True:
        try:
            assert ends_of(admin, places, 5.0) == dict.fromkeys(places, 1)
            break
        except RetriableError:
            refusals += 1
            assert time.monotonic() < deadline
            admin = AdminClient(clients(cluster))
    assert refusals > 0


def test_a_detour_is_one_port_a_broker() -> None:
    with pytest.raises(ValueError, match="one for each of 3 brokers; got 2"):
        LocalCluster(far_ports=[1, 2])
