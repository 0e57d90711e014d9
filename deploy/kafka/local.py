"""A real single-node Apache Kafka (KRaft) on loopback, for `make demo`, `make test` and trying things out.

Needs Java 17 and, once, Maven. Only the standard library, so that it runs before anything is installed:

```
python -m deploy.kafka.local fetch     # the jars, into .kafka/libs
python -m deploy.kafka.local run       # a broker until Ctrl-C; prints its address
```
"""

from __future__ import annotations

import argparse
import base64
import hashlib
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
import uuid
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Self

from deploy.processes import end, free_ports, spawn

HERE = Path(__file__).resolve().parent
HOME = HERE.parents[1] / ".kafka"
"""Jars, and the data folders of brokers that run."""

COPY_JARS = "org.apache.maven.plugins:maven-dependency-plugin:3.8.1:copy-dependencies"
RECORD_BYTES_MAX = 8 * 1024 * 1024 + 128 * 1024
"""An event of 8 MiB, with room for its dead letter's headers."""
INSTALL = "install them with 'apt-get install openjdk-17-jre-headless maven', or use docker compose"
LOG_TAIL_LINES = 15
START_ATTEMPTS = 3

# Startup and memory count here, not peak throughput: a broker for a test lives for minutes beside its clients.
FAST_START = ("-Xmx512m", "-XX:TieredStopAtLevel=1", "-XX:+UseSerialGC", "-Xshare:auto")


class KafkaUnavailable(RuntimeError):
    """The broker, its jars or its Java cannot be had; the message says what to do."""


def fetch(home: Path = HOME, say: Callable[[str], None] | None = None) -> Path:
    """The folder of Kafka's jars under `home`, filled by Maven when it is missing or of another `pom.xml`.

    A fetch that was cut short leaves nothing behind that a later one would take for complete.

    Raises
    ------
    KafkaUnavailable
        Without Maven, or when it fails.
    """
    libs = home / "libs"
    stamp = libs / "pom.sha256"
    wanted = hashlib.sha256((HERE / "pom.xml").read_bytes()).hexdigest()
    if stamp.is_file() and stamp.read_text() == wanted:
        return libs
    if shutil.which("mvn") is None:
        raise KafkaUnavailable(f"Kafka's jars need Maven (mvn), which is not here: {INSTALL}.")
    if say:
        say("fetching Apache Kafka's jars with Maven (54 MB, once)")
    home.mkdir(parents=True, exist_ok=True)
    part = Path(tempfile.mkdtemp(prefix="libs-", dir=home))
    try:
        # -C: a jar whose checksum differs fails the build; Maven's default only warns.
        command = ["mvn", "-q", "-B", "-C", "-f", str(HERE / "pom.xml"), COPY_JARS, f"-DoutputDirectory={part}"]
        done = subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False)
        if done.returncode or not any(part.glob("kafka_*.jar")):
            raise KafkaUnavailable(f"mvn could not get Kafka's jars (exit {done.returncode}): {tail(done.stdout)}")
        (part / stamp.name).write_text(wanted)
        shutil.rmtree(libs, ignore_errors=True)
        part.rename(libs)
    finally:
        shutil.rmtree(part, ignore_errors=True)
    return libs


class LocalKafka:
    """One broker and controller on free loopback ports with a data folder of its own; a context manager.

    It is gone when the block ends, however it ends. A parent that dies takes it along: the kernel signals it when the
    thread that started it ends, so start it in the main thread.

    Parameters
    ----------
    properties
        Server properties, added to the defaults or put in their place.
    jvm_options
        Java's options; the default starts fast and stays small.
    home
        Where the jars lie.
    data_dir
        Where to make the data folder; it is removed at the end. By default in `home`.

    Attributes
    ----------
    bootstrap_servers
        `127.0.0.1:PORT` while it runs.
    """

    def __init__(
        self,
        properties: Mapping[str, str] | None = None,
        jvm_options: Sequence[str] = FAST_START,
        home: Path = HOME,
        data_dir: Path | None = None,
    ) -> None:
        self.bootstrap_servers = ""
        self._properties = dict(properties or {})
        self._jvm_options = tuple(jvm_options)
        self._home = home
        self._data_dir = data_dir or home / "data"
        self._data: Path | None = None
        self._process: subprocess.Popen[bytes] | None = None

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()

    @property
    def pid(self) -> int | None:
        """Process id while it runs."""
        return self._process.pid if self._process else None

    @property
    def log(self) -> Path:
        """The server's log, warnings and errors only; it goes with the data folder."""
        if self._data is None:
            raise KafkaUnavailable("the local Kafka has no log: it is not running. Call start().")
        return self._data / "server.log"

    def start(self, timeout_s: float = 60.0) -> None:
        """Format a data folder and start the broker; return once it accepts connections.

        Raises
        ------
        KafkaUnavailable
            When there is no Java 17, or the broker ends or is silent for `timeout_s`.
        """
        libs = fetch(self._home)
        check_java()
        sweep(self._data_dir)
        for attempt in range(1, START_ATTEMPTS + 1):
            try:
                self._start_once(libs, timeout_s)
            except _PortTaken:
                # Between choosing a free port and listening on it, another process may have taken it.
                self.stop()
                if attempt == START_ATTEMPTS:
                    raise
            except BaseException:
                self.stop()
                raise
            else:
                return

    def stop(self, grace_s: float = 8.0) -> None:
        """End the broker (SIGTERM, after `grace_s` SIGKILL) and remove its data. Safe to call twice."""
        process, self._process = self._process, None
        self.bootstrap_servers = ""
        if process is not None:
            end(process, grace_s)
        data, self._data = self._data, None
        if data is not None:
            shutil.rmtree(data, ignore_errors=True)

    def _start_once(self, libs: Path, timeout_s: float) -> None:
        self._data = data = data_folder(self._data_dir)
        port, controller_port = free_ports(2)
        config = data / "server.properties"
        properties = self._configuration(port, controller_port, data) | self._properties
        config.touch(mode=0o600)  # it may hold passwords
        config.write_text("".join(f"{key}={value}\n" for key, value in properties.items()))
        java = java_command(libs, self._jvm_options)
        format_storage(java, config, *self._format_flags())
        with self.log.open("wb") as log:
            self._process = spawn([*java, "kafka.Kafka", str(config)], log.fileno())
        self._await_listening(port, timeout_s)
        self.bootstrap_servers = f"127.0.0.1:{port}"

    def _configuration(self, port: int, controller_port: int, data: Path) -> dict[str, str]:
        """Server properties, before those that were given."""
        return server_properties(port, controller_port, data / "log")

    def _format_flags(self) -> list[str]:
        """Flags of Kafka's storage tool."""
        return ["--standalone", "-t", cluster_id()]

    def _await_listening(self, port: int, timeout_s: float) -> None:
        assert self._process is not None
        deadline = time.monotonic() + timeout_s
        while time.monotonic() < deadline:
            if "Kafka Server started" in self._log_text() and accepts(port):
                return
            try:
                code = self._process.wait(timeout=0.05)
            except subprocess.TimeoutExpired:
                continue
            text = self._log_text()
            kind = _PortTaken if "Address already in use" in text else KafkaUnavailable
            raise kind(f"the local Kafka ended while starting (exit {code}): {tail(text)}")
        raise KafkaUnavailable(f"the local Kafka was not up within {timeout_s:g} s: {tail(self._log_text())}")

    def _log_text(self) -> str:
        return self.log.read_text(errors="replace")


class _PortTaken(KafkaUnavailable):
    """Another process listens on the port that was free a moment ago."""


def check_java() -> None:
    """Raise `KafkaUnavailable` unless `java` is version 17 or later."""
    java = shutil.which("java")
    if java is None:
        raise KafkaUnavailable(f"Kafka needs Java 17 (java), which is not here: {INSTALL}.")
    # A .class of Java 17 is what Kafka 4 consists of; the version line reads: openjdk version "17.0.15" 2025-04-15
    said = subprocess.run([java, "-version"], stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False)
    _, _, quoted = (said.stderr + said.stdout).partition('version "')
    major = quoted.split(".")[0].split('"')[0]
    if not major.isdecimal() or int(major) < 17:
        raise KafkaUnavailable(f"Kafka needs Java 17 or later; {java} is version {major or 'unknown'}: {INSTALL}.")


def java_command(libs: Path, jvm_options: Sequence[str] = FAST_START) -> list[str]:
    """Java with Kafka's jars, for a class and its arguments to follow."""
    logging = f"-Dlog4j2.configurationFile={(HERE / 'log4j2.xml').as_uri()}"
    return ["java", *jvm_options, logging, "-cp", f"{libs}/*"]


def format_storage(java: Sequence[str], config: Path, *flags: str) -> None:
    """Make the data folder that `config` names ready for a first start.

    Raises
    ------
    KafkaUnavailable
        When Kafka refuses.
    """
    command = [*java, "kafka.tools.StorageTool", "format", *flags, "-c", str(config)]
    formatted = subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False)
    if formatted.returncode:
        raise KafkaUnavailable(f"Kafka could not format by {config}: {tail(formatted.stdout + formatted.stderr)}")


def server_properties(port: int, controller_port: int, log_dir: Path) -> dict[str, str]:
    """A broker and controller in one, on loopback, with one replica of everything."""
    return {
        "process.roles": "broker,controller",
        "node.id": "1",
        "controller.quorum.bootstrap.servers": f"127.0.0.1:{controller_port}",
        "listeners": f"PLAINTEXT://127.0.0.1:{port},CONTROLLER://127.0.0.1:{controller_port}",
        "advertised.listeners": f"PLAINTEXT://127.0.0.1:{port}",
        "controller.listener.names": "CONTROLLER",
        "inter.broker.listener.name": "PLAINTEXT",
        "listener.security.protocol.map": "CONTROLLER:PLAINTEXT,PLAINTEXT:PLAINTEXT",
        "log.dirs": str(log_dir),
        # A topic that `topics create` did not make must be missed, not made up.
        "auto.create.topics.enable": "false",
        "offsets.topic.replication.factor": "1",
        "offsets.topic.num.partitions": "4",
        "transaction.state.log.replication.factor": "1",
        "transaction.state.log.min.isr": "1",
        "transaction.state.log.num.partitions": "4",
        "share.coordinator.state.topic.replication.factor": "1",
        "share.coordinator.state.topic.min.isr": "1",
        "group.initial.rebalance.delay.ms": "0",
        "group.min.session.timeout.ms": "1000",
        "message.max.bytes": str(RECORD_BYTES_MAX),
        "replica.fetch.max.bytes": str(RECORD_BYTES_MAX),
        # 128 MiB by default, a quarter of this heap.
        "log.cleaner.dedupe.buffer.size": str(16 * 1024 * 1024),
    }


def cluster_id() -> str:
    """A random cluster id as Kafka writes them; none starts with '-', which the tool would read as a flag."""
    while True:
        name = base64.urlsafe_b64encode(uuid.uuid4().bytes).decode().rstrip("=")
        if not name.startswith("-"):
            return name


def accepts(port: int) -> bool:
    """Whether somebody listens on a loopback port."""
    with socket.socket() as probe:
        probe.settimeout(1.0)
        return probe.connect_ex(("127.0.0.1", port)) == 0


def data_folder(parent: Path) -> Path:
    """A new folder that names its owner, so that `sweep` knows when nobody needs it."""
    parent.mkdir(parents=True, exist_ok=True)
    return Path(tempfile.mkdtemp(prefix=f"kafka-{os.getpid()}-", dir=parent))


def sweep(parent: Path) -> None:
    """Remove data folders whose owner was killed before it could."""
    for folder in parent.glob("kafka-*-*"):
        owner = folder.name.split("-")[1]
        if owner.isdecimal() and not Path(f"/proc/{owner}").exists():
            shutil.rmtree(folder, ignore_errors=True)


def tail(text: str) -> str:
    """The last lines of what a process said."""
    return "\n".join(text.strip().splitlines()[-LOG_TAIL_LINES:]) or "it said nothing"


def main(arguments: Sequence[str] | None = None) -> int:
    """Command line: `fetch` the jars, or `run` a broker till interrupted."""
    parser = argparse.ArgumentParser(prog="python -m deploy.kafka.local", description="A real Kafka on this machine.")
    parser.add_argument("command", choices=("fetch", "run"))
    command = parser.parse_args(arguments).command
    try:
        fetch(say=lambda line: print(f"local kafka: {line}", file=sys.stderr))
        if command == "fetch":
            return 0
        signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
        with LocalKafka() as kafka:
            print(kafka.bootstrap_servers, flush=True)
            signal.pause()
    except KafkaUnavailable as error:
        print(f"local kafka: {error}", file=sys.stderr)
        return 3
    except KeyboardInterrupt:
        pass
    return 0


if __name__ == "__main__":
    sys.exit(main())
