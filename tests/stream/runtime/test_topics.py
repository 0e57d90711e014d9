import argparse
from pathlib import Path

import pytest
from confluent_kafka.admin import AdminClient, ConfigResource, NewTopic, ResourceType  # type: ignore[attr-defined]

from stream.config import KafkaSettings, Settings, TopicsSettings
from stream.errors import EnvironmentFault, StateError, UsageError
from stream.runtime.clients import Membership
from stream.runtime.services import ingest_service
from stream.runtime.topics import SOURCE_BYTES_MAX, Topic, differences, run, wanted

HOT = "events scores findings state controls journal releases verdicts labels retrain".split()


def names(topics: TopicsSettings) -> dict[str, str]:
    return {name: getattr(topics, name) for name in HOT}


def test_the_packaged_files_give_every_topic_its_partitions_and_settings() -> None:
    settings = TopicsSettings(prefix="eu.", partitions=3)
    topics = {topic.name: topic for topic in wanted(settings, {})}
    dead_letters = {"eu.genai.gateway.events.v1.dlq", "eu.genai.feedback.verdicts.v1.dlq"}
    assert set(topics) == {*names(settings).values(), *dead_letters}
    for name in ("events", "scores", "findings", "state", "journal", "verdicts", "labels"):
        assert topics[getattr(settings, name)].partitions == 3
    assert topics[settings.controls].partitions == topics[settings.retrain].partitions == 1
    assert topics[settings.state].config["cleanup.policy"] == "compact"
    assert topics[settings.state].config["segment.bytes"] == str(64 * 1024 * 1024)
    assert "retention.ms" not in topics[settings.state].config
    compaction = {"segment.ms", "min.cleanable.dirty.ratio", "max.compaction.lag.ms", "delete.retention.ms"}
    assert compaction <= topics[settings.state].config.keys()
    assert topics[settings.journal].config["retention.ms"] == "-1"
    assert topics[settings.controls].config["retention.ms"] == "-1"
    assert topics[settings.verdicts].config["retention.ms"] == "-1"
    assert topics[settings.labels].config["cleanup.policy"] == "compact"
    assert topics[settings.events].config["max.message.bytes"] == str(8 * 1024 * 1024 + 64 * 1024)


def test_dead_letters_have_their_sources_partitions_and_64_kib_more() -> None:
    topics = {topic.name: topic for topic in wanted(TopicsSettings(), {"litellm.logs": (5, 1_000_000)})}
    dead = topics["litellm.logs.dlq"]
    assert dead.partitions == 5
    assert dead.config["max.message.bytes"] == str(1_000_000 + 65_536)
    assert dead.config["retention.ms"] == str(3 * 86_400_000)


def test_an_output_prefix_moves_outputs_only() -> None:
    settings = TopicsSettings(prefix="eu.", output_prefix="green.")
    found = {topic.name for topic in wanted(settings, {})}
    assert {"green.genai.anomaly.scores.v1", "eu.genai.gateway.events.v1", "eu.genai.anomaly.controls.v1"} <= found


def test_a_broken_topic_file_is_named(tmp_path: Path) -> None:
    (tmp_path / "odd.yaml").write_text("name: odd\n")
    with pytest.raises(StateError, match=r"odd\.yaml: a topic file must hold cleanup_policy, config,"):
        wanted(TopicsSettings(), {}, tmp_path)


TOPIC = Topic(
    "t", 8, {"cleanup.policy": "compact", "max.message.bytes": "100", "segment.bytes": "50", "retention.ms": "7"}
)
AS_IT_SHOULD_BE = {"cleanup.policy": "compact", "max.message.bytes": "100", "segment.bytes": "50", "retention.ms": "7"}


@pytest.mark.parametrize(
    "choice",
    [{}, {"retention.ms": "1"}, {"max.message.bytes": "200"}, {"segment.bytes": "10"}],
    ids=["as in the file", "shorter retention", "larger records", "smaller segments"],
)
def test_what_an_operator_may_choose_is_no_problem(choice: dict[str, str]) -> None:
    assert differences(TopicsSettings(), [TOPIC], {"t": 8}, {"t": AS_IT_SHOULD_BE | choice}) == []


@pytest.mark.parametrize(
    ("came", "said"),
    [
        ({"max.message.bytes": "99"}, "topic t: max.message.bytes must be at least 100, got 99"),
        ({"segment.bytes": "51"}, "topic t: segment.bytes must be at most 50, got 51"),
        ({"cleanup.policy": "delete"}, "topic t: cleanup.policy must be compact, got delete"),
    ],
)
def test_another_setting_is_named_with_its_remedy(came: dict[str, str], said: str) -> None:
    problem, remedy = differences(TopicsSettings(), [TOPIC], {"t": 8}, {"t": AS_IT_SHOULD_BE | came})
    assert problem == said
    assert "--add-config" in remedy


@pytest.mark.parametrize(
    ("key", "required", "kept", "broken", "said"),
    [
        ("min.cleanable.dirty.ratio", "0.2", "0.05", "0.5", "at most 0.2, got 0.5"),
        ("segment.ms", "100", "99", "604800000", "at most 100, got 604800000"),
        ("max.compaction.lag.ms", "100", "100", "9223372036854775807", "at most 100, got 9223372036854775807"),
        ("delete.retention.ms", "100", "101", "0", "at least 100, got 0"),
    ],
)
def test_what_keeps_a_compacted_topic_short_and_whole_is_checked(
    key: str, required: str, kept: str, broken: str, said: str
) -> None:
    topic = Topic("t", 1, {key: required})
    assert differences(TopicsSettings(), [topic], {"t": 1}, {"t": {key: kept}}) == []
    problem, _ = differences(TopicsSettings(), [topic], {"t": 1}, {"t": {key: broken}})
    assert problem == f"topic t: {key} must be {said}"


def test_what_must_be_kept_for_ever_must_be_kept_for_ever() -> None:
    topic = Topic("journal", 1, {"retention.ms": "-1"})
    problem, _ = differences(TopicsSettings(), [topic], {"journal": 1}, {"journal": {"retention.ms": "604800000"}})
    assert "retention.ms must be -1, got 604800000" in problem


def test_each_topic_has_one_line_and_each_remedy_comes_once_at_the_end() -> None:
    topics = [TOPIC, Topic("v", 8, {"segment.bytes": "50"}), Topic("w", 1, {}), Topic("x", 1, {})]
    configs = {"t": AS_IT_SHOULD_BE | {"cleanup.policy": "delete"}, "v": {"segment.bytes": "51"}}
    assert differences(TopicsSettings(), topics, {"t": 4, "v": 4}, configs, ["u"]) == [
        "topic u does not exist",
        "topic t: must have 8 partitions, has 4; cleanup.policy must be compact, got delete",
        "topic v: must have 8 partitions, has 4; segment.bytes must be at most 50, got 51",
        "topic w does not exist",
        "topic x does not exist",
        "Create what is missing with 'tidegate topics create --source-topic u', or correct --source-topic.",
        (
            "Set topics.partitions to the broker's number, or create the topics anew under another topics.prefix: "
            "the partition of a tenant follows from it."
        ),
        "Set what differs with 'kafka-configs.sh --alter --topic TOPIC --add-config KEY=VALUE'.",
    ]


def test_a_fresh_cluster_is_not_told_to_create_the_events_topic_as_a_source() -> None:
    settings = TopicsSettings(prefix="eu.")
    said = differences(settings, wanted(settings, {"raw": (1, 1_000_000)}), {}, {})
    assert "topic eu.genai.gateway.events.v1.dlq does not exist" in said
    assert "'tidegate topics create --source-topic raw'" in said[-1]


def test_missing_outputs_are_created_under_their_prefix() -> None:
    settings = TopicsSettings(output_prefix="green.")
    said = differences(settings, wanted(settings, {}), {}, {})
    assert "'tidegate topics create --output-prefix green.'" in said[-1]


@pytest.mark.parametrize("action", ["create", "check"])
@pytest.mark.parametrize(
    "own",
    [
        "eu.genai.gateway.events.v1",
        "eu.genai.gateway.events.v1.dlq",
        "eu.genai.anomaly.state.v1",
        "green.genai.anomaly.scores.v1",
        "eu.genai.anomaly.controls.v1",
    ],
)
def test_tidegates_own_topics_are_no_source(action: str, own: str) -> None:
    settings = Settings(topics=TopicsSettings(prefix="eu.", output_prefix="green."))
    with pytest.raises(UsageError, match=f"--source-topic must name topics that gateways write to; got {own}") as told:
        run(settings, arguments(action, f"raw,{own}"))
    assert told.value.exit_code == 2


def test_ingest_reads_none_of_tidegates_own_topics() -> None:
    settings = Settings()
    with pytest.raises(UsageError, match=f"got {settings.topics.events}, which Tidegate writes"):
        ingest_service(settings, ["raw", settings.topics.events], lambda: None, Membership("g"))  # type: ignore[arg-type, return-value]


def arguments(action: str, source: str | None = None) -> argparse.Namespace:
    return argparse.Namespace(action=action, source_topic=source)


def settings_of(kafka: str, prefix: str, partitions: int = 2) -> Settings:
    return Settings(kafka=KafkaSettings(kafka), topics=TopicsSettings(prefix=prefix, partitions=partitions))


@pytest.mark.kafka
def test_topics_are_created_once_and_then_pass_the_check(
    kafka: str, topic_prefix: str, capsys: pytest.CaptureFixture[str]
) -> None:
    settings = settings_of(kafka, topic_prefix)
    source = f"{topic_prefix}litellm.logs"
    with pytest.raises(EnvironmentFault, match=f"topic {source} does not exist"):
        run(settings, arguments("check", source))
    assert run(settings, arguments("create", source)) == 0
    first = capsys.readouterr().out.splitlines()
    assert f"created  {source}  1 partition" in first
    assert f"created  {source}.dlq  1 partition" in first
    assert f"created  {settings.topics.events}  2 partitions" in first
    assert len(first) == len(HOT) + 4
    assert run(settings, arguments("create", source)) == 0
    again = capsys.readouterr().out.splitlines()
    assert sorted(line.replace("exists ", "created") for line in again) == sorted(first)
    assert run(settings, arguments("check", source)) == 0
    assert f"ok       {settings.topics.journal}  2 partitions" in capsys.readouterr().out.splitlines()
    admin = AdminClient({"bootstrap.servers": kafka})
    described = admin.describe_configs([ConfigResource(ResourceType.TOPIC, f"{source}.dlq")])
    (future,) = described.values()
    assert future.result(120)["max.message.bytes"].value == str(SOURCE_BYTES_MAX + 65_536)


@pytest.mark.kafka
def test_a_check_says_which_topic_differs_and_changes_nothing(kafka: str, topic_prefix: str) -> None:
    settings = settings_of(kafka, topic_prefix)
    admin = AdminClient({"bootstrap.servers": kafka})
    made = admin.create_topics([NewTopic(settings.topics.events, 5, config={"max.message.bytes": "1000"})])
    made[settings.topics.events].result(120)
    with pytest.raises(EnvironmentFault) as caught:
        run(settings, arguments("check"))
    said = str(caught.value)
    assert f"topic {settings.topics.events}: must have 2 partitions, has 5; " in said
    assert "max.message.bytes must be at least 8454144, got 1000" in said
    assert f"topic {settings.topics.controls} does not exist" in said
    assert settings.topics.controls not in admin.list_topics(timeout=120).topics
    assert caught.value.exit_code == 3
