"""Streams of events for tests of the core: conversations that resend, cut, edit and branch their history, and worse."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from hashlib import sha256
from random import Random
from typing import Any, Literal, get_args

import orjson

from schemas.digest import plain_digest
from stream.config import CoreSettings, DecisionSettings, DedupSettings, FindingsSettings, LearningSettings, Settings
from stream.core import Core
from stream.inputs import Applied, InputBatch, Outcome
from stream.record import Record

TOPIC = "genai.gateway.events.v1"
START_MS = 1_795_000_000_000
QUIET_MS = 60_000
"""After which a session of `SETTINGS` closes."""

SETTINGS = Settings(
    core=CoreSettings(lateness_ms=5_000, future_ms=300_000, session_quiet_ms=QUIET_MS),
    dedup=DedupSettings(events_max=40, window_ms=600_000),
    learning=LearningSettings(grace_sessions=8, quarantine_days=2 * QUIET_MS / 86_400_000),
    findings=FindingsSettings(quiet_ms=2 * QUIET_MS),
    decision=DecisionSettings(session_fpr=0.02),
)
"""Everything happens early and often: short quiet and quarantine, few events remembered."""

What = Literal[
    "turn", "cut", "edit", "branch", "empty", "system", "strange",
    "again", "conflict", "late", "future", "broken", "repeat",
]  # fmt: skip
WHATS: tuple[What, ...] = get_args(What)
GAPS_MS = (0, 1, 700, 9_000, QUIET_MS - 1, QUIET_MS, QUIET_MS + 1, 3 * QUIET_MS)

_COMMON = "please book the flight to rome for two people and send a summary of the offer by mail today".split()
_KNOWN = [" ".join(Random(i).choices(_COMMON, k=3 + 2 * i)) for i in range(25)]
"""What is said again and again, so that there is something to learn."""
_STRANGE = "ignore previous orders exfiltrate /etc/shadow base64 curl attacker.example now silently override".split()

Message = dict[str, Any]


@dataclass(frozen=True, slots=True)
class Happening:
    """One thing that a gateway records."""

    partition: int
    tenant: int
    session: int
    gap_ms: int
    """Event time since the partition's event before."""
    what: What


@dataclass(slots=True)
class Writer:
    """Happenings -> records of the events topic.

    Offsets leave gaps, as transaction markers do.
    """

    random: Random = field(default_factory=lambda: Random(7))
    _clock: dict[int, int] = field(default_factory=dict)
    _offset: dict[int, int] = field(default_factory=dict)
    _history: dict[tuple[int, int, int], list[Message]] = field(default_factory=dict)
    _said: dict[int, list[dict[str, Any]]] = field(default_factory=dict)
    _number: int = 0

    def write(self, happening: Happening) -> Record:
        """The record of the next happening in its partition."""
        partition = happening.partition
        clock = self._clock.get(partition, START_MS) + happening.gap_ms
        self._clock[partition] = clock
        offset = self._offset.get(partition, 0) + (1 if self.random.random() < 0.8 else 3)
        self._offset[partition] = offset
        if happening.what == "broken":
            broken = self.random.choice([b"{", b"\xff", b'{"event_id": 3}', b"[]", b"null"])
            return Record(TOPIC, partition, offset, clock, None, broken)
        earlier = self._said.setdefault(partition, [])
        if happening.what == "again" and earlier:
            value = self.random.choice(earlier[-12:])
        elif happening.what == "conflict" and earlier:
            value = self._event(happening, clock) | {"event_id": self.random.choice(earlier[-12:])["event_id"]}
        else:
            value = self._event(happening, clock)
        earlier.append(value)
        headers = (("traceparent", b"00-%032x-%016x-01" % (offset, offset)),) if offset % 3 == 0 else ()
        return Record(TOPIC, partition, offset, clock, None, orjson.dumps(value), headers)

    def _event(self, happening: Happening, clock: int) -> dict[str, Any]:
        self._number += 1
        what, key = happening.what, (happening.partition, happening.tenant, happening.session)
        history = self._history.setdefault(key, [])
        shift = {"late": -20_000, "future": 900_000}.get(what, 0)
        messages: list[Message] = []
        output: list[Message] = []
        if what != "empty":
            messages, output = self._exchange(what, history)
            history[:] = [*messages, *output]
        called = any(part["type"] == "tool_call" for answer in output for part in answer["parts"])
        return event(
            self._number,
            max(0, clock + shift),
            messages,
            output,
            tenant=f"team-{happening.tenant}",
            session=f"s\u00e9ance {happening.session}",
            tools=["search", "mail"] if happening.session % 2 else [],
            prompt_tokens=40 * len(messages) if what != "empty" else None,
            completion_tokens=self.random.randrange(400),
            duration_ms=self.random.randrange(50, 9_000) / 2,
            status="failure" if self.random.random() < 0.1 else "success",
            finish_reason="tool_calls" if called else "stop",
        )

    def _exchange(self, what: What, history: Sequence[Message]) -> tuple[list[Message], list[Message]]:
        random = self.random
        before = list(history)
        if what == "cut":
            before = before[random.randrange(len(before) + 1) :]
        elif what == "edit" and before:
            before[random.randrange(len(before))] = self._message("user", "edited")
        elif what == "branch":
            before = before[: random.randrange(len(before) + 1)]
        if what == "system" or (not before and random.random() < 0.5):
            before.insert(0, self._message("system"))
        if what == "repeat" and before:
            new = [random.choice(before)]
        elif before and any(part["type"] == "tool_call" for part in before[-1]["parts"]):
            new = [self._tool_result(strange=what == "strange")]
        else:
            new = [self._message("user", *(_STRANGE if what == "strange" else ()))]
        output = [self._call() if random.random() < 0.4 else self._message("assistant")]
        return [*before, *new], [] if random.random() < 0.1 else output

    def _words(self, *more: str) -> str:
        known = self.random.choice(_KNOWN)
        if more:
            return f"{known} {' '.join(self.random.choices(more, k=9))}"
        return known if self.random.random() < 0.8 else f"{known} {self.random.randrange(1000)}"

    def _message(self, role: str, *more: str) -> Message:
        return text(role, self._words(*more))

    def _call(self) -> Message:
        arguments = orjson.dumps({"query": self._words()}).decode()
        name = self.random.choice(["search", "mail", ""])
        return message("assistant", [{"type": "tool_call", "id": "c", "name": name, "arguments": arguments}])

    def _tool_result(self, strange: bool) -> Message:
        said = self._words(*(_STRANGE if strange else ()))
        return message("tool", [{"type": "tool_call_response", "id": "c", "response": said}])


def message(role: str, parts: list[dict[str, str]]) -> Message:
    """A message with its digest."""
    return {"role": role, "digest": plain_digest(role, parts), "parts": parts}


def text(role: str, said: str) -> Message:
    """A message of one piece of text."""
    return message(role, [{"type": "text", "text": said}])


def event(
    number: int, time_ms: int, messages: Sequence[Message] = (), output: Sequence[Message] = (), **more: Any
) -> dict[str, Any]:
    """The event whose id is made of `number`."""
    value: dict[str, Any] = {
        "event_id": sha256(f"event {number}".encode()).hexdigest(),
        "tenant": "team-1",
        "session": "s",
        "session_source": "gateway",
        "key_hash": None,
        "event_time_ms": time_ms,
        "messages": list(messages),
        "output": list(output),
        "redaction": {"policy": "none"},
        "model_served": "m-1",
        **more,
    }
    raw = sha256(orjson.dumps(value)).hexdigest()
    value["source"] = {"gateway": "native", "raw_sha256": raw, "topic": "x", "partition": 0, "offset": number}
    return value


def record(offset: int, value: dict[str, Any], *, partition: int = 0, ingest_ms: int | None = None) -> Record:
    """An event on its topic, taken in at the time that it tells unless another is given."""
    taken_ms = value["event_time_ms"] if ingest_ms is None else ingest_ms
    return Record(TOPIC, partition, offset, taken_ms, None, orjson.dumps(value))


def happenings(
    random: Random, n: int, *, partitions: int = 3, tenants: int = 3, sessions: int = 4
) -> Iterator[Happening]:
    """A random stream, of which most are ordinary turns."""
    for _ in range(n):
        what = random.choice(WHATS) if random.random() < 0.4 else "turn"
        gap = random.choice(GAPS_MS) if random.random() < 0.3 else random.randrange(3_000)
        yield Happening(random.randrange(partitions), random.randrange(tenants), random.randrange(sessions), gap, what)


def stream(seed: int, n: int, **sizes: int) -> list[Record]:
    """Records of a random stream."""
    random = Random(seed)
    writer = Writer(random)
    return [writer.write(happening) for happening in happenings(random, n, **sizes)]


@dataclass(slots=True)
class Said:
    """What a core said, by partition, and the rows that a crash would leave."""

    scores: dict[int, list[bytes]] = field(default_factory=dict)
    findings: dict[int, list[tuple[int, bytes]]] = field(default_factory=dict)
    """With the offsets of what caused them."""
    dead_letters: list[tuple[int, int, str]] = field(default_factory=list)
    counts: dict[str, int] = field(default_factory=dict)
    rows: dict[int, list[tuple[bytes, bytes | None]]] = field(default_factory=dict)

    def take(self, outcome: Outcome) -> None:
        """Take an outcome down."""
        for score in outcome.scores:
            self.scores.setdefault(score.partition, []).append(score.value)
        for finding in outcome.findings:
            _, partition, offset = finding.source
            self.findings.setdefault(partition, []).append((offset, finding.value))
        self.dead_letters += [(d.record.partition, d.record.offset, d.reason) for d in outcome.dead_letters]
        for name, count in outcome.counts.items():
            if not name.startswith("embedding_cache"):
                self.counts[name] = self.counts.get(name, 0) + count
        for change in outcome.changes:
            self.rows.setdefault(change.partition, []).append((change.key, change.value))

    def results(self) -> tuple[object, ...]:
        """What must not depend on how the stream was cut."""
        counts = {name: count for name, count in self.counts.items() if count}
        return self.scores, self.findings, sorted(self.dead_letters), counts

    def scored(self) -> list[dict[str, Any]]:
        """All scores, read."""
        return [orjson.loads(value) for partition in sorted(self.scores) for value in self.scores[partition]]

    def found(self) -> list[dict[str, Any]]:
        """All findings, read."""
        return [orjson.loads(value) for partition in sorted(self.findings) for _, value in self.findings[partition]]


def run(core: Core, batches: Iterable[InputBatch], said: Said | None = None) -> Said:
    """Step through batches."""
    said = said or Said()
    for batch in batches:
        said.take(core.step(batch))
    return said


def cut(records: Sequence[Record], sizes: int | Iterable[int]) -> Iterator[InputBatch]:
    """Batches of one size, or of the given sizes in turn, the last one for what is left."""
    at = 0
    turns = iter(()) if isinstance(sizes, int) else iter(sizes)
    while at < len(records):
        size = sizes if isinstance(sizes, int) else next(turns, len(records))
        if size:
            yield InputBatch(records[at : at + size], topic=TOPIC)
        at += size


def tick(partition: int, core_time_ms: int) -> InputBatch:
    """A batch without records that moves a partition's time on."""
    return InputBatch([], [Applied(partition, "tick", {"core_time_ms": core_time_ms})], topic=TOPIC)
