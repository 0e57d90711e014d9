"""What every test may ask for: a real broker, topics of its own, and a summary that tools can read."""

import fcntl
import json
import os
import signal
import time
import uuid
from collections.abc import Iterator
from pathlib import Path

import pytest

from deploy.kafka.local import LocalKafka
from deploy.kafka.secured import SecuredKafka
from sample.records import TRAIN
from stream.runtime.acls import COMMANDS
from tidegate.demo.process import environment, run

STARTED = time.monotonic()
_START_S = 200.0
"""For a broker, on a machine that starts others too, or stands still for a while."""
# Before torch is imported, in this process and in those that it starts: its second thread waits for the other worker's.
os.environ.setdefault("OMP_NUM_THREADS", "1")


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--summary", type=Path, help="write how many tests passed, failed and were skipped, as JSON")


def pytest_configure() -> None:
    """Let Ctrl-C reach what tests start: a gate in a shell's background ignores it, and its children would too."""
    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.default_int_handler)


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Tests marked `gpu` run where a CUDA device is, and are counted as deselected elsewhere."""
    if any(Path("/dev").glob("nvidia[0-9]*")):
        return
    gpu = [item for item in items if item.get_closest_marker("gpu")]
    items[:] = [item for item in items if item not in gpu]
    config.hook.pytest_deselected(items=gpu)


@pytest.fixture(scope="session")
def kafka() -> Iterator[str]:
    """Bootstrap servers of a real broker: `TIDEGATE_TEST_KAFKA`, or a local one for all tests of this run."""
    given = os.environ.get("TIDEGATE_TEST_KAFKA")
    if given:
        yield given
        return
    local = LocalKafka()
    try:
        local.start(_START_S)
        yield local.bootstrap_servers
    finally:
        local.stop()


@pytest.fixture(scope="session")
def secured_kafka() -> Iterator[SecuredKafka]:
    """A broker with TLS, SASL and an authorizer, and a user of each command, none of whom may do anything yet."""
    secured = SecuredKafka([f"tidegate-{command}" for command in (*COMMANDS, "nobody")])
    try:
        secured.start(_START_S)
        yield secured
    finally:
        secured.stop()


@pytest.fixture
def topic_prefix() -> str:
    """A prefix that no other test has, for topics and groups."""
    return f"{uuid.uuid4().hex}."


@pytest.fixture(scope="session")
def sample_release(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A release trained on the sample as `make demo` trains it, by the command itself, once for all tests."""
    # Of several processes one trains, and the others wait for it: what is above each one's folder is this run's alone.
    shared = "PYTEST_XDIST_WORKER" in os.environ
    out = tmp_path_factory.getbasetemp().parent / "sample" if shared else tmp_path_factory.mktemp("sample")
    out.mkdir(exist_ok=True)
    with (out / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not (out / "release").exists():
            train = ["train", "--input", str(TRAIN), "--format", "corpus", "--seed", "7", "--nproc", "2"]
            run([*train, "--out", str(out / "release")], environment(), out / "train.log")
    return out / "release"


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter, config: pytest.Config) -> None:
    path = config.getoption("--summary")
    if path is None:
        return
    counts = {name: len(terminalreporter.stats.get(name, ())) for name in ("passed", "failed", "error", "skipped")}
    path.parent.mkdir(parents=True, exist_ok=True)
    summary = {**counts, "seconds": round(time.monotonic() - STARTED, 1)}
    path.write_text(json.dumps(summary, indent=2, sort_keys=True) + "\n")
