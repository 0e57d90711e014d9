"""Findings and scores as they are committed."""

import threading
from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import Any

import orjson
from confluent_kafka import OFFSET_BEGINNING, Consumer, KafkaError, TopicPartition

from stream.runtime.acls import READER_GROUP

_CONSUME_MAX = 500


class Watch(threading.Thread):
    """Reads a topic from its beginning, committed records only, and hands them on until told to stop.

    Parameters
    ----------
    bootstrap_servers, topic, partitions
        What to read.
    seen
        Called with every value.
    properties
        librdkafka's, of who reads.
    """

    def __init__(
        self,
        bootstrap_servers: str,
        topic: str,
        partitions: int,
        seen: Callable[[dict[str, Any]], None],
        properties: Mapping[str, str] = MappingProxyType({}),
    ) -> None:
        super().__init__(name=f"watch {topic}", daemon=True)
        self._consumer = Consumer(
            {
                **properties,
                "bootstrap.servers": bootstrap_servers,
                # No member of it, but a client without one cannot be made; readers are allowed to ask about this one.
                "group.id": READER_GROUP,
                "isolation.level": "read_committed",
                "enable.auto.commit": False,
            }
        )
        self._consumer.assign([TopicPartition(topic, number, OFFSET_BEGINNING) for number in range(partitions)])
        self._seen = seen
        self._stop_reading = threading.Event()
        self.error: KafkaError | None = None

    def run(self) -> None:
        """Read until stopped."""
        while not self._stop_reading.is_set():
            for message in self._consumer.consume(_CONSUME_MAX, timeout=0.1):
                error, value = message.error(), message.value()
                if error is not None:
                    self.error = error
                elif value is not None:
                    self._seen(orjson.loads(value))
        self._consumer.close()

    def stop(self) -> None:
        """Stop reading, and wait for it."""
        self._stop_reading.set()
        self.join()
