"""Three real Kafka brokers (KRaft) on loopback that can be killed, frozen and started again one by one.

For drills: what one broker holds the two others hold too, and a majority of two goes on without the third.
"""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import time
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Self

from deploy.kafka.local import (
    FAST_START,
    HOME,
    KafkaUnavailable,
    accepts,
    check_java,
    cluster_id,
    data_folder,
    fetch,
    format_storage,
    java_command,
    server_properties,
    sweep,
    tail,
)
from deploy.processes import end, free_ports, spawn

REPLICATED: Mapping[str, str] = {
    "default.replication.factor": "3",
    "min.insync.replicas": "2",
    "offsets.topic.replication.factor": "3",
    "transaction.state.log.replication.factor": "3",
    "transaction.state.log.min.isr": "2",
    "share.coordinator.state.topic.replication.factor": "3",
    "share.coordinator.state.topic.min.isr": "2",
}
"""Any one broker may be lost: an acknowledged record is on two of three."""


@dataclass(slots=True)
class _Node:
    number: int
    folder: Path
    port: int
    far_port: int
    process: subprocess.Popen[bytes] | None = None

    @property
    def log(self) -> Path:
        return self.folder / "server.log"


class LocalCluster:
    """Brokers 1 to `brokers`, each a process and controller of its own; a context manager.

    Start it in the main thread, as `LocalKafka`: the kernel ends the brokers with the thread that made them.

    Parameters
    ----------
    far_ports
        A port a broker that leads to it by a detour, such as a proxy: clients that ask on `far_targets` are told to go
        on by these.
    properties
        Server properties of every broker, added to the defaults or put in their place.

    Attributes
    ----------
    far_targets
        The ports at which the brokers themselves listen for what comes by the detour.
    """

    def __init__(
        self,
        brokers: int = 3,
        far_ports: Sequence[int] = (),
        properties: Mapping[str, str] | None = None,
        jvm_options: Sequence[str] = FAST_START,
        home: Path = HOME,
        data_dir: Path | None = None,
    ) -> None:
        if far_ports and len(far_ports) != brokers:
            raise ValueError(f"far_ports must be one for each of {brokers} brokers; got {len(far_ports)}")
        self._count = brokers
        self._far_ports = tuple(far_ports)
        self._properties = dict(properties or {})
        self._jvm_options = tuple(jvm_options)
        self._home = home
        self._data_dir = data_dir or home / "data"
        self._java: list[str] = []
        self._nodes: dict[int, _Node] = {}

    @property
    def bootstrap_servers(self) -> str:
        """Every broker's address, running or not."""
        return ",".join(f"127.0.0.1:{node.port}" for node in self._nodes.values())

    @property
    def far_targets(self) -> dict[int, int]:
        """Broker -> the port at which it listens for the detour."""
        return {number: node.far_port for number, node in self._nodes.items()}

    @property
    def running(self) -> list[int]:
        """Brokers whose process lives."""
        return [number for number, node in self._nodes.items() if node.process and node.process.poll() is None]

    def __enter__(self) -> Self:
        check_java()
        self._java = java_command(fetch(self._home), self._jvm_options)
        sweep(self._data_dir)
        try:
            self._prepare()
            for number in self._nodes:
                self._launch(number)
            for number in self._nodes:
                self._await_listening(number, 90.0)
        except BaseException:
            self.stop()
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()

    def kill(self, number: int) -> None:
        """End a broker as a crash would: SIGKILL. Its data stays."""
        process = self._running(number)
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()
        self._nodes[number].process = None

    def shut_down(self, number: int) -> None:
        """End a broker as an operator would: SIGTERM, its leaderships handed over first."""
        end(self._running(number), 30.0)
        self._nodes[number].process = None

    def freeze(self, number: int) -> None:
        """Stop a broker's clockwork, as a disk does that answers nothing: SIGSTOP."""
        os.killpg(self._running(number).pid, signal.SIGSTOP)

    def thaw(self, number: int) -> None:
        """Let a frozen broker go on."""
        os.killpg(self._running(number).pid, signal.SIGCONT)

    def start(self, number: int, timeout_s: float = 60.0) -> None:
        """Start a broker that was ended, on its own data and ports; return once it accepts connections.

        Raises
        ------
        KafkaUnavailable
            When it ends, or is silent for `timeout_s`.
        """
        deadline = time.monotonic() + timeout_s
        while True:
            self._launch(number)
            try:
                self._await_listening(number, deadline - time.monotonic())
            except KafkaUnavailable as error:
                # Its port was free meanwhile: a client's connection, which is soon over, may have been given it.
                if "Address already in use" not in str(error) or time.monotonic() > deadline:
                    raise
                time.sleep(1.0)
            else:
                return

    def stop(self) -> None:
        """End every broker and remove the data. Safe to call twice."""
        nodes, self._nodes = self._nodes, {}
        for node in nodes.values():
            if node.process is not None and node.process.poll() is None:
                # Nobody needs what they hold: a goodbye among three that leave at once takes its time-out.
                os.killpg(node.process.pid, signal.SIGKILL)
                node.process.wait()
            shutil.rmtree(node.folder, ignore_errors=True)

    def _prepare(self) -> None:
        ports = free_ports(3 * self._count)
        controllers = ports[: self._count]
        voters = ",".join(f"{number}@127.0.0.1:{port}" for number, port in enumerate(controllers, 1))
        name = cluster_id()
        for number, controller_port in enumerate(controllers, 1):
            port, far_port = ports[self._count + number - 1], ports[2 * self._count + number - 1]
            node = self._nodes[number] = _Node(number, data_folder(self._data_dir), port, far_port)
            given = self._server_properties(node, controller_port, voters)
            (node.folder / "server.properties").write_text("".join(f"{key}={value}\n" for key, value in given.items()))
        with ThreadPoolExecutor(self._count) as threads:
            # A list, so that a failure is raised here.
            list(
                threads.map(
                    lambda node: format_storage(self._java, self._config(node), "-t", name), self._nodes.values()
                )
            )

    def _server_properties(self, node: _Node, controller_port: int, voters: str) -> dict[str, str]:
        given = server_properties(node.port, controller_port, node.folder / "log") | dict(REPLICATED)
        del given["controller.quorum.bootstrap.servers"]
        given |= {"node.id": str(node.number), "controller.quorum.voters": voters}
        if self._far_ports:
            detour = f"127.0.0.1:{self._far_ports[node.number - 1]}"
            given["listeners"] += f",FAR://127.0.0.1:{node.far_port}"
            given["advertised.listeners"] += f",FAR://{detour}"
            given["listener.security.protocol.map"] += ",FAR:PLAINTEXT"
        return given | self._properties

    @staticmethod
    def _config(node: _Node) -> Path:
        return node.folder / "server.properties"

    def _launch(self, number: int) -> None:
        node = self._nodes[number]
        with node.log.open("wb") as log:
            node.process = spawn([*self._java, "kafka.Kafka", str(self._config(node))], log.fileno())

    def _await_listening(self, number: int, timeout_s: float) -> None:
        node = self._nodes[number]
        process = self._running(number)
        deadline = time.monotonic() + timeout_s
        while time.monotonic() < deadline:
            if "Kafka Server started" in node.log.read_text(errors="replace") and accepts(node.port):
                return
            if process.poll() is not None:
                break
            time.sleep(0.05)
        said = tail(node.log.read_text(errors="replace"))
        raise KafkaUnavailable(f"broker {number} was not up within {timeout_s:g} s: {said}")

    def _running(self, number: int) -> subprocess.Popen[bytes]:
        process = self._nodes[number].process
        if process is None:
            raise KafkaUnavailable(f"broker {number} does not run; start it first.")
        return process
