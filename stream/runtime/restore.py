"""Brings a partition's state back from the state topic, all of it, and checks that it is the committed one."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Protocol

from confluent_kafka import IsolationLevel, KafkaException, TopicPartition
from confluent_kafka.admin import AdminClient, OffsetSpec  # type: ignore[attr-defined]

from stream.errors import RetriableError, StateError
from stream.runtime.faults import retriable_or_exit
from stream.runtime.memory import uncollected
from stream.runtime.metrics import Metrics
from stream.sources.kafka import Place, RangeReader
from stream.state.rows import RowError

_LOG = logging.getLogger(__name__)
_ASK_SECONDS = 5.0
_REMIND_SECONDS = 10.0


class HasCursor(Protocol):
    """Where a partition stands."""

    @property
    def next_offset(self) -> int:
        """The offset after the last record that the state knows of."""


class Restorable(Protocol):
    """The part of the core that a restore needs."""

    def restore(self, partition: int, rows: Iterable[tuple[bytes, bytes | None]]) -> None:
        """Take a partition's state from its rows."""

    def cursor(self, partition: int) -> HasCursor | None:
        """Where the partition stands now."""

    def drop(self, partition: int) -> None:
        """Forget a partition."""


def ends_of(admin: AdminClient, places: Sequence[Place], seconds: float = _ASK_SECONDS) -> dict[Place, int]:
    """Ends of partitions as a `read_uncommitted` handle sees them: open transactions lie before them.

    Raises
    ------
    RetriableError
        When the broker does not answer, or is still finding out who leads what.
    EnvironmentFault
        When it refuses.
    """
    if not places:
        return {}
    latest = OffsetSpec.latest()  # type: ignore[no-untyped-call]
    asked = admin.list_offsets(
        {TopicPartition(*place): latest for place in places},
        isolation_level=IsolationLevel.READ_UNCOMMITTED,
        request_timeout=seconds,
    )
    try:
        ends = {(part.topic, part.partition): int(future.result(2 * seconds).offset) for part, future in asked.items()}
    except KafkaException as error:
        raise retriable_or_exit(error.args[0], f"the ends of {places[0][0]} cannot be read") from error
    except TimeoutError as error:
        # The client may wait for a broker that is gone for longer than it was told to.
        raise RetriableError(f"the ends of {places[0][0]} were not told within {2 * seconds:g} s") from error
    for (topic, partition), end in ends.items():
        if end < 0:
            # What librdkafka 2.16 answers, without any error, for a partition whose leader has just gone.
            raise RetriableError(f"the end of {topic}[{partition}] is not known: no leader has told it")
    return ends


class Restorer:
    """Restores partitions of the core, one after another.

    Parameters
    ----------
    reader
        Reads the state topic, `read_committed`.
    ends
        Places -> their ends as a `read_uncommitted` handle sees them. A `read_committed` handle's would stop at the
        first open transaction, and hide what was committed behind it.
    inputs
        Topic whose partitions the state follows.
    exact
        True when state and offsets are committed together, so that they must agree.
    """

    def __init__(
        self,
        core: Restorable,
        reader: RangeReader,
        ends: Callable[[Sequence[Place]], Mapping[Place, int]],
        *,
        inputs: str,
        state: str,
        exact: bool,
        metrics: Metrics,
    ) -> None:
        self._core = core
        self._reader = reader
        self._ends = ends
        self._inputs = inputs
        self._state = state
        self._exact = exact
        self._metrics = metrics

    def restore(self, committed: Mapping[int, int | None], waiting: Callable[[], None]) -> dict[int, int]:
        """Partition -> the offset to go on from.

        Parameters
        ----------
        committed
            The group's offsets, read before this call: a commit between the two could only make state newer, which
            would be found out.
        waiting
            Called at least once a second; may raise to break off.

        Raises
        ------
        StateError
            When a partition's state is not the one of its committed offset.
        """
        ends = self._ends([(self._state, partition) for partition in sorted(committed)])
        starts = {}
        for partition in sorted(committed):
            began = time.perf_counter()
            end = ends[self._state, partition]
            try:
                with uncollected():
                    self._core.restore(partition, self._rows(partition, end, waiting))
            except RowError as error:
                raise StateError(f"{self._place_of(partition, error.key, end, waiting)}: {error}") from error
            starts[partition] = self._checked(partition, committed[partition])
            self._metrics.restore_seconds.observe(time.perf_counter() - began)
        return starts

    def _place_of(self, partition: int, key: bytes, end: int, waiting: Callable[[], None]) -> str:
        """Where the last row of a key lies: looked for only when it is wanted, so that a restore need not keep it."""
        place, last = (self._state, partition), -1
        for records in self._reader.read(place, self._reader.low(place), end, waiting=waiting):
            last = max((record.offset for record in records if record.key == key), default=last)
        return f"{self._state}[{partition}]@{last}"

    def _rows(self, partition: int, end: int, waiting: Callable[[], None]) -> Iterator[tuple[bytes, bytes | None]]:
        """Rows in the order of the topic; of several writes of a key within one read only the last."""
        if end == 0:
            return
        place = (self._state, partition)
        remind = time.monotonic() + _REMIND_SECONDS

        def turn() -> None:
            nonlocal remind
            waiting()
            if time.monotonic() > remind:
                remind = time.monotonic() + _REMIND_SECONDS
                _LOG.info("restoring %s[%d] up to offset %d; an open transaction may delay it", *place, end)

        for records in self._reader.read(place, self._reader.low(place), end, waiting=turn):
            latest: dict[bytes, bytes | None] = {}
            for record in records:
                if record.key is not None:
                    latest.pop(record.key, None)
                    latest[record.key] = record.value
            yield from latest.items()

    def _checked(self, partition: int, committed: int | None) -> int:
        cursor = self._core.cursor(partition)
        where = f"{self._inputs}[{partition}]"
        remedy = (
            f"Another group may have written {self._state}, or somebody moved the group's offsets. Set them to the "
            "state's, or give this scorer its own --group-id and --output-prefix: docs/runbook.md, 'State'."
        )
        if cursor is None:
            if committed is None or not self._exact:
                return self._reader.low((self._inputs, partition))
            raise StateError(
                f"{where}: the group has committed offset {committed}, "
                f"but {self._state}[{partition}] holds no state. {remedy}"
            )
        if self._exact and cursor.next_offset != committed:
            raise StateError(
                f"{where}: the group has committed {'no offset' if committed is None else f'offset {committed}'}, "
                f"but the state on {self._state}[{partition}] is that of offset {cursor.next_offset}. {remedy}"
            )
        return cursor.next_offset
