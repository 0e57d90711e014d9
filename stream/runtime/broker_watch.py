"""Whether the broker is there, lets this client in, and still has the topics that the service reads."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Mapping, Sequence
from threading import Event, Thread
from typing import Any

from confluent_kafka import KafkaError, KafkaException, TopicCollection
from confluent_kafka.admin import AdminClient

from stream.errors import EnvironmentFault, StateError, TidegateError
from stream.kafka_faults import Fault, exit_of, fault_of, group_of
from stream.runtime.metrics import Metrics

_LOG = logging.getLogger(__name__)
_TURN_SECONDS = 1.0
_ANSWER_SECONDS = 5.0
_MISSING_SECONDS = 3.0
"""A broker that has just started may not have heard of a topic yet."""
_REFUSED_SECONDS = 5.0
_REFUSED_APART_SECONDS = 20.0
"""Refusals further apart than this are two faults, not one that lasts: librdkafka tries again within 15 s
(`reconnect.backoff.max.ms`, and half of it by chance)."""
_SILENT_TURNS = 2
"""Questions in a row without an answer after which a broker is away; one may be slow under load."""
_LATELY_SECONDS = 30.0
"""A transaction that was under way when the broker went takes its own time-out longer: the call that sends its offsets
may not come back before (librdkafka 2.16; like its issues 5456 and 5511)."""
_NO_ID = "AAAAAAAAAAAAAAAAAAAAAA"
_REFUSALS = (KafkaError._AUTHENTICATION, KafkaError.SASL_AUTHENTICATION_FAILED)


class BrokerWatch:
    """Asks the broker once a second, in a thread of its own, and hears what the service's other clients complain of.

    A consumer alone does not tell: of a topic that was deleted it hears nothing, from one that was created again it
    goes on at the old offset, and where the password has changed it tries for ever.

    Parameters
    ----------
    properties
        librdkafka's, of every client.
    topics
        What the service reads.
    transaction_seconds
        `transaction.timeout.ms`: so much longer what is met counts as the outage's.
    """

    def __init__(
        self,
        properties: Mapping[str, object],
        topics: Sequence[str],
        metrics: Metrics,
        transaction_seconds: float = 0.0,
    ) -> None:
        self._topics = list(topics)
        self._lately_seconds = _LATELY_SECONDS + transaction_seconds
        self._retries = metrics.kafka_retries
        # Any: the stubs know no callbacks.
        admin: dict[str, Any] = {**properties, "error_cb": self.heard("admin")}
        self._admin = AdminClient(admin)
        self._ended = Event()
        self._away_since: float | None = None
        self._back_at = -self._lately_seconds
        self._silent = 0
        self._failed_now = False
        self._missing_since: dict[str, float] = {}
        self._refused: tuple[float, float] | None = None
        """When the credentials were first and last refused."""
        self._fault: TidegateError | None = None
        self.ids: dict[str, str] = {}
        """Topic -> its id, which another topic of the same name does not have; empty until the broker has told."""
        self._thread = Thread(target=self._run, name="broker-watch", daemon=True)

    @property
    def known(self) -> bool:
        """Whether the broker has told the ids of all topics."""
        return len(self.ids) == len(self._topics)

    def start(self) -> None:
        """Begin to ask."""
        self._thread.start()

    def close(self) -> None:
        """Ask no more."""
        self._ended.set()

    def check(self) -> None:
        """Raise what ends the service.

        Raises
        ------
        EnvironmentFault
            When a topic is gone, or this client may not go on: no permission, credentials refused.
        StateError
            When a topic is another one than at the start.
        """
        if self._fault is not None:
            raise self._fault

    def away(self) -> str | None:
        """Since when no broker answers, as a sentence; None while one does."""
        since = self._away_since
        return None if since is None else f"no broker answers for {time.monotonic() - since:.0f} s; trying again"

    def lately(self) -> bool:
        """Whether no broker answers, or none did until a moment ago: sessions and transactions may have timed out."""
        return self._away_since is not None or time.monotonic() - self._back_at < self._lately_seconds

    def heard(self, client: str) -> Callable[[KafkaError], None]:
        """What `client` is to tell its errors: its `error_cb`, and whoever tries again."""

        def hear(error: KafkaError) -> None:
            if fault_of(error) is not Fault.NOTHING:
                self._retries.labels(client, group_of(error).name).inc()
            if error.code() in _REFUSALS:
                self._hear_refusal(error)
            elif error.code() == KafkaError._ALL_BROKERS_DOWN:
                self._lose(error)

        return hear

    def _hear_refusal(self, error: KafkaError) -> None:
        now = time.monotonic()
        first, last = self._refused or (now, now)
        if now - last > _REFUSED_APART_SECONDS:
            first = now
        self._refused = (first, now)
        if now - first >= _REFUSED_SECONDS:
            self._fault = exit_of(error, "the broker refuses to let this client in again")

    # -- the thread ----------------------------------------------------------------------------------------------------

    def _run(self) -> None:
        while not self._ended.is_set():
            self._ask()
            self._ended.wait(_TURN_SECONDS)

    def _ask(self) -> None:
        self._failed_now = False
        if self._silent and not self._look_around():
            return
        asked = self._admin.describe_topics(TopicCollection(self._topics), request_timeout=_ANSWER_SECONDS)
        for topic, future in asked.items():
            try:
                told = str(future.result(2 * _ANSWER_SECONDS).topic_id)
            except KafkaException as error:
                self._failed(topic, error.args[0])
            except TimeoutError:
                self._failed(topic, KafkaError(KafkaError._TIMED_OUT, "no answer"))
            else:
                self._answered()
                self._missing_since.pop(topic, None)
                self._compare(topic, "" if told == _NO_ID else told)
        self._admin.poll(0)  # error_cb is called from here only

    def _look_around(self) -> bool:
        """Have the client learn who is the controller now; False where no broker tells.

        DescribeTopics waits for the broker that the client takes for it; where that one is gone, librdkafka 2.16 tries
        to connect without a pause, for ever. Metadata, of any broker, name another. Of all topics: asking for one makes
        a topic that was deleted, on brokers that create what they are asked for.
        """
        try:
            self._admin.list_topics(timeout=_ANSWER_SECONDS)
        except KafkaException as error:
            self._failed(self._topics[0], error.args[0])
            self._admin.poll(0)
            return False
        return True

    def _answered(self) -> None:
        self._silent = 0
        if (since := self._away_since) is not None:
            self._away_since, self._back_at = None, time.monotonic()
            _LOG.warning("a broker answers again, after %.1f s", self._back_at - since)

    def _lose(self, error: KafkaError) -> None:
        # What clients say of an outage they may say when it is over.
        if self._away_since is None and time.monotonic() - self._back_at > 2 * _TURN_SECONDS:
            self._away_since = time.monotonic()
            _LOG.warning("no broker answers: %s; trying again until one does", error.str())

    def _failed(self, topic: str, error: KafkaError) -> None:
        now = time.monotonic()
        if group_of(error).name == "no_topic":
            self._answered()
            if now - self._missing_since.setdefault(topic, now) >= _MISSING_SECONDS:
                self._fault = EnvironmentFault(
                    f"topic {topic} was deleted while it was read; what was read of it is done. Create it again, "
                    "and see docs/runbook.md, 'Input that is gone', for what becomes of offsets and state."
                )
        elif fault_of(error).ends:
            self._fault = exit_of(error, f"topic {topic} cannot be looked at any more")
        else:
            self._retries.labels("admin", group_of(error).name).inc()
            # By turns, however many topics were asked for in one.
            self._silent += not self._failed_now
            self._failed_now = True
            if self._silent >= _SILENT_TURNS:
                self._lose(error)

    def _compare(self, topic: str, told: str) -> None:
        known = self.ids.setdefault(topic, told)
        if told != known:
            self._fault = created_again(topic, known, told)


def created_again(topic: str, known: str, told: str) -> StateError:
    """The error of a topic that was deleted and created again."""
    return StateError(
        f"topic {topic} was deleted and created again: its id must be {known}, of which offsets and state tell; it is "
        f"{told}. Records of the new topic were not read from its beginning: see docs/runbook.md, 'Input that is gone'."
    )
