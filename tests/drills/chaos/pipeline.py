"""Ingest and scorers as processes over one cluster: started, killed, replaced, and judged at the end."""

import os
import signal
import time
import uuid
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from confluent_kafka import Consumer, TopicPartition
from confluent_kafka.admin import AdminClient, NewTopic  # type: ignore[attr-defined]

from tests.drills.checker import Verdict, check_ingest, check_scores
from tidegate.demo.process import CommandError, Service, environment, run

PARTITIONS, RAW_PARTITIONS = 4, 2
RESTART_ME = 6
"""Exit code of a process that was fenced: whoever runs it starts it again."""
_READY_S, _END_S, STOP_S = 300.0, 1800.0, 90.0
_ENDINGS = 5


@dataclass(slots=True)
class Pipeline:
    """What is put under fire.

    Parameters
    ----------
    bootstrap_servers
        Of the cluster; topics and groups get a prefix of their own.
    release
        What to score with.
    out
        Where logs and the replay go.
    protocol
        `kafka.group_protocol` of every service.
    far_servers
        Another way to the same cluster, for the services of `far`.
    settings
        More environment for every service.
    modules
        Service -> its program, where it is another one than Tidegate's own.
    """

    bootstrap_servers: str
    release: Path
    out: Path
    protocol: str = "classic"
    far_servers: str = ""
    far: frozenset[str] = frozenset()
    settings: Mapping[str, str] = field(default_factory=dict)
    modules: dict[str, str] = field(default_factory=dict)
    prefix: str = field(default_factory=lambda: f"drill-{uuid.uuid4().hex[:8]}.")
    services: dict[str, Service] = field(default_factory=dict)
    faults: list[str] = field(default_factory=list)
    """Exit codes that nothing explains."""
    _asking: dict[str, Consumer] = field(default_factory=dict)
    fenced: int = 0
    """Services that ended with exit code 6 and were started again."""

    @property
    def raw(self) -> str:
        """The topic that gateways write to."""
        return f"{self.prefix}raw"

    @property
    def scorers(self) -> list[str]:
        """Names of the scorers that there are now."""
        return sorted(name for name in self.services if name.startswith("score"))

    def topic(self, name: str) -> str:
        """Full name of one of Tidegate's topics, such as `anomaly.scores`."""
        return f"{self.prefix}genai.{name}.v1"

    def group(self, name: str) -> str:
        """Consumer group of a service."""
        return f"{self.prefix}{name.partition('-')[0]}"

    def prepare(self) -> None:
        """Create the topics."""
        self.out.mkdir(parents=True, exist_ok=True)
        admin = AdminClient({"bootstrap.servers": self.bootstrap_servers})
        raw = NewTopic(self.raw, RAW_PARTITIONS, -1, config={"max.message.bytes": "8454144"})
        admin.create_topics([raw])[self.raw].result(180)
        run(["topics", "create", "--source-topic", self.raw], self._environment(), self.out / "topics.log")

    def start(self, name: str, *more: str, wait: bool = False, settings: Mapping[str, str] | None = None) -> None:
        """Start a service: `ingest-N` or `score-N` as a static member of that name, `score-any` as one without.

        Parameters
        ----------
        wait
            Until it says that it is ready.
        settings
            More environment for this one.
        """
        kind, _, number = name.partition("-")
        own = {
            "ingest": ["--source-topic", self.raw, "--format", "litellm"],
            "score": ["--release", str(self.release)],
        }[kind]
        member = ["--group-id", self.group(name), *(["--instance-id", number] if number != "any" else [])]
        variables = self._environment() | dict(settings or {})
        if name in self.far:
            variables["KAFKA_BOOTSTRAP_SERVERS"] = self.far_servers
        command = [kind, *own, *member, *more]
        module = self.modules.get(name, self.modules.get(kind, "tidegate.cli"))
        self.services[name] = Service(command, variables, self.out / f"{name}.log", module)
        if wait:
            self._await_ready(name, more, settings)

    def _await_ready(self, name: str, more: tuple[str, ...], settings: Mapping[str, str] | None) -> None:
        try:
            self.services[name].ready(_READY_S)
        except CommandError:
            # One that hangs may keep all others from their partitions.
            for each in self.services.values():
                if each.code is None:
                    each.tell()
            service = self.services.pop(name)
            service.__exit__(None, None, None)
            if service.code != RESTART_ME:
                raise
            self._judge(name, service.code)
            self.start(name, *more, settings=settings)

    def committed(self, name: str) -> int:
        """Sum of the offsets that the group of a service has committed, whatever transaction is open."""
        topic = self.raw if name.startswith("ingest") else self.topic("gateway.events")
        count = RAW_PARTITIONS if name.startswith("ingest") else PARTITIONS
        group = self.group(name)
        if group not in self._asking:
            # One that reads committed records would wait for a transaction that is open.
            self._asking[group] = Consumer(
                {
                    "bootstrap.servers": self.bootstrap_servers,
                    "group.id": group,
                    "isolation.level": "read_uncommitted",
                    "log_level": 0,
                }
            )
        wanted = [TopicPartition(topic, number) for number in range(count)]
        return sum(max(part.offset, 0) for part in self._asking[group].committed(wanted, timeout=120.0))

    def kill(self, name: str) -> None:
        """SIGKILL."""
        service = self.services.pop(name)
        service.kill()
        service.__exit__(None, None, None)

    def stop(self, name: str) -> None:
        """SIGTERM, and what it said about it."""
        service = self.services.pop(name)
        end(service)
        self._judge(name, service.code)

    def stop_all(self) -> None:
        """End whatever runs, a frozen one by force."""
        for name in list(self.services):
            self.services[name].thaw()
            self.stop(name)

    def revive(self) -> None:
        """Start again what has ended by itself, and note it."""
        for name, service in list(self.services.items()):
            if service.code is not None:
                self.services.pop(name).__exit__(None, None, None)
                self._judge(name, service.code)
                self.start(name)

    def finish(self) -> tuple[Verdict, Verdict]:
        """Let both services work to the end of what there is, replay it, and ask the checker of ingest and of score."""
        self.stop_all()
        for name in ("ingest-1", "score-1"):
            self.to_end(name)
        arguments = ["replay", "--topic", self.topic("gateway.events"), "--journal", "topic"]
        arguments += ["--release", str(self.release), "--out", str(self.out / "replay")]
        run(arguments, self._environment(), self.out / "replay.log")
        return (
            check_ingest(self.bootstrap_servers, self.raw, self.topic("gateway.events")),
            check_scores(
                self.bootstrap_servers,
                self.topic("gateway.events"),
                self.topic("anomaly.scores"),
                self.topic("anomaly.findings"),
                self.out / "replay",
            ),
        )

    def to_end(self, name: str) -> None:
        """Run a service until it has done all that there is."""
        for _ in range(_ENDINGS):
            self.start(name, "--until-end")
            with self.services.pop(name) as service:
                try:
                    service.wait(_END_S)
                except CommandError:
                    # What a broker that has just come back, or a session of a member that was killed, still owes it.
                    self._judge(name, service.code)
                    if service.code != RESTART_ME:
                        raise
                else:
                    return
        raise CommandError(f"`{name}` was fenced {_ENDINGS} times in a row")

    def _judge(self, name: str, code: int | None) -> None:
        if code == RESTART_ME:
            self.fenced += 1
        elif code:
            self.faults.append(f"{name} ended with exit code {code}: see {self.out / name}.log")

    def _environment(self) -> dict[str, str]:
        return environment(
            KAFKA_BOOTSTRAP_SERVERS=self.bootstrap_servers,
            TIDEGATE_TOPICS__PREFIX=self.prefix,
            TIDEGATE_TOPICS__PARTITIONS=str(PARTITIONS),
            TIDEGATE_BATCH__RECORDS_MAX="500",
            TIDEGATE_KAFKA__GROUP_PROTOCOL=self.protocol,
            **self.settings,
        )


def end(service: Service) -> None:
    """SIGTERM, and all the time that a service may take on a machine that stands still for a while."""
    if service.code is None:
        os.kill(service.pid, signal.SIGTERM)
    deadline = time.monotonic() + STOP_S
    while service.code is None and time.monotonic() < deadline:
        time.sleep(0.05)
    service.__exit__(None, None, None)
