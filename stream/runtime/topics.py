"""`tidegate topics create` and `check`: the broker's topics against the files of schemas/topics."""

from __future__ import annotations

import argparse
import math
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from threading import Event
from typing import Any

import yaml
from confluent_kafka import KafkaError, KafkaException
from confluent_kafka.admin import AdminClient, ConfigResource, NewTopic, ResourceType  # type: ignore[attr-defined]

import schemas
from stream.config import Settings, TopicsSettings
from stream.errors import EnvironmentFault, StateError
from stream.runtime import acls
from stream.runtime.kafka_client import CONNECT_SECONDS, answer, connect_admin, explain_kafka_error
from stream.runtime.own_topics import check_sources, create_command

SPECIFICATIONS = Path(schemas.__path__[0]) / "topics"
SOURCE = "{source}"
"""Stands for a source topic in the name of the file that describes its dead letters."""
SOURCE_BYTES_MAX = 8 * 1024 * 1024 + 64 * 1024
"""`max.message.bytes` of a source topic that is created here: as the events topic's."""

# Operators may choose these; the files hold defaults. For ever (-1) is no default but what a replay needs.
_CHOICES = {"retention.ms"}
_AT_LEAST = {"max.message.bytes", "delete.retention.ms"}
"""Tombstones that go while a restore reads would leave it rows that are no more."""
_AT_MOST = {"segment.bytes", "segment.ms", "min.cleanable.dirty.ratio", "max.compaction.lag.ms"}
"""How much there may be beside the rows that count."""
_FOR_EVER = "-1"


@dataclass(frozen=True, slots=True)
class Topic:
    """One topic as it has to be."""

    name: str
    partitions: int
    config: Mapping[str, str]


def run(settings: Settings, arguments: argparse.Namespace) -> int:
    """`tidegate topics create|check|acls`.

    Raises
    ------
    UsageError
        When a source is one of Tidegate's own topics.
    EnvironmentFault
        When the broker cannot be reached, a topic cannot be created, or one is not as it has to be.
    """
    if arguments.action == "acls":
        return acls.run(settings, arguments)
    sources = _names(arguments.source_topic)
    check_sources(settings.topics, sources)
    admin, present = connect_admin(settings, "topics")
    if arguments.action == "create":
        present |= _create(admin, settings, [_source(name) for name in sources], present)
        ours = wanted(settings.topics, _sizes(admin, settings, sources, present))
        present |= _create(admin, settings, ours, present)
    topics = wanted(settings.topics, _sizes(admin, settings, sources, present))
    found = {topic.name: present[topic.name] for topic in topics if topic.name in present}
    configs = _configs(admin, settings, list(found))
    problems = differences(settings.topics, topics, found, configs, [s for s in sources if s not in present])
    if problems:
        raise EnvironmentFault("\n".join(problems))
    if arguments.action == "check":
        for topic in topics:
            print(f"ok       {topic.name}  {_count(topic.partitions)}")
    return 0


def wanted(topics: TopicsSettings, sources: Mapping[str, tuple[int, int]], files: Path = SPECIFICATIONS) -> list[Topic]:
    """Every topic that there has to be, by name.

    Parameters
    ----------
    sources
        Topics whose records can become dead letters -> their partitions and `max.message.bytes`. The events topic and
        the verdicts' are such by themselves: what `score` or `feedback` cannot read goes to their dead letters.
    files
        A YAML file a topic.

    Raises
    ------
    StateError
        When a file is not as `Topic` needs it.
    """
    topics_by_name: dict[str, Topic] = {}
    specifications = [_specification(path) for path in sorted(files.glob("*.yaml"))]
    per_source = dict(sources)
    for given in specifications:
        if SOURCE not in given["name"]:
            topic = Topic(topics.named(given["name"]), _partitions(given, topics.partitions), _config(given, 0))
            topics_by_name[topic.name] = topic
    for read in (topics.events, topics.verdicts):
        if found := topics_by_name.get(read):
            per_source.setdefault(found.name, (found.partitions, int(found.config["max.message.bytes"])))
    for given in specifications:
        if SOURCE in given["name"]:
            for source, (partitions, bytes_max) in per_source.items():
                name = given["name"].replace(SOURCE, source)
                topics_by_name[name] = Topic(name, _partitions(given, partitions), _config(given, bytes_max))
    return [topics_by_name[name] for name in sorted(topics_by_name)]


def differences(
    settings: TopicsSettings,
    topics: Sequence[Topic],
    partitions: Mapping[str, int],
    configs: Mapping[str, Mapping[str, str]],
    missing_sources: Sequence[str] = (),
) -> list[str]:
    """What is not as it has to be, a line a topic; then how to mend it, each remedy once.

    Parameters
    ----------
    partitions, configs
        What the broker has, by topic.
    missing_sources
        Topics named with `--source-topic` that are not there.
    """
    lines = [f"topic {name} does not exist" for name in missing_sources]
    missing = [f"{name}.dlq" for name in missing_sources]
    other_count = other_config = False
    for topic in topics:
        if topic.name not in partitions:
            missing.append(topic.name)
            lines.append(f"topic {topic.name} does not exist")
            continue
        wrong = []
        if partitions[topic.name] != topic.partitions:
            other_count = True
            wrong.append(f"must have {_count(topic.partitions)}, has {partitions[topic.name]}")
        for key, required in sorted(topic.config.items()):
            came = configs[topic.name].get(key, "")
            if rule := _broken(key, required, came):
                other_config = True
                wrong.append(f"{key} must be {rule}, got {came or 'nothing'}")
        if wrong:
            lines.append(f"topic {topic.name}: {'; '.join(wrong)}")
    if missing:
        other = "set topics.prefix (--topic-prefix) to that of topics that exist"
        if missing_sources:
            other = "correct --source-topic"
        lines.append(f"Create what is missing with '{create_command(settings, missing)}', or {other}.")
    if other_count:
        lines.append(
            "Set topics.partitions to the broker's number, or create the topics anew under another topics.prefix: "
            "the partition of a tenant follows from it."
        )
    if other_config:
        lines.append("Set what differs with 'kafka-configs.sh --alter --topic TOPIC --add-config KEY=VALUE'.")
    return lines


def _broken(key: str, required: str, came: str) -> str:
    """The rule that `came` breaks, empty when it keeps it."""
    if key in _CHOICES and required != _FOR_EVER:
        return ""
    if key in _AT_LEAST:
        return "" if _number(came) >= float(required) else f"at least {required}"
    if key in _AT_MOST:
        return "" if _number(came) <= float(required) else f"at most {required}"
    return "" if came == required else required


def _number(text: str) -> float:
    """NaN, which keeps no rule, where it is none.

    >>> _number("0.2"), _number("")
    (0.2, nan)
    """
    try:
        return float(text)
    except ValueError:
        return math.nan


def _specification(path: Path) -> dict[str, Any]:
    given = yaml.safe_load(path.read_text(encoding="utf-8"))
    needed = {"name", "partitions", "cleanup_policy", "retention_ms", "segment_bytes", "max_message_bytes", "config"}
    if not isinstance(given, dict) or needed - given.keys():
        raise StateError(f"{path}: a topic file must hold {', '.join(sorted(needed))}. Reinstall Tidegate.")
    return given


def _partitions(given: Mapping[str, Any], default: int) -> int:
    return given["partitions"] if isinstance(given["partitions"], int) else default


def _config(given: Mapping[str, Any], source_bytes_max: int) -> dict[str, str]:
    bytes_max = given["max_message_bytes"]
    if isinstance(bytes_max, str):  # "source + 65536"
        bytes_max = source_bytes_max + int(bytes_max.partition("+")[2] or 0)
    config = {
        "cleanup.policy": given["cleanup_policy"],
        "retention.ms": given["retention_ms"],
        "segment.bytes": given["segment_bytes"],
        "max.message.bytes": bytes_max,
        **given["config"],
    }
    return {key: str(value) for key, value in config.items() if value is not None}


def _source(name: str) -> Topic:
    """A gateway's topic, of one partition: Kafka keeps order within a partition only, and a gateway has one order."""
    return Topic(name, 1, {"max.message.bytes": str(SOURCE_BYTES_MAX)})


def _sizes(
    admin: AdminClient, settings: Settings, sources: Sequence[str], present: Mapping[str, int]
) -> dict[str, tuple[int, int]]:
    known = [name for name in sources if name in present]
    configs = _configs(admin, settings, known)
    return {name: (present[name], int(configs[name]["max.message.bytes"])) for name in known}


def _create(
    admin: AdminClient, settings: Settings, topics: Sequence[Topic], present: Mapping[str, int]
) -> dict[str, int]:
    """Create what is missing; what is there now, of `topics`."""
    new = [topic for topic in topics if topic.name not in present]
    for topic in topics:
        if topic.name in present:
            print(f"exists   {topic.name}  {_count(present[topic.name])}")
    # Replication -1: the broker's default, one on a laptop and three in a cluster.
    requests = [NewTopic(topic.name, topic.partitions, -1, config=dict(topic.config)) for topic in new]
    for name, future in admin.create_topics(requests).items() if requests else ():
        try:
            answer(future)
        except KafkaException as error:
            if error.args[0].code() == KafkaError.TOPIC_ALREADY_EXISTS:
                continue
            reason = explain_kafka_error(error, settings)
            raise EnvironmentFault(f"topic {name} cannot be created: {reason}") from error
        print(f"created  {name}  {next(_count(topic.partitions) for topic in new if topic.name == name)}")
    return _await_topics(admin, settings, [topic.name for topic in new])


def _await_topics(admin: AdminClient, settings: Settings, names: Sequence[str]) -> dict[str, int]:
    """Partitions of topics just made, once the broker asked has heard of them all."""
    deadline = time.monotonic() + CONNECT_SECONDS
    pause = Event()
    while names:
        try:
            listed = admin.list_topics(timeout=CONNECT_SECONDS).topics
        except KafkaException as error:
            raise explain_kafka_error(error, settings) from error
        if all(name in listed and listed[name].partitions for name in names):
            return {name: len(listed[name].partitions) for name in names}
        if time.monotonic() > deadline:
            raise EnvironmentFault(
                f"topics {', '.join(names)} are created, but the broker has not listed them in {CONNECT_SECONDS:g} s. "
                "Check the cluster's controller, then run 'tidegate topics check'."
            )
        pause.wait(0.05)
    return {}


def _configs(admin: AdminClient, settings: Settings, names: Sequence[str]) -> dict[str, dict[str, str]]:
    resources = [ConfigResource(ResourceType.TOPIC, name) for name in names]
    configs: dict[str, dict[str, str]] = {}
    for resource, future in admin.describe_configs(resources).items() if resources else ():
        try:
            entries = answer(future)
        except KafkaException as error:
            raise explain_kafka_error(error, settings) from error
        configs[resource.name] = {key: str(entry.value) for key, entry in entries.items()}
    return configs


def _names(text: str | None) -> list[str]:
    return [name for name in (part.strip() for part in (text or "").split(",")) if name]


def _count(partitions: int) -> str:
    return "1 partition" if partitions == 1 else f"{partitions} partitions"
