"""`tidegate score`: events in; scores, findings, state and journal out."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from importlib import import_module
from threading import Timer
from typing import Any, Protocol

import orjson

from stream.config import Settings
from stream.errors import StateError
from stream.inputs import CONTROLS_IGNORED, FLAGS, Applied, InputBatch, Outcome
from stream.runtime.changelog import Changelog, JournalTopic, journalled_ids
from stream.runtime.controls import ControlQueue
from stream.runtime.delivery import Work
from stream.runtime.group import Polled
from stream.runtime.metrics import DECISIONS, Metrics
from stream.runtime.release.loader import BackgroundLoader, Loaded, Reason, Releases
from stream.runtime.restore import HasCursor, Restorer
from stream.sinks.kafka import DeadLetterTopic, KafkaWriter, OutputTopic
from stream.sources.kafka import Place, RangeReader
from stream.state.schema import KINDS

_LOG = logging.getLogger(__name__)
_CONTROLS_MAX = 500
_CONTROLS_BYTES_MAX = 2 * 1024 * 1024
"""What of controls is applied in one step at most, all partitions together: it has to fit into a transaction."""
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
    def given(self) -> str:
        """The release that `--release` named when the partition was last started; empty: as `release`."""

    @property
    def next_control(self) -> int:
        """The offset behind the last control that took effect."""

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

    def serve(self, release: Any) -> None:
        """Score with another release, of the same ids, from the next step on."""

    def state_bytes(self) -> int:
        """Bytes of state in memory."""

    def budget_used(self) -> float:
        """Share of a day's new findings that is spent."""


@dataclass(frozen=True, slots=True)
class InService:
    """A core, the release that it was made with, and where others come from."""

    core: ScoringCore
    given: Loaded
    """What `--release` names."""
    releases: Releases


@dataclass(frozen=True, slots=True)
class ScoreTopics:
    """Where a scorer's outcome goes."""

    scores: OutputTopic
    findings: OutputTopic | None
    """None for a shadow, which reports nothing."""
    dead_letters: DeadLetterTopic | None
    """None for a shadow: whom it stands beside writes them."""
    changelog: Changelog
    journal: JournalTopic

    def write_outputs(self, writer: KafkaWriter, outcome: Outcome) -> None:
        """What others read."""
        self.scores.write(writer, outcome.scores)
        if self.findings is not None:
            self.findings.write(writer, outcome.findings)
        if self.dead_letters is not None:
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
    controls
        The queue of controls, given what is to be told of refused releases.
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
        controls: Callable[[Callable[[Reason, str], None]], ControlQueue],
        reader: RangeReader,
        ends: Callable[[Sequence[Place]], Mapping[Place, int]],
        metrics: Metrics,
        now_ms: Callable[[], int],
    ) -> None:
        self._settings = settings
        self._load = load
        self._make_topics = topics
        self._make_restorer = restorer
        self._controls = controls(self._refused)
        self._reader = reader
        self._ends = ends
        self._metrics = metrics
        self._now_ms = now_ms
        self._held: dict[int, int] = {}
        """Partition -> where it was restored to."""
        self._changed: dict[int, list[Applied]] = {}
        """Partition -> what this process brings with it, before the controls that lie on the topic."""
        self._caught_up_to = -1
        self._ticked_ms: dict[int, int] = {}
        self._in: InService
        self._serving: Loaded
        self._loader: BackgroundLoader
        self._core: ScoringCore
        self._topics: ScoreTopics
        self._restorer: Restorer

    @property
    def release(self) -> str:
        """Name of the release in service."""
        return self._serving.name

    def load(self) -> None:
        """Read the release, make the core."""
        self._in = self._load()
        self._core = self._in.core
        self._loader = BackgroundLoader(self._in.releases.announced)
        self._put_in_service(self._in.given)
        self._restorer = self._make_restorer(self._core)
        # Seconds of import that no tenant needs before its 256th event; by then it is there.
        later = Timer(_WARM_AFTER_SECONDS, import_module, ("river.drift",))
        later.daemon = True
        later.start()
        # Where there are trusted keys, a release that none of them vouches for is not loaded.
        self._metrics.release_verified.set(bool(self._settings.release.trusted_keys))

    def _put_in_service(self, loaded: Loaded) -> None:
        """From the next step on."""
        if (former := getattr(self, "_serving", None)) is not None:
            if former.key == loaded.key:
                return
            self._core.serve(loaded.release)
            self._metrics.release_info.labels(former.name, former.space_id).set(0)
            _LOG.info("release %s takes over from %s", loaded.name, former.name)
        self._serving = loaded
        self._loader.keep(loaded)
        self._topics = self._make_topics(loaded.name)
        self._metrics.release_info.labels(loaded.name, loaded.space_id).set(1)

    def _refused(self, reason: Reason, message: str) -> None:
        _LOG.error("refused, %s stays in service: %s", self._serving.name, message)
        self._metrics.release_refused.labels(reason).inc()

    # -- partitions --------------------------------------------------------------------------------------------------

    def restore(self, committed: Mapping[Place, int | None], waiting: Callable[[], None]) -> Mapping[Place, int]:
        """Bring back state; what has changed since becomes controls before the next batch.

        Raises
        ------
        StateError
            When state is not that of the committed offset, or this release cannot go on from it.
        RetriableError
            When another scorer of the group has seen controls that the broker does not show yet.
        """
        events = self._settings.topics.events
        starts = self._restorer.restore({place[1]: offset for place, offset in committed.items()}, waiting)
        cursors = {partition: self._core.cursor(partition) for partition in starts}
        seen = [0 if cursor is None else cursor.next_control for cursor in cursors.values()]
        if self._controls.begun:
            self._controls.reach(min(seen), max(seen), waiting)
        else:
            self._begin(cursors, min(seen), waiting)
        if (loaded := self._controls.take()) is not None:
            self._put_in_service(loaded)
        for partition, start in starts.items():
            self._ticked_ms.pop(partition, None)
            self._changed[partition] = self._changes(partition, cursors[partition], waiting)
            self._held[partition] = start
        self._caught_up_to = -1
        self._metrics.state_bytes.set(self._core.state_bytes())
        return {(events, partition): start for partition, start in starts.items()}

    def _begin(self, cursors: Mapping[int, Cursor | None], first: int, waiting: Callable[[], None]) -> None:
        """Find out which release is in service, at the first restore of this process.

        With the `--release` of the last start it is the one that controls have put in service since; with another one,
        or where there is no state, it is that one, whatever was asked for before.
        """
        given = self._in.given
        going_on = [c for c in cursors.values() if c is not None and (c.given or c.release) == given.name]
        # Where a crash came between two partitions' switches, the one that has seen more is right.
        latest = max(going_on, key=lambda cursor: cursor.next_control, default=None)
        since = None if latest is None else latest.next_control
        if latest is None or latest.release == given.name:
            self._put_in_service(given)
        else:
            self._put_in_service(self._named(latest.release, latest.next_control, waiting))
        self._controls.begin(first, self.release, since, self._loader, given.ids, waiting)

    def _named(self, name: str, before: int, waiting: Callable[[], None]) -> Loaded:
        """A release that a control before an offset has put in service."""
        loaded, given = self._in.releases.named(name, self._controls.find(name, before, waiting)), self._in.given
        if loaded.ids != given.ids:
            raise StateError(
                f"release {name}, which is in service, has other ids than --release {given.name}: "
                f"{', '.join(loaded.ids)} against {', '.join(given.ids)}. Start with --release {name}."
            )
        return loaded

    def drop(self, places: Iterable[Place]) -> None:
        """Forget partitions."""
        for _, partition in places:
            self._core.drop(partition)
            self._held.pop(partition, None)
            self._changed.pop(partition, None)
            self._ticked_ms.pop(partition, None)

    def _changes(self, partition: int, cursor: Cursor | None, waiting: Callable[[], None]) -> list[Applied]:
        """What a restored partition needs before anything else: a beginning, or this process's configuration."""
        config: dict[str, Any] = {
            "config": self._settings.determinism(),
            "config_hash": self._settings.config_hash,
        }
        if cursor is None:
            return [Applied(partition, "start", config | self._release_value())]
        changes = []
        if cursor.config_hash != self._settings.config_hash:
            changes.append(Applied(partition, "config", config))
        if cursor.release not in (self._serving.name, self._in.given.name):
            self._check_takeover(partition, cursor.release, waiting)
        return changes

    def _release_value(self) -> dict[str, Any]:
        serving = self._serving
        return {
            "given": self._in.given.name,
            "release": serving.name,
            "space_id": serving.space_id,
            "feature_schema": serving.feature_schema,
            "state_schema": serving.state_schema,
            # By these a later rollback finds it again.
            "manifest_sha256": serving.manifest_sha256,
            "uri": serving.uri,
        }

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
            f"{self._settings.topics.events}[{partition}]: release {self._serving.name!r} cannot go on from the "
            f"state of release {former!r}: {differing}. Serve {former!r}, or start a second scorer with its own "
            "--group-id and --output-prefix and let it take over once it has caught up."
        )

    # -- controls ----------------------------------------------------------------------------------------------------

    def due(self) -> Work | None:
        """What is to be written because controls have come, None when all have taken effect.

        They do in all partitions at once, between two batches, whether or not a partition has events: so all
        partitions of a step stand on the same release.
        """
        if not self._held:
            return None
        decided = self._controls.turn()
        if decided == self._caught_up_to:
            return None
        if (loaded := self._controls.take()) is not None:
            self._put_in_service(loaded)
        controls, whole = self._next_controls()
        if whole:
            self._caught_up_to = decided
            self._controls.forget(decided)
        if not controls:
            return None
        topic = self._settings.topics.events
        places = sorted({control.partition for control in controls})
        offsets = {partition: self._place_of(partition) for partition in places}
        batch = InputBatch([], controls, offsets, topic)
        return self._work(batch, {(topic, partition): offset for partition, offset in offsets.items()})

    def _next_controls(self) -> tuple[list[Applied], bool]:
        """What fits into one transaction, and whether that is all."""
        taken: list[Applied] = []
        size = 0
        for partition in sorted(self._held):
            brought = self._changed.pop(partition, None)
            taken += brought or ()
            cursor = self._core.cursor(partition)
            first, release, given = (
                (0, self.release, self._in.given.name)
                if cursor is None
                else (cursor.next_control, cursor.release, cursor.given or cursor.release)
            )
            for known, value, served in self._controls.effects(first, self.release):
                if taken and (len(taken) >= _CONTROLS_MAX or size + known.size > _CONTROLS_BYTES_MAX):
                    return taken, False
                taken.append(Applied(partition, "control", value, known.offset))
                size += known.size
                release = served or release
            if (release, given) != (self.release, self._in.given.name):
                taken.append(Applied(partition, "control", {"kind": "release", **self._release_value()}))
        return taken, True

    def _place_of(self, partition: int) -> int:
        cursor = self._core.cursor(partition)
        # One that has had no input yet is where it was restored to, though its state does not know.
        return self._held[partition] if cursor is None else max(cursor.next_offset, self._held[partition])

    # -- batches -----------------------------------------------------------------------------------------------------

    def step(self, polled: Polled, offsets: Mapping[Place, int]) -> Work:
        """What is to be written for a batch."""
        next_offsets = {partition: to for (_, partition), to in offsets.items()}
        return self._work(InputBatch(polled.records, (), next_offsets, self._settings.topics.events), offsets)

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
        batch = InputBatch([], [tick], {partition: cursor.next_offset}, place[0])
        return self._work(batch, {place: cursor.next_offset})

    def _work(self, batch: InputBatch, offsets: Mapping[Place, int]) -> Work:
        outcome = self._core.step(batch)
        # Of now: they are written later, by another thread, when another release may be in service and the next batch
        # has changed the state.
        topics, budget_used = self._topics, self._core.budget_used()
        sizes = [len(row.key) + len(row.value) for rows in (outcome.scores, outcome.findings) for row in rows]
        sizes += [len(row.key) + len(row.value or b"") for row in outcome.changes]
        sizes += [len(entry.value) for entry in outcome.journal]
        sizes += [len(letter.record.value or b"") for letter in outcome.dead_letters]
        return Work(
            offsets,
            outputs=lambda writer: topics.write_outputs(writer, outcome),
            state=lambda writer: topics.write_state(writer, outcome),
            committed=lambda: self._count(batch, outcome, budget_used),
            inputs=len(batch.records),
            records=len(sizes),
            size=sum(sizes),
        )

    def _count(self, batch: InputBatch, outcome: Outcome, budget_used: float) -> None:
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
        metrics.controls_ignored.inc(outcome.counts.get(CONTROLS_IGNORED, 0))
        metrics.embedding_cache.labels("hit").inc(outcome.counts.get("embedding_cache_hits", 0))
        metrics.embedding_cache.labels("miss").inc(outcome.counts.get("embedding_cache_misses", 0))
        metrics.state_bytes.set(self._core.state_bytes())
        metrics.budget_used_ratio.set(budget_used)
        for finding in outcome.findings:
            value = orjson.loads(finding.value)
            metrics.findings.labels(_ACTIVITIES[value["activity_id"]], str(value["severity_id"])).inc()
