import logging
import socket
from collections.abc import Iterator

import pytest
from confluent_kafka import KafkaError, KafkaException

from deploy.kafka.local import LocalKafka
from stream.config import KafkaSettings, Settings
from stream.errors import EnvironmentFault, FencedError, UsageError
from stream.runtime import kafka_client
from stream.runtime.kafka_client import client_config, connect_admin, explain_kafka_error

SASL = {
    "listener.security.protocol.map": "CONTROLLER:PLAINTEXT,PLAINTEXT:SASL_PLAINTEXT",
    "sasl.enabled.mechanisms": "PLAIN",
    "sasl.mechanism.inter.broker.protocol": "PLAIN",
    "listener.name.plaintext.plain.sasl.jaas.config": (
        "org.apache.kafka.common.security.plain.PlainLoginModule required "
        'username="admin" password="right" user_admin="right";'
    ),
}


def client(servers: str, **properties: str) -> Settings:
    return Settings(kafka=KafkaSettings(servers, properties={k.replace("_", "."): v for k, v in properties.items()}))


def test_a_client_has_address_name_passthrough_and_our_log() -> None:
    config = client_config(client("b:1", security_protocol="SASL_SSL"), "score")
    assert config["bootstrap.servers"] == "b:1"
    assert config["client.id"] == "tidegate-score"
    assert config["security.protocol"] == "SASL_SSL"
    assert isinstance(config["logger"], logging.Logger)
    assert client_config(client("b:1", client_id="mine"), "score")["client.id"] == "mine"


@pytest.fixture
def free_port() -> Iterator[int]:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        yield taken.getsockname()[1]  # bound, but nobody listens


def test_an_unreachable_broker_is_one_sentence(free_port: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(kafka_client, "CONNECT_SECONDS", 1.0)
    with pytest.raises(EnvironmentFault) as caught:
        connect_admin(client(f"127.0.0.1:{free_port}"), "test")
    said = str(caught.value)
    assert said.startswith(f"kafka.bootstrap_servers 127.0.0.1:{free_port}: no broker answers: ")
    assert said.endswith("Start Kafka, or name a running one with --bootstrap-servers or KAFKA_BOOTSTRAP_SERVERS.")


@pytest.mark.parametrize(
    ("properties", "said"),
    [
        ({"no_such": "x"}, 'No such configuration property: "no.such"'),
        ({"ssl_ca_location": "/none"}, "ssl.ca.location"),
    ],
)
def test_a_property_that_librdkafka_does_not_take_is_a_matter_of_configuration(
    properties: dict[str, str], said: str
) -> None:
    with pytest.raises(UsageError) as caught:
        connect_admin(client("127.0.0.1:1", security_protocol="SSL", **properties), "test")
    assert "kafka.properties must hold what librdkafka knows; got: " in str(caught.value)
    assert said in str(caught.value)


def test_a_fenced_producer_is_told_to_restart() -> None:
    error = explain_kafka_error(KafkaException(KafkaError(KafkaError._FENCED)), Settings())
    assert isinstance(error, FencedError)


@pytest.mark.kafka
def test_wrong_credentials_are_one_sentence_and_right_ones_work(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(kafka_client, "CONNECT_SECONDS", 5.0)
    sasl = {"security_protocol": "SASL_PLAINTEXT", "sasl_mechanism": "PLAIN", "sasl_username": "admin"}
    with LocalKafka(SASL) as kafka:
        connect_admin(client(kafka.bootstrap_servers, sasl_password="right", **sasl), "test")
        with pytest.raises(EnvironmentFault) as caught:
            connect_admin(client(kafka.bootstrap_servers, sasl_password="wrong", **sasl), "test")
    said = str(caught.value)
    assert "the broker refuses the credentials" in said
    assert "Check security.protocol, sasl.* and ssl.* under [kafka.properties]." in said
    assert "wrong" not in said.replace("wrong credentials", "")


@pytest.mark.kafka
def test_the_broker_tells_its_topics(kafka: str, topic_prefix: str) -> None:
    admin, partitions = connect_admin(client(kafka), "test")
    assert topic_prefix not in partitions
    assert admin.list_topics(timeout=120).brokers
