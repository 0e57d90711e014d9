import os
import signal
import socket
import subprocess
import sys
from pathlib import Path

import pytest
from confluent_kafka.admin import AdminClient

from deploy.kafka import local
from deploy.kafka.local import HERE, HOME, KafkaUnavailable, LocalKafka, fetch

ROOT = Path(__file__).parents[3]


def alive(pid: int) -> bool:
    """Whether a process runs: one that has ended and was not waited for does not count."""
    stat = Path(f"/proc/{pid}/stat")
    return stat.exists() and stat.read_text().rpartition(")")[2].split()[0] != "Z"


def listens(address: str) -> bool:
    host, _, port = address.rpartition(":")
    with socket.socket() as probe:
        return probe.connect_ex((host, int(port))) == 0


@pytest.fixture
def jars(tmp_path: Path) -> Path:
    """A home whose jars were fetched before."""
    fetch()
    (tmp_path / "libs").symlink_to(HOME / "libs")
    return tmp_path


@pytest.mark.kafka
def test_it_answers_while_the_block_lasts_and_leaves_nothing(jars: Path) -> None:
    with LocalKafka({"num.partitions": "3"}, home=jars) as kafka:
        assert kafka.bootstrap_servers.startswith("127.0.0.1:")
        brokers = AdminClient({"bootstrap.servers": kafka.bootstrap_servers}).list_topics(timeout=120).brokers
        assert len(brokers) == 1
        address, pid = kafka.bootstrap_servers, kafka.pid
        assert pid is not None
        assert alive(pid)
        assert "Kafka Server started" in kafka.log.read_text()
        (data,) = (jars / "data").iterdir()
        assert "num.partitions=3" in (data / "server.properties").read_text()
    assert not listens(address)
    assert not alive(pid)
    assert list((jars / "data").iterdir()) == []
    assert kafka.bootstrap_servers == ""
    kafka.stop()


@pytest.mark.kafka
def test_it_ends_with_a_failing_block_and_with_a_killed_parent(jars: Path) -> None:
    pids: list[int] = []

    def fail() -> None:
        with LocalKafka(home=jars) as kafka:
            pids.append(kafka.pid or 0)
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        fail()
    assert not alive(pids[0])

    program = (
        "import pathlib, signal, sys\n"
        "from deploy.kafka.local import LocalKafka\n"
        "with LocalKafka(home=pathlib.Path(sys.argv[1])) as kafka:\n"
        "    print(kafka.pid, flush=True)\n"
        "    signal.pause()\n"
    )
    command = [sys.executable, "-c", program, str(jars)]
    with subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, text=True) as parent:
        assert parent.stdout is not None
        pid = int(parent.stdout.readline())
        assert alive(pid)
        parent.kill()
        parent.wait()
        descriptor = os.pidfd_open(pid) if Path(f"/proc/{pid}").exists() else None
    if descriptor is not None:
        try:
            _await_exit(descriptor)
        finally:
            os.close(descriptor)
    assert not alive(pid)
    (left,) = (jars / "data").iterdir()
    local.sweep(jars / "data")
    assert not left.exists()


def _await_exit(descriptor: int) -> None:
    """A pidfd becomes readable when its process has ended."""
    import select

    poll = select.poll()
    poll.register(descriptor, select.POLLIN)
    assert poll.poll(120_000)


@pytest.mark.kafka
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_run_prints_the_address_and_stops_cleanly_when_told(number: signal.Signals) -> None:
    command = [sys.executable, "-m", "deploy.kafka.local", "run"]
    with subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        address = process.stdout.readline().strip()
        assert listens(address)
        process.send_signal(number)
        assert process.wait(120) == 0
    assert not listens(address)


@pytest.mark.kafka
@pytest.mark.parametrize(
    ("properties", "said"),
    [
        ({"log.retention.ms": "soon"}, r"(?s)could not format .*log\.retention\.ms"),
        ({"authorizer.class.name": "no.such.Class"}, r"(?s)ended while starting \(exit 1\).*no\.such\.Class"),
    ],
)
def test_a_broker_that_cannot_start_says_why_and_leaves_nothing(
    jars: Path, properties: dict[str, str], said: str
) -> None:
    with pytest.raises(KafkaUnavailable, match=said):
        LocalKafka(properties, home=jars).start()
    assert list((jars / "data").iterdir()) == []


def test_a_fetch_that_fails_leaves_nothing_that_looks_complete(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    home = tmp_path / "home"
    maven = tmp_path / "mvn"
    maven.write_text("#!/bin/sh\necho 'no route to anywhere'; exit 1\n")
    maven.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
    with pytest.raises(KafkaUnavailable, match=r"exit 1\): no route to anywhere"):
        fetch(home)
    assert list(home.iterdir()) == []


def test_fetched_jars_are_kept_until_their_list_changes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    maven = tmp_path / "mvn"
    maven.write_text(
        '#!/bin/sh\nfor a; do case $a in -DoutputDirectory=*) touch "${a#*=}/kafka_2.13-4.jar";; esac; done\n'
    )
    maven.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
    home, said = tmp_path / "home", list[str]()
    libs = fetch(home, said.append)
    assert (libs / "kafka_2.13-4.jar").is_file()
    assert fetch(home, said.append) == libs
    assert len(said) == 1
    monkeypatch.setattr(local, "HERE", tmp_path)
    (tmp_path / "pom.xml").write_bytes((HERE / "pom.xml").read_bytes() + b"<!-- other -->")
    fetch(home, said.append)
    assert len(said) == 2


@pytest.mark.parametrize(
    ("said", "what"),
    [('openjdk version "11.0.2" 2019-01-15', "is version 11"), ("gibberish", "is version unknown")],
)
def test_another_java_is_one_sentence(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, said: str, what: str) -> None:
    java = tmp_path / "java"
    java.write_text(f"#!/bin/sh\necho '{said}' >&2\n")
    java.chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(KafkaUnavailable, match=what):
        local.check_java()


def test_without_java_or_maven_the_message_says_what_to_install(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(KafkaUnavailable, match=r"needs Java 17 .*apt-get install openjdk-17-jre-headless maven"):
        local.check_java()
    with pytest.raises(KafkaUnavailable, match=r"need Maven .*apt-get install"):
        fetch(tmp_path / "home")


def test_a_cluster_id_never_looks_like_a_flag() -> None:
    ids = {local.cluster_id() for _ in range(500)}
    assert len(ids) == 500
    assert all(len(name) == 22 and not name.startswith("-") for name in ids)
