"""First contact with the broker: is it there, does it let us in, are the topics as they must be."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Future
from typing import TypeVar

from confluent_kafka import KafkaError, KafkaException
from confluent_kafka.admin import AdminClient, ConfigResource, NewTopic, ResourceType  # type: ignore[attr-defined]

from stream.config import Settings
from stream.errors import EnvironmentFault, RetriableError
from stream.kafka_faults import Fault, fault_of
from stream.runtime.faults import backoffs
from stream.runtime.kafka_client import answer, client_config, connect_admin
from stream.runtime.own_topics import create_command
from stream.runtime.restore import ends_of
from stream.sources.kafka import Place

T = TypeVar("T")
_ASK_SECONDS = 3.0
_PATIENCE_SECONDS = 30.0
_DLQ_EXTRA_BYTES = 64 * 1024
_DLQ_RETENTION_MS = 3 * 86_400_000


class Broker:
    """The cluster, as a service asks about it before it starts.

    Parameters
    ----------
    role
        What the service does, for the client's name.

    Raises
    ------
    EnvironmentFault
        When it cannot be reached, or refuses the credentials.
    """

    def __init__(self, settings: Settings, role: str) -> None:
        self._settings = settings
        self._role = role
        self.admin, self._partitions = connect_admin(settings, role)
        self._limits: dict[str, int] = {}

    def __contains__(self, topic: str) -> bool:
        return topic in self._partitions

    def partitions(self, topic: str) -> int:
        """Partitions of a topic that must be there.

        Raises
        ------
        EnvironmentFault
            When it is not.
        """
        if topic not in self._partitions:
            raise EnvironmentFault(
                f"topic {topic} does not exist. Create it with 'tidegate topics create --source-topic {topic}', "
                "or correct --source-topic."
            )
        return self._partitions[topic]

    def require(self, topics: Sequence[str], partitions: int, single: Sequence[str] = ()) -> None:
        """Topics that must be there with `topics.partitions` partitions, and those that must have one.

        Raises
        ------
        EnvironmentFault
            When one is not.
        """
        if missing := [topic for topic in (*topics, *single) if topic not in self._partitions]:
            raise EnvironmentFault(
                f"missing topics: {', '.join(missing)}. "
                f"Create them with '{create_command(self._settings.topics, missing)}', "
                "or set topics.prefix (--topic-prefix) to that of topics that exist."
            )
        for topic in topics:
            if self._partitions[topic] != partitions:
                raise EnvironmentFault(
                    f"topic {topic} must have {partitions} partitions (topics.partitions); it has "
                    f"{self._partitions[topic]}. Set topics.partitions to the broker's number, or create the topics "
                    "anew under another topics.prefix: the partition of a tenant follows from it."
                )
        for topic in single:
            if self._partitions[topic] != 1:
                raise EnvironmentFault(
                    f"topic {topic} must have 1 partition, which puts what lies there in order; it has "
                    f"{self._partitions[topic]}. Delete it, and create it with "
                    f"'{create_command(self._settings.topics, [topic])}'."
                )

    def ends(self, places: Sequence[Place]) -> Mapping[Place, int]:
        """Ends of partitions, open transactions included.

        Raises
        ------
        RetriableError
            When the broker does not say; the next call asks through a new client.
        """
        try:
            return ends_of(self.admin, places)
        except RetriableError:
            # librdkafka's ListOffsets sends the leader epoch that the client first learned, and after a broker was away
            # is refused with FENCED_LEADER_EPOCH for ever.
            self.admin = AdminClient(client_config(self._settings, self._role))
            raise

    def _asked(self, question: Callable[[AdminClient], Future[T]]) -> T:
        """What the broker answers, asked again for half a minute where it is one's turn to come back.

        The client waits for the broker that it takes for the controller; metadata tell it of another.

        Raises
        ------
        KafkaException
            When it refuses, or does not answer in that time.
        """
        deadline = time.monotonic() + _PATIENCE_SECONDS
        for wait_seconds in backoffs(0.1, 2.0):
            try:
                return answer(question(self.admin))
            except KafkaException as error:
                if fault_of(error.args[0]) not in (Fault.RETRY, Fault.REPLACE) or time.monotonic() > deadline:
                    raise
                time.sleep(wait_seconds)
                self.admin, _ = connect_admin(self._settings, self._role)
        raise AssertionError("back-off has no end")

    def message_bytes_max(self, topic: str) -> int:
        """`max.message.bytes` of a topic."""
        if topic in self._limits:
            return self._limits[topic]
        resource = ConfigResource(ResourceType.TOPIC, topic)
        try:
            config = self._asked(
                lambda admin: admin.describe_configs([resource], request_timeout=_ASK_SECONDS)[resource]
            )
        except KafkaException as error:
            raise EnvironmentFault(
                f"the configuration of topic {topic} cannot be read: {error.args[0].str()}. "
                "Grant DescribeConfigs: see the table of permissions in docs/runbook.md."
            ) from error
        return int(config["max.message.bytes"].value)

    def ensure_dead_letters(self, topic: str, source: str) -> None:
        """Create a source's dead letter topic if it is not there: as many partitions, records 64 KiB larger."""
        if topic in self._partitions:
            return
        count = self.partitions(source)
        limit = self.message_bytes_max(source) + _DLQ_EXTRA_BYTES
        config = {"max.message.bytes": str(limit), "retention.ms": str(_DLQ_RETENTION_MS)}
        new = NewTopic(topic, count, -1, config=config)
        try:
            self._asked(lambda admin: admin.create_topics([new], request_timeout=_ASK_SECONDS)[topic])
        except KafkaException as error:
            if error.args[0].code() != KafkaError.TOPIC_ALREADY_EXISTS:
                raise EnvironmentFault(
                    f"topic {topic} does not exist and cannot be created: {error.args[0].str()}. "
                    "Create it with 'tidegate topics create', or grant Create on it."
                ) from error
        # The broker may need a moment before it knows the topic when asked.
        self._partitions[topic], self._limits[topic] = count, limit
