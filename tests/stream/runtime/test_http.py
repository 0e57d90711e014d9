"""/healthz, /readyz and /metrics."""

from collections.abc import Iterator

import pytest

from stream.errors import UsageError
from stream.runtime.http import StatusServer
from stream.runtime.metrics import Metrics
from tests.kafka.harness import get

WHY = ["catching up in 2 partitions"]


@pytest.fixture
def server() -> Iterator[StatusServer]:
    made = StatusServer("127.0.0.1:0", Metrics().registry, lambda: WHY[0] if WHY else None)
    yield made
    made.close()


def test_alive_is_not_ready(server: StatusServer) -> None:
    WHY[:] = ["catching up in 2 partitions"]
    assert get(f"{server.url}/healthz") == (200, "ok\n")
    assert get(f"{server.url}/readyz") == (503, "catching up in 2 partitions\n")
    WHY.clear()
    assert get(f"{server.url}/readyz") == (200, "ready\n")


def test_metrics_are_in_prometheus_text_and_other_paths_are_unknown(server: StatusServer) -> None:
    assert "# HELP tidegate_records_total Input records" in get(f"{server.url}/metrics")[1]
    assert get(f"{server.url}/")[0] == 404


@pytest.mark.parametrize("listen", ["8080", "localhost:http", "256.0.0.1:1"])
def test_an_address_that_cannot_be_listened_on_is_exit_2(listen: str) -> None:
    with pytest.raises(UsageError, match=r"http\.listen .*--http-listen 127\.0\.0\.1:0"):
        StatusServer(listen, Metrics().registry, lambda: None)
