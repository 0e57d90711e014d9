"""A member of a consumer group: records in batches, partitions only once somebody said where to start."""

from __future__ import annotations

import logging
import time
from collections import deque
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Protocol, TypeVar

from confluent_kafka import Consumer, KafkaError, KafkaException, Message, TopicPartition

from stream.errors import RetriableError
from stream.kafka_faults import Fault, cause_of, check_consumer_error, exit_of, fault_of
from stream.record import Record
from stream.runtime.broker_watch import created_again
from stream.runtime.faults import backoffs, retriable_or_exit
from stream.sources.kafka import CONSUMER_DEFAULTS, CONSUMER_PROPERTIES, Place, record_of

_LOG = logging.getLogger(__name__)
_Answer = TypeVar("_Answer")
_CALL_SECONDS, _CALL_SECONDS_MAX = 1.0, 4.0
"""One blocking call, and the longest after others timed out: a broker that answers late would be asked for ever else.
A signal's handler runs only between calls, so none may take longer than a shutdown commonly can wait."""
_REJOIN_SECONDS = 90.0
"""A broker lets a session last for at most 60 s unless `group.consumer.max.session.timeout.ms` says otherwise."""
_OF_TOPIC = "topic-id="
"""Begins the metadata of a committed offset: of which topic it is, among all that had the name."""


@dataclass(slots=True)
class Polled:
    """What one poll brought.

    `ends` are ends of partitions, reached after these records: behind the last record lie only transaction markers and
    aborted records, which nobody is given.
    """

    records: list[Record] = field(default_factory=list)
    ends: dict[Place, int] = field(default_factory=dict)
    bytes: int = 0
    gone: set[Place] = field(default_factory=set)
    """Partitions that do not hold the offset after these records; they deliver nothing until they are started again."""

    def next_offsets(self) -> dict[Place, int]:
        """Place -> the offset to commit once these records are dealt with."""
        out: dict[Place, int] = {}
        for record in self.records:
            out[record.topic, record.partition] = record.offset + 1
        for place, end in self.ends.items():
            out[place] = max(end, out.get(place, 0))
        return out


class Rebalanced(Protocol):
    """What a group's member must do about its partitions; called within `poll` and `close`, on their thread."""

    def revoked(self, places: Sequence[Place]) -> None:
        """Finish what is under way; the partitions are given up when this returns."""

    def lost(self, places: Sequence[Place]) -> None:
        """The partitions are somebody else's already: commit nothing more of them."""


class GroupSource:
    """A consumer group's member: hands out records in batches, partitions only once somebody said where to start.

    Parameters
    ----------
    properties
        librdkafka's, with bootstrap servers, `group.id` and, for a static member, `group.instance.id`.
    topics
        To subscribe to.
    listener
        Told of revoked and lost partitions.
    heard
        Told of the client's faults, those that it deals with itself included.
    was_away
        Whether the broker was out of reach a moment ago. librdkafka then joins anew, and what it had sent as the member
        that it was before fences itself.
    ids
        Topic -> its id, as far as known: committed offsets carry it, and are of no use to another topic of that name.
    reset
        What to do where an offset is not there: `error` tells it in `Polled.gone`; `earliest` passes over what is lost.

    Notes
    -----
    For one thread: confluent-kafka lets a second one wait until the first is in no call, which here is never. Others
    read `metadata`.
    """

    def __init__(
        self,
        properties: Mapping[str, object],
        topics: Sequence[str],
        listener: Rebalanced,
        *,
        heard: Callable[[KafkaError], None] = lambda error: None,
        was_away: Callable[[], bool] = lambda: False,
        ids: Mapping[str, str] | None = None,
        reset: str = "error",
    ) -> None:
        self._listener = listener
        self._heard = heard
        self._was_away = was_away
        self._ids = ids if ids is not None else {}
        self._topics = list(topics)
        self._backlog: deque[Message] = deque()
        self._held: dict[Place, int] = {}
        self._turns = 0
        self._serving: set[Place] = set()
        self._fetched: set[Place] = set()
        """What the client fetches: partitions that were started once, held or not."""
        self.static = "group.instance.id" in properties
        """Whether another process may claim to be this member."""
        self.joined = False
        """True from the first assignment on, which may be empty, until the place in the group is lost."""
        self.metadata: object = None
        """The member's generation as of the last poll: whoever commits with an old one is refused."""
        self._properties = {**CONSUMER_DEFAULTS, **properties, **CONSUMER_PROPERTIES, "auto.offset.reset": reset}
        self._refused_since: float | None = None
        self._rejoin_at: float | None = None
        """When to make the next consumer; None while there is one."""
        self._rejoin_waits = backoffs(1.0, 5.0)
        self._call_seconds = _CALL_SECONDS
        self._consumer = self._subscribed()

    def _subscribed(self) -> Consumer:
        consumer = Consumer({**self._properties, "error_cb": self._heard})
        consumer.subscribe(self._topics, on_assign=self._on_assign, on_revoke=self._on_revoke, on_lost=self._on_lost)
        return consumer

    @property
    def waiting(self) -> str | None:
        """Why the group does not let this member in, as a sentence; None when it does, or has not answered."""
        if self._refused_since is None:
            return None
        seconds = time.monotonic() - self._refused_since
        return f"waiting for {seconds:.0f} s until the session of this --instance-id's former process is over"

    # -- partitions --------------------------------------------------------------------------------------------------

    @property
    def assigned(self) -> set[Place]:
        """Partitions of this member."""
        return self._held.keys() | self._serving

    @property
    def held(self) -> dict[Place, int]:
        """Assigned partitions that deliver nothing before `start`, each with the number of its assignment."""
        return dict(self._held)

    def hold(self, places: Iterable[Place]) -> None:
        """Deliver nothing of these partitions until they are started again."""
        gone = set(places) & self._serving
        self._serving -= gone
        self._park(gone)
        self._forget(gone)

    def start(self, starts: Mapping[Place, int], held: Mapping[Place, int]) -> set[Place]:
        """Deliver these partitions' records from the given offsets on; the partitions that are delivered now.

        Parameters
        ----------
        held
            As it was before the offsets were asked for. A partition that was given up since then is passed over, even
            if it has come back: somebody else may have moved its offset.

        Raises
        ------
        RetriableError
            When one cannot be fetched; it and those after it are still held.
        """
        started: set[Place] = set()
        for place, offset in starts.items():
            if place not in self._held or self._held[place] != held.get(place):
                continue
            try:
                if place in self._fetched:
                    self._consumer.seek(TopicPartition(*place, offset))
                else:
                    self._consumer.incremental_assign([TopicPartition(*place, offset)])
            except KafkaException as error:
                if started:
                    break  # the others are still held, and come with the next turn
                raise RetriableError(f"{place[0]}[{place[1]}] cannot be read: {error.args[0].str()}") from error
            self._fetched.add(place)
            # What came while it was held, its end above all, would pass for what lies before it.
            self._forget({place})
            del self._held[place]
            self._serving.add(place)
            started.add(place)
        return started

    def _park(self, places: Iterable[Place]) -> None:
        self._turns += 1
        self._held.update((place, self._turns) for place in places)

    def _on_assign(self, consumer: Consumer, partitions: list[TopicPartition]) -> None:
        # Nothing is fetched before `start` names an offset, and never a logical one: where OFFSET_END is still being
        # looked up when a seek comes, librdkafka drops the outdated answer, asks again half a second later, and goes on
        # from the end, past all that lies between.
        consumer.incremental_assign([])
        self._park((p.topic, p.partition) for p in partitions)
        self._refused_since = None
        self.joined = True

    def _on_revoke(self, consumer: Consumer, partitions: list[TopicPartition]) -> None:
        places = [(p.topic, p.partition) for p in partitions]
        self._listener.revoked(places)
        self._give_up(consumer, partitions)

    def _on_lost(self, consumer: Consumer, partitions: list[TopicPartition]) -> None:
        places = [(p.topic, p.partition) for p in partitions]
        self._listener.lost(places)
        self._give_up(consumer, partitions)
        # Whoever lost its place is out, until it is told what it has now.
        self.joined = False

    def _give_up(self, consumer: Consumer, partitions: list[TopicPartition]) -> None:
        places = {(p.topic, p.partition) for p in partitions}
        for place in places:
            self._held.pop(place, None)
        self._serving -= places
        self._forget(places)
        fetched = self._fetched & places
        self._fetched -= fetched
        consumer.incremental_unassign([TopicPartition(*place) for place in fetched])

    def _forget(self, places: set[Place]) -> None:
        self._backlog = deque(m for m in self._backlog if (m.topic(), m.partition()) not in places)

    # -- records -----------------------------------------------------------------------------------------------------

    def poll(self, records_max: int, bytes_max: int, wait_seconds: float) -> Polled:
        """At most `records_max` records and about `bytes_max` bytes of them, waiting `wait_seconds` at most.

        At least one record is taken however large it is.

        Raises
        ------
        FencedError
            When another process has this member's `group.instance.id`.
        EnvironmentFault
            When the broker refuses: no such topic, no permission.
        """
        if self._between_consumers(wait_seconds):
            return Polled()
        if len(self._backlog) < records_max:
            # Not in one expression: a rebalance within the call replaces the backlog.
            messages = self._consumer.consume(records_max - len(self._backlog), wait_seconds)
            self._backlog.extend(messages)
        self.metadata = self._consumer.consumer_group_metadata()
        polled = Polled()
        while self._backlog:
            message = self._backlog[0]
            error = message.error()
            if error is not None:
                self._backlog.popleft()
                self._event(message, error, polled)
                continue
            topic, partition = message.topic(), message.partition()
            if (topic, partition) not in self._serving:
                self._backlog.popleft()
                continue
            size = len(message)
            if polled.records and (len(polled.records) >= records_max or polled.bytes + size > bytes_max):
                break
            self._backlog.popleft()
            polled.bytes += size
            polled.records.append(record_of(message))
        return polled

    def serve(self) -> None:
        """Let rebalances happen while something else takes long; records that come along wait for the next poll."""
        if self._between_consumers(0.0):
            return
        messages = self._consumer.consume(1, 0)
        self._backlog.extend(messages)
        # What is committed next is committed as the member of the generation that this may have begun.
        self.metadata = self._consumer.consumer_group_metadata()

    def _event(self, message: Message, error: KafkaError, polled: Polled) -> None:
        if error.code() == KafkaError._PARTITION_EOF:
            place = (str(message.topic()), int(message.partition() or 0))
            if place in self._serving:
                polled.ends[place] = int(message.offset() or 0)
            return
        self._heard(error)
        fault = fault_of(error)
        if fault is Fault.REWIND:
            place = (str(message.topic()), int(message.partition() or 0))
            if place in self._serving:
                polled.gone.add(place)
                self.hold([place])
                # Where fetching ended in an error librdkafka takes no seek.
                self._fetched.discard(place)
                self._consumer.incremental_unassign([TopicPartition(*place)])
        elif fault is Fault.REJOIN and (not self.joined or self._was_away()):
            self._wait_for_session(error)
            self._leave(next(self._rejoin_waits), polled)
        elif cause_of(error) == KafkaError.FENCED_INSTANCE_ID and self._was_away():
            _LOG.warning("fenced by its own return after the broker was away; joining anew")
            self._leave(0.0, polled)
        else:
            check_consumer_error(error)

    def _leave(self, seconds: float, polled: Polled) -> None:
        """Give up a consumer that is of no use any more, and what it brought, to make another one in a while."""
        self._consumer.close()
        if left := self.assigned:
            self._listener.lost(sorted(left))
        self._held.clear()
        self._serving.clear()
        self._fetched.clear()
        self._backlog.clear()
        polled.records.clear()
        polled.ends.clear()
        polled.gone.clear()
        self.joined = False
        self._rejoin_at = time.monotonic() + seconds

    def _wait_for_session(self, error: KafkaError) -> None:
        now = time.monotonic()
        if self._refused_since is None:
            self._refused_since = now
            _LOG.warning(
                "the group keeps the place of this --instance-id's former process until its session times out at the "
                "broker (group.consumer.session.timeout.ms); trying again for %.0f s at most",
                _REJOIN_SECONDS,
            )
        if now - self._refused_since > _REJOIN_SECONDS:
            raise exit_of(error, f"the group did not let this member in for {_REJOIN_SECONDS:.0f} s")

    def _between_consumers(self, wait_seconds: float) -> bool:
        """Whether there is no consumer now; makes one when it is time to."""
        if self._rejoin_at is None:
            return False
        left = self._rejoin_at - time.monotonic()
        if left > wait_seconds:
            time.sleep(wait_seconds)
            return True
        time.sleep(max(0.0, left))
        self._rejoin_at = None
        self._consumer = self._subscribed()
        return False

    def committed(
        self, places: Iterable[Place], pause: Callable[[float], bool], seconds: float = 30.0
    ) -> dict[Place, int | None]:
        """Committed offsets, None where there is none; waits until no commit is pending.

        Parameters
        ----------
        pause
            Waits so many seconds between questions; True ends it, with nothing.

        Raises
        ------
        RetriableError
            When there was no answer within `seconds`: another process has a transaction of this group open.
        EnvironmentFault, FencedError
            When there will be none.
        StateError
            When they are those of a topic that was deleted and created again.
        """
        wanted = [TopicPartition(*place) for place in sorted(places)]
        until = time.monotonic() + seconds
        for wait_seconds in backoffs(0.1, 1.0):
            if not wanted:
                break
            try:
                answer = self._asked(lambda timeout: self._consumer.committed(wanted, timeout=timeout))
            except KafkaException as error:
                fault: KafkaError = error.args[0]
                self._heard(fault)
                check_consumer_error(fault)
                if time.monotonic() > until:
                    raise RetriableError(f"the group's committed offsets did not come: {fault.str()}") from error
                if pause(wait_seconds):
                    return {}
                continue
            for part in answer:
                if part.error is not None:
                    check_consumer_error(part.error)
                told, known = part.metadata or "", self._ids.get(part.topic)
                if known and told.startswith(_OF_TOPIC) and told != _OF_TOPIC + known:
                    raise created_again(part.topic, told.removeprefix(_OF_TOPIC), known)
            return {(p.topic, p.partition): p.offset if p.offset >= 0 else None for p in answer}
        return {}

    def _asked(self, call: Callable[[float], _Answer]) -> _Answer:
        """What `call` answers within so many seconds: more of them each time that it does not, until it does."""
        began = time.monotonic()
        try:
            answer = call(self._call_seconds)
        except KafkaException as error:
            if error.args[0].code() == KafkaError._TIMED_OUT:
                self._call_seconds = min(2 * self._call_seconds, _CALL_SECONDS_MAX)
            raise
        # A broker that was late once more gets as long for the next question, whichever that is.
        if time.monotonic() - began < _CALL_SECONDS:
            self._call_seconds = _CALL_SECONDS
        return answer

    def commit(self, offsets: Mapping[Place, int]) -> None:
        """Commit outside of any transaction: what `--delivery at-least-once` does."""
        self._consumer.commit(offsets=self.positions(offsets), asynchronous=False)

    def positions(self, offsets: Mapping[Place, int]) -> list[TopicPartition]:
        """Offsets as they are to be committed, by whatever client."""
        return [
            TopicPartition(topic, partition, offset, _OF_TOPIC + known if (known := self._ids.get(topic)) else "")
            for (topic, partition), offset in offsets.items()
        ]

    def bounds(self, place: Place) -> tuple[int, int]:
        """First offset that the partition still holds, and its end.

        Raises
        ------
        RetriableError
            When the broker does not say.
        """
        try:
            low, high = self._asked(
                lambda timeout: self._consumer.get_watermark_offsets(TopicPartition(*place), timeout=timeout)
            )
        except KafkaException as error:
            self._heard(error.args[0])
            raise retriable_or_exit(error.args[0], f"the bounds of {place[0]}[{place[1]}] cannot be read") from error
        return int(low), int(high)

    def high(self, place: Place) -> int | None:
        """The partition's end as the last fetch saw it, without asking the broker."""
        watermarks = self._consumer.get_watermark_offsets(TopicPartition(*place), cached=True)
        return None if watermarks is None or watermarks[1] < 0 else int(watermarks[1])

    def close(self) -> None:
        """Leave; a static member's partitions stay its own until the session times out."""
        if self._rejoin_at is None:
            self._consumer.close()
