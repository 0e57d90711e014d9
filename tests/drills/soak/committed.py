"""Records as a `read_committed` consumer has them, each the moment it comes."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Mapping

from confluent_kafka import OFFSET_BEGINNING, Consumer, Message, TopicPartition


class Committed(threading.Thread):
    """Reads topics from their beginnings and hands on every record, until told to stop.

    Parameters
    ----------
    topics
        Topic -> partitions.
    seen
        Called with a record and the epoch seconds at which it came.
    """

    def __init__(
        self, bootstrap_servers: str, topics: Mapping[str, int], seen: Callable[[Message, float], None]
    ) -> None:
        super().__init__(name="committed", daemon=True)
        self._consumer = Consumer(
            {
                "bootstrap.servers": bootstrap_servers,
                "group.id": "unused",
                "isolation.level": "read_committed",
                "enable.auto.commit": False,
            }
        )
        places = [TopicPartition(topic, n, OFFSET_BEGINNING) for topic, count in topics.items() for n in range(count)]
        self._consumer.assign(places)
        self._seen = seen
        self._stopping = threading.Event()

    def run(self) -> None:
        """Read until stopped."""
        while not self._stopping.is_set():
            # One by one: `consume` waits for as many as it is asked for.
            message = self._consumer.poll(0.1)
            if message is not None and message.error() is None:
                self._seen(message, time.time())
        self._consumer.close()

    def stop(self) -> None:
        """Stop reading, and wait for it."""
        self._stopping.set()
        self.join()
