"""Kafka as a sink: a producer that never loses a failure, and what each output looks like as a record."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from threading import Thread

from confluent_kafka import KafkaError, KafkaException, Message, Producer

from schemas import dead_letter
from stream.record import DeadLetter, Headers, OutRecord

PRODUCER_PROPERTIES: Mapping[str, object] = {
    "acks": "all",
    "enable.idempotence": True,
    "delivery.report.only.error": True,
}
"""What delivery rests on; it wins over `[kafka.properties]`."""

PRODUCER_DEFAULTS: Mapping[str, object] = {
    "linger.ms": 5,
    # A transaction that begins before the last one's markers are all written is refused and tried again: librdkafka's
    # 100 ms were most of what a small batch took (confluent-kafka-python issue 967). It doubles with each try.
    "retry.backoff.ms": 2,
    "compression.type": "lz4",
    "queue.buffering.max.messages": 100_000,
    "queue.buffering.max.kbytes": 65_536,
    # A dead letter is as large as its source's topic allows, and 64 KiB more; the broker's own limits decide.
    "message.max.bytes": 64 * 1024 * 1024,
}
"""What `[kafka.properties]` may set otherwise."""
HeaderList = list[tuple[str, str | bytes | None]]
"""As the producer's stubs have it."""
_QUEUE_FULL_SECONDS = 0.1


class KafkaWriter:
    """A producer that waits where its queue is full, and remembers what was not delivered.

    Parameters
    ----------
    properties
        librdkafka's, with bootstrap servers; transactional or not.
    patience_seconds
        Longest wait for room in the producer's queue.
    """

    def __init__(self, properties: Mapping[str, object], patience_seconds: float) -> None:
        self._patience_seconds = patience_seconds
        self.failures: list[tuple[str, int, KafkaError]] = []
        """Topic, partition and error of records that were not delivered since `forget`."""
        self.producer = Producer(
            {**PRODUCER_DEFAULTS, **properties, **PRODUCER_PROPERTIES, "on_delivery": self._failed}
        )

    def _failed(self, error: KafkaError | None, message: Message) -> None:
        if error is not None:
            self.failures.append((str(message.topic()), int(message.partition() or 0), error))

    def discard(self) -> None:
        """Destroy the producer without waiting for it; the writer is of no use afterwards.

        Destroying one whose broker is away can block; nobody needs what it still holds, and a successor fences it.
        """
        self.producer.purge(blocking=False)
        holder = [self.producer]
        # The producer holds this writer by its callback: from here on the thread has the only reference to it.
        del self.producer
        Thread(target=holder.clear, name="producer-destroy", daemon=True).start()

    def forget(self) -> None:
        """Start a new account of failures."""
        self.failures.clear()

    def produce(
        self,
        topic: str,
        partition: int,
        key: bytes | None,
        value: bytes | None,
        headers: HeaderList | None = None,
        timestamp_ms: int = 0,
    ) -> None:
        """Hand over one record; without `timestamp_ms` its timestamp is now.

        One by one: confluent-kafka 2.16 has a `produce_batch`, which saves a microsecond a record, takes no headers and
        puts the records on other partitions than they name.

        Raises
        ------
        KafkaException
            When it is too large for this client, or the queue stays full.
        """
        give_up = 0.0
        while True:
            try:
                if headers is None:
                    self.producer.produce(topic, value, key, partition, timestamp=timestamp_ms)
                else:
                    self.producer.produce(topic, value, key, partition, timestamp=timestamp_ms, headers=headers)
                return
            except BufferError as error:
                give_up = self._wait_for_room(give_up, error)

    def _wait_for_room(self, give_up: float, error: BufferError) -> float:
        now = time.monotonic()
        if give_up and now > give_up:
            raise KafkaException(KafkaError(KafkaError._TIMED_OUT_QUEUE, "the producer's queue stayed full")) from error
        self.producer.poll(_QUEUE_FULL_SECONDS)
        return give_up or now + self._patience_seconds


class OutputTopic:
    """One output topic: its name, its schema, and headers that are the same for every record.

    Parameters
    ----------
    schema
        For `tg-schema`, such as `scores.v1`.
    release
        For `tg-release`; None leaves the header out.
    """

    def __init__(self, name: str, schema: str, release: str | None = None) -> None:
        self.name = name
        self._constant: HeaderList = [("tg-schema", schema.encode())]
        if release is not None:
            self._constant.append(("tg-release", release.encode()))

    def headers(self, record: OutRecord) -> HeaderList:
        """Headers of one record."""
        topic, partition, offset = record.source
        headers = [
            *self._constant,
            ("tg-event-id", record.event_id.encode()),
            ("tg-source", f"{topic}/{partition}/{offset}".encode()),
        ]
        if record.traceparent is not None:
            headers.append(("traceparent", record.traceparent))
        return headers

    def write(self, writer: KafkaWriter, records: Sequence[OutRecord], timestamp_ms: int = 0) -> int:
        """Produce `records`; bytes of their keys and values."""
        size = 0
        for record in records:
            size += len(record.key) + len(record.value)
            writer.produce(self.name, record.partition, record.key, record.value, self.headers(record), timestamp_ms)
        return size


class DeadLetterTopic:
    """A dead letter topic: records as they came, with Connect's headers, or a reference where they do not fit.

    Parameters
    ----------
    partitions
        Of this topic; a source's partition that it does not have is folded onto one that it has.
    message_bytes_max
        Its `max.message.bytes`.
    mode
        `dlq.payload`.
    connector, step
        As in `schemas.dead_letter.headers`.
    """

    def __init__(
        self,
        name: str,
        partitions: int,
        message_bytes_max: int,
        mode: dead_letter.PayloadMode,
        *,
        connector: str,
        step: str,
    ) -> None:
        self.name = name
        self._partitions = partitions
        self._message_bytes_max = message_bytes_max
        self._mode = mode
        self._connector = connector
        self._step = step

    def write(self, writer: KafkaWriter, letter: DeadLetter) -> None:
        """Produce one dead letter."""
        record = letter.record
        headers: Headers = dead_letter.headers(
            record.headers,
            topic=record.topic,
            partition=record.partition,
            offset=record.offset,
            reason=letter.reason,
            message=letter.message,
            connector=self._connector,
            step=self._step,
            stage=letter.stage,
            exception_class=letter.exception_class,
            event_id=letter.event_id,
        )
        value = dead_letter.payload(
            record.value,
            key=record.key,
            headers=headers,
            mode=self._mode,
            message_bytes_max=self._message_bytes_max,
            topic=record.topic,
            partition=record.partition,
            offset=record.offset,
        )
        writer.produce(self.name, record.partition % self._partitions, record.key, value, list(headers))
