"""Sessions as a scorer and its analysts leave them on the topics: events, scores, and a label for each finding."""

from __future__ import annotations

import time
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import msgspec
import orjson
from confluent_kafka import Producer

from schemas.corpus import CorpusSession
from schemas.corpus_records import to_native
from schemas.corpus_timeline import timeline
from schemas.label import Label, LabelledEvent, LabelledSegment, label_key
from stream.config import Settings
from stream.core import Core
from stream.inputs import InputBatch
from stream.record import Record
from stream.release import Release
from stream.steps.content import Embeds
from stream.steps.route import partition_of_key
from stream.training.gather import ingest_step

_AT_ONCE = 2000


@dataclass(frozen=True, slots=True)
class Traffic:
    """What lies on the topics, offsets from 0."""

    events: list[Record]
    scores: list[tuple[int, bytes, bytes]]
    """Partition, key, value."""
    labels: list[Label]


def score(
    sessions: Sequence[CorpusSession], release: Release, settings: Settings, embedder: Embeds, *, analyst: str = "ada"
) -> Traffic:
    """Score the sessions with `release`; an analyst judges every finding by its session's label."""
    ingest = ingest_step(settings, "native")
    events: list[Record] = []
    ends: dict[int, int] = {}
    truth: dict[tuple[str, str], str | None] = {}
    for timed in timeline(sessions):
        native = to_native(timed.session, timed.call, timed.time_ms)
        raw = Record("corpus", 0, len(events), timed.time_ms, None, orjson.dumps(native))
        for out in ingest.step([raw]).events:
            offset = ends.get(out.partition, 0)
            ends[out.partition] = offset + 1
            events.append(Record(settings.topics.events, out.partition, offset, timed.time_ms, out.key, out.value))
            head = orjson.loads(out.value)
            truth[head["tenant"], head["session"]] = timed.session.label
    core = Core(settings, release, embedder)
    scores: list[tuple[int, bytes, bytes]] = []
    findings: dict[str, Any] = {}
    seen: dict[str, list[LabelledEvent]] = {}
    for low in range(0, len(events), _AT_ONCE):
        outcome = core.step(InputBatch(events[low : low + _AT_ONCE]))
        for said in outcome.scores:
            scores.append((said.partition, said.key, said.value))
            plain = orjson.loads(said.value)
            if plain["finding_uid"] is not None:
                event = msgspec.convert(plain, LabelledEvent, strict=False)
                seen.setdefault(plain["finding_uid"], []).append(event)
        for found in outcome.findings:
            record = orjson.loads(found.value)
            findings[record["finding_info"]["uid"]] = record
    labels = [
        label
        for uid, record in sorted(findings.items())
        if (label := _label(uid, record, seen.get(uid, []), truth, analyst)) is not None
    ]
    return Traffic(events, scores, labels)


def _label(
    uid: str,
    record: Mapping[str, Any],
    events: list[LabelledEvent],
    truth: Mapping[tuple[str, str], str | None],
    analyst: str,
) -> Label | None:
    about, info = record["unmapped"], record["finding_info"]
    tenant = record["metadata"]["tenant_uid"]
    if about["entity_type"] != "session" or not events:
        return None
    attack = truth[tenant, about["entity"]] == "attack"
    return Label(
        finding_uid=uid,
        analyst=analyst,
        identity="unverified",
        verdict_id=2 if attack else 1,
        verdict_time=info["last_seen_time"] + 60_000,
        scope="session",
        teaches="attack" if attack else "benign",
        disputed=False,
        tenant=tenant,
        entity_type="session",
        entity=about["entity"],
        session=about["entity"],
        key_hash=None,
        title=info["title"],
        techniques=[each.get("sub_technique", each["technique"])["uid"] for each in info["attacks"]],
        signals=about["signals"],
        p=about["p"],
        p_combined=about["p_combined"],
        release=about["release"],
        revision=record["metadata"]["sequence"],
        first_seen_ms=info["first_seen_time"],
        last_seen_ms=info["last_seen_time"],
        events=sorted(events, key=lambda event: (event.partition, event.offset)),
        events_told=len(events),
        segments=[
            LabelledSegment(
                event_id=each["uid"],
                role=each["data"]["role"],
                text=each["data"]["excerpt"],
                message_index=each["data"]["message_index"],
            )
            for each in record.get("evidences", [])
            if each["data"].get("excerpt")
        ],
    )


def send(traffic: Traffic, settings: Settings) -> None:
    """Write it to the topics, in one transaction each for events, scores and labels."""
    topics = settings.topics
    servers = settings.kafka.bootstrap_servers
    producer = Producer(
        {
            "bootstrap.servers": servers,
            "transactional.id": f"{topics.prefix}traffic",
            "transaction.timeout.ms": 300_000,
        }
    )
    producer.init_transactions(180)
    now = time.time_ns() // 1_000_000
    parts: list[tuple[str, Collection[tuple[int, bytes | None, bytes | None]]]] = [
        (topics.events, [(record.partition, record.key, record.value) for record in traffic.events]),
        (topics.scores, [(partition, key, value) for partition, key, value in traffic.scores]),
        (topics.labels, [_labelled(label, topics.partitions) for label in traffic.labels]),
    ]
    for topic, records in parts:
        producer.begin_transaction()
        for partition, key, value in records:
            while True:
                try:
                    producer.produce(topic, value, key, partition, timestamp=now)
                    break
                except BufferError:
                    producer.poll(0.1)
        producer.commit_transaction(180)


def _labelled(label: Label, partitions: int) -> tuple[int, bytes, bytes]:
    key = label_key(label.finding_uid, label.analyst)
    return partition_of_key(label.finding_uid.encode(), partitions), key, orjson.dumps(msgspec.to_builtins(label))
