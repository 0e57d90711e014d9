"""What every Kafka error asks for: one table, from which services act, exit, count and document.

References
----------
librdkafka, INTRODUCTION.md: retriable, abortable and fatal errors of the transactional producer.
"""

from __future__ import annotations

import logging
from dataclasses import dataclass
from enum import Enum

from confluent_kafka import KafkaError

from stream.errors import EnvironmentFault, FencedError, TidegateError

_LOG = logging.getLogger(__name__)


class Fault(Enum):
    """What to do about it."""

    NOTHING = "nothing: it says how things stand"
    RETRY = "try again, with jittered back-off"
    ABORT = "abort the transaction, restore, go on"
    REPLACE = "destroy the producer, make a new one, restore, go on"
    REWIND = "commit what is under way, look at what the partition still holds, go on or exit 3"
    REJOIN = "close the consumer, make a new one until the group lets it in; after 90 s exit 6"
    FENCED = "exit 6"
    ENVIRONMENT = "exit 3"
    BUG = "exit 1"

    @property
    def ends(self) -> bool:
        """Whether it ends the service, whatever is tried."""
        return self in (Fault.FENCED, Fault.ENVIRONMENT, Fault.BUG)


@dataclass(frozen=True, slots=True)
class Group:
    """Errors that ask for the same."""

    name: str
    """What `tidegate_kafka_retries_total` calls them."""
    fault: Fault
    meaning: str
    remedy: str
    """The end of the sentence of whoever is ended by it."""
    codes: tuple[str, ...]
    """Names of `KafkaError`'s codes."""


GROUPS: tuple[Group, ...] = (
    Group(
        "told", Fault.NOTHING, "no fault", "Nothing has to be done.",
        ("NO_ERROR", "_PARTITION_EOF", "_ASSIGN_PARTITIONS", "_REVOKE_PARTITIONS", "_NOOP"),
    ),
    Group(
        "unreachable", Fault.RETRY, "a broker cannot be reached",
        "Start Kafka, or look at the network between here and kafka.bootstrap_servers.",
        (
            "_TRANSPORT", "_RESOLVE", "_ALL_BROKERS_DOWN", "_NODE_UPDATE", "_UNKNOWN_BROKER", "_DESTROY_BROKER",
            "_FAIL", "_WAIT_CACHE", "NETWORK_EXCEPTION", "BROKER_NOT_AVAILABLE", "LISTENER_NOT_FOUND",
            "REBOOTSTRAP_REQUIRED",
        ),
    ),
    Group(
        "leader", Fault.RETRY, "a partition's leader changes, or too few replicas are in sync",
        "Bring the partition's brokers back.",
        (
            "LEADER_NOT_AVAILABLE", "NOT_LEADER_FOR_PARTITION", "REPLICA_NOT_AVAILABLE", "FENCED_LEADER_EPOCH",
            "UNKNOWN_LEADER_EPOCH", "OFFSET_NOT_AVAILABLE", "PREFERRED_LEADER_NOT_AVAILABLE",
            "ELIGIBLE_LEADERS_NOT_AVAILABLE", "ELECTION_NOT_NEEDED", "NOT_ENOUGH_REPLICAS",
            "NOT_ENOUGH_REPLICAS_AFTER_APPEND", "_ISR_INSUFF", "KAFKA_STORAGE_ERROR", "LOG_DIR_NOT_FOUND",
            "STALE_BROKER_EPOCH", "STALE_CTRL_EPOCH", "NOT_CONTROLLER", "UNKNOWN_CONTROLLER_ID",
            "REASSIGNMENT_IN_PROGRESS", "NO_REASSIGNMENT_IN_PROGRESS", "FETCH_SESSION_ID_NOT_FOUND",
            "INVALID_FETCH_SESSION_EPOCH",
            # The client's own knowledge of topics lags behind a restart or a deletion; the broker watch tells which.
            "_UNKNOWN_PARTITION", "_NOENT", "UNKNOWN_TOPIC_ID", "INCONSISTENT_TOPIC_ID",
        ),
    ),
    Group(
        "coordinator", Fault.RETRY, "a group's or transaction's coordinator moves, loads or is busy",
        "Bring the brokers back that hold __consumer_offsets and __transaction_state.",
        (
            "COORDINATOR_LOAD_IN_PROGRESS", "COORDINATOR_NOT_AVAILABLE", "NOT_COORDINATOR", "CONCURRENT_TRANSACTIONS",
            "UNSTABLE_OFFSET_COMMIT", "_WAIT_COORD", "REQUEST_TIMED_OUT", "_RETRY",
        ),
    ),
    Group(
        "throttled", Fault.RETRY, "a quota or a full queue", "Raise this client's quota.",
        ("THROTTLING_QUOTA_EXCEEDED", "_QUEUE_FULL"),
    ),
    Group(
        "rebalance", Fault.ABORT, "the group moves on without this member's generation",
        "The group's other members have its partitions.",
        (
            "REBALANCE_IN_PROGRESS", "MEMBER_ID_REQUIRED", "ILLEGAL_GENERATION", "UNKNOWN_MEMBER_ID",
            "STALE_MEMBER_EPOCH", "FENCED_MEMBER_EPOCH", "GROUP_ID_NOT_FOUND", "_ASSIGNMENT_LOST",
            "_MAX_POLL_EXCEEDED",
        ),
    ),
    Group(
        "aborted", Fault.ABORT, "a record or the transaction was given up", "It is done again.",
        ("TRANSACTION_ABORTABLE", "_PURGE_QUEUE", "_PURGE_INFLIGHT", "_INVALID_DIFFERENT_RECORD"),
    ),
    Group(
        "timeout", Fault.REPLACE, "nobody knows whether the broker did it", "Look at the broker's load and log.",
        ("_TIMED_OUT", "_TIMED_OUT_QUEUE", "_MSG_TIMED_OUT"),
    ),
    Group(
        "producer", Fault.REPLACE, "the producer is in a state that nobody planned",
        "Look at the broker's log.",
        (
            "UNKNOWN", "INVALID_TXN_STATE", "INVALID_PRODUCER_EPOCH", "INVALID_PRODUCER_ID_MAPPING",
            "UNKNOWN_PRODUCER_ID", "OUT_OF_ORDER_SEQUENCE_NUMBER", "DUPLICATE_SEQUENCE_NUMBER", "_GAPLESS_GUARANTEE",
            "_INCONSISTENT", "_STATE", "_CONFLICT", "_PREV_IN_PROGRESS", "_IN_PROGRESS", "_OUTDATED", "_INTR",
            "_DESTROY",
        ),
    ),
    Group(
        "offset", Fault.REWIND, "the offset is not on the topic, any more or yet",
        "Retention removed what follows, or the topic is another one: docs/runbook.md, 'Input that is gone'.",
        ("OFFSET_OUT_OF_RANGE", "_AUTO_OFFSET_RESET", "_LOG_TRUNCATION", "_NO_OFFSET"),
    ),
    Group(
        "unreleased", Fault.REJOIN, "a killed static member's session is not over (KIP-848)",
        "Another process runs with the same --instance-id, or the broker's group.consumer.session.timeout.ms is longer "
        "than this one has waited. Stop the other, or start again.",
        ("UNRELEASED_INSTANCE_ID",),
    ),
    Group(
        "fenced", Fault.FENCED, "somebody newer has this identity, or the client cannot go on",
        "Start this process again. Where it happens again, another process runs with the same --instance-id; stop one.",
        ("_FENCED", "_FATAL", "FENCED_INSTANCE_ID", "TRANSACTION_COORDINATOR_FENCED", "PRODUCER_FENCED"),
    ),
    Group(
        "too_large", Fault.ENVIRONMENT, "a record is larger than its topic takes",
        "Raise max.message.bytes of the topic: `tidegate topics check` names what is needed.",
        ("MSG_SIZE_TOO_LARGE", "RECORD_LIST_TOO_LARGE", "INVALID_MSG_SIZE"),
    ),
    Group(
        "no_topic", Fault.ENVIRONMENT, "a topic is missing",
        "Create the topic, with topics.partitions partitions: `tidegate topics create`.",
        ("UNKNOWN_TOPIC_OR_PART", "_UNKNOWN_TOPIC", "TOPIC_EXCEPTION"),
    ),
    Group(
        "not_allowed", Fault.ENVIRONMENT, "a permission is missing or was withdrawn",
        "Grant this client's principal what it needs: see the table of permissions in docs/runbook.md.",
        (
            "TOPIC_AUTHORIZATION_FAILED", "GROUP_AUTHORIZATION_FAILED", "CLUSTER_AUTHORIZATION_FAILED",
            "TRANSACTIONAL_ID_AUTHORIZATION_FAILED", "DELEGATION_TOKEN_AUTHORIZATION_FAILED",
            "PRINCIPAL_DESERIALIZATION_FAILURE",
        ),
    ),
    Group(
        "credentials", Fault.ENVIRONMENT, "the broker refuses the credentials or the connection's security",
        "Check the SASL settings under [kafka.properties], sasl.* and ssl.*: they may have been changed.",
        (
            "_AUTHENTICATION", "_SSL", "SASL_AUTHENTICATION_FAILED", "UNSUPPORTED_SASL_MECHANISM",
            "ILLEGAL_SASL_STATE", "SECURITY_DISABLED", "DELEGATION_TOKEN_AUTH_DISABLED", "DELEGATION_TOKEN_NOT_FOUND",
            "DELEGATION_TOKEN_OWNER_MISMATCH", "DELEGATION_TOKEN_REQUEST_NOT_ALLOWED", "DELEGATION_TOKEN_EXPIRED",
            "INVALID_PRINCIPAL_TYPE", "UNACCEPTABLE_CREDENTIAL",
        ),
    ),
    Group(
        "clock", Fault.ENVIRONMENT, "the broker does not take a record's time",
        "Set this machine's clock, or the topic's message.timestamp.type back to CreateTime.",
        ("INVALID_TIMESTAMP",),
    ),
    Group(
        "membership", Fault.ENVIRONMENT, "the consumer group does not take this member",
        "Set kafka.session_timeout_ms between the broker's group.min.session.timeout.ms and "
        "group.max.session.timeout.ms, and kafka.group_protocol as the group's other members have it, or name another "
        "--group-id.",
        (
            "INVALID_SESSION_TIMEOUT", "INCONSISTENT_GROUP_PROTOCOL", "UNSUPPORTED_ASSIGNOR", "INVALID_GROUP_ID",
            "GROUP_MAX_SIZE_REACHED",
        ),
    ),
    Group(
        "damaged", Fault.ENVIRONMENT, "records on the broker cannot be read: librdkafka would pass over them",
        "Check the broker's disks; restore the partition from a replica that is whole.",
        ("_BAD_MSG", "_BAD_COMPRESSION", "_UNDERFLOW", "_PARTIAL", "_NOT_IMPLEMENTED", "INVALID_MSG"),
    ),
    Group(
        "settings", Fault.ENVIRONMENT, "broker, topic and client are not set up for each other",
        "Check the broker and the settings under [kafka].",
        (
            "INVALID_TRANSACTION_TIMEOUT", "INVALID_REQUIRED_ACKS", "INVALID_CONFIG", "POLICY_VIOLATION",
            "UNSUPPORTED_VERSION", "_UNSUPPORTED_FEATURE", "UNSUPPORTED_FOR_MESSAGE_FORMAT",
            "UNSUPPORTED_COMPRESSION_TYPE", "INVALID_RECORD", "OFFSET_METADATA_TOO_LARGE",
            "INVALID_COMMIT_OFFSET_SIZE", "INVALID_PARTITIONS", "INVALID_REPLICATION_FACTOR",
            "INVALID_REPLICA_ASSIGNMENT", "TOPIC_ALREADY_EXISTS", "TOPIC_DELETION_DISABLED", "NON_EMPTY_GROUP",
            "GROUP_SUBSCRIBED_TO_TOPIC", "_CRIT_SYS_RESOURCE", "_FS", "MISMATCHED_ENDPOINT_TYPE",
            "UNSUPPORTED_ENDPOINT_TYPE",
        ),
    ),
    Group(
        "bug", Fault.BUG, "nothing that this program should ask for or be told",
        "This is a bug: keep the log and start again; nothing is lost.",
        (
            "_INVALID_ARG", "_INVALID_TYPE", "_EXISTING_SUBSCRIPTION", "_UNKNOWN_GROUP", "_UNKNOWN_PROTOCOL",
            "_KEY_SERIALIZATION", "_VALUE_SERIALIZATION", "_KEY_DESERIALIZATION", "_VALUE_DESERIALIZATION",
            "_READ_ONLY", "_NOT_CONFIGURED", "_APPLICATION", "INVALID_REQUEST", "OPERATION_NOT_ATTEMPTED",
            "RESOURCE_NOT_FOUND", "DUPLICATE_RESOURCE", "INVALID_REGULAR_EXPRESSION", "FEATURE_UPDATE_FAILED",
            "INVALID_UPDATE_VERSION",
            # Between brokers and controllers.
            "INCONSISTENT_VOTER_SET", "INVALID_VOTER_KEY", "DUPLICATE_VOTER", "VOTER_NOT_FOUND", "INVALID_REGISTRATION",
            # Telemetry, share groups and Kafka Streams.
            "UNKNOWN_SUBSCRIPTION_ID", "TELEMETRY_TOO_LARGE", "INVALID_RECORD_STATE", "SHARE_SESSION_NOT_FOUND",
            "INVALID_SHARE_SESSION_EPOCH", "SHARE_SESSION_LIMIT_REACHED", "FENCED_STATE_EPOCH",
            "STREAMS_INVALID_TOPOLOGY", "STREAMS_INVALID_TOPOLOGY_EPOCH", "STREAMS_TOPOLOGY_FENCED",
        ),
    ),
)  # fmt: skip
"""Every code of the client library. Within a group the flags that librdkafka sets on an error come first."""

_PLANNED: dict[int, Group] = {
    getattr(KafkaError, name): group for group in GROUPS for name in group.codes if hasattr(KafkaError, name)
}
_UNPLANNED = next(group for group in GROUPS if group.name == "producer")


def group_of(error: KafkaError) -> Group:
    """The group of `error`, or of what a fatal one was caused by."""
    return _PLANNED.get(cause_of(error), _UNPLANNED)


def cause_of(error: KafkaError) -> int:
    """Code of `error`; of a consumer's fatal one that of its cause, which is told in words only."""
    if error.code() == KafkaError._FATAL:
        for code in (KafkaError.UNRELEASED_INSTANCE_ID, KafkaError.FENCED_INSTANCE_ID):
            if KafkaError(code).str() in error.str():
                return code
    return error.code()


def fault_of(error: KafkaError) -> Fault:
    """What `error` asks for, whether of a call, of a record's delivery or of a consumer.

    What librdkafka flags as fatal, abortable or retriable is taken so; the table says the rest.
    """
    fault = group_of(error).fault
    # What a broker will refuse again comes first: librdkafka reports it as abortable, and an abort would come for ever.
    if fault in (Fault.ENVIRONMENT, Fault.REJOIN):
        return fault
    if error.fatal():
        # After a coordinator's death an abort may find the transaction ended already: nobody else has fenced this one.
        return Fault.REPLACE if error.code() == KafkaError.INVALID_TXN_STATE else Fault.FENCED
    # A timed-out call is flagged retriable, and its producer may hang for ever.
    if fault is Fault.FENCED or error.code() in _TIMED_OUT:
        return fault
    if error.txn_requires_abort():
        return Fault.ABORT
    if error.retriable():
        return Fault.RETRY
    return fault


_TIMED_OUT = (KafkaError._TIMED_OUT, KafkaError._TIMED_OUT_QUEUE, KafkaError._MSG_TIMED_OUT)


def exit_of(error: KafkaError, what: str) -> TidegateError:
    """The exit that `error` ends a service with, as a sentence with its remedy."""
    fault, group = fault_of(error), group_of(error)
    if fault is Fault.FENCED and group.fault is not Fault.FENCED:
        group = _PLANNED[KafkaError._FATAL]
    said = f"{what}: {error.str()} ({error.name()}). {group.remedy}"
    if fault in (Fault.FENCED, Fault.REJOIN):
        return FencedError(said)
    return TidegateError(said) if fault is Fault.BUG else EnvironmentFault(said)


def check_consumer_error(error: KafkaError, what: str = "the consumer cannot go on") -> None:
    """Raise for what no waiting mends; anything else is librdkafka's to retry, and is logged.

    Raises
    ------
    FencedError, EnvironmentFault, TidegateError
        With the exit code that the table asks for.
    """
    fault = fault_of(error)
    if fault.ends or fault in (Fault.REWIND, Fault.REJOIN):
        raise exit_of(error, what)
    if fault is not Fault.NOTHING and error.code() != KafkaError._TIMED_OUT:
        _LOG.warning("consumer: %s", error.str())
