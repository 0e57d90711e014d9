"""Whether a service may do what it will have to, asked before it starts.

A finding a month from now must not be the first to learn that nobody granted Write.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Collection, Mapping, Sequence
from dataclasses import replace
from typing import Any

from confluent_kafka import Consumer, KafkaError, KafkaException, TopicCollection, TopicPartition
from confluent_kafka.admin import AclOperation, AdminClient  # type: ignore[attr-defined]

from stream.config import Settings
from stream.errors import EnvironmentFault
from stream.runtime.acls import COMMANDS, GROUPS, Acl, acls
from stream.runtime.kafka_client import answer, client_config

_LOG = logging.getLogger(__name__)
_ASK_SECONDS, _TURN_SECONDS = 5.0, 0.5
_NAMES: Mapping[AclOperation, str] = {
    AclOperation.READ: "Read",
    AclOperation.WRITE: "Write",
    AclOperation.CREATE: "Create",
    AclOperation.DESCRIBE: "Describe",
    AclOperation.DESCRIBE_CONFIGS: "DescribeConfigs",
    AclOperation.IDEMPOTENT_WRITE: "IdempotentWrite",
}
_NOT_ALLOWED = (KafkaError.TOPIC_AUTHORIZATION_FAILED, KafkaError.GROUP_AUTHORIZATION_FAILED)


def check_permissions(
    admin: AdminClient,
    settings: Settings,
    command: str,
    group: str,
    *,
    sources: Sequence[str] = (),
    but: Collection[str] = (),
    own: Collection[str] = (),
) -> None:
    """Refuse to start without a permission that the command always needs.

    Kafka tells what a principal may do with topics and groups. What it does not tell is found out when it is tried, at
    the start too: transactional ids, and creating topics. A cluster without an authorizer allows everything.

    Parameters
    ----------
    group
        The consumer group in use.
    sources
        Topics that gateways write to, of ingest.
    but
        Topics that this run does without.
    own
        Topics that are the command's own, and granted by their prefix; one that is not there yet is made later.

    Raises
    ------
    EnvironmentFault
        With every permission that is missing, and what grants them.
    """
    granted = acls(settings.topics, sources, dict.fromkeys(COMMANDS, ""), {**GROUPS, command: group})
    always = [acl for acl in granted if acl.command == command and not acl.when and acl.name not in but]
    needed = [acl for acl in always if acl.pattern == "literal"]
    needed += [
        replace(acl, name=name, operations=tuple(each for each in acl.operations if each != "Create"))
        for acl in always
        if acl.pattern == "prefixed" and acl.resource_type == "topic"
        for name in own
    ]
    allowed = _topics(admin, sorted({acl.name for acl in needed if acl.resource_type == "topic"}))
    allowed |= _groups(settings, command, sorted({acl.name for acl in needed if acl.resource_type == "group"}))
    missing = [text for acl in needed for text in _missing(acl, allowed)]
    if missing:
        raise EnvironmentFault(_sentence(settings, command, group, sources, missing))


def _missing(acl: Acl, allowed: Mapping[tuple[str, str], set[str] | None]) -> list[str]:
    may = allowed.get((acl.resource_type, acl.name))
    lacking = [] if may is None else [operation for operation in acl.operations if operation not in may]
    return [f"{', '.join(lacking)} on {acl.resource_type} {acl.name}"] if lacking else []


def _sentence(settings: Settings, command: str, group: str, sources: Sequence[str], missing: Sequence[str]) -> str:
    user = settings.kafka.properties.get("sasl.username")
    who = f"{command}'s principal{f' (sasl.username {user})' if user else ''}"
    flags = f" --source-topic {','.join(sources)}" if sources else ""
    flags += f" --group-id {command}={group}" if group != GROUPS[command] else ""
    for flag, prefix in (
        ("--topic-prefix", settings.topics.prefix),
        ("--output-prefix", settings.topics.output_prefix),
    ):
        flags += f" {flag} {prefix}" if prefix else ""
    return (
        f"kafka.bootstrap_servers {settings.kafka.bootstrap_servers}: {who} must be allowed {'; '.join(missing)}; "
        f"the broker does not allow it. Grant it what 'tidegate topics acls --only {command}{flags}' prints."
    )


def _topics(admin: AdminClient, names: Sequence[str]) -> dict[tuple[str, str], set[str] | None]:
    asked = admin.describe_topics(
        TopicCollection(list(names)), include_authorized_operations=True, request_timeout=_ASK_SECONDS
    )
    return {("topic", name): _operations(name, future) for name, future in asked.items()}


def _groups(settings: Settings, command: str, names: Sequence[str]) -> dict[tuple[str, str], set[str] | None]:
    return {("group", name): _refused(settings, command, name) for name in names}


def _refused(settings: Settings, command: str, group: str) -> set[str] | None:
    """Nothing, where the coordinator refuses to tell the group's offsets; None where it does not refuse.

    DescribeConsumerGroups would tell more, but librdkafka 2.16 aborts the process when the coordinator goes away while
    it is asked (its pull request 5397).
    """
    refused = KafkaError.GROUP_AUTHORIZATION_FAILED
    # One that reads committed records would wait for a transaction that a killed process has left open.
    asking = Consumer({**client_config(settings, command), "group.id": group, "isolation.level": "read_uncommitted"})
    deadline = time.monotonic() + _ASK_SECONDS
    try:
        while time.monotonic() < deadline:
            try:
                told = asking.committed([TopicPartition(settings.topics.events, 0)], timeout=_TURN_SECONDS)
            except KafkaException as error:
                if error.args[0].code() == refused:
                    return set()
                # A refusal to name the coordinator comes as an event, and the call just times out.
                event = asking.poll(0)
                failure = None if event is None else event.error()
                if failure is not None and failure.code() == refused:
                    return set()
            else:
                return set() if any(part.error is not None and part.error.code() == refused for part in told) else None
    finally:
        asking.close()
    return None


def _operations(name: str, future: Any) -> set[str] | None:
    """What is allowed; None where the broker does not tell, such as of what is not there."""
    try:
        told = answer(future).authorized_operations
    except KafkaException as error:
        if error.args[0].code() in _NOT_ALLOWED:
            return set()
        _LOG.debug("what is allowed on %s is not known: %s", name, error.args[0].str())
        return None
    return None if told is None else {_NAMES[operation] for operation in told if operation in _NAMES}
