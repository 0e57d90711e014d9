"""What a Kafka error asks of a service."""

from itertools import islice

import pytest
from confluent_kafka import KafkaError

from stream.errors import EnvironmentFault, FencedError, RetriableError
from stream.runtime.faults import Fault, backoffs, exit_of, fault_of, retriable_or_exit


@pytest.mark.parametrize(
    ("error", "fault"),
    [
        (KafkaError(KafkaError._TIMED_OUT, retriable=True), Fault.REPLACE),
        (KafkaError(KafkaError._TIMED_OUT, txn_requires_abort=True), Fault.REPLACE),
        (KafkaError(KafkaError._FENCED, fatal=True), Fault.FENCED),
        (KafkaError(KafkaError._FENCED), Fault.FENCED),
        (KafkaError(KafkaError.FENCED_INSTANCE_ID, txn_requires_abort=True), Fault.FENCED),
        (KafkaError(KafkaError.INVALID_TXN_STATE, fatal=True), Fault.FENCED),
        (KafkaError(KafkaError.ILLEGAL_GENERATION, txn_requires_abort=True), Fault.ABORT),
        (KafkaError(KafkaError.UNKNOWN_MEMBER_ID, txn_requires_abort=True), Fault.ABORT),
        (KafkaError(KafkaError.COORDINATOR_LOAD_IN_PROGRESS, retriable=True), Fault.RETRY),
        (KafkaError(KafkaError._STATE), Fault.REPLACE),
        (KafkaError(KafkaError.MSG_SIZE_TOO_LARGE, txn_requires_abort=True), Fault.ENVIRONMENT),
        (KafkaError(KafkaError.INVALID_TIMESTAMP, txn_requires_abort=True), Fault.ENVIRONMENT),
        (KafkaError(KafkaError.TOPIC_AUTHORIZATION_FAILED, txn_requires_abort=True), Fault.ENVIRONMENT),
        (KafkaError(KafkaError.TRANSACTIONAL_ID_AUTHORIZATION_FAILED, fatal=True), Fault.ENVIRONMENT),
        (KafkaError(KafkaError._UNKNOWN_PARTITION, txn_requires_abort=True), Fault.ABORT),
    ],
    ids=lambda value: value.name() if isinstance(value, KafkaError) else value.name,
)
def test_fault_of_an_error(error: KafkaError, fault: Fault) -> None:
    assert fault_of(error) is fault


@pytest.mark.parametrize(
    ("code", "kind", "remedy"),
    [
        (KafkaError._FENCED, FencedError, "--instance-id"),
        (KafkaError.MSG_SIZE_TOO_LARGE, EnvironmentFault, "max.message.bytes"),
        (KafkaError.UNKNOWN_TOPIC_OR_PART, EnvironmentFault, "tidegate topics create"),
        (KafkaError.TOPIC_AUTHORIZATION_FAILED, EnvironmentFault, "docs/runbook.md"),
        (KafkaError.SASL_AUTHENTICATION_FAILED, EnvironmentFault, "SASL"),
        (KafkaError.INVALID_TIMESTAMP, EnvironmentFault, "clock"),
        (KafkaError.INVALID_TRANSACTION_TIMEOUT, EnvironmentFault, "settings under"),
    ],
)
def test_an_exit_says_what_to_do(code: int, kind: type[Exception], remedy: str) -> None:
    error = exit_of(KafkaError(code, "the broker's words"), "scores[3] did not take a record")
    assert isinstance(error, kind)
    assert str(error).startswith("scores[3] did not take a record: the broker's words (")
    assert remedy in str(error)


def test_a_question_that_failed_is_asked_again_unless_the_answer_is_no() -> None:
    away = retriable_or_exit(KafkaError(KafkaError.FENCED_LEADER_EPOCH), "the ends of t cannot be read")
    assert isinstance(away, RetriableError)
    refused = retriable_or_exit(KafkaError(KafkaError.TOPIC_AUTHORIZATION_FAILED), "the ends of t cannot be read")
    assert isinstance(refused, EnvironmentFault)


def test_waits_double_up_to_a_bound_and_never_come_in_step() -> None:
    first, second = (list(islice(backoffs(0.1, 2.0), 9)) for _ in range(2))
    bounds = [0.1, 0.2, 0.4, 0.8, 1.6, 2.0, 2.0, 2.0, 2.0]
    assert all(bound / 2 <= wait <= bound for wait, bound in zip(first, bounds, strict=True))
    assert first != second
