"""What a Kafka error asks of a service.

References
----------
librdkafka, INTRODUCTION.md: retriable, abortable and fatal errors of the transactional producer.
"""

from __future__ import annotations

import random
from collections.abc import Iterator
from enum import Enum

from confluent_kafka import KafkaError

from stream.errors import EnvironmentFault, FencedError, RetriableError, TidegateError


class Fault(Enum):
    """What to do about it."""

    RETRY = "call again"
    ABORT = "abort the transaction, restore, go on"
    REPLACE = "destroy the producer, make a new one, restore, go on"
    FENCED = "exit 6"
    ENVIRONMENT = "exit 3"


class Aborted(Exception):
    """A batch was not committed, or nobody knows whether it was: its partitions' state must be restored."""


_TIMED_OUT = (KafkaError._TIMED_OUT, KafkaError._TIMED_OUT_QUEUE, KafkaError._MSG_TIMED_OUT)
_FENCED = (
    KafkaError._FENCED,
    KafkaError._FATAL,
    KafkaError.FENCED_INSTANCE_ID,
    KafkaError.TRANSACTION_COORDINATOR_FENCED,
)
_TOO_LARGE = (KafkaError.MSG_SIZE_TOO_LARGE, KafkaError.RECORD_LIST_TOO_LARGE)
_NO_TOPIC = (KafkaError.UNKNOWN_TOPIC_OR_PART,)
_NOT_ALLOWED = (
    KafkaError.TOPIC_AUTHORIZATION_FAILED,
    KafkaError.GROUP_AUTHORIZATION_FAILED,
    KafkaError.CLUSTER_AUTHORIZATION_FAILED,
    KafkaError.TRANSACTIONAL_ID_AUTHORIZATION_FAILED,
)
_NO_CREDENTIALS = (KafkaError._AUTHENTICATION, KafkaError.SASL_AUTHENTICATION_FAILED)
_NEVER_MENDED = (
    *_TOO_LARGE,
    *_NO_TOPIC,
    *_NOT_ALLOWED,
    *_NO_CREDENTIALS,
    KafkaError.INVALID_TIMESTAMP,
    KafkaError.INVALID_TRANSACTION_TIMEOUT,
)


def fault_of(error: KafkaError) -> Fault:
    """What `error`, of a transactional call or of a record's delivery, asks for.

    What librdkafka gives no class for is answered with a new producer: it is in a state that nobody planned.
    """
    code = error.code()
    # What a broker will refuse again comes first: librdkafka reports it as abortable, and an abort would come for ever.
    if code in _NEVER_MENDED:
        return Fault.ENVIRONMENT
    if error.fatal() or code in _FENCED:
        return Fault.FENCED
    if code in _TIMED_OUT:
        return Fault.REPLACE
    if error.txn_requires_abort():
        return Fault.ABORT
    if error.retriable():
        return Fault.RETRY
    return Fault.REPLACE


def exit_of(error: KafkaError, what: str) -> TidegateError:
    """The exit that `error` ends a service with, as a sentence with its remedy."""
    code = error.code()
    said = f"{what}: {error.str()} ({error.name()})"
    if fault_of(error) is Fault.FENCED:
        return FencedError(
            f"{said}. Another process may run with the same --instance-id; stop one of them and start again."
        )
    if code in _TOO_LARGE:
        return EnvironmentFault(
            f"{said}. Raise max.message.bytes of the topic: `tidegate topics check` names what is needed."
        )
    if code in _NO_TOPIC:
        return EnvironmentFault(
            f"{said}. Create the topic, with topics.partitions partitions: `tidegate topics create`."
        )
    if code in _NOT_ALLOWED:
        return EnvironmentFault(
            f"{said}. Grant this client's principal what it needs: see the table of permissions in docs/runbook.md."
        )
    if code in _NO_CREDENTIALS:
        return EnvironmentFault(f"{said}. Check the SASL settings under [kafka.properties].")
    if code == KafkaError.INVALID_TIMESTAMP:
        return EnvironmentFault(
            f"{said}. Set this machine's clock, or the topic's message.timestamp.type back to CreateTime."
        )
    return EnvironmentFault(f"{said}. Check the broker and the settings under [kafka].")


def retriable_or_exit(error: KafkaError, what: str) -> Exception:
    """What a question to the broker that failed with `error` is raised as: worth asking again, or not."""
    if fault_of(error) in (Fault.FENCED, Fault.ENVIRONMENT):
        return exit_of(error, what)
    return RetriableError(f"{what}: {error.str()} ({error.name()})")


def backoffs(first_seconds: float = 0.05, most_seconds: float = 5.0) -> Iterator[float]:
    """Seconds to wait before each further attempt: doubling up to a bound, anywhere in the upper half of it.

    Jitter keeps a fleet that lost its broker from coming back in step.
    """
    most = first_seconds
    while True:
        yield random.uniform(most / 2, most)
        most = min(2 * most, most_seconds)
