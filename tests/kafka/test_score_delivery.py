"""What the scorer's shell promises, on a real broker, with a core that counts: lost and repeated events show."""

from __future__ import annotations

import json
import signal
import time
from pathlib import Path
from typing import Any

import pytest
from confluent_kafka import ConsumerGroupTopicPartitions, Producer, TopicPartition

from deploy.processes import free_ports
from tests.kafka.harness import (
    CONTROLS,
    EVENTS,
    FINDINGS,
    JOURNAL,
    PARTITIONS,
    PATIENCE_S,
    SCORES,
    STATE,
    Cluster,
    answered,
    get,
    headers_of,
    run_to_end,
    scorer,
)

pytestmark = [pytest.mark.kafka, pytest.mark.timeout(600)]


@pytest.fixture
def cluster(kafka: str, topic_prefix: str) -> Cluster:
    made = Cluster(kafka, topic_prefix)
    made.create()
    return made


def test_every_event_is_scored_once_and_the_end_is_committed_over_markers_and_aborted_records(cluster: Cluster) -> None:
    cluster.events(range(700), transactional=f"{cluster.prefix}gateway")
    cluster.aborted(EVENTS, 0, 5)
    cluster.aborted(EVENTS, 1, 3)
    assert run_to_end(cluster)[0] == 0
    assert cluster.scores() == cluster.expected_scores(700)
    assert cluster.committed() == cluster.ends()
    assert [(entry["kind"], entry["value"]["release"]) for entry in cluster.values(JOURNAL)] == [("start", "r1")] * 2


def test_outputs_carry_their_headers(cluster: Cluster) -> None:
    producer = Producer({"bootstrap.servers": cluster.servers})
    value = json.dumps({"tenant": "t0", "event_id": "e" * 64})
    producer.produce(cluster.prefix + EVENTS, value, '["t0"]', 0, headers=[("traceparent", b"00-ab-cd-01")])
    producer.flush()
    run_to_end(cluster)
    (score,) = cluster.read(SCORES)
    assert headers_of(score) == {
        "tg-schema": b"scores.v1",
        "tg-release": b"r1",
        "tg-event-id": b"e" * 64,
        "tg-source": f"{cluster.prefix}{EVENTS}/0/0".encode(),
        "traceparent": b"00-ab-cd-01",
    }
    assert (score.partition(), score.key()) == (0, b'["t0"]')


def test_an_empty_topic_ends_at_once(cluster: Cluster) -> None:
    assert run_to_end(cluster)[0] == 0
    assert cluster.committed() == {0: 0, 1: 0}


def test_a_later_run_goes_on_from_the_state(cluster: Cluster) -> None:
    cluster.events(range(300))
    run_to_end(cluster)
    cluster.events(range(300, 500))
    assert run_to_end(cluster)[0] == 0
    assert cluster.scores() == cluster.expected_scores(500)


def test_killed_at_any_moment_nothing_is_lost_or_repeated_and_the_same_instance_commits_soon(cluster: Cluster) -> None:
    cluster.events(range(4_000))
    # Whoever waited for the session of the one before, or for its transaction to end, would wait for five minutes.
    patient = ("--session-timeout-ms", "300000", "--transaction-timeout-ms", "300000")
    slow = ("--records-max", "50", "--step-seconds", "0.05", "--instance-id", "a", *patient)
    with scorer(cluster, *slow) as first:
        first.ready()
        cluster.wait_committed({0: 50})
        first.kill()
    took = []
    for number in range(3):
        # Work for this one, should the one before have done all that there was.
        cluster.events(range(4_000 + 500 * number, 4_500 + 500 * number))
        before = cluster.committed()
        with scorer(cluster, *slow) as again:
            while cluster.committed() == before:
                time.sleep(0.01)
                assert time.monotonic() - again.started < PATIENCE_S
            took.append(time.monotonic() - again.started)
            again.kill()
    print(f"seconds from start to the next commit after SIGKILL: {[round(seconds, 2) for seconds in took]}")
    # Two on an idle machine, five are promised (tests/drills/recovery.py); the broker shares two cores with everything
    # else here, which may stand still for a while.
    assert min(took) < 30
    assert max(took) < 120
    assert run_to_end(cluster, "--instance-id", "a")[0] == 0
    assert cluster.scores() == cluster.expected_scores(5_500)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_commits_what_is_done_and_exits_0_soon(cluster: Cluster, number: signal.Signals) -> None:
    cluster.events(range(3_000))
    # Thirty seconds of work, and at its deadline the process would be ended, whatever it does.
    with scorer(cluster, "--records-max", "20", "--step-seconds", "0.2", "--deadline-ms", "120000") as process:
        process.ready()
        cluster.wait_committed({0: 20})
        began = time.monotonic()
        process.send(number)
        assert process.end()[0] == 0
        assert time.monotonic() - began < 60
    # A partition that nothing was committed of has a negative offset.
    done = sum(max(offset, 0) for offset in cluster.committed().values())
    assert 0 < done < 3_000
    assert len(cluster.scores()) == done
    assert run_to_end(cluster)[0] == 0
    assert cluster.scores() == cluster.expected_scores(3_000)


def test_partitions_move_between_two_scorers_without_loss_or_repetition(cluster: Cluster) -> None:
    cluster.events(range(6_000))
    slow = ("--records-max", "25", "--step-seconds", "0.1")
    with scorer(cluster, *slow) as first:
        assert first.ready()["partitions"] == [0, 1]
        cluster.wait_committed({0: 50, 1: 50})
        with scorer(cluster, *slow) as second:
            second.ready()
            cluster.wait_progress()
            first.send(signal.SIGTERM)
            assert first.end()[0] == 0
            cluster.wait_progress()
            second.send(signal.SIGTERM)
            assert second.end()[0] == 0
    assert run_to_end(cluster)[0] == 0
    assert cluster.scores() == cluster.expected_scores(6_000)


def test_a_scorer_that_slept_through_its_session_writes_nothing_that_counts(cluster: Cluster) -> None:
    cluster.events(range(6_000))
    slow = ("--records-max", "25", "--step-seconds", "0.1", "--session-timeout-ms", "2000")
    with scorer(cluster, *slow) as sleeper:
        sleeper.ready()
        cluster.wait_committed({0: 50, 1: 50})
        sleeper.send(signal.SIGSTOP)
        with scorer(cluster, *slow) as other:
            other.ready()
            cluster.wait_progress()
            sleeper.send(signal.SIGCONT)
            cluster.wait_progress()
            other.send(signal.SIGTERM)
            assert other.end()[0] == 0
        sleeper.send(signal.SIGTERM)
        assert sleeper.end()[0] == 0
    assert run_to_end(cluster)[0] == 0
    assert cluster.scores() == cluster.expected_scores(6_000)


def test_a_second_process_of_the_same_instance_takes_over_and_the_first_exits_6(cluster: Cluster) -> None:
    cluster.events(range(4_000))
    slow = ("--records-max", "50", "--step-seconds", "0.02", "--instance-id", "a")
    with scorer(cluster, *slow) as first:
        first.ready()
        cluster.wait_committed({0: 50})
        with scorer(cluster, *slow) as second:
            code, errors = first.end()
            assert code == 6
            assert "--instance-id" in errors
            assert "Traceback" not in errors
            second.ready()
            second.send(signal.SIGTERM)
            assert second.end()[0] == 0
    assert run_to_end(cluster, "--instance-id", "a")[0] == 0
    assert cluster.scores() == cluster.expected_scores(4_000)


def test_until_end_waits_for_the_partitions_of_an_absent_instance(cluster: Cluster) -> None:
    cluster.events(range(2_000))
    with (
        scorer(cluster, "--instance-id", "a", "--session-timeout-ms", "2000") as here,
        scorer(cluster, "--instance-id", "b", "--session-timeout-ms", "2000") as absent,
    ):
        here.ready()
        absent.ready()
        cluster.wait_committed(cluster.ends())
        absent.kill()
        here.send(signal.SIGTERM)
        here.end()
    cluster.events(range(2_000, 3_000))
    assert run_to_end(cluster, "--instance-id", "a", "--session-timeout-ms", "2000")[0] == 0
    assert cluster.scores() == cluster.expected_scores(3_000)


def test_an_offset_that_is_not_the_states_is_exit_5(cluster: Cluster) -> None:
    cluster.events(range(700))
    run_to_end(cluster)
    end = cluster.committed()[1]
    _set_offset(cluster, 1, end - 7)
    code, errors = run_to_end(cluster)
    assert code == 5
    assert f"{cluster.prefix}{EVENTS}[1]: the group has committed offset {end - 7}" in errors
    assert f"is that of offset {end}" in errors
    assert "--output-prefix" in errors


def test_an_offset_without_state_is_exit_5(cluster: Cluster) -> None:
    cluster.events(range(700))
    _set_offset(cluster, 0, 10)
    code, errors = run_to_end(cluster)
    assert code == 5
    assert "the group has committed offset 10" in errors
    assert "holds no state" in errors


def _set_offset(cluster: Cluster, partition: int, offset: int) -> None:
    place = TopicPartition(cluster.prefix + EVENTS, partition, offset)
    (changed,) = cluster.admin.alter_consumer_group_offsets(
        [ConsumerGroupTopicPartitions(cluster.group, [place])]
    ).values()
    changed.result(PATIENCE_S)


def test_state_behind_an_open_transaction_is_restored(cluster: Cluster) -> None:
    cluster.events(range(700))
    run_to_end(cluster)
    stranger = Producer(
        {
            "bootstrap.servers": cluster.servers,
            "transactional.id": f"{cluster.prefix}stranger",
            "transaction.timeout.ms": 600_000,
        }
    )
    stranger.init_transactions(PATIENCE_S)
    stranger.begin_transaction()
    stranger.produce(cluster.prefix + STATE, b"{}", b'["count","ghost"]', 0)
    assert stranger.flush(PATIENCE_S) == 0
    # What this scorer commits now lies behind the open transaction, hidden from read_committed readers.
    cluster.events(range(700, 1_400))
    (port,) = free_ports(1)
    with scorer(cluster, "--http-listen", f"127.0.0.1:{port}") as waiting:
        until = time.monotonic() + PATIENCE_S
        while "restoring" not in answered(f"http://127.0.0.1:{port}/readyz"):
            assert time.monotonic() < until, waiting.errors
            time.sleep(0.05)
        # Time for one that does not wait to go on.
        time.sleep(3)
        assert "restoring" in answered(f"http://127.0.0.1:{port}/readyz")
        assert cluster.committed()[0] < cluster.ends()[0]
        stranger.abort_transaction(PATIENCE_S)
        waiting.ready()
        cluster.wait_committed(cluster.ends())
    assert cluster.scores() == cluster.expected_scores(1_400)


def test_what_is_no_event_becomes_a_dead_letter_and_the_stream_goes_on(cluster: Cluster) -> None:
    producer = Producer({"bootstrap.servers": cluster.servers})
    producer.produce(cluster.prefix + EVENTS, b"not json", b"k", 1, headers=[("h", b"1")])
    producer.produce(cluster.prefix + EVENTS, None, b"tombstone", 1)
    producer.flush()
    cluster.events(range(70))
    assert run_to_end(cluster)[0] == 0
    first, second = cluster.read(f"{EVENTS}.dlq")
    assert (first.partition(), first.key(), first.value()) == (1, b"k", b"not json")
    headers = headers_of(first)
    assert headers["h"] == b"1"
    assert headers["tg-reason"] == b"schema"
    assert headers["__connect.errors.offset"] == b"0"
    assert second.value() is None
    assert cluster.scores() == cluster.expected_scores(70)


def test_time_passes_in_an_idle_partition_and_the_journal_says_so(cluster: Cluster) -> None:
    cluster.events(range(70))
    with scorer(cluster, "--close-after-ms", "500", "--instance-id", "a") as process:
        process.ready()
        until = time.monotonic() + PATIENCE_S
        # Each partition has one, in a transaction of its own.
        ticks: list[dict[str, Any]] = []
        while len({entry["partition"] for entry in ticks}) < PARTITIONS:
            assert time.monotonic() < until
            ticks = [entry for entry in cluster.values(JOURNAL) if entry["kind"] == "tick"]
    assert {entry["before_offset"] for entry in ticks} <= set(cluster.ends().values())
    cluster.events(range(70, 140))
    assert run_to_end(cluster, "--close-after-ms", "500", "--instance-id", "a")[0] == 0
    counts = [score["count"] for score in cluster.values(SCORES)]
    # Seven tenants began anew after ten events each.
    assert sorted(counts) == sorted(2 * [n for n in range(1, 11) for _ in range(7)])


def test_what_does_not_fit_a_transaction_is_written_in_smaller_ones(cluster: Cluster) -> None:
    cluster.events(range(210))
    # Seven tenants in a batch, 1.5 MB of state each: more than 8 MB until batches hold fewer of them.
    code, errors = run_to_end(cluster, "--bytes-per-event", "1500000", "--records-max", "70")
    assert code == 0, errors
    assert cluster.scores() == cluster.expected_scores(210)


def test_at_least_once_goes_on_from_the_state_whatever_the_offsets_say(cluster: Cluster) -> None:
    cluster.events(range(700))
    assert run_to_end(cluster, "--at-least-once")[0] == 0
    _set_offset(cluster, 0, 3)
    cluster.events(range(700, 1_400))
    assert run_to_end(cluster, "--at-least-once")[0] == 0
    assert cluster.scores() == cluster.expected_scores(1_400)


def test_a_release_of_the_same_ids_takes_over_by_the_journal_and_another_is_exit_5(cluster: Cluster) -> None:
    cluster.events(range(70))
    run_to_end(cluster)
    code, errors = run_to_end(cluster, "--release", "r2", "--state-schema", "2")
    assert code == 5
    assert "release 'r2' cannot go on from the state of release 'r1': state_schema '1' against '2'" in errors
    cluster.events(range(70, 140))
    assert run_to_end(cluster, "--release", "r3")[0] == 0
    switches = [entry["value"] for entry in cluster.values(JOURNAL) if entry["kind"] == "control"]
    assert [(switch["kind"], switch["release"]) for switch in switches] == [("release", "r3")] * PARTITIONS
    assert cluster.scores() == cluster.expected_scores(140)


def test_health_readiness_and_metrics(cluster: Cluster, tmp_path: Path) -> None:
    cluster.events(range(2_000))
    with scorer(cluster, "--step-gate", str(tmp_path / "go")) as process:
        url = process.ready()["http"]
        assert get(f"{url}/healthz")[0] == 200
        status, why = get(f"{url}/readyz")
        assert (status, why.startswith("catching up")) == (503, True)
        (tmp_path / "go").touch()
        cluster.wait_committed(cluster.ends())
        until = time.monotonic() + PATIENCE_S
        while get(f"{url}/readyz")[0] != 200:
            assert time.monotonic() < until
        text = get(f"{url}/metrics")[1]
        assert f'tidegate_records_total{{result="ok",topic="{cluster.prefix}{EVENTS}"}} 2000.0' in text
        assert 'tidegate_transactions_total{result="committed"}' in text
        assert "t1" not in {part.strip('"') for line in text.splitlines() for part in line.split("=")}


def test_a_missing_topic_and_another_partition_count_are_exit_3(kafka: str, topic_prefix: str) -> None:
    cluster = Cluster(kafka, topic_prefix)
    cluster.create(EVENTS, SCORES, FINDINGS, STATE)
    code, errors = run_to_end(cluster)
    assert (code, errors.count("\n")) == (3, 1)
    assert f"missing topics: {topic_prefix}{JOURNAL}, {topic_prefix}{CONTROLS}" in errors
    assert "tidegate topics create" in errors
    cluster.create(CONTROLS)
    cluster.create(JOURNAL, partitions=3)
    code, errors = run_to_end(cluster)
    assert code == 3
    assert f"topic {topic_prefix}{JOURNAL} must have 2 partitions (topics.partitions); it has 3" in errors


def test_controls_on_several_partitions_have_no_order_and_are_exit_3(kafka: str, topic_prefix: str) -> None:
    cluster = Cluster(kafka, topic_prefix)
    cluster.create(EVENTS, SCORES, FINDINGS, STATE, JOURNAL)
    cluster.create(CONTROLS, partitions=3)
    code, errors = run_to_end(cluster)
    assert (code, errors.count("\n")) == (3, 1)
    assert f"topic {topic_prefix}{CONTROLS} must have 1 partition, which puts what lies there in order" in errors


def test_a_session_timeout_that_the_client_does_not_take_is_exit_2(cluster: Cluster) -> None:
    code, errors = run_to_end(cluster, "--session-timeout-ms", "3600000")
    assert (code, errors.count("\n")) == (2, 1)
    assert "session.timeout.ms" in errors


def test_a_topic_that_takes_no_record_of_this_size_is_exit_3(kafka: str, topic_prefix: str) -> None:
    cluster = Cluster(kafka, topic_prefix)
    cluster.create(EVENTS, SCORES, FINDINGS, JOURNAL, CONTROLS)
    cluster.create(STATE, max_message_bytes="20000")
    cluster.events(range(7))
    code, errors = run_to_end(cluster, "--bytes-per-event", "100000")
    assert code == 3
    assert f"{topic_prefix}{STATE}" in errors
    assert "max.message.bytes" in errors
    assert "Traceback" not in errors
    assert cluster.scores() == []
