"""`tidegate ingest`: gateways' records in; normalised, redacted events out."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Protocol

from stream.record import DeadLetter, OutRecord, Record
from stream.runtime.delivery import Work
from stream.runtime.group import Polled
from stream.runtime.metrics import Metrics
from stream.sinks.kafka import DeadLetterTopic, KafkaWriter, OutputTopic
from stream.sources.kafka import Place, RangeReader


class Ingested(Protocol):
    """What became of records."""

    @property
    def events(self) -> Sequence[OutRecord]:
        """Normalised events, each with its partition."""

    @property
    def dead_letters(self) -> Sequence[DeadLetter]:
        """What could not be read."""

    @property
    def skipped(self) -> Mapping[str, int]:
        """How much is no call of a model, by what it is."""


class Normaliser(Protocol):
    """`stream.steps.ingest.IngestStep`, as the shell sees it."""

    def step(self, records: Sequence[Record]) -> Ingested:
        """Events and dead letters of `records`; its caches change nothing in the result."""


class IngestPipeline:
    """Feeds the normaliser; there is no state to restore, only offsets to go on from.

    Parameters
    ----------
    load
        Makes the normaliser.
    dead_letters
        Source topic -> its dead letter topic.
    reader
        Finds the first offset of a partition that nobody has read yet.
    now_ms
        The clock: Kafka's timestamp of an event is its ingest time.
    """

    release = ""

    def __init__(
        self,
        load: Callable[[], Normaliser],
        events: OutputTopic,
        dead_letters: Mapping[str, DeadLetterTopic],
        reader: RangeReader,
        metrics: Metrics,
        now_ms: Callable[[], int],
    ) -> None:
        self._load = load
        self._events = events
        self._dead_letters = dead_letters
        self._reader = reader
        self._metrics = metrics
        self._now_ms = now_ms
        self._normaliser: Normaliser

    def load(self) -> None:
        """Make the normaliser."""
        self._normaliser = self._load()

    def restore(self, committed: Mapping[Place, int | None], waiting: Callable[[], None]) -> Mapping[Place, int]:
        """Committed offsets, or the first one there is."""
        return {place: self._reader.low(place) if offset is None else offset for place, offset in committed.items()}

    def drop(self, places: Iterable[Place]) -> None:
        """Nothing is held of a partition."""

    def due(self) -> None:
        """Nothing but records makes it do anything."""

    def tick(self, place: Place) -> None:
        """Nothing happens by time alone."""

    def step(self, polled: Polled, offsets: Mapping[Place, int]) -> Work:
        """What is to be written for a batch."""
        done = self._normaliser.step(polled.records)
        ingest_time_ms = self._now_ms()

        def outputs(writer: KafkaWriter) -> None:
            self._events.write(writer, done.events, ingest_time_ms)
            for letter in done.dead_letters:
                self._dead_letters[letter.record.topic].write(writer, letter)

        size = sum(len(event.key) + len(event.value) for event in done.events)
        size += sum(len(letter.record.value or b"") for letter in done.dead_letters)
        return Work(
            offsets,
            outputs=outputs,
            state=lambda writer: None,
            committed=lambda: self._count(polled, done),
            inputs=len(polled.records),
            records=len(done.events) + len(done.dead_letters),
            size=size,
        )

    def _count(self, polled: Polled, done: Ingested) -> None:
        metrics = self._metrics
        for what, count in done.skipped.items():
            metrics.skipped.labels(what).inc(count)
        now_ms = self._now_ms()
        dead: dict[str, int] = {}
        for letter in done.dead_letters:
            metrics.dead_letters.labels(letter.reason).inc()
            dead[letter.record.topic] = dead.get(letter.record.topic, 0) + 1
        oldest: dict[str, int] = {}
        counts: dict[str, int] = {}
        for record in polled.records:
            counts[record.topic] = counts.get(record.topic, 0) + 1
            oldest[record.topic] = min(oldest.get(record.topic, record.timestamp_ms), record.timestamp_ms)
        for topic, count in counts.items():
            metrics.records.labels(topic, "ok").inc(max(0, count - dead.get(topic, 0)))
            metrics.latency_seconds.labels(topic).observe(max(0, now_ms - oldest[topic]) / 1000)
        for topic, count in dead.items():
            metrics.records.labels(topic, "dead_letter").inc(count)
