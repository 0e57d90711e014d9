"""Scripted analysts: a verdict on every finding about a session, from what the corpus knows of it."""

import threading
import time
from collections import Counter
from dataclasses import dataclass, field
from typing import Any

import orjson
from confluent_kafka import Producer

from schemas.corpus_records import Truth
from schemas.corpus_timeline import unit
from schemas.verdict import FALSE_POSITIVE, TRUE_POSITIVE
from stream.steps.route import partition_of_key

NAMES = ("ada@soc", "bela@soc", "chen@soc")
_FLUSH_S = 30.0


@dataclass(slots=True)
class Analysts:
    """Judges each finding once, when it is created.

    Parameters
    ----------
    bootstrap_servers, topic, partitions
        Of the verdicts.
    truths
        (tenant, session as the gateway names it) -> what is known about it; may grow while findings come.
    """

    bootstrap_servers: str
    topic: str
    partitions: int
    truths: dict[tuple[str, str], Truth]
    given: Counter[str] = field(default_factory=Counter)
    """Verdicts by kind, `attack` and `benign`."""
    uids: dict[str, str] = field(default_factory=dict)
    """Finding's uid -> kind of its verdict."""
    on_duty: bool = True
    """Findings that come while nobody is get no verdict."""
    _lock: threading.Lock = field(default_factory=threading.Lock)
    _producer: Producer | None = field(init=False)

    def __post_init__(self) -> None:
        self._producer = Producer({"bootstrap.servers": self.bootstrap_servers, "enable.idempotence": True})

    def judge(self, finding: dict[str, Any]) -> None:
        """Give a verdict on a finding record, unless it has one, or is not about a session."""
        uid, said = finding["finding_info"]["uid"], finding["unmapped"]
        truth = self.truths.get((finding["metadata"]["tenant_uid"], said["entity"]))
        with self._lock:
            if not self.on_duty or truth is None or said["entity_type"] != "session" or uid in self.uids:
                return
            attack = truth.label == "attack"
            self.uids[uid] = "attack" if attack else "benign"
            self.given[self.uids[uid]] += 1
            verdict = {
                "finding_uid": uid,
                "verdict_id": TRUE_POSITIVE if attack else FALSE_POSITIVE,
                "analyst": NAMES[int(unit("analyst", uid) * len(NAMES))],
                "time": time.time_ns() // 1_000_000,
                "tenant": finding["metadata"]["tenant_uid"],
                "scope": "session",
                "source_system": "make demo-loop",
            }
            key = uid.encode()
            assert self._producer is not None, "on duty"
            self._producer.produce(self.topic, orjson.dumps(verdict), key, partition_of_key(key, self.partitions))
            self._producer.poll(0)

    def go_home(self) -> None:
        """Judge nothing more, and see that what was said has arrived.

        Raises
        ------
        TimeoutError
            When it has not.
        """
        with self._lock:
            self.on_duty = False
            # Let go of, or it would look for the broker when that is gone.
            producer, self._producer = self._producer, None
        left = producer.flush(_FLUSH_S) if producer is not None else 0
        if left:
            raise TimeoutError(f"{left} verdicts could not be sent to {self.topic} in {_FLUSH_S:.0f} s")
