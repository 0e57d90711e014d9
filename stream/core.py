"""The core: inputs in, Outcome out. No Kafka, clock, environment or disk."""

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from hashlib import blake2b

import msgspec
import numpy as np
import orjson
from numpy.typing import NDArray

from models.novelty import Novelty
from stream.batch import EventBatch
from stream.config import Settings
from stream.errors import StateError
from stream.inputs import Applied, InputBatch, Outcome
from stream.record import JournalEntry, Record, StateChange
from stream.release import Release
from stream.state.dedup import Dedup
from stream.state.partition import CURSOR_KEY, Cursor, Partition
from stream.state.pending import Closings, Pending, Segments
from stream.state.schema import KINDS, NEVER_MS, session_table, tenant_table
from stream.state.table import Key
from stream.steps.content import Content, ContentReader, Embeds
from stream.steps.decode import decode
from stream.steps.explain import anomaly
from stream.steps.features import features, windows
from stream.steps.findings import FindingBook, placed
from stream.steps.report import score_record
from stream.steps.score import Closing, ScoreInput, Scores, ScoreStep
from stream.steps.sessions import Heads, NewContent, Runs, find_new_content, find_runs, store_heads


@dataclass(slots=True)
class _Timed:
    """A batch (n) with its partitions' time."""

    batch: EventBatch
    core_time_ms: NDArray[np.int64]
    late: NDArray[np.bool_]
    duplicate: NDArray[np.bool_]
    live: NDArray[np.int64]
    """Events that are no duplicates."""
    of_partition: dict[int, NDArray[np.int64]]
    """Partition -> its events, in order."""


class Core:
    """Scores micro-batches; the same inputs in the same order give the same bytes, however they are cut.

    Parameters
    ----------
    settings
        Of which only the sections that the journal holds are read.
    release
        What to score with.
    embedder
        Of the release's space.
    learning
        False while a release is calibrated: tenants' memories stay as they are.
    """

    def __init__(self, settings: Settings, release: Release, embedder: Embeds, *, learning: bool = True) -> None:
        self._settings = settings
        self._release = release
        self._novelty = Novelty(dim=embedder.dim)
        self._tenants = tenant_table(self._novelty)
        self._sessions = session_table()
        self._pending = Pending(embedder.dim, len(KINDS))
        self._book = FindingBook(settings.findings.quiet_ms)
        self._reader = ContentReader(embedder)
        self._partitions: dict[int, Partition] = {}
        self._touched: set[int] = set()
        self._step = ScoreStep(
            self._novelty,
            release.bank,
            release.calibration,
            session_fpr=settings.decision.session_fpr,
            grace_sessions=settings.learning.grace_sessions,
            learning=learning,
        )

    # -- what the shell asks -------------------------------------------------------------------------------------------

    def cursor(self, partition: int) -> Cursor | None:
        """Where a partition stands, None when it is not held or has never had an input."""
        held = self._partitions.get(partition)
        return held.cursor() if held is not None else None

    def next_timer_ms(self, partition: int) -> int | None:
        """Core time at which the partition's next timer may be due."""
        held = self._partitions.get(partition)
        if held is None:
            return None
        due = [timer[0] for timer in held.session_timers[:1]]
        finding = self._book.next_due_ms(partition)
        return min([*due, finding] if finding is not None else due, default=None)

    def state_bytes(self) -> int:
        """Bytes that tenants and sessions take in memory."""
        return (
            len(self._tenants) * self._tenants.bytes_per_row() + len(self._sessions) * self._sessions.bytes_per_row()
        )

    def drop(self, partition: int) -> None:
        """Forget a partition: it was revoked, or its state ran ahead of a commit that failed."""
        rows = self._tenants.find(self._tenants.keys(partition))
        self._pending.drop(partition, rows)
        self._tenants.drop(partition)
        self._sessions.drop(partition)
        self._book.drop(partition)
        self._partitions.pop(partition, None)
        self._touched.discard(partition)

    def restore(self, partition: int, rows: Iterable[tuple[bytes, bytes | None]]) -> None:
        """Take a partition's state from its rows, in the order of the topic: the last value of a key counts.

        Raises
        ------
        StateError
            When a row cannot be read.
        """
        self.drop(partition)
        latest: dict[bytes, bytes] = {}
        for key, value in rows:
            if value is None:
                latest.pop(key, None)
            else:
                latest[key] = value
        held = self._held(partition)
        cursor = latest.pop(CURSOR_KEY, None)
        if cursor is None:
            if latest:
                raise StateError(
                    f"state of partition {partition} has {len(latest)} rows and no cursor. "
                    "Rebuild the partition's state, see docs/runbook.md."
                )
            del self._partitions[partition]
            return
        held.take(_cursor(cursor, partition))
        named = [(*_named(key, partition), value) for key, value in latest.items()]
        # Numbered rows (dedup, pending) must come in order, and tenants before what waits for them.
        order = {"tenant": 0, "learned": 0, "session": 1, "finding": 1, "pending": 2, "dedup": 2}
        for kind, ids, value in sorted(named, key=lambda row: (order.get(row[0], -1), row[0], row[1])):
            self._load(held, kind, ids, value)

    # -- a step ----------------------------------------------------------------------------------------------------------

    def step(self, inputs: InputBatch) -> Outcome:
        """Controls, then events: what should be written for them, all of it or nothing.

        State has changed in memory when this returns: a caller that cannot write the outcome drops the partitions.
        """
        outcome = Outcome()
        for control in inputs.controls:
            self._apply(control, inputs.topic, outcome)
        hits, misses = self._reader.hits, self._reader.misses
        if inputs.records:
            batch, outcome.dead_letters = decode(inputs.records, self._settings.core.future_ms)
            if len(batch):
                self._score(batch, outcome)
            self._advance(inputs.records)
        for partition, offset in inputs.next_offsets.items():
            held = self._held(partition)
            held.next_offset = max(held.next_offset, offset)
            self._touched.add(partition)
        outcome.changes += self._tenants.changes()
        outcome.changes += self._sessions.changes()
        outcome.changes += self._book.changes()
        for partition in sorted(self._touched):
            cursor = msgspec.json.encode(self._partitions[partition].cursor())
            outcome.changes.append(StateChange(partition, CURSOR_KEY, cursor))
        self._touched.clear()
        outcome.counts["embedding_cache_hits"] = self._reader.hits - hits
        outcome.counts["embedding_cache_misses"] = self._reader.misses - misses
        return outcome

    def _apply(self, control: Applied, topic: str, outcome: Outcome) -> None:
        held = self._held(control.partition)
        self._touched.add(control.partition)
        outcome.journal.append(
            JournalEntry(
                control.partition,
                orjson.dumps(
                    {
                        "before_offset": held.next_offset,
                        "control_offset": control.control_offset,
                        "kind": control.kind,
                        "partition": control.partition,
                        "seq": held.journal_seq,
                        "value": dict(control.value),
                    },
                    option=orjson.OPT_SORT_KEYS,
                ),
            )
        )
        held.journal_seq += 1
        if control.kind == "tick":
            self._tick(held, int(control.value["core_time_ms"]), topic, outcome)
        else:
            held.release = str(control.value.get("release", held.release))
            held.config_hash = str(control.value.get("config_hash", held.config_hash))
            if control.control_offset is not None:
                held.next_control = control.control_offset + 1

    def _tick(self, held: Partition, core_time_ms: int, topic: str, outcome: Outcome) -> None:
        """Time passes without an event: fire what is due."""
        if core_time_ms <= held.core_time_ms:
            return
        held.core_time_ms = core_time_ms
        closed = self._quiet_sessions(held, core_time_ms, set())
        rows = np.array([row for _, _, row in closed], np.int64)
        tenants = self._tenants.find([key[:2] for _, key, _ in closed])
        maxima = self._sessions["session_maxima"][rows]
        outcome.changes += self._pending.store(
            Segments.none(self._novelty.dim), Closings(tenants, maxima), self._tenants
        )
        self._sessions.remove([key for _, key, _ in closed])
        source = (topic, held.number, held.next_offset)
        self._close_findings(held, core_time_ms, lambda _: source, outcome)

    def _advance(self, records: Sequence[Record]) -> None:
        for record in records:
            held = self._held(record.partition)
            held.next_offset = record.offset + 1
            held.ingest_time_ms = record.timestamp_ms
            self._touched.add(record.partition)

    def _score(self, batch: EventBatch, outcome: Outcome) -> None:
        timed = self._timed(batch, outcome)
        live = batch.take(timed.live)
        core_time = timed.core_time_ms[timed.live]
        core_end = np.fromiter((self._partitions[p].core_time_ms for p in live.partition.tolist()), np.int64, len(live))
        keys: list[Key] = [
            (p, head.tenant, head.session) for p, head in zip(live.partition.tolist(), live.heads, strict=True)
        ]
        runs = find_runs(keys, core_time, core_end, self._sessions, self._settings.core.session_quiet_ms)
        new, heads = find_new_content(live, runs, self._sessions)
        contents = self._contents(live, new)
        tenant, names = self._tenant_rows(keys)
        given, x = self._given(live, runs, new, contents, tenant, names)
        closing = self._closing(timed, runs, tenant)
        maxima = np.full((len(runs.keys), len(KINDS)), np.nan)
        carried = runs.row >= 0
        maxima[carried] = self._sessions["session_maxima"][runs.row[carried]]
        scores, segments, closings = self._step.score(given, closing, maxima, self._tenants, self._pending)
        self._store_tenants(given)
        self._store_sessions(live, core_time, runs, heads, given, maxima, x)
        outcome.changes += self._pending.store(segments, closings, self._tenants)
        self._report(timed, given, scores, new, contents, outcome)

    # -- time ------------------------------------------------------------------------------------------------------------

    def _timed(self, batch: EventBatch, outcome: Outcome) -> _Timed:
        """Core time, lateness and duplicates, partition by partition."""
        n = len(batch)
        core = np.empty(n, np.int64)
        late = np.zeros(n, bool)
        duplicate = np.zeros(n, bool)
        of_partition: dict[int, NDArray[np.int64]] = {}
        for number in np.unique(batch.partition).tolist():
            held = self._held(number)
            mine = np.flatnonzero(batch.partition == number)
            of_partition[number] = mine
            times = batch.event_time_ms[mine]
            core[mine] = np.maximum(np.maximum.accumulate(times), held.core_time_ms)
            late[mine] = times < core[mine] - self._settings.core.lateness_ms
            held.core_time_ms = int(core[mine[-1]])
            ids = [bytes.fromhex(batch.heads[i].event_id[:32]) for i in mine.tolist()]
            contents = [bytes.fromhex(batch.heads[i].source.raw_sha256[:16]) for i in mine.tolist()]
            times_list = core[mine].tolist()
            duplicate[mine], conflicting = held.dedup.check(ids, contents, times_list)
            rows = held.dedup.commit(ids, contents, times_list)
            outcome.changes += [StateChange(number, key, value) for key, value in rows]
            outcome.counts["conflicting_ids"] = outcome.counts.get("conflicting_ids", 0) + sum(conflicting)
        return _Timed(batch, core, late, duplicate, np.flatnonzero(~duplicate), of_partition)

    def _quiet_sessions(self, held: Partition, core_time_ms: int, touched: set[Key]) -> list[tuple[int, Key, int]]:
        """Open sessions without an event in this batch that quiet has closed: (due, key, row), by due, then key."""
        looked_at = [key for key in held.due_sessions(core_time_ms) if key in self._sessions]
        rows = self._sessions.find(looked_at).tolist()
        quiet_ms = self._settings.core.session_quiet_ms
        out = []
        for key, row in zip(looked_at, rows, strict=True):
            due = int(self._sessions["last_core_ms"][row]) + quiet_ms
            if due > core_time_ms or key in touched:
                held.watch(max(due, core_time_ms + 1), key)
            else:
                out.append((due, key, row))
        return sorted(out)

    def _closing(self, timed: _Timed, runs: Runs, tenant: NDArray[np.int64]) -> Closing:
        """Sessions that close within the batch, each with the event before which it does."""
        touched = set(runs.keys)
        stored = self._sessions["session_maxima"]
        nothing = np.full(len(KINDS), np.nan)
        closed: list[tuple[int, Key, int, NDArray[np.float64]]] = []
        for number in timed.of_partition:
            held = self._partitions[number]
            for due, key, row in self._quiet_sessions(held, held.core_time_ms, touched):
                closed.append((due, key, -1, stored[row].copy()))
        for due, row in zip(runs.replaced_ms.tolist(), runs.replaced.tolist(), strict=True):
            closed.append((due, self._sessions.key(row), -1, stored[row].copy()))
        for run in np.flatnonzero(runs.ended_ms != NEVER_MS).tolist():
            closed.append((int(runs.ended_ms[run]), runs.keys[run], run, nothing))
        closed.sort(key=lambda item: item[:3])
        self._sessions.remove([key for _, key, run, _ in closed if run < 0 and key not in touched])
        before = []
        for due, key, _, _ in closed:
            mine = timed.of_partition[key[0]]
            at = int(np.searchsorted(timed.core_time_ms[mine], due))
            # The event itself, in the batch; behind the last one when none passes it here.
            event = int(mine[at]) if at < len(mine) else int(mine[-1]) + 1
            before.append(int(np.searchsorted(timed.live, event)))
        return Closing(
            self._tenants.find([key[:2] for _, key, _, _ in closed]),
            np.array(before, np.int64),
            np.array([run for _, _, run, _ in closed], np.int64),
            np.stack([values for *_, values in closed]) if closed else np.zeros((0, len(KINDS))),
        )

    # -- columns ---------------------------------------------------------------------------------------------------------

    def _contents(self, live: EventBatch, new: NewContent) -> list[Content]:
        messages = []
        for event, position in zip(new.event.tolist(), new.message.tolist(), strict=True):
            head = live.heads[event]
            request = len(head.messages)
            messages.append(head.messages[position] if position < request else head.output[position - request])
        return self._reader.read(messages)

    def _tenant_rows(self, keys: Sequence[Key]) -> tuple[NDArray[np.int64], list[str]]:
        """State rows (n) of the events' tenants; one that is new starts from the release's warm row, if it has one."""
        local: dict[Key, int] = {}
        index = np.fromiter((local.setdefault(key[:2], len(local)) for key in keys), np.int64, len(keys))
        names = list(local)
        rows = self._tenants.find(names)
        missing = np.flatnonzero(rows < 0)
        if len(missing):
            rows[missing] = self._tenants.create([names[i] for i in missing.tolist()])
            calibration = self._release.calibration
            self._tenants["location"][rows[missing]] = calibration.prior_location
            self._tenants["scale"][rows[missing]] = calibration.prior_scale
            warm = [(self._release.warm_rows.get(names[i][1], -1), int(rows[i])) for i in missing.tolist()]
            known = np.array([pair for pair in warm if pair[0] >= 0], np.int64).reshape(-1, 2)
            for name, column in self._release.warm.items():
                self._tenants[name][known[:, 1]] = column[known[:, 0]]
            self._tenants.mark("learned", known[:, 1])
        return rows[index], [names[i][1] for i in index.tolist()]

    def _given(
        self,
        live: EventBatch,
        runs: Runs,
        new: NewContent,
        contents: Sequence[Content],
        tenant: NDArray[np.int64],
        names: Sequence[str],
    ) -> tuple[ScoreInput, tuple[NDArray[np.int8], NDArray[np.int64]]]:
        ordinal, opened, session_ordinal = self._ordinals(runs, tenant)
        stored_time = np.where(runs.row >= 0, self._sessions["last_event_ms"][runs.row], NEVER_MS)[runs.of_event]
        previous = np.where(runs.previous >= 0, live.event_time_ms[runs.previous], stored_time)
        previous = np.where(previous == NEVER_MS, live.event_time_ms, previous)
        x = features(live, new, contents, previous)
        window, lengths, tail, tail_lengths = windows(x, runs, self._sessions)
        heard = np.flatnonzero(new.unseen)
        parts = [contents[i] for i in heard.tolist()]
        counts = np.fromiter((len(part.texts) for part in parts), np.int64, len(parts))
        event = np.repeat(new.event[heard], counts)
        owner = np.fromiter(
            (int.from_bytes(blake2b(key[2].encode(), digest_size=8).digest(), "big") for key in runs.keys),
            np.uint64,
            len(runs.keys),
        )
        dim = self._novelty.dim
        adapters = self._release.adapters
        given = ScoreInput(
            tenant=tenant,
            ordinal=ordinal,
            ordinal_before=self._tenants["ordinal"][tenant].astype(np.int64),
            opened=opened,
            session_ordinal=session_ordinal,
            run=runs.of_event,
            windows=window,
            lengths=lengths,
            adapter=np.fromiter((adapters.get(name, -1) for name in names), np.int64, len(names)),
            segment_event=event,
            segment_role=np.concatenate([part.roles for part in parts]) if parts else np.zeros(0, np.int8),
            segment_chars=np.concatenate([part.lengths for part in parts]) if parts else np.zeros(0, np.float32),
            segment_vector=np.concatenate([part.vectors for part in parts]) if parts else np.zeros((0, dim), np.int8),
            segment_owner=owner[runs.of_event[event]],
        )
        return given, (tail, tail_lengths)

    def _ordinals(
        self, runs: Runs, tenant: NDArray[np.int64]
    ) -> tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.int64]]:
        """Of each event (n): its number in its tenant, sessions opened by then, its session's number."""
        opens = (runs.position == 0) & (runs.row[runs.of_event] < 0)
        order = np.argsort(tenant, kind="stable")
        grouped = tenant[order]
        starts = np.flatnonzero(np.r_[True, grouped[1:] != grouped[:-1]]) if len(order) else np.zeros(0, np.int64)
        sizes = np.diff(np.r_[starts, len(order)])
        running = np.cumsum(opens[order])
        before = np.repeat(running[starts] - opens[order][starts], sizes)
        ordinal, opened = np.empty(len(order), np.int64), np.empty(len(order), np.int64)
        ordinal[order] = np.arange(len(order)) - np.repeat(starts, sizes) + 1
        opened[order] = running - before
        ordinal += self._tenants["ordinal"][tenant].astype(np.int64)
        opened += self._tenants["sessions"][tenant].astype(np.int64)
        of_run = self._sessions["session_ordinal"][runs.row].astype(np.int64)
        first = np.flatnonzero(opens)
        of_run[runs.of_event[first]] = opened[first]
        return ordinal, opened, of_run[runs.of_event]

    # -- state -----------------------------------------------------------------------------------------------------------

    def _store_tenants(self, given: ScoreInput) -> None:
        # The last of several writes to one row stays, which is the latest event's.
        self._tenants["ordinal"][given.tenant] = given.ordinal
        self._tenants["sessions"][given.tenant] = given.opened
        self._tenants.mark("tenant", np.unique(given.tenant))

    def _store_sessions(
        self,
        live: EventBatch,
        core_time_ms: NDArray[np.int64],
        runs: Runs,
        heads: Sequence[Heads],
        given: ScoreInput,
        maxima: NDArray[np.float64],
        tails: tuple[NDArray[np.int8], NDArray[np.int64]],
    ) -> None:
        """Each session's last run is what is left of it: a row while it is open, else nothing."""
        k = len(runs.keys)
        final = [i for i in range(k) if i + 1 == k or runs.keys[i + 1] != runs.keys[i]]
        self._sessions.remove(
            [runs.keys[i] for i in final if runs.ended_ms[i] != NEVER_MS and runs.keys[i] in self._sessions]
        )
        stay = [i for i in final if runs.ended_ms[i] == NEVER_MS]
        if not stay:
            return
        rows = self._sessions.find([runs.keys[i] for i in stay])
        absent = np.flatnonzero(rows < 0)
        rows[absent] = self._sessions.create([runs.keys[stay[i]] for i in absent.tolist()])
        run = np.array(stay, np.int64)
        last = runs.last[run]
        counts = np.bincount(runs.of_event, minlength=k)[run]
        table = self._sessions
        goes_on = runs.row[run] >= 0
        table["events"][rows] = np.where(goes_on, table["events"][rows], 0) + counts
        table["session_ordinal"][rows] = given.session_ordinal[last]
        table["last_core_ms"][rows] = core_time_ms[last]
        table["last_event_ms"][rows] = live.event_time_ms[last]
        table["session_maxima"][rows] = maxima[run]
        tail, tail_lengths = tails
        table["window"][rows] = tail[run]
        table["window_used"][rows] = tail_lengths[run]
        store_heads(table, rows, [heads[i] for i in stay])
        table.mark("session", rows)
        quiet_ms = self._settings.core.session_quiet_ms
        for i in np.flatnonzero(~goes_on).tolist():
            key = runs.keys[stay[i]]
            self._partitions[key[0]].watch(int(core_time_ms[last[i]]) + quiet_ms, key)

    # -- what is said of it ----------------------------------------------------------------------------------------------

    def _report(
        self,
        timed: _Timed,
        given: ScoreInput,
        scores: Scores,
        new: NewContent,
        contents: Sequence[Content],
        outcome: Outcome,
    ) -> None:
        batch = timed.batch
        at = np.full(len(batch), -1, np.int64)
        at[timed.live] = np.arange(len(timed.live))
        found = scores.anomalous & ~scores.young
        uids: dict[int, str] = {}
        for number, mine in timed.of_partition.items():
            held = self._partitions[number]
            core = timed.core_time_ms[mine]

            def source_of(due_ms: int, mine: NDArray[np.int64] = mine, core: NDArray[np.int64] = core) -> tuple[str, int, int]:
                event = int(mine[np.searchsorted(core, due_ms)])
                return batch.topic, int(batch.partition[event]), int(batch.offset[event])

            flagged = [i for i in mine.tolist() if at[i] >= 0 and found[at[i]]]
            for i in flagged:
                self._close_findings(held, int(timed.core_time_ms[i]), source_of, outcome)
                event = anomaly(batch, i, int(at[i]), int(timed.core_time_ms[i]), given, scores, new, contents)
                emitted = self._book.flag(event, self._release.name)
                uids[i] = emitted.uid
                source = (batch.topic, number, int(batch.offset[i]))
                outcome.findings.append(placed(emitted, source, self._settings.topics.partitions))
            self._close_findings(held, held.core_time_ms, source_of, outcome)
        decisions: Counter[str] = Counter()
        ordinals = self._last_ordinals(batch, at, given)
        for i in range(len(batch)):
            record, decision = score_record(
                batch, i, int(at[i]), bool(timed.late[i]), ordinals[i], scores, uids.get(i), self._release.name
            )
            outcome.scores.append(record)
            decisions[decision] += 1
        outcome.counts.update(decisions)

    def _last_ordinals(self, batch: EventBatch, at: NDArray[np.int64], given: ScoreInput) -> list[int]:
        """Of each event its ordinal; of a duplicate the one its tenant had reached."""
        numbers = given.ordinal[at].tolist() if len(given.ordinal) else [0] * len(batch)
        repeats = np.flatnonzero(at < 0).tolist()
        if not repeats:
            return numbers
        keys = [(p, head.tenant) for p, head in zip(batch.partition.tolist(), batch.heads, strict=True)]
        last: dict[Key, int] = {}
        for i in reversed(range(len(batch))):
            if at[i] >= 0:
                last[keys[i]] = numbers[i] - 1
            else:
                row = int(self._tenants.find([keys[i]])[0])
                stored = int(self._tenants["ordinal"][row]) if row >= 0 else 0
                numbers[i] = last.get(keys[i], stored)
        return numbers

    def _close_findings(self, held: Partition, core_time_ms: int, source_of, outcome: Outcome) -> None:
        for due, entity in self._book.due(held.number, core_time_ms):
            emitted = self._book.close(entity, due, self._release.name)
            outcome.findings.append(placed(emitted, source_of(due), self._settings.topics.partitions))

    # -- rows ------------------------------------------------------------------------------------------------------------

    def _held(self, number: int) -> Partition:
        held = self._partitions.get(number)
        if held is None:
            dedup = self._settings.dedup
            held = self._partitions[number] = Partition(
                number, Dedup(dedup.events_max, dedup.window_ms), release=self._release.name
            )
        return held

    def _load(self, held: Partition, kind: str, ids: list[str], value: bytes) -> None:
        if kind in ("tenant", "learned"):
            self._tenants.load(held.number, kind, ids, value)
        elif kind == "session":
            row = self._sessions.load(held.number, kind, ids, value)
            due = int(self._sessions["last_core_ms"][row]) + self._settings.core.session_quiet_ms
            held.watch(due, (held.number, *ids))
        elif kind == "finding":
            self._book.load(held.number, ids, value)
        elif kind == "pending":
            row = int(self._tenants.find([(held.number, ids[0])])[0])
            if row < 0:
                raise StateError(
                    f"pending row {ids!r} in partition {held.number} has no tenant. "
                    "Rebuild the partition's state, see docs/runbook.md."
                )
            self._pending.load(held.number, row, ids, value)
        elif kind == "dedup":
            held.dedup.load(ids, value)
        else:
            raise StateError(
                f"state row of kind {kind!r} in partition {held.number}: a newer version wrote it. "
                "Run that version, or rebuild the partition's state, see docs/runbook.md."
            )


def _cursor(value: bytes, partition: int) -> Cursor:
    try:
        return msgspec.json.decode(value, type=Cursor)
    except msgspec.DecodeError as error:
        raise StateError(
            f"cursor of partition {partition} cannot be read: {error}. "
            "Rebuild the partition's state, see docs/runbook.md."
        ) from error


def _named(key: bytes, partition: int) -> tuple[str, list[str]]:
    try:
        kind, *ids = orjson.loads(key)
    except (ValueError, TypeError) as error:
        raise StateError(
            f"state key {key[:80]!r} in partition {partition} must be a JSON array [kind, …]. "
            "Rebuild the partition's state, see docs/runbook.md."
        ) from error
    return str(kind), [str(name) for name in ids]
