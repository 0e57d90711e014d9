"""Whether a pipeline lost or doubled anything: Kafka and JSON only, nothing of the code that it checks."""

import hashlib
import json
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from confluent_kafka import OFFSET_BEGINNING, Consumer, KafkaError, Message, TopicPartition
from confluent_kafka.admin import AdminClient

Place = tuple[str, int, int]
"""Topic, partition and offset."""
_POLL_S = 180.0


@dataclass(slots=True)
class Verdict:
    """What was counted, and what is wrong; sound while `faults` is empty."""

    figures: dict[str, int] = field(default_factory=dict)
    faults: list[str] = field(default_factory=list)

    def require(self, holds: bool, fault: str) -> None:
        """Note `fault` unless `holds`."""
        if not holds:
            self.faults.append(fault)


POISON_HEADER = "drill-poison"
"""On raw records that must become dead letters."""


def check_ingest(bootstrap_servers: str, raw_topic: str, events_topic: str) -> Verdict:
    """Every raw record is one event, once, or one dead letter, once; order is kept.

    An event's id is that of its record's call, and each events partition keeps the order of each raw partition.
    """
    verdict = Verdict()
    expected, poison, ids = Counter[Place](), Counter[Place](), dict[Place, str]()
    for message in read(bootstrap_servers, raw_topic):
        place = (raw_topic, _partition(message), int(message.offset() or 0))
        if POISON_HEADER in dict(message.headers() or []):
            poison[place] += 1
        else:
            expected[place] += 1
            ids[place] = _event_id(message)
    found, letters, misnamed = Counter[Place](), Counter[Place](), 0
    last: dict[tuple[int, str, int], int] = {}
    for message in read(bootstrap_servers, events_topic):
        place = topic, partition, offset = _source(message)
        found[place] += 1
        misnamed += json.loads(_value(message))["event_id"] != ids.get(place)
        stretch = (_partition(message), topic, partition)
        verdict.require(last.get(stretch, -1) < offset, f"order is lost at raw offset {offset} of {topic}[{partition}]")
        last[stretch] = offset
    if poison:
        letters = Counter(_source(message) for message in read(bootstrap_servers, f"{raw_topic}.dlq"))
    verdict.figures |= {"raw": expected.total(), "events": found.total()}
    verdict.figures |= {"poison": poison.total(), "dead_letters": letters.total()}
    verdict.require(not expected - found, f"{(expected - found).total()} events are lost")
    verdict.require(not found - expected, f"{(found - expected).total()} events are there twice or came from nowhere")
    verdict.require(not misnamed, f"{misnamed} events have another id than their record's call")
    verdict.require(letters == poison, f"{_distance(letters, poison)} dead letters are missing, or there for nothing")
    return verdict


def check_scores(
    bootstrap_servers: str, events_topic: str, scores_topic: str, findings_topic: str, replay: Path
) -> Verdict:
    """Every event has one score, and scores and findings are those of a replay, byte for byte."""
    verdict = Verdict()
    places = Counter((_partition(message), message.offset()) for message in read(bootstrap_servers, events_topic))
    scores = [_value(message) for message in read(bootstrap_servers, scores_topic)]
    # Read partition by partition, each in its order, and a score lies where its event does.
    ordered = [(body["partition"], body["offset"]) for body in map(json.loads, scores)]
    scored = Counter(ordered)
    verdict.require(ordered == sorted(ordered), "scores are not in the order of their events")
    findings = [_value(message) for message in read(bootstrap_servers, findings_topic)]
    verdict.figures |= {"events": places.total(), "scores": scored.total(), "findings": len(findings)}
    verdict.require(not places - scored, f"{(places - scored).total()} events have no score")
    verdict.require(not scored - places, f"{(scored - places).total()} scores are there twice or came from nowhere")
    for name, live in (("scores", scores), ("findings", findings)):
        replayed = [line for line in (replay / f"{name}.jsonl").read_bytes().split(b"\n") if line]
        differing = _distance(Counter(live), Counter(replayed))
        verdict.figures[f"replayed_{name}"] = len(replayed)
        verdict.require(not differing, f"{differing} {name} differ between the live run and its replay")
    revisions: dict[str, list[int]] = {}
    for body in map(json.loads, findings):
        revisions.setdefault(body["finding_info"]["uid"], []).append(body["metadata"]["sequence"])
    gaps = [uid for uid, numbers in revisions.items() if numbers != list(range(1, len(numbers) + 1))]
    verdict.require(not gaps, f"{len(gaps)} findings have gaps, repetitions or another order in their revisions")
    return verdict


def read(bootstrap_servers: str, topic: str) -> Iterator[Message]:
    """All committed records of a topic, partition by partition."""
    consumer = Consumer(
        {
            "bootstrap.servers": bootstrap_servers,
            "group.id": "checker",
            "isolation.level": "read_committed",
            "enable.auto.commit": False,
            "enable.partition.eof": True,
        }
    )
    try:
        for number in sorted(
            AdminClient({"bootstrap.servers": bootstrap_servers}).list_topics(topic).topics[topic].partitions
        ):
            consumer.assign([TopicPartition(topic, number, OFFSET_BEGINNING)])
            while True:
                message = consumer.poll(_POLL_S)
                if message is None:
                    raise TimeoutError(f"{topic}[{number}] was not read to its end in {_POLL_S:.0f} s")
                error = message.error()
                if error is None:
                    yield message
                elif error.code() == KafkaError._PARTITION_EOF:
                    break
                else:
                    raise RuntimeError(f"{topic}[{number}]: {error.str()}")
    finally:
        consumer.close()


def _distance(one: Counter[Any], other: Counter[Any]) -> int:
    return (one - other).total() + (other - one).total()


def _event_id(message: Message) -> str:
    call: dict[str, Any] = json.loads(_value(message))
    identity = json.dumps(["litellm", call["litellm_call_id"]], separators=(",", ":"), ensure_ascii=False)
    return hashlib.sha256(identity.encode()).hexdigest()


def _value(message: Message) -> bytes:
    value = message.value()
    assert isinstance(value, bytes)
    return value


def _partition(message: Message) -> int:
    partition = message.partition()
    assert partition is not None
    return partition


def _source(message: Message) -> tuple[str, int, int]:
    headers = dict(message.headers() or [])
    place = headers["tg-source"]
    assert isinstance(place, bytes)
    topic, partition, offset = place.decode().rsplit("/", 2)
    return topic, int(partition), int(offset)
