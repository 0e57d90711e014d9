"""What `tidegate topics acls` prints is enough: every command runs with it, each as a principal of its own."""

from __future__ import annotations

import os
import shlex
import subprocess
import sys
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import orjson
import pytest
from confluent_kafka import Producer
from confluent_kafka.admin import (  # type: ignore[attr-defined]
    AclBinding,
    AclBindingFilter,
    AclOperation,
    AclPermissionType,
    AdminClient,
    ResourcePatternType,
    ResourceType,
)

from deploy.kafka.local import HOME, LocalKafka
from deploy.processes import free_ports
from models.embedder import StaticEmbedder
from stream.config import KafkaSettings, Settings, TopicsSettings
from stream.errors import EnvironmentFault
from stream.runtime import explain_command, replay_command, state_command, topics
from stream.runtime.acls import COMMANDS, GROUPS, acls
from stream.sinks.file import SCORES
from tests.stream.releases import write
from tests.stream.streams import START_MS
from tidegate.commands import parse

pytestmark = [pytest.mark.kafka, pytest.mark.timeout(240)]

ROOT = Path(__file__).parents[3]
SOURCE = "raw"
TOPICS = TopicsSettings(prefix="eu.", partitions=2)
PRINCIPALS = {command: f"User:tidegate-{command}" for command in COMMANDS}
_OPERATIONS = {
    "Read": AclOperation.READ, "Write": AclOperation.WRITE, "Create": AclOperation.CREATE,
    "Describe": AclOperation.DESCRIBE, "DescribeConfigs": AclOperation.DESCRIBE_CONFIGS,
    "IdempotentWrite": AclOperation.IDEMPOTENT_WRITE,
}  # fmt: skip
_RESOURCES = {
    "topic": ResourceType.TOPIC, "group": ResourceType.GROUP, "cluster": ResourceType.BROKER,
    "transactional-id": ResourceType.TRANSACTIONAL_ID,
}  # fmt: skip


class Guarded:
    """A broker with an authorizer: its plain listener is an administrator's, the other one asks who is there."""

    def __init__(self, plain: str, sasl: str) -> None:
        self.plain, self.sasl = plain, sasl
        self.admin = AdminClient({"bootstrap.servers": plain})

    def properties(self, command: str) -> dict[str, str]:
        return {
            "security.protocol": "SASL_PLAINTEXT", "sasl.mechanism": "PLAIN",
            "sasl.username": f"tidegate-{command}", "sasl.password": "secret",
        }  # fmt: skip

    def settings(self, command: str) -> Settings:
        kafka = KafkaSettings(bootstrap_servers=self.sasl, properties=self.properties(command))
        return Settings(kafka=kafka, topics=TOPICS)

    def grant(self, bindings: Sequence[AclBinding]) -> None:
        for future in self.admin.create_acls(list(bindings)).values():
            future.result(10)

    def revoke(self, binding: AclBinding) -> None:
        given = (binding.restype, binding.name, binding.resource_pattern_type, binding.principal, binding.host)
        wanted = AclBindingFilter(*given, binding.operation, binding.permission_type)
        for future in self.admin.delete_acls([wanted]).values():
            assert len(future.result(10)) == 1

    def needed(self) -> list[AclBinding]:
        """Everything that is needed always."""
        return [
            AclBinding(
                _RESOURCES[acl.resource_type], acl.name,
                ResourcePatternType.PREFIXED if acl.pattern == "prefixed" else ResourcePatternType.LITERAL,
                acl.principal, "*", _OPERATIONS[operation], AclPermissionType.ALLOW,
            )
            for acl in acls(TOPICS, [SOURCE], PRINCIPALS, GROUPS)
            if not acl.when
            for operation in acl.operations
        ]  # fmt: skip

    def service(self, command: str, *flags: str) -> subprocess.CompletedProcess[str]:
        """Run a service to the end of its input, as its principal."""
        environment = {
            **os.environ, "KAFKA_BOOTSTRAP_SERVERS": self.sasl, "TIDEGATE_TOPICS__PREFIX": TOPICS.prefix,
            "TIDEGATE_TOPICS__PARTITIONS": str(TOPICS.partitions),
            **{
                f"TIDEGATE_KAFKA__PROPERTIES__{name.upper().replace('.', '_')}": value
                for name, value in self.properties(command).items()
            },
        }  # fmt: skip
        line = [sys.executable, "-m", "tidegate.cli", command, *flags, "--instance-id", "one", "--until-end"]
        return subprocess.run(line, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=90, check=False)


@pytest.fixture(scope="module")
def guarded() -> Iterator[Guarded]:
    plain, controller, sasl = free_ports(3)
    users = " ".join(f'user_tidegate-{command}="secret"' for command in COMMANDS)
    properties = {
        "listeners": f"PLAINTEXT://127.0.0.1:{plain},SASL://127.0.0.1:{sasl},CONTROLLER://127.0.0.1:{controller}",
        "advertised.listeners": f"PLAINTEXT://127.0.0.1:{plain},SASL://127.0.0.1:{sasl}",
        "controller.quorum.bootstrap.servers": f"127.0.0.1:{controller}",
        "listener.security.protocol.map": "CONTROLLER:PLAINTEXT,PLAINTEXT:PLAINTEXT,SASL:SASL_PLAINTEXT",
        "sasl.enabled.mechanisms": "PLAIN",
        "listener.name.sasl.plain.sasl.jaas.config": (
            f"org.apache.kafka.common.security.plain.PlainLoginModule required {users};"
        ),
        "authorizer.class.name": "org.apache.kafka.metadata.authorizer.StandardAuthorizer",
        "super.users": "User:ANONYMOUS",
    }
    with pytest.MonkeyPatch.context() as patch:
        # The listeners above are on these ports.
        patch.setattr("deploy.kafka.local.free_ports", lambda count: [plain, controller])
        with LocalKafka(properties) as kafka:
            yield Guarded(kafka.bootstrap_servers, f"127.0.0.1:{sasl}")


def call(number: int) -> dict[str, Any]:
    return {
        "tenant": "team-1", "session": f"s{number % 3}", "event_time_ms": START_MS + number,
        "messages": [{"role": "user", "parts": [{"type": "text", "text": f"hello {number}"}]}],
    }  # fmt: skip


def test_every_command_runs_with_what_is_printed_and_not_without(
    guarded: Guarded, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    administrator = replace(guarded.settings("topics"), kafka=KafkaSettings(bootstrap_servers=guarded.plain))
    assert topics.run(administrator, parse(["topics", "create", "--source-topic", SOURCE])) == 0
    refused = guarded.service("ingest", "--source-topic", SOURCE, "--format", "native")
    assert refused.returncode == 3, refused.stderr
    with pytest.raises(EnvironmentFault):
        state_command.run(guarded.settings("state"), parse(["state", "inspect"]))

    guarded.grant(guarded.needed())
    gateway = Producer({"bootstrap.servers": guarded.sasl, **guarded.properties("gateway")})
    for number in range(40):
        gateway.produce(SOURCE, orjson.dumps(call(number)))
    assert gateway.flush(20) == 0

    done = guarded.service("ingest", "--source-topic", SOURCE, "--format", "native")
    assert done.returncode == 0, done.stderr
    release = tmp_path / "release"
    write(release, StaticEmbedder.load(device="cpu").space_id)
    done = guarded.service("score", "--release", str(release))
    assert done.returncode == 0, done.stderr

    out = tmp_path / "out"
    flags = ["--topic", TOPICS.events, "--release", str(release)]
    assert replay_command.run(guarded.settings("replay"), parse(["replay", *flags, "--out", str(out)])) == 0
    scores = [orjson.loads(line) for line in (out / SCORES).read_bytes().splitlines()]
    assert len(scores) == 40
    capsys.readouterr()
    event_id = scores[7]["event_id"]
    assert explain_command.run(guarded.settings("explain"), parse(["explain", event_id, *flags, "--json"])) == 0
    assert orjson.loads(capsys.readouterr().out)["told_by"] == "replay"
    assert state_command.run(guarded.settings("state"), parse(["state", "inspect", "--json"])) == 0
    assert sum(each["tenants"] for each in orjson.loads(capsys.readouterr().out)["partitions"]) == 1
    assert topics.run(guarded.settings("topics"), parse(["topics", "check", "--source-topic", SOURCE])) == 0

    # And with nothing less.
    replay = parse(["replay", *flags, "--out", str(tmp_path / "again")])
    reading = {
        PRINCIPALS["state"]: lambda: state_command.run(guarded.settings("state"), parse(["state", "inspect"])),
        PRINCIPALS["replay"]: lambda: replay_command.run(guarded.settings("replay"), replay),
    }
    for binding in guarded.needed():
        if binding.principal in reading:
            guarded.revoke(binding)
            with pytest.raises(EnvironmentFault):
                reading[binding.principal]()
            guarded.grant([binding])


def test_kafkas_own_command_takes_the_lines(guarded: Guarded, capsys: pytest.CaptureFixture[str]) -> None:
    settings = replace(guarded.settings("topics"), kafka=KafkaSettings(bootstrap_servers=guarded.plain))
    assert topics.run(settings, parse(["topics", "acls", "--only", "ingest", "--source-topic", SOURCE])) == 0
    lines = [line for line in capsys.readouterr().out.splitlines() if line.startswith("kafka-acls.sh ")]
    # One that is by prefix, and has more to it than the others.
    (line,) = [line for line in lines if "--transactional-id" in line]
    java = ["java", "-XX:TieredStopAtLevel=1", "-cp", f"{HOME / 'libs'}/*", "org.apache.kafka.tools.AclCommand"]
    done = subprocess.run(
        [*java, *shlex.split(line)[1:]],
        capture_output=True,
        text=True,
        timeout=90,
        check=False,
        stdin=subprocess.DEVNULL,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert "resourceType=TRANSACTIONAL_ID, name=tidegate.ingest., patternType=PREFIXED" in done.stdout
    assert "principal=User:tidegate-ingest, host=*, operation=WRITE, permissionType=ALLOW" in done.stdout
