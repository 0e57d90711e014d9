"""The secured broker lets nobody in who does not say who it is, and nobody do what was not granted."""

from __future__ import annotations

import ssl
import stat
from pathlib import Path

import pytest
from confluent_kafka import KafkaException
from confluent_kafka.admin import AdminClient, NewTopic  # type: ignore[attr-defined]

from deploy.kafka.certificates import make
from deploy.kafka.secured import ADMIN, PLAIN, SCRAM, SecuredKafka, write_passwords
from stream.config import KafkaSettings, Settings
from stream.errors import EnvironmentFault
from stream.runtime.kafka_client import connect_admin

kafka = pytest.mark.kafka


def connected(broker: SecuredKafka, properties: dict[str, str]) -> AdminClient:
    settings = Settings(kafka=KafkaSettings(bootstrap_servers=broker.bootstrap_servers, properties=properties))
    return connect_admin(settings, "test")[0]


@kafka
@pytest.mark.parametrize("mechanism", [SCRAM, PLAIN])
def test_who_has_the_password_is_let_in_and_may_do_nothing(secured_kafka: SecuredKafka, mechanism: str) -> None:
    admin = connected(secured_kafka, secured_kafka.client("tidegate-nobody", mechanism))
    assert admin.list_topics(timeout=120).topics == {}
    (made,) = admin.create_topics([NewTopic("mine", 1, 1)]).values()
    with pytest.raises(KafkaException, match="TOPIC_AUTHORIZATION_FAILED"):
        made.result(120)


@kafka
@pytest.mark.parametrize("mechanism", [SCRAM, PLAIN])
def test_a_wrong_password_is_told_as_such(secured_kafka: SecuredKafka, mechanism: str) -> None:
    properties = {**secured_kafka.client(ADMIN, mechanism), "sasl.password": "guessed"}
    with pytest.raises(EnvironmentFault, match="the broker refuses the credentials"):
        connected(secured_kafka, properties)


@kafka
def test_a_broker_that_nobody_vouches_for_is_not_talked_to(secured_kafka: SecuredKafka, tmp_path: Path) -> None:
    others = make(tmp_path, "password")
    properties = {**secured_kafka.client(ADMIN), "ssl.ca.location": str(others.authority)}
    with pytest.raises(EnvironmentFault, match=r"or the connection's security: .*certificate verify failed"):
        connected(secured_kafka, properties)


@kafka
def test_mechanisms_beyond_those_tested_here_reach_librdkafka_as_they_are(secured_kafka: SecuredKafka) -> None:
    properties = {
        **secured_kafka.open_client(ADMIN, "OAUTHBEARER"),
        "enable.sasl.oauthbearer.unsecure.jwt": "true",
        "sasl.oauthbearer.config": "principal=somebody",
    }
    with pytest.raises(EnvironmentFault, match="OAUTHBEARER mechanism"):
        connected(secured_kafka, properties)


def test_certificates_are_of_one_authority_and_keys_are_for_their_owner_alone(tmp_path: Path) -> None:
    made = make(tmp_path / "tls", "opened")
    context = ssl.create_default_context(cafile=str(made.authority))
    context.load_cert_chain(made.client, made.client_key, "opened")
    context.load_cert_chain(made.broker)
    with pytest.raises(ssl.SSLError):
        context.load_cert_chain(made.client, made.client_key, "guessed")
    modes = {stat.S_IMODE(path.stat().st_mode) for path in (made.broker, made.client_key)}
    assert modes == {0o600}


@kafka
def test_passwords_lie_in_files_of_their_own_for_their_owner_alone(secured_kafka: SecuredKafka, tmp_path: Path) -> None:
    files = write_passwords(secured_kafka, tmp_path / "passwords")
    assert files[ADMIN].read_text() == secured_kafka.passwords[ADMIN] + "\n"
    assert {stat.S_IMODE(path.stat().st_mode) for path in files.values()} == {0o600}
    assert stat.S_IMODE((tmp_path / "passwords").stat().st_mode) == 0o700
    assert len(set(secured_kafka.passwords.values())) == len(secured_kafka.passwords)
