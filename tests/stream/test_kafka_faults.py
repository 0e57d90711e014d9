"""What a Kafka error asks of a service."""

from collections import Counter

import pytest
from confluent_kafka import KafkaError

from stream.errors import EnvironmentFault, FencedError, TidegateError
from stream.kafka_faults import GROUPS, Fault, cause_of, check_consumer_error, exit_of, fault_of, group_of

CODES = {name for name in dir(KafkaError) if isinstance(getattr(KafkaError, name), int)}
UNRELEASED = KafkaError(
    KafkaError._FATAL, f"Fatal error: {KafkaError(KafkaError.UNRELEASED_INSTANCE_ID).str()}: heartbeat"
)


def test_every_code_of_the_client_library_has_its_place_and_no_other_has() -> None:
    told = Counter(name for group in GROUPS for name in group.codes)
    assert CODES - told.keys() == set(), "add to a group of stream/kafka_faults.py what the library has"
    assert told.keys() - CODES == set(), "the library has no such code"
    assert [name for name, times in told.items() if times > 1] == []


@pytest.mark.parametrize(
    ("error", "fault"),
    [
        (KafkaError(KafkaError._TIMED_OUT, retriable=True), Fault.REPLACE),
        (KafkaError(KafkaError._TIMED_OUT, txn_requires_abort=True), Fault.REPLACE),
        (KafkaError(KafkaError._FENCED, fatal=True), Fault.FENCED),
        (KafkaError(KafkaError._FENCED), Fault.FENCED),
        (KafkaError(KafkaError.FENCED_INSTANCE_ID, txn_requires_abort=True), Fault.FENCED),
        (KafkaError(KafkaError.INVALID_TXN_STATE, fatal=True), Fault.REPLACE),
        (KafkaError(KafkaError.OUT_OF_ORDER_SEQUENCE_NUMBER, fatal=True), Fault.FENCED),
        (KafkaError(KafkaError.INVALID_PRODUCER_EPOCH, txn_requires_abort=True), Fault.ABORT),
        (KafkaError(KafkaError.ILLEGAL_GENERATION, txn_requires_abort=True), Fault.ABORT),
        (KafkaError(KafkaError.UNKNOWN_MEMBER_ID, txn_requires_abort=True), Fault.ABORT),
        (KafkaError(KafkaError.COORDINATOR_LOAD_IN_PROGRESS, retriable=True), Fault.RETRY),
        (KafkaError(KafkaError.OUT_OF_ORDER_SEQUENCE_NUMBER, retriable=True), Fault.RETRY),
        (KafkaError(KafkaError.MSG_SIZE_TOO_LARGE, txn_requires_abort=True), Fault.ENVIRONMENT),
        (KafkaError(KafkaError.INVALID_TIMESTAMP, txn_requires_abort=True), Fault.ENVIRONMENT),
        (KafkaError(KafkaError.TOPIC_AUTHORIZATION_FAILED, txn_requires_abort=True), Fault.ENVIRONMENT),
        (KafkaError(KafkaError.TRANSACTIONAL_ID_AUTHORIZATION_FAILED, fatal=True), Fault.ENVIRONMENT),
        (KafkaError(KafkaError._UNKNOWN_PARTITION, txn_requires_abort=True), Fault.ABORT),
        (KafkaError(KafkaError._INVALID_ARG, txn_requires_abort=True), Fault.ABORT),
        (UNRELEASED, Fault.REJOIN),
    ],
    ids=lambda value: value.name() if isinstance(value, KafkaError) else value.name,
)
def test_flags_of_librdkafka_win_but_over_what_is_never_mended_or_may_hang(error: KafkaError, fault: Fault) -> None:
    assert fault_of(error) is fault


@pytest.mark.parametrize(
    ("code", "fault"),
    [
        (KafkaError._STATE, Fault.REPLACE),
        (KafkaError.CONCURRENT_TRANSACTIONS, Fault.RETRY),
        (KafkaError._AUTO_OFFSET_RESET, Fault.REWIND),
        (KafkaError._BAD_MSG, Fault.ENVIRONMENT),
        (KafkaError._PARTITION_EOF, Fault.NOTHING),
        (KafkaError.INVALID_REQUEST, Fault.BUG),
        (-999, Fault.REPLACE),
    ],
)
def test_the_table_speaks_where_no_flag_does(code: int, fault: Fault) -> None:
    assert fault_of(KafkaError(code)) is fault


@pytest.mark.parametrize(
    ("code", "kind", "remedy"),
    [
        (KafkaError._FENCED, FencedError, "--instance-id"),
        (KafkaError.UNRELEASED_INSTANCE_ID, FencedError, "group.consumer.session.timeout.ms"),
        (KafkaError.MSG_SIZE_TOO_LARGE, EnvironmentFault, "max.message.bytes"),
        (KafkaError.UNKNOWN_TOPIC_OR_PART, EnvironmentFault, "tidegate topics create"),
        (KafkaError.TOPIC_AUTHORIZATION_FAILED, EnvironmentFault, "docs/runbook.md"),
        (KafkaError.SASL_AUTHENTICATION_FAILED, EnvironmentFault, "SASL"),
        (KafkaError.INVALID_TIMESTAMP, EnvironmentFault, "clock"),
        (KafkaError.INVALID_SESSION_TIMEOUT, EnvironmentFault, "kafka.session_timeout_ms"),
        (KafkaError._BAD_COMPRESSION, EnvironmentFault, "disks"),
        (KafkaError.INVALID_TRANSACTION_TIMEOUT, EnvironmentFault, "settings under"),
        (KafkaError.INVALID_REQUEST, TidegateError, "bug"),
    ],
)
def test_an_exit_says_what_to_do(code: int, kind: type[TidegateError], remedy: str) -> None:
    error = exit_of(KafkaError(code, "the broker's words"), "scores[3] did not take a record")
    assert type(error) is kind
    assert str(error).startswith("scores[3] did not take a record: the broker's words (")
    assert remedy in str(error)


def test_a_fatal_error_is_told_as_one_whatever_its_code() -> None:
    error = exit_of(KafkaError(KafkaError.OUT_OF_ORDER_SEQUENCE_NUMBER, fatal=True), "the transaction failed")
    assert isinstance(error, FencedError)
    assert "Start this process again" in str(error)


def test_a_consumer_ends_by_what_no_waiting_mends_and_by_nothing_else() -> None:
    ended = set()
    for group in GROUPS:
        for name in group.codes:
            try:
                check_consumer_error(KafkaError(getattr(KafkaError, name)))
            except TidegateError:
                ended.add(group.name)
    assert ended == {group.name for group in GROUPS if group.fault.ends} | {"offset", "unreleased"}


def test_a_fatal_error_of_a_session_that_is_not_over_belongs_to_its_own_group() -> None:
    assert group_of(UNRELEASED).name == "unreleased"
    assert group_of(KafkaError(KafkaError._FATAL)).name == "fenced"
    fenced = KafkaError(KafkaError._FATAL, KafkaError(KafkaError.FENCED_INSTANCE_ID).str())
    assert cause_of(fenced) == KafkaError.FENCED_INSTANCE_ID
