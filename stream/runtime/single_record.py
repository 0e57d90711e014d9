"""One record to one partition, waited for: controls, announcements, and whatever else a command says once."""

from __future__ import annotations

from collections.abc import Container
from threading import Event

from confluent_kafka import KafkaError, KafkaException, Message, Producer

from stream.config import Settings
from stream.errors import EnvironmentFault
from stream.runtime.kafka_client import client_config, connect_admin, explain_kafka_error
from stream.runtime.own_topics import create_command
from stream.sinks.kafka import PRODUCER_DEFAULTS, PRODUCER_PROPERTIES

_TIMEOUT_MS = 30_000
_TURN_SECONDS = 0.05


def deliver(
    settings: Settings,
    role: str,
    topic: str,
    value: bytes,
    *,
    key: bytes | None,
    schema: str,
    partition: int = 0,
    topics: Container[str] | None = None,
) -> int:
    """Produce one record, and wait until every replica in sync has it; its offset.

    Parameters
    ----------
    role
        What for, as the broker's logs and quotas are to name it.
    schema
        For `tg-schema`, such as `controls.v1`.
    topics
        Those that are there, such as a `TopicReader`; None: the broker is asked.

    Raises
    ------
    EnvironmentFault
        When no broker answers or it refuses, the topic is missing, or nobody knows whether the record was taken.
    """
    # Not left to the producer: a broker may create a topic that is asked for, with settings that nobody wants.
    topics = connect_admin(settings, role)[1] if topics is None else topics
    if topic not in topics:
        raise EnvironmentFault(
            f"topic {topic} does not exist. Create it with '{create_command(settings.topics, [topic])}', "
            "or set topics.prefix (--topic-prefix) to that of topics that exist."
        )
    answered, faults, offsets = Event(), list[KafkaError](), list[int]()

    def told(error: KafkaError | None, message: Message) -> None:
        if error is not None:
            faults.append(error)
        else:
            offsets.append(int(message.offset() or 0))
        answered.set()

    properties = {
        **PRODUCER_DEFAULTS,
        "linger.ms": 0,
        "message.timeout.ms": _TIMEOUT_MS,
        **client_config(settings, role),
        **PRODUCER_PROPERTIES,
        "delivery.report.only.error": False,
    }
    try:
        producer = Producer(properties)
        headers: list[tuple[str, str | bytes | None]] = [("tg-schema", schema.encode())]
        producer.produce(topic, value, key, partition, on_delivery=told, headers=headers)
        # librdkafka itself gives up after `message.timeout.ms`, and says so to `told`.
        while not answered.is_set():
            producer.poll(_TURN_SECONDS)
    except KafkaException as error:
        raise explain_kafka_error(error, settings) from error
    if faults:
        raise explain_kafka_error(KafkaException(faults[0]), settings)
    return offsets[0]
