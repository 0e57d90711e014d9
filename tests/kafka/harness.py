"""Topics, events, readers and processes for tests on a real broker; it knows Kafka and JSON only."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from confluent_kafka import Consumer, KafkaError, Message, Producer, TopicPartition
from confluent_kafka.admin import AdminClient, NewTopic  # type: ignore[attr-defined]

ROOT = Path(__file__).parents[2]
EVENTS = "genai.gateway.events.v1"
SCORES = "genai.anomaly.scores.v1"
FINDINGS = "genai.anomaly.findings.v1"
STATE = "genai.anomaly.state.v1"
JOURNAL = "genai.anomaly.journal.v1"
CONTROLS = "genai.anomaly.controls.v1"
PARTITIONS = 2
PATIENCE_S = 180.0
"""Whatever takes longer hangs: a machine with much else to do may stand still for half a minute."""


class Cluster:
    """One test's topics on the broker.

    Parameters
    ----------
    prefix
        Of every topic, and of the group.
    """

    def __init__(self, servers: str, prefix: str) -> None:
        self.servers = servers
        self.prefix = prefix
        self.group = f"{prefix}group"
        self.admin = AdminClient({"bootstrap.servers": servers})

    def create(self, *names: str, partitions: int | None = None, **config: str) -> None:
        """Topics, by name without prefix; all that a scorer needs when none is named.

        That of the controls has one partition, as it must, unless it is named beside another number.
        """
        wanted = names or (EVENTS, SCORES, FINDINGS, STATE, JOURNAL, CONTROLS)
        # Records are dated by the events in them, which lie in the past: retention would take them from under a test.
        kept = {"max.message.bytes": "8454144", "retention.ms": "-1"}
        settings = kept | {key.replace("_", "."): value for key, value in config.items()}
        counts = {CONTROLS: 1} if partitions is None or not names else {}
        topics = [
            NewTopic(self.prefix + name, counts.get(name, partitions or PARTITIONS), 1, config=settings)
            for name in wanted
        ]
        for created in self.admin.create_topics(topics).values():
            created.result(PATIENCE_S)
        self._await_told({topic.topic: topic.num_partitions for topic in topics})

    def _await_told(self, wanted: Mapping[str, int]) -> None:
        """A broker that has much to do says that it has made a topic before it tells of it, and who leads it."""
        until = time.monotonic() + PATIENCE_S
        while True:
            told = self.admin.list_topics(timeout=PATIENCE_S).topics
            led = {name: [part.leader for part in told[name].partitions.values()] for name in wanted if name in told}
            if all(len(led.get(name, ())) == count and -1 not in led[name] for name, count in wanted.items()):
                return
            assert time.monotonic() < until, f"no broker tells of {wanted}: {led}"
            time.sleep(0.05)

    def events(self, numbers: Sequence[int], transactional: str | None = None, pad: int = 0) -> None:
        """Events of seven tenants, each tenant on one partition; in one transaction when `transactional` names one."""
        producer = Producer(
            {"bootstrap.servers": self.servers, "enable.idempotence": True} | _transactional(transactional)
        )
        if transactional is not None:
            producer.init_transactions(PATIENCE_S)
            producer.begin_transaction()
        for number in numbers:
            self._produce(producer, number, pad)
        if transactional is not None:
            producer.commit_transaction(PATIENCE_S)
        assert producer.flush(PATIENCE_S) == 0

    def control(self, kind: str, value: Mapping[str, Any]) -> int:
        """A control on its topic; its offset."""
        return self.raw_control(
            json.dumps({"kind": kind, "value": value, "time_ms": int(time.time() * 1000), "issuer": "test"})
        )

    def switch(self, release: str, **differing: str) -> int:
        """Ask for a release that the counting scorer knows; offset of the control."""
        ids = {"space_id": "space", "feature_schema": "features", "state_schema": "1", "manifest_sha256": "0" * 64}
        return self.control("release", {"release": release, **ids, **differing})

    def raw_control(self, value: str | bytes) -> int:
        """Anything on the topic of controls; its offset."""
        offsets: list[int] = []
        producer = Producer({"bootstrap.servers": self.servers, "enable.idempotence": True})
        producer.produce(
            self.prefix + CONTROLS, value, partition=0, on_delivery=lambda _, sent: offsets.append(sent.offset() or 0)
        )
        assert producer.flush(PATIENCE_S) == 0
        return offsets[0]

    def _produce(self, producer: Producer, number: int, pad: int) -> None:
        tenant = f"t{number % 7}"
        value = json.dumps({"tenant": tenant, "event_id": f"{number:064x}", "pad": "x" * pad})
        while True:
            try:
                producer.produce(self.prefix + EVENTS, value, json.dumps([tenant]), (number % 7) % PARTITIONS)
            except BufferError:
                producer.poll(0.1)
            else:
                return

    def aborted(self, name: str, partition: int, count: int) -> None:
        """Records that no `read_committed` reader may see."""
        producer = Producer({"bootstrap.servers": self.servers} | _transactional(f"{self.prefix}aborted"))
        producer.init_transactions(PATIENCE_S)
        producer.begin_transaction()
        for number in range(count):
            value = json.dumps({"tenant": "ghost", "event_id": f"{number:x}"})
            producer.produce(self.prefix + name, value, "g", partition)
        assert producer.flush(PATIENCE_S) == 0
        producer.abort_transaction(PATIENCE_S)

    def read(self, name: str, isolation: str = "read_committed") -> list[Message]:
        """Every record of a topic, partition by partition."""
        consumer = Consumer(
            {
                "bootstrap.servers": self.servers,
                "group.id": f"{self.prefix}reader",
                "isolation.level": isolation,
                "enable.partition.eof": True,
                "auto.offset.reset": "earliest",
            }
        )
        count = len(consumer.list_topics(self.prefix + name, PATIENCE_S).topics[self.prefix + name].partitions)
        consumer.assign([TopicPartition(self.prefix + name, partition, 0) for partition in range(count)])
        # Not a read_committed reader's own end: that is the first open transaction, which may outlive its producer.
        ends = self.ends(name, count)
        messages: list[Message] = []
        ended: set[int] = set()
        until = time.monotonic() + PATIENCE_S
        while len(ended) < count:
            assert time.monotonic() < until, f"{name} did not end: an open transaction?"
            for message in consumer.consume(1000, 0.2):
                error = message.error()
                if error is None:
                    messages.append(message)
                elif error.code() == KafkaError._PARTITION_EOF:
                    partition, offset = message.partition() or 0, message.offset() or 0
                    ended |= {partition} if offset >= ends[partition] else set()
        consumer.close()
        return sorted(messages, key=lambda m: (m.partition(), m.offset()))

    def values(self, name: str) -> list[dict[str, Any]]:
        """The committed records of a topic as JSON."""
        return [json.loads(message.value() or b"null") for message in self.read(name)]

    def ends(self, name: str = EVENTS, partitions: int = PARTITIONS) -> dict[int, int]:
        """Ends of a topic's partitions, open transactions and markers included."""
        consumer = Consumer(
            {"bootstrap.servers": self.servers, "group.id": "ends", "isolation.level": "read_uncommitted"}
        )
        found = {}
        for partition in range(partitions):
            watermarks = consumer.get_watermark_offsets(
                TopicPartition(self.prefix + name, partition), timeout=PATIENCE_S
            )
            assert watermarks is not None
            found[partition] = watermarks[1]
        consumer.close()
        return found

    def committed(self, name: str = EVENTS) -> dict[int, int]:
        """The group's committed offsets."""
        consumer = Consumer({"bootstrap.servers": self.servers, "group.id": self.group})
        places = [TopicPartition(self.prefix + name, partition) for partition in range(PARTITIONS)]
        found = {place.partition: place.offset for place in consumer.committed(places, timeout=PATIENCE_S)}
        consumer.close()
        return found

    def wait_committed(self, offsets: Mapping[int, int], seconds: float = PATIENCE_S) -> None:
        """Until the group has committed at least these offsets."""
        until = time.monotonic() + seconds
        while any(self.committed()[partition] < offset for partition, offset in offsets.items()):
            assert time.monotonic() < until, f"committed {self.committed()}, wanted {offsets}"
            time.sleep(0.02)

    def wait_progress(self, count: int = 100) -> None:
        """Until each partition is `count` offsets further than now, or at its end."""
        ends = self.ends()
        now = self.committed()
        self.wait_committed({partition: min(offset + count, ends[partition]) for partition, offset in now.items()})

    def expected_scores(self, count: int) -> list[tuple[str, int]]:
        """Event id and number within its tenant of events 0 … `count` − 1, partition by partition."""
        out: list[tuple[int, int, str, int]] = []
        numbers: dict[int, int] = {}
        for number in range(count):
            numbers[number % 7] = numbers.get(number % 7, 0) + 1
            out.append(((number % 7) % PARTITIONS, number, f"{number:064x}", numbers[number % 7]))
        return [(event_id, n) for _, _, event_id, n in sorted(out)]

    def scores(self) -> list[tuple[str, int]]:
        """What is on the scores topic, as `expected_scores` has it."""
        return [(score["event_id"], score["count"]) for score in self.values(SCORES)]


def _transactional(transactional_id: str | None) -> dict[str, str | int | float]:
    return {} if transactional_id is None else {"transactional.id": transactional_id}


class Process:
    """The counting scorer, or another module, as a process."""

    def __init__(self, cluster: Cluster, *arguments: str, module: str = "tests.kafka.counting") -> None:
        command = [sys.executable, "-m", module, "--bootstrap-servers", cluster.servers]
        command += ["--topic-prefix", cluster.prefix, "--group-id", cluster.group, *arguments]
        self.started = time.monotonic()
        # No pipe: one that nobody reads is full after some hundred warnings, and the next one blocks the process.
        self._folder = tempfile.TemporaryDirectory(prefix="scorer-")
        self._log = Path(self._folder.name) / "stderr"
        with self._log.open("w") as log:
            self._process = subprocess.Popen(
                command, cwd=ROOT, stdout=subprocess.PIPE, stderr=log, text=True, env={**os.environ}
            )

    def ready(self) -> dict[str, Any]:
        """What the READY line says."""
        assert self._process.stdout is not None
        os.set_blocking(self._process.stdout.fileno(), True)
        line = self._process.stdout.readline()
        assert line.startswith("READY "), line + self.errors
        said: dict[str, Any] = json.loads(line.removeprefix("READY "))
        return said

    def send(self, number: signal.Signals) -> None:
        """A signal."""
        self._process.send_signal(number)

    def end(self, seconds: float = PATIENCE_S) -> tuple[int, str]:
        """Exit code and stderr, once it has ended."""
        self._process.communicate(timeout=seconds)
        return self._process.returncode, self.errors

    @property
    def errors(self) -> str:
        """Stderr so far."""
        return self._log.read_text()

    def kill(self) -> None:
        """SIGKILL."""
        self._process.kill()
        self._process.communicate()

    def close(self) -> None:
        """Forget what it said."""
        self._folder.cleanup()

    @property
    def running(self) -> bool:
        return self._process.poll() is None


@contextmanager
def scorer(cluster: Cluster, *arguments: str) -> Iterator[Process]:
    """A counting scorer that is gone afterwards."""
    process = Process(cluster, *arguments)
    try:
        yield process
    finally:
        if process.running:
            process.kill()
        process.close()


def run_to_end(cluster: Cluster, *arguments: str) -> tuple[int, str]:
    """Exit code and stderr of a counting scorer that stops by itself."""
    with scorer(cluster, "--until-end", *arguments) as process:
        return process.end()


def get(url: str) -> tuple[int, str]:
    """Status and body of a page."""
    try:
        with urllib.request.urlopen(url, timeout=60) as answer:
            return answer.status, answer.read().decode()
    except urllib.error.HTTPError as error:
        return error.code, error.read().decode()


def answered(url: str) -> str:
    """What a page says; nothing where nobody answers."""
    try:
        return get(url)[1]
    except OSError:
        return ""


def headers_of(message: Message) -> dict[str, Any]:
    """A record's headers by name."""
    return dict(message.headers() or [])
