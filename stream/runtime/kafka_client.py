"""Properties that every Kafka client starts from, and a broker's refusal as a sentence."""

from __future__ import annotations

import logging
import time
from concurrent.futures import Future
from typing import Any, TypeVar

from confluent_kafka import KafkaError, KafkaException
from confluent_kafka.admin import AdminClient

from stream.config import Settings
from stream.errors import EnvironmentFault, TidegateError, UsageError
from stream.kafka_faults import exit_of
from stream.runtime.logs import LIBRDKAFKA

CONNECT_SECONDS = 10.0
"""Longest wait for a first answer from the broker."""
_TURN_SECONDS = 1.0
T = TypeVar("T")
# What goes wrong at first contact is told by one sentence, not by a line for every attempt.
_SILENT = logging.getLogger(f"{LIBRDKAFKA}.first_contact")
_SILENT.disabled = True
_UNREACHABLE = (
    KafkaError._TRANSPORT,
    KafkaError._ALL_BROKERS_DOWN,
    KafkaError._RESOLVE,
    KafkaError._TIMED_OUT,
)
_REFUSED = (KafkaError._AUTHENTICATION, KafkaError._SSL, KafkaError.SASL_AUTHENTICATION_FAILED)


def client_config(settings: Settings, role: str) -> dict[str, Any]:
    """Properties of one client: where the broker is, and `[kafka.properties]`, which hold TLS and SASL.

    Parameters
    ----------
    role
        What the client does, such as `score`: its `client.id` in the broker's logs and quotas is `tidegate-<role>`.
    """
    return {
        "client.id": f"tidegate-{role}",
        # A connection that a firewall forgot is found dead by the kernel, not by a time-out in a transaction.
        "socket.keepalive.enable": True,
        **settings.kafka.properties,
        "bootstrap.servers": settings.kafka.bootstrap_servers,
        # librdkafka writes to stderr by itself otherwise, between the lines of --log-format json.
        "logger": logging.getLogger(LIBRDKAFKA),
    }


def answer(future: Future[T]) -> T:
    """What an admin call has brought.

    Raises
    ------
    KafkaException
        When the broker refuses, or has not answered within `CONNECT_SECONDS`: the client goes on waiting for a
        controller that is gone.
    """
    try:
        return future.result(CONNECT_SECONDS)
    except TimeoutError as error:
        said = f"no answer within {CONNECT_SECONDS:g} s"
        raise KafkaException(KafkaError(KafkaError._TIMED_OUT, said)) from error


def explain_kafka_error(
    error: KafkaException, settings: Settings, seen: list[KafkaError] | None = None
) -> TidegateError:
    """What to tell a user about `error`, with the remedy and the exit code.

    Parameters
    ----------
    seen
        What the client's `error_cb` heard: a refused password shows there, while the call itself just times out.
    """
    first = error.args[0]
    servers = f"kafka.bootstrap_servers {settings.kafka.bootstrap_servers}"
    for heard in [*(seen or ()), first]:
        if heard.code() in _REFUSED:
            return EnvironmentFault(
                f"{servers}: the broker refuses the credentials, or the connection's security: {heard.str()}. "
                "Check security.protocol, sasl.* and ssl.* under [kafka.properties]."
            )
    if first.code() == KafkaError._INVALID_ARG:
        return UsageError(
            f"kafka.properties must hold what librdkafka knows; got: {first.str()}. "
            "Correct it in tidegate.toml or TIDEGATE_KAFKA__PROPERTIES__*."
        )
    if first.code() in _UNREACHABLE:
        return EnvironmentFault(
            f"{servers}: no broker answers: {first.str()}. "
            "Start Kafka, or name a running one with --bootstrap-servers or KAFKA_BOOTSTRAP_SERVERS."
        )
    return exit_of(first, servers)


def connect_admin(settings: Settings, role: str) -> tuple[AdminClient, dict[str, int]]:
    """An admin client that has reached the broker, and what topics there are: name -> partitions.

    Raises
    ------
    EnvironmentFault
        When no broker answers, or it refuses the credentials.
    UsageError
        When `[kafka.properties]` holds what librdkafka does not know.
    """
    seen: list[KafkaError] = []
    try:
        properties: dict[str, Any] = {**client_config(settings, role), "error_cb": seen.append, "logger": _SILENT}
        admin = AdminClient(properties)
    except KafkaException as error:
        raise explain_kafka_error(error, settings) from error
    deadline = time.monotonic() + CONNECT_SECONDS
    while True:
        try:
            metadata = admin.list_topics(timeout=min(_TURN_SECONDS, CONNECT_SECONDS))
        except KafkaException as error:
            admin.poll(0)  # error_cb is called from here only
            # librdkafka goes on trying with credentials that were refused, until the time is up.
            if time.monotonic() > deadline or any(heard.code() in _REFUSED for heard in seen):
                raise explain_kafka_error(error, settings, seen) from error
        else:
            return admin, {name: len(topic.partitions) for name, topic in metadata.topics.items()}
