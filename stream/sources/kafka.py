"""Kafka as a source: fixed ranges of partitions, for state, journals and topics to replay."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator, Mapping
from typing import Any

from confluent_kafka import Consumer, KafkaError, KafkaException, Message, TopicPartition

from stream.errors import RetriableError
from stream.kafka_faults import check_consumer_error
from stream.record import Record

Place = tuple[str, int]
"""Topic and partition."""

_TURN_SECONDS = 0.05

CONSUMER_PROPERTIES: Mapping[str, object] = {
    "enable.auto.commit": False,
    "enable.partition.eof": True,
    # An offset that is not there is for whoever asked for it to deal with: it may be records that nobody has read.
    "auto.offset.reset": "error",
    "isolation.level": "read_committed",
}
"""What delivery rests on; it wins over `[kafka.properties]`."""

CONSUMER_DEFAULTS: Mapping[str, object] = {
    # EOF is told by the fetch after the last record, which waits this long for more.
    "fetch.wait.max.ms": 100,
    # What is prefetched is the only buffer between the broker and the core.
    "queued.max.messages.kbytes": 16_384,
    "fetch.max.bytes": 16 * 1024 * 1024,
    # The default of one second, met whenever the core is slower than the broker, cost three quarters of the rate.
    "fetch.queue.backoff.ms": 20,
}
"""What `[kafka.properties]` may set otherwise."""


def record_of(message: Any) -> Record:
    """A consumed message as a plain value."""
    # Any: the stubs allow None for what every message without an error has.
    headers = message.headers()
    return Record(
        message.topic(),
        message.partition(),
        message.offset(),
        message.timestamp()[1],
        message.key(),
        message.value(),
        tuple(headers) if headers else (),
    )


def _range_consumer(properties: Mapping[str, object]) -> Consumer:
    return Consumer(
        {
            **CONSUMER_DEFAULTS,
            "fetch.wait.max.ms": 10,
            **properties,
            **CONSUMER_PROPERTIES,
            # A consumer cannot be made without one; nothing is ever committed to it.
            "group.id": "tidegate.range-reader",
        }
    )


class RangeReader:
    """Reads ranges of partitions without a group: state, journals, topics to replay.

    Parameters
    ----------
    properties
        librdkafka's, with bootstrap servers.
    """

    def __init__(self, properties: Mapping[str, object]) -> None:
        self._properties = properties
        self._consumer = _range_consumer(properties)

    def low(self, place: Place, seconds: float = 10.0) -> int:
        """First offset of the partition that is still there.

        Raises
        ------
        RetriableError
            When the broker does not say.
        """
        try:
            low, _ = self._consumer.get_watermark_offsets(TopicPartition(*place), timeout=seconds)
        except KafkaException as error:
            fault: KafkaError = error.args[0]
            check_consumer_error(fault)
            # What the client believes of its broker may be the reason.
            self._consumer.close()
            self._consumer = _range_consumer(self._properties)
            raise RetriableError(f"the first offset of {place[0]}[{place[1]}] cannot be read: {fault.str()}") from error
        return int(low)

    def read(
        self,
        place: Place,
        start: int,
        end: int,
        *,
        batch: int = 2000,
        waiting: Callable[[], None] = lambda: None,
    ) -> Iterator[list[Record]]:
        """Committed records of one partition from offset `start` up to, not with, offset `end`, in batches.

        Ends when everything before `end` has been read, skipped markers and aborted records included: an open
        transaction before `end` is waited for.

        Parameters
        ----------
        waiting
            Called at every turn, at least once a second: to keep a group's membership, or to stop by raising.
        """
        if start >= end:
            return
        self._consumer.assign([TopicPartition(*place, start)])
        try:
            done = False
            while not done:
                messages = self._consumer.consume(batch, _TURN_SECONDS)
                records = []
                for message in messages:
                    error, offset = message.error(), int(message.offset() or 0)
                    if error is None:
                        done = done or offset + 1 >= end
                        if offset < end:
                            records.append(record_of(message))
                    elif error.code() == KafkaError._PARTITION_EOF:
                        done = done or offset >= end
                    else:
                        check_consumer_error(error, f"{place[0]}[{place[1]}] cannot be read")
                if records:
                    yield records
                waiting()
        finally:
            self._consumer.unassign()

    def close(self) -> None:
        """Let go of the connections."""
        self._consumer.close()


class TopicSource:
    """A `Source` of ranges of one topic's partitions: what `replay --topic` reads.

    Parameters
    ----------
    properties
        librdkafka's, with bootstrap servers.
    ranges
        Partition -> first offset, and the offset before which it ends.
    """

    def __init__(self, properties: Mapping[str, object], topic: str, ranges: Mapping[int, tuple[int, int]]) -> None:
        self._topic = topic
        self._ends = {partition: end for partition, (start, end) in ranges.items() if start < end}
        self._backlog: deque[Record] = deque()
        self._consumer = _range_consumer(properties)
        if self._ends:
            self._consumer.assign([TopicPartition(topic, p, ranges[p][0]) for p in sorted(self._ends)])

    def poll(self, max_records: int) -> list[Record]:
        """At most `max_records` that follow; fewer only at the end."""
        while len(self._backlog) < max_records and self._ends:
            # The next fetch is under way while these are scored.
            for message in self._consumer.consume(max(1, max_records - len(self._backlog)), _TURN_SECONDS):
                self._take(message)
        return [self._backlog.popleft() for _ in range(min(max_records, len(self._backlog)))]

    def _take(self, message: Message) -> None:
        error = message.error()
        if error is not None and error.code() != KafkaError._PARTITION_EOF:
            check_consumer_error(error, f"{message.topic()}[{message.partition()}]@{message.offset()} cannot be read")
            return
        partition, offset = int(message.partition() or 0), int(message.offset() or 0)
        end = self._ends.get(partition)
        if end is None:
            return
        if error is None and offset < end:
            self._backlog.append(record_of(message))
        if offset + (error is None) >= end:
            del self._ends[partition]
            self._consumer.incremental_unassign([TopicPartition(self._topic, partition)])

    @property
    def exhausted(self) -> bool:
        """Whether every range has been read to its end."""
        return not self._ends and not self._backlog

    def close(self) -> None:
        """Let go of the connections."""
        self._consumer.close()
