"""Brokers that come and go one by one; acknowledged records stay."""

import pytest
from confluent_kafka import Consumer, Producer, TopicPartition
from confluent_kafka.admin import AdminClient, NewTopic

from deploy.kafka.cluster import LocalCluster

pytestmark = [pytest.mark.kafka, pytest.mark.timeout(180)]


def test_what_is_acknowledged_outlives_any_one_broker() -> None:
    with LocalCluster() as cluster:
        clients = {"bootstrap.servers": cluster.bootstrap_servers, "log_level": 0}
        admin = AdminClient(clients)
        admin.create_topics([NewTopic("held", 3, -1)])["held"].result(20)
        producer = Producer({**clients, "acks": "all"})
        for number in (1, 2, 3):
            producer.produce("held", f"before {number}", partition=number - 1)
        assert producer.flush(20) == 0
        cluster.kill(2)
        assert cluster.running == [1, 3]
        for number in (1, 2, 3):
            producer.produce("held", f"without {number}", partition=number - 1)
        assert producer.flush(60) == 0
        cluster.start(2)
        assert cluster.running == [1, 2, 3]
        consumer = Consumer({**clients, "group.id": "reader"})
        consumer.assign([TopicPartition("held", partition, 0) for partition in range(3)])
        values = sorted(message.value() or b"" for message in consumer.consume(6, 30))
        consumer.close()
        assert values == sorted(f"{when} {number}".encode() for when in ("before", "without") for number in (1, 2, 3))


def test_a_detour_is_one_port_a_broker() -> None:
    with pytest.raises(ValueError, match="one for each of 3 brokers; got 2"):
        LocalCluster(far_ports=[1, 2])
