"""What a running scorer does about what Kafka does to it: goes on by itself, or stops and says why; nothing is lost."""

from __future__ import annotations

import signal
import time
from collections.abc import Callable, Iterator
from threading import Event
from types import SimpleNamespace
from typing import cast

import pytest
from confluent_kafka import Consumer, TopicPartition

from deploy.processes import free_ports
from stream.errors import FencedError
from stream.runtime.delivery import ExactlyOnce, Work
from stream.runtime.faults import Aborted
from stream.runtime.group import GroupSource
from stream.runtime.metrics import Metrics
from stream.sinks.kafka import KafkaWriter
from tests.kafka.harness import (
    EVENTS,
    PARTITIONS,
    PATIENCE_S,
    SCORES,
    Cluster,
    Process,
    answered,
    get,
    run_to_end,
    scorer,
)
from tests.kafka.site import ACLS, Site, site

pytestmark = [pytest.mark.kafka, pytest.mark.timeout(900)]
SLOW = ("--records-max", "50", "--step-seconds", "0.02")
SLOWER = ("--records-max", "25", "--step-seconds", "0.1")


@pytest.fixture(scope="module")
def here() -> Iterator[Site]:
    with site() as made:
        yield made


@pytest.fixture
def cluster(here: Site, topic_prefix: str) -> Cluster:
    return here.topics(topic_prefix)


def until(done: Callable[[], bool], what: Callable[[], str] | str, seconds: float = PATIENCE_S) -> None:
    """Wait for something."""
    give_up = time.monotonic() + seconds
    while not done():
        assert time.monotonic() < give_up, what if isinstance(what, str) else what()
        time.sleep(0.05)


def stopped(process: Process, code: int, *said: str) -> None:
    """It ended by itself, with one sentence."""
    ended, errors = process.end()
    assert ended == code, errors
    assert "Traceback" not in errors
    for each in said:
        assert each in errors


OUTAGES: dict[str, tuple[Callable[[Site], None], Callable[[Site], None]]] = {
    "the broker is shut down and started again": (lambda s: s.broker.shut_down(1), lambda s: s.broker.start(1)),
    "the broker hangs": (lambda s: s.broker.freeze(1), lambda s: s.broker.thaw(1)),
    "the network is cut": (lambda s: s.detour.cut(), lambda s: s.detour.mend()),
}


@pytest.mark.parametrize("outage", OUTAGES)
def test_a_broker_that_is_away_is_waited_for_visibly_and_nothing_is_lost(
    here: Site, cluster: Cluster, outage: str
) -> None:
    begin, end = OUTAGES[outage]
    here.password("right")
    here.grant_all(cluster.prefix)
    cluster.events(range(2_000))
    # As the settings have it: with 20 s and more librdkafka 2.16 does not always come back from a call that was under
    # way when the network was cut (like its issues 5456 and 5511), and the process ends with exit 6.
    flags = (*here.flags("right"), "--transaction-timeout-ms", "10000", "--instance-id", "a")
    with scorer(cluster, *SLOW, *flags) as process:
        url = process.ready()["http"]
        cluster.wait_committed({0: 50})
        begin(here)
        try:
            until(lambda: "no broker answers" in answered(f"{url}/readyz"), lambda: process.errors)
            assert get(f"{url}/readyz")[0] == 503
        finally:
            end(here)

        def ready() -> bool:
            assert process.running, process.errors
            return answered(f"{url}/readyz") == "ready\n"

        # It has to catch up too, with transactions that two cores and all that runs on them may make slow.
        until(ready, lambda: f"it is not ready again: {get(f'{url}/readyz')[1]}\n{process.errors}", 300)
        counted = get(f"{url}/metrics")[1]
        retries = [line for line in counted.splitlines() if line.startswith("tidegate_kafka_retries_total{")]
        assert sum(float(line.rpartition(" ")[2]) for line in retries) > 0
        process.send(signal.SIGTERM)
        assert process.end()[0] == 0
    assert cluster.committed() == cluster.ends()
    assert cluster.scores() == cluster.expected_scores(2_000)


def test_every_permission_that_is_withdrawn_is_exit_3_and_once_granted_again_it_goes_on(
    here: Site, cluster: Cluster
) -> None:
    here.password("right")
    here.grant_all(cluster.prefix)
    count = 0
    for what in ACLS:
        with scorer(cluster, *here.flags("right"), "--instance-id", "a") as process:
            process.ready()
            cluster.events(range(count, count + 70))
            cluster.wait_committed(cluster.ends())
            here.withdraw(cluster.prefix, what)
            cluster.events(range(count + 70, count + 140))
            stopped(process, 3, "permissions in docs/runbook.md")
        count += 140
        here.grant(cluster.prefix, what)
    assert run_to_end(cluster, *here.flags("right"), "--instance-id", "a")[0] == 0
    assert cluster.scores() == cluster.expected_scores(count)


def test_a_password_that_changes_counts_from_the_next_connection_on(here: Site, cluster: Cluster) -> None:
    here.password("old secret")
    here.grant_all(cluster.prefix)
    with scorer(cluster, *here.flags("old secret"), "--instance-id", "a") as process:
        process.ready()
        here.password("new secret")
        cluster.events(range(700))
        cluster.wait_committed(cluster.ends())
        here.detour.cut()
        here.detour.mend()
        cluster.events(range(700, 1_400))
        ended, errors = process.end()
    assert ended == 3, errors
    assert "the broker refuses to let this client in again" in errors
    assert "SASL settings under [kafka.properties]" in errors
    assert "secret" not in errors
    assert run_to_end(cluster, *here.flags("new secret"), "--instance-id", "a")[0] == 0
    assert cluster.scores() == cluster.expected_scores(1_400)


def test_a_topic_that_is_deleted_is_exit_3(cluster: Cluster) -> None:
    cluster.events(range(70))
    with scorer(cluster) as process:
        process.ready()
        cluster.wait_committed(cluster.ends())
        delete(cluster)
        stopped(process, 3, f"topic {cluster.prefix}{EVENTS} was deleted", "'Input that is gone'")


def delete(cluster: Cluster) -> None:
    for done in cluster.admin.delete_topics([cluster.prefix + EVENTS]).values():
        done.result(PATIENCE_S)


@pytest.mark.parametrize("protocol", ["classic", "consumer"])
def test_a_topic_that_is_created_again_is_exit_5_however_many_records_it_has(cluster: Cluster, protocol: str) -> None:
    cluster.events(range(70))
    with scorer(cluster, "--group-protocol", protocol) as process:
        process.ready()
        cluster.wait_committed(cluster.ends())
        delete(cluster)
        cluster.create(EVENTS)
        cluster.events(range(1_000, 2_000))
        stopped(process, 5, f"topic {cluster.prefix}{EVENTS} was deleted and created again", "its id must be")
    code, errors = run_to_end(cluster, "--group-protocol", protocol)
    assert code == 5, errors
    assert len(cluster.scores()) <= 1_070


def test_a_topic_that_was_created_again_meanwhile_is_exit_5(cluster: Cluster) -> None:
    cluster.events(range(70))
    assert run_to_end(cluster)[0] == 0
    delete(cluster)
    cluster.create(EVENTS)
    cluster.events(range(1_000, 1_700))
    code, errors = run_to_end(cluster)
    assert code == 5, errors
    assert cluster.scores() == cluster.expected_scores(70)


def remove(cluster: Cluster, before: dict[int, int]) -> None:
    """What retention does, at once."""
    wanted = [TopicPartition(cluster.prefix + EVENTS, partition, offset) for partition, offset in before.items()]
    for done in cluster.admin.delete_records(wanted).values():
        done.result(PATIENCE_S)


def test_input_that_retention_removed_is_exit_3_with_its_number_until_its_loss_is_accepted(cluster: Cluster) -> None:
    cluster.events(range(700))
    assert run_to_end(cluster, "--instance-id", "a")[0] == 0
    done, before = cluster.scores(), cluster.committed()
    cluster.events(range(700, 1_400))
    remove(cluster, {partition: offset + 30 * (partition + 1) for partition, offset in before.items()})
    code, errors = run_to_end(cluster, "--instance-id", "a")
    assert code == 3
    assert "90 offsets in all" in errors
    assert f"{cluster.prefix}{EVENTS}[1] 60 from offset {before[1]}" in errors
    assert run_to_end(cluster, "--instance-id", "a", "--lost-records-max", "59")[0] == 3
    assert cluster.scores() == done
    code, errors = run_to_end(cluster, "--instance-id", "a", "--lost-records-max", "60")
    assert code == 0, errors
    assert cluster.committed() == cluster.ends()
    assert len(cluster.scores()) == 1_400 - 90
    assert run_to_end(cluster, "--instance-id", "a")[0] == 0


def test_retention_that_overtakes_a_running_scorer_is_exit_3_after_all_that_was_read(cluster: Cluster) -> None:
    cluster.events(range(70))
    with scorer(cluster, "--session-timeout-ms", "300000") as process:
        process.ready()
        cluster.wait_committed(cluster.ends())
        process.send(signal.SIGSTOP)
        cluster.events(range(70, 1_400))
        remove(cluster, cluster.ends())
        process.send(signal.SIGCONT)
        stopped(process, 3, "retention removed records before they were read", "TIDEGATE_KAFKA__LOST_RECORDS_MAX=")
    scores = cluster.scores()
    assert set(scores) <= set(cluster.expected_scores(1_400))
    # Not a marker among them: an offset is an event.
    assert len(scores) == sum(cluster.committed().values())


def test_a_static_member_that_was_killed_waits_for_its_session_under_the_consumer_protocol(cluster: Cluster) -> None:
    cluster.events(range(1_400))
    flags = ("--group-protocol", "consumer", "--instance-id", "a")
    with scorer(cluster, *SLOW, *flags) as process:
        process.ready()
        cluster.wait_committed({0: 50})
        process.kill()
    (port,) = free_ports(1)
    page = f"http://127.0.0.1:{port}/readyz"
    with scorer(cluster, *flags, "--http-listen", f"127.0.0.1:{port}") as again:
        until(lambda: "session of this --instance-id's former process" in answered(page), "/readyz does not say why")
        again.ready()
        cluster.wait_committed(cluster.ends())
        again.send(signal.SIGTERM)
        code, errors = again.end()
    assert code == 0
    assert "the group keeps the place of this --instance-id's former process" in errors
    assert cluster.scores() == cluster.expected_scores(1_400)


def test_partitions_move_between_two_scorers_of_the_consumer_protocol(cluster: Cluster) -> None:
    cluster.events(range(3_000))
    flags = (*SLOWER, "--group-protocol", "consumer")
    with scorer(cluster, *flags) as first:
        assert first.ready()["partitions"] == list(range(PARTITIONS))
        cluster.wait_committed({0: 50, 1: 50})
        with scorer(cluster, *flags) as second:
            second.ready()
            cluster.wait_progress(50)
            first.send(signal.SIGTERM)
            assert first.end()[0] == 0
            cluster.wait_committed(cluster.ends())
            second.send(signal.SIGTERM)
            assert second.end()[0] == 0
    assert cluster.scores() == cluster.expected_scores(3_000)


@pytest.mark.parametrize("static", [False, True], ids=["random id", "--instance-id"])
def test_a_transaction_that_the_broker_ended_because_it_took_too_long_is_done_again(
    here: Site, cluster: Cluster, static: bool
) -> None:
    frozen = [True]

    def outputs(writer: KafkaWriter) -> None:
        writer.produce(cluster.prefix + SCORES, 0, b"k", b"v")
        assert writer.producer.flush(PATIENCE_S) == 0
        if frozen.pop() if frozen else False:
            # The record, and the marker by which the broker ended its transaction.
            until(lambda: cluster.ends(SCORES)[0] == 2, "the broker did not end the transaction")

    group = Consumer({"bootstrap.servers": here.near, "group.id": cluster.group})
    offsets = [TopicPartition(cluster.prefix + EVENTS, 0, 7)]
    source = SimpleNamespace(static=static, metadata=group.consumer_group_metadata(), positions=lambda _: offsets)
    identity = {"bootstrap.servers": here.near, "transactional.id": f"{cluster.group}.a"}
    work = Work({(offsets[0].topic, 0): 7}, outputs, lambda _: None, lambda: None, 1, 1, 1)

    def delivery(transaction_ms: int) -> ExactlyOnce:
        properties = {**identity, "transaction.timeout.ms": transaction_ms}
        return ExactlyOnce(properties, lambda: cast(GroupSource, source), PATIENCE_S, Metrics(), Event())

    # Long enough for what is not to be ended.
    first = delivery(5_000)
    with pytest.raises(FencedError if static else Aborted):
        first.deliver(work)
    assert cluster.committed()[0] < 0
    again = delivery(60_000) if static else first
    again.deliver(work)
    assert cluster.committed()[0] == 7
    assert [message.value() for message in cluster.read(SCORES)] == [b"v"]
    group.close()
    again.close()
