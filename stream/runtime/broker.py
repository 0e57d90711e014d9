"""First contact with the broker: is it there, does it let us in, are the topics as they must be."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from confluent_kafka import KafkaError, KafkaException
from confluent_kafka.admin import (  # type: ignore[attr-defined]
    AdminClient,
    ConfigResource,
    NewTopic,
    ResourceType,
)

from stream.config import Settings
from stream.errors import EnvironmentFault
from stream.runtime.restore import ends_of
from stream.sources.kafka import Place

_CONNECT_SECONDS = 10.0
_DLQ_EXTRA_BYTES = 64 * 1024
_DLQ_RETENTION_MS = 3 * 86_400_000


def common_properties(settings: Settings) -> dict[str, object]:
    """Properties of every client: where the broker is, and `[kafka.properties]`, which hold TLS and SASL."""
    return {"bootstrap.servers": settings.kafka.bootstrap_servers, **settings.kafka.properties}


class Broker:
    """The cluster, as a service asks about it before it starts.

    Raises
    ------
    EnvironmentFault
        When it cannot be reached, or refuses the credentials.
    """

    def __init__(self, settings: Settings) -> None:
        self._servers = settings.kafka.bootstrap_servers
        self._errors: list[KafkaError] = []
        properties: dict[str, Any] = {**common_properties(settings), "error_cb": self._errors.append}
        self.admin = AdminClient(properties)
        try:
            metadata = self.admin.list_topics(timeout=_CONNECT_SECONDS)
        except KafkaException as error:
            raise self._unreachable(error.args[0]) from error
        self._limits: dict[str, int] = {}
        self._partitions = {name: len(topic.partitions) for name, topic in metadata.topics.items()}

    def _unreachable(self, error: KafkaError) -> EnvironmentFault:
        for seen in self._errors:
            if seen.code() in (KafkaError._AUTHENTICATION, KafkaError._SSL):
                return EnvironmentFault(
                    f"kafka.bootstrap_servers {self._servers}: the broker refuses the credentials: {seen.str()}. "
                    "Check the security.protocol, sasl.* and ssl.* settings under [kafka.properties]."
                )
        return EnvironmentFault(
            f"kafka.bootstrap_servers {self._servers}: no broker answers: {error.str()}. "
            "Start Kafka, or set --bootstrap-servers or KAFKA_BOOTSTRAP_SERVERS."
        )

    def partitions(self, topic: str) -> int:
        """Partitions of a topic that must be there.

        Raises
        ------
        EnvironmentFault
            When it is not.
        """
        count = self._partitions.get(topic)
        if count is None:
            raise EnvironmentFault(f"topic {topic} does not exist. Create it with `tidegate topics create`.")
        return count

    def require(self, topics: Sequence[str], partitions: int) -> None:
        """Topics that must be there with `topics.partitions` partitions.

        Raises
        ------
        EnvironmentFault
            When one is not.
        """
        for topic in topics:
            count = self.partitions(topic)
            if count != partitions:
                raise EnvironmentFault(
                    f"topic {topic} has {count} partitions, topics.partitions is {partitions}. "
                    "Set topics.partitions to the broker's number, or move the topic with `tidegate topics migrate`."
                )

    def ends(self, places: Sequence[Place]) -> Mapping[Place, int]:
        """Ends of partitions, open transactions included."""
        return ends_of(self.admin, places)

    def message_bytes_max(self, topic: str) -> int:
        """`max.message.bytes` of a topic."""
        if topic in self._limits:
            return self._limits[topic]
        resource = ConfigResource(ResourceType.TOPIC, topic)
        try:
            config = self.admin.describe_configs([resource])[resource].result(_CONNECT_SECONDS)
        except KafkaException as error:
            raise EnvironmentFault(
                f"the configuration of topic {topic} cannot be read: {error.args[0].str()}. "
                "Grant DescribeConfigs, as `tidegate topics acls` lists."
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
            self.admin.create_topics([new])[topic].result(_CONNECT_SECONDS)
        except KafkaException as error:
            if error.args[0].code() != KafkaError.TOPIC_ALREADY_EXISTS:
                raise EnvironmentFault(
                    f"topic {topic} does not exist and cannot be created: {error.args[0].str()}. "
                    "Create it with `tidegate topics create`, or grant Create on it."
                ) from error
        # The broker may need a moment before it knows the topic when asked.
        self._partitions[topic], self._limits[topic] = count, limit
