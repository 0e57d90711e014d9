"""Topics that only the feedback worker uses, and how long the topics that it joins must keep what it joins."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from dataclasses import dataclass

from confluent_kafka import KafkaError, KafkaException
from confluent_kafka.admin import ConfigResource, NewTopic, ResourceType  # type: ignore[attr-defined]

from stream.config import Settings
from stream.errors import EnvironmentFault
from stream.runtime.broker import Broker
from stream.runtime.kafka_client import answer, explain_kafka_error

_LOG = logging.getLogger(__name__)
_DAY_MS = 86_400_000
_BATCH_BYTES = 65_536
"""What Kafka adds to a record's value, its key and the batch's head included."""
_SEGMENT_BYTES = str(64 * 2**20)
MESSAGE_BYTES_MAX = 8 * 2**20
"""`max.message.bytes` of own topics: a row holds a finding and a verdict of each analyst, all at their largest (1 MiB,
64 of 64 KiB), and its events. A record that a topic refuses would stop the worker at every start."""
_COMPACT = {
    "cleanup.policy": "compact",
    "segment.bytes": _SEGMENT_BYTES,
    "min.cleanable.dirty.ratio": "0.2",
    "max.message.bytes": str(MESSAGE_BYTES_MAX + _BATCH_BYTES),
}


@dataclass(frozen=True, slots=True)
class OwnTopics:
    """Names of the worker's own topics: the topics' prefix, the group, and what they hold."""

    by_finding: str
    """Findings, scores and verdicts with the finding's uid for key."""
    rows: str
    """Changelog of the joined rows."""
    tally: str
    """Judged findings, on one partition: whoever reads it counts them all."""
    counts: str
    """Changelog of what is counted."""

    @classmethod
    def of(cls, settings: Settings, group: str) -> OwnTopics:
        """The topics of one group.

        >>> OwnTopics.of(Settings(), "tidegate.feedback").tally
        'tidegate.feedback-tally'
        """
        base = f"{settings.topics.prefix}{group}"
        return cls(f"{base}-by-finding", f"{base}-rows-changelog", f"{base}-tally", f"{base}-counts-changelog")


def ensure(broker: Broker, settings: Settings, own: OwnTopics) -> None:
    """Create what is missing of `own`, and check the rest.

    Faust would create them with the broker's defaults: a changelog that is deleted by time loses findings that nobody
    has judged yet, and so does a topic between two agents while the worker is down.

    Raises
    ------
    EnvironmentFault
        When one cannot be created, has another number of partitions, or would lose records.
    """
    count = settings.topics.partitions
    # A record is re-keyed and joined within seconds; what waits longer waits for a worker that is down.
    kept = {
        "cleanup.policy": "delete",
        "retention.ms": str(settings.feedback.verdict_days * _DAY_MS),
        "max.message.bytes": _COMPACT["max.message.bytes"],
    }
    wanted = {
        own.by_finding: (count, kept),
        own.rows: (count, _COMPACT),
        own.tally: (1, _COMPACT),
        own.counts: (1, _COMPACT),
    }
    missing = {name: given for name, given in wanted.items() if name not in broker}
    requests = [NewTopic(name, number, -1, config=config) for name, (number, config) in missing.items()]
    for name, future in broker.admin.create_topics(requests).items() if requests else ():
        try:
            answer(future)
        except KafkaException as error:
            if error.args[0].code() != KafkaError.TOPIC_ALREADY_EXISTS:
                raise EnvironmentFault(
                    f"topic {name} cannot be created: {explain_kafka_error(error, settings)} Grant feedback what "
                    "'tidegate topics acls --only feedback' prints."
                ) from error
    for name, (number, _) in wanted.items():
        if name not in missing and broker.partitions(name) != number:
            raise EnvironmentFault(
                f"topic {name} must have {number} partition{'s' if number > 1 else ''}; it has "
                f"{broker.partitions(name)}. Name another --group-id, which makes topics of its own and reads "
                "everything anew, or set topics.partitions to the number that it was made with."
            )
    present = [name for name in wanted if name not in missing]
    if wrong := own_problems(own, configs(broker, settings, present)):
        raise EnvironmentFault("\n".join(wrong))


def own_problems(own: OwnTopics, configs: Mapping[str, Mapping[str, str]]) -> list[str]:
    """What of own topics that are there would lose findings or stop the worker, with the remedy.

    >>> own = OwnTopics.of(Settings(), "g")
    >>> own_problems(own, {own.rows: _COMPACT, own.by_finding: {**_COMPACT, "cleanup.policy": "delete"}})
    []
    >>> [line[:60] for line in own_problems(own, {own.tally: {**_COMPACT, "max.message.bytes": "1048588"}})]
    ['topic g-tally: max.message.bytes must be at least 8454144, g']
    """
    lines, least = [], int(_COMPACT["max.message.bytes"])
    for name, config in configs.items():
        if name != own.by_finding and (policy := config.get("cleanup.policy")) != "compact":
            lines.append(
                f"topic {name}: cleanup.policy must be compact, got {policy}: it would lose findings that wait for a "
                f"verdict. {_alter(name)} cleanup.policy=compact'."
            )
        if int(size := config.get("max.message.bytes", "0")) < least:
            lines.append(
                f"topic {name}: max.message.bytes must be at least {least}, got {size}: a finding that many have "
                f"judged would stop the worker. {_alter(name)} max.message.bytes={least}'."
            )
    return lines


def check_retention(broker: Broker, settings: Settings) -> None:
    """Refuse to start where a label's finding could be gone before its verdict may come.

    Raises
    ------
    EnvironmentFault
        With what to set.
    """
    topics = settings.topics
    found = configs(broker, settings, [topics.findings, topics.scores, topics.verdicts, topics.labels])
    if wrong := problems(settings, found):
        raise EnvironmentFault("\n".join(wrong))
    kept_ms = _kept_ms(found[topics.scores])
    if kept_ms < settings.feedback.verdict_days * _DAY_MS:
        _LOG.warning(
            "topic %s keeps scores for %.1f days, less than feedback.verdict_days (%d): a worker that loses its tables "
            "finds only the later events of older findings, whose labels then say less than events_told",
            topics.scores, kept_ms / _DAY_MS, settings.feedback.verdict_days,
        )  # fmt: skip


def problems(settings: Settings, configs: Mapping[str, Mapping[str, str]]) -> list[str]:
    """What would lose labels, a line a topic, with the remedy.

    >>> settings = Settings()
    >>> kept = {"cleanup.policy": "delete", "retention.ms": "-1", "retention.bytes": "-1"}
    >>> week = {**kept, "retention.ms": "604800000"}
    >>> labels = {"cleanup.policy": "compact"}
    >>> topics = settings.topics
    >>> problems(settings, {topics.findings: kept, topics.verdicts: kept, topics.labels: labels})
    []
    >>> problems(settings, {topics.findings: week, topics.verdicts: kept, topics.labels: labels})[0][:80]
    'topic genai.anomaly.findings.v1: retention.ms must be at least 5184000000 (feedb'
    """
    topics, days = settings.topics, settings.feedback.verdict_days
    lines = []
    if _kept_ms(configs[topics.findings]) < days * _DAY_MS:
        lines.append(
            f"topic {topics.findings}: retention.ms must be at least {days * _DAY_MS} (feedback.verdict_days = {days}) "
            f"and retention.bytes -1, got {_retention(configs[topics.findings])}. {_alter(topics.findings)} "
            f"retention.ms={days * _DAY_MS}', or lower feedback.verdict_days."
        )
    if _kept_ms(configs[topics.verdicts]) != float("inf"):
        lines.append(
            f"topic {topics.verdicts}: verdicts must be kept for ever (retention.ms=-1, retention.bytes=-1), got "
            f"{_retention(configs[topics.verdicts])}. {_alter(topics.verdicts)} retention.ms=-1,retention.bytes=-1'."
        )
    if (policy := configs[topics.labels].get("cleanup.policy")) != "compact":
        lines.append(
            f"topic {topics.labels}: cleanup.policy must be compact, got {policy}: labels would be lost with time. "
            f"{_alter(topics.labels)} cleanup.policy=compact'."
        )
    return lines


def configs(broker: Broker, settings: Settings, names: list[str]) -> dict[str, dict[str, str]]:
    """Topic -> its configuration.

    Raises
    ------
    EnvironmentFault
        When the broker does not tell.
    """
    resources = [ConfigResource(ResourceType.TOPIC, name) for name in names]
    found = {}
    for resource, future in broker.admin.describe_configs(resources).items() if resources else ():
        try:
            entries = answer(future)
        except KafkaException as error:
            raise EnvironmentFault(
                f"the configuration of topic {resource.name} cannot be read: {explain_kafka_error(error, settings)} "
                "Grant DescribeConfigs: 'tidegate topics acls --only feedback' prints what is needed."
            ) from error
        found[resource.name] = {key: str(entry.value) for key, entry in entries.items()}
    return found


def _kept_ms(config: Mapping[str, str]) -> float:
    """How long a topic keeps a record: for ever where it is only compacted; by size nobody can say."""
    if "delete" not in config.get("cleanup.policy", "delete"):
        return float("inf")
    if int(config.get("retention.bytes", "-1")) != -1:
        return 0.0
    retention = int(config.get("retention.ms", "604800000"))
    return float("inf") if retention == -1 else float(retention)


def _retention(config: Mapping[str, str]) -> str:
    return f"retention.ms={config.get('retention.ms')}, retention.bytes={config.get('retention.bytes')}"


def _alter(topic: str) -> str:
    return f"Set it with 'kafka-configs.sh --alter --topic {topic} --add-config"
