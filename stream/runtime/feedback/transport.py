"""Faust's Kafka transport, made to read committed records only and to keep an exact account of offsets.

Faust reads uncommitted records unless it writes in transactions itself, which it cannot be trusted with. The classes
here override few methods of `faust.transport.drivers.aiokafka` 0.15.3; what they rely on is checked when a client
starts, so that another version of Faust or aiokafka fails at once instead of reading aborted records.
"""

from __future__ import annotations

import logging
from collections.abc import AsyncIterator, Callable, Iterator, Mapping
from typing import Any, cast

# Without it aiokafka reads no lz4, which is how every other part of Tidegate writes: missing, it is told at the start.
import cramjam  # noqa: F401
from aiokafka.consumer.fetcher import READ_COMMITTED  # type: ignore[import-untyped]
from faust.transport.drivers import aiokafka as driver
from faust.types import TP

from stream.errors import EnvironmentFault
from stream.runtime.feedback.offsets import Offsets

# Of Faust's services, which announce every start and stop.
_LOG = logging.getLogger("faust.transport.tidegate")


class _Thread(driver.AIOKafkaConsumerThread):
    """The thread that the aiokafka client lives in."""

    logger = _LOG

    def _create_worker_consumer(self, transport: Any) -> Any:
        # Faust decides the isolation level by this flag alone, and asks it for other things at other times.
        was = self.consumer.in_transaction
        self.consumer.in_transaction = True
        try:
            return super()._create_worker_consumer(transport)
        finally:
            self.consumer.in_transaction = was

    async def on_start(self) -> None:
        """Connect, and make sure that aborted records stay unseen."""
        await super().on_start()
        fetcher = self._ensure_consumer()._fetcher  # noqa: SLF001  # aiokafka has no other place that says so
        if getattr(fetcher, "_isolation_level", None) != READ_COMMITTED:
            raise EnvironmentFault(
                "the feedback worker must read committed records only; this version of aiokafka or Faust does not let "
                "it. Install the versions of requirements.lock."
            )

    def verify_event_path(self, now: float, tp: TP) -> None:
        """As Faust does, but for tables' changelogs: after recovery this worker writes them, and hears nothing."""
        if tp.topic not in self.consumer.app.tables.changelog_topics:
            super().verify_event_path(now, tp)

    async def _fetch_records(
        self, consumer: Any, active_partitions: Any, timeout: float | None = None, max_records: int | None = None
    ) -> Any:
        records = await super()._fetch_records(consumer, active_partitions, timeout, max_records)
        # Taken here, in the client's thread before anything else can be fetched: all that lies before these positions
        # was returned by an earlier call, whose records have all been handed out, or is never returned.
        subscription = consumer._subscription.subscription  # noqa: SLF001  # `position` would wait for another turn
        assignment = subscription.assignment if subscription is not None else None
        ends: dict[TP, int] = {}
        if assignment is not None:
            states = {place: assignment.state_value(place) for place in assignment.tps if place not in records}
            ends = {TP(*place): state.position for place, state in states.items() if state.has_valid_position}
        cast("CommittedConsumer", self.consumer).ends = ends
        return records


class CommittedConsumer(driver.Consumer):
    """A consumer that reads committed records, and commits what `Offsets` says."""

    logger = _LOG

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.offsets: Offsets[TP] = Offsets()
        self.ends: Mapping[TP, int] = {}
        self.says_nothing: Callable[[Any], bool] = lambda message: False
        """Of a record that no agent needs to see: most scores, which cost a hundred times less if Faust sees none."""
        self._deliver, self.callback = self.callback, self._hand_out

    def _new_consumer_thread(self) -> _Thread:
        return _Thread(self, loop=self.loop, beacon=self.beacon)

    async def _hand_out(self, message: Any) -> None:
        if self.app.topics.acks_enabled_for(message.topic):
            self.offsets.hand_out(message.tp, message.offset)
        await self._deliver(message)

    def _to_message(self, tp: TP, record: Any) -> Any:
        return super()._to_message(TP(tp.topic, tp.partition), record)

    async def getmany(self, timeout: float) -> AsyncIterator[tuple[TP, Any]]:
        """Records as they come, without those that `says_nothing`; where a partition has none, its end."""
        generation = self.app.consumer_generation_id
        wanted, passed = self.app.topics.acks_enabled_for, dict[TP, int]()
        async for place, message in super().getmany(timeout):
            passed[message.tp] = message.offset + 1
            if not self.says_nothing(message):
                yield place, message
        # Faust breaks off in these cases, and goes back to what was committed.
        if self.flow_active and generation == self.app.consumer_generation_id:
            self.offsets.read({place: end for place, end in {**self.ends, **passed}.items() if wanted(place.topic)})

    def ack(self, message: Any) -> bool:
        """A record is done."""
        self.offsets.done(message.tp, message.offset)
        if message.acked:
            return False
        message.acked = True
        self._unacked_messages.discard(message)
        return True

    async def perform_seek(self) -> None:
        """Go back to what was committed."""
        self.offsets.forget()
        self.ends = {}
        await super().perform_seek()

    async def on_partitions_revoked(self, revoked: set[TP]) -> None:
        """Give partitions up."""
        await super().on_partitions_revoked(revoked)
        self.offsets.forget({TP(place.topic, place.partition) for place in revoked})

    def _filter_tps_with_pending_acks(self, topics: Any = None) -> Iterator[TP]:
        places = (tp for tp in self.offsets.places() if not self._is_changelog_tp(tp))
        return (tp for tp in places if topics is None or tp in topics or tp.topic in topics)

    def _new_offset(self, tp: TP) -> int | None:
        return self.offsets.committable(tp)

    def _should_commit(self, tp: TP, offset: int) -> bool:
        committed = self._committed_offset[tp]
        return offset > (committed or 0)

    async def _commit_offsets(self, offsets: Mapping[TP, int], start_new_transaction: bool = True) -> bool:
        # Faust first waits until its producer has nothing to send, which under load it always has. Here a record is
        # done once all that follows from it is in Kafka.
        held = {tp: offset for tp, offset in offsets.items() if tp in self.assignment()}
        if not held or not await self._commit(held):
            return False
        self._committed_offset.update(held)
        self.app.monitor.on_tp_commit(held)
        return True

    async def _add_gap(self, tp: TP, offset_from: int, offset_to: int) -> None:
        """Gaps are of no interest."""

    def lags(self) -> dict[TP, int]:
        """Offsets between what is committed and the end of each partition that is read, markers included."""
        found = {}
        for place in self._filter_tps_with_pending_acks():
            end = self._thread.highwater(place)
            if end is not None:
                found[place] = max(0, end - (self._committed_offset[place] or 0))
        return found


class IdempotentProducer(driver.Producer):
    """A producer whose retries neither repeat nor reorder."""

    logger = _LOG

    def _settings_extra(self) -> Mapping[str, Any]:
        return {"acks": "all", "enable_idempotence": True}


class Transport(driver.Transport):
    """What `tidegate feedback` talks to Kafka through."""

    Consumer = CommittedConsumer
    Producer = IdempotentProducer
