"""What `tidegate topics acls` prints is enough, and nothing less is: on a broker with TLS, SASL and an authorizer.

Every command runs as a principal of its own, by SCRAM; readers by PLAIN.
"""

from __future__ import annotations

import argparse
import os
import shlex
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import orjson
import pytest
from confluent_kafka import OFFSET_BEGINNING, Consumer, Producer, TopicPartition
from confluent_kafka.admin import AclBinding, AclBindingFilter, AdminClient  # type: ignore[attr-defined]

from deploy.kafka.apply_acls import bindings, grant
from deploy.kafka.apply_acls import main as apply_acls
from deploy.kafka.local import HOME
from deploy.kafka.secured import ADMIN, PLAIN, SCRAM, SecuredKafka, java_properties, write_passwords
from models.embedder import StaticEmbedder
from stream.config import KafkaSettings, ReleaseSettings, Settings, TopicsSettings
from stream.errors import EnvironmentFault
from stream.runtime import explain_command, ingest_command, replay_command, score_command, state_command, topics
from stream.runtime.acls import COMMANDS, GROUPS, acls
from stream.runtime.feedback import command as feedback_command
from stream.runtime.trainer import command as trainer_command
from stream.sinks.file import SCORES
from tests.stream.releases import write
from tests.stream.streams import START_MS
from tidegate.commands import parse
from tidegate.demo.process import Service as Process
from tidegate.keys import signing_key

pytestmark = [pytest.mark.kafka, pytest.mark.timeout(1200)]

ROOT = Path(__file__).parents[3]
SOURCE = "raw"
TOPICS = TopicsSettings(prefix="eu.", partitions=2)
PRINCIPALS = {command: f"User:tidegate-{command}" for command in COMMANDS}


class Guarded:
    """The broker, as its administrator sees it, and as each command does."""

    def __init__(self, broker: SecuredKafka, passwords: dict[str, Path]) -> None:
        self.broker, self.passwords = broker, passwords
        self.servers = broker.bootstrap_servers
        self.admin = AdminClient({"bootstrap.servers": self.servers, **broker.client(ADMIN)})

    def settings(self, command: str, mechanism: str = SCRAM) -> Settings:
        user = ADMIN if command == ADMIN else f"tidegate-{command}"
        kafka = KafkaSettings(bootstrap_servers=self.servers, properties=self.broker.client(user, mechanism))
        return Settings(kafka=kafka, topics=TOPICS)

    def grant(self, wanted: Sequence[AclBinding]) -> None:
        grant(self.admin, wanted)
        self._await(wanted, there=True)

    def revoke(self, binding: AclBinding) -> None:
        for future in self.admin.delete_acls([_filter(binding)]).values():
            assert len(future.result(120)) == 1
        self._await([binding], there=False)

    def _await(self, wanted: Sequence[AclBinding], *, there: bool) -> None:
        """Until the broker's own authorizer has it: the controller answers first."""
        deadline = time.monotonic() + 120
        while any(bool(self.admin.describe_acls(_filter(each)).result(120)) != there for each in wanted):
            assert time.monotonic() < deadline
            time.sleep(0.01)

    def needed(self, *commands: str) -> list[AclBinding]:
        """Everything that is needed always, of all commands or some."""
        found = acls(TOPICS, [SOURCE], PRINCIPALS, GROUPS)
        return bindings(asdict(acl) for acl in found if not commands or acl.command in commands)

    def service(self, command: str, *flags: str) -> subprocess.CompletedProcess[str]:
        """Run a service to the end of its input, as its principal."""
        line = [sys.executable, "-m", "tidegate.cli", command, *flags, "--instance-id", "one", "--until-end"]
        environment = self.environment(command)
        return subprocess.run(line, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=240, check=False)

    def environment(self, command: str) -> dict[str, str]:
        """As the command's principal, the password from a file."""
        given = self.broker.open_client(f"tidegate-{command}")
        given["sasl.password.file"] = str(self.passwords[f"tidegate-{command}"])
        return {
            **os.environ, "KAFKA_BOOTSTRAP_SERVERS": self.servers, "TIDEGATE_TOPICS__PREFIX": TOPICS.prefix,
            "TIDEGATE_TOPICS__PARTITIONS": str(TOPICS.partitions), "TIDEGATE_KAFKA__TRANSACTION_TIMEOUT_MS": "60000",
            **{
                f"TIDEGATE_KAFKA__PROPERTIES__{name.upper().replace('.', '_')}": value for name, value in given.items()
            },
        }  # fmt: skip


def _filter(binding: AclBinding) -> AclBindingFilter:
    given = (binding.restype, binding.name, binding.resource_pattern_type, binding.principal, binding.host)
    return AclBindingFilter(*given, binding.operation, binding.permission_type)


@pytest.fixture(scope="module")
def guarded(secured_kafka: SecuredKafka, tmp_path_factory: pytest.TempPathFactory) -> Guarded:
    found = Guarded(secured_kafka, write_passwords(secured_kafka, tmp_path_factory.mktemp("passwords")))
    assert topics.run(found.settings(ADMIN), parse(["topics", "create", "--source-topic", SOURCE])) == 0
    return found


def call(number: int) -> dict[str, Any]:
    return {
        "tenant": "team-1", "session": f"s{number % 3}", "event_time_ms": START_MS + number,
        "messages": [{"role": "user", "parts": [{"type": "text", "text": f"hello {number}"}]}],
    }  # fmt: skip


def test_every_command_runs_with_what_is_printed_and_not_without(
    guarded: Guarded, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    refused = guarded.service("ingest", "--source-topic", SOURCE, "--format", "native")
    assert refused.returncode == 3, refused.stderr
    assert f"must be allowed Read on topic {SOURCE}; Write on topic eu.genai.gateway.events.v1;" in refused.stderr
    with pytest.raises(EnvironmentFault):
        state_command.run(guarded.settings("state"), parse(["state", "inspect"]))

    guarded.grant(guarded.needed())
    gateway = Producer({"bootstrap.servers": guarded.servers, **guarded.broker.client("tidegate-gateway")})
    for number in range(40):
        gateway.produce(SOURCE, orjson.dumps(call(number)))
    assert gateway.flush(120) == 0

    done = guarded.service("ingest", "--source-topic", SOURCE, "--format", "native")
    assert done.returncode == 0, done.stderr
    release = tmp_path / "release"
    write(release, StaticEmbedder.load(device="cpu").space_id)
    done = guarded.service("score", "--release", str(release))
    assert done.returncode == 0, done.stderr

    out = tmp_path / "out"
    flags = ["--topic", TOPICS.events, "--release", str(release)]
    replay = guarded.settings("replay", PLAIN)
    assert replay_command.run(replay, parse(["replay", *flags, "--out", str(out)])) == 0
    scores = [orjson.loads(line) for line in (out / SCORES).read_bytes().splitlines()]
    assert len(scores) == 40
    capsys.readouterr()
    event_id = scores[7]["event_id"]
    explain = guarded.settings("explain", PLAIN)
    assert explain_command.run(explain, parse(["explain", event_id, *flags, "--json"])) == 0
    assert orjson.loads(capsys.readouterr().out)["told_by"] == "replay"
    assert state_command.run(guarded.settings("state"), parse(["state", "inspect", "--json"])) == 0
    assert sum(each["tenants"] for each in orjson.loads(capsys.readouterr().out)["partitions"]) == 1
    assert topics.run(guarded.settings("topics"), parse(["topics", "check", "--source-topic", SOURCE])) == 0

    # And with nothing less.
    again = parse(["replay", *flags, "--out", str(tmp_path / "again")])
    reading = {
        PRINCIPALS["state"]: lambda: state_command.run(guarded.settings("state"), parse(["state", "inspect"])),
        PRINCIPALS["replay"]: lambda: replay_command.run(replay, again),
    }
    for binding in guarded.needed("state", "replay"):
        guarded.revoke(binding)
        with pytest.raises(EnvironmentFault):
            reading[binding.principal]()
        guarded.grant([binding])


# -- each missing permission has its sentence --------------------------------------------------------------------------

Run = Callable[[Settings, argparse.Namespace], int]
SERVICES: dict[str, tuple[Run, list[str]]] = {
    "ingest": (ingest_command.run, ["--source-topic", SOURCE]),
    "score": (score_command.run, ["--release", "r"]),
    "feedback": (feedback_command.run, []),
    "trainer": (trainer_command.run, []),
}


def _word(named: Any) -> str:
    """As Kafka writes it."""
    return str(named.name).title().replace("_", "")


@pytest.mark.parametrize("command", SERVICES)
def test_a_service_without_one_permission_says_which_before_it_starts(
    guarded: Guarded, tmp_path: Path, command: str
) -> None:
    run, flags = SERVICES[command]
    key = tmp_path / "signing.pem"
    signing_key(key)
    settings = replace(guarded.settings(command), release=ReleaseSettings(signing_key_file=str(key)))
    needed = guarded.needed(command)
    guarded.grant(needed)
    told = []
    for binding in needed:
        kind = _word(binding.restype).lower()
        if kind == "transactionalid" or (_word(binding.resource_pattern_type) == "Prefixed" and command == "feedback"):
            continue  # found out when it is tried: the tests below
        guarded.revoke(binding)
        with pytest.raises(EnvironmentFault) as raised:
            run(settings, parse([command, *flags]))
        guarded.grant([binding])
        operation = _word(binding.operation)
        said = str(raised.value)
        assert raised.value.exit_code == 3
        assert f"{operation} on {kind} {binding.name}" in said.replace("Read, DescribeConfigs", "Read") or (
            # Whoever may only DescribeConfigs, which implies no Describe, is told of both.
            f"{operation}, DescribeConfigs on {kind} {binding.name}" in said
        ), said
        assert f"(sasl.username tidegate-{command})" in said
        assert f"'tidegate topics acls --only {command}" in said
        told.append(said)
    assert len(told) >= 5


@pytest.mark.parametrize(("command", "flags"), [("ingest", ["--source-topic", SOURCE])])
def test_a_service_that_may_not_write_in_transactions_says_so(guarded: Guarded, command: str, flags: list[str]) -> None:
    needed = guarded.needed(command)
    (transactions,) = [each for each in needed if _word(each.restype) == "TransactionalId"]
    guarded.grant([each for each in needed if each != transactions])
    if guarded.admin.describe_acls(_filter(transactions)).result(120):
        guarded.revoke(transactions)
    done = guarded.service("ingest", "--source-topic", SOURCE)
    guarded.grant([transactions])
    assert done.returncode == 3, done.stderr
    assert "Transactional Id authorization failed" in done.stderr
    assert "see the table of permissions in docs/runbook.md" in done.stderr


def test_feedback_that_may_not_create_its_own_topics_says_so(guarded: Guarded) -> None:
    groups = {**GROUPS, "feedback": "fresh"}
    needed = bindings(asdict(acl) for acl in acls(TOPICS, [], PRINCIPALS, groups) if acl.command == "feedback")
    guarded.grant([each for each in needed if _word(each.operation) != "Create"])
    with pytest.raises(EnvironmentFault) as raised:
        feedback_command.run(guarded.settings("feedback"), parse(["feedback", "--group-id", "fresh"]))
    said = str(raised.value)
    assert "topic eu.fresh-by-finding cannot be created" in said
    assert "Grant feedback what 'tidegate topics acls --only feedback' prints" in said
    assert raised.value.exit_code == 3


@pytest.fixture(scope="module")
def fed_back(guarded: Guarded, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """Headers of the dead letter that `feedback`, which Faust runs, made of a record that is no verdict."""
    guarded.grant(guarded.needed("feedback", "verdict"))
    producer = Producer({"bootstrap.servers": guarded.servers, **guarded.broker.client("tidegate-verdict")})
    producer.produce(TOPICS.verdicts, b"no verdict", partition=0)
    assert producer.flush(120) == 0
    folder = tmp_path_factory.mktemp("feedback")
    environment = {**guarded.environment("feedback"), "TIDEGATE_FEEDBACK__DIRECTORY": str(folder)}
    reader = Consumer({"bootstrap.servers": guarded.servers, **guarded.broker.client(ADMIN), "group.id": "any"})
    with Process(["feedback"], environment, folder / "log") as feedback:
        feedback.ready(240)
        reader.assign([TopicPartition(f"{TOPICS.verdicts}.dlq", part, OFFSET_BEGINNING) for part in range(2)])
        message = reader.poll(180)
        assert message is not None, (folder / "log").read_text()
        assert message.error() is None
        headers = dict(message.headers() or [])
    reader.close()
    return headers


def test_faust_and_aiokafka_speak_tls_and_scram_from_the_same_properties(fed_back: dict[str, Any]) -> None:
    assert fed_back["tg-reason"] == b"undecodable"


def test_the_trainer_waits_for_requests_over_tls_and_scram(guarded: Guarded, tmp_path: Path) -> None:
    signing_key(tmp_path / "signing.pem")
    guarded.grant(guarded.needed("trainer"))
    environment = {
        **guarded.environment("trainer"), "TIDEGATE_TRAINER__DIRECTORY": str(tmp_path / "trainer"),
        "TIDEGATE_RELEASE__SIGNING_KEY_FILE": str(tmp_path / "signing.pem"),
    }  # fmt: skip
    with Process(["trainer"], environment, tmp_path / "log") as trainer:
        assert trainer.ready(240)["partitions"] == [0]


@pytest.mark.parametrize("operation", ["DescribeConfigs", "Read", "Write"])
def test_feedback_without_a_permission_on_its_own_topics_says_which(
    guarded: Guarded, fed_back: dict[str, Any], operation: str
) -> None:
    (withdrawn,) = [
        each
        for each in guarded.needed("feedback")
        if _word(each.resource_pattern_type) == "Prefixed" and _word(each.operation) == operation
    ]
    guarded.revoke(withdrawn)
    with pytest.raises(EnvironmentFault) as raised:
        feedback_command.run(guarded.settings("feedback"), parse(["feedback"]))
    guarded.grant([withdrawn])
    for name in ("by-finding", "rows-changelog", "tally", "counts-changelog"):
        assert f"{operation} on topic eu.tidegate.feedback-{name}" in str(raised.value)
    assert "'tidegate topics acls --only feedback" in str(raised.value)


# -- the file ----------------------------------------------------------------------------------------------------------


def test_a_written_file_is_applied_by_kafkas_own_command_and_by_ours(
    guarded: Guarded, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    administrator, script = tmp_path / "admin.properties", tmp_path / "acls.sh"
    administrator.write_text(java_properties(guarded.broker, ADMIN))
    admin = guarded.settings(ADMIN)
    given = ["--principal", "User:somebody", "--source-topic", SOURCE]
    flags = [*given, "--only", "ingest", "--command-config", str(administrator), "--out", str(script)]
    assert topics.run(admin, parse(["topics", "acls", *flags])) == 0
    # All but two lines are left out: each starts a Java. One of them is by prefix, and has more to it than the others.
    lines = script.read_text().splitlines()
    kept = [line for line in lines if "--transactional-id" in line or not line.startswith("kafka-acls.sh")]
    script.write_text("\n".join([*kept, next(line for line in lines if f"--topic {SOURCE} " in line)]) + "\n")
    tool = tmp_path / "bin" / "kafka-acls.sh"
    tool.parent.mkdir()
    java = ["java", "-XX:TieredStopAtLevel=1", "-cp", f"{HOME / 'libs'}/*", "org.apache.kafka.tools.AclCommand"]
    tool.write_text(f'#!/bin/sh\nexec {shlex.join(java)} "$@"\n')
    tool.chmod(0o755)
    environment = {**os.environ, "PATH": f"{tool.parent}:{os.environ['PATH']}"}
    done = subprocess.run([script], env=environment, capture_output=True, text=True, timeout=300, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "resourceType=TRANSACTIONAL_ID, name=tidegate.ingest., patternType=PREFIXED" in done.stdout
    assert "principal=User:somebody, host=*, operation=WRITE, permissionType=ALLOW" in done.stdout

    listed, properties = tmp_path / "acls.json", tmp_path / "client.properties"
    assert topics.run(admin, parse(["topics", "acls", *given, "--json", "--out", str(listed)])) == 0
    properties.write_text("".join(f"{key}={value}\n" for key, value in guarded.broker.client(ADMIN).items()))
    where = ["--bootstrap-servers", guarded.servers, "--config", str(properties)]
    assert apply_acls([str(listed), *where]) == 0
    wanted = bindings(orjson.loads(listed.read_bytes()))
    assert f"{len(wanted)} permissions granted" in capsys.readouterr().out
    for each in wanted:
        assert guarded.admin.describe_acls(_filter(each)).result(120) == [each]


def test_who_may_not_grant_is_told_so(guarded: Guarded, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    listed, properties = tmp_path / "acls.json", tmp_path / "client.properties"
    topics.run(Settings(), parse(["topics", "acls", "--only", "state", "--json", "--out", str(listed)]))
    properties.write_text("".join(f"{k}={v}\n" for k, v in guarded.broker.client("tidegate-state").items()))
    assert apply_acls([str(listed), "--bootstrap-servers", guarded.servers, "--config", str(properties)]) == 3
    assert "nothing more was granted" in capsys.readouterr().err
