"""How a batch's outcome reaches the topics: in one transaction with its offsets, or at least once."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from threading import Event
from typing import Protocol

from confluent_kafka import KafkaError, KafkaException

from stream.kafka_faults import Fault, exit_of, fault_of
from stream.runtime.faults import Aborted, backoffs
from stream.runtime.group import GroupSource
from stream.runtime.metrics import Metrics
from stream.sinks.kafka import KafkaWriter
from stream.sources.kafka import Place

_LOG = logging.getLogger(__name__)
_INIT_CALL_SECONDS = 5.0
_ABORT_SECONDS = 5.0
_FAILED = "the transaction failed"
_BY_ANOTHER = (KafkaError._FENCED, KafkaError.PRODUCER_FENCED, KafkaError.FENCED_INSTANCE_ID)


@dataclass(frozen=True, slots=True)
class Work:
    """A batch's outcome, to be written with the offsets that it came of."""

    offsets: Mapping[Place, int]
    outputs: Callable[[KafkaWriter], None]
    """Produces what others read."""
    state: Callable[[KafkaWriter], None]
    """Produces what a restart reads."""
    committed: Callable[[], None]
    """Counts it, once it is there for good."""
    inputs: int
    """Input records that it came of."""
    records: int
    """Output records."""
    size: int
    """Bytes of their keys and values."""


class Delivery(Protocol):
    """Writes one work after another; used by one thread at a time."""

    def open(self) -> None:
        """Be ready to deliver, and have nothing of an earlier process or producer pending; nothing if it is."""

    def deliver(self, work: Work) -> None:
        """Write all of `work`, or raise `Aborted`; afterwards the next one may come."""

    def settle(self, work: Work) -> None:
        """Do what is left once `work` is written; called on the source's thread, which `deliver` is not."""

    @property
    def overdue(self) -> bool:
        """Whether a call that is under way has outstayed its time-out."""

    def close(self) -> None:
        """Let go of the connections."""


class ExactlyOnce:
    """One Kafka transaction a work.

    Parameters
    ----------
    properties
        The producer's, with `transactional.id` and `transaction.timeout.ms`.
    source
        Knows the group's generation: a member that lost its partitions is refused when it sends offsets.
    transaction_seconds
        `transaction.timeout.ms`: calls that take longer are given up, since the broker aborts by then.
    stopping
        Ends waiting for a broker that is away.
    heard
        Told of faults that are met by trying again.
    was_away
        Whether the broker was out of reach a moment ago, and may have ended a transaction meanwhile.
    check
        Raises what ends the service meanwhile, such as refused credentials.
    """

    def __init__(
        self,
        properties: Mapping[str, object],
        source: Callable[[], GroupSource],
        transaction_seconds: float,
        metrics: Metrics,
        stopping: Event,
        heard: Callable[[KafkaError], None] = lambda error: None,
        check: Callable[[], None] = lambda: None,
        was_away: Callable[[], bool] = lambda: False,
    ) -> None:
        self._properties = properties
        self._was_away = was_away
        self._heard = heard
        self._check = check
        self._source = source
        self._seconds = transaction_seconds
        self._metrics = metrics
        self._stopping = stopping
        self._writer: KafkaWriter | None = None
        self._due: float | None = None
        """When the transaction that is under way must have ended."""

    @property
    def overdue(self) -> bool:
        """Whether a transaction or a call has outstayed its time-out; waiting for a broker that is away has none."""
        due = self._due
        return due is not None and time.monotonic() > due

    def open(self) -> None:
        """Fence earlier producers of this id and end what they left open; waits for the broker with back-off.

        Raises
        ------
        Aborted
            When the service is told to stop meanwhile.
        """
        if self._writer is not None:
            return
        try:
            writer = KafkaWriter(self._properties, self._seconds)
        except KafkaException as error:
            raise exit_of(error.args[0], "the transactional producer cannot be made") from error
        for wait_seconds in backoffs():
            self._due = time.monotonic() + 2 * _INIT_CALL_SECONDS
            try:
                writer.producer.init_transactions(_INIT_CALL_SECONDS)
            except KafkaException as error:
                self._due = None
                fault: KafkaError = error.args[0]
                if fault_of(fault).ends:
                    raise exit_of(fault, "the transactional producer cannot start") from error
                self._heard(fault)
                _LOG.warning("init_transactions: %s; trying again", fault.str())
                writer.producer.poll(0)  # error_cb is called from here only
                self._check()
                if self._stopping.wait(wait_seconds):
                    raise Aborted("stopped while waiting for the transaction coordinator") from error
            else:
                self._writer, self._due = writer, None
                return

    def deliver(self, work: Work) -> None:
        """Begin, produce, send offsets, commit.

        Raises
        ------
        Aborted
            When the transaction was aborted, or its end is unknown; the producer is ready for the next one.
        FencedError, EnvironmentFault
            When no further attempt would help.
        """
        if self._writer is None:
            self.open()
        writer = self._writer
        assert writer is not None
        writer.forget()
        until = time.monotonic() + self._seconds
        self._due = until + _ABORT_SECONDS
        try:
            self._transact(writer, work, until)
        finally:
            self._due = None

    def _transact(self, writer: KafkaWriter, work: Work, until: float) -> None:
        seconds = self._metrics.transaction_seconds
        try:
            began = time.perf_counter()
            writer.producer.begin_transaction()
            work.outputs(writer)
            work.state(writer)
            produced = time.perf_counter()
            offsets = self._source().positions(work.offsets)
            self._call(
                lambda left: writer.producer.send_offsets_to_transaction(offsets, self._source().metadata, left),
                until,
            )
            sent = time.perf_counter()
            self._call(writer.producer.commit_transaction, until)
        except KafkaException as error:
            self._give_up(writer, error.args[0])
        seconds.labels("produce").observe(produced - began)
        seconds.labels("offsets").observe(sent - produced)
        seconds.labels("commit").observe(time.perf_counter() - sent)
        self._metrics.transactions.labels("committed").inc()
        work.committed()

    def _call(self, call: Callable[[float], None], until: float) -> None:
        """`call` with the time that is left, again while the broker asks for it."""
        for wait_seconds in backoffs():
            left = until - time.monotonic()
            try:
                call(max(left, 0.001))
            except KafkaException as error:
                fault: KafkaError = error.args[0]
                if fault_of(fault) is not Fault.RETRY or time.monotonic() + wait_seconds > until:
                    raise
                self._heard(fault)
                self._stopping.wait(wait_seconds)
            else:
                return

    def _give_up(self, writer: KafkaWriter, error: KafkaError) -> None:
        """End a transaction that failed; always raises."""
        what, cause = _FAILED, error
        self._heard(error)
        for topic, partition, failure in writer.failures:
            # A record's own failure says more than the transaction's, which follows from it.
            what, cause = f"{topic}[{partition}] did not take a record", failure
            if fault_of(failure) is Fault.ENVIRONMENT:
                break
        faults = (self._fault_of(error), self._fault_of(cause))
        for fault, each in zip(faults, (error, cause), strict=True):
            if fault in (Fault.ENVIRONMENT, Fault.BUG):
                self._abort(writer)
                # A record that was purged because the transaction failed says less than what it failed for.
                raise exit_of(cause if faults[1] is fault else each, what if faults[1] is fault else _FAILED)
        if Fault.FENCED in faults:
            raise exit_of(error if faults[0] is Fault.FENCED else cause, what)
        result = "aborted"
        if faults[0] is Fault.REPLACE or not self._abort(writer):
            result = "unknown"
            self._discard()
        self._metrics.transactions.labels(result).inc()
        raise Aborted(f"{what}: {cause.str()} ({cause.name()})")

    def _abort(self, writer: KafkaWriter) -> bool:
        began = time.perf_counter()
        try:
            self._call(writer.producer.abort_transaction, time.monotonic() + _ABORT_SECONDS)
        except KafkaException as error:
            fault: KafkaError = error.args[0]
            _LOG.warning("abort_transaction: %s", fault.str())
            if self._fault_of(fault) is Fault.FENCED:
                raise exit_of(fault, "the transaction could not be aborted") from error
            return False
        self._metrics.transaction_seconds.labels("abort").observe(time.perf_counter() - began)
        return True

    def _fault_of(self, error: KafkaError) -> Fault:
        own = not self._source().static or self._was_away()
        if fault_of(error) is Fault.FENCED and error.code() in _BY_ANOTHER and own:
            # Nobody else has a transactional id that is random: the broker fenced it when it ended a transaction that
            # this process, frozen meanwhile, had left open for too long. So it does to any when it was out of reach.
            return Fault.REPLACE
        return fault_of(error)

    def _discard(self) -> None:
        writer, self._writer = self._writer, None
        if writer is not None:
            writer.discard()

    def settle(self, work: Work) -> None:
        """Nothing: offsets were part of the transaction."""

    def close(self) -> None:
        """Let go of the producer; what it has open is aborted by the broker, or by its successor."""
        self._discard()


class AtLeastOnce:
    """No transaction: outputs, then state, then offsets, each only when the one before is there.

    A crash between them repeats outputs. Within one partition records keep their order, and the cursor is the last
    row of a batch: state that has it has all of the batch.

    Parameters
    ----------
    properties
        The producer's, without `transactional.id`.
    """

    def __init__(
        self,
        properties: Mapping[str, object],
        source: Callable[[], GroupSource],
        patience_seconds: float,
        metrics: Metrics,
    ) -> None:
        self._properties = properties
        self._source = source
        self._seconds = patience_seconds
        self._metrics = metrics
        self._writer: KafkaWriter | None = None

    @property
    def overdue(self) -> bool:
        """Never: a flush ends at its time-out."""
        return False

    def open(self) -> None:
        """Make the producer."""
        self._writer = self._writer or KafkaWriter(self._properties, self._seconds)

    def deliver(self, work: Work) -> None:
        """Produce outputs, flush, produce state, flush.

        Raises
        ------
        Aborted
            When not all of it is known to be there; it will be written again.
        EnvironmentFault, FencedError
            When no further attempt would help.
        """
        if self._writer is None:
            self.open()
        writer = self._writer
        assert writer is not None
        writer.forget()
        began = time.perf_counter()
        try:
            work.outputs(writer)
            self._flush(writer)
            work.state(writer)
            self._flush(writer)
        except KafkaException as error:
            self.close()
            raise _not_written(error.args[0]) from error
        self._metrics.transaction_seconds.labels("produce").observe(time.perf_counter() - began)
        work.committed()

    def settle(self, work: Work) -> None:
        """Commit the offsets."""
        began = time.perf_counter()
        try:
            self._source().commit(work.offsets)
        except KafkaException as error:
            raise _not_written(error.args[0]) from error
        self._metrics.transaction_seconds.labels("offsets").observe(time.perf_counter() - began)

    def _flush(self, writer: KafkaWriter) -> None:
        left = writer.producer.flush(self._seconds)
        for _, _, failure in writer.failures:
            raise KafkaException(failure)
        if left:
            raise KafkaException(KafkaError(KafkaError._TIMED_OUT, f"{left} records were not acknowledged in time"))

    def close(self) -> None:
        """Let go of the producer."""
        writer, self._writer = self._writer, None
        if writer is not None:
            writer.discard()


def _not_written(error: KafkaError) -> Exception:
    if fault_of(error).ends:
        return exit_of(error, "the batch could not be written")
    return Aborted(f"the batch was not written: {error.str()} ({error.name()})")
