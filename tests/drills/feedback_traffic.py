"""Made-up findings, scores and verdicts for the feedback worker, and a producer that commits or aborts them."""

from __future__ import annotations

import json
import random
from collections.abc import Iterable, Sequence
from hashlib import sha256
from typing import Any

from confluent_kafka import Producer

from stream.steps.route import partition_of_key

FINDINGS = "genai.anomaly.findings.v1"
SCORES = "genai.anomaly.scores.v1"
VERDICTS = "genai.feedback.verdicts.v1"
LABELS = "genai.feedback.labels.v1"
CONTROLS = "genai.anomaly.controls.v1"
RETRAIN = "genai.model.retrain.v1"
BEGIN_MS = 1_795_300_000_000

Sent = tuple[str, int, bytes, dict[str, Any]]
"""Topic without prefix, partition (-1: by the key), key, value."""


def uid_of(number: int) -> str:
    """A finding's uid.

    >>> len(uid_of(1))
    32
    """
    return sha256(f"finding {number}".encode()).hexdigest()[:32]


def event_of(number: int, place: int) -> str:
    """Id of a finding's event."""
    return sha256(f"event {number} {place}".encode()).hexdigest()


def finding(
    number: int, revision: int = 1, events: int = 1, signal: str = "novelty", release: str = "r-1", **about: Any
) -> Sent:
    """A revision of a finding that lists its first events."""
    uid, session = uid_of(number), f"session-{number}"
    entity = about.pop("entity_type", "session")
    tenant, test = about.pop("tenant", f"t{number % 3}"), {"test": True} if about.pop("test", False) else {}
    excerpt = {"role": "tool", "excerpt": f"do {number}", "message_index": 3}
    end = BEGIN_MS + 1_000 * number + 10 * events
    value = {
        "activity_id": 1 if revision == 1 else 2,
        "metadata": {"tenant_uid": tenant, "sequence": revision, "correlation_uid": session},
        "finding_info": {
            "uid": uid,
            "title": f"finding {number}",
            "first_seen_time": BEGIN_MS + 1_000 * number,
            "last_seen_time": end,
            "attacks": [{"technique": {"uid": "AML.T0051"}, "sub_technique": {"uid": "AML.T0051.001"}}],
            "related_events": [{"uid": event_of(number, place)} for place in range(events)],
        },
        "observables": [{"name": "key_hash", "value": f"key-{number % 5}"}, {"name": "tool", "value": "crm"}],
        "evidences": [{"uid": event_of(number, 0), "data": excerpt}],
        "unmapped": {
            "entity": {"session": session, "key": f"key-{number % 5}"}.get(entity, tenant),
            "entity_type": entity,
            "release": release,
            "signals": {signal: 0.5 + revision, "volume": 1.0},
            "p": {signal: 0.001 / revision, "volume": 0.4},
            "p_combined": 0.001 / revision,
            **test,
        },
    }  # fmt: skip
    return FINDINGS, -1, uid.encode(), value


def score(number: int, place: int, partition: int = 0, release: str = "r-1") -> Sent:
    """The score of a finding's event."""
    value = {
        "event_id": event_of(number, place),
        "tenant": f"t{number % 3}",
        "session": f"session-{number}",
        "event_time_ms": BEGIN_MS + 1_000 * number + 10 * place,
        "partition": partition,
        "offset": 100 * number + place,
        "signals": {"novelty": 0.1 * place},
        "p": {"novelty": 0.01},
        "p_combined": 0.01,
        "release": release,
        "decision": "finding",
        "finding_uid": uid_of(number),
    }
    return SCORES, partition, f'["t{number % 3}"]'.encode(), value


def other_score(number: int, partition: int = 0, release: str = "r-1") -> Sent:
    """The score of an event that belongs to no finding."""
    topic, _, key, value = score(number, 900_000, partition, release)
    return topic, partition, key, {**value, "decision": "none", "finding_uid": None}


def verdict(number: int, analyst: str, verdict_id: int, time_ms: int = BEGIN_MS, **more: Any) -> Sent:
    """A verdict, keyed as a console that knows nothing of partitions may key it."""
    value = {"finding_uid": uid_of(number), "verdict_id": verdict_id, "analyst": analyst, "time": time_ms, **more}
    return VERDICTS, -1, analyst.encode(), value


def send(
    servers: str, prefix: str, records: Iterable[Sent], *, partitions: int, transaction: str = "", commit: bool = True
) -> None:
    """Produce records, in a transaction that is committed or aborted when `transaction` names one."""
    config: dict[str, Any] = {"bootstrap.servers": servers, "enable.idempotence": True, "linger.ms": 5}
    producer = Producer(config | ({"transactional.id": prefix + transaction} if transaction else {}))
    if transaction:
        producer.init_transactions(180)
        producer.begin_transaction()
    for topic, partition, key, value in records:
        number = partition_of_key(key, partitions) if partition < 0 else partition
        headers = [("tg-release", value["release"].encode())] if topic == SCORES else []
        producer.produce(prefix + topic, compact(value), key, number, headers=headers)
        producer.poll(0)
    assert producer.flush(180) == 0
    if transaction and commit:
        producer.commit_transaction(180)
    elif transaction:
        producer.abort_transaction(180)


def compact(value: dict[str, Any]) -> bytes:
    """Compact JSON, as every producer of these topics writes it."""
    return json.dumps(value, separators=(",", ":")).encode()


def shuffled(findings: int, seed: int) -> tuple[list[Sent], list[Sent]]:
    """What is in transactions (findings, scores) and what is not (verdicts), out of order and with duplicates."""
    random_ = random.Random(seed)
    scored: list[Sent] = []
    judged: list[Sent] = []
    for number in range(findings):
        events = random_.randint(1, 6)
        revisions = random_.randint(1, min(events, 3))
        scored += [finding(number, r, events if r == revisions else r) for r in range(1, revisions + 1)]
        scored += [score(number, place, random_.randrange(2)) for place in range(events)]
        scored += [other_score(number, random_.randrange(2))]
        for analyst in random_.sample(["ada", "bob", "eve"], random_.randint(0, 2)):
            for turn in range(random_.randint(1, 2)):
                choice = random_.choice([1, 2, 2, 4, 5, 8, 10])
                judged.append(verdict(number, analyst, choice, BEGIN_MS + turn, notes=[f"turn {turn}"]))
    for records in (scored, judged):
        records += random_.sample(records, len(records) // 5)
        random_.shuffle(records)
    return scored, judged


def chunks(records: Sequence[Sent], count: int) -> list[list[Sent]]:
    """`records` in `count` parts.

    >>> [len(part) for part in chunks([("t", 0, b"", {})] * 5, 2)]
    [3, 2]
    """
    size = -(-len(records) // count)
    return [list(records[at : at + size]) for at in range(0, len(records), size)]
