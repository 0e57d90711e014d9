"""The producer inside a gateway, without the gateway: settings, a broker that is there, and one that is not."""

import json
import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

from stream.errors import UsageError
from tests.kafka.harness import Cluster
from tests.tidegate.litellm_calls import until
from tidegate.gateway_log import (
    BUFFER_FULL,
    DELIVERED,
    TOO_LARGE,
    UNDELIVERED,
    GatewayLog,
    GatewayLogSettings,
    read_log_settings,
)

ROOT = Path(__file__).parents[2]
NOBODY = "127.0.0.1:9"
"""Port 9, discard: nothing listens there."""


def _log(servers: str, topic: str, **values: str) -> GatewayLog:
    given = {f"TIDEGATE_LITELLM__{name.upper()}": value for name, value in values.items()}
    return GatewayLog(
        read_log_settings({"KAFKA_BOOTSTRAP_SERVERS": servers, "TIDEGATE_LITELLM__TOPIC": topic, **given})
    )


def _until(log: GatewayLog, result: str, count: int, seconds: float = 120) -> None:
    until = time.monotonic() + seconds
    while log.counts[result] < count:
        assert time.monotonic() < until, log.counts
        time.sleep(0.01)


def test_settings_come_from_the_environment_under_tidegates_own_names(tmp_path: Path) -> None:
    secret = tmp_path / "password"
    secret.write_text("s3cret\n")
    settings = read_log_settings(
        {
            "KAFKA_BOOTSTRAP_SERVERS": "kafka-1:9093",
            "TIDEGATE_KAFKA__PROPERTIES__SECURITY_PROTOCOL": "SASL_SSL",
            "TIDEGATE_KAFKA__PROPERTIES__SASL_PASSWORD_FILE": str(secret),
            "TIDEGATE_LITELLM__TOPIC": "calls",
            "TIDEGATE_LITELLM__LINGER_MS": "20",
            "TIDEGATE_BATCH__RECORDS_MAX": "not read here",
            "PATH": "/bin",
        }
    )
    assert (settings.topic, settings.linger_ms, settings.record_bytes_max) == ("calls", 20, 1_000_000)
    assert settings.kafka.bootstrap_servers == "kafka-1:9093"
    assert dict(settings.kafka.properties) == {"security.protocol": "SASL_SSL", "sasl.password": "s3cret"}


def test_without_an_environment_the_defaults_stand() -> None:
    assert read_log_settings({}) == GatewayLogSettings()


@pytest.mark.parametrize(
    ("name", "value", "rule"),
    [
        ("LINGER_MS", "soon", "a whole number of at least 0 and less than 2**31; got 'soon'"),
        ("RECORD_BYTES_MAX", "10", "a whole number of at least 4,096 and less than 2**31; got 10"),
        ("TOPIC", "calls of mine", "a name of letters, digits, '.', '_' and '-'; got 'calls of mine'"),
        ("LINGER_MS", "300000", "below delivery_timeout_ms (300000); got 300000"),
    ],
)
def test_a_setting_against_its_rule_is_refused_with_its_variable(name: str, value: str, rule: str) -> None:
    with pytest.raises(UsageError) as refused:
        read_log_settings({f"TIDEGATE_LITELLM__{name}": value})
    wanted = f"TIDEGATE_LITELLM__{name} must be {rule}. Correct it in the gateway's environment."
    assert str(refused.value) == wanted


def test_a_variable_that_does_not_exist_is_refused_with_the_nearest() -> None:
    wanted = r"there is no TIDEGATE_LITELLM__TOPICS; did you mean TIDEGATE_LITELLM__TOPIC\?"
    with pytest.raises(UsageError, match=wanted):
        read_log_settings({"TIDEGATE_LITELLM__TOPICS": "x"})


def test_a_property_that_delivery_rests_on_is_refused() -> None:
    with pytest.raises(UsageError, match=r"^kafka\.properties must leave acks to Tidegate, whose promises of delivery"):
        read_log_settings({"TIDEGATE_KAFKA__PROPERTIES__ACKS": "0"})


def test_a_property_that_librdkafka_does_not_know_is_refused_at_the_start() -> None:
    settings = read_log_settings({"TIDEGATE_KAFKA__PROPERTIES__SECURITY_PROTOCOLL": "SSL"})
    with pytest.raises(UsageError, match=r'kafka.properties must hold what librdkafka knows; .*"security.protocoll"'):
        GatewayLog(settings)


@pytest.mark.kafka
def test_records_of_one_key_lie_on_one_partition_in_order(kafka: str, topic_prefix: str) -> None:
    cluster = Cluster(kafka, topic_prefix)
    cluster.create("calls", partitions=3)
    log = _log(kafka, f"{topic_prefix}calls", linger_ms="5")
    for number in range(300):
        log.log(f"session-{number % 5}".encode(), {"number": number})
    _until(log, DELIVERED, 300)
    found: dict[bytes, list[tuple[int, int]]] = {}
    for message in cluster.read("calls"):
        found.setdefault(message.key() or b"", []).append(
            (message.partition() or 0, json.loads(message.value() or b"")["number"])
        )
    assert {key: [number for _, number in rows] for key, rows in found.items()} == {
        f"session-{one}".encode(): list(range(one, 300, 5)) for one in range(5)
    }
    assert {len({partition for partition, _ in rows}) for rows in found.values()} == {1}
    assert log.counts[DELIVERED] == 300 and log.buffered == 0


@pytest.mark.kafka
def test_a_record_that_is_too_large_arrives_cut_and_one_that_is_unencodable_arrives_clean(
    kafka: str, topic_prefix: str
) -> None:
    cluster = Cluster(kafka, topic_prefix)
    cluster.create("calls", partitions=1)
    log = _log(kafka, f"{topic_prefix}calls", linger_ms="5", record_bytes_max="5000")
    log.log(b"k", {"litellm_call_id": "large", "messages": [{"role": "user", "content": "x" * 100_000}]})
    log.log(b"k", {"litellm_call_id": "odd", "messages": [{"role": "user", "content": "\ud83d"}]})
    _until(log, DELIVERED, 2)
    large, odd = cluster.values("calls")
    assert large["metadata"] == {"litellm_content_truncated": True}
    assert 3_000 < len(large["messages"][0]["content"]) < 5_000
    assert odd == {"litellm_call_id": "odd", "messages": [{"role": "user", "content": "�"}]}
    assert log.truncated == 1


@pytest.mark.kafka
def test_what_the_topic_does_not_take_is_counted(kafka: str, topic_prefix: str) -> None:
    cluster = Cluster(kafka, topic_prefix)
    cluster.create("small", partitions=1, max_message_bytes="2000")
    log = _log(kafka, f"{topic_prefix}small", linger_ms="0")
    log.log(b"k", {"content": os.urandom(3_000).hex()})
    _until(log, TOO_LARGE, 1)
    absent = _log(kafka, f"{topic_prefix}absent", linger_ms="0", delivery_timeout_ms="1000")
    absent.log(b"k", {})
    _until(absent, UNDELIVERED, 1)


def test_without_a_broker_the_buffer_has_a_bound_and_what_exceeds_it_is_counted(
    caplog: pytest.LogCaptureFixture,
) -> None:
    log = _log(NOBODY, "calls", buffer_records_max="100", flush_deadline_ms="0", delivery_timeout_ms="300000")
    taken, worked = [], time.thread_time()
    for number in range(1_000):
        started = time.perf_counter()
        log.log(b"k", {"number": number})
        taken.append(time.perf_counter() - started)
    # A thousand calls of a broker that is away: far below a millisecond of work each, and none waits for the broker, or
    # the gateway would feel it. The slowest ones are those in which the machine did something else.
    assert time.thread_time() - worked < 1.0
    assert sorted(taken)[-10] < 0.1
    assert log.counts[BUFFER_FULL] == 900
    # News that the broker is away counts until its thread has heard it.
    until(lambda: log.buffered == 100, 120)
    log.close()
    assert log.counts == {DELIVERED: 0, BUFFER_FULL: 900, TOO_LARGE: 0, UNDELIVERED: 100, "no_payload": 0}
    said = " ".join(record.getMessage() for record in caplog.records if record.name == "tidegate.gateway_log")
    assert "records of calls were dropped, in all: buffer_full 900, undelivered 100 (0 delivered" in said


def test_records_that_wait_to_be_cut_have_a_bound_too() -> None:
    log = _log(NOBODY, "calls", record_bytes_max="4096", flush_deadline_ms="0")
    large = {"messages": [{"role": "user", "content": "x" * 200_000}]}
    for _ in range(2_000):
        log.log(b"k", large)
    assert log.counts[BUFFER_FULL] > 0
    log.close()
    assert log.counts[BUFFER_FULL] + log.counts[UNDELIVERED] == 2_000


def _script(body: str, servers: str, topic: str, **values: str) -> subprocess.CompletedProcess[str]:
    program = f"import os\nfrom tidegate.gateway_log import GatewayLog, read_log_settings\n{body}"
    environment = {f"TIDEGATE_LITELLM__{name.upper()}": value for name, value in values.items()}
    environment |= {"KAFKA_BOOTSTRAP_SERVERS": servers, "TIDEGATE_LITELLM__TOPIC": topic}
    return subprocess.run(
        [sys.executable, "-c", program],
        env={**os.environ, **environment},
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=240,
        check=True,
    )


@pytest.mark.kafka
def test_at_exit_what_is_buffered_is_flushed_and_so_is_what_others_say_last(kafka: str, topic_prefix: str) -> None:
    cluster = Cluster(kafka, topic_prefix)
    cluster.create("calls", partitions=1)
    body = """
import atexit
atexit.register(lambda: log.log(b"k", {"number": 50}))  # runs after the flush, as LiteLLM's own queue does
log = GatewayLog(read_log_settings(os.environ))
for number in range(50):
    log.log(b"k", {"number": number})
"""
    _script(body, kafka, f"{topic_prefix}calls", linger_ms="200000", flush_deadline_ms="120000")
    assert [value["number"] for value in cluster.values("calls")] == list(range(51))


def test_without_a_broker_the_exit_keeps_its_deadline_and_says_what_was_lost() -> None:
    body = 'log = GatewayLog(read_log_settings(os.environ))\nfor _ in range(7): log.log(b"k", {})'
    started = time.monotonic()
    done = _script(body, NOBODY, "calls", flush_deadline_ms="500")
    # Not the five minutes after which an undelivered record is given up.
    assert time.monotonic() - started < 120
    assert "7 records of calls were dropped, in all: undelivered 7 (0 delivered, 0 waiting for calls" in done.stderr


@pytest.mark.kafka
def test_a_forked_child_logs_with_a_producer_of_its_own(kafka: str, topic_prefix: str) -> None:
    cluster = Cluster(kafka, topic_prefix)
    cluster.create("calls", partitions=1)
    body = """
log = GatewayLog(read_log_settings(os.environ))
log.log(b"k", {"by": "parent"})
child = os.fork()
if child == 0:
    log.log(b"k", {"by": "child"})
    log.close()
    os._exit(0)
assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
"""
    _script(body, kafka, f"{topic_prefix}calls", linger_ms="1000", flush_deadline_ms="120000")
    assert sorted(value["by"] for value in cluster.values("calls")) == ["child", "parent"]
