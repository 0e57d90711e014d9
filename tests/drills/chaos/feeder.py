"""The gateway of a drill: sends evenly, and loses nothing however often the brokers fall."""

import threading
import time
import zlib
from collections.abc import Iterable

import orjson
from confluent_kafka import KafkaError, Message, Producer

from stream.sinks.kafka import HeaderList
from tests.drills.chaos.pipeline import RAW_PARTITIONS
from tests.drills.checker import POISON_HEADER

_STEP = 50


class Feeder(threading.Thread):
    """Sends values in the background; a session's records go to one partition of the raw topic.

    Parameters
    ----------
    values
        Each with True where it is poison.
    per_second
        How many are sent.

    Attributes
    ----------
    sent
        Records given to the producer so far.
    failed
        Records that no broker took; a drill with one is void.
    """

    def __init__(
        self, bootstrap_servers: str, topic: str, values: Iterable[tuple[bytes, bool]], per_second: float
    ) -> None:
        super().__init__(name="feeder", daemon=True)
        self._topic, self._values, self._per_second = topic, values, per_second
        self._producer = Producer(
            {
                "bootstrap.servers": bootstrap_servers,
                "enable.idempotence": True,
                "linger.ms": 5,
                "compression.type": "lz4",
                # A broker may be away for as long as it takes to come back.
                "message.timeout.ms": 600_000,
                "queue.buffering.max.kbytes": 65_536,
                "log_level": 0,
            }
        )
        self.sent = self.failed = 0

    def run(self) -> None:
        """Send all of it."""
        begun = time.monotonic()
        for value, poison in self._values:
            self._send(value, poison)
            if self.sent % _STEP == 0:
                self._producer.poll(0)
                time.sleep(max(0.0, begun + self.sent / self._per_second - time.monotonic()))
        self.failed += self._producer.flush(600.0)

    def _send(self, value: bytes, poison: bool) -> None:
        headers: HeaderList = [(POISON_HEADER, b"1")] if poison else []
        while True:
            try:
                self._producer.produce(
                    self._topic, value, partition=_partition(value, poison), headers=headers, on_delivery=self._told
                )
            except BufferError:
                self._producer.poll(0.1)
            else:
                self.sent += 1
                return

    def _told(self, error: KafkaError | None, message: Message) -> None:
        self.failed += error is not None


def _partition(value: bytes, poison: bool) -> int:
    name = value if poison else str(orjson.loads(value).get("session_id") or "").encode()
    return zlib.crc32(name) % RAW_PARTITIONS
