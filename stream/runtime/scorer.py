"""`tidegate score`: events in; scores, findings, state and journal out."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from importlib import import_module
from threading import Timer
from typing import Any, Protocol

import orjson

from stream.config import Settings
from stream.errors import StateError
from stream.inputs import FLAGS, Applied, InputBatch, Outcome
from stream.runtime.changelog import Changelog, JournalTopic, journalled_ids
from stream.runtime.delivery import Work
from stream.runtime.group import Polled
from stream.runtime.metrics import DECISIONS, Metrics
from stream.runtime.restore import HasCursor, Restorer
from stream.sinks.kafka import DeadLetterTopic, KafkaWriter, OutputTopic
from stream.sources.kafka import Place, RangeReader
from stream.state.schema import KINDS

_ACTIVITIES = {1: "create", 2: "update", 3: "close"}


class Cursor(HasCursor, Protocol):
    """What the shell needs to know of where a partition stands."""

    @property
    def core_time_ms(self) -> int:
        """The largest event time seen, or what a tick brought it to."""

    @property
    def ingest_time_ms(self) -> int:
        """When `core_time_ms` was reached, by the clock that ingest stamps records with."""

    @property
    def release(self) -> str:
        """The release in service."""

    @property
    def config_hash(self) -> str:
        """Of the configuration that results depend on."""


_WARM_AFTER_SECONDS = 15.0


class ScoringCore(Protocol):
    """The core, as the shell sees it."""

    def step(self, inputs: InputBatch) -> Outcome:
        """What should be written for these inputs."""

    def restore(self, partition: int, rows: Iterable[tuple[bytes, bytes | None]]) -> None:
        """Take a partition's state from its rows."""

    def drop(self, partition: int) -> None:
        """Forget a partition."""

    def cursor(self, partition: int) -> Cursor | None:
        """Where a partition stands."""

    def next_timer_ms(self, partition: int) -> int | None:
        """Core time at which the next timer may be due."""

    def state_bytes(self) -> int:
        """Bytes of state in memory."""


@dataclass(frozen=True, slots=True)
class InService:
    """A core, and the release that it scores with."""

    core: ScoringCore
    release: str
    space_id: str
    feature_schema: str
    state_schema: str

    @property
    def ids(self) -> tuple[str, str, str]:
        """What must be equal for one release to take over another's state."""
        return self.space_id, self.feature_schema, self.state_schema


@dataclass(frozen=True, slots=True)
class ScoreTopics:
    """Where a scorer's outcome goes."""

    scores: OutputTopic
    findings: OutputTopic
    dead_letters: DeadLetterTopic
    changelog: Changelog
    journal: JournalTopic

    def write_outputs(self, writer: KafkaWriter, outcome: Outcome) -> None:
        """What others read."""
        self.scores.write(writer, outcome.scores)
        self.findings.write(writer, outcome.findings)
        for letter in outcome.dead_letters:
            self.dead_letters.write(writer, letter)
        self.journal.write(writer, outcome.journal)

    def write_state(self, writer: KafkaWriter, outcome: Outcome) -> None:
        """What a restart reads."""
        self.changelog.write(writer, outcome.changes)


class ScorePipeline:
    """Feeds the core, and makes of its outcome what one transaction writes.

    Parameters
    ----------
    load
        Reads the release and makes the core; what takes time at start.
    topics
        Outputs, given the release's name.
    restorer
        Restores partitions of the core.
    reader
        Reads the journal, when a release takes over from another one.
    now_ms
        The clock that ingest stamps records with.
    """

    def __init__(
        self,
        settings: Settings,
        load: Callable[[], InService],
        topics: Callable[[str], ScoreTopics],
        restorer: Callable[[ScoringCore], Restorer],
        reader: RangeReader,
        ends: Callable[[Sequence[Place]], Mapping[Place, int]],
        metrics: Metrics,
        now_ms: Callable[[], int],
    ) -> None:
        self._settings = settings
        self._load = load
        self._make_topics = topics
        self._make_restorer = restorer
        self._reader = reader
        self._ends = ends
        self._metrics = metrics
        self._now_ms = now_ms
        self._controls: dict[int, list[Applied]] = {}
        self._ticked_ms: dict[int, int] = {}
        self._serving: InService
        self._core: ScoringCore
        self._topics: ScoreTopics
        self._restorer: Restorer

    @property
    def release(self) -> str:
        """Name of the release in service."""
        return self._serving.release

    def load(self) -> None:
        """Read the release, make the core."""
        self._serving = self._load()
        self._core = self._serving.core
        self._topics = self._make_topics(self._serving.release)
        self._restorer = self._make_restorer(self._core)
        # Seconds of import that no tenant needs before its 256th event; by then it is there.
        later = Timer(_WARM_AFTER_SECONDS, import_module, ("river.drift",))
        later.daemon = True
        later.start()
        self._metrics.release_info.labels(self._serving.release, self._serving.space_id).set(1)
        # Where there are trusted keys, a release that none of them vouches for is not loaded.
        self._metrics.release_verified.set(bool(self._settings.release.trusted_keys))

    # -- partitions --------------------------------------------------------------------------------------------------

    def restore(self, committed: Mapping[Place, int | None], waiting: Callable[[], None]) -> Mapping[Place, int]:
        """Bring back state; what has changed since becomes controls before the next batch.

        Raises
        ------
        StateError
            When state is not that of the committed offset, or this release cannot go on from it.
        """
        events = self._settings.topics.events
        starts = self._restorer.restore({place[1]: offset for place, offset in committed.items()}, waiting)
        for partition in starts:
            self._ticked_ms.pop(partition, None)
            self._controls[partition] = self._changes(partition, waiting)
        self._metrics.state_bytes.set(self._core.state_bytes())
        return {(events, partition): start for partition, start in starts.items()}

    def drop(self, places: Iterable[Place]) -> None:
        """Forget partitions."""
        for _, partition in places:
            self._core.drop(partition)
            self._controls.pop(partition, None)
            self._ticked_ms.pop(partition, None)

    def _changes(self, partition: int, waiting: Callable[[], None]) -> list[Applied]:
        cursor = self._core.cursor(partition)
        config: dict[str, Any] = {
            "config": self._settings.determinism(),
            "config_hash": self._settings.config_hash,
        }
        serving = self._serving
        release = {
            "release": serving.release,
            "space_id": serving.space_id,
            "feature_schema": serving.feature_schema,
            "state_schema": serving.state_schema,
        }
        if cursor is None:
            return [Applied(partition, "start", config | release)]
        changes = []
        if cursor.config_hash != self._settings.config_hash:
            changes.append(Applied(partition, "config", config))
        if cursor.release != serving.release:
            self._check_takeover(partition, cursor.release, waiting)
            changes.append(Applied(partition, "control", {"kind": "release", **release}))
        return changes

    def _check_takeover(self, partition: int, former: str, waiting: Callable[[], None]) -> None:
        """The release in the cursor is another one: its ids, which the journal has, must be ours."""
        place = (self._settings.topics.journal, partition)
        ids = None
        end = self._ends([place])[place]
        for records in self._reader.read(place, self._reader.low(place), end, waiting=waiting):
            for record in records:
                said = journalled_ids(record.value) if record.value is not None else None
                if said is not None and said[0] == former:
                    ids = said[1]
        if ids == self._serving.ids:
            return
        names = ("space_id", "feature_schema", "state_schema")
        differing = (
            "which the journal does not know"
            if ids is None
            else ", ".join(
                f"{name} {theirs!r} against {ours!r}"
                for name, theirs, ours in zip(names, ids, self._serving.ids, strict=True)
                if theirs != ours
            )
        )
        raise StateError(
            f"{self._settings.topics.events}[{partition}]: release {self._serving.release!r} cannot go on from the "
            f"state of release {former!r}: {differing}. Serve {former!r}, or start a second scorer with its own "
            "--group-id and --output-prefix and let it take over once it has caught up."
        )

    # -- batches -----------------------------------------------------------------------------------------------------

    def step(self, polled: Polled, offsets: Mapping[Place, int]) -> Work:
        """What is to be written for a batch."""
        next_offsets = {partition: to for (_, partition), to in offsets.items()}
        controls = [control for partition in next_offsets for control in self._controls.pop(partition, ())]
        batch = InputBatch(polled.records, controls, next_offsets, self._settings.topics.events)
        return self._work(batch, offsets)

    def tick(self, place: Place) -> Work | None:
        """Let time pass in an idle partition, when a timer is due by then."""
        partition = place[1]
        due_ms, cursor = self._core.next_timer_ms(partition), self._core.cursor(partition)
        if due_ms is None or cursor is None:
            return None
        now_ms = self._now_ms()
        passed_ms = now_ms - max(cursor.ingest_time_ms, self._ticked_ms.get(partition, 0))
        core_time_ms = cursor.core_time_ms + passed_ms
        if passed_ms <= 0 or due_ms > core_time_ms:
            return None
        self._ticked_ms[partition] = now_ms
        # With the time of the clock, so that whoever restores this measures the next tick from here.
        tick = Applied(partition, "tick", {"core_time_ms": core_time_ms, "ingest_time_ms": now_ms})
        controls = [*self._controls.pop(partition, ()), tick]
        batch = InputBatch([], controls, {partition: cursor.next_offset}, place[0])
        return self._work(batch, {place: cursor.next_offset})

    def _work(self, batch: InputBatch, offsets: Mapping[Place, int]) -> Work:
        outcome = self._core.step(batch)
        sizes = [len(row.key) + len(row.value) for rows in (outcome.scores, outcome.findings) for row in rows]
        sizes += [len(row.key) + len(row.value or b"") for row in outcome.changes]
        sizes += [len(entry.value) for entry in outcome.journal]
        sizes += [len(letter.record.value or b"") for letter in outcome.dead_letters]
        return Work(
            offsets,
            outputs=lambda writer: self._topics.write_outputs(writer, outcome),
            state=lambda writer: self._topics.write_state(writer, outcome),
            committed=lambda: self._count(batch, outcome),
            inputs=len(batch.records),
            records=len(sizes),
            size=sum(sizes),
        )

    def _count(self, batch: InputBatch, outcome: Outcome) -> None:
        metrics, topic = self._metrics, batch.topic
        dead = len(outcome.dead_letters)
        if batch.records:
            metrics.records.labels(topic, "ok").inc(len(batch.records) - dead)
            oldest = min(record.timestamp_ms for record in batch.records)
            metrics.latency_seconds.labels(topic).observe(max(0, self._now_ms() - oldest) / 1000)
        if dead:
            metrics.records.labels(topic, "dead_letter").inc(dead)
        for letter in outcome.dead_letters:
            metrics.dead_letters.labels(letter.reason).inc()
        for decision in DECISIONS:
            metrics.decisions.labels(decision).inc(outcome.counts.get(decision, 0))
        for kind in KINDS:
            metrics.rare_events.labels(kind).inc(outcome.counts.get(f"rare_{kind}", 0))
        for flag in FLAGS:
            metrics.flagged_events.labels(flag).inc(outcome.counts.get(flag, 0))
        metrics.embedding_cache.labels("hit").inc(outcome.counts.get("embedding_cache_hits", 0))
        metrics.embedding_cache.labels("miss").inc(outcome.counts.get("embedding_cache_misses", 0))
        metrics.state_bytes.set(self._core.state_bytes())
        for finding in outcome.findings:
            value = orjson.loads(finding.value)
            metrics.findings.labels(_ACTIVITIES[value["activity_id"]], str(value["severity_id"])).inc()
