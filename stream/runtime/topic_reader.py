"""Ranges of topics without a consumer group: what `replay`, `train` and `state` read."""

from __future__ import annotations

import logging
import time
from collections.abc import Generator, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass

from confluent_kafka import OFFSET_INVALID, IsolationLevel, KafkaException, TopicPartition
from confluent_kafka.admin import OffsetSpec  # type: ignore[attr-defined]

from stream.config import Settings
from stream.errors import EnvironmentFault
from stream.record import Record
from stream.runtime.kafka_client import CONNECT_SECONDS, client_config, connect_admin, explain_kafka_error
from stream.sources.kafka import RangeReader, TopicSource

_LOG = logging.getLogger(__name__)
_REMIND_SECONDS = 5.0


@dataclass(frozen=True, slots=True)
class Window:
    """Which part of a topic is wanted, the same in each partition; None: from the first, to the last."""

    from_offset: int | None = None
    to_offset: int | None = None
    """The offset to stop before."""
    from_time_ms: int | None = None
    """By the records' timestamps: on the events topic their ingest time."""
    to_time_ms: int | None = None
    """The time to stop before."""


@dataclass(frozen=True, slots=True)
class Bounds:
    """What is read of one partition."""

    start: int
    end: int
    """The offset to stop before; a `read_uncommitted` handle saw it."""
    first: int
    """First offset of the partition that is still there."""
    last: int
    """The partition's end, behind every record."""


class TopicReader:
    """Reads topics `read_committed` up to where a `read_uncommitted` handle sees their ends.

    A `read_committed` handle's own watermark stops at the first open transaction, and would hide what was committed
    behind it.

    Parameters
    ----------
    role
        What for, as the broker's logs and quotas are to name it.

    Raises
    ------
    EnvironmentFault
        When no broker answers, or it refuses.
    """

    def __init__(self, settings: Settings, role: str) -> None:
        self._settings = settings
        self._admin, self._topics = connect_admin(settings, role)
        self._properties = client_config(settings, role)
        self._reader = RangeReader(self._properties)

    def __contains__(self, topic: object) -> bool:
        return topic in self._topics

    def partitions(self, topic: str) -> int:
        """How many partitions the topic has.

        Raises
        ------
        EnvironmentFault
            When there is no such topic.
        """
        if topic not in self._topics:
            raise EnvironmentFault(
                f"topic {topic} does not exist. Name one that does, or set topics.prefix (--topic-prefix) to theirs."
            )
        return self._topics[topic]

    def bounds(self, topic: str, window: Window | None = None) -> dict[int, Bounds]:
        """Partition -> what of it lies in `window` now; an empty one ends where it starts.

        Raises
        ------
        EnvironmentFault
            When the topic is not there, or the broker does not answer.
        """
        window = window or Window()
        partitions = range(self.partitions(topic))
        first = self._offsets(topic, partitions, OffsetSpec.earliest())  # type: ignore[no-untyped-call]
        end = self._offsets(topic, partitions, OffsetSpec.latest())  # type: ignore[no-untyped-call]
        starts, stops = dict(first), dict(end)
        for offset, time_ms, limits, nearer in (
            (window.from_offset, window.from_time_ms, starts, max),
            (window.to_offset, window.to_time_ms, stops, min),
        ):
            if time_ms is not None:
                for partition, at in self._at_time(topic, time_ms, end).items():
                    limits[partition] = nearer(limits[partition], at)
            if offset is not None:
                for partition in partitions:
                    limits[partition] = nearer(limits[partition], offset)
        return {p: Bounds(starts[p], max(starts[p], stops[p]), first[p], end[p]) for p in partitions}

    def read(self, topic: str, partition: int, start: int, end: int) -> Generator[list[Record]]:
        """Committed records of one partition in batches; an open transaction before `end` is waited for."""
        remind = time.monotonic() + _REMIND_SECONDS

        def turn() -> None:
            nonlocal remind
            if time.monotonic() > remind:
                remind = time.monotonic() + 2 * _REMIND_SECONDS
                _LOG.info("reading %s[%d] up to offset %d; an open transaction may delay it", topic, partition, end)

        yield from self._reader.read((topic, partition), start, end, waiting=turn)

    def source(self, topic: str, bounds: Mapping[int, Bounds]) -> TopicSource:
        """Records of all partitions as they come; to be closed by the caller."""
        ranges = {partition: (bound.start, bound.end) for partition, bound in bounds.items()}
        return TopicSource(self._properties, topic, ranges)

    def partition_sources(self, topic: str, bounds: Mapping[int, Bounds]) -> list[TopicSource]:
        """A source for each partition that has records; to be closed by the caller."""
        return [self.source(topic, {p: bound}) for p, bound in bounds.items() if bound.start < bound.end]

    def close(self) -> None:
        """Let go of the connections."""
        self._reader.close()

    def _at_time(self, topic: str, time_ms: int, ends: Mapping[int, int]) -> dict[int, int]:
        """Partition -> offset of its first record that is as late, its end where there is none."""
        found = self._offsets(topic, list(ends), OffsetSpec.for_timestamp(time_ms))
        return {
            partition: end if (at := found[partition]) < 0 else self._first_as_late(topic, partition, at, end, time_ms)
            for partition, end in ends.items()
        }

    def _first_as_late(self, topic: str, partition: int, at: int, end: int, time_ms: int) -> int:
        # What the broker finds may be a transaction's marker, whose time is that of the commit, not of any record.
        with closing(self.read(topic, partition, at, end)) as batches:
            for records in batches:
                for record in records:
                    if record.timestamp_ms >= time_ms:
                        return record.offset
        return end

    def _offsets(self, topic: str, partitions: Sequence[int], spec: OffsetSpec) -> dict[int, int]:
        asked = {TopicPartition(topic, partition): spec for partition in partitions}
        try:
            answers = self._admin.list_offsets(
                asked, isolation_level=IsolationLevel.READ_UNCOMMITTED, request_timeout=CONNECT_SECONDS
            )
            offsets = {part.partition: int(future.result().offset) for part, future in answers.items()}
        except KafkaException as error:
            raise explain_kafka_error(error, self._settings) from error
        if OFFSET_INVALID in offsets.values():
            # What librdkafka 2.16 answers, without any error, for a partition whose leader has just gone.
            raise EnvironmentFault(f"the offsets of {topic} are not known: a partition has no leader. Try again.")
        return offsets
