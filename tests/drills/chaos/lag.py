"""What still waits on the two input topics, second by second."""

import threading
import time
from collections.abc import Sequence

from confluent_kafka import Consumer, KafkaException, TopicPartition

_EVERY_S = 1.0
_ASK_S = 5.0


class LagWatch(threading.Thread):
    """Asks the cluster once a second how far each group is behind its topic.

    Parameters
    ----------
    watched
        Topic, its partitions, and the group that reads it.

    Attributes
    ----------
    samples
        Seconds since the start, and the lag of each of `watched`; a second in which the cluster did not answer is left
        out.

    Notes
    -----
    By consumers that subscribe to nothing: librdkafka 2.16's admin call for a group's offsets ends the process when its
    coordinator goes away meanwhile (its pull request 5397).
    """

    def __init__(self, bootstrap_servers: str, watched: Sequence[tuple[str, int, str]]) -> None:
        super().__init__(name="lag-watch", daemon=True)
        self._servers, self._watched = bootstrap_servers, watched
        self._asking = self._clients()
        self._ended = threading.Event()
        self.samples: list[tuple[float, list[int]]] = []

    def run(self) -> None:
        """Until `end`."""
        begun = time.monotonic()
        while not self._ended.wait(_EVERY_S):
            try:
                lags = [self._lag(*each) for each in self._watched]
            except KafkaException:
                # A client that only asks does not look again for a leader that has moved.
                self._close()
                self._asking = self._clients()
                continue
            self.samples.append((time.monotonic() - begun, lags))
        self._close()

    @property
    def latest(self) -> list[int]:
        """The last sample's lags."""
        return self.samples[-1][1] if self.samples else [0] * len(self._watched)

    def end(self) -> None:
        """No more samples."""
        self._ended.set()
        self.join(4 * _ASK_S)

    def _clients(self) -> dict[str, Consumer]:
        return {
            group: Consumer({"bootstrap.servers": self._servers, "group.id": group, "log_level": 0})
            for _, _, group in self._watched
        }

    def _close(self) -> None:
        for consumer in self._asking.values():
            consumer.close()

    def _lag(self, topic: str, partitions: int, group: str) -> int:
        consumer = self._asking[group]
        waiting = 0
        for part in consumer.committed([TopicPartition(topic, number) for number in range(partitions)], timeout=_ASK_S):
            _, end = consumer.get_watermark_offsets(part, timeout=_ASK_S)
            waiting += max(0, end - max(part.offset, 0))
        return waiting
