"""What is made of what clients complain of; tests/kafka/test_outages.py asks a real broker."""

from types import SimpleNamespace

import pytest
from confluent_kafka import KafkaError

from stream.errors import EnvironmentFault
from stream.runtime import broker_watch
from stream.runtime.broker_watch import BrokerWatch
from stream.runtime.metrics import Metrics

REFUSED = KafkaError(KafkaError._AUTHENTICATION, "invalid credentials")


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> SimpleNamespace:
    now = SimpleNamespace(seconds=0.0)
    monkeypatch.setattr(broker_watch, "time", SimpleNamespace(monotonic=lambda: now.seconds))
    return now


def watching(metrics: Metrics, transaction_seconds: float = 0.0) -> BrokerWatch:
    return BrokerWatch({"bootstrap.servers": "127.0.0.1:1"}, ["t"], metrics, transaction_seconds)


def test_credentials_that_are_refused_for_seconds_end_the_service(clock: SimpleNamespace) -> None:
    watch = watching(Metrics())
    watch.heard("consumer")(REFUSED)
    watch.check()
    clock.seconds = 5.0
    watch.heard("producer")(REFUSED)
    with pytest.raises(EnvironmentFault, match="refuses to let this client in again: invalid credentials"):
        watch.check()


def test_refusals_that_no_client_waits_so_long_to_repeat_are_no_lasting_one(clock: SimpleNamespace) -> None:
    watch = watching(Metrics())
    for seconds in (0.0, 21.0, 42.0):
        clock.seconds = seconds
        watch.heard("consumer")(REFUSED)
    watch.check()


def test_what_a_transaction_meets_that_an_outage_caught_is_the_outage_s_for_as_long_as_it_may_take(
    clock: SimpleNamespace,
) -> None:
    clock.seconds = 500.0
    watch = watching(Metrics(), transaction_seconds=60.0)
    assert not watch.lately()
    watch.heard("producer")(KafkaError(KafkaError._ALL_BROKERS_DOWN))
    clock.seconds = 501.0
    watch._answered()
    # 30 s, and the 60 s after which the transaction is given up.
    for clock.seconds, lately in ((590.0, True), (591.1, False)):
        assert watch.lately() is lately


def test_every_fault_is_counted_by_client_and_group_and_what_is_none_is_not() -> None:
    metrics = Metrics()
    hear = watching(metrics).heard("consumer")
    for code in (KafkaError._TRANSPORT, KafkaError._ALL_BROKERS_DOWN, KafkaError._PARTITION_EOF):
        hear(KafkaError(code))
    hear(KafkaError(KafkaError.NOT_COORDINATOR))
    counted = {
        (sample.labels["client"], sample.labels["reason"]): sample.value
        for family in metrics.kafka_retries.collect()
        for sample in family.samples
        if sample.name.endswith("_total") and sample.value
    }
    assert counted == {("consumer", "unreachable"): 2, ("consumer", "coordinator"): 1}
