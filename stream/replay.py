"""Any source -> the core -> any sink: the live scorer's loop, without a broker and without a clock."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

import msgspec

from stream.config import Settings
from stream.errors import StateError
from stream.inputs import CONTROLS_IGNORED, FLAGS, InputBatch, Outcome
from stream.journal import JournalPlan, Served
from stream.record import DeadLetter, OutRecord, Record
from stream.release import Release
from stream.sinks.sink import Sink
from stream.sources.source import Source

_POLLED_AT_ONCE = 32
"""Records may be of 8 MiB: a batch is gathered in small polls, so that it stops when it is large enough."""
_BATCH_BYTES = 8 * 2**20


_Key = tuple[str, str]
"""Of a core: hash of its configuration, and its release."""


class Steps(Protocol):
    """The part of the core that a replay needs."""

    def step(self, inputs: InputBatch) -> Outcome:
        """What should be written for these inputs."""

    def restore(self, partition: int, rows: Iterable[tuple[bytes, bytes | None]]) -> None:
        """Take a partition's state from its rows."""

    def serve(self, release: Release) -> None:
        """Score with another release."""


class Ingested(Protocol):
    """What became of gateway records."""

    @property
    def events(self) -> Sequence[OutRecord]:
        """Normalised events, each with its partition."""

    @property
    def dead_letters(self) -> Sequence[DeadLetter]:
        """What could not be read."""


class Normaliser(Protocol):
    """`stream.steps.ingest.IngestStep`."""

    def step(self, records: Sequence[Record]) -> Ingested:
        """Events and dead letters of `records`."""


@dataclass(slots=True)
class Told:
    """What has been replayed so far."""

    records: int = 0
    """Read from the source."""
    events: int = 0
    """Scored, duplicates too."""
    findings: int = 0
    """Finding records: Creates, Updates and Closes."""
    dead_letters: int = 0
    counts: dict[str, int] = field(default_factory=dict)
    """Events by decision, and `FLAGS`."""

    def summary(self) -> dict[str, object]:
        """For `summary.json`: nothing in it depends on how the records fell into batches."""
        decisions = {name: count for name, count in sorted(self.counts.items()) if name not in FLAGS}
        return {
            "records": self.records,
            "events": self.events,
            "conflicting_ids": self.counts.get("conflicting_ids", 0),
            "decisions": decisions,
        }


class Replay:
    """Takes records, repeats what a journal tells between them, and writes what the core says.

    Parameters
    ----------
    core
        Makes a core with given settings, that serves the plan's release; a replay needs another one when the journal
        says that configuration or release changed, as partitions did so each at its own offset.
    journal
        What to repeat, and with which settings and releases to begin.
    sink
        Takes outcomes, partition by partition in order.
    topic
        Of the events.
    ingest
        Turns gateway records into events, where the source does not bring events.
    records_max
        Records stepped together; results do not depend on it.
    release_of
        Finds the other releases that the journal names.
    """

    def __init__(
        self,
        core: Callable[[Settings], Steps],
        journal: JournalPlan,
        sink: Sink,
        *,
        topic: str,
        ingest: Normaliser | None = None,
        records_max: int = 2_000,
        release_of: Callable[[str], Release] | None = None,
    ) -> None:
        self._make_core = core
        self._journal = journal
        self._sink = sink
        self._topic = topic
        self._ingest = ingest
        self._records_max = records_max
        self._release_of = release_of
        self._cores: dict[_Key, Steps] = {}
        self._placed: dict[int, Served] = {}
        self._batches: dict[_Key, list[Record]] = {}
        self._next: dict[int, int] = {}
        self._rows: dict[int, dict[bytes, bytes]] = {}
        self.told = Told()

    def restore(self, partition: int, rows: Iterable[tuple[bytes, bytes | None]], next_offset: int) -> None:
        """Begin a partition with a state, its rows in the order of the topic; it stands at `next_offset`.

        Raises
        ------
        StateError
            When a row cannot be read.
        """
        if self._journal.moves(partition):
            kept = self._rows.setdefault(partition, {})
            for key, value in rows:
                _keep(kept, key, value)
            rows = list(kept.items())
        self._next[partition] = next_offset
        self._core_of(partition).restore(partition, rows)

    def run(self, source: Source, progress: Callable[[Told], None] = lambda told: None) -> Told:
        """Everything that `source` brings, and what the journal tells behind it."""
        while not source.exhausted:
            records = self._gather(source)
            if records:
                self._take(records)
                progress(self.told)
        for partition in self._journal.left():
            while self._journal.due(partition, _FOREVER):
                self._repeat(partition)
        self._flush()
        return self.told

    def _gather(self, source: Source) -> list[Record]:
        records: list[Record] = []
        size = 0
        while len(records) < self._records_max and size < _BATCH_BYTES:
            wanted = min(_POLLED_AT_ONCE, self._records_max - len(records))
            polled = source.poll(wanted)
            records += polled
            size += sum(len(record.value or b"") for record in polled)
            if len(polled) < wanted:
                break
        return records

    def _take(self, records: Sequence[Record]) -> None:
        self.told.records += len(records)
        if self._ingest is not None:
            done = self._ingest.step(records)
            self._write(Outcome(dead_letters=list(done.dead_letters)))
            records = [_event_record(event) for event in done.events]
        for record in records:
            while self._journal.due(record.partition, record.offset):
                self._repeat(record.partition)
            self._place(record.partition)
            self._batches.setdefault(self._placed[record.partition].key, []).append(record)
            self._next[record.partition] = record.offset + 1
        self._flush()

    # -- the journal ---------------------------------------------------------------------------------------------------

    def _repeat(self, partition: int) -> None:
        """Let the partition's next entry take effect where it did."""
        before = self._journal.before(partition)
        # Its effects are placed at this offset, which may lie behind markers that are no records.
        moved = {partition: before} if self._next.get(partition, 0) != before else {}
        self._next[partition] = before
        # Flushed while the plan still tells that rows have to be kept for another core.
        self._flush(moved)
        control, configured, named = self._journal.take(partition)
        if configured is not None or named is not None:
            self._place(partition)
            at = self._placed[partition]
            self._move(partition, Served(configured or at.settings, named or at.release))
        inputs = InputBatch([], [control], topic=self._topic)
        self._written(self._core_of(partition).step(inputs))

    def _move(self, partition: int, to: Served) -> None:
        """Go on with another core, as a scorer that was started anew or switched."""
        if self._placed[partition].key != to.key:
            self._add_core(to)
            kept = self._rows.get(partition, {})
            self._cores[to.key].restore(partition, kept.items())
            self._placed[partition] = to
        if not self._journal.moves(partition):
            self._rows.pop(partition, None)

    def _place(self, partition: int) -> None:
        """Give the partition a core, if it has none."""
        if partition not in self._placed:
            begins = self._journal.begins(partition)
            self._add_core(begins)
            self._placed[partition] = begins

    def _add_core(self, wanted: Served) -> None:
        if wanted.key in self._cores:
            return
        made = self._make_core(wanted.settings)
        if wanted.release != self._journal.release:
            if self._release_of is None:
                raise StateError(
                    f"the journal says that release {wanted.release!r} was served, and only {self._journal.release!r} "
                    "is given. Replay only what that one scored, or without the journal: --journal none."
                )
            made.serve(self._release_of(wanted.release))
        self._cores[wanted.key] = made

    def _core_of(self, partition: int) -> Steps:
        self._place(partition)
        return self._cores[self._placed[partition].key]

    # -- steps ---------------------------------------------------------------------------------------------------------

    def _flush(self, next_offsets: Mapping[int, int] | None = None) -> None:
        """Step through what was gathered; partitions in `next_offsets` move on with it."""
        offsets: dict[_Key, dict[int, int]] = {}
        for partition, offset in (next_offsets or {}).items():
            self._place(partition)
            offsets.setdefault(self._placed[partition].key, {})[partition] = offset
        for name in {**self._batches, **offsets}:
            inputs = InputBatch(self._batches.get(name, ()), (), offsets.get(name, {}), self._topic)
            self._written(self._cores[name].step(inputs))
        self._batches.clear()

    def _written(self, outcome: Outcome) -> None:
        for change in outcome.changes:
            # Another core will take the partition over from its rows.
            if self._journal.moves(change.partition):
                _keep(self._rows.setdefault(change.partition, {}), change.key, change.value)
        self._write(outcome)

    def _write(self, outcome: Outcome) -> None:
        told = self.told
        told.events += len(outcome.scores)
        told.findings += len(outcome.findings)
        told.dead_letters += len(outcome.dead_letters)
        for name, count in outcome.counts.items():
            if not name.startswith(("embedding_cache", "rare_", CONTROLS_IGNORED)) and count:
                told.counts[name] = told.counts.get(name, 0) + count
        self._sink.write(outcome)


_FOREVER = 2**63 - 1


def _keep(rows: dict[bytes, bytes], key: bytes, value: bytes | None) -> None:
    rows.pop(key, None)
    if value is not None:
        rows[key] = value


class _EventTime(msgspec.Struct):
    event_time_ms: int


_EVENT_TIME = msgspec.json.Decoder(_EventTime)


def _event_record(event: OutRecord) -> Record:
    """An event as it would be read from its topic; its ingest time is its event time, so that it is never clamped."""
    topic, _, offset = event.source
    headers: tuple[tuple[str, Any], ...] = (("traceparent", event.traceparent),) if event.traceparent else ()
    time_ms = _EVENT_TIME.decode(event.value).event_time_ms
    return Record(topic, event.partition, offset, time_ms, event.key, event.value, headers)
