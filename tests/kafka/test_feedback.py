"""`tidegate feedback` and `tidegate verdict` as processes, on a real broker."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from base64 import b64encode
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from confluent_kafka import ConsumerGroupTopicPartitions, Producer
from confluent_kafka.admin import AdminClient, AlterConfigOpType, ConfigEntry, ConfigResource  # type: ignore[attr-defined]
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat

from tests.drills.checker import read
from tests.drills.feedback_traffic import (
    BEGIN_MS,
    CONTROLS,
    FINDINGS,
    LABELS,
    RETRAIN,
    SCORES,
    VERDICTS,
    Sent,
    compact,
    finding,
    other_score,
    score,
    send,
    uid_of,
    verdict,
)
from tests.kafka.harness import PATIENCE_S, get, headers_of
from tidegate.demo.process import Service, environment, run

pytestmark = [pytest.mark.kafka, pytest.mark.timeout(600)]

PARTITIONS = 2


class Loop:
    """Topics of one test, and a worker on them.

    Parameters
    ----------
    settings
        Environment of its commands, without `TIDEGATE_`.
    """

    def __init__(self, servers: str, prefix: str, out: Path, **settings: str) -> None:
        self.servers, self.prefix, self.out = servers, prefix, out
        self.environment = environment(
            KAFKA_BOOTSTRAP_SERVERS=servers,
            TIDEGATE_TOPICS__PREFIX=prefix,
            TIDEGATE_TOPICS__PARTITIONS=str(PARTITIONS),
            TIDEGATE_FEEDBACK__DIRECTORY=str(out / "tables"),
            TIDEGATE_FEEDBACK__QUIET_MS="200",
            # At its end the process is ended, whatever it does.
            TIDEGATE_SHUTDOWN__DEADLINE_MS="120000",
            **{f"TIDEGATE_{name}": value for name, value in settings.items()},
        )
        self.http = ""
        run(["topics", "create"], self.environment, out / "topics.log")

    @contextmanager
    def worker(self) -> Iterator[Service]:
        """A worker that is ready."""
        arguments = ["feedback", "--group-id", f"{self.prefix}feedback", "--instance-id", "one"]
        with Service(arguments, self.environment, self.out / "feedback.log") as service:
            said = service.ready(PATIENCE_S)
            assert said["partitions"] == list(range(PARTITIONS))
            self.http = said["http"]
            yield service
            if service.code is None:
                os.kill(service.pid, signal.SIGTERM)
                service.wait(60)

    def send(self, *records: Sent, transaction: str = "", commit: bool = True) -> None:
        send(self.servers, self.prefix, records, partitions=PARTITIONS, transaction=transaction, commit=commit)

    def command(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        """What a command says."""
        command = [sys.executable, "-m", "tidegate.cli", *arguments]
        return subprocess.run(command, env=self.environment, capture_output=True, text=True, check=False)

    def labels(self) -> dict[tuple[str, str], dict[str, Any]]:
        """The last label of each key."""
        found = {}
        for message in read(self.servers, self.prefix + LABELS):
            uid, analyst = json.loads(message.key() or b"[]")
            found[uid, analyst] = json.loads(message.value() or b"null")
        return found

    def values(self, topic: str) -> list[dict[str, Any]]:
        return [json.loads(message.value() or b"null") for message in read(self.servers, self.prefix + topic)]

    def json(self, path: str) -> Any:
        status, body = get(self.http + path)
        assert status == 200, body
        return json.loads(body)

    def lag(self) -> dict[str, int]:
        """What the group has not committed, by topic, markers of transactions included."""
        admin = AdminClient({"bootstrap.servers": self.servers})
        asked = ConsumerGroupTopicPartitions(f"{self.prefix}feedback")
        answer = next(iter(admin.list_consumer_group_offsets([asked]).values())).result()
        committed = {
            (place.topic, place.partition): max(place.offset, 0)
            for place in answer.topic_partitions or []
            if place.topic.startswith(self.prefix)
        }
        lags: dict[str, int] = {}
        for topic in (FINDINGS, SCORES, VERDICTS):
            for partition in range(PARTITIONS):
                end = _end(self.servers, self.prefix + topic, partition)
                lags[topic] = lags.get(topic, 0) + end - committed.get((self.prefix + topic, partition), 0)
        return lags


def _end(servers: str, topic: str, partition: int) -> int:
    from confluent_kafka import Consumer, TopicPartition

    consumer = Consumer({"bootstrap.servers": servers, "group.id": "ends", "isolation.level": "read_uncommitted"})
    watermarks = consumer.get_watermark_offsets(TopicPartition(topic, partition), timeout=PATIENCE_S)
    consumer.close()
    assert watermarks is not None
    return int(watermarks[1])


def until(holds: Callable[[], Any], seconds: float = PATIENCE_S) -> Any:
    """What `holds` returns, once it is true."""
    end = time.monotonic() + seconds
    while True:
        found = holds()
        if found:
            return found
        assert time.monotonic() < end, f"not in {seconds:g} s"
        time.sleep(0.1)


@pytest.fixture
def loop(kafka: str, topic_prefix: str, tmp_path: Path) -> Loop:
    return Loop(kafka, topic_prefix, tmp_path)


def test_a_verdict_finding_and_scores_in_any_order_become_a_label_and_an_effect(loop: Loop) -> None:
    with loop.worker() as worker:
        loop.send(verdict(1, "ada", 2, notes=["order in a note"]))
        until(lambda: get(f"{loop.http}/verdicts/{uid_of(1)}")[0] == 200)
        assert loop.labels() == {}
        assert "tidegate_feedback_waiting_verdicts 1.0" in get(f"{loop.http}/metrics")[1]
        loop.send(score(1, 1), other_score(1), transaction="scorer")
        loop.send(finding(1, 2, events=2), transaction="scorer")
        loop.send(finding(1, 1, events=1), score(1, 0, partition=1), transaction="scorer")
        label = until(lambda: _complete(loop.labels().get((uid_of(1), "ada"))))
        assert (label["teaches"], label["disputed"], label["identity"]) == ("attack", False, "unverified")
        assert (label["revision"], label["events_told"], label["release"]) == (2, 2, "r-1")
        assert [(each["partition"], each["offset"]) for each in label["events"]] == [(0, 101), (1, 100)]
        assert [each["text"] for each in label["segments"]] == ["do 1"]
        effect = until(lambda: loop.values(CONTROLS))[-1]
        assert effect["kind"] == "verdict"
        assert effect["value"]["effect"] == "keep_out"
        assert effect["value"]["risk_ms"] == 86_400_000
        assert loop.json(f"/labels/{uid_of(1)}") == [label]
        loop.send(verdict(1, "bob", 5, scope="entity", exception_days=2))
        until(lambda: (loop.labels().get((uid_of(1), "ada")) or {}).get("disputed"))
        assert loop.values(CONTROLS)[-1]["value"]["verdicts"] == {"ada": 2, "bob": 5}
        loop.send(verdict(1, "ada", 10, BEGIN_MS + 1))
        rule = until(lambda: loop.values(CONTROLS)[-1]["value"]["rule"])
        assert (rule["session"], rule["key_hash"], rule["signal"], rule["who"]) == (None, "key-1", "novelty", "bob")
        # Markers of transactions at the end of a partition are passed over.
        until(lambda: not any(loop.lag().values()))
        os.kill(worker.pid, signal.SIGTERM)
        worker.wait(60)


def _counted(loop: Loop) -> tuple[int, int]:
    """How many labels are benign, and how many disputed."""
    rows = loop.json("/counts")["counts"]
    return sum(row["benign"] for row in rows), sum(row["disputed"] for row in rows)


def _complete(label: dict[str, Any] | None) -> dict[str, Any] | None:
    return label if label is not None and label["revision"] == 2 and len(label["events"]) == 2 else None


def test_what_an_aborted_transaction_holds_is_never_joined(loop: Loop) -> None:
    with loop.worker():
        loop.send(finding(1), score(1, 0), transaction="scorer", commit=False)
        loop.send(finding(2), score(2, 0), transaction="scorer")
        loop.send(verdict(1, "ada", 2), verdict(2, "ada", 2))
        until(lambda: (loop.labels().get((uid_of(2), "ada")) or {}).get("events"))
        until(lambda: not any(loop.lag().values()))
        assert set(loop.labels()) == {(uid_of(2), "ada")}
        assert loop.json(f"/verdicts/{uid_of(1)}")["finding"] is False


def test_verdicts_that_are_none_become_dead_letters_and_stop_nothing(
    kafka: str, topic_prefix: str, tmp_path: Path
) -> None:
    key = Ed25519PrivateKey.generate()
    file = tmp_path / "ada.pem"
    file.write_bytes(key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()))
    analysts = json.dumps({"ada": b64encode(key.public_key().public_bytes_raw()).decode()})
    loop = Loop(kafka, topic_prefix, tmp_path, FEEDBACK__ANALYSTS=analysts, FEEDBACK__SIGNING_KEY_FILE=str(file))
    with loop.worker():
        producer = Producer({"bootstrap.servers": kafka})
        headers: list[tuple[str, str | bytes | None]] = [("origin", b"console"), ("origin", b"twice")]
        producer.produce(topic_prefix + VERDICTS, b"{not json", b"k", 1, headers=headers)
        producer.produce(topic_prefix + VERDICTS, compact({"finding_uid": "x"}), b"k", 1)
        producer.produce(topic_prefix + VERDICTS, None, b"k", 1)
        # Signed or not, none of these may stop the worker: it would stop at every start.
        signed = compact(verdict(1, "ada", 1)[3])[:-1]
        nested = (b"[" * depth + b"]" * depth for depth in (300, 2_000))
        for more in (b"1e999", *nested, b'"' + b"x" * 70_000 + b'"'):
            producer.produce(topic_prefix + VERDICTS, signed + b',"more":' + more + b"}", b"k", 1)
        loop.send(verdict(1, "ada", 1, 2**64), verdict(1, "ada", 1, source_system="x" * 257))
        assert producer.flush(PATIENCE_S) == 0
        forged = {"key": b64encode(bytes(32)).decode(), "value": b64encode(bytes(64)).decode()}
        loop.send(finding(1), verdict(1, "mallory", 1), verdict(1, "ada", 1), verdict(1, "ada", 1, signature=forged))
        said = loop.command("verdict", uid_of(1), "--verdict-id", "2", "--analyst", "ada", "--note", "seen")
        assert said.returncode == 0, said.stderr
        assert f"True Positive of ada on finding {uid_of(1)} of t1" in said.stdout
        label = until(lambda: loop.labels().get((uid_of(1), "ada")))
        assert (label["identity"], label["verdict_id"]) == ("verified", 2)
        letters = until(
            lambda: (found := list(read(kafka, f"{topic_prefix}{VERDICTS}.dlq"))) and len(found) == 12 and found
        )
        reasons = [headers_of(letter)["tg-reason"].decode() for letter in letters]
        assert Counter(reasons) == {
            "oversized": 1, "schema": 3, "signature": 2, "too_deep": 2, "undecodable": 3, "unknown_analyst": 1,
        }  # fmt: skip
        bad = next(letter for letter in letters if letter.value() == b"{not json")
        assert bad.key() == b"k"
        assert (bad.headers() or [])[:2] == [("origin", b"console"), ("origin", b"twice")]
        assert headers_of(bad)["__connect.errors.topic"].decode() == topic_prefix + VERDICTS
        assert headers_of(bad)["__connect.errors.offset"] == b"0"
        assert loop.labels().keys() == {(uid_of(1), "ada")}


def test_a_verdict_on_a_finding_that_is_not_there_says_what_to_check(loop: Loop) -> None:
    said = loop.command("verdict", uid_of(9), "--verdict-id", "2", "--analyst", "ada")
    assert said.returncode == 4
    assert f"finding {uid_of(9)} is not on {loop.prefix}{FINDINGS}" in said.stderr


def test_enough_labels_ask_once_for_a_retraining_also_after_a_restart(
    kafka: str, topic_prefix: str, tmp_path: Path
) -> None:
    loop = Loop(kafka, topic_prefix, tmp_path, FEEDBACK__LABELS_MIN="3", FEEDBACK__PRECISION_LABELS_MIN="3")
    with loop.worker():
        for number in range(4):
            loop.send(finding(number), score(number, 0), transaction="scorer")
        until(lambda: "r-1" in get(f"{loop.http}/counts")[1])
        time.sleep(0.05)
        loop.send(*(verdict(number, "ada", 1) for number in range(4)), verdict(3, "bob", 2))
        asked = until(lambda: loop.values(RETRAIN))
        loop.send(*(verdict(number, "ada", 1) for number in range(4)))
        time.sleep(2)
        assert loop.values(RETRAIN) == asked or {each["request_id"] for each in loop.values(RETRAIN)}
        causes = [[(each["cause"], each.get("signal")) for each in request["reasons"]] for request in asked]
        assert ("labels", None) in causes[0]
        assert asked[-1]["subject"] == "population"
        until(lambda: _counted(loop) == (3, 1))
        assert loop.json("/retrain")["population"]["request_id"] == loop.values(RETRAIN)[-1]["request_id"]
    before = loop.values(RETRAIN)
    with loop.worker():
        time.sleep(2)
        assert loop.values(RETRAIN) == before
        # Another release in service is another situation: nothing has been said since.
        loop.send(other_score(1, release="r-2"), transaction="scorer")
        until(lambda: loop.json("/counts")["release"] == "r-2")
        time.sleep(1)
        assert loop.values(RETRAIN) == before


def test_a_row_goes_when_its_finding_is_too_old_for_a_verdict(loop: Loop) -> None:
    old_ms = int(time.time() * 1000) - 70 * 86_400_000
    topic, _, key, value = finding(1)
    value["finding_info"]["last_seen_time"] = old_ms
    producer = Producer({"bootstrap.servers": loop.servers})
    for partition in range(PARTITIONS):
        producer.produce(loop.prefix + topic, compact(value), key, partition, timestamp=old_ms)
    assert producer.flush(PATIENCE_S) == 0
    loop.send(finding(2))
    with loop.worker():
        until(lambda: get(f"{loop.http}/verdicts/{uid_of(2)}")[0] == 200)
        until(lambda: get(f"{loop.http}/verdicts/{uid_of(1)}")[0] == 404)
        until(lambda: "tidegate_feedback_rows 1.0" in get(f"{loop.http}/metrics")[1])
        assert loop.json(f"/verdicts/{uid_of(2)}")["finding"] is True


def test_topics_that_would_lose_findings_are_refused_with_the_remedy(loop: Loop) -> None:
    admin = AdminClient({"bootstrap.servers": loop.servers})
    for topic, name, value in ((FINDINGS, "retention.ms", "86400000"), (VERDICTS, "retention.ms", "86400000")):
        entry = ConfigEntry(name, value, incremental_operation=AlterConfigOpType.SET)
        resource = ConfigResource("topic", loop.prefix + topic, incremental_configs=[entry])
        admin.incremental_alter_configs([resource])[resource].result(PATIENCE_S)
    said = until(lambda: (found := loop.command("feedback")).returncode == 3 and found)
    assert "retention.ms must be at least 5184000000 (feedback.verdict_days = 60)" in said.stderr
    assert f"kafka-configs.sh --alter --topic {loop.prefix}{VERDICTS} --add-config retention.ms=-1" in said.stderr
